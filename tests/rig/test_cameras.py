"""One camera of each kind, from plug to ready: read, sealed, stored, erased, and looked at from the host.

The receiver is away until all of them are read: what the images hold by then shows that reading left no trace.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cards
import pytest

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]

KINDS = {"vfat": 1, "exfat": 2, "ext4": 3}
MTP_BAY = 4
# Claims the interface of the only MTP device, as a photo program does, until it is ended.
HOLD = """exec python3 -c '
import fcntl, glob, os, struct, time
node, = (one for one in glob.glob("/dev/bus/usb/*/*") if b"\\x06\\x01\\x01" in open(one, "rb").read())
device = os.open(node, os.O_RDWR)
fcntl.ioctl(device, 0x8004550F, struct.pack("I", 0))  # USBDEVFS_CLAIMINTERFACE
open("/run/rig-holds", "w").close()
time.sleep(3600)
'"""
WITHHOLD = 'for node in $(find /dev/bus/usb -group dockd); do chgrp root "$node"; chmod 600 "$node"; done'
GIVE = "udevadm trigger --action=change --subsystem-match=usb && udevadm settle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Docked:
    """A camera that went through all of it."""

    image: Path
    digests: dict[str, str]
    untouched: bool  # its image was the same bit for bit until sanitising could begin
    bay: dict


def digest_of(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clips(mp4, count, *, size_bytes=300_000, seed=0):
    return {f"DCIM/100BCAM/CLIP{number:04d}.MP4": mp4(size_bytes, seed + number) for number in range(1, count + 1)}


@pytest.fixture(scope="module")
def docked(module_dock, tmp_path_factory, mp4):
    dock, place = module_dock, tmp_path_factory.mktemp("cards")
    images, made, before = {}, {}, {}
    with dock.receiver.away():
        for kind, bay in KINDS.items():
            images[kind] = place / f"{kind}.img"
            made[kind] = cards.make_card(images[kind], cards.Part(kind=kind, files=clips(mp4, 2, seed=10 * bay)))[0]
            before[kind] = digest_of(images[kind])
            dock.enrol(f"X-{kind}")
            dock.bays.plug(str(bay), f"X-{kind}", images[kind])
        for bay in KINDS.values():
            dock.wait(f"bay {bay} is read", lambda number=bay: dock.bay(number).get("clips_acquired") == 2)
        untouched = {kind: digest_of(image) == before[kind] for kind, image in images.items()}
    bays = {kind: dock.wait_bay(bay) for kind, bay in KINDS.items()}
    return {
        kind: Docked(image=images[kind], digests=made[kind].digests, untouched=untouched[kind], bay=bays[kind])
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_p01_a_camera_is_read_stored_and_erased(module_dock, docked, kind):
    camera = docked[kind]
    assert camera.bay["state"] == "ready", str(camera.bay)
    assert module_dock.stored(f"X-{kind}") == {path: [digest] for path, digest in camera.digests.items()}
    assert cards.count(camera.image, b"avc1") == 0, "a clip's header is still on the medium"


@pytest.mark.parametrize("kind", KINDS)
def test_p04_nothing_is_written_before_sanitising(docked, kind):
    assert docked[kind].untouched


@pytest.mark.parametrize("kind", KINDS)
def test_an_erased_camera_is_a_sound_file_system(docked, tmp_path, kind):
    volume = tmp_path / "volume"
    with docked[kind].image.open("rb") as card:
        card.seek(cards.MIB)
        volume.write_bytes(card.read())
    check = {"vfat": ("fsck.vfat", "-n"), "exfat": ("fsck.exfat", "-n"), "ext4": ("e2fsck", "-fn")}[kind]
    cards._run(*check, str(volume))


def test_an_mtp_camera_is_read_stored_and_erased(module_dock, tmp_path, mp4):
    dock, folder = module_dock, tmp_path / "mtp"
    files = clips(mp4, 2, seed=90)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    dock.enrol("X-MTP")
    name = dock.bays.plug_device(str(MTP_BAY), "usb-mtp", rootdir=str(folder), serial="X-MTP", readonly=False)
    dock.settled(MTP_BAY, "ready")
    shown = dock.machine.run("udevadm info --name=$(find /dev/bus/usb -group dockd)", check=True).out
    assert "CURRENT_TAGS" not in shown or "uaccess" not in shown.partition("CURRENT_TAGS=")[2].partition("\n")[0], shown
    digests = sorted([hashlib.sha256(content).hexdigest()] for content in files.values())
    assert sorted(dock.stored("X-MTP").values()) == digests
    assert not [path for path in folder.rglob("*") if path.is_file()]
    dock.bays.pull(name)


def plug_mtp(dock, bay, folder, mp4, serial):
    """One that nobody enrolled yet: it is refused, and not opened."""
    clip = folder / "DCIM" / "CLIP0001.MP4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(mp4(200_000, 95))
    name = dock.bays.plug_device(str(bay), "usb-mtp", rootdir=str(folder), serial=serial, readonly=False)
    assert "is not enrolled" in dock.settled(bay, "refused")["note"]
    return name, clip


def interrupted_with(dock, bay, words):
    dock.wait(words, lambda: (now := dock.bay(bay)).get("state") == "interrupted" and words in now["note"])


def test_p09_an_mtp_camera_that_another_program_holds_is_read_once_that_lets_go(module_dock, tmp_path, mp4):
    dock, bay = module_dock, 5
    name, clip = plug_mtp(dock, bay, tmp_path / "held", mp4, "X-HELD")
    pid = dock.machine.begin(HOLD)
    dock.machine.wait("it is held", lambda: dock.machine.run("test -e /run/rig-holds").code == 0)
    dock.enrol("X-HELD")
    interrupted_with(dock, bay, "another program holds the camera")
    assert clip.exists()
    dock.machine.run(f"kill {pid}", check=True)
    dock.wait("it is let go", lambda: dock.bay(bay).get("state") != "interrupted")
    dock.settled(bay, "ready")
    assert len(dock.stored("X-HELD")) == 1
    assert not clip.exists()
    dock.bays.pull(name)


def test_p09_an_mtp_camera_that_udev_is_late_with_is_read_once_it_may_be_opened(module_dock, tmp_path, mp4):
    dock, bay = module_dock, 6
    name, clip = plug_mtp(dock, bay, tmp_path / "late", mp4, "X-LATE")
    dock.machine.run(WITHHOLD, check=True)
    dock.enrol("X-LATE")
    interrupted_with(dock, bay, "udev has to give it to the group dockd")
    dock.machine.run(GIVE, check=True)
    dock.wait("it may be opened", lambda: dock.bay(bay).get("state") != "interrupted")
    dock.settled(bay, "ready")
    assert len(dock.stored("X-LATE")) == 1
    assert not clip.exists()
    dock.bays.pull(name)
