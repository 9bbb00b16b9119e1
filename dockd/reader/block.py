"""A block device, read around the page cache: what it answers comes from the medium."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from dockd.errors import CameraRefused
from dockd.reader.cache import set_direct

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096  # no disk has larger sectors: reads begin and end at multiples of it
SECTOR = 512  # no file system gives smaller pieces to different owners
_PIECE_BYTES = 1024 * 1024
_ZEROS = bytes(_PIECE_BYTES)


class BlockDevice:
    """The device behind a descriptor. The descriptor is the caller's; whoever shares it finds O_DIRECT set on it."""

    def __init__(self, fd: int) -> None:
        if not set_direct(fd):
            raise CameraRefused("its block device cannot be read around the page cache")
        self._fd = fd
        self._buffer = mmap.mmap(-1, _PIECE_BYTES)  # O_DIRECT wants memory at a page boundary

    def read(self, offset: int, size: int) -> bytes:
        """Bytes anywhere on it; fewer only at its end. OSErrors pass through: the medium did not give them."""
        parts = []
        while size > 0:
            skip = offset % PAGE
            got = self._fill(offset - skip, min(_PIECE_BYTES, -(-(skip + size) // PAGE) * PAGE)) - skip
            if got <= 0:
                break
            part = self._buffer[skip : skip + min(got, size)]
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def other_than_zero(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """The stretches of a range that hold other bytes than zeros, as offset and length: a sector of it each.

        Raises OSError where the medium does not give the range, or ends before it.
        """
        end = offset + size
        while offset < end:
            skip = offset % PAGE
            wanted = min(_PIECE_BYTES, -(-(end - offset + skip) // PAGE) * PAGE)
            got = self._fill(offset - skip, wanted)
            stop = min(end, offset - skip + got)
            if stop <= offset:
                raise OSError(f"the device ends at {offset}")
            view = memoryview(self._buffer)[skip : skip + stop - offset]
            if not is_zero(view):
                yield from _sectors(view, offset)
            offset = stop

    def close(self) -> None:
        """Let the buffer go; the descriptor stays."""
        self._buffer.close()

    def _fill(self, offset: int, size: int) -> int:
        """Read to the buffer's start, again and again while pages are missing. Returns how much there is."""
        total = 0
        with memoryview(self._buffer) as view:
            while total < size:
                count = os.preadv(self._fd, [view[total:size]], offset + total)
                total += count
                if count == 0 or total % PAGE:  # the end of the device
                    break
        return total


def is_zero(view: memoryview) -> bool:
    """Whether there are only zeros in it: by memcmp, and without a copy."""
    return all(_ZEROS.startswith(view[at : at + _PIECE_BYTES]) for at in range(0, len(view), _PIECE_BYTES))


def _sectors(view: memoryview, offset: int) -> Iterator[tuple[int, int]]:
    """The sectors of `view`, which stands at `offset`, that are not all zeros."""
    start = 0
    while start < len(view):
        stop = min(len(view), start + SECTOR - (offset + start) % SECTOR)
        if not is_zero(view[start:stop]):
            yield offset + start, stop - start
        start = stop
