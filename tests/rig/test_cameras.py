"""One camera of each kind, from plug to ready: read, sealed, stored, erased, and looked at from the host.

The receiver is away until all of them are read: what the images hold by then shows that reading left no trace.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cards
import pytest

pytestmark = [pytest.mark.rig, pytest.mark.timeout(600)]

KINDS = {"vfat": 1, "exfat": 2, "ext4": 3}
MTP_BAY = 4


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
    bays = {kind: dock.wait_bay(bay, timeout_s=120) for kind, bay in KINDS.items()}
    return {
        kind: Docked(image=images[kind], digests=made[kind].digests, untouched=untouched[kind], bay=bays[kind])
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_p01_a_camera_is_read_stored_and_erased(module_dock, docked, kind):
    camera = docked[kind]
    assert camera.bay["state"] == "ready", camera.bay
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
    dock.bays.plug_device(str(MTP_BAY), "usb-mtp", rootdir=str(folder), serial="X-MTP", readonly=False)
    bay = dock.wait_bay(MTP_BAY)
    assert bay["state"] == "ready", bay
    digests = sorted([hashlib.sha256(content).hexdigest()] for content in files.values())
    assert sorted(dock.stored("X-MTP").values()) == digests
    assert not [path for path in folder.rglob("*") if path.is_file()]
