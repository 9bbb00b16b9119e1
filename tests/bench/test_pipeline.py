"""How fast cameras become empty the whole way, beside what stock tools take for hashing and sealing the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

MIB = 1024 * 1024
CAMERAS = 4
CLIPS = 4
CLIP_BYTES = 64 * MIB
TOTAL = CAMERAS * CLIPS * CLIP_BYTES
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  in memory on purpose: the disk is not what is measured
STAGES = ("found", "sealed", "stored", "reread", "erased")


def test_the_whole_way_beside_stock_tools(trial_in, mp4, capsys):
    age = shutil.which("age")
    if age is None:
        pytest.skip("Debian's age is not installed")
    if not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free < 5 * TOTAL:
        pytest.skip(f"needs {5 * TOTAL // MIB} MiB free in {SHARED_MEMORY}")
    trial = trial_in(SHARED_MEMORY / f"dockd-bench-{os.getpid()}")
    cameras = [
        trial.camera(f"CAM{bay}", {f"{one}.mp4": mp4(CLIP_BYTES, bay * CLIPS + one) for one in range(CLIPS)})
        for bay in range(1, CAMERAS + 1)
    ]
    recipients = next(trial.directory.rglob("recipients.txt"))
    rates = {
        "sha256sum": rate(cameras, "sha256sum {clip}", 1),
        "sha256sum; age; sha256sum": rate(
            cameras, f"sha256sum {{clip}}; {age} -R {recipients} -o {{out}} {{clip}}; sha256sum {{out}}", 1
        ),
        "the same, four at once": rate(
            cameras, f"sha256sum {{clip}}; {age} -R {recipients} -o {{out}} {{clip}}; sha256sum {{out}}", CAMERAS
        ),
    }
    trial.start_both()
    trial.wait("the station was ready", trial.status)
    began_s = time.monotonic()
    for bay, camera in enumerate(cameras, 1):
        trial.dock(camera, bay)
    status = trial.wait_settled(*range(1, CAMERAS + 1))
    took_s = time.monotonic() - began_s
    assert [bay["state"] for bay in status["bays"][:CAMERAS]] == ["ready"] * CAMERAS, status
    ours = TOTAL / 1e6 / took_s
    with capsys.disabled():
        print(f"\nthe whole way: {ours:.0f} MB/s ({TOTAL / 1e6:.0f} MB in {took_s:.1f} s)")  # noqa: T201
        for name, other in rates.items():
            print(f"{name}: {other:.0f} MB/s; the whole way is {ours / other:.2f} of it")  # noqa: T201
        print("; ".join(spans(trial.custody())))  # noqa: T201


def rate(cameras: list[Path], command: str, at_once: int) -> float:
    """MB/s of a shell command over every clip."""

    def run(camera: Path) -> None:
        for clip in sorted(camera.rglob("*.mp4")):
            out = camera.with_suffix(".sealed")
            subprocess.run(["sh", "-ec", command.format(clip=clip, out=out)], check=True, stdout=subprocess.DEVNULL)
            out.unlink(missing_ok=True)

    began_s = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run, cameras))
    return TOTAL / 1e6 / (time.monotonic() - began_s)


def spans(entries: list[dict]) -> list[str]:
    """When the first and the last clip went through each stage, in seconds since the first entry of a docking."""
    zero_s = None
    found: dict[str, list[float]] = {}
    for entry in entries:
        stage = entry["event"].removeprefix("acquisition.")
        if stage in STAGES:
            at_s = datetime.fromisoformat(entry["at"]).timestamp()
            zero_s = at_s if zero_s is None else zero_s
            found.setdefault(stage, []).append(at_s - zero_s)
    return [f"{stage} {min(times):.1f} to {max(times):.1f} s" for stage, times in found.items()]
