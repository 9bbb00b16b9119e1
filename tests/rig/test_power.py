"""The power fails: at instants of chance, and, on a recorded disk, between any two flushes that the station ever made.

`DOCKD_POWER_CUTS` is the number of cuts (3; 20 in a nightly run), `DOCKD_POWER_SEED` chooses the instants.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import cards
import pytest
from rig.guest.bays import Bays
from rig.guest.crashes import crash_states
from rig.guest.dock import Dock
from rig.guest.image import base
from rig.guest.machine import Hardware, Machine
from rig.guest.receiver import Receiver
from rig.guest.setup import saved

from dockd.app.clock import MachineClock
from dockd.core.sshsig import SigningKey
from dockd.keep.journal import Journal
from dockd.model import StationId

pytestmark = [pytest.mark.rig, pytest.mark.timeout(3600)]

CUTS = int(os.environ.get("DOCKD_POWER_CUTS", "3"))
SEED = int(os.environ.get("DOCKD_POWER_SEED", "11"))
STATE_BYTES = 400 * cards.MIB  # more than the spool leaves free; nearly all of it is a hole
RECORDED_BYTES = 48 * cards.MIB  # small: it is copied for every state that it may have been left in
CLIPS = 3
LONGEST_S = 12.0  # after the camera was plugged in; by then it is ready


@pytest.fixture
def docks():
    """Makes a dock whose state lies on a disk of its own, which outlives every power cut; ends it with the test."""
    made = []

    def make(directory: Path, state: Path, *, log: Path | None = None) -> Dock:
        place = saved(Hardware())
        receiver = Receiver(place / "receiver").copy(directory / "receiver")
        dock = Dock(Machine(directory / "machine", base=base(), hardware=Hardware()), receiver)
        made.append(dock)
        receiver.start()
        if log is None:
            dock.machine.resume(place / "root.qcow2", state=state)
        else:
            shutil.copyfile(state, state.with_suffix(".before"))
            log.touch()
            dock.machine.resume(place / "root.qcow2", before=lambda: _add_recorded(dock.machine, state, log))
        dock.lead_to_receiver()
        dock.machine.run(_MOVE, check=True)
        dock.wait("the daemon answers", dock.status)
        return dock

    yield make
    for dock in made:
        dock.close()


_MOVE = """
systemctl stop dockd && mount -o noatime /dev/vdb /mnt && cp -a /var/lib/dockd/. /mnt/ && umount /mnt &&
mount -o noatime /dev/vdb /var/lib/dockd && printf '\n[spool]\nreserve_bytes = 1000000\n' >> /etc/dockd/dockd.toml &&
sync && systemctl start dockd
"""


def _state_disk(path: Path, size: int = STATE_BYTES) -> Path:
    with path.open("wb") as disk:
        disk.truncate(size)
    quick = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-J", "size=4", "-E", quick, path], check=True)
    return path


def _add_recorded(machine: Machine, image: Path, log: Path) -> None:
    """The state's disk, of which QEMU records every write and every flush."""
    machine.qmp(
        "blockdev-add",
        **{
            "driver": "blklogwrites",
            "node-name": "state",
            "file": {"driver": "file", "filename": str(image)},
            "log": {"driver": "file", "filename": str(log)},
        },
    )
    machine.qmp("device_add", driver="virtio-blk-pci", id="state-disk", drive="state", serial="state", addr="0xa")


def _card(path, mp4, seed):
    files = {f"DCIM/100BCAM/CLIP{number:04d}.MP4": mp4(400_000, seed + number) for number in range(CLIPS)}
    return cards.make_card(path, cards.Part(files=files, size_bytes=48 * cards.MIB, volume_id="1234-ABCD"))[0]


def test_p02_power_cuts_at_random_instants_lose_nothing(docks, tmp_path, mp4, capsys):
    chance = random.Random(SEED)
    image, state = tmp_path / "card.img", _state_disk(tmp_path / "state.img")
    dock, truth = docks(tmp_path / "dock", state), set()
    dock.enrol("POWER")
    for cut in range(CUTS):
        made = _card(image, mp4, 100 * cut)  # the officer was out again: new clips under the old names
        truth |= set(made.digests.items())
        dock.bays.plug("3", "POWER", image)
        instant_s = chance.uniform(0, LONGEST_S)
        deadline = time.monotonic() + instant_s
        dock.machine.wait("the instant", lambda until=deadline: time.monotonic() >= until, every_s=0.02)
        dock.machine.cut_power()
        with capsys.disabled():
            print(f"\npower cut {cut + 1} of {CUTS}, {instant_s:.2f} s after the plug")  # noqa: T201  asked for
        dock.bays = Bays(dock.machine)
        docked = _boot_with_camera(dock, state, image)
        dock.settled(3, "ready")
        assert cards.count(image, b"avc1") == 0
        dock.bays.pull(docked)
        dock.wait_bay(3, "empty")
    found = [(at.partition(":")[2], digest) for at, digests in dock.stored().items() for digest in digests]
    assert sorted(found) == sorted(truth), "every clip is in the store, once, and nothing else"
    dock.machine.run("dockd custody verify /var/lib/dockd", check=True)


def _boot_with_camera(dock: Dock, state: Path, image: Path) -> str:
    """Switch the dock on, with the camera in its bay from before the first instruction."""
    docked = []
    dock.machine.start(
        root=saved(Hardware()) / "root.qcow2",
        state=state,
        before=lambda: docked.append(dock.bays.plug("3", "POWER", image)),
    )
    dock.lead_to_receiver()
    return docked[0]


@contextmanager
def _mounted(image: Path, at: Path):
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,noatime", image, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def test_p02_every_state_between_two_flushes_is_a_sound_station(docks, tmp_path, mp4, capsys):
    image, state, log = (
        tmp_path / "card.img",
        _state_disk(tmp_path / "state.img", RECORDED_BYTES),
        tmp_path / "state.log",
    )
    made = _card(image, mp4, 7)
    dock = docks(tmp_path / "dock", state, log=log)
    dock.enrol("FLUSH")
    dock.machine.run("sync", check=True)
    dock.bays.plug("4", "FLUSH", image)
    dock.settled(4, "ready")
    stored = {digest for digests in dock.stored().values() for digest in digests}
    assert stored == set(made.digests.values())
    key = SigningKey.parse(dock.machine.read("/etc/dockd/keys/checkpoint.key"))
    dock.machine.cut_power()
    tried = 0
    for label, crashed in crash_states(state.with_suffix(".before"), log, tmp_path / "crash.img", seed=SEED):
        with _mounted(crashed, tmp_path / "mount") as at:
            if not (at / "journal.sqlite").exists():
                continue  # before the state was moved to this disk
            rows = asyncio.run(_rows(at, key))
            tried += 1
            for row in rows:
                if row.state in ("spooled", "uploading"):
                    sealed = at / "spool" / f"{row.acquisition}.age"
                    assert sealed.stat().st_size == row.sealed.sealed_size_bytes, f"{label}: {row.acquisition}"
                    digest = hashlib.sha256(sealed.read_bytes()).hexdigest()
                    assert row.sealed.sealed_digest == f"sha256:{digest}", label
                if row.state in ("warranted", "erased"):
                    assert row.manifest_digest, label
    with capsys.disabled():
        print(f"\n{tried} crash states, each a sound station")  # noqa: T201  the count is asked for
    assert tried > 20


async def _rows(at, key):
    """What the journal says, opened as a start opens it. Raises where it, or the custody log, is not sound."""
    line = (at / "custody" / "custody.jsonl").read_bytes().split(b"\n", 1)[0]
    station = StationId(json.loads(line)["station"])
    journal = await Journal.open(at, station=station, clock=MachineClock(), checkpoint_key=key)
    try:
        return await journal.read(lambda tx: tx.acquisitions())
    finally:
        await journal.aclose()
