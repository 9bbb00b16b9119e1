"""kill -9 of the station or the receiver just before, in the middle of and just after each durable write."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from fault.matrix.dock import Dock
from fault.matrix.points import HERE, moment
from fault.matrix.truth import check_end, check_now

from dockd.control.client import ask
from dockd.errors import DaemonUnreachable
from dockd.faultpoints import KILLS, Point, Side, kinds

pytestmark = [
    pytest.mark.soak,  # four minutes: run by `pytest -m soak tests/fault/matrix`
    pytest.mark.asyncio(loop_scope="module"),
    # anyio forgets a connection whose making was cancelled, as a journal that fails at the start does: it is collected.
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]

PATIENCE_S = 60
POLL_S = 0.05
OTHER = {"station": "receiver", "receiver": "station"}


class Forker:
    """The program that forks, and word of what became of its children."""

    def __init__(self, program):
        self._program = program
        self._numbers = itertools.count()
        self._pids: dict[int, asyncio.Future[int]] = {}
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls):
        tests = Path(__file__).parents[2]
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fault.matrix.forker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tests), str(tests.parent)))},
        )
        return cls(program)

    async def fork(self, dock: Dock, side: str, rules: str) -> Life:
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        self._pids[number], self._ends[number] = loop.create_future(), loop.create_future()
        asked = {"id": number, "side": side, "directory": str(dock.directory), "rules": rules}
        self._program.stdin.write(json.dumps(asked).encode() + b"\n")
        return Life(await self._pids[number], self._ends[number])

    async def aclose(self):
        self._program.stdin.close()
        await self._program.wait()
        await self._listening

    async def _listen(self):
        async for line in self._program.stdout:
            said = json.loads(line)
            if "pid" in said:
                self._pids[said["id"]].set_result(said["pid"])
            else:
                self._ends[said["id"]].set_result(said["ended"])


class Life:
    """One forked program."""

    def __init__(self, pid: int, ended: asyncio.Future[int]):
        self._pid = pid
        self.ended = ended

    async def kill(self):
        if not self.ended.done():
            os.kill(self._pid, signal.SIGKILL)
            await self.ended


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forker():
    made = await Forker.start()
    yield made
    await made.aclose()


@pytest.mark.parametrize("point", [point for point in HERE if point.side is not Side.READER], ids=str)
async def test_p02_a_kill_at_a_write_loses_nothing(bench, forker, passed, point):
    ways = [kind for kind in kinds(point) if kind in KILLS]
    await asyncio.gather(
        *(
            killed(bench.dock(kind), forker, point, f"{kind}@{point}#{moment(point, kind, passed[point])}")
            for kind in ways
        )
    )
    bench.tried += [(point, kind) for kind in ways]


async def killed(dock: Dock, forker: Forker, point: Point, rule: str):
    """One dock, of which one program dies at the point, and is started again."""
    victim = point.side.name.lower()
    other = await forker.fork(dock, OTHER[victim], "")
    dying = await forker.fork(dock, victim, rule)
    lives = [other, dying]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([other.ended, dying.ended], return_when=asyncio.FIRST_COMPLETED)
            assert not other.ended.done(), _log(dock, OTHER[victim])
            assert dying.ended.result() == -signal.SIGKILL, _log(dock, victim)
            check_now(dock)
            lives.append(await forker.fork(dock, victim, ""))
            await ready(dock, lives)
    except TimeoutError:
        raise AssertionError(f"not ready: {status(dock)}\n{_log(dock, 'station')}\n{_log(dock, 'receiver')}") from None
    finally:
        for life in lives:
            await life.kill()
    check_end(dock)


async def ready(dock: Dock, lives):
    while True:
        assert not any(life.ended.done() for life in (lives[0], lives[-1])), _log(dock, "station")
        now = await asyncio.to_thread(status, dock)
        if now is not None and now["bays"][0]["state"] == "ready" and not now["alarms"]:
            return
        await asyncio.sleep(POLL_S)


def status(dock: Dock):
    with suppress(DaemonUnreachable):
        return next(iter(ask(dock.control, "status")))
    return None


def _log(dock: Dock, side: str) -> str:
    with suppress(FileNotFoundError):
        return (dock.directory / f"{side}.log").read_text()[-4000:]
    return ""
