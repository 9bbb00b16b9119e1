"""kill -9 of either side at random moments: after a restart it ends as if nothing had happened."""

import hashlib
import random
import time

import pytest

pytestmark = pytest.mark.timeout(600)

MIB = 1024 * 1024
KILLS = 20
SEED = 20261121


@pytest.mark.parametrize("victim", ["station", "receiver"])
def test_p02_twenty_kills_lose_nothing_and_erase_nothing_early(trial, mp4, victim):
    chance = random.Random(SEED)
    clips = {
        f"CAM{bay}": {f"CLIP{number}.mp4": mp4(6 * MIB + number, bay * 100 + number) for number in range(6)}
        for bay in (1, 2)
    }
    wanted = {
        f"{serial}:DCIM/{name}": hashlib.sha256(content).hexdigest()
        for serial, files in clips.items()
        for name, content in files.items()
    }
    cameras = [trial.camera(serial, files) for serial, files in clips.items()]
    trial.start_both()
    docked = [trial.dock(camera, bay) for bay, camera in enumerate(cameras, 1)]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, 1.2))  # the moment of a kill is what is tested here
        trial.kill(victim)
        check_nothing_is_lost(trial, docked, wanted)
        trial.start(victim)
    trial.wait_settled(1, 2)
    assert [bay["state"] for bay in trial.status()["bays"][:2]] == ["ready", "ready"]
    assert not [path for camera in docked for path in camera.rglob("*.mp4")]
    assert not [path for camera in docked for path in camera.rglob(".dockd-*")]
    assert trial.opened() == wanted, "a clip is lost, changed, or registered twice"
    check_uploads_went_on(trial)
    trial.stop("station")
    trial.stop("receiver")
    trial.command("custody", "verify", str(trial.directory / "station" / "custody"))


def check_nothing_is_lost(trial, docked, wanted) -> None:
    """Each clip is whole on its camera, or the journal's mirror says that it was stored and warranted."""
    events: dict[str, set[str]] = {}
    paths: dict[str, str] = {}
    for line in trial.custody():
        clip = line.get("acquisition")
        if clip:
            events.setdefault(clip, set()).add(line["event"])
            if line["event"] == "acquisition.found":
                paths[clip] = f"{line['camera']}:{line['details']['path']}"
    warranted = {
        paths[clip] for clip, seen in events.items() if {"acquisition.stored", "acquisition.warranted"} <= seen
    }
    present = {f"{camera.name}:{path.relative_to(camera)}": path for camera in docked for path in camera.rglob("*.mp4")}
    for clip, digest in wanted.items():
        if clip not in warranted:
            assert hashlib.sha256(present[clip].read_bytes()).hexdigest() == digest, f"{clip} was touched too early"


def check_uploads_went_on(trial) -> None:
    """A store that keeps its offsets never had to lose one."""
    assert "store_lost_bytes" not in trial.log("station")
