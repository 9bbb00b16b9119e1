"""Cameras of mounted volumes: erased together, counted after a fresh mount, cleared where the profile asks for it."""

import json
import os

import pytest
from cards import MIB, count

from dockd.core.lifecycle import AcquisitionEvent
from dockd.core.profile import EraseMethod
from dockd.core.transfer import Call
from dockd.errors import CameraGone, CameraNotReady, EraseFailed, StoreUnreachable
from dockd.station.operations import Operations

MARK = b"a mark that stands in every block of a clip and nowhere else"


async def details(station, event):
    rows = await station.journal.read(lambda tx: tx.lines(0, 10_000))
    return [entry["details"] for entry in map(json.loads, rows) if entry["event"] == event]


async def test_p04_clips_of_a_volume_count_as_erased_after_a_fresh_mount_was_read_back(cards, clip):
    clips = {f"DCIM/C{number}.mp4": clip(number) for number in range(4)}
    card = cards.card(clips | {"log.txt": b"stays"})
    assert count(card.image, MARK) == 4
    station = await cards.station()
    seen = []
    card.at["open_to_read"] = lambda: seen.append(count(card.image, MARK))
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="ready")
    assert (bays[1].clips_erased, bays[1].others) == (4, 1)
    assert [call for call in card.calls if call != "identify_again"] == ["open_to_write", "open_to_read"]
    events = await station.events()
    last_warrant = max(place for place, event in enumerate(events) if event == "acquisition.warranted")
    assert last_warrant < events.index("acquisition.erased"), "all warrants stood before the first erasure"
    for detail in await details(station, "acquisition.erased"):
        assert detail["method"] == "delete"
        assert "overwritten" in detail["claimed"]
        assert "fresh mount" in detail["checked"]
    assert station.opened() == sorted(clips.values())
    assert count(card.image, MARK) == 0
    assert station.spool.usage() == (0, 0)


async def test_p04_no_byte_of_a_volume_changes_before_the_first_warrant(cards, clip):
    card = cards.card({"A.mp4": clip(1)})
    before = card.image.read_bytes()
    station = await cards.station()
    same = []
    card.at["open_to_write"] = lambda: same.append(card.image.read_bytes() == before)
    cards.source.plug(1, card)
    await station.until_states(bay1="ready")
    assert same == [True]


async def test_p01_a_batch_waits_until_every_clip_has_arrived(cards, clip):
    card = cards.card({f"C{number}.mp4": clip(number) for number in range(3)})
    station = await cards.station()
    station.store.fail(Call.RECEIPT, *[StoreUnreachable("away")] * 3)
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="ready")
    assert bays[1].clips_erased == 3
    assert card.calls.count("open_to_write") == 1


@pytest.mark.parametrize("call", ["open_to_write", "open_to_read"])
async def test_p02_a_mount_that_fails_once_is_tried_again_in_a_new_docking(cards, clip, call):
    card = cards.card({"A.mp4": clip(1), "B.mp4": clip(2)})
    card.wrong[call] = [EraseFailed("the write blocker went away")]
    station = await cards.station()
    cards.source.plug(1, card)
    await station.until(lambda now: now.bays[0].state == "interrupted", "the interruption")
    bays = await station.until_states(bay1="ready")
    assert bays[1].clips_erased == 2 or call == "open_to_read"
    assert len(await station.rows("erased")) == 2
    assert count(card.image, MARK) == 0
    lapsed = await details(station, "acquisition.lapsed")
    assert len(lapsed) == (2 if call == "open_to_write" else 0)


@pytest.mark.parametrize("error", [EraseFailed, CameraGone])  # to its reader, a failing medium may seem to be gone
async def test_p09_a_medium_that_cannot_be_written_ends_as_a_matter_for_a_person(cards, clip, error):
    card = cards.card({"A.mp4": clip(1)})
    card.wrong["open_to_write"] = [error("it is write-protected")] * 10
    station = await cards.station()
    cards.source.plug(1, card)
    said = await station.until(lambda now: now.bays[0].state == "attention" and now.bays[0].note, "the note")
    assert "have it examined" in said
    assert "write-protected" in said
    assert card.calls.count("open_to_write") == 3
    (row,) = await station.rows()
    assert row.state == "stored"
    assert count(card.image, MARK) == 1


async def test_p09_a_camera_that_is_not_ready_is_not_refused_and_tried_again(cards, clip):
    card = cards.card({"A.mp4": clip(1)})
    card.wrong["attach"] = [CameraNotReady("something else has it in use")] * 2
    station = await cards.station()
    cards.source.plug(1, card)
    said = await station.until(lambda now: now.bays[0].state == "interrupted" and now.bays[0].note, "the note")
    assert "something else has it in use" in said
    assert "tried again" in said
    await station.until_states(bay1="ready")
    assert card.wrong["attach"] == []
    assert "docking.refused" not in await station.events()
    assert await details(station, "docking.not_ready") == [{"label": "card", "reason": "something else has it in use"}]


async def test_p04_what_is_back_after_the_fresh_mount_was_not_erased(cards, clip):
    card = cards.card({"A.mp4": clip(1)})
    before = card.image.read_bytes()
    station = await cards.station()

    card.at["open_to_read"] = lambda: card.write_back(before) if card.calls.count("open_to_read") == 1 else None
    cards.source.plug(1, card)
    await station.until(lambda now: now.bays[0].state == "interrupted", "the interruption")
    assert not await station.rows("erased")
    (failure,) = await details(station, "acquisition.erasure_unverified")
    assert "A.mp4" in failure["reason"]
    await station.until_states(bay1="ready")
    assert count(card.image, MARK) == 0
    assert len(await details(station, "acquisition.lapsed")) == 1


async def test_p04_a_clip_that_left_its_bytes_behind_is_never_counted_as_erased(cards, clip):
    card = cards.card({"A.mp4": clip(1), "B.mp4": clip(2)})
    place = card.image.read_bytes().index(MARK)
    station = await cards.station()
    card.at["open_to_read"] = lambda: card.write_back(MARK, place)
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="ready")
    assert bays[1].clips_erased == 0
    assert len(await station.rows("erased")) == 1
    (left,) = await station.rows("quarantined")
    assert "could not be verified" in left.quarantine_reason
    assert "examined" in (await station.snapshot()).held[0].why


@pytest.mark.parametrize(
    "instant", ["erase.aside", "erase.renamed", "erase.overwritten", "erase.truncated", "erase.unlinked", "verify"]
)
async def test_p02_a_reader_that_dies_at_any_instant_of_erasing_loses_nothing(cards, clip, instant):
    clips = {f"C{number}.mp4": clip(number) for number in range(3)}
    card = cards.card(clips)
    station = await cards.station(faults=f"kill@{instant}:C1")
    cards.source.plug(1, card)
    await station.until(lambda now: now.bays[0].state == "interrupted", "the interruption")
    station.forkserver._faults = ""
    await station.forkserver.aclose()
    await station.until_states(bay1="ready")
    assert len(await station.rows("erased")) == 3
    assert station.opened() == sorted(clips.values())
    assert count(card.image, MARK) == 0
    events = await station.events()
    assert events.count("acquisition.erased") == 3


@pytest.mark.parametrize("turn", range(4))
async def test_p02_a_station_that_stops_while_it_erases_goes_on_at_its_next_start(cards, clip, turn):
    clips = {f"C{number}.mp4": clip(number) for number in range(4)}
    card = cards.card(clips)
    station = await cards.station()
    cards.source.plug(1, card)
    waits = (
        lambda row: row.state == "warranted",
        lambda row: card.calls.count("open_to_write") == 1,
        lambda row: card.calls.count("open_to_read") == 1,
        lambda row: row.state == "erased",
    )
    await station.until_row(waits[turn])
    await station.stop()
    cards.source.unplug(1)
    cards.source.plug(2, card)
    await station.start(sources=(cards.source,))
    await station.until_states(bay2="ready")
    assert len(await station.rows("erased")) == 4
    assert station.opened() == sorted(clips.values())
    assert count(card.image, MARK) == 0


async def test_p02_a_card_pulled_while_it_was_erased_is_finished_in_another_bay(cards, clip):
    """Its ext4 journal holds what was written under warrants: it is replayed before the card is listed."""
    clips = {f"C{number}.mp4": clip(number) for number in range(3)}
    card = cards.card(clips)
    pulled = []

    def look():  # what the medium holds at this instant, with the file system still mounted and written to
        if not pulled:
            os.sync()
            pulled.append(card.image.read_bytes())

    card.before["open_to_read"] = look
    card.at["open_to_read"] = lambda: card.write_back(pulled[0]) if card.calls.count("open_to_read") == 1 else None
    card.wrong["open_to_read"] = [EraseFailed("the device left")]
    station = await cards.station()
    cards.source.plug(1, card)
    await station.until(lambda now: now.bays[0].state == "interrupted", "the interruption")
    cards.source.unplug(1)
    cards.source.plug(2, card)
    await station.until_states(bay2="ready")
    assert len(await station.rows("erased")) == 3
    assert not await details(station, "docking.unclean")
    assert station.opened() == sorted(clips.values())
    assert count(card.image, MARK) == 0


async def test_p09_a_card_that_takes_no_writes_after_it_was_half_erased_ends_as_a_matter_for_a_person(cards, clip):
    card = cards.card({"A.mp4": clip(1)})
    pulled = []

    def look():
        os.sync()
        pulled.append(card.image.read_bytes())

    card.before["open_to_read"] = look
    card.at["open_to_read"] = lambda: card.write_back(pulled[0])
    card.wrong["open_to_read"] = [EraseFailed("the device left")]
    station = await cards.station()
    cards.source.plug(1, card)
    await station.until(lambda now: now.bays[0].state == "interrupted", "the interruption")
    card.before.clear()
    card.at.clear()
    card.wrong["open_to_write"] = [EraseFailed("it is write-protected")] * 10
    said = await station.until(lambda now: now.bays[0].state == "attention" and now.bays[0].note, "the note")
    assert "write-protected" in said
    assert station.opened()[0] == clip(1)


async def test_p09_a_row_that_moves_on_while_its_warrant_is_issued_ends_nothing(cards, clip):
    card = cards.card({"A.mp4": clip(1), "B.mp4": clip(2)})
    station = await cards.station()

    async def refuse():  # as the uplink does where the store takes its word back
        (row, *_) = await station.rows("stored")
        why = "taken back"
        await station.journal.write(
            lambda tx: tx.advance(row.acquisition, AcquisitionEvent.QUARANTINED, quarantine_reason=why)
        )
        card.meanwhile = None

    card.meanwhile = refuse
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="attention")
    assert (bays[1].clips_erased, bays[1].clips_quarantined) == (1, 1)
    assert count(card.image, MARK) == 1


# --- what needs a person


async def release(station, row):
    operations = Operations(station.daemon._sources(), station.daemon._operator_decided)
    asked = {"acquisition": row.acquisition, "reason": "seen by the authority"}
    return [answer async for answer in operations.answer("release", asked, "tester")]


async def test_p06_clips_of_an_unclean_file_system_wait_for_a_release(cards, clip):
    card = cards.card({"A.mp4": clip(1), "B.mp4": clip(2)}, dirty=True)
    before = card.image.read_bytes()
    station = await cards.station()
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="attention")
    assert bays[1].clips_stored == 2
    assert card.image.read_bytes() == before
    (unclean,) = await details(station, "docking.unclean")
    assert unclean["file_systems"]
    held = (await station.snapshot()).held
    assert len(held) == 2
    assert all("not clean" in clip.why for clip in held)
    assert not await details(station, "acquisition.warranted")
    for row in await station.rows():
        assert await release(station, row)
    await station.until(lambda now: now.bays[0].clips_erased == 2 and now.bays[0].state == "ready", "the erasing")
    assert count(card.image, MARK) == 0


async def test_p06_an_empty_clip_is_erased_by_a_release_alone(cards, clip):
    card = cards.card({"A.mp4": clip(1), "EMPTY.mp4": b""})
    station = await cards.station()
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="attention")
    assert (bays[1].clips_erased, bays[1].clips_held) == (1, 1)
    (row,) = await station.rows("stored")
    assert await release(station, row)
    await station.until_states(bay1="ready")


async def test_a_profile_that_erases_nothing_ends_with_every_clip_stored_and_untouched(cards, clip):
    card = cards.card({"A.mp4": clip(1), "log.txt": b"stays"}, erase=EraseMethod.NONE)
    before = card.image.read_bytes()
    station = await cards.station()
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="ready")
    assert (bays[1].clips_stored, bays[1].clips_erased) == (1, 0)
    assert "nothing is erased" in await station.until(lambda now: now.bays[0].note, "the note")
    assert card.image.read_bytes() == before
    assert "docking.delivered" in await station.events()


# --- clear


@pytest.mark.parametrize("method", [EraseMethod.CLEAR, EraseMethod.DISCARD])
async def test_p04_a_camera_is_cleared_once_its_clips_are_verified_as_gone(cards, clip, method):
    card = cards.card({"A.mp4": clip(1), "DCIM/B.mp4": clip(2)}, erase=method)
    station = await cards.station()
    cards.source.plug(1, card)
    await station.until_states(bay1="ready")
    assert len(await station.rows("erased")) == 2
    (cleared,) = await details(station, "docking.cleared")
    assert cleared["method"] == method.value
    assert "empty" in cleared["checked"]
    assert "overwrote" in cleared["done"]
    assert not card.probe().dirty
    events = await station.events()
    assert events.index("docking.cleared") > max(i for i, event in enumerate(events) if event == "acquisition.erased")
    assert await station.journal.read(lambda tx: tx.get("clearing:CARD1")) == ""


async def test_p04_a_camera_with_anything_else_on_it_is_not_cleared(cards, clip):
    card = cards.card({"A.mp4": clip(1), "log.txt": b"stays"}, erase=EraseMethod.CLEAR)
    station = await cards.station()
    cards.source.plug(1, card)
    await station.until_states(bay1="ready")
    assert "make_anew" not in card.calls
    (declined,) = await details(station, "docking.not_cleared")
    assert declined["instead"] == "delete"
    assert "no clips: 1" in declined["reason"]
    assert len(await station.rows("erased")) == 1


async def test_p02_a_clearing_that_was_cut_short_is_finished_by_the_next_docking(cards, clip):
    card = cards.card({"A.mp4": clip(1)}, erase=EraseMethod.CLEAR)
    card.wrong["make_anew"] = [EraseFailed("the device left")]
    station = await cards.station()
    await station.journal.write(lambda tx: tx.enrol("serial", "CARD1", operator="tester", reason="test"))
    cards.source.plug(1, card)
    await station.until(lambda now: now.bays[0].state == "interrupted", "the interruption")
    assert card.probe() is None
    await station.until_states(bay1="ready")
    assert card.probe().volume_id == card.volume_id
    assert len(await details(station, "docking.cleared")) == 1
    assert len(await details(station, "camera.clearing_resumed")) == 1


async def test_p08_a_blank_device_that_nobody_was_clearing_is_refused(cards):
    card = cards.card({})
    card.write_back(bytes(4 * MIB))
    station = await cards.station()
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="refused")
    assert "no file system" in bays[1].note
    assert card.calls == []
