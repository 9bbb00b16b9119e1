"""Files that survive a power cut: temporary name, write, length check, fsync, rename, fsync of the directory.

A file made here is either there whole or not there at all. What a kill leaves behind is a temporary file, which
`is_temporary` recognises by its name, so that whoever owns the directory can remove it at start.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, ParamSpec

from dockd import faults as no

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _typeshed import ReadableBuffer as Buffer

    from dockd.faultpoints import FilePoints, Point
    from dockd.faults import Faults
    from dockd.model import Entropy

_P = ParamSpec("_P")

_PREFIX = "."
_SUFFIX = ".dockd-tmp"
_NAME_LIMIT = 255  # bytes in one file name, on every Linux file system we meet
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # FAT and its kin know no hard links


def fsync_directory(directory: Path | int) -> None:
    """Make the names in `directory` (a path or an open descriptor) durable. Raises OSError; may be repeated."""
    if isinstance(directory, int):
        os.fsync(directory)
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether `name` is one that `temporary_beside` makes up: an unfinished file, of no worth once its maker ended."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def write_file(
    path: Path, content: bytes, *, mode: int = 0o600, points: FilePoints | None = None, faults: Faults = no.NONE
) -> None:
    """Put exactly `content` at `path`, durably, in place of whatever was there.

    Safe to repeat: the second call leaves the same bytes. Raises OSError (ENOSPC, EACCES and the rest pass through);
    then `path` holds the old content or, where only the last fsync failed, the new one.
    """
    with temporary_beside(path, mode=mode, points=points, faults=faults) as file:
        file.write(content)
        if file.tell() != len(content):
            raise OSError(errno.EIO, f"wrote {file.tell()} of {len(content)} bytes", str(path))


@contextmanager
def temporary_beside(
    path: Path,
    *,
    mode: int = 0o600,
    replace: bool = True,
    random: Entropy = secrets.token_bytes,
    points: FilePoints | None = None,
    faults: Faults = no.NONE,
) -> Iterator[IO[bytes]]:
    """Yield a new file in the directory of `path`; when the block ends well, it stands durably at `path`.

    When the block raises anything, cancellation and KeyboardInterrupt included, the file is gone and `path` is as it
    was. With `replace=False` an existing `path` is never overwritten: FileExistsError. `mode` holds whatever the umask.
    `points` name the four durable acts to `faults`.
    Raises OSError as it comes; after a failing last fsync (of the directory) the file is at `path`, but a power cut
    may still undo that.
    """
    directory = path.parent
    temporary = directory / _temporary_name(path.name, random)
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            # The file object does not own the descriptor: its close() would flush once more and hide the first error.
            with io.BufferedWriter(_Raw(descriptor, points, faults)) as file:
                yield file
                file.flush()
                _check_length(file, path)
                _at(points.sync if points else None, faults, os.fsync, descriptor)
        finally:
            os.close(descriptor)
        _at(points.name if points else None, faults, partial(_put_in_place, replace=replace), temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _at(points.name_sync if points else None, faults, fsync_directory, directory)


class _Raw(io.FileIO):
    """A descriptor that stays its opener's, whose writes are a fault point. What is written short, is written on."""

    def __init__(self, descriptor: int, points: FilePoints | None, faults: Faults) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._points = points
        self._faults = faults

    def write(self, block: Buffer, /) -> int:
        """Write some of it; returns how much."""
        if self._points is None:
            return super().write(block)
        return self._faults.write(self._points.data, self.fileno(), memoryview(block))


def _at(point: Point | None, faults: Faults, call: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
    if point is None:
        call(*args, **kwargs)
    else:
        faults.act(point, call, *args, **kwargs)


def _check_length(file: IO[bytes], path: Path) -> None:
    """A short file must never get a finished file's name."""
    written, present = file.tell(), os.fstat(file.fileno()).st_size
    if written != present:
        raise OSError(errno.EIO, f"wrote {written} bytes, the file has {present}", str(path))


def _put_in_place(temporary: Path, path: Path, *, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    try:
        # link(2) fails where the name exists, which rename(2) does not.
        os.link(temporary, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (*_NO_LINKS, errno.EEXIST):
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        temporary.rename(path)
    else:
        temporary.unlink()


def _temporary_name(name: str, random: Entropy) -> str:
    tail = "." + random(8).hex() + _SUFFIX
    room = _NAME_LIMIT - len(_PREFIX) - len(tail)
    return _PREFIX + os.fsdecode(os.fsencode(name)[:room]) + tail
