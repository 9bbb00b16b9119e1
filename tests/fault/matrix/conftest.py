"""What the matrix shares, and its count, printed at the end of the run."""

from __future__ import annotations

import gc
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import mp4
from fault.matrix.dock import Dock
from fault.matrix.lives import Lives
from fault.matrix.points import Counting

from dockd.reader.client import ForkServer

_TRIED = pytest.StashKey[list[tuple[str, str]]]()


@dataclass
class Bench:
    """Docks for one test. What was tried and came out right is added to `tried`: pairs of (point, kind)."""

    directory: Path
    tried: list[tuple[str, str]]
    _numbers: itertools.count = field(default_factory=itertools.count)

    def dock(self, name: object) -> Dock:
        """A new one, with a camera in its bay: a clip of several PATCHes, and one of less than a block."""
        dock, number = Dock.make(self.directory / str(name)), next(self._numbers)
        dock.camera({"A.mp4": mp4(150_000, 2 * number), "B.mp4": mp4(3_000, 2 * number + 1)})
        return dock


@pytest.fixture
def bench(tmp_path, request):
    return Bench(tmp_path, request.config.stash.setdefault(_TRIED, []))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forkserver():
    """For all stations of a module whose readers fail in no way."""
    made = await ForkServer.start(faults="")
    yield made
    await made.aclose()
    gc.collect()  # while this module's filters of warnings hold


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def passed(tmp_path_factory, forkserver):
    """How often each point is passed while two clips go all the way."""
    dock, counting = Bench(tmp_path_factory.mktemp("counted"), []).dock("dock"), Counting()
    lives = Lives(dock, forkserver, counting, counting)
    await lives.ready()
    await lives.stop()
    return counting.counts


def pytest_terminal_summary(terminalreporter, config):
    tried = config.stash.get(_TRIED, [])
    if tried:
        points = len({point for point, _ in tried})
        terminalreporter.write_line(
            f"fault matrix: {len(tried)} faults, {len(set(tried))} pairs of (point, kind) at {points} points"
        )
