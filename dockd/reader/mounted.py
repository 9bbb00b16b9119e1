"""A camera whose files are reached below directory descriptors, component by component: a folder, or volumes."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dockd.core.canonical import encode_path
from dockd.errors import CameraGone, ClipBusy, ClipChanged, ClipGone, ClipRefused, DockdError, EraseFailed
from dockd.model import CameraIdentity, FoundFile, Medium, MediumKind
from dockd.reader import listing
from dockd.reader.cache import CacheWatch, set_buffered
from dockd.reader.camera import GONE, differences
from dockd.reader.erase import erase
from dockd.reader.roots import DIRECTORY, FILE, FolderRoot, Root, VolumeRoot, open_quietly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.core.warrant import EraseWarrant
    from dockd.faults import Faults
    from dockd.model import Erasure, ListedFile
    from dockd.reader.carry import Carried
    from dockd.reader.rules import ClipRules
    from dockd.reader.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClip:
    """A clip that is open under a lease."""

    fd: int
    directory_fd: int
    name: bytes
    path: bytes
    root: Root

    def lease_holds(self) -> bool:
        """Whether no program has opened the clip to write since; asked of the kernel, which answers at once."""
        return fcntl.fcntl(self.fd, fcntl.F_GETLEASE) != fcntl.F_UNLCK

    def found(self) -> FoundFile:
        """The file as it is now."""
        return listing.found(self.path, os.fstat(self.fd), keeps_inodes=self.root.keeps_inodes)

    def changed_ns(self) -> int:
        """Its ctime, in nanoseconds. FAT and exFAT keep none: there the kernel gives the time of change."""
        return os.fstat(self.fd).st_ctime_ns

    def read(self, view: memoryview, offset: int) -> int:
        """Bytes of the file into `view`."""
        return os.preadv(self.fd, [view], offset)

    def leave_direct(self) -> None:
        """Read through the page cache from now on."""
        set_buffered(self.fd)

    def second_read(self) -> CacheWatch:
        """Empty the page cache of it, and read around it where that can be had."""
        return CacheWatch(self.fd)


class MountedCamera:
    """The roots of one camera. Where there are several, the first component of a path is the volume's name."""

    def __init__(self, medium: Medium, identity: CameraIdentity, carried: Carried | None = None) -> None:
        """Take on its descriptors. Raises CameraGone, CameraRefused; they are closed then.

        `carried` is from the reader before, which let go of the same volumes: raises CameraGone where it did not.
        """
        self.identity = identity
        self.kind = medium.kind
        self.volumes = tuple((volume.name, volume.filesystem, volume.volume_id) for volume in medium.volumes)
        self.generation = 0 if carried is None else carried.generation + 1  # of its descriptors
        if carried is not None and carried.volumes != self.volumes:
            for volume in medium.volumes:
                _close(volume.root_fd, volume.block_fd)
            raise CameraGone("these are not the volumes that the reader let go of")
        self._roots: dict[bytes, Root] = {}
        self._hold(medium)

    @property
    def roots(self) -> tuple[Root, ...]:
        """All of them, in the medium's order. Raises CameraGone while the camera is let go of."""
        if not self._roots:
            raise CameraGone("the reader let go of the camera")
        return tuple(self._roots.values())

    def attached(self) -> bool:
        """Whether every root is still there."""
        return bool(self._roots) and all(root.attached() for root in self._roots.values())

    def require_attached(self) -> None:
        """Raise CameraGone unless it is attached."""
        if not self.attached():
            raise CameraGone("the camera left its bay")

    def identify(self) -> CameraIdentity:
        """Read anew who it is: a folder's marker, every volume's id. Raises CameraRefused, CameraGone."""
        identity = self.identity
        for root in self.roots:
            identity = root.identify(identity)
        return identity

    def walk(self, rules: ClipRules) -> Iterator[ListedFile]:
        """Every file of every volume. Raises CameraGone."""
        return listing.walk(self, rules)

    def erase(self, work: Work, warrant: EraseWarrant, changed_ns: int | None) -> Erasure:
        """Erase the warrant's file and look again."""
        return erase(self, work, warrant, changed_ns)

    def let_go(self, faults: Faults) -> None:
        """Close every descriptor of it. Raises EraseFailed where what was written did not reach the medium.

        They are closed then, too.
        """
        roots, self._roots = self._roots, {}
        failures = []
        for root in roots.values():
            try:
                root.sync(faults)
            except OSError as error:
                failures.append(f"the medium did not take what was written: {error.strerror}")
            finally:
                root.close()
        if failures:
            raise EraseFailed(failures[0])

    def split(self, path: bytes) -> tuple[Root, bytes]:
        """The root that a path leads to, and the rest of the path below it. Raises OSError where there is none."""
        roots = self.roots
        if len(roots) == 1:
            return roots[0], path
        name, _, rest = path.partition(b"/")
        if name not in self._roots:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._roots[name], rest

    def open_directory(self, path: bytes) -> int:
        """A new descriptor of the directory `path` (b"" is the only root), reached without following any link.

        OSErrors pass through: ELOOP or ENOTDIR for a link, EXDEV for another file system.
        """
        root, inner = self.split(path)
        return open_below(root, inner)

    @contextmanager
    def clip(self, file: FoundFile, *, to_erase: bool = False) -> Iterator[OpenClip]:
        """Open a clip under a lease and see that it is the very file that was listed.

        A read lease means that no program has it open to write; to erase, a write lease means that none has it open
        at all. Raises CameraGone, ClipGone, ClipBusy, ClipChanged or ClipRefused.
        """
        try:
            root, inner = self.split(file.path)
            parent, _, name = inner.rpartition(b"/")
            directory_fd = open_below(root, parent)
        except OSError as error:
            raise self.translate(error, file.path.rpartition(b"/")[0]) from error
        try:
            fd = self._open(directory_fd, name, to_erase=to_erase)
            try:
                clip = OpenClip(fd=fd, directory_fd=directory_fd, name=name, path=file.path, root=root)
                _check(clip, file)
                _lease(clip, fcntl.F_WRLCK if to_erase else fcntl.F_RDLCK)
                _check(clip, file)  # again, now that nobody can change it unseen
                yield clip
            finally:
                os.close(fd)
        finally:
            os.close(directory_fd)

    def translate(self, error: OSError, path: bytes) -> DockdError:
        """What an OSError on a clip means: mostly that the camera, or the clip, is gone."""
        number = error.errno or 0
        if number in GONE or not self.attached():
            return CameraGone(f"the camera left its bay: {error.strerror}")
        if number == errno.ENOENT:
            return ClipGone(f"{encode_path(path)} is no longer on the camera")
        if number in (errno.EWOULDBLOCK, errno.ETXTBSY):
            return ClipBusy("some program has the clip open")
        return ClipRefused(f"{encode_path(path)} cannot be opened: {error.strerror}")

    def _hold(self, medium: Medium) -> None:
        roots: dict[bytes, Root] = {}
        try:
            for volume in medium.volumes:
                root = FolderRoot(volume) if medium.kind is MediumKind.FOLDER else VolumeRoot(volume)
                roots[root.name] = root
        except BaseException:
            for volume in medium.volumes:
                _close(volume.root_fd, volume.block_fd)
            raise
        self._roots = roots

    def _open(self, directory_fd: int, name: bytes, *, to_erase: bool) -> int:
        flags = FILE | (os.O_RDWR if to_erase else os.O_RDONLY)
        try:
            before = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            if not stat.S_ISREG(before.st_mode):  # a FIFO or a device is not even opened
                raise ClipRefused(f"{encode_path(name)} is not a regular file")
            return open_quietly(name, flags, directory_fd)
        except OSError as error:
            raise self.translate(error, name) from error


def open_below(root: Root, path: bytes) -> int:
    """A new descriptor of a directory below one root (b"" is the root itself). OSErrors pass through."""
    if b".." in path.split(b"/"):
        raise OSError(errno.ELOOP, "a path that leads upward")
    fd = open_quietly(b".", DIRECTORY, root.fd)
    try:
        for component in filter(None, path.split(b"/")):
            below = open_quietly(component, DIRECTORY, fd)
            os.close(fd)
            fd = below
        device = os.fstat(fd).st_dev
    except BaseException:
        os.close(fd)
        raise
    if device != root.number:
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return fd


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _check(clip: OpenClip, file: FoundFile) -> None:
    status = os.fstat(clip.fd)
    if not stat.S_ISREG(status.st_mode) or status.st_dev != clip.root.number:
        raise ClipRefused(f"{encode_path(clip.name)} is not a regular file of this camera")
    if status.st_nlink > 1:
        raise ClipRefused(f"{encode_path(clip.name)} has {status.st_nlink} links: which of them is the clip?")
    now = clip.found()
    if now != file:
        raise ClipChanged(f"{encode_path(clip.name)} is not the file that was listed: {differences(file, now)}")


def _lease(clip: OpenClip, kind: int) -> None:
    try:
        fcntl.fcntl(clip.fd, fcntl.F_SETLEASE, kind)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EBUSY):
            what = "open" if kind == fcntl.F_WRLCK else "open for writing"
            raise ClipBusy(f"some program has {encode_path(clip.name)} {what}") from error
        raise ClipRefused(
            f"no lease on {encode_path(clip.name)} ({error.strerror}): it cannot be told whether it is in use; "
            "dockd needs to own the files of a camera"
        ) from error
