"""The three verbs, for one volume of one camera. Whatever happens, it is locked again at the end."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dockd.blocker import devices, mounts
from dockd.blocker.allowed import CONFIG, check_not_ignored, check_port
from dockd.blocker.inuse import check_unused
from dockd.blocker.messages import Answer, BlockerError, Request
from dockd.blocker.recipes import recipes
from dockd.blocker.sysfs import NoPlace, Place, family, place

WAIT_S = 3.0  # for others to let go of the volume
_LOOK_S = 0.05
_PIECE = 16 * 1024 * 1024  # of zeroing, between two looks at the peer
_BLANK = 1024 * 1024  # at the start of a volume: where every file system says what it is
_DISCARD_PIECE = 1024 * 1024 * 1024
_GONE = (errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.ENOMEDIUM)
_CLASSES = ("08", "06")  # mass storage and still image; whatever else a device is, is no camera's business
_NO_DISCARD = (errno.EOPNOTSUPP, errno.EINVAL)
_PROGRAMS = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}

Fds = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who asks. `waits(seconds)` passes that time unless the peer leaves, and says whether it is still there."""

    uid: int
    gid: int
    waits: Callable[[float], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the kernel's file systems are, udev's records, and the station's configuration."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    udev: Path = Path("/run/udev/data")
    config: Path = CONFIG


class PeerLeft(Exception):
    """Nobody waits for the answer any more."""


class Guard:
    """One volume. Between two verbs it is mounted as the last one left it, or not at all."""

    def __init__(self, peer: Peer, machine: Machine) -> None:
        self._peer = peer
        self._machine = machine
        self._named: tuple[object, ...] = ()
        self._volume = -1  # while it is open its name and number go to no other device
        self._disk = -1
        self._root = -1
        self._directory = -1  # open since the mount was made: syncfs tells by it every error since
        self._writable = False

    def handle(self, request: Request) -> tuple[Answer, Fds]:
        """Do it. The descriptors are for the peer; close them once they are sent.

        Raises PeerLeft. After anything but success the volume is not mounted, and locked where it is still there.
        """
        try:
            found = self._check(request)
            match request.verb:
                case "read":
                    return self._read(found, request)
                case "write":
                    return self._write(found, request)
                case _:
                    return self._make(found, request), ()
        except BlockerError as error:
            self.release()
            return Answer(ok=False, error=error.kind, message=str(error)), ()
        except NoPlace as error:
            self.release()
            return Answer(ok=False, error="gone" if error.gone else "refused", message=str(error)), ()
        except OSError as error:
            self.release()
            kind = "gone" if error.errno in _GONE or self._is_gone(request) else "io"
            return Answer(ok=False, error=kind, message=f"{request.device}: {error.strerror or error}"), ()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go of the volume, and lock it. Idempotent; errors of a device that left are nobody's business."""
        self._unmount()
        for fd in (self._volume, self._disk):
            if fd >= 0:
                with suppress(OSError):
                    devices.set_read_only(fd, locked=True)
        self._writable = False
        self._close_devices()

    # --- the verbs

    def _read(self, found: Place, request: Request) -> tuple[Answer, Fds]:
        self._let_go(found)
        self._lock(found)
        return self._mount(found, request, writable=False)

    def _write(self, found: Place, request: Request) -> tuple[Answer, Fds]:
        self._let_go(found)
        self._unlock(found)
        return self._mount(found, request, writable=True)

    def _make(self, found: Place, request: Request) -> Answer:
        self._let_go(found)
        self._unlock(found)
        size = devices.size_bytes(self._volume)
        node = self._machine.dev / found.device
        fd = os.open(node, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            if request.blank:
                _check_blank(fd, size)
            if request.method == "discard":
                self._each_piece(size, _DISCARD_PIECE, lambda at, length: _discard(fd, at, length))
            else:
                self._each_piece(size, _PIECE, lambda at, length: devices.zero(fd, at, length))
            os.fsync(fd)
        finally:
            os.close(fd)
        how = self._make_filesystem(str(node), request, size)
        os.fsync(self._volume)
        self._lock(found)
        # The next verb starts from nothing.
        self.release()
        verb = "discarded" if request.method == "discard" else "overwrote with zeros"
        return Answer(ok=True, done=f"{verb} {size} bytes, then made {request.filesystem} by {how}")

    # --- steps

    def _check(self, request: Request) -> Place:
        """Look anew at what stands there. Opens the volume and its disk, unless they are open. Raises BlockerError."""
        named = (request.device, request.diskseq, request.port, request.serial)
        if self._named not in ((), named):
            raise BlockerError("refused", "this connection is for another volume")
        self._named = named
        found = place(request.device, self._machine.sys)
        check_port(found, self._machine.config)
        check_not_ignored(found, self._machine.udev)
        if found.port != request.port:
            raise BlockerError("refused", f"{found.device} stands at {found.port}, not at {request.port}")
        if found.diskseq != request.diskseq:
            raise BlockerError("gone", f"{found.device} is another disk now")
        if found.serial != request.serial:
            raise BlockerError("refused", f"{found.device} is of another camera: its serial number is another")
        others = [one for one in found.usb.interfaces if one[:2] not in _CLASSES]
        if others:
            raise BlockerError("refused", f"{found.device} is of a device that is more than a camera: {others[0]}")
        if request.verb != "read" and not found.partition and len(family(found)) > 1:
            raise BlockerError("refused", f"{found.device} has partitions: it is no volume by itself")
        check_unused(found, self._machine.proc)
        if self._volume < 0:
            self._volume = self._open(found.device, found.number)
            self._disk = self._open(found.disk, found.disk_number)
        for fd in (self._volume, self._disk):
            if devices.disk_sequence(fd) != request.diskseq:
                raise BlockerError("gone", f"{found.device} is another disk now")
        return found

    def _open(self, name: str, number: tuple[int, int]) -> int:
        fd = os.open(self._machine.dev / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        seen = os.fstat(fd)
        if not stat.S_ISBLK(seen.st_mode) or (os.major(seen.st_rdev), os.minor(seen.st_rdev)) != number:
            os.close(fd)
            raise BlockerError("gone", f"{name} is another device now")
        return fd

    def _let_go(self, found: Place) -> None:
        """Unmount, wait until nobody has it mounted, and raise what writing back came to.

        The wait goes first: what the peer's side of the mount wrote at its very end counts too.
        """
        failed: OSError | None = None
        if self._writable and self._directory >= 0:
            try:
                mounts.sync(self._directory)
            except OSError as error:
                failed = error
        self._unmount()
        self._wait_until_free(found)
        if self._writable:
            try:
                os.fsync(self._volume)  # the last words of the file system, written while it was unmounted
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _wait_until_free(self, found: Place) -> None:
        waited = 0.0
        while True:
            try:
                os.close(os.open(self._machine.dev / found.device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            else:
                return
            if waited >= WAIT_S:
                raise BlockerError("busy", f"something else has {found.device} in use")
            if not self._peer.waits(_LOOK_S):
                raise PeerLeft
            waited += _LOOK_S

    def _lock(self, found: Place) -> None:
        for fd in (self._volume, self._disk):
            devices.set_read_only(fd, locked=True)
            if not devices.is_read_only(fd):
                raise BlockerError("refused", f"{found.disk} cannot be set read-only")
        self._writable = False
        for fd in (self._volume, self._disk):
            devices.forget_cache(fd)

    def _unlock(self, found: Place) -> None:
        """The volume's own lock, and that of its disk, which counts for every partition. Siblings keep their own."""
        self._writable = True
        for fd in (self._disk, self._volume):
            devices.set_read_only(fd, locked=False)
        if devices.is_read_only(self._volume):
            raise BlockerError("io", f"{found.device} is write-protected")
        devices.forget_cache(self._volume)

    def _mount(self, found: Place, request: Request, *, writable: bool) -> tuple[Answer, Fds]:
        node = str(self._machine.dev / found.device)
        peer = self._peer
        try:
            self._root = mounts.mount(node, request.filesystem, writable=writable, uid=peer.uid, gid=peer.gid)
        except mounts.NotMounted as error:
            if error.number in _GONE or self._is_gone(request):
                raise BlockerError("gone", f"{found.device} is gone") from error
            kind = {errno.EBUSY: "busy", errno.EIO: "io"}.get(error.number, "unmountable")
            raise BlockerError(kind, f"{found.device} cannot be mounted as {request.filesystem}: {error}") from error
        self._directory = mounts.directory(self._root, uid=peer.uid, gid=peer.gid)
        # One of its own for the peer: what it does to its descriptor's flags does not reach ours.
        block = self._open(found.device, found.number)
        return Answer(ok=True, read_only=not writable), (os.dup(self._root), block)

    def _each_piece(self, size: int, piece: int, do: Callable[[int, int], None]) -> None:
        for at in range(0, size, piece):
            if not self._peer.waits(0):
                raise PeerLeft
            do(at, min(piece, size - at))

    def _make_filesystem(self, node: str, request: Request, size: int) -> str:
        said = ""
        for vectors in recipes(request.filesystem, node, request.like, size):
            for vector in vectors:
                said = _run(vector)
                if said:
                    break
            else:
                return ", ".join(" ".join(vector[:-1]) for vector in vectors)
        raise BlockerError("io", f"{request.device} has no file system now: {said}")

    # --- descriptors

    def _unmount(self) -> None:
        for fd in (self._directory, self._root):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self._directory = self._root = -1

    def _close_devices(self) -> None:
        for fd in (self._volume, self._disk):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self._volume = self._disk = -1

    def _is_gone(self, request: Request) -> bool:
        try:
            return place(request.device, self._machine.sys).diskseq != request.diskseq
        except NoPlace:
            return True


def _check_blank(fd: int, size: int) -> None:
    """Refuse a volume that somebody may have written to since its clearing was cut short: that would be lost."""
    devices.forget_cache(fd)
    start = os.pread(fd, min(size, _BLANK), 0)
    if len(start) != min(size, _BLANK) or any(start):
        raise BlockerError("refused", "the volume does not begin with zeros, as one that is half cleared does")


def _discard(fd: int, at: int, length: int) -> None:
    try:
        devices.discard(fd, at, length)
    except OSError as error:
        if at == 0 and error.errno in _NO_DISCARD:
            raise BlockerError("discard_unsupported", "the device does not take a discard") from error
        raise


def _run(vector: tuple[str, ...]) -> str:
    """Run a program by its argument vector, without a shell; returns what it complains of, "" where it succeeded."""
    try:
        # The vector is ours; what comes from the volume in it are numbers, and texts that are no options.
        done = subprocess.run(  # noqa: S603 - see above
            vector, stdin=subprocess.DEVNULL, capture_output=True, env=_PROGRAMS, check=False
        )
    except OSError as error:
        return f"{vector[0]}: {error.strerror or error}"
    if done.returncode == 0:
        return ""
    lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return f"{vector[0]}: {lines[-1] if lines else f'exit code {done.returncode}'}"
