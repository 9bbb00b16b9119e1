"""Where on a card a file lies, seen from the host: what a test breaks there, and looks at afterwards."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import cards

from dockd.filesystems import Extent, ReadAt, Superblock, open_volume, probe


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extents(image: Path, made: cards.Made, name: str) -> tuple[Extent, ...]:
    """Offset on the card and length of each piece of a file."""
    if made.kind == "ext4":
        return _of_ext4(image, made, name)
    found = open_volume(_reader(image, made)).extents(name.encode())
    assert found, f"{name} lies nowhere"
    return tuple((made.offset + offset, length) for offset, length in found)


def superblock(image: Path, made: cards.Made) -> Superblock | None:
    """What its file system says of itself now."""
    return probe(_reader(image, made))


def content(image: Path, places: tuple[Extent, ...]) -> bytes:
    """What the card holds there."""
    with image.open("rb") as card:
        pieces = []
        for offset, length in places:
            card.seek(offset)
            pieces.append(card.read(length))
    return b"".join(pieces)


def at(places: tuple[Extent, ...], offset: int) -> int:
    """Where on the card the byte at this offset of the file lies."""
    for start, length in places:
        if offset < length:
            return start + offset
        offset -= length
    raise AssertionError("the file is not that long")


def _reader(image: Path, made: cards.Made) -> ReadAt:
    """Reads within the volume, whose place on the card is as it was made."""

    def read(offset: int, size: int) -> bytes:
        with image.open("rb") as card:
            card.seek(made.offset + offset)
            return card.read(min(size, made.size_bytes - offset))

    return read


def _of_ext4(image: Path, made: cards.Made, name: str) -> tuple[Extent, ...]:
    volume = f"{image}?offset={made.offset}"
    command = ["debugfs", "-R", f"blocks /{name}", volume]
    blocks = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    shown = subprocess.run(["dumpe2fs", "-h", volume], check=True, capture_output=True, text=True).stdout
    size = next(int(line.split()[-1]) for line in shown.splitlines() if line.startswith("Block size:"))
    assert blocks, f"{name} lies nowhere"
    return tuple((made.offset + int(block) * size, size) for block in blocks)
