"""Where ext4 keeps things on its device, as the kernel says: FIEMAP for one file, GETFSMAP for the whole volume."""

from __future__ import annotations

import fcntl
import struct
from typing import TYPE_CHECKING

from dockd.errors import FilesystemUnclear

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIEMAP = 0xC020660B  # linux/fiemap.h: FS_IOC_FIEMAP
_FIEMAP_HEAD = struct.Struct("=QQIIII")
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")
_SYNC_FIRST = 1
_LAST = 0x1
_UNWRITTEN = 0x800  # it has room, and nothing of the file in it
_UNCLEAR = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400  # unknown, delayed, encoded, encrypted, unaligned, inline

_GETFSMAP = 0xC0C0583B  # linux/fsmap.h: FS_IOC_GETFSMAP
_FSMAP_HEAD = struct.Struct("=IIII48x")
_FSMAP = struct.Struct("=IIQQQQ24x")
_MOST = (1 << 64) - 1
_SPECIAL_OWNER = 0x10
_OWNER_FREE = 1

_AT_ONCE = 512


def file_extents(fd: int) -> Iterator[tuple[int, int]]:
    """Offset and length on the device of everything that was written of a file or directory, in its order.

    Raises FilesystemUnclear where some of it does not lie in blocks of its own, OSError where the kernel does not say.
    """
    start = 0
    while True:
        buffer = bytearray(_FIEMAP_HEAD.size + _AT_ONCE * _FIEMAP_EXTENT.size)
        _FIEMAP_HEAD.pack_into(buffer, 0, start, _MOST - start, _SYNC_FIRST, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FIEMAP, buffer)
        mapped = _FIEMAP_HEAD.unpack_from(buffer)[3]
        flags = _LAST
        for number in range(mapped):
            at = _FIEMAP_HEAD.size + number * _FIEMAP_EXTENT.size
            logical, physical, length, flags = _FIEMAP_EXTENT.unpack_from(buffer, at)
            if flags & _UNCLEAR:
                raise FilesystemUnclear("part of it does not lie in blocks of its own")
            if not flags & _UNWRITTEN:
                yield physical, length
            start = logical + length
        if flags & _LAST:
            return


def free_extents(fd: int) -> Iterator[tuple[int, int]]:
    """Offset and length on the device of everything that belongs to nothing, in order. OSErrors pass through."""
    device, flags, physical, owner, offset = 0, 0, 0, 0, 0
    while True:
        buffer = bytearray(_FSMAP_HEAD.size + (2 + _AT_ONCE) * _FSMAP.size)
        _FSMAP_HEAD.pack_into(buffer, 0, 0, 0, _AT_ONCE, 0)
        _FSMAP.pack_into(buffer, _FSMAP_HEAD.size, device, flags, physical, owner, offset, 0)
        _FSMAP.pack_into(buffer, _FSMAP_HEAD.size + _FSMAP.size, 0xFFFFFFFF, 0xFFFFFFFF, _MOST, _MOST, _MOST, 0)
        fcntl.ioctl(fd, _GETFSMAP, buffer)
        entries = _FSMAP_HEAD.unpack_from(buffer)[3]
        for number in range(entries):
            at = _FSMAP_HEAD.size + (2 + number) * _FSMAP.size
            device, flags, physical, owner, offset, length = _FSMAP.unpack_from(buffer, at)
            if flags & _SPECIAL_OWNER and owner & 0xFFFFFFFF == _OWNER_FREE and not owner >> 32:
                yield physical, length
        if entries < _AT_ONCE:
            return
        physical += length  # go on behind the last one
        owner = offset = 0
