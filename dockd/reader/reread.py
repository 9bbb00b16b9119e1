"""Reread: a second, independent pass over a clip, from the medium and around the page cache where that can be had."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from dockd.model import AcquisitionId, CacheState, Digest, FoundFile, Reread
from dockd.reader import kernel
from dockd.reader.work import ClipReader, Pulse, Work, require_unchanged

if TYPE_CHECKING:
    from dockd.reader.camera import OpenClip

_WINDOW_BYTES = 256 * 1024 * 1024  # that mincore is asked about at once: its answer then takes 64 KiB


def reread(work: Work, acquisition: AcquisitionId, file: FoundFile) -> tuple[Reread, int]:
    """Read the clip again and say where its bytes came from. Raises as `acquire`, but for SpoolFull.

    The number beside it is the file's change time (ctime, nanoseconds) when that was done: no program can set it
    back, so an erasure can tell that nothing was written since.
    """
    with work.camera.clip(file) as clip:
        source = _Source(clip, file.size_bytes)
        reader = ClipReader(work=work, clip=clip, size_bytes=file.size_bytes, direct=source.direct)
        pulse = Pulse(work, acquisition, "reread", clip, file.size_bytes)
        plain = hashlib.sha256()
        for offset, block, _ in reader.blocks():
            plain.update(block)
            pulse.beat(offset + len(block))
            source.look(offset, len(block), direct=reader.direct)
        require_unchanged(clip, file)
        changed_ns = os.fstat(clip.fd).st_ctime_ns
        work.camera.require_attached()
        work.faults.at("reread.done", file.path)
    again = Reread(
        docking=work.docking,
        file=file,
        plaintext_digest=Digest(f"sha256:{plain.hexdigest()}"),
        cache=source.state(direct=reader.direct),
    )
    return again, changed_ns


class _Source:
    """Where the bytes of one second read come from.

    The page cache is emptied of the clip first, and the kernel is asked whether it is. With O_DIRECT the pages must
    then stay away while they are read; a file system that takes the flag and still reads through its cache is
    found out that way.
    """

    def __init__(self, clip: OpenClip, size_bytes: int) -> None:
        self._clip = clip
        self._in_memory = kernel.in_memory(clip.fd)
        self._dropped = not self._in_memory and _drop(clip.fd, size_bytes)
        self._around = True  # no page was seen to come back behind a direct read
        self.direct = not self._in_memory and self._go_direct()

    def look(self, offset: int, size: int, *, direct: bool) -> None:
        """After a direct read of a block: did it fill the page cache?"""
        if direct and self._around and size:
            self._around = _cached(self._clip.fd, offset, size) == 0

    def state(self, *, direct: bool) -> CacheState:
        """What the record may say. `direct`: every block was read with O_DIRECT."""
        if self.direct and direct and self._around:
            return CacheState.DIRECT
        return CacheState.DROPPED if self._dropped else CacheState.CACHED

    def _go_direct(self) -> bool:
        flags = fcntl.fcntl(self._clip.fd, fcntl.F_GETFL)
        with suppress(OSError):
            fcntl.fcntl(self._clip.fd, fcntl.F_SETFL, flags | os.O_DIRECT)
            return True
        return False


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
