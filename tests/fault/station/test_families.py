"""Clips with sidecars that cannot go at once: what keeps one of them keeps all, in words; what a crash leaves."""

import asyncio
import json
import os

import pytest
from cards import count

from dockd.core.profile import FileRules, Match, Pattern, Profile
from dockd.core.transfer import Call
from dockd.devices.folder import FolderSource
from dockd.errors import StoreRefused
from dockd.station.operations import Operations

MARK = b"a mark that stands in every block of a clip and nowhere else"
PROFILE = Profile(
    name="paired",
    version=1,
    matches=(Match(),),
    files=FileRules(clips=Pattern(suffixes=(".mp4",)), sidecars=Pattern(suffixes=(".thm", ".gps"))),
)
DAMAGED = b"\0\0\0\x18ftypisom" + bytes(40_000)


class Paired:
    """A folder's attachment whose files a profile with sidecars tells apart."""

    profile = PROFILE

    def __init__(self, attachment):
        self._attachment = attachment

    def __getattr__(self, name):
        return getattr(self._attachment, name)


class PairedFolders(FolderSource):
    async def attach(self, plugged, candidate):
        return Paired(await super().attach(plugged, candidate))


@pytest.fixture
def dock(cards, make_station):
    """`dock(kind, files)`: a station with these files in bay 1; and how many of them the medium holds still."""

    async def made(kind, files, *, refused=(), **options):
        if kind == "volume":
            card = cards.card(files)
            card.profile = PROFILE
            station = await cards.station(**options)
            station.store.fail(Call.REGISTER, *refused)
            cards.source.plug(1, card)
            return station, lambda: count(card.image, MARK)
        station = make_station(**options)
        station.store.fail(Call.REGISTER, *refused)
        await station.start(sources=(PairedFolders(station.bays),))
        place = station.camera(1, files)
        return station, lambda: sum(MARK in path.read_bytes() for path in place.iterdir())

    return made


def operations(station):
    return Operations(station.daemon._sources(), station.daemon._operator_decided)


async def waits_for(station):
    """What `dockd clips` says of each path that is not erased."""
    clips = [clip async for clip in operations(station).answer("clips", {}, "pat")]
    return {clip["path"]: clip["waits_for"] for clip in clips if clip["state"] != "erased"}


async def release(station, path):
    (row,) = [row for row in await station.rows() if row.file.path == path]
    asked = {"acquisition": row.acquisition, "reason": "seen by the authority"}
    assert [answer async for answer in operations(station).answer("release", asked, "pat")]


async def erased(station):
    return sorted(row.file.path.decode() for row in await station.rows("erased"))


async def logged(station, *events):
    lines = map(json.loads, await station.journal.read(lambda tx: tx.lines(0, 10_000)))
    return [entry["event"] for entry in lines if entry["event"] in events]


@pytest.mark.parametrize("kind", ["folder", "volume"])
async def test_p06_a_damaged_member_keeps_its_family_until_it_is_released(dock, clip, kind):
    files = {"A.mp4": DAMAGED, "A.thm": b"seen", "A.gps": b"N 1", "B.mp4": clip(2), "B.thm": b"seen"}
    station, _ = await dock(kind, files)
    await station.until_states(bay1="attention")
    assert await erased(station) == ["B.mp4", "B.thm"]
    said = await waits_for(station)
    assert said["A.mp4"].startswith("damaged")
    for path in ("A.thm", "A.gps"):
        assert "erased together with A.mp4 or not at all" in said[path]
        assert "damaged" in said[path]
    held = {one.path: one.why for one in (await station.snapshot()).held}
    assert held == {path.encode(): why for path, why in said.items()}
    await release(station, b"A.mp4")
    await station.until_states(bay1="ready")
    assert len(await erased(station)) == 5


@pytest.mark.parametrize("kind", ["folder", "volume"])
async def test_p06_of_two_members_that_need_a_release_each_says_so_at_once(dock, kind):
    station, _ = await dock(kind, {"A.mp4": b"", "A.gps": b"", "A.thm": b"seen"})
    await station.until_states(bay1="attention")
    assert await erased(station) == []
    await release(station, b"A.mp4")
    await station.until(lambda now: any("A.gps" in one.why for one in now.held), "the other one is named")
    assert await erased(station) == []
    await release(station, b"A.gps")
    await station.until_states(bay1="ready")
    assert len(await erased(station)) == 3


async def test_p06_a_release_of_one_member_alone_erases_nothing_of_an_unclean_camera(cards, clip):
    card = cards.card({"A.mp4": clip(1), "A.thm": b"seen"}, dirty=True)
    card.profile = PROFILE
    before = card.image.read_bytes()
    station = await cards.station()
    cards.source.plug(1, card)
    await station.until_states(bay1="attention")
    assert all("not clean" in why for why in (await waits_for(station)).values())
    await release(station, b"A.thm")
    cards.source.unplug(1)
    cards.source.plug(2, card)
    await station.until_states(bay2="attention")
    assert card.image.read_bytes() == before
    assert "together with A.mp4" in (await waits_for(station))["A.thm"]
    await release(station, b"A.mp4")
    await station.until_states(bay2="ready")
    assert await erased(station) == ["A.mp4", "A.thm"]


@pytest.mark.parametrize("kind", ["folder", "volume"])
async def test_p01_a_member_that_the_store_refuses_keeps_its_family(dock, clip, kind):
    station, marked = await dock(
        kind, {"A.mp4": clip(1), "A.thm": b"seen"}, refused=[StoreRefused("never", status=403)]
    )
    await station.until_states(bay1="attention")
    assert await erased(station) == []
    assert marked() == 1
    (row,) = await station.rows("quarantined")
    (other,) = await station.rows("stored")
    said = await waits_for(station)
    assert f"together with {row.file.path.decode()}" in said[other.file.path.decode()]
    asked = {"acquisition": row.acquisition, "reason": "the store was mended"}
    assert [answer async for answer in operations(station).answer("retry", asked, "pat")]
    await station.until_states(bay1="ready")
    assert marked() == 0


async def test_p01_nothing_of_a_family_is_touched_while_one_of_it_is_in_use(make_station, clip):
    station = make_station()
    await station.start(sources=(PairedFolders(station.bays),))
    place = station.directory / "made" / "CAM1"
    place.mkdir(parents=True)
    (place / "A.thm").write_bytes(b"seen")
    with (place / "A.thm").open("rb"):
        station.camera(1, {"A.mp4": clip(1), "B.mp4": clip(2)})
        await station.until(lambda now: now.bays[0].clips_erased == 1, "the other one was erased")
        async with asyncio.timeout(40):
            while "open" not in (said := await waits_for(station))["A.thm"]:
                await asyncio.sleep(0.05)
        assert await erased(station) == ["B.mp4"]
        assert (station.bays[1] / "CAM1" / "A.mp4").read_bytes() == clip(1)
        assert await logged(station, "acquisition.lapsed") == []
        assert "together with A.thm" in said["A.mp4"]
    await station.until_states(bay1="ready")
    assert len(await erased(station)) == 3


@pytest.mark.parametrize("kind", ["folder", "volume"])
@pytest.mark.parametrize("name", ["A.mp4", "A.thm"])
@pytest.mark.parametrize("instant", ["erase.aside", "erase.overwritten", "erase.unlinked"])
async def test_p02_a_reader_that_dies_within_a_family_leaves_what_the_next_listing_resolves(
    dock, clip, kind, name, instant
):
    station, marked = await dock(kind, {"A.mp4": clip(1), "A.thm": b"seen"}, faults=f"kill@{instant}:{name}")
    await station.until(lambda now: now.bays[0].state == "interrupted", "the interruption")
    begun = await logged(station, "acquisition.warranted", "acquisition.erased")
    assert begun[:2] == ["acquisition.warranted"] * 2
    station.forkserver._faults = ""
    await station.forkserver.aclose()
    await station.until_states(bay1="ready")
    assert await erased(station) == ["A.mp4", "A.thm"]
    assert marked() == 0


@pytest.mark.parametrize("kind", ["folder", "volume"])
async def test_p01_a_clip_that_resists_is_not_left_without_its_sidecars(dock, clip, kind):
    files = {"A.mp4": clip(1), "A.gps": b"N 1", "B.mp4": clip(2), "B.thm": b"seen"}
    station, marked = await dock(kind, files, faults="eio@erase.set_aside:A.mp4")
    await station.until_states(bay1="attention")
    assert await erased(station) == ["B.mp4", "B.thm"]
    assert marked() == 1
    assert await logged(station, "acquisition.lapsed") == ["acquisition.lapsed"] * 2
    said = await waits_for(station)
    assert "could not be set aside" in said["A.mp4"]
    assert "together with A.mp4" in said["A.gps"]


async def test_a_sidecar_found_after_its_clip_was_erased_is_erased_alone(make_station, clip):
    station = make_station()
    await station.start(sources=(PairedFolders(station.bays),))
    place = station.camera(1, {"A.mp4": clip(1)})
    await station.until_states(bay1="ready")
    place = place.rename(station.directory / "away")
    await station.until_states(bay1="empty")
    (place / "A.thm").write_bytes(b"seen")
    place.rename(station.bays[2] / "CAM1")
    await station.until_row(lambda row: row.file.path == b"A.thm" and row.state == "erased")


async def test_p05_what_could_not_be_looked_into_keeps_what_it_may_belong_to(make_station, clip):
    station = make_station()
    await station.start(sources=(PairedFolders(station.bays),))
    made = station.directory / "made" / "CAM1"
    made.mkdir(parents=True)
    os.symlink("elsewhere", made / "A.mp4")
    station.camera(1, {"A.thm": b"seen", "AB.thm": b"seen", "B.mp4": clip(2), "B.thm": b"seen"})
    await station.until_states(bay1="attention")
    assert await erased(station) == ["AB.thm", "B.mp4", "B.thm"]
    assert (
        "A.mp4, which may belong to it, could not be looked into: a symbolic link"
        in (await waits_for(station))["A.thm"]
    )
