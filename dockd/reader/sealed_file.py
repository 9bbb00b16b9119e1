"""The sealed file as a reader makes it: in the docking's own incoming directory, under its final name when durable."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dockd.errors import SpoolFull
from dockd.faultpoints import Point

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.faults import Faults
    from dockd.model import AcquisitionId


class SealedFile:
    """A file of known length that is being written; `close` belongs in a finally.

    Any OSError of the spool is SpoolFull: the clip waits on its camera.
    """

    def __init__(self, directory_fd: int, acquisition: AcquisitionId, size_bytes: int, faults: Faults) -> None:
        self._directory_fd = directory_fd
        self._part = f"{acquisition}.part"
        self._name = f"{acquisition}.age"
        self._size_bytes = size_bytes
        self._faults = faults
        self._written = 0
        self._fd = -1

    def open(self) -> None:
        """Create the file with all its room, so that a full disk shows before the first byte."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _spool_errors():
            self._drop()  # of an attempt that was cut short in this docking
            self._fd = os.open(self._part, flags, 0o600, dir_fd=self._directory_fd)
            self._faults.act(Point.SPOOL_ROOM, os.posix_fallocate, self._fd, 0, self._size_bytes)

    def write(self, block: bytes | memoryview) -> None:
        """Append a block, whole."""
        view = memoryview(block)
        with _spool_errors():
            while view:
                count = self._faults.write(Point.SPOOL_DATA, self._fd, view)
                self._written += count
                view = view[count:]

    def finish(self) -> None:
        """Check the length, fsync, rename, fsync the directory: on return the file is durable under its name."""
        if self._written != self._size_bytes:
            raise ValueError(f"{self._written} bytes were sealed, {self._size_bytes} were computed")
        with _spool_errors():
            self._faults.act(Point.SPOOL_SYNC, os.fsync, self._fd)
            self._close()
            place = self._directory_fd
            self._faults.act(Point.SPOOL_NAME, os.rename, self._part, self._name, src_dir_fd=place, dst_dir_fd=place)
            self._faults.act(Point.SPOOL_NAME_SYNC, os.fsync, place)

    def close(self) -> None:
        """Remove what was written, unless it was finished. Idempotent."""
        self._close()
        with suppress(OSError):  # its docking's corner goes as a whole
            self._drop()

    def _drop(self) -> None:
        with suppress(FileNotFoundError):
            os.stat(self._part, dir_fd=self._directory_fd, follow_symlinks=False)
            self._faults.act(Point.SPOOL_PART, os.unlink, self._part, dir_fd=self._directory_fd)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@contextmanager
def _spool_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolFull(f"the spool cannot take the clip: {error.strerror}") from error
