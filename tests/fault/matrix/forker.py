"""Forks programs that have everything imported already: a life costs milliseconds, and can be killed.

{"id": 7, "side": "station", "directory": "/a/dock", "rules": "kill-before@journal.commit#9"}   on its input
{"id": 7, "pid": 4711}, then {"id": 7, "ended": -9}                                             on its output
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path

from fault.matrix.dock import Dock

from dockd import faults, log

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Until its input ends; what it forked ends with it."""
    gc.collect()
    gc.freeze()
    poll = select.poll()
    poll.register(0, select.POLLIN)
    lives: dict[int, tuple[int, int]] = {}
    buffer = b""
    while True:
        for fd, _ in poll.poll():
            if fd in lives:
                number, _ = lives.pop(fd)
                poll.unregister(fd)
                ended = os.waitid(os.P_PIDFD, fd, os.WEXITED)
                os.close(fd)
                status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                _say(id=number, ended=status)
                continue
            read = os.read(0, 65536)
            if not read:
                return
            *lines, buffer = (buffer + read).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _live(asked)
                pidfd = os.pidfd_open(pid)
                lives[pidfd] = asked["id"], pid
                poll.register(pidfd, select.POLLIN)
                _say(id=asked["id"], pid=pid)


def _say(**fields: int) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _live(asked: dict[str, str]) -> None:
    status = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.closerange(3, 4096)
        written = os.open(
            Path(asked["directory"]) / f"{asked['side']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(written, 1)
        os.dup2(written, 2)
        log.set_up("info", "json")
        dock, failing = Dock(Path(asked["directory"])), faults.parse(asked["rules"])
        match asked["side"]:
            case "station":
                asyncio.run(dock.run(faults=failing), debug=False)
            case "receiver":
                asyncio.run(dock.receive(faults=failing), debug=False)
            case command:
                getattr(dock, command)(failing)
        status = 0
    except BaseException:  # noqa: BLE001  the child must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
