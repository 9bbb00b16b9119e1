"""kill -9 of either side at random moments: after a restart it ends as if nothing had happened.

A longer night: DOCKD_KILL_MIB for the size of the big clips, DOCKD_KILL_PAUSE_S for the longest time between two kills,
DOCKD_KILL_COUNT, DOCKD_KILL_SEED. `pytest -m soak tests/e2e/test_kills.py`: five hundred kills, of small clips.
"""

import collections
import hashlib
import os
import random
import shutil
import socket
import sys
import time
import tomllib
from contextlib import closing

import pytest
from e2e.kills import Log, carry_little, check_nothing_is_lost, check_uploads_went_on, stored

from dockd.app.camera import make_camera

pytestmark = pytest.mark.timeout(1800)

MIB = 1024 * 1024
CLIP_MIB = int(os.environ.get("DOCKD_KILL_MIB", "24"))
KILLS = int(os.environ.get("DOCKD_KILL_COUNT", "20"))
PAUSE_S = float(os.environ.get("DOCKD_KILL_PAUSE_S", "1.2"))
SEED = int(os.environ.get("DOCKD_KILL_SEED", "20261121"))

MANY_KILLS = int(os.environ.get("DOCKD_KILL_COUNT", "500"))
BAYS = range(1, 9)
IN_START_UP = 0.1  # the share of kills that hit a program while it starts
STARTING_S = 0.8
AT_WORK_S = 1.0
VICTIMS = (("station",), ("receiver",), ("station", "receiver"))
WEIGHTS = (5, 4, 1)


@pytest.mark.parametrize("victim", ["station", "receiver"])
def test_p02_twenty_kills_lose_nothing_and_erase_nothing_early(trial, mp4, victim):
    """A camera is docked before each kill, so that every kill finds work under way, and often an upload half done."""
    chance = random.Random(SEED)
    bays = range(1, KILLS + 1)
    clips = {
        f"CAM{bay}": {"BIG.mp4": mp4(CLIP_MIB * MIB, 2 * bay), "SMALL.mp4": mp4(100_000, 2 * bay + 1)} for bay in bays
    }
    wanted = {
        f"{serial}:DCIM/{name}": hashlib.sha256(content).hexdigest()
        for serial, files in clips.items()
        for name, content in files.items()
    }
    for bay in bays:
        (trial.directory / "bays" / str(bay)).mkdir(exist_ok=True)
    cameras = [trial.camera(serial, files) for serial, files in clips.items()]
    carry_little(trial)
    trial.start_both()
    trial.wait("the station ran", trial.status)
    docked, log = [], Log(trial)
    for bay, camera in zip(bays, cameras, strict=True):
        trial.wait("the station ran", trial.status)
        docked.append(trial.dock(camera, bay))
        if bay % 2:  # however slow the machine is, half of the kills find an upload that has begun
            trial.wait("an upload began", lambda: uploading(log))
        time.sleep(chance.uniform(0.05, PAUSE_S if bay % 2 == 0 else PAUSE_S / 4))  # the moment is what is tested here
        trial.kill(victim)
        check_nothing_is_lost(log, docked, wanted)
        trial.start(victim)
    trial.wait_settled(*bays)
    assert {bay["state"] for bay in trial.status()["bays"] if bay["bay"] in bays} == {"ready"}
    assert not [path for camera in docked for path in camera.rglob("*.mp4")]
    assert not [path for camera in docked for path in camera.rglob(".dockd-*")]
    assert trial.opened() == wanted, "a clip is lost, changed, or registered twice"
    check_uploads_went_on(trial)
    trial.stop("station")
    trial.stop("receiver")
    trial.command("custody", "verify", str(trial.directory / "station" / "custody"))


def uploading(log) -> bool:
    log.read()
    return "uploading" in log.at_work()


class ShiftChange:
    """Cameras that come and go in eight bays; whatever is ready makes room for the next one."""

    def __init__(self, trial, mp4, chance) -> None:
        self._trial, self._mp4, self._chance = trial, mp4, chance
        self.docked = {}
        self.wanted = {}
        self.size_bytes = 0
        self.finished = 0

    def exchange(self) -> None:
        """Undock the ready cameras, seen to be empty, and fill every free bay."""
        ready = self._ready()
        for bay, camera in list(self.docked.items()):
            if camera.name in ready:
                self._empty(camera)
                camera.rename(self._trial.directory / "cameras" / camera.name)
                del self.docked[bay]
                self.finished += 1
        for bay in BAYS:
            if bay not in self.docked:
                self.docked[bay] = self._trial.dock(self._camera(), bay)

    def settle(self) -> None:
        """Until every camera that is still docked is ready, and seen to be empty."""
        self._trial.wait("all were ready", lambda: self._ready() >= {camera.name for camera in self.docked.values()})
        for camera in self.docked.values():
            self._empty(camera)

    def _ready(self) -> set[str]:
        status = self._trial.status()
        return {bay["camera"] for bay in status["bays"] if bay["state"] == "ready"} if status else set()

    def _camera(self):
        serial = f"CAM{self.finished + len(self.docked) + 1}"
        camera = self._trial.directory / "cameras" / serial
        make_camera(camera, serial=serial, model="folder")
        (camera / "DCIM").mkdir()
        for name, size in {
            "BIG.mp4": self._chance.randrange(3 * MIB, 10 * MIB),
            "NEXT.mp4": self._chance.randrange(MIB, 2 * MIB),
            "SMALL.mp4": self._chance.randrange(1000, 200_000),
        }.items():
            content = self._mp4(size, self._chance.getrandbits(64))
            (camera / "DCIM" / name).write_bytes(content)
            self.wanted[f"{serial}:DCIM/{name}"] = hashlib.sha256(content).hexdigest()
            self.size_bytes += len(content)
        return camera

    def _empty(self, camera) -> None:
        left = sorted(path.name for path in camera.rglob("*") if path.is_file())
        assert left == ["dockd-camera.toml"], f"{camera.name} is ready, and has {left}"


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_p02_five_hundred_kills_over_station_and_receiver_lose_nothing(trial, mp4, capsys):
    """Either side, or both, at a random moment; one in ten while it starts. Cameras come and go all the while."""
    chance = random.Random(SEED)
    carry_little(trial)
    trial.start_both()
    trial.wait("the station ran", trial.status)
    shift, log = ShiftChange(trial, mp4, chance), Log(trial)
    killed, found, began_s = collections.Counter(), collections.Counter(), time.monotonic()
    for count in range(1, MANY_KILLS + 1):
        victims = chance.choices(VICTIMS, WEIGHTS)[0]
        starting = chance.random() < IN_START_UP
        if not starting:
            trial.wait("both ran", lambda: trial.status() and _answers(trial))
            shift.exchange()
        time.sleep(chance.uniform(0, STARTING_S if starting else AT_WORK_S))  # the moment is what is tested here
        for victim in victims:
            trial.kill(victim)
        log.read()
        killed[" and ".join(victims)] += 1
        found.update({"starting"} if starting else log.at_work() or {"nothing to do"})
        check_nothing_is_lost(log, shift.docked.values(), shift.wanted)
        for victim in victims:
            trial.start(victim)
        if count % 25 == 0:
            with capsys.disabled():
                _say(f"\n{count} kills, {time.monotonic() - began_s:.0f} s, {shift.finished} cameras done")
    shift.settle()
    kept = stored(trial)
    lost = {clip for clip, digest in shift.wanted.items() if digest not in kept.get(clip, ())}
    twice = {clip for clip, copies in kept.items() if len(copies) > 1}
    resumed = check_uploads_went_on(trial)
    trial.stop("station")
    trial.stop("receiver")
    trial.command("custody", "verify", str(trial.directory / "station" / "custody"))
    with capsys.disabled():
        _say(
            f"\nseed {SEED}: {killed.total()} kills ({_counted(killed)}) in {time.monotonic() - began_s:.0f} s\n"
            f"kills that found clips in each kind of work: {_counted(found)}\n"
            f"{shift.finished + len(shift.docked)} cameras, {len(shift.wanted)} clips, {shift.size_bytes} bytes; "
            f"{resumed} uploads gone on with in their middle\n"
            f"clips lost or changed: {len(lost)}, duplicates: {len(twice)}",
        )
    assert not lost
    assert not twice
    assert kept.keys() == shift.wanted.keys()
    for work in ("reading", "uploading", "erasing"):
        assert found[work], f"no kill found the station {work}: the test shows less than it says"
    shutil.rmtree(trial.directory / "store")  # gigabytes


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _answers(trial) -> bool:
    """Whether the receiver takes connections."""
    host, _, port = tomllib.loads((trial.directory / "receiver.toml").read_text())["receiver"]["listen"].rpartition(":")
    with closing(socket.socket()) as probe:
        return probe.connect_ex((host, int(port))) == 0


def _counted(counts: collections.Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
