"""What a reader gives up before it looks at a camera, all of it without privilege; and a measure of what that came to.

Dumps, swap, the terminal's signals, descriptors; by Landlock all files but its camera's and its own corner of the
spool; by seccomp sockets, programs and other processes. docs/threat-model.md says what that is worth.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dockd.model import MediumKind
from dockd.reader import kernel, landlock, syscalls
from dockd.reader.mtp.usbfs import node_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dockd.model import Medium

_CAP_IPC_LOCK = 14
_MAX_DESCRIPTOR = 2**31 - 1
_OOM_SCORE = "500"  # when memory runs out, a reader goes before the daemon


def confine_server() -> None:
    """What holds for the fork server and, inherited, for every reader.

    Signals that a terminal or a service manager sends to the whole group are ignored: the daemon decides, and says so
    by closing a socket. A lease that is broken sends SIGIO, which is looked for by asking instead.
    """
    kernel.end_with_parent(signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGIO, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kernel.forbid_new_privileges()


def confine_reader(parent: int, keep: tuple[int, ...]) -> None:
    """What each reader adds after the fork from `parent`. Every descriptor but the standard three and `keep` is closed.

    Ends the program where the parent is gone already.
    """
    kernel.end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(os.EX_UNAVAILABLE)
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, _MAX_DESCRIPTOR)
    with suppress(OSError):  # best effort: a sandbox may hide /proc
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    kernel.set_name(b"dockd-reader")
    if may_lock_all():
        with suppress(OSError):  # the buffers are locked one by one as well
            kernel.lock_all_memory()
    kernel.forbid_dumps()


def seal_off(incoming_fd: int, medium: Medium | None, removable: Iterable[Path] = ()) -> dict[str, str]:
    """Leave this reader its camera and its corner of the spool. Returns what does not hold, and why: `unmet`.

    After `confine_reader`, and before anything of the camera is read. A kernel that cannot do a part raises nothing:
    whoever started the reader hears of it, and says so. -1 and None: no spool and no camera, for a measure alone.
    `removable`, for tests alone, are files that may be removed (dockd.faults).
    """
    why: dict[str, str] = {}
    with ExitStack() as closing:
        places = dict(_camera(medium, closing) if medium else ())
        # What Python itself has not loaded yet: a codec for one odd name must not end the reading of a camera.
        with suppress(OSError):  # who may not look there has loaded all that it ever will
            places[_place(Path(os.__file__).parent, closing)] = landlock.READ
        if incoming_fd >= 0:
            places[incoming_fd] = landlock.KEEP_FILES
        for file in removable:
            places[_place(file.parent, closing)] = landlock.REMOVE
        try:
            landlock.restrict(places)
        except OSError as error:
            why["files"] = error.strerror or str(error)
    try:
        syscalls.forbid()
    except OSError as error:
        why |= dict.fromkeys(("network", "programs", "processes"), error.strerror or str(error))
    return {item: why.get(item, "it was tried, and is not refused") for item in unmet()}


def unmet() -> list[str]:
    """What this program can still do that no reader may, found by trying it. Harmless also where it can."""
    return [item for item, refused in _TRIALS.items() if not refused()]


def _camera(medium: Medium, closing: ExitStack) -> Iterable[tuple[int, int]]:
    """The places of a camera, each with what its reader may do there."""
    for volume in medium.volumes:
        yield volume.root_fd, landlock.KEEP_FILES
        if medium.kind is MediumKind.FOLDER:  # whether it is still in its bay is looked up in there
            yield _place("..", closing, volume.root_fd), landlock.LIST
    if medium.kind is MediumKind.MTP:
        with suppress(OSError):  # it left already: whoever opens it says so
            yield _place(node_of(medium.usb_bus, medium.usb_device), closing), landlock.READ_WRITE


def _place(path: Path | str, closing: ExitStack, directory_fd: int | None = None) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=directory_fd)
    closing.callback(os.close, fd)
    return fd


def _refused(number: int, attempt: Callable[..., object], *arguments: object) -> bool:
    """Whether an attempt fails with this very errno: any other would show nothing."""
    try:
        attempt(*arguments)
    except OSError as error:
        return error.errno == number
    return False


def _no_files() -> bool:
    return all(_refused(errno.EACCES, _open, path) for path in ("/", "/proc/self/status"))


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _no_network() -> bool:
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK)
    return all(_refused(errno.EPERM, _socket, family) for family in families)


def _socket(family: int) -> None:
    socket.socket(family, socket.SOCK_DGRAM).close()


def _no_programs() -> bool:
    return _refused(errno.EPERM, _fork) and _refused(errno.EPERM, os.execv, "/nowhere", ["nowhere"])


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(os.EX_OK)
    os.waitpid(pid, 0)


def _no_processes() -> bool:
    parent = os.getppid()
    return _refused(errno.EPERM, os.kill, parent, 0) and _refused(errno.EPERM, os.pidfd_open, parent)


_TRIALS: dict[str, Callable[[], bool]] = {
    "files": _no_files,
    "network": _no_network,
    "programs": _no_programs,
    "processes": _no_processes,
    "dumps": lambda: not kernel.may_dump(),
}
ITEMS = {
    "files": "files of other cameras, of the spool's other corners, of the station and of this machine",
    "network": "the network, and sockets of this machine: the control socket and the write blocker's",
    "programs": "starting programs, and processes of its own",
    "processes": "signals to other processes, and their memory",
    "dumps": "core dumps, and being looked at by others of the same user",
}
"""What no reader may do, in words."""


def may_lock_all() -> bool:
    """Whether locking all memory cannot make a later allocation fail: no limit, or the privilege to go beyond it."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False
