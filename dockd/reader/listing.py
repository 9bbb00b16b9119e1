"""Walk a camera by descriptors: every entry is named once, with what the rules make of it. No link is followed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dockd.errors import CameraGone
from dockd.model import FileKind, FoundFile, ListedFile
from dockd.reader.camera import GONE
from dockd.reader.cross_check import CrossCheck
from dockd.reader.roots import DIRECTORY, Root, open_quietly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dockd.reader.mounted import MountedCamera
    from dockd.reader.rules import ClipRules

MAX_FILE_BYTES = 8 * 1024**4  # no camera holds more: a file system that states more is broken, or hostile
MAX_PATH_BYTES = 4096  # of a directory: what lies in deeper ones is refused, so that a message stays short
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH  # of FAT and exFAT: no read-only attribute

_KINDS = {
    stat.S_IFLNK: "a symbolic link: it is not followed",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class _Full(Exception):
    """The camera has more entries than one listing takes."""


def found(path: bytes, status: os.stat_result, *, keeps_inodes: bool) -> FoundFile:
    """A file's status as the record in use everywhere."""
    return FoundFile(
        path=path,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino if keeps_inodes else 0,
        links=status.st_nlink,
    )


def walk(camera: MountedCamera, rules: ClipRules) -> Iterator[ListedFile]:
    """Every entry of a camera but the directories that were looked into. Raises CameraGone."""
    yield from walk_roots(camera.roots, rules)
    camera.require_attached()


def walk_roots(roots: Sequence[Root], rules: ClipRules) -> Iterator[ListedFile]:
    """Every entry below these roots but the directories that were looked into. Raises CameraGone.

    At most `max_depth` + 1 directories are open at once. Where the cap on entries is reached, one refused entry says
    so, with the directory where it was.
    """
    count = 0
    for root in roots:
        walker = _Walker(root, rules, b"" if len(roots) == 1 else root.name, count)
        root_fd, whole = open_quietly(b".", DIRECTORY, root.fd), True
        try:
            for listed in walker.directory(root_fd, walker.path, 0):
                whole &= listed.kind is not FileKind.REFUSED
                yield listed
        except _Full:
            yield _refused(
                walker.path, f"more than {rules.max_files} entries on this camera: the rest was not looked at"
            )
            break
        count = walker.count
        finding = walker.check.finding() if whole else ""
        if finding:
            yield _refused(walker.prefix, f"the listing may not be whole: {finding}")


class _Walker:
    """Lists one root. The rules are asked about paths in it, whatever its name stands before them."""

    def __init__(self, root: Root, rules: ClipRules, prefix: bytes, count: int) -> None:
        self.prefix = prefix
        self.path = prefix  # the directory that is being listed
        self.count = count  # entries so far
        self.check = CrossCheck(root)
        self._root = root
        self._rules = rules
        self._skip = len(prefix) + 1 if prefix else 0

    def directory(self, fd: int, path: bytes, depth: int) -> Iterator[ListedFile]:
        """Everything in and below one directory; closes `fd`."""
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    self.path = path
                    self.count += 1
                    if self.count > self._rules.max_files:
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
            yield self._refused(path, _KINDS.get(stat.S_IFMT(status.st_mode), "neither file nor directory"), status)

    def _below(self, fd: int, path: bytes, name: bytes, depth: int, status: os.stat_result) -> Iterator[ListedFile]:
        if depth >= self._rules.max_depth:
            yield self._refused(path, f"deeper than {self._rules.max_depth} directories: not looked into", status)
        elif len(path) > MAX_PATH_BYTES:
            yield self._refused(path, f"a path of more than {MAX_PATH_BYTES} bytes: not looked into", status)
        elif status.st_dev != self._root.number:
            yield self._refused(path, "another file system is mounted here: not looked into", status)
        else:
            try:
                below = open_quietly(name, DIRECTORY, fd)
            except OSError as error:
                yield self._failed(error, path, "cannot be opened")
                return
            yield from self.directory(below, path, depth + 1)

    def _file(self, path: bytes, status: os.stat_result) -> ListedFile:
        if status.st_dev != self._root.number:
            return self._refused(path, "a file of another file system is mounted here", status)
        inner = path[self._skip :]
        if status.st_size > MAX_FILE_BYTES:
            return self._refused(path, f"it states a size of {status.st_size} bytes, more than any camera holds")
        self.check.shown(inner)
        file = found(path, status, keeps_inodes=self._root.keeps_inodes)
        return self._rules.judge(file, inner, read_only=not status.st_mode & _WRITABLE)

    def _failed(self, error: OSError, path: bytes, what: str) -> ListedFile:
        if error.errno in GONE:
            raise CameraGone(f"the camera left its bay: {error.strerror}") from error
        return self._refused(path, f"{what}: {error.strerror}")

    def _refused(self, path: bytes, reason: str, status: os.stat_result | None = None) -> ListedFile:
        if status is None:
            return _refused(path, reason)
        file = found(path, status, keeps_inodes=self._root.keeps_inodes)
        return ListedFile(file=file, kind=FileKind.REFUSED, reason=reason)


def _refused(path: bytes, reason: str) -> ListedFile:
    nothing = FoundFile(path=path, size_bytes=0, mtime_ns=0, inode=0)
    return ListedFile(file=nothing, kind=FileKind.REFUSED, reason=reason)
