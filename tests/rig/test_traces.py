"""What a camera's image on the host shows: nothing of the clips after erasing, and no write at all before it.

10,000 strings are planted in the clips of each camera, and some more in its free space, as clips of long ago.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cards
import pytest
from rig.guest.bays import Reader
from rig.guest.blocks import content, digest_of, extents, superblock

from dockd.filesystems import Extent

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]

MARKERS = 10_000
OLD_MARKERS = 100
STRIDE = 64  # from one to the next
CLIPS = 2
MARKER = re.compile(rb"<planted \d{5}>")
OLD_MARKER = re.compile(rb"<of long ago \d{5}>")
KINDS = ("vfat", "exfat", "ext4")
CAMERAS = {
    **{f"DELETE-{kind}": kind for kind in KINDS},
    **{f"CLEAR-{kind}": kind for kind in KINDS},
    "DISCARD-ext4": "ext4",
}
PROFILE = """\
version = 1
description = "cards labelled {method}, of the rig"
erase = "{method}"

[[match]]
medium = "storage"
label = "{method}"
must_exist = "DCIM"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One that went through all of it."""

    image: Path
    before: cards.Made
    told: tuple[str, str, str]  # kind, volume id and label of its file system
    places: tuple[Extent, ...]  # where its clips lay
    untouched: bool  # its image, when all was read
    written: int  # write and discard requests that had reached it by then
    bay: dict


def planted(mp4, number):
    """A clip whose media are markers."""
    markers = range(number * MARKERS // CLIPS, (number + 1) * MARKERS // CLIPS)
    media = b"".join((b"<planted %05d>" % marker).ljust(STRIDE, b".") for marker in markers)
    made = mp4(len(media), number)
    start = made.index(b"mdat") + 4
    return made[:start] + media + made[start + len(media) :]


def told(image, made):
    found = superblock(image, made)
    return found.kind, found.volume_id, found.label


def requests(machine, name):
    """How many requests that change something reached a camera's disk."""
    found = [one["stats"] for one in machine.qmp("query-blockstats") if f"{name}-lun0" in one.get("qdev", "")]
    assert len(found) == 1, found
    return found[0]["wr_operations"] + found[0]["unmap_operations"]


def marked(image, pattern=MARKER):
    return len(set(pattern.findall(image.read_bytes())))


@pytest.fixture(scope="module")
def cameras(module_dock, tmp_path_factory, mp4):
    dock, place = module_dock, tmp_path_factory.mktemp("cards")
    for method in ("clear", "discard"):
        dock.machine.write(f"/etc/dockd/cameras.d/rig-{method}.toml", PROFILE.format(method=method).encode())
    dock.machine.run("systemctl reload dockd", check=True)
    clips = {f"DCIM/100BCAM/CLIP{number:04d}.MP4": planted(mp4, number) for number in range(CLIPS)}
    old = b"".join((b"<of long ago %05d>" % marker).ljust(STRIDE) for marker in range(OLD_MARKERS))
    dock.receiver.stop()
    docked = {}
    for bay, (serial, kind) in enumerate(CAMERAS.items(), 1):
        image = place / f"{serial}.img"
        made = cards.make_card(image, cards.Part(kind=kind, files=clips, label=serial.partition("-")[0]))[0]
        with image.open("r+b") as card:
            card.seek(made.offset + made.size_bytes - 2 * cards.MIB)
            card.write(old)
        assert (marked(image), marked(image, OLD_MARKER)) == (MARKERS, OLD_MARKERS), "they are not in the image"
        places = tuple(place for name in clips for place in extents(image, made, name))
        dock.enrol(serial)
        transport = "uas" if serial.startswith("DISCARD") else "bot"
        state = image, made, told(image, made), places, digest_of(image)
        docked[serial] = bay, dock.bays.plug(str(bay), serial, image, reader=Reader(transport=transport)), state
    dock.wait("all is read", lambda: len(dock.clips()) == CLIPS * len(CAMERAS) and all_read(dock))
    idle = {
        serial: (digest_of(state[0]) == state[4], requests(dock.machine, name))
        for serial, (_, name, state) in docked.items()
    }
    dock.receiver.start()
    return {
        serial: Camera(
            image=image,
            before=made,
            told=before,
            places=places,
            untouched=idle[serial][0],
            written=idle[serial][1],
            bay=dock.wait_bay(bay),
        )
        for serial, (bay, _, (image, made, before, places, _)) in docked.items()
    }


def all_read(dock):
    """Once for the store, and a second time for the warrants."""
    return all(row["sealed"] and row["reread"] for row in dock.clips())


@pytest.mark.parametrize("serial", CAMERAS)
def test_p04_no_byte_is_written_before_sanitising(cameras, serial):
    assert cameras[serial].untouched
    assert cameras[serial].written == 0


@pytest.mark.parametrize("serial", CAMERAS)
def test_p04_what_was_erased_is_not_where_it_was(cameras, serial):
    camera = cameras[serial]
    assert camera.bay["state"] == "ready", str(camera.bay)
    left = content(camera.image, camera.places)
    assert MARKER.search(left) is None
    fresh = camera.told[0] == "ext4"  # a new one may have tables of its own there
    assert fresh or not any(left), "what was written over it is not zeros"


@pytest.mark.parametrize("serial", [serial for serial in CAMERAS if not serial.startswith("DELETE")])
def test_p04_a_cleared_medium_holds_nothing_of_before(module_dock, cameras, serial):
    camera = cameras[serial]
    assert (marked(camera.image), marked(camera.image, OLD_MARKER)) == (0, 0)
    assert told(camera.image, camera.before) == camera.told, "its file system is another now"
    events = {entry["event"] for entry in module_dock.custody() if entry.get("camera") == serial}
    assert "docking.cleared" in events, str(events)


@pytest.mark.parametrize("kind", KINDS)
def test_p04_deleting_touches_nothing_but_the_clips(cameras, kind):
    assert marked(cameras[f"DELETE-{kind}"].image, OLD_MARKER) == OLD_MARKERS
