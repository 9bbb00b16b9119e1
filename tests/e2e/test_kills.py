"""kill -9 of either side at random moments: after a restart it ends as if nothing had happened.

A longer night: DOCKD_KILL_MIB for the size of the big clips, DOCKD_KILL_PAUSE_S for the longest time between
two kills, DOCKD_KILL_COUNT, DOCKD_KILL_SEED.
"""

import hashlib
import json
import os
import random
import time
from datetime import datetime

import pytest

pytestmark = pytest.mark.timeout(1800)

MIB = 1024 * 1024
CLIP_MIB = int(os.environ.get("DOCKD_KILL_MIB", "24"))
KILLS = int(os.environ.get("DOCKD_KILL_COUNT", "20"))
PAUSE_S = float(os.environ.get("DOCKD_KILL_PAUSE_S", "1.2"))
SEED = int(os.environ.get("DOCKD_KILL_SEED", "20261121"))


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
    docked = []
    for bay, camera in zip(bays, cameras, strict=True):
        trial.wait("the station ran", trial.status)
        docked.append(trial.dock(camera, bay))
        time.sleep(chance.uniform(0.05, PAUSE_S))  # the moment of a kill is what is tested here
        trial.kill(victim)
        check_nothing_is_lost(trial, docked, wanted)
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


def check_nothing_is_lost(trial, docked, wanted) -> None:
    """Each clip is whole on its camera, or the journal's mirror says that it was stored and warranted."""
    # The cameras first, the log afterwards: whatever is gone by then must be in the log, which is always ahead.
    serials = {camera.name for camera in docked}
    gone = {
        clip
        for clip, digest in wanted.items()
        if clip.partition(":")[0] in serials and digest_on(docked, clip) != digest
    }
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
    assert gone <= warranted, f"touched too early: {gone - warranted}"


def digest_on(docked, clip: str) -> str | None:
    """The SHA-256 of a clip, or None where it is gone, perhaps this very moment."""
    serial, _, path = clip.partition(":")
    (camera,) = (camera for camera in docked if camera.name == serial)
    try:
        return hashlib.sha256((camera / path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def carry_little(trial) -> None:
    """Small requests, so that a kill finds uploads of which a part was acknowledged."""
    config = trial.directory / "dockd.toml"
    text = config.read_text()
    assert "[store.archive]\n" in text
    assert "patch_mib" not in text
    config.write_text(text.replace("[store.archive]\n", "[store.archive]\npatch_mib = 1\n"))


def check_uploads_went_on(trial) -> None:
    """No upload was sent from zero again after the store had acknowledged some of it, by the store's own log.

    A request under way when the receiver was killed has no line: the station never heard of its bytes either.
    """
    assert "store_lost_bytes" not in trial.log("station")
    began: dict[str, list[tuple[float, str, int | None, int | None]]] = {}
    for line in trial.log("receiver").splitlines():
        record = json.loads(line) if line.startswith("{") else {}
        if record.get("event") == "request_answered" and record["path"].startswith("/uploads/"):
            at_s = datetime.fromisoformat(record["timestamp"]).timestamp() - record["duration_ms"] / 1000
            request = (at_s, record["method"], record["offset"], record["durable"])
            began.setdefault(record["path"], []).append(request)
    assert len(began) >= len(trial.sealed())
    resumed = 0
    for upload, requests in began.items():
        acknowledged, asked = 0, False
        for _, method, offset, durable in sorted(requests, key=lambda request: request[0]):
            if method == "PATCH":
                assert offset or not acknowledged, f"{upload} was sent from zero again: {requests}"
                resumed += asked and bool(offset)
            acknowledged, asked = max(acknowledged, durable or 0), method == "HEAD"
    assert resumed, "no upload was ever gone on with after a doubt: the test shows nothing"
