"""How much memory the station and its readers take together while a clip of 5 GiB goes the whole way."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from programs import family, pss_kib

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

MIB = 1024 * 1024
GIB = 1024 * MIB
LARGE = 5 * GIB
OTHERS = 512 * MIB
NEEDED = 2 * LARGE + 6 * OTHERS + 2 * GIB  # sealed at the station and at the store; the cameras' files are holes
LOOK_S = 0.1
LIMIT_KIB = 200 * 1024


def test_p10_four_cameras_and_a_clip_of_5_gib_stay_under_200_mib(trial_in, sparse_mp4, tmp_path, capsys):
    if os.geteuid() != 0:
        pytest.skip("only root may look into a reader: it forbids dumps, and with them a look at its memory")
    if (free := shutil.disk_usage(tmp_path).free) < NEEDED:
        pytest.skip(f"needs {NEEDED // GIB} GiB free in {tmp_path}, there are {free // GIB}")
    trial = trial_in(tmp_path / "trial")
    sizes = {"CAM1": LARGE, "CAM2": OTHERS, "CAM3": OTHERS, "CAM4": OTHERS}
    cameras = []
    for seed, (serial, size) in enumerate(sizes.items()):
        cameras.append(trial.camera(serial, {}))
        sparse_mp4(cameras[-1] / "CLIP.mp4", size, seed)
    trial.start("receiver")
    station = trial.start("station")
    docked = [trial.dock(camera, bay) for bay, camera in enumerate(cameras, 1)]
    began_s = time.monotonic()
    looks: list[dict[int, int]] = []
    status = None
    while status is None:
        looks.append({pid: pss_kib(pid) for pid in family(station.pid)})
        if len(looks) % 10 == 0:
            status = settled(trial)
        assert station.poll() is None, trial.log("station")[-4000:]
        assert time.monotonic() - began_s < 1500, trial.status()
        time.sleep(LOOK_S)
    took_s = time.monotonic() - began_s
    peak = max(looks, key=lambda look: sum(look.values()))
    with capsys.disabled():
        each = ", ".join(f"{kib / 1024:.1f}" for kib in peak.values())
        print(f"\npeak PSS {sum(peak.values()) / 1024:.1f} MiB ({each}), {len(looks)} looks in {took_s:.0f} s")  # noqa: T201
    assert [bay["state"] for bay in status["bays"][:4]] == ["ready"] * 4, status
    assert not [path for camera in docked for path in camera.rglob("*.mp4")]
    assert max(len(look) for look in looks) >= 6, "the station, its fork server and four readers were never seen"
    assert sum(peak.values()) < LIMIT_KIB


def settled(trial) -> dict | None:
    status = trial.status()
    states = [bay["state"] for bay in status["bays"][:4]] if status else []
    return status if states and all(state in ("ready", "attention", "refused") for state in states) else None
