"""What the parsers hand out, and how they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dockd.errors import FilesystemUnclear

ReadAt = Callable[[int, int], bytes]
"""`read(offset, size)` on a volume, both in bytes. Fewer bytes at its end; an OSError passes through the parsers."""

Extent = tuple[int, int]
"""Offset and length on the volume, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What a volume says of itself, its files left aside."""

    kind: str  # "vfat", "exfat", "ext4": as udev's ID_FS_TYPE
    volume_id: str  # as udev's ID_FS_UUID: "1234-ABCD" or a UUID; "" where there is none
    label: str  # "" where there is none
    size_bytes: int  # as the file system says, which may be less than its partition
    block_bytes: int  # the unit in which it gives room to files: a cluster, or a block
    dirty: str  # why it is not clean, in words; "" for a clean one
    like: Mapping[str, str | int]  # what is needed to make an empty one like it; its keys depend on the kind


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file or directory, as its directory names it."""

    path: bytes  # as Linux shows it with utf8, relative to the volume's root
    size_bytes: int  # 0 for a directory
    extents: tuple[Extent, ...]  # in the file's order, `size_bytes` in all; of a directory, all that it takes
    is_directory: bool
    unclear: str = ""  # why its extents cannot be told, in words; there are none then


def exactly(read: ReadAt, offset: int, size: int) -> bytes:
    """All of `size` bytes. Raises FilesystemUnclear where the volume ends before."""
    piece = read(offset, size)
    if len(piece) != size:
        raise FilesystemUnclear(f"the volume ends before byte {offset + size}")
    return piece
