"""The state directory's disk full or read-only, under the real program: a sentence, and a code that systemd retries."""

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "dockd.service"
GIVEN_UP = {int(code) for code in re.search(r"RestartPreventExitStatus=(.*)", UNIT.read_text())[1].split()}
SIZE = "24m"


@pytest.fixture
def disk(trial):
    """The trial's state directory on a disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    config = trial.directory / "dockd.toml"
    assert "[spool]" not in config.read_text()
    config.write_text(config.read_text() + "\n[spool]\nreserve_bytes = 0\n")
    place = trial.directory / "station"
    away = place.rename(trial.directory / "moved")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "state", str(place)], check=True)
    shutil.copytree(away, place, dirs_exist_ok=True)
    yield place
    trial.close()
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk):
    with suppress(OSError), (disk / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def free(disk):
    (disk / "fill").unlink()


def lock(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def unlock(disk):
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


HARMS = {
    "full": (fill, free, r"disk is full|No space left on device"),
    "read-only": (lock, unlock, r"[Rr]ead-?only"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_p02_a_state_disk_that_takes_no_writes_ends_in_a_sentence_and_a_retry(trial, disk, mp4, harm):
    break_it, mend_it, words = HARMS[harm]
    trial.start("receiver")
    station = trial.start("station")
    trial.wait("the start", trial.status)
    camera = trial.camera("C1", {"A.mp4": mp4(300_000, 1)})
    codes = []
    if harm == "read-only":  # the kernel does not let it become so while a file is open to be written
        trial.stop("station")
        break_it(disk)
        docked = trial.dock(camera, 1)
    else:
        break_it(disk)
        docked = trial.dock(camera, 1)
        codes.append(station.wait(60))  # it cannot record the docking: it ends, and systemd starts it again
    codes.append(trial.start("station").wait(60))
    said = trial.log("station")
    assert 0 not in codes
    assert not GIVEN_UP & set(codes)
    sentence = said.strip().splitlines()[-1]
    assert sentence.startswith("dockd: ")
    assert re.search(words, sentence), sentence
    assert "Traceback" not in said
    assert (docked / "DCIM" / "A.mp4").read_bytes() == mp4(300_000, 1)

    mend_it(disk)
    trial.start("station")
    bays = trial.wait_settled(1)["bays"]
    assert next(bay for bay in bays if bay["bay"] == 1)["state"] == "ready"
    assert len(trial.opened()) == 1
    trial.command("custody", "verify", str(disk))
