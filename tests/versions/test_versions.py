"""Old and new together: what a kept version left is carried on, and each side works with the other's older version.

Every directory beside this file is a version that `keep.py` kept.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import sqlite3
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from trial import Trial, free_port
from versions import keep

from dockd.app.certificate import self_signed

pytestmark = pytest.mark.timeout(300)

HERE = Path(__file__).resolve().parent
KEPT = sorted(path.parent for path in HERE.glob("*/program.zip"))
KIB = 1024


@pytest.fixture(scope="session", params=KEPT, ids=[path.name for path in KEPT])
def kept(request):
    return request.param


@pytest.fixture(scope="session")
def former(kept, tmp_path_factory):
    """An interpreter that runs the kept version, with its readers, on the dependencies of today."""
    python = keep.interpreter(kept / "program.zip", tmp_path_factory.mktemp("former"))
    where = subprocess.run(
        [python, "-I", "-c", "import dockd; print(dockd.__file__)"], check=True, capture_output=True, text=True
    ).stdout
    assert where.startswith(str(python.parents[1])), "it is not the kept version"
    return python


@pytest.fixture
def left(kept, tmp_path):
    """The trial set that the kept version left, with a port that is free here and a certificate of today."""
    with tarfile.open(kept / "trial.tar.xz") as tar:
        tar.extractall(tmp_path, filter="tar")
    directory, port = tmp_path / "trial", free_port()
    for name in ("dockd.toml", "receiver.toml"):
        config = directory / name
        config.write_text(re.sub(r"(127\.0\.0\.1|localhost):\d+", rf"\g<1>:{port}", config.read_text()))
    certificate, key = self_signed(["127.0.0.1", "localhost"], datetime.now(UTC))
    keys = directory / "store" / "keys"
    (keys / "tls.key").write_bytes(key)
    (keys / "tls.crt").write_bytes(certificate)
    (directory / "station" / "keys" / "ca.crt").write_bytes(certificate)
    _as_it_was(directory)
    made = Trial(directory)
    yield made
    made.close()


def _as_it_was(directory: Path) -> None:
    """Give the cameras' files the times that the journal knows, and the journal the inodes that they have here."""
    journal = sqlite3.connect(directory / "station" / "journal.sqlite")
    with journal:
        for name, serial, path, mtime_ns in journal.execute(
            "SELECT acquisition, serial, path, mtime_ns FROM acquisition"
        ).fetchall():
            for file in directory.glob(f"bays/*/{serial}/{path.decode()}"):
                os.utime(file, ns=(int(mtime_ns), int(mtime_ns)))
                journal.execute(
                    "UPDATE acquisition SET inode = ? WHERE acquisition = ?", (str(file.stat().st_ino), name)
                )
    journal.close()


def receipts(trial: Trial) -> list[tuple[dict, str]]:
    """What the receiver's directory has, in order of their numbers, each with the digest of its bytes."""
    found = [path.read_bytes() for path in (trial.directory / "store").glob("acquisitions/*/*/receipt.json")]
    told = [(json.loads(payload), "sha256:" + hashlib.sha256(payload).hexdigest()) for payload in found]
    return sorted(told, key=lambda one: one[0]["receipt_seq"])


def check_all_is_well(trial: Trial, digests: dict[str, str]) -> None:
    """Each clip is in the store once and opens, receipts follow each other without a gap, the custody log verifies."""
    assert trial.opened() == digests
    given = receipts(trial)
    assert [one["receipt_seq"] for one, _ in given] == list(range(1, len(digests) + 1))
    for (_, digest), (later, _) in itertools.pairwise(given):
        assert later["previous"] == digest
    assert trial.status()["alarms"] == []
    trial.stop("station")
    trial.stop("receiver")
    trial.command("custody", "verify", str(trial.directory / "station" / "custody"))


def test_p02_what_an_older_version_left_in_the_midst_of_its_work_is_carried_on(kept, left):
    before = receipts(left)
    left.start_both()
    status = left.wait_settled(1, 2, 3)
    assert [bay["state"] for bay in status["bays"][:3]] == ["ready", "attention", "ready"]
    assert [clip["path"] for clip in status["held"]] == ["DCIM/CUT.mp4"]
    left.command(
        "clips",
        "release",
        status["held"][0]["acquisition"],
        "--reason",
        "seen by a test",
        "--config",
        str(left.directory / "dockd.toml"),
    )
    left.wait("the camera was ready", lambda: (left.bay(2) or {}).get("state") == "ready")
    assert not list((left.directory / "bays").rglob("*.mp4"))
    assert receipts(left)[: len(before)] == before, "a receipt that was given changed"
    check_all_is_well(left, json.loads((kept / "digests.json").read_text()))


@pytest.mark.parametrize("older", ["station", "receiver"])
def test_an_older_station_and_an_older_receiver_work_with_the_other_side_of_today(older, former, tmp_path, mp4):
    """The set is the older version's, too: its configurations are read by the side of today."""
    trial = Trial(tmp_path / "trial", made_by=former)
    trial.versions[older] = former
    clips = {f"CLIP{number}.mp4": mp4(300 * KIB, number) for number in range(2)} | {"SEEN_EVD.mp4": mp4(20 * KIB, 9)}
    try:
        trial.start_both()
        docked = trial.dock(trial.camera("CAM1", clips), 1)
        trial.wait_settled(1)
        assert trial.bay(1)["state"] == "ready"
        assert not list(docked.rglob("*.mp4"))
        check_all_is_well(
            trial, {f"CAM1:DCIM/{name}": hashlib.sha256(content).hexdigest() for name, content in clips.items()}
        )
    finally:
        trial.close()
