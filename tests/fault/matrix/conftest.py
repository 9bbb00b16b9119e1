"""The workers that try the pairs, and the count of these, printed at the end of the run."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dockd.faultpoints import Kind, Point

AT_ONCE = 5  # docks a worker: they wait for disks and timers most of the time
_TRIED = pytest.StashKey["Tried"]()


@dataclass
class Tried:
    """What a run came to."""

    pairs: set[tuple[Point, Kind]] = field(default_factory=set)
    failed: int = 0
    lost_bytes: int = 0


class Crew:
    """A worker for each processor. They are given pairs in the order of the tests, and never wait for one."""

    def __init__(self, directory: Path, tried: Tried):
        self.directory = directory
        self._tried = tried
        self._waiting: deque[tuple[Point, Kind, int]] = deque()
        self._futures: dict[tuple[Point, Kind, int], Future[str]] = {}
        self._said: queue.SimpleQueue = queue.SimpleQueue()
        self._workers: list[subprocess.Popen] = []
        self._lock = threading.Lock()

    def plan(self, pairs):
        """These are to be tried, in this order."""
        for one in pairs:
            self._futures[one] = Future()
            self._waiting.append(one)

    def tried(self, point: Point, kind: Kind, number: int = 0) -> str:
        """Wait for a pair; returns what was not as it has to be."""
        if not self._workers:
            for name in range(max(2, os.cpu_count() or 1)):
                self._start(self.directory / str(name))
        problem = self._futures[point, kind, number].result()
        self._tried.pairs.add((point, kind))
        self._tried.failed += bool(problem)
        return problem

    def close(self):
        self._waiting.clear()
        for worker in self._workers:
            worker.stdin.close()
        for worker in self._workers:
            worker.wait()

    def _start(self, directory: Path):
        directory.mkdir()
        tests = Path(__file__).parents[2]
        log = (directory / "log").open("wb")
        worker = subprocess.Popen(
            (sys.executable, "-m", "fault.matrix.worker", directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tests), str(tests.parent)))},
        )
        log.close()
        self._workers.append(worker)
        threading.Thread(target=self._serve, args=(worker, directory)).start()

    def _serve(self, worker: subprocess.Popen, directory: Path):
        given = [self._give(worker) for _ in range(AT_ONCE)]
        open_ = {one for one in given if one}
        for line in worker.stdout:
            said = json.loads(line)
            one = Point(said["point"]), Kind(said["kind"]), said["number"]
            open_.remove(one)
            with self._lock:
                self._tried.lost_bytes += said["lost_bytes"]
            self._futures[one].set_result(said["problem"])
            if following := self._give(worker):
                open_.add(following)
        for one in open_:
            self._futures[one].set_result(f"the worker ended: {(directory / 'log').read_text()[-4000:]}")
        worker.stdout.close()

    def _give(self, worker: subprocess.Popen):
        with self._lock:
            if not self._waiting:
                return None
            point, kind, number = one = self._waiting.popleft()
        worker.stdin.write(json.dumps({"point": point, "kind": kind, "number": number}).encode() + b"\n")
        worker.stdin.flush()
        return one


@pytest.fixture(scope="module")
def crew(request, tmp_path_factory):
    """It is given all pairs of the tests that were selected."""
    directory = tmp_path_factory.mktemp("matrix")
    made = Crew(directory, request.config.stash.setdefault(_TRIED, Tried()))
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    made.plan(pair for item in items for pair in request.module.pairs_of(**item.callspec.params))
    yield made
    made.close()
    if not request.session.testsfailed:
        shutil.rmtree(directory)


def pytest_terminal_summary(terminalreporter, config):
    tried = config.stash.get(_TRIED, Tried())
    if tried.pairs:
        points, kinds = len({point for point, _ in tried.pairs}), len({kind for _, kind in tried.pairs})
        terminalreporter.write_line(
            f"fault matrix: {len(tried.pairs)} pairs of {points} points and {kinds} kinds, failed: {tried.failed},"
            f" bytes lost: {tried.lost_bytes}"
        )
