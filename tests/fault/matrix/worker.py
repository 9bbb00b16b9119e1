"""Tries pairs of (point, kind), several at once, each on a dock of its own.

{"point": "move", "kind": "lost", "number": 0}                                  on its input; 0: any time
{"point": "move", "kind": "lost", "number": 0, "problem": "", "lost_bytes": 0}  on its output; "": all is well
"""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import sys
import traceback
from pathlib import Path

from fault.matrix.lives import Forker, Lives
from fault.matrix.points import BEFORE, COMMANDS, Counting, moment, scenario_of, times_of
from fault.matrix.scenarios import SCENARIOS, Bench
from fault.matrix.truth import lost_bytes

from dockd import faults, log
from dockd.faultpoints import KILLS, Kind, Point, Side
from dockd.reader.client import ForkServer


class Worker:
    """Its fork servers: one whose readers do not fail, and some that do, each with a file of rules."""

    def __init__(self, bench: Bench):
        self._bench = bench
        self._failing: list[tuple[ForkServer, Path]] = []
        self._counted: dict[str, asyncio.Task] = {}

    async def attempt(self, point: Point, kind: Kind, number: int) -> None:
        """Raises AssertionError, or whatever else went wrong."""
        name = scenario_of(point)
        if name not in self._counted:
            self._counted[name] = asyncio.create_task(self._count(name))
        counts = await asyncio.shield(self._counted[name])
        rule = f"{kind}@{point}#{number or moment(point, kind, times_of(point, counts))}"
        if point.side is Side.READER and point not in COMMANDS:
            await self._in_reader(name, rule, BEFORE.get(point, ""))
            return
        program = COMMANDS.get(point) or point.side.name.lower()
        if kind in KILLS:
            await self._lead(name, self._bench.readers, lambda lives: lives.killed, first={program: rule})
        else:
            failing = faults.Injected(rule)
            (one,) = failing._rules
            programs = {program: failing}
            await self._lead(name, self._bench.readers, lambda _: one.passed >= one.number, programs=programs)

    async def _in_reader(self, name: str, rule: str, before: str) -> None:
        readers, rules = await self._take()
        try:
            rules.write_text(rule)
            rules.with_suffix(".before").write_text(before)
            await self._lead(name, readers, lambda _: not rules.exists(), held=True)
        finally:
            self._failing.append((readers, rules))

    async def _take(self) -> tuple[ForkServer, Path]:
        if self._failing:
            return self._failing.pop()
        rules = self._bench.new().with_suffix(".rules")
        return await ForkServer.start(faults=f"{rules} {rules.with_suffix('.before')}"), rules

    async def _count(self, name: str) -> dict[Point, int]:
        counting = Counting()
        programs = dict.fromkeys(("station", "receiver", *COMMANDS.values()), counting)
        await self._lead(name, self._bench.readers, lambda _: True, programs=programs)
        return counting.counts

    async def _lead(self, name, readers, failed, *, held=False, **lives) -> None:
        scenario = SCENARIOS[name](self._bench)
        dock = await scenario.make()
        made = Lives(dock, readers, self._bench.forker, **lives)
        try:
            try:
                await scenario.lead(made, lambda: failed(made), held=held)
            finally:
                await made.stop()
            scenario.check(dock)
        finally:
            try:
                self._bench.lost_bytes += lost_bytes(dock)
            finally:
                scenario.close(dock)
        shutil.rmtree(dock.directory)  # what failed stays

    async def aclose(self) -> None:
        for readers, _ in self._failing:
            await readers.aclose()


async def main(directory: Path) -> None:
    gc.collect()
    gc.freeze()
    log.set_up("critical", "json")
    bench = Bench(directory, await ForkServer.start(faults=""), await Forker.start())
    worker = Worker(bench)
    input_ = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(input_), sys.stdin)

    async def answer(asked):
        try:
            await worker.attempt(Point(asked["point"]), Kind(asked["kind"]), asked["number"])
            problem = ""
        except Exception:  # noqa: BLE001  whatever it is, the test says it
            problem = traceback.format_exc()
        sys.stdout.write(json.dumps(asked | {"problem": problem, "lost_bytes": bench.lost_bytes}) + "\n")
        bench.lost_bytes = 0
        sys.stdout.flush()

    async with asyncio.TaskGroup() as tasks:
        async for line in input_:
            tasks.create_task(answer(json.loads(line)))
    await worker.aclose()
    await bench.forker.aclose()
    await bench.readers.aclose()


if __name__ == "__main__":
    # In Python's development mode, too: what that looks for in an event loop, the other tests' loops are watched for.
    asyncio.run(main(Path(sys.argv[1])), debug=False)
