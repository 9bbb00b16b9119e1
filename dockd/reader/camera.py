"""A camera as a reader sees it: one directory descriptor, and names below it, taken component by component."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dockd.core.canonical import encode_path
from dockd.core.marker import MARKER_NAME, MAX_MARKER_BYTES, parse_marker
from dockd.errors import CameraGone, CameraRefused, ClipBusy, ClipChanged, ClipGone, ClipRefused, DockdError
from dockd.model import CameraIdentity, FoundFile

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ENOMEDIUM, errno.ESHUTDOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClip:
    """A clip that is open under a lease."""

    fd: int
    directory_fd: int
    name: bytes
    path: bytes

    def lease_holds(self) -> bool:
        """Whether no program has opened the clip to write since; asked of the kernel, which answers at once."""
        return fcntl.fcntl(self.fd, fcntl.F_GETLEASE) != fcntl.F_UNLCK

    def found(self) -> FoundFile:
        """The file as it is now."""
        return found(self.path, os.fstat(self.fd))


def open_quietly(name: bytes, flags: int, directory_fd: int) -> int:
    """Open below a directory without leaving a trace of the access in it, where the file is ours."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, flags, dir_fd=directory_fd)


def found(path: bytes, status: os.stat_result) -> FoundFile:
    """A file's status as the record in use everywhere."""
    return FoundFile(
        path=path,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
        links=status.st_nlink,
    )


class Camera:
    """The root of one camera. Knows where it was attached, so that leaving is noticed even while descriptors live."""

    def __init__(self, root_fd: int, identity: CameraIdentity) -> None:
        self.root_fd = root_fd
        self.identity = identity
        status = os.fstat(root_fd)
        self.device = status.st_dev
        self._inode = status.st_ino
        self._place: tuple[int, int, bytes] | None = None
        self._place = self._look_up()
        if self._place is None:
            raise CameraGone("the camera left before its reader began")

    def attached(self) -> bool:
        """Whether the root still stands in the directory, and under the name, where it stood at the start."""
        return self._look_up() == self._place

    def require_attached(self) -> None:
        """Raise CameraGone unless it is attached."""
        if not self.attached():
            raise CameraGone("the camera left its bay")

    def identify(self) -> CameraIdentity:
        """Read the marker anew. Raises CameraRefused, CameraGone."""
        try:
            fd = open_quietly(MARKER_NAME, os.O_RDONLY | _FILE, self.root_fd)
        except OSError as error:
            raise CameraRefused(f"its dockd-camera.toml cannot be read: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CameraRefused("its dockd-camera.toml is no plain file")
            return parse_marker(os.read(fd, MAX_MARKER_BYTES + 1))
        except OSError as error:
            raise CameraGone(f"its dockd-camera.toml could not be read: {error.strerror}") from error
        finally:
            os.close(fd)

    def open_directory(self, path: bytes) -> int:
        """A new descriptor of the directory `path` (b"" is the root), reached without following any link.

        OSErrors pass through: ELOOP or ENOTDIR for a link, EXDEV for another file system.
        """
        if b".." in path.split(b"/"):
            raise OSError(errno.ELOOP, "a path that leads upward")
        fd = open_quietly(b".", DIRECTORY, self.root_fd)
        try:
            for component in filter(None, path.split(b"/")):
                below = open_quietly(component, DIRECTORY, fd)
                os.close(fd)
                fd = below
            device = os.fstat(fd).st_dev
        except BaseException:
            os.close(fd)
            raise
        if device != self.device:
            os.close(fd)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return fd

    @contextmanager
    def clip(self, file: FoundFile, *, to_erase: bool = False) -> Iterator[OpenClip]:
        """Open a clip under a lease and see that it is the very file that was listed.

        A read lease means that no program has it open to write; to erase, a write lease means that none has it open
        at all. Raises CameraGone, ClipGone, ClipBusy, ClipChanged or ClipRefused.
        """
        parent, _, name = file.path.rpartition(b"/")
        try:
            directory_fd = self.open_directory(parent)
        except OSError as error:
            raise self.translate(error, parent) from error
        try:
            fd = self._open(directory_fd, name, to_erase=to_erase)
            try:
                clip = OpenClip(fd=fd, directory_fd=directory_fd, name=name, path=file.path)
                self._check(clip, file)
                _lease(clip, fcntl.F_WRLCK if to_erase else fcntl.F_RDLCK)
                self._check(clip, file)  # again, now that nobody can change it unseen
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

    def _open(self, directory_fd: int, name: bytes, *, to_erase: bool) -> int:
        flags = _FILE | (os.O_RDWR if to_erase else os.O_RDONLY)
        try:
            before = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            if not stat.S_ISREG(before.st_mode):  # a FIFO or a device is not even opened
                raise ClipRefused(f"{encode_path(name)} is not a regular file")
            return open_quietly(name, flags, directory_fd)
        except OSError as error:
            raise self.translate(error, name) from error

    def _check(self, clip: OpenClip, file: FoundFile) -> None:
        status = os.fstat(clip.fd)
        if not stat.S_ISREG(status.st_mode) or status.st_dev != self.device:
            raise ClipRefused(f"{encode_path(clip.name)} is not a regular file of this camera")
        if status.st_nlink > 1:
            raise ClipRefused(f"{encode_path(clip.name)} has {status.st_nlink} links: which of them is the clip?")
        now = found(file.path, status)
        if now != file:
            raise ClipChanged(f"{encode_path(clip.name)} is not the file that was listed: {differences(file, now)}")

    def _look_up(self) -> tuple[int, int, bytes] | None:
        """The directory that holds the root, as device and inode, and the root's name in it."""
        try:
            above = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root_fd)
        except OSError:
            return None
        try:
            status = os.fstat(above)
            name = self._name_in(above)
        except OSError:
            return None
        finally:
            os.close(above)
        return None if name is None else (status.st_dev, status.st_ino, name)

    def _name_in(self, above: int) -> bytes | None:
        if self._place is not None:  # after the start only the name from then counts
            return self._place[2] if self._is_root(above, self._place[2]) else None
        with os.scandir(above) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if self._is_root(above, name):
                    return name
        return None

    def _is_root(self, above: int, name: bytes) -> bool:
        with suppress(OSError):
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            return (status.st_dev, status.st_ino) == (self.device, self._inode)
        return False


def differences(before: FoundFile, now: FoundFile) -> str:
    """In words, what is not the same."""
    words = []
    if before.size_bytes != now.size_bytes:
        words.append(f"{now.size_bytes} bytes instead of {before.size_bytes}")
    if before.mtime_ns != now.mtime_ns:
        words.append("another time of change")
    if before.inode != now.inode:
        words.append("another inode")
    if before.links != now.links:
        words.append(f"{now.links} links instead of {before.links}")
    return ", ".join(words) or "another name"


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
