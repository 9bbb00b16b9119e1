"""Walk a camera by descriptors: every entry is named once, with what the rules make of it. No link is followed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dockd.errors import CameraGone
from dockd.model import FileKind, FoundFile, ListedFile
from dockd.reader.camera import DIRECTORY, GONE, Camera, found, open_quietly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.reader.rules import ClipRules

MAX_FILE_BYTES = 8 * 1024**4  # no camera holds more: a file system that states more is broken, or hostile
MAX_PATH_BYTES = 4096  # of a directory: what lies in deeper ones is refused, so that a message stays short

_KINDS = {
    stat.S_IFLNK: "a symbolic link: it is not followed",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class _Full(Exception):
    """The camera has more entries than one listing takes."""


def walk(camera: Camera, rules: ClipRules) -> Iterator[ListedFile]:
    """Every entry below the root but the directories that were looked into. Raises CameraGone.

    At most `max_depth` + 1 directories are open at once. Where the cap on entries is reached, one refused entry says
    so, with the directory where it was.
    """
    walker = _Walker(camera, rules)
    root_fd = camera.open_directory(b"")
    try:
        yield from walker.directory(root_fd, b"", 0)
    except _Full:
        yield _refused(walker.path, f"more than {rules.max_files} entries on this camera: the rest was not looked at")
    camera.require_attached()


class _Walker:
    def __init__(self, camera: Camera, rules: ClipRules) -> None:
        self.path = b""  # the directory that is being listed
        self._camera = camera
        self._rules = rules
        self._count = 0

    def directory(self, fd: int, path: bytes, depth: int) -> Iterator[ListedFile]:
        """Everything in and below one directory; closes `fd`."""
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    self.path = path
                    self._count += 1
                    if self._count > self._rules.max_files:
                        raise _Full
                    name = os.fsencode(entry.name)
                    yield from self._entry(fd, path + b"/" + name if path else name, name, depth)
        except OSError as error:
            yield self._failed(error, path, "cannot be listed")
        finally:
            os.close(fd)

    def _entry(self, fd: int, path: bytes, name: bytes, depth: int) -> Iterator[ListedFile]:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # it left between the two calls: it is not there
        except OSError as error:
            yield self._failed(error, path, "cannot be looked at")
            return
        if stat.S_ISDIR(status.st_mode):
            yield from self._below(fd, path, name, depth, status)
        elif stat.S_ISREG(status.st_mode):
            yield self._file(path, status)
        else:
            yield _refused(path, _KINDS.get(stat.S_IFMT(status.st_mode), "neither file nor directory"), status)

    def _below(self, fd: int, path: bytes, name: bytes, depth: int, status: os.stat_result) -> Iterator[ListedFile]:
        if depth >= self._rules.max_depth:
            yield _refused(path, f"deeper than {self._rules.max_depth} directories: not looked into", status)
        elif len(path) > MAX_PATH_BYTES:
            yield _refused(path, f"a path of more than {MAX_PATH_BYTES} bytes: not looked into", status)
        elif status.st_dev != self._camera.device:
            yield _refused(path, "another file system is mounted here: not looked into", status)
        else:
            try:
                below = open_quietly(name, DIRECTORY, fd)
            except OSError as error:
                yield self._failed(error, path, "cannot be opened")
                return
            yield from self.directory(below, path, depth + 1)

    def _file(self, path: bytes, status: os.stat_result) -> ListedFile:
        if status.st_dev != self._camera.device:
            return _refused(path, "a file of another file system is mounted here", status)
        if status.st_size > MAX_FILE_BYTES:
            return _refused(path, f"it states a size of {status.st_size} bytes, more than any camera holds")
        file, kind = found(path, status), self._rules.kind(path)
        if kind is not FileKind.CLIP:
            return ListedFile(file=file, kind=kind)
        category, reason = self._rules.category(path)
        return ListedFile(file=file, kind=kind, category=category, reason=reason)

    def _failed(self, error: OSError, path: bytes, what: str) -> ListedFile:
        if error.errno in GONE:
            raise CameraGone(f"the camera left its bay: {error.strerror}") from error
        return _refused(path, f"{what}: {error.strerror}")


def _refused(path: bytes, reason: str, status: os.stat_result | None = None) -> ListedFile:
    nothing = FoundFile(path=path, size_bytes=0, mtime_ns=0, inode=0)
    file = nothing if status is None else found(path, status)
    return ListedFile(file=file, kind=FileKind.REFUSED, reason=reason)
