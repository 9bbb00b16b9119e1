"""Pushing to SeaweedFS's S3 port beside rclone: the same files, part size and number at once; and the memory for it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from servers.buckets import adapter, make_bucket

pytestmark = [pytest.mark.bench, pytest.mark.servers, pytest.mark.timeout(900)]

MIB = 1024 * 1024
PART = 16 * MIB
CLIPS = 2
CLIP_BYTES = 192 * MIB
ROUNDS = 3
PROGRAM = Path(__file__).with_name("s3_push_program.py")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  in memory on purpose: the reading side is not what is measured


@pytest.fixture
def spool():
    if not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free < 2 * CLIPS * CLIP_BYTES:
        pytest.skip(f"needs {2 * CLIPS * CLIP_BYTES // MIB} MiB free in {SHARED_MEMORY}")
    with tempfile.TemporaryDirectory(prefix="dockd-bench.", dir=SHARED_MEMORY) as directory:
        chance = random.Random(5)
        for number in range(CLIPS):
            (Path(directory) / f"clip-{number}").write_bytes(chance.randbytes(CLIP_BYTES))
        (Path(directory) / "small").write_bytes(chance.randbytes(1000))
        yield Path(directory)


async def test_pushing_beside_rclone(seaweed, spool, capsys):
    rclone = shutil.which("rclone")
    if rclone is None:
        pytest.skip("Debian's rclone is not installed")
    store = adapter(seaweed, "bench")
    await make_bucket(store)
    await store.aclose()
    ours, theirs, grown = [], [], 0
    for number in range(ROUNDS):
        told = _ours(seaweed, spool)
        ours.append(told["seconds"])
        grown = max(grown, told["grown_bytes"])
        theirs.append(_theirs(rclone, seaweed, spool, number))
    total = CLIPS * CLIP_BYTES / 1e6
    with capsys.disabled():
        print(  # noqa: T201
            f"\npush to S3, {CLIPS} x {CLIP_BYTES // MIB} MiB, parts of {PART // MIB} MiB, {CLIPS} at once: "
            f"{total / min(ours):.0f} MB/s ({', '.join(f'{one:.1f}' for one in ours)} s); "
            f"rclone {total / min(theirs):.0f} MB/s ({', '.join(f'{one:.1f}' for one in theirs)} s); "
            f"{min(theirs) / min(ours):.2f} of it; memory {grown / MIB:.0f} MiB"
        )
    assert grown < 64 * MIB


def _ours(seaweed, spool):
    given = {
        "url": seaweed.s3_url,
        "access_key": seaweed.access_key,
        "secret_key": seaweed.secret_key,
        "bucket": "bench",
        "part_bytes": PART,
        "directory": str(spool),
    }
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _theirs(rclone, seaweed, spool, number):
    """rclone's own seconds, and its start: some hundredths of one."""
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ACCESS_KEY_ID": seaweed.access_key,
        "SECRET_ACCESS_KEY": seaweed.secret_key,
        "ENDPOINT": seaweed.s3_url,
    }
    words = [rclone, "copy", str(spool), f"dock:bench/rclone-{number}", "--include", "clip-*", "--config", "/dev/null"]
    words += ["--transfers", str(CLIPS), "--s3-upload-concurrency", "1", "--s3-upload-cutoff", "5M"]
    words += ["--s3-chunk-size", f"{PART // MIB}M", "--s3-no-check-bucket"]
    # Nothing else of our environment: it reads AWS variables too.
    environment = {"HOME": str(spool), **{f"RCLONE_CONFIG_DOCK_{key}": value for key, value in remote.items()}}
    began_s = time.monotonic()
    done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began_s
