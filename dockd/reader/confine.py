"""What a reader gives up before it looks at a camera: dumps, swap, the terminal's signals, descriptors, network."""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

from dockd.reader import kernel

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
    with suppress(OSError):  # best effort: needs privilege
        kernel.leave_network()


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


def may_lock_all() -> bool:
    """Whether locking all memory cannot make a later allocation fail: no limit, or the privilege to go beyond it."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False
