"""A dock's station and receiver, started again whenever one of them ends, as a service manager does.

They live in this process, but for the first life of one that is to be killed: that is a program of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from fault.matrix.dock import Dock
from fault.matrix.truth import check_now

from dockd import faults as no
from dockd.errors import DockdError
from dockd.reader.client import ForkServer
from dockd.reader.erase import LeftHalfway
from dockd.station.status import take_snapshot

PATIENCE_S = 100.0
POLL_S = 0.06
RESTARTS = 3  # that one fault may cost at most


class Killed(Exception):
    """A program ended by SIGKILL, as it was to."""


# What ends a program in a sentence or loudly; a service manager starts it again after either.
ENDINGS = (DockdError, OSError, BaseExceptionGroup, Killed)


class Forker:
    """The program that forks (fault.matrix.forker), and word of what became of its children."""

    def __init__(self, program):
        self._program = program
        self._numbers = count()
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

    async def live(self, dock: Dock, side: str, rules: str) -> None:
        """Be a program until it is killed by its rules: Killed. Cancelled, it ends as well."""
        number, loop = next(self._numbers), asyncio.get_running_loop()
        self._pids[number], self._ends[number] = loop.create_future(), loop.create_future()
        asked = {"id": number, "side": side, "directory": str(dock.directory), "rules": rules}
        self._program.stdin.write(json.dumps(asked).encode() + b"\n")
        pid, ended = await self._pids[number], self._ends[number]
        try:
            status = await asyncio.shield(ended)
        finally:
            if not ended.done():
                os.kill(pid, signal.SIGKILL)
                await ended
        assert status == -signal.SIGKILL, f"the {side} was not killed: it ended with {status}\n{_log(dock, side)}"
        raise Killed(side)

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


class Lives:
    """`programs` names the faults of station and receiver; `first` the rules of a first life that has to be killed."""

    def __init__(self, dock: Dock, forkserver: ForkServer, forker: Forker | None = None, *, programs=None, first=None):
        self.dock = dock
        self.restarts = 0
        self.killed = 0
        self.snapshot = None
        self._forkserver = forkserver
        self._forker = forker
        self._faults = {"station": no.NONE, "receiver": no.NONE} | (programs or {})
        self._first: dict[str, str] = first or {}
        self._tasks: dict[str, asyncio.Task] = {}
        self._daemon = None

    async def until(self, done: Callable[[], bool], attend: Callable[[], Awaitable[None]], *, station=True):
        """Until `done()`; `attend` is called again and again, for what people have to do meanwhile."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self._keep_alive("station" if station else "receiver")
                    self.snapshot = None
                    if self._daemon is not None:
                        with suppress(DockdError):  # the journal closed meanwhile
                            self.snapshot = await take_snapshot(self._daemon._sources())
                    await attend()
                    if done():
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"this did not end: {self.snapshot}\n{_log(self.dock, 'station')}") from None

    def stands(self, *states: str) -> bool:
        """Whether the camera is in one of these states, nothing waits to be pushed, and nothing alarms."""
        now = self.snapshot
        return (
            now is not None
            and now.bays[0].state in states
            and not any(one.waiting for one in now.stores)
            and not now.alarms
        )

    async def command(self, name: str) -> None:
        """Give a command until it succeeds: with its fault first."""
        rules, failing = self._first.pop(name, None), self._faults.pop(name, no.NONE)
        if rules is not None:
            try:
                await self._forker.live(self.dock, name, rules)
            except Killed:
                self.killed += 1
        else:
            with suppress(OSError, LeftHalfway):
                await asyncio.to_thread(getattr(self.dock, name), failing)
        await asyncio.to_thread(getattr(self.dock, name))

    async def stop(self):
        """End both, the station first."""
        for name in ("station", "receiver"):
            task = self._tasks.pop(name, None)
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, *ENDINGS):
                    await task
        self._daemon = self.snapshot = None

    async def again(self):
        """Stop both and start both, with no fault any more."""
        await self.stop()
        self._faults = {"station": no.NONE, "receiver": no.NONE}

    async def _keep_alive(self, last: str):
        for name in ("receiver", "station"):
            task = self._tasks.get(name)
            if task is None or task.done():
                if task is not None:
                    error = task.exception()
                    assert isinstance(error, ENDINGS), f"the {name} ended: {error!r}"
                    self.restarts += 1
                    self.killed += isinstance(error, Killed)
                    assert self.restarts <= RESTARTS, f"the {name} ended again and again: {error!r}"
                    check_now(self.dock)
                self._tasks[name] = await self._start(name)
            if name == last:
                return

    async def _start(self, name: str) -> asyncio.Task:
        if name in self._first:
            return asyncio.create_task(self._forker.live(self.dock, name, self._first.pop(name)))
        if name == "station":
            self._daemon = None
            return asyncio.create_task(
                self.dock.run(self._know, faults=self._faults[name], forkserver=self._forkserver)
            )
        listening = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self.dock.receive(lambda _: listening.set_result(None), faults=self._faults[name]))
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        return task

    def _know(self, daemon):
        self._daemon = daemon


def _log(dock: Dock, side: str) -> str:
    with suppress(FileNotFoundError):
        return (dock.directory / f"{side}.log").read_text()[-4000:]
    return ""
