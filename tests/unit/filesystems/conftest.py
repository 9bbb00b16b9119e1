"""Images in memory: made once by the stock tools, altered by each test."""

import random

import pytest
from cards import Part, make_volume


class Image:
    """The bytes of a volume, to be looked at and damaged."""

    def __init__(self, content: bytes, files: dict[str, bytes]) -> None:
        self.content = bytearray(content)
        self.files = files

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.content[offset : offset + size])

    def number(self, offset: int, width: int) -> int:
        return int.from_bytes(self.content[offset : offset + width], "little")

    def set(self, offset: int, width: int, value: int) -> None:
        self.content[offset : offset + width] = value.to_bytes(width, "little")

    @property
    def paths(self) -> list[bytes]:
        return [path.encode() for path in self.files]

    def stored(self, volume) -> dict[str, bytes]:
        """What the volume's extents hold, by path."""
        return {
            file.path.decode(): b"".join(self.read(*extent) for extent in file.extents)
            for file in volume.files()
            if not file.is_directory
        }


FILES = {
    "DCIM/100MEDIA/CLIP0001.MP4": random.Random(1).randbytes(50_000),
    "DCIM/100MEDIA/a name of more than one entry, wíth nön-ASCII € here.mp4": random.Random(2).randbytes(4096),
    "DCIM/100MEDIA/EMPTY.MP4": b"",
    "DCIM/101MEDIA/lower.txt": random.Random(3).randbytes(1),
    "DCIM/Mixed.Case.log": random.Random(4).randbytes(70_001),
    "top.bin": random.Random(5).randbytes(9_000),
}


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """`image("vfat", fat_bits=16)`: a fresh copy of a small volume that holds FILES, or `files`."""
    made = {}

    def make(kind: str, **options) -> Image:
        size = {32: 40 << 20, 16: 16 << 20}.get(options.get("fat_bits"), 4 << 20)  # mtools counts clusters
        options = {"fat_bits": 12, "size_bytes": size, "volume_id": "1234-ABCD", "files": FILES, **options}
        if kind == "ext4":
            options["volume_id"] = "0d0c0d0c-1111-4222-8333-444455556666"
        key = repr((kind, sorted(options.items())))
        if key not in made:
            path = tmp_path_factory.mktemp("volumes") / "image"
            make_volume(path, Part(kind=kind, **options))
            made[key] = path.read_bytes()
        return Image(made[key], options["files"])

    return make
