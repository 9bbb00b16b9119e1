"""File systems that nobody made in earnest: bits flipped, fields set, sizes that no machine could hold."""

import tracemalloc
from contextlib import suppress

import pytest
from cards import Part, make_volume
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dockd.errors import FilesystemUnclear
from dockd.filesystems import open_volume, probe

MEMORY_BYTES = 64 * 1024 * 1024
FILES = {f"DCIM/100/A long name of clip {n}.MP4": bytes([n]) * (9_000 * n) for n in range(6)} | {
    "TOP.BIN": b"t" * 5_000
}
PARTS = {
    "fat12": Part(fat_bits=12, size_bytes=2 << 20, files=FILES),
    "fat16": Part(fat_bits=16, size_bytes=16 << 20, files=FILES),
    "fat32": Part(fat_bits=32, size_bytes=40 << 20, files=FILES, cluster_bytes=512),
    "exfat": Part(
        kind="exfat", size_bytes=4 << 20, files=FILES, chained=("TOP.BIN", "DCIM/100/A long name of clip 3.MP4")
    ),
    "ext4": Part(kind="ext4", size_bytes=2 << 20, files=FILES),
}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """The bytes of each, and where they hold something: blocks of 512 bytes without the clips' own."""
    made = {}
    for name, part in PARTS.items():
        path = tmp_path_factory.mktemp(name) / "volume"
        make_volume(path, part)
        content = path.read_bytes()
        blocks = [at for at in range(0, len(content), 512) if len(set(content[at : at + 512])) > 1]
        made[name] = (content, blocks)
    return made


class Altered:
    """A volume with some bytes changed, the original shared; `cut` ends it early."""

    def __init__(self, content: bytes, changes: dict[int, int], cut: int | None = None) -> None:
        self._content, self._changes, self._end = content, changes, len(content) if cut is None else cut
        self.bytes_read = 0

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= 0
        assert size >= 0
        piece = bytearray(self._content[offset : min(offset + size, self._end)])
        self.bytes_read += len(piece)
        for at, value in self._changes.items():
            if offset <= at < offset + len(piece):
                piece[at - offset] = value
        return bytes(piece)


def look(read) -> None:
    """Everything that can be asked. Only FilesystemUnclear may come of it."""
    found = probe(read)
    assert found is None or found.kind in ("vfat", "exfat", "ext4")
    try:
        volume = open_volume(read)
    except FilesystemUnclear:
        return
    assert isinstance(volume.unaccounted([path.encode() for path in FILES]), str)
    with suppress(FilesystemUnclear):
        for file in volume.files():
            assert file.unclear or file.is_directory or sum(length for _, length in file.extents) == file.size_bytes
            assert all(offset >= 0 and length > 0 for offset, length in file.extents)
    for path in FILES:
        with suppress(FilesystemUnclear):
            volume.extents(path.encode())


# Small steps and big ones, in bytes that matter: places are chosen among those that hold something.
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 1 << 16), st.integers(0, 511), st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("name", PARTS)
@given(changes=CHANGES)
@settings(max_examples=150, deadline=2000)
def test_changed_bytes_end_in_a_result_or_a_reason(volumes, name, changes):
    content, blocks = volumes[name]
    look(Altered(content, {blocks[block % len(blocks)] + at: value for block, at, value in changes}).read)


@pytest.mark.parametrize("name", PARTS)
@given(changes=st.dictionaries(st.integers(11, 120), st.integers(0, 255), min_size=1, max_size=4))
@example(changes={13: 128})
@example(changes={22: 255, 23: 255})
@settings(max_examples=150, deadline=2000)
def test_changed_boot_sectors_end_in_a_result_or_a_reason(volumes, name, changes):
    content, _ = volumes[name]
    if name == "exfat":
        changes = {**changes, **_summed(content, changes)}
    look(Altered(content, changes).read)


@pytest.mark.parametrize("name", PARTS)
@given(cut=st.integers(0, 1 << 20))
@settings(max_examples=50, deadline=2000)
def test_a_volume_cut_short_ends_in_a_result_or_a_reason(volumes, name, cut):
    look(Altered(volumes[name][0], {}, cut).read)


def _summed(content: bytes, changes: dict[int, int]) -> dict[int, int]:
    total = 0
    for place in range(11 * 512):
        if place not in (106, 107, 112):
            total = ((total << 31 | total >> 1) & 0xFFFFFFFF) + changes.get(place, content[place]) & 0xFFFFFFFF
    return {11 * 512 + at: byte for at, byte in enumerate(total.to_bytes(4, "little"))}


def _stating(content: bytes, name: str, clusters: int) -> bytes:
    """The boot sectors of a volume of so many clusters of 512 bytes, with one FAT."""
    boot, sectors = bytearray(content[:8192]), clusters // 128 + 2
    if name == "fat32":
        boot[13], boot[16] = 1, 1
        boot[32:36] = (32 + sectors + clusters).to_bytes(4, "little")
        boot[36:40] = sectors.to_bytes(4, "little")
        return bytes(boot)
    boot[109] = 0
    boot[72:80] = (1 << 40).to_bytes(8, "little")
    boot[84:88] = sectors.to_bytes(4, "little")
    boot[88:92] = (sectors + 4096).to_bytes(4, "little")
    boot[92:96] = clusters.to_bytes(4, "little")
    boot[96:100] = (5).to_bytes(4, "little")
    for at, byte in _summed(bytes(boot), {}).items():
        boot[at] = byte
    return bytes(boot)


@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x05, 0x41, 0x85, 0xE5])
@pytest.mark.parametrize("name", ["fat32", "exfat"])
def test_a_volume_of_many_clusters_takes_bounded_memory(volumes, name, fill):
    """Whatever is read behind the boot sectors is one byte, repeated."""
    boot = _stating(volumes[name][0], name, 1 << 19)
    assert open_volume(lambda offset, size: (boot[offset:] + bytes(size))[:size])

    def read(offset, size):
        assert size <= MEMORY_BYTES
        return (boot[offset : offset + size] + bytes([fill]) * size)[:size]

    tracemalloc.start()
    try:
        look(read)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["fat32", "exfat"])
def test_more_clusters_than_are_followed_are_refused(volumes, name):
    boot = _stating(volumes[name][0], name, (1 << 25) + 1)
    with pytest.raises(FilesystemUnclear, match="more than 33554432"):
        open_volume(lambda offset, size: (boot[offset:] + bytes(size))[:size])
