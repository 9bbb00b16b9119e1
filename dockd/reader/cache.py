"""Around the page cache: the medium's own word on a clip, and the record of whether it was had."""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress

from dockd.model import CacheState
from dockd.reader import kernel

_WINDOW_BYTES = 256 * 1024 * 1024  # that mincore is asked about at once: its answer then takes 64 KiB


class CacheWatch:
    """Where the bytes of one second read of an open file come from.

    The page cache is emptied of the clip first, and the kernel is asked whether it is. With O_DIRECT the pages must
    then stay away while they are read; a file system that takes the flag and still reads through its cache is
    found out that way.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._in_memory = kernel.in_memory(fd)
        self._dropped = not self._in_memory and _drop(fd, os.fstat(fd).st_size)
        self._around = True  # no page was seen to come back behind a direct read
        self.direct = not self._in_memory and set_direct(fd)

    def look(self, offset: int, size: int, *, direct: bool) -> None:
        """After a direct read of a block: did it fill the page cache?"""
        if direct and self._around and size:
            self._around = _cached(self._fd, offset, size) == 0

    def state(self, *, direct: bool) -> CacheState:
        """What the record may say. `direct`: every block was read with O_DIRECT."""
        if self.direct and direct and self._around:
            return CacheState.DIRECT
        return CacheState.DROPPED if self._dropped else CacheState.CACHED


def set_direct(fd: int) -> bool:
    """Read with O_DIRECT from now on. Whether the file system takes it."""
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
        return True
    return False


def set_buffered(fd: int) -> None:
    """Read through the page cache from now on."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)


def _drop(fd: int, size_bytes: int) -> bool:
    """Empty the page cache of a file, dirty pages included. Whether the kernel says that it is empty."""
    with suppress(OSError):
        os.fsync(fd)  # a page that still has to be written is never dropped
    with suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return all(
            _cached(fd, start, min(_WINDOW_BYTES, size_bytes - start)) == 0
            for start in range(0, size_bytes, _WINDOW_BYTES)
        )
    return False


def _cached(fd: int, offset: int, size: int) -> int:
    """Pages in the cache; where that cannot be asked, all of them."""
    with suppress(OSError):
        return kernel.cached_pages(fd, offset, size)
    return -(-size // mmap.PAGESIZE)
