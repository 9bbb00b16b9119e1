"""Sixteen bays that are never empty, and a store of whose requests one in twenty fails: minutes of it, real programs.

DOCKD_SOAK_S is for how long cameras are docked anew (600), DOCKD_SOAK_SEED which requests fail and what the clips hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from fault.network import faults
from fault.network.proxy import Rule, between
from programs import descriptors, family, pss_kib, threads

from dockd.app.open import open_sealed

KIB, MIB = 1024, 1024 * 1024
LENGTH_S = float(os.environ.get("DOCKD_SOAK_S", "600"))
SEED = int(os.environ.get("DOCKD_SOAK_SEED", "4"))

BAYS, CLIPS, CORES = 16, 40, 2
FAILING = 0.05
STALL_S, HOPELESS_S = 30.0, 600.0
LOOK_S, WEIGH_S = 0.5, 5.0
GROWTH, GROWTH_KIB = 1.1, 4 * KIB
SLACK = 4  # connections and askers that come and go
POOL = 6 + 2  # threads that the loop starts for blocking calls as they are first needed, and some that just ended
RESTING = {"empty", "ready", "attention", "refused"}

pytestmark = [pytest.mark.soak, pytest.mark.timeout(LENGTH_S + 1800)]


class Weather(Rule):
    """Fails one request in twenty, whichever it is, in one of four ways."""

    def __init__(self, seed: int) -> None:
        super().__init__(fault=self._strike, method="", path="", times=1)
        self.chance = random.Random(seed)
        self.requests = 0
        self.struck: Counter[str] = Counter()

    def fits(self, exchange) -> bool:
        self.requests += 1
        return self.chance.random() < FAILING

    async def _strike(self, exchange) -> None:
        kinds = {
            "500": faults.status(500),
            "503": faults.status(503, "Retry-After: 1", problem=True),
            "reset": faults.reset_after(self.chance.randrange(exchange.length + 1)),
            "reply lost": faults.lose_answer,
        }
        kind = self.chance.choice(list(kinds))
        self.struck[kind] += 1
        await kinds[kind](exchange)


@dataclass
class Cameras:
    """One camera a bay; each gets new clips while it is away for a moment. `truth` is all that ever was on them."""

    trial: object
    make_clip: object
    chance: random.Random
    truth: dict[str, str] = field(default_factory=dict)
    rounds: Counter[int] = field(default_factory=Counter)

    def make(self) -> None:
        for bay in range(1, BAYS + 1):
            (self.trial.directory / "bays" / str(bay)).mkdir(exist_ok=True)
            self.trial.camera(f"CAM{bay}", {})

    def dock(self, bay: int) -> None:
        camera = self._away(bay)
        for number in range(CLIPS):
            size = 3 * MIB if number == 0 and self.rounds[bay] == 0 else self.chance.randrange(8 * KIB, 256 * KIB)
            content = self.make_clip(size, self.chance.randrange(1 << 40))
            path = f"DCIM/{self.rounds[bay]:04}-{number:02}.mp4"
            (camera / "DCIM").mkdir(exist_ok=True)
            (camera / path).write_bytes(content)
            self.truth[f"CAM{bay}:{path}"] = hashlib.sha256(content).hexdigest()
        self.rounds[bay] += 1
        self.trial.dock(camera, bay)

    def undock(self, bay: int) -> None:
        """Take it out; nothing may be left on it."""
        (self.trial.directory / "bays" / str(bay) / f"CAM{bay}").rename(self._away(bay))
        assert not list(self._away(bay).rglob("*.mp4"))

    def _away(self, bay: int):
        return self.trial.directory / "cameras" / f"CAM{bay}"


@dataclass
class Stalls:
    """How long each bay stood still that had something to read, to push or to erase."""

    seen: dict[int, tuple[object, float]] = field(default_factory=dict)
    longest: dict[int, tuple[float, dict]] = field(default_factory=dict)

    def look(self, status: dict) -> None:
        now_s = time.monotonic()
        for bay in status["bays"]:
            number = bay["bay"]
            progress = None if bay["state"] in RESTING else {**bay, "note": "", "rate_bytes_s": 0, "left_s": None}
            before, since_s = self.seen.get(number, (None, now_s))
            if progress is None or progress != before:
                self.seen[number] = (progress, now_s)
            if before is not None and now_s - since_s > self.longest.get(number, (0.0, {}))[0]:
                self.longest[number] = (now_s - since_s, bay)

    @property
    def worst(self) -> tuple[float, dict]:
        return max(self.longest.values(), key=lambda one: one[0], default=(0.0, {}))


@dataclass
class Scales:
    """What the station and its readers weigh, over time: KiB of the daemon, of its fork server, and of all together."""

    station: int
    forkserver: int
    looks: list[tuple[int, int, int]] = field(default_factory=list)
    due_s: float = 0.0

    def weigh(self) -> None:
        if time.monotonic() >= self.due_s:
            self.due_s = time.monotonic() + WEIGH_S
            each = {pid: pss_kib(pid) for pid in family(self.station)}
            self.looks.append((each[self.station], each.get(self.forkserver, 0), sum(each.values())))

    def thirds(self) -> list[tuple[float, ...]]:
        """The medians of each third of the time."""
        step = len(self.looks) // 3
        parts = (self.looks[:step], self.looks[step : 2 * step], self.looks[2 * step :])
        return [tuple(map(statistics.median, zip(*part, strict=True))) for part in parts]


@dataclass
class Shift:
    """A running trial in bad weather, and what was seen of it."""

    trial: object
    cameras: Cameras
    weather: Weather
    stalls: Stalls = field(default_factory=Stalls)
    load: list[float] = field(default_factory=list)

    def begin(self) -> dict[str, object]:
        """Start, and dock; returns what was used while no camera was docked yet."""
        self.station = self.trial.start("station").pid
        self.trial.start("receiver")
        self.trial.wait("the store cosigned", lambda: (self.trial.status() or {}).get("custody_witnessed"))
        (self.forkserver,) = family(self.station)[1:]
        self.scales = Scales(self.station, self.forkserver)
        at_first = self.used()
        for bay in range(1, BAYS + 1):
            self.cameras.dock(bay)
        return at_first

    def work(self) -> None:
        """Dock again whatever is ready, for the time given; then until all have come to rest."""
        until_s = time.monotonic() + LENGTH_S
        while (docking := time.monotonic() < until_s) or not _states(self.trial.status()) <= RESTING:
            status = self.trial.status()
            self.stalls.look(status)
            if docking:
                self.scales.weigh()
                self.load.append(os.getloadavg()[0])
                for bay in (one["bay"] for one in status["bays"] if one["state"] == "ready"):
                    self.cameras.undock(bay)
                    self.cameras.dock(bay)
            assert self.stalls.worst[0] < HOPELESS_S, self.stalls.worst
            time.sleep(LOOK_S)

    def end(self) -> None:
        status = self.trial.status()
        assert _states(status) == {"ready"}, status
        assert not status["alarms"]
        for bay in range(1, BAYS + 1):
            self.cameras.undock(bay)
        self.trial.wait("the bays are empty", lambda: _states(self.trial.status()) == {"empty"})
        self.trial.wait("the readers ended", lambda: len(family(self.station)) == 2)

    def used(self) -> dict[str, object]:
        """What may not grow. Asked while no camera is docked."""
        return {
            "descriptors": descriptors(self.station),
            "threads": threads(self.station),
            "tasks": self.trial.status()["tasks"],
            "fork server": (descriptors(self.forkserver), threads(self.forkserver)),
        }

    def told(self) -> str:
        requests, failed = self.weather.requests, sum(self.weather.struck.values())
        return (
            f"{LENGTH_S:.0f} s, seed {SEED}, load {statistics.mean(self.load):.1f} (at most {max(self.load):.1f}): "
            f"{sum(self.cameras.rounds.values())} dockings, {len(self.cameras.truth)} clips; {requests} requests, "
            f"{failed} failed ({100 * failed / requests:.1f} %): {dict(self.weather.struck)}; longest stall "
            f"{self.stalls.worst[0]:.1f} s, {self.stalls.worst[1]}; medians of PSS in KiB by thirds: station, fork "
            f"server, all: {self.scales.thirds()}"
        )


@pytest.fixture
def shift(trial_in, tmp_path, mp4):
    """On two cores, with everything that it starts."""
    if os.geteuid() != 0:
        pytest.skip("only root may look into a reader: it forbids dumps, and with them a look at its memory")
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(everywhere)[:CORES])
    trial = trial_in(tmp_path / "trial")
    proxy, weather = between(trial, "patch_mib = 1"), Weather(SEED)
    proxy.rules[:] = [weather]
    cameras = Cameras(trial, mp4, random.Random(SEED))
    cameras.make()
    try:
        yield Shift(trial, cameras, weather)
    finally:
        proxy.stop()
        os.sched_setaffinity(0, everywhere)


def test_p09_p10_sixteen_bays_and_a_failing_store_stall_leak_and_lose_nothing(shift, tmp_path, capsys):
    trial = shift.trial
    at_first = shift.begin()
    shift.work()
    shift.end()
    at_last = shift.used()
    trial.stop("station")
    trial.command("custody", "verify", str(trial.directory / "station"))
    with capsys.disabled():
        print(f"\n{shift.told()}; used {at_first}, at last {at_last}")  # noqa: T201
    assert shift.stalls.worst[0] <= STALL_S, shift.stalls.longest
    thirds = shift.scales.thirds()
    for before, after in zip(thirds[1], thirds[2], strict=True):
        assert after <= GROWTH * before + GROWTH_KIB, thirds
    assert at_last["descriptors"] <= at_first["descriptors"] + SLACK, (at_first, at_last)
    assert at_last["threads"] <= at_first["threads"] + POOL, (at_first, at_last)
    assert at_last["tasks"] <= at_first["tasks"] + SLACK, (at_first, at_last)
    assert at_last["fork server"] <= at_first["fork server"], (at_first, at_last)
    assert _stored(trial, tmp_path / "opened") == shift.cameras.truth


def _states(status: dict) -> set[str]:
    return {bay["state"] for bay in status["bays"]}


def _stored(trial, out) -> dict[str, str]:
    """The SHA-256 of each stored clip, by its camera and path; each is there once."""
    found = {}
    for sealed in trial.sealed():
        manifest = json.loads((sealed.parent / "manifest.json").read_bytes())
        place = f"{manifest['camera']['serial']}:{manifest['path']}"
        assert place not in found, f"{place} was stored twice"
        opened = open_sealed(sealed, trial.directory / "authority" / "working.key", out, overwrite=True)
        found[place] = opened.digest.removeprefix("sha256:")
        shutil.rmtree(sealed.parent)
    return found
