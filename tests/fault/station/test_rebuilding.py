"""A journal that is corrupt or gone: set aside, rebuilt as far as can be proven; nothing is erased until then."""

import json
import shutil

import pytest

from dockd.core import checkpoint
from dockd.core.custody_check import verify_log
from dockd.core.transfer import Call
from dockd.errors import JournalCorrupt, StoreUnreachable
from dockd.keep import aside, rebuild


@pytest.fixture
def clip(mp4):
    """A whole MP4 clip, unlike any other with another number."""
    return lambda number: mp4(100_000, number)


def zeros_over_a_page(journal):
    content = bytearray(journal.read_bytes())
    content[4096 * 5 : 4096 * 6] = bytes(4096)
    journal.write_bytes(content)


HARMS = {
    "its header is other bytes": lambda path: path.write_bytes(b"x" * 4096 + path.read_bytes()[4096:]),
    "a page in it is zeros": zeros_over_a_page,
    "it was cut": lambda path: path.write_bytes(path.read_bytes()[:20_000]),
    "it is gone": lambda path: path.unlink(),
    "it is empty": lambda path: path.write_bytes(b""),
}


async def _stopped_with_a_clip_in_the_spool(station, clip):
    """One clip is stored and erased, another sealed only; both cameras are in their bays."""
    await station.start()
    station.camera(1, {"A.mp4": clip(1)})
    await station.until_states(bay1="ready")
    await station.until(lambda now: now.custody_witnessed >= 15, "the store's word")
    station.store.fail(Call.REGISTER, *[StoreUnreachable("away")] * 1000)
    station.camera(2, {"B.mp4": clip(2)})
    await station.until(lambda now: now.bays[1].clips_acquired == 1, "reading")
    await station.stop()
    station.store._failing[Call.REGISTER].clear()


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
async def test_p02_p07_a_lost_journal_is_set_aside_and_rebuilt_and_nothing_is_erased_meanwhile(station, clip, harm):
    await _stopped_with_a_clip_in_the_spool(station, clip)
    state = station.directory / "state"
    old_log = (state / "custody" / "custody.jsonl").read_bytes()
    witnessed = (state / "custody" / "witnessed").read_bytes()
    harm(state / "journal.sqlite")
    await station.start()

    assert len(list(state.glob("journal.sqlite.corrupt-*Z"))) == (state / "journal.sqlite").exists() - (
        harm is HARMS["it is gone"]
    )
    assert (state / "custody-1" / "custody.jsonl").read_bytes() == old_log
    first = json.loads(await station.journal.read(lambda tx: tx.line(0)))
    assert (first["event"], first["details"]["before"]["proven"]) == ("log.rebuilt", "yes")
    size = int(witnessed.split(b"\n")[1])
    assert first["details"]["before"]["witnessed"]["size"] == size
    assert station.journal.origin == f"dockd/{station.name}/2"

    # What was in the spool is pushed; the clip on the camera is read anew; nothing of it is erased.
    await station.until(lambda now: now.stores[0].waiting == 0 and now.bays[1].clips_stored == 1, "pushing")
    bays = await station.until_states(bay1="ready", bay2="attention")
    assert "nothing is erased: the journal was lost" in bays[2].note
    assert any("accept-log" in alarm for alarm in (await station.snapshot()).alarms)
    assert station.opened() == sorted([clip(1), clip(2), clip(2)])
    assert (station.bays[2] / "CAM2" / "B.mp4").read_bytes() == clip(2)
    assert "acquisition.warranted" not in await station.events()

    station.store.accept_log()
    station.daemon._stores.witness_soon()
    await station.until(lambda now: not now.alarms, "the end of the alarm")
    station.daemon._dockings[next(key for key in station.daemon._dockings if "CAM2" in key)].changed()
    await station.until_states(bay2="ready")
    assert not (station.bays[2] / "CAM2" / "B.mp4").exists()
    events = await station.events()
    assert (events.count("acquisition.restored"), events.count("acquisition.erased")) == (1, 1)
    await station.stop()
    for generation, place in ((1, "custody-1"), (2, "custody")):
        report = verify_log(
            aside.lines_of(state / place / "custody.jsonl"),
            (state / place / "checkpoint").read_bytes(),
            origin=checkpoint.origin_of(station.name, generation),
            public=station.checkpoint_key.public,
        )
        assert report.whole, report.defects
    await station.start()
    await station.until_states(bay2="ready")
    assert station.journal.origin == f"dockd/{station.name}/2"


async def test_p02_a_rebuilding_that_is_cut_short_is_finished_by_the_next_start(station, clip):
    """Every state of the directory in which the power can fail."""
    await _stopped_with_a_clip_in_the_spool(station, clip)
    state = station.directory / "state"
    zeros_over_a_page(state / "journal.sqlite")
    with pytest.raises(JournalCorrupt):
        await rebuild.Journal.open(
            state, station=station.name, clock=station.clock, checkpoint_key=station.checkpoint_key
        )
    broken = station.directory / "broken"
    shutil.copytree(state, broken)
    journal = await rebuild.open_journal(state, station.spool, station.origins())
    await journal.aclose()
    whole = station.directory / "whole"
    state.rename(whole)

    def set_aside():
        shutil.copytree(broken, state)
        aside.set_aside(state, station.clock.now())

    def half_made():
        set_aside()
        (state / aside.REBUILDING).mkdir()
        (state / aside.REBUILDING / "journal.sqlite").write_bytes(b"half")

    def made():
        set_aside()
        (state / aside.REBUILT).mkdir()
        shutil.copytree(whole / "custody", state / aside.REBUILT / "custody")
        shutil.copy(whole / "journal.sqlite", state / aside.REBUILT)

    def custody_out_of_the_way():
        made()
        (state / "custody").rename(state / "custody-1")

    def custody_in_place():
        custody_out_of_the_way()
        (state / aside.REBUILT / "custody").rename(state / "custody")

    def journal_in_place():
        custody_in_place()
        (state / aside.REBUILT / "journal.sqlite").rename(state / "journal.sqlite")

    for cut in (set_aside, half_made, made, custody_out_of_the_way, custody_in_place, journal_in_place):
        cut()
        journal = await rebuild.open_journal(state, station.spool, station.origins())
        assert journal.origin.endswith("/2"), cut
        first = json.loads(await journal.read(lambda tx: tx.line(0)))
        assert first["event"] == "log.rebuilt"
        assert [row.state for row in await journal.read(lambda tx: tx.acquisitions())] == ["spooled"], cut
        await journal.aclose()
        assert aside.former_generations(state) == [1]
        assert len(list(state.glob("journal.sqlite.corrupt-*Z"))) == 1
        assert not (state / aside.REBUILT).exists()
        shutil.rmtree(state)


async def test_p01_what_a_tampered_log_says_is_no_proof_and_an_unprovable_file_is_set_aside(station, clip):
    await _stopped_with_a_clip_in_the_spool(station, clip)
    state, spool = station.directory / "state", station.directory / "spool"
    (state / "journal.sqlite").write_bytes(b"no journal")
    log = state / "custody" / "custody.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"CAM1"', b'"CAM9"'))
    (sealed,) = spool.glob("*.manifest.json")
    sealed.write_bytes(sealed.read_bytes().replace(b"B.mp4", b"C.mp4"))
    await station.start()
    first = json.loads(await station.journal.read(lambda tx: tx.line(0)))
    assert first["details"]["before"]["proven"].startswith("no: ")
    assert first["details"]["set_aside_in_spool"] == 1
    assert len(list((spool / "set-aside").glob("*.age"))) == 1
    await station.until_states(bay2="attention")  # read anew, and pushed
    assert station.opened() == sorted([clip(1), clip(2)])
