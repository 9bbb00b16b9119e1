"""Every durable write, failing in every way that kills neither program: the same end as if nothing had happened.

Station and receiver run in this process, readers in their own, which may die here; kills of the two programs are in
test_kills_at_points.py.
"""

from __future__ import annotations

import asyncio

import pytest
from fault.matrix.dock import Dock
from fault.matrix.lives import Lives
from fault.matrix.points import HERE, moment
from fault.matrix.truth import check_end

from dockd import faults
from dockd.faultpoints import KILLS, Kind, Point, Side, kinds
from dockd.reader.client import ForkServer

pytestmark = [
    pytest.mark.soak,  # four minutes: run by `pytest -m soak tests/fault/matrix`
    pytest.mark.asyncio(loop_scope="module"),
    # anyio forgets a connection whose making is cancelled, as by a journal that fails at the start: it is collected.
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]

AT_ONCE = 8  # docks


@pytest.mark.parametrize("point", [point for point in HERE if point.side is not Side.READER], ids=str)
async def test_p02_a_write_of_either_program_fails(bench, forkserver, passed, point):
    assert point in passed, "the way of two clips does not pass this point"
    ways = [kind for kind in kinds(point) if kind not in KILLS]
    times = [moment(point, kind, passed[point]) for kind in ways]
    docks = [bench.dock(kind) for kind in ways]
    await asyncio.gather(*map(in_program, docks, [forkserver] * len(ways), [point] * len(ways), ways, times))
    bench.tried += [(point, kind) for kind in ways]


@pytest.mark.parametrize(
    ("point", "kind"),
    [(Point.JOURNAL_COMMIT, Kind.FAILED), (Point.JOURNAL_COMMIT, Kind.LOST), (Point.MIRROR_DATA, Kind.SHORT)],
)
async def test_p02_p07_each_transaction_fails(bench, forkserver, passed, point, kind):
    for first in range(1, passed[point], AT_ONCE):
        times = range(first, min(first + AT_ONCE, passed[point]))
        await asyncio.gather(
            *(in_program(bench.dock(time), forkserver, point, kind, time, must=False) for time in times)
        )
        bench.tried += [(point, kind) for _ in times]


async def in_program(dock: Dock, forkserver, point, kind, number, *, must=True):
    """One dock with one fault in the station or the receiver, then one more life without."""
    failing = faults.Injected(f"{kind}@{point}#{number}")
    (rule,) = failing._rules
    lives = Lives(dock, forkserver, **{point.side.name.lower(): failing})
    try:
        await lives.ready(lambda: rule.passed >= number or not must)
        await lives.again()
        await lives.ready()
    finally:
        await lives.stop()
    check_end(dock)


@pytest.mark.parametrize("point", [point for point in HERE if point.side is Side.READER], ids=str)
async def test_p02_a_write_of_a_reader_fails_or_it_is_killed_there(bench, point):
    ways = kinds(point)
    await asyncio.gather(*(in_reader(bench.dock(kind), point, kind) for kind in ways))
    bench.tried += [(point, kind) for kind in ways]


async def in_reader(dock: Dock, point, kind):
    """One dock with one fault in a reader."""
    rules = dock.directory / "rules"
    rules.write_text(f"{kind}@{point}#{moment(point, kind, 3)}")  # of either clip
    forkserver = await ForkServer.start(faults=str(rules))
    lives = Lives(dock, forkserver)
    try:
        await lives.settled(lambda: not rules.exists())  # what could not be erased waits for a person
        await lives.again()
        await lives.ready()
    finally:
        await lives.stop()
        await forkserver.aclose()
    check_end(dock)
