"""Media that are failing, damaged, full or locked: what can be read is kept, and nothing counts as erased that is not.

All cameras are plugged in together; each test waits for its own.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cards
import pytest
from rig.guest.bays import Fault, Reader
from rig.guest.blocks import at, content, digest_of, extents

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]

PIECE = 4096  # what the reader gives up where a sector cannot be read
UNREADABLE = 150_000  # the byte of a clip that lies in the failing sector
CUT = 40 * PIECE  # where the chain of a clip breaks
CROSSED = 30 * PIECE  # where the chains of two clips meet
SLOW_BYTES = 90_000_000
READS = ("acquiring", "delivering")  # for the first time, for the second
HAVE_IT_EXAMINED = "have it examined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A camera as it was plugged in."""

    name: str
    bay: int
    serial: str
    image: Path
    files: Mapping[str, bytes]
    digest: str  # of the image


def clip(number):
    return f"DCIM/100BCAM/CLIP{number:04d}.MP4"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def plugged(module_dock, tmp_path_factory, mp4):
    place = tmp_path_factory.mktemp("cards")
    cameras: dict[str, tuple[Card, cards.Made]] = {}

    def plug(serial, *, clips=1, faults=None, break_it=None, read_only=False, **part):
        bay, image = len(cameras) + 1, place / f"{serial}.img"
        files = {clip(number): mp4(300_000, 100 * bay + number) for number in range(1, clips + 1)}
        made = cards.make_card(image, cards.Part(files=files, **part))[0]
        if break_it:
            break_it(image, made)
        reader = Reader(read_only=read_only, faults=faults(image, made) if faults else ())
        digest = digest_of(image)
        module_dock.enrol(serial)
        name = module_dock.bays.plug(str(bay), serial, image, reader=reader)
        cameras[serial] = Card(name=name, bay=bay, serial=serial, image=image, files=files, digest=digest), made

    plug("SECTOR", clips=2, faults=_one_sector("read", UNREADABLE, until_written=True))
    plug("STUBBORN", faults=lambda image, made: [Fault(on="write")])
    plug("HALFWAY", faults=_one_sector("write", 100_000))
    plug("TANGLED", clips=4, break_it=_tangle)
    plug("FULL-FAT", full=True)
    plug("FULL-EXT", full=True, kind="ext4")
    plug("LOCKED", read_only=True)
    return cameras


def _one_sector(on, offset, **how):
    def faults(image: Path, made: cards.Made) -> Sequence[Fault]:
        return [Fault(on=on, sector=at(extents(image, made, clip(1)), offset) // 512, **how)]

    return faults


def _tangle(image: Path, made: cards.Made) -> None:
    """Lead the chain of the first clip into that of the second, and the chain of the third into a free cluster."""
    first, second, third = (extents(image, made, clip(number)) for number in (1, 2, 3))
    with image.open("r+b") as card:
        card.seek(made.offset)
        boot = card.read(512)
        (sector,), per_cluster = struct.unpack_from("<H", boot, 11), boot[13]
        (reserved,), fats, (fat_sectors,) = (
            struct.unpack_from("<H", boot, 14),
            boot[16],
            struct.unpack_from("<I", boot, 36),
        )
        data, size = made.offset + (reserved + fats * fat_sectors) * sector, per_cluster * sector

        def set_next(place: int, value: int) -> None:
            cluster = (place - data) // size + 2
            for fat in range(fats):
                card.seek(made.offset + (reserved + fat * fat_sectors) * sector + 4 * cluster)
                card.write(struct.pack("<I", value))

        set_next(at(first, CROSSED - 1), (at(second, CROSSED) - data) // size + 2)
        set_next(at(third, CUT - 1), 0)


def clips_of(dock, card):
    return {row["path"]: row for row in dock.clips() if row["camera"] == card.serial}


def erased(dock, card):
    """What the custody log says was erased of a camera."""
    return [
        entry["acquisition"]
        for entry in dock.custody()
        if entry["event"] == "acquisition.erased" and entry["camera"] == card.serial
    ]


def test_p06_around_a_failing_sector_everything_is_kept_and_erased_by_a_release_alone(module_dock, plugged):
    dock, (card, made) = module_dock, plugged["SECTOR"]
    damaged = card.files[clip(1)]
    where = extents(card.image, made, clip(1))  # while it is still there
    bay = dock.settled(card.bay, "attention")
    hole = UNREADABLE // PIECE * PIECE
    kept = damaged[:hole] + bytes(PIECE) + damaged[hole + PIECE :]
    assert dock.stored(card.serial) == {clip(1): [sha256(kept)], clip(2): [sha256(card.files[clip(2)])]}
    rows = clips_of(dock, card)
    assert rows[clip(1)]["verdict"] == "damaged", str(rows)
    assert f"{PIECE} bytes could not be read" in rows[clip(1)]["reasons"][0]
    assert (rows[clip(1)]["state"], rows[clip(2)]["state"]) == ("stored", "erased"), str(bay)
    assert content(card.image, where) == damaged
    released = f"dockd clips release {rows[clip(1)]['acquisition']} --reason 'seen with the officer'"
    dock.machine.run(released, check=True)
    assert dock.wait_bay(card.bay, "ready")["clips_erased"] == 2
    assert not any(content(card.image, where))


def test_p01_what_takes_no_writes_is_never_counted_as_erased(module_dock, plugged):
    dock, (card, _) = module_dock, plugged["STUBBORN"]
    dock.wait(HAVE_IT_EXAMINED, lambda: HAVE_IT_EXAMINED in dock.bay(card.bay).get("note", ""))
    dock.settled(card.bay, "attention")
    assert dock.stored(card.serial) == {path: [sha256(data)] for path, data in card.files.items()}
    assert erased(dock, card) == []
    assert {row["state"] for row in clips_of(dock, card).values()} <= {"stored", "warranted"}
    assert digest_of(card.image) == card.digest


def test_p01_a_clip_that_resists_half_way_is_never_counted_as_erased(module_dock, plugged):
    dock, (card, _) = module_dock, plugged["HALFWAY"]
    bay = dock.settled(card.bay, "attention")
    assert dock.stored(card.serial) == {path: [sha256(data)] for path, data in card.files.items()}
    assert erased(dock, card) == [], str(bay)
    assert {row["state"] for row in clips_of(dock, card).values()} == {"warranted"}, str(bay)


def test_p06_of_a_corrupt_file_system_all_that_can_be_read_is_kept_and_nothing_is_erased(module_dock, plugged):
    dock, (card, _) = module_dock, plugged["TANGLED"]
    dock.settled(card.bay, "attention")
    one, two, three, four = (card.files[clip(number)] for number in (1, 2, 3, 4))
    assert dock.stored(card.serial) == {
        clip(1): [sha256(one[:CROSSED] + two[CROSSED:])],
        clip(2): [sha256(two)],
        clip(3): [sha256(three[:CUT] + bytes(len(three) - CUT))],
        clip(4): [sha256(four)],
    }
    rows = clips_of(dock, card)
    assert rows[clip(3)]["verdict"] == "damaged", str(rows)
    assert {row["state"] for row in rows.values()} == {"stored"}
    assert "contradicts itself" in rows[clip(4)]["waits_for"], str(rows)
    assert digest_of(card.image) == card.digest


@pytest.mark.parametrize("serial", ["FULL-FAT", "FULL-EXT"])
def test_a_full_medium_is_erased_like_another(module_dock, plugged, serial):
    dock, (card, _) = module_dock, plugged[serial]
    dock.settled(card.bay, "ready")
    assert dock.stored(card.serial) == {path: [sha256(data)] for path, data in card.files.items()}
    assert cards.count(card.image, b"avc1") == 0


def test_p01_from_a_read_only_medium_nothing_is_erased(module_dock, plugged):
    dock, (card, _) = module_dock, plugged["LOCKED"]
    bay = dock.settled(card.bay, "attention")
    assert "erase" in bay["note"], str(bay)
    assert dock.stored(card.serial) == {path: [sha256(data)] for path, data in card.files.items()}
    assert erased(dock, card) == []
    assert digest_of(card.image) == card.digest


def test_p09_a_slow_camera_holds_up_none_of_seven_fast_ones(module_dock, plugged, tmp_path, mp4):
    dock = module_dock
    for card, _ in plugged.values():
        dock.bays.pull(card.name)
    for card, _ in plugged.values():
        dock.wait_bay(card.bay, "empty")
    image = tmp_path / "slow.img"
    cards.make_card(image, cards.Part(files={clip(1): mp4(SLOW_BYTES, 1)}, size_bytes=128 * cards.MIB))
    dock.enrol("SLOW", *(f"FAST{bay}" for bay in range(2, 9)))
    slow = dock.bays.plug("1", "SLOW", image, reader=Reader(speed=1_000_000))
    dock.wait("it is read", lambda: dock.bay(1).get("bytes_acquired"))
    dock.bays.slow(slow, 250_000)  # six minutes more for what is left, however slow this machine is
    for bay in range(2, 9):
        image = tmp_path / f"{bay}.img"
        cards.make_card(image, cards.Part(files={clip(1): mp4(200_000, bay)}))
        dock.bays.plug(str(bay), f"FAST{bay}", image)
    for bay in range(2, 9):
        dock.settled(bay, "ready")
    held_up = dock.bay(1)
    assert held_up["state"] in READS, str(held_up)
    if held_up["state"] == "acquiring":
        dock.wait("it goes on", lambda: dock.bay(1)["bytes_acquired"] > held_up["bytes_acquired"])
    dock.bays.pull(slow)
    dock.wait_bay(1, "empty")
