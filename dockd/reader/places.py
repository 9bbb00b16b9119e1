"""Where the files of a volume lie on its device, and whether every block of it belongs to one of them."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from dockd.core.canonical import encode_path
from dockd.errors import FilesystemUnclear
from dockd.filesystems import open_volume
from dockd.reader import fsmap
from dockd.reader.roots import DIRECTORY, VolumeRoot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dockd.filesystems import Extent
    from dockd.reader.mounted import OpenClip

MAX_DEPTH = 64
MAX_FREE = 1 << 17  # stretches of free space that are kept: 20 MiB; a fresh ext4 of 16 TiB has so many

_EXT4_FEATURES = 1024 + 0x5C  # s_feature_compat, with an inode for resizing among them
_RESIZE_INODE = 0x10
_NO_FIEMAP = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL})


class Places(Protocol):
    """One volume, as it was when this was made. FilesystemUnclear and OSError pass through every method."""

    def of_clip(self, clip: OpenClip, path: bytes) -> Iterator[Extent]:
        """Where an open clip lies; `path` is in the volume."""

    def named(self, path: bytes) -> bool:
        """Whether the directories on the medium name it. False where only the kernel reads these."""

    def of_directories(self) -> Iterator[Extent]:
        """What the root and all directories below it take."""

    def free(self) -> Iterator[Extent]:
        """Where nothing lies."""

    def unaccounted(self, paths: Collection[bytes]) -> str:
        """Why not every block belongs to one of these files, or to a directory; "" where each does."""

    def contradiction(self) -> str:
        """Why overwriting one file might change another; "" where it cannot."""


def places(root: VolumeRoot) -> Places:
    """Look into a volume. Raises FilesystemUnclear, OSError."""
    return _Ext4(root) if root.volume.filesystem == "ext4" else _Clusters(root)


def free_of(places: Places) -> list[Extent]:
    """The free stretches in order, of a file system that has few. Raises FilesystemUnclear beyond MAX_FREE."""
    found = sorted(islice(places.free(), MAX_FREE + 1))
    if len(found) > MAX_FREE:
        raise FilesystemUnclear(f"its free space lies in more than {MAX_FREE} pieces, which no fresh file system has")
    return found


class _Clusters:
    """FAT and exFAT, by our own eyes: the kernel does not tell where their files lie."""

    def __init__(self, root: VolumeRoot) -> None:
        self._volume = open_volume(root.device.read)

    def of_clip(self, clip: OpenClip, path: bytes) -> Iterator[Extent]:
        size = os.fstat(clip.fd).st_size
        extents = self._volume.extents(path)
        if extents is None:
            raise FilesystemUnclear("the directories on the medium do not name it")
        if sum(length for _, length in extents) != size:
            raise FilesystemUnclear("its clusters on the medium are not as many as its size needs")
        return iter(extents)

    def named(self, path: bytes) -> bool:
        return self._volume.extents(path) is not None

    def of_directories(self) -> Iterator[Extent]:
        yield from self._volume.extents(b"") or ()
        for file in self._volume.files():
            if file.is_directory:
                if file.unclear:
                    raise FilesystemUnclear(f"{encode_path(file.path)}: {file.unclear}")
                yield from file.extents

    def free(self) -> Iterator[Extent]:
        return self._volume.free()

    def unaccounted(self, paths: Collection[bytes]) -> str:
        return self._volume.unaccounted(paths)

    def contradiction(self) -> str:
        return self._volume.contradiction()


class _Ext4:
    """ext4, by what the kernel says of it."""

    def __init__(self, root: VolumeRoot) -> None:
        self._root = root

    def of_clip(self, clip: OpenClip, path: bytes) -> Iterator[Extent]:  # noqa: ARG002  the protocol's
        return _extents(clip.fd)

    def named(self, path: bytes) -> bool:  # noqa: ARG002  the protocol's
        return False

    def of_directories(self) -> Iterator[Extent]:
        for _, _, directory_fd in _directories(self._root):
            yield from _extents(directory_fd)

    def free(self) -> Iterator[Extent]:
        with _top(self._root) as fd:
            yield from fsmap.free_extents(fd)

    def unaccounted(self, paths: Collection[bytes]) -> str:
        """By comparing what is used with what everything that is shown takes."""
        missing, shown_bytes = set(paths), 0
        for path, names, directory_fd in _directories(self._root):
            shown_bytes += _room(os.fstat(directory_fd))
            for name in names:
                status, whole = os.stat(name, dir_fd=directory_fd, follow_symlinks=False), path + name
                if whole not in missing:
                    return f"{encode_path(whole)} is not among the files to be erased"
                if status.st_nlink != 1:
                    return f"{encode_path(whole)} has {status.st_nlink} links"
                missing.discard(whole)
                shown_bytes += _room(status)
        for path in missing:
            return f"{encode_path(path)} is not on the volume"
        with _top(self._root) as fd:
            room = os.fstatvfs(fd)
        used_bytes = (room.f_blocks - room.f_bfree - self._own_blocks()) * room.f_frsize
        if used_bytes != shown_bytes:
            return f"{used_bytes - shown_bytes} bytes belong to no file that is shown"
        return ""

    def contradiction(self) -> str:
        return ""  # the kernel refuses blocks that its own maps do not give to the file

    def _own_blocks(self) -> int:
        """Those of an empty one that no directory and no statistics show: one, in the inode for resizing."""
        features = self._root.device.read(_EXT4_FEATURES, 4)
        return 1 if int.from_bytes(features, "little") & _RESIZE_INODE else 0


def _extents(fd: int) -> Iterator[Extent]:
    try:
        yield from fsmap.file_extents(fd)
    except OSError as error:
        if error.errno in _NO_FIEMAP:
            raise FilesystemUnclear("the kernel does not say where it lies") from error
        raise


def _room(status: os.stat_result) -> int:
    return status.st_blocks * 512  # POSIX leaves the unit open; Linux counts in 512 bytes


def _directories(root: VolumeRoot) -> Iterator[tuple[bytes, list[bytes], int]]:
    """Every directory: its path with a slash behind it (the root: b""), what is in it but directories, a descriptor.

    Raises FilesystemUnclear for what cannot be looked into, or lies too deep.
    """

    def failed(error: OSError) -> None:
        raise FilesystemUnclear(f"a directory cannot be looked into: {error.strerror}") from error

    for top, _, names, fd in os.fwalk(b".", dir_fd=root.fd, onerror=failed):
        path = top[2:] + b"/" if top != b"." else b""
        if path.count(b"/") > MAX_DEPTH:
            raise FilesystemUnclear(f"directories more than {MAX_DEPTH} deep")
        if os.fstat(fd).st_dev != root.number:
            raise FilesystemUnclear("another file system is mounted in it")
        yield path, names, fd


@contextmanager
def _top(root: VolumeRoot) -> Iterator[int]:
    fd = os.open(b".", DIRECTORY, dir_fd=root.fd)
    try:
        yield fd
    finally:
        os.close(fd)
