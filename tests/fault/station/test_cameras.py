"""Cameras at their worst, on a whole station: pulled, swapped, changed while they are read, broken, huge."""

import asyncio
import os
import random
import shutil

import pytest

from dockd.control.client import ask
from dockd.core.transfer import Call
from dockd.errors import StoreUnreachable
from dockd.reader.client import ClipRules
from dockd.station.operations import Operations

MIB = 1 << 20
MANY = int(os.environ.get("DOCKD_MANY_CLIPS", "10000"))


@pytest.fixture
def clip(mp4):
    """A whole MP4 clip, unlike any other with another number."""
    return lambda number, size=100_000: mp4(size, number)


def away(station, *calls):
    for call in calls:
        station.store.fail(call, *[StoreUnreachable("away")] * 10_000)


def back(station, *calls):
    for call in calls:
        station.store._failing[call].clear()
    station.daemon._stores.nudge()


async def without_faults(station):
    """Readers from now on are without faults; those that are, are gone."""
    station.forkserver._faults = ""
    await station.forkserver.aclose()


STATES = {
    "listing": ("hang@list", (), lambda now: now.bays[0].state == "listing"),
    "acquiring": ("hang@read:A.mp4", (), lambda now: now.bays[0].state == "acquiring"),
    "sealed": ("", (Call.REGISTER,), lambda now: now.bays[0].clips_acquired == 3),
    "rereading": ("hang@reread.done", (), lambda now: now.bays[0].clips_stored == 3),
    "uploaded": ("", (Call.RECEIPT,), lambda now: now.bays[0].clips_acquired == 3),
    "stored": ("", (Call.HOLDING,), lambda now: now.bays[0].clips_stored == 3),
    "sanitising": ("hang@erase.overwritten", (), lambda now: now.bays[0].state == "sanitising"),
}


@pytest.mark.parametrize("state", STATES)
async def test_p02_undocked_in_any_state_and_docked_again(make_station, clip, state):
    faults, calls, reached = STATES[state]
    station = make_station(faults=faults)
    away(station, *calls)
    await station.start()
    clips = {f"{name}.mp4": clip(number) for number, name in enumerate("ABC")}
    camera = station.camera(1, clips)
    await station.until(reached, state)
    if state == "sanitising":
        async with asyncio.timeout(30):
            while not list(camera.glob(".dockd-erasing-*")):
                await asyncio.sleep(0.02)
    outside = camera.rename(station.directory / "CAM1")
    await station.until_states(bay1="empty")
    await without_faults(station)
    back(station, *calls)
    outside.rename(station.bays[2] / "CAM1")
    await station.until_states(bay2="ready")
    assert station.opened() == sorted(clips.values())
    assert [path.name for path in (station.bays[2] / "CAM1").iterdir()] == ["dockd-camera.toml"]
    events = await station.events()
    assert events.count("acquisition.found") == events.count("acquisition.erased") == len(clips)


async def test_p08_a_twin_put_in_between_reading_and_erasing_is_read_itself_before_anything_of_it_goes(station, clip):
    """The same serial, file system, name, size and time; other bytes. The first camera keeps what it has."""
    away(station, Call.HOLDING)
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    await station.until(lambda now: now.bays[0].clips_stored == 1, "storing")
    twin = station.directory / "twin"
    shutil.copytree(camera, twin)
    status = (camera / "A.mp4").stat()
    (twin / "A.mp4").write_bytes(clip(2)[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(twin / "A.mp4", ns=(status.st_atime_ns, status.st_mtime_ns))
    content = (twin / "A.mp4").read_bytes()
    camera.rename(station.directory / "first")
    twin.rename(station.bays[1] / "CAM1")
    back(station, Call.HOLDING)
    await station.until(lambda now: now.bays[0].clips_erased == 1 and now.bays[0].state in ("ready", "attention"), "it")
    assert (station.directory / "first" / "A.mp4").read_bytes() == clip(1)
    assert sorted({clip(1), content}) == station.opened()


CHANGES = {
    "grows": lambda path, new: path.write_bytes(path.read_bytes() + new[:1000]),
    "shrinks": lambda path, new: os.truncate(path, path.stat().st_size - 1000),
    "is replaced": lambda path, new: (path.with_name("new").write_bytes(new), path.with_name("new").rename(path)),
    "is renamed": lambda path, new: path.rename(path.with_name("B.mp4")),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_p02_a_clip_that_changes_while_it_is_read_is_stored_as_it_is_in_the_end(station, clip, change):
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1, 24 * MIB)})
    await station.until(lambda now: now.bays[0].bytes_acquired > 0, "reading")
    CHANGES[change](camera / "A.mp4", clip(2))
    (path,) = camera.glob("*.mp4")
    content = path.read_bytes()
    await station.until(lambda now: now.bays[0].state in ("ready", "attention"), "an end")
    held = [row for row in await station.rows("stored") if row.sealed.verdict.status != "intact"]
    for row in held:  # its end is not where its index says: damaged, and waits for a person
        operations = Operations(station.daemon._sources(), station.daemon._operator_decided)
        asked = {"acquisition": row.acquisition, "reason": "looked at it"}
        assert [answer async for answer in operations.answer("release", asked, "tester")]
    await station.until_states(bay1="ready")
    assert content in station.opened()
    assert not list(camera.glob("*.mp4"))


@pytest.mark.parametrize("change", CHANGES)
async def test_p02_a_clip_that_changes_after_it_was_read_is_stored_in_both_versions(station, clip, change):
    away(station, Call.RECEIPT)
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    await station.until_row(lambda row: row.sealed is not None)
    CHANGES[change](camera / "A.mp4", clip(2))
    (path,) = camera.glob("*.mp4")
    content = path.read_bytes()
    back(station, Call.RECEIPT)
    await station.until(lambda now: now.bays[0].state in ("ready", "attention"), "an end")
    assert {clip(1), content} == set(station.opened())
    if change != "is renamed":
        assert path.exists() == (change in ("grows", "shrinks")), "damaged ones wait for a person"


async def test_p06_a_clip_that_is_no_video_waits_for_a_person(station):
    await station.start()
    noise = random.Random(1).randbytes(200_000)
    camera = station.camera(1, {"NOISE.mp4": noise})
    await station.until_states(bay1="attention")
    (held,) = (await station.snapshot()).held
    assert held.why.startswith("unrecognised")
    assert (station.opened(), (camera / "NOISE.mp4").read_bytes()) == ([noise], noise)


async def test_p06_of_a_clip_that_cannot_be_read_everywhere_the_rest_is_kept_and_nothing_is_erased(make_station, clip):
    station = make_station(faults="eio@read:BAD.mp4:8192-12288")
    await station.start()
    content = clip(1)
    camera = station.camera(1, {"BAD.mp4": content, "GOOD.mp4": clip(2)})
    bays = await station.until_states(bay1="attention")
    assert (bays[1].clips_erased, bays[1].clips_held) == (1, 1)
    kept = content[:8192] + bytes(4096) + content[12288:]
    assert station.opened() == sorted([kept, clip(2)])
    (held,) = (await station.snapshot()).held
    assert "4096 bytes could not be read and stand as zeros: bytes 8192 to 12287" in held.why
    assert (camera / "BAD.mp4").read_bytes() == content


async def test_p09_a_camera_that_hangs_holds_up_nobody_and_can_be_taken_out(make_station, clip):
    station = make_station(faults="hang@read:SLOW")
    await station.start()
    slow = station.camera(1, {"SLOW.mp4": clip(1)})
    station.camera(2, {"A.mp4": clip(2)})
    bays = await station.until_states(bay2="ready")
    assert bays[1].state == "acquiring"
    slow.rename(station.directory / "out")
    await station.until_states(bay1="empty")


async def test_p09_a_medium_that_takes_no_writes_ends_as_a_matter_for_a_person(make_station, clip):
    station = make_station(faults="erofs@erase.aside:A.mp4")
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    station.camera(2, {"B.mp4": clip(2)})
    bays = await station.until_states(bay1="attention", bay2="ready")
    assert "decide on: 1" in bays[1].note
    assert "cannot be read or erased: 1, have the camera examined" in bays[1].note
    (held,) = (await station.snapshot()).held
    assert "Read-only file system" in held.why
    assert (camera / "A.mp4").read_bytes() == clip(1)
    assert station.opened() == sorted([clip(1), clip(2)])


async def test_p09_write_errors_in_the_blocks_of_one_clip_ask_for_the_cameras_examination(make_station, clip):
    """Half-way through an erasure: the clip is under its other name by then, and fails under that one too."""
    station = make_station(faults="eio@erase.overwritten")
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    bays = await station.until_states(bay1="attention")
    assert "cannot be read or erased: 1, have the camera examined" in bays[1].note
    (held,) = (await station.snapshot()).held
    assert "Input/output error" in held.why
    assert (await station.rows())[0].state == "warranted"
    assert [path.name for path in camera.iterdir() if path.name.startswith(".dockd-")]
    assert station.opened() == [clip(1)]


async def test_p10_ten_thousand_clips_on_one_camera_are_listed_and_worked_through(station, clip):
    """All are found and shown; the way from there is the same for each, and is walked here by the first ones."""
    rules = ClipRules(
        suffixes=(".mp4",), evidence_directories=("EVIDENCE",), max_depth=8, max_files=20_000, block_bytes=MIB
    )
    station.live.rules = lambda _profile=None: rules
    made = station.directory / "made" / "CAM1"
    content = clip(1, 1000)
    for number in range(MANY):
        directory = made / "DCIM" / f"{number // 500:03d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number:06d}.mp4").write_bytes(content)
    (made / "DCIM" / "EVIDENCE").mkdir()
    (made / "DCIM" / "EVIDENCE" / "last.mp4").write_bytes(clip(2))
    await station.start()
    station.camera(1, {})
    bays = await station.until(lambda now: now.bays[0].clips_acquired >= 20 and now.bays, "the first clips")
    assert bays[0].clips_total == MANY + 1
    await station.until(lambda now: now.bays[0].clips_stored >= 10, "storing")
    assert clip(2) in station.opened(), "evidence goes first"
    await station.stop()
    await station.start()
    await station.until(lambda now: now.bays[0].clips_total == MANY + 1 and now.bays[0].clips_stored > 20, "going on")
    assert len(await station.rows()) == MANY + 1
    # Over the socket too, where tasks of the daemon render them: no step of theirs takes 100 ms (loop_watch).
    shown = await asyncio.to_thread(list, ask(station.directory / "control.sock", "clips"))
    assert len(shown) == MANY + 1
    (status,) = await asyncio.to_thread(list, ask(station.directory / "control.sock", "status"))
    assert status["bays"][0]["clips_total"] == MANY + 1
