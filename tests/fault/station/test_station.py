"""Dockings from plug to ready, and what can go wrong in between, in one process with a store in memory."""

import asyncio
import contextlib
import copy
import errno
import os
import resource
import shutil
import subprocess
import threading
from datetime import timedelta

import pytest
from without_landlock import make_interpreter

from dockd.app.clock import MachineClock
from dockd.core.keyfiles import StationPublic
from dockd.core.remnants import remnant_name
from dockd.core.sshsig import SigningKey
from dockd.core.transfer import Call
from dockd.devices.folder import FolderSource
from dockd.devices.port import Unplugged
from dockd.errors import IllegalTransition, StoreRefused, StoreUnreachable
from dockd.model import FileKind
from dockd.station.confinement import HOLDS
from dockd.station.docking import READERS_LIMIT
from dockd.station.operations import Operations
from dockd.stores.memory import MemoryStore

PATIENCE_S = 40.0


@pytest.fixture
def clip(mp4):
    """A whole MP4 clip, unlike any other with another number."""
    return lambda number: mp4(100_000, number)


async def test_a_camera_is_read_stored_erased_and_ready(station, clip):
    await station.start()
    camera = station.camera(1, {"DCIM/A.mp4": clip(1), "DCIM/EVIDENCE/B.mp4": clip(2), "DCIM/readme.txt": b"stays"})
    bays = await station.until_states(bay1="ready")
    assert (bays[1].clips_total, bays[1].clips_erased, bays[1].others) == (2, 2, 1)
    assert sorted(path.name for path in camera.rglob("*") if path.is_file()) == ["dockd-camera.toml", "readme.txt"]
    assert station.opened() == sorted([clip(1), clip(2)])
    assert {row.category.value for row in await station.rows()} == {"evidence", "none"}
    assert station.spool.usage() == (0, 0)


async def test_p09_a_poisoned_clip_holds_up_neither_its_camera_nor_seven_good_bays(make_station, clip):
    station = make_station(faults="kill@read:POISON")
    await station.start()
    for bay in range(1, 9):
        clips = {f"C{number}.mp4": clip(bay * 10 + number) for number in range(3)}
        station.camera(bay, clips | ({"POISON.mp4": clip(0)} if bay == 4 else {}))
    good = {f"bay{bay}": "ready" for bay in range(1, 9) if bay != 4}
    bays = await station.until_states(**good, bay4="attention")
    assert (bays[4].clips_erased, bays[4].clips_quarantined) == (3, 1)
    (poisoned,) = await station.rows("quarantined")
    assert poisoned.file.path == b"POISON.mp4"
    assert poisoned.readers_ended == 2
    assert (station.bays[4] / "CAM4" / "POISON.mp4").read_bytes() == clip(0)
    assert len(station.opened()) == 24


async def test_p02_undocked_at_any_moment_and_docked_again_in_another_bay(station, clip):
    await station.start()
    clips = {f"C{number}.mp4": clip(number) for number in range(8)}
    camera = station.camera(1, clips)
    for turn in range(6):
        bay = turn % 8 + 1
        await station.until(lambda now, bay=bay: now.bays[bay - 1].state not in ("empty", "identifying"), "docking")
        camera = camera.rename(station.bays[(turn + 1) % 8 + 1] / "CAM1")
        await station.until(lambda now, bay=bay: now.bays[bay - 1].state == "empty", "undocking")
    await station.until_states(bay7="ready")
    assert station.opened() == sorted(clips.values())
    assert not list(camera.glob("*.mp4"))
    assert len(await station.rows()) == len(clips)


class Shifted(MachineClock):
    """Months pass in a moment."""

    passed = timedelta(0)

    def now(self):
        return super().now() + self.passed


async def test_p01_a_clip_whose_promise_is_over_is_read_and_sent_as_a_new_acquisition(make_station, clip):
    station = make_station()
    station.clock = Shifted()
    public = StationPublic(
        station=station.name, manifest_key=station.manifest_key.public, checkpoint_key=station.checkpoint_key.public
    )
    station.store = MemoryStore(
        store=station.store.store, key=SigningKey.generate(), station=public, clock=station.clock
    )
    station.store.fail(Call.HOLDING, StoreUnreachable("not now"))
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    await station.until_row(lambda row: row.state == "stored")
    camera = camera.rename(station.directory / "away")
    await station.until_states(bay1="empty")
    station.clock.passed = timedelta(days=400)
    camera = camera.rename(station.bays[2] / "CAM1")
    await station.until_states(bay2="ready")
    assert not list(camera.glob("*.mp4"))
    assert sorted(row.state for row in await station.rows()) == ["erased", "stored"]
    assert "acquisition.outlived" in await station.events()


class LateKey(SigningKey):
    """Signs the first manifest only once its docking was ended: the clip is sealed, and nobody waits for it."""

    camera, ended = None, None

    def sign_raw(self, message):
        camera, self.camera = self.camera, None
        if camera is not None:
            camera.rename(camera.parents[2] / "away")
            assert self.ended.wait(40)
        return super().sign_raw(message)


class Heard(FolderSource):
    """Tells when it was heard that a camera left."""

    def __init__(self, bays):
        super().__init__(bays)
        self.left = threading.Event()

    async def events(self):
        async for event in super().events():
            yield event
            if isinstance(event, Unplugged):
                self.left.set()


async def test_p02_a_clip_sealed_in_the_moment_of_undocking_is_sent_at_once(station, clip):
    source = Heard(station.bays)
    station.manifest_key = LateKey.parse(station.manifest_key.private_pem())
    station.manifest_key.ended = source.left
    station.manifest_key.camera = station.bays[1] / "CAM1"
    await station.start(sources=(source,))
    station.camera(1, {"A.mp4": clip(1)})
    await station.until_row(lambda row: row.state == "stored")
    assert station.opened() == [clip(1)]
    assert (station.directory / "away" / "A.mp4").read_bytes() == clip(1)


async def test_p01_nothing_is_erased_while_the_store_is_away(station, clip):
    station.store.fail(Call.RECEIPT, *[StoreUnreachable("away")] * 3)
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    await station.until(lambda now: now.bays[0].clips_acquired == 1 and now.bays[0].state == "delivering", "reading")
    assert (camera / "A.mp4").read_bytes() == clip(1)
    await station.until_states(bay1="ready")
    assert not (camera / "A.mp4").exists()


class Overtaking(MachineClock):
    """A clock by which every look at it takes a while, as on a machine that has too much to do."""

    looks = 0

    def monotonic_s(self):
        self.looks += 1
        return super().monotonic_s() + 0.9 * self.looks


async def test_p09_what_comes_due_while_a_docking_looks_for_work_is_not_waited_for(station, clip):
    """A clip that had to wait came due between the last look for work and the wait, which then had no end."""
    station.clock = Overtaking()
    station.store.fail(Call.HOLDING, *[StoreUnreachable("away")] * 2)
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    await station.until_states(bay1="ready")
    assert not (camera / "A.mp4").exists()


async def test_p01_a_store_that_no_longer_holds_what_it_signed_for_stops_erasing(station, clip):
    station.store.fail(Call.HOLDING, *[StoreUnreachable("away")] * 3)
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    await station.until(lambda now: now.bays[0].clips_stored == 1, "storing")
    for kept in station.store.kept.values():
        kept.content[-1] ^= 1
    await asyncio.wait_for(until_called(station.store, Call.HOLDING, 5), 40)
    assert (camera / "A.mp4").read_bytes() == clip(1)


async def test_p01_a_store_that_was_rolled_back_stops_all_erasing(station, clip):
    station.store.fail(Call.HOLDING, *[StoreUnreachable("away")] * 100)
    await station.start()
    first = station.camera(1, {"A.mp4": clip(1)})
    await station.until(lambda now: now.bays[0].clips_stored == 1, "storing")
    station.store.roll_back_receipts(1)
    second = station.camera(2, {"B.mp4": clip(2)})
    await station.until(lambda now: now.alarms, "the alarm")
    station.store._failing[Call.HOLDING].clear()
    bays = await station.until_states(bay1="attention")
    assert "nothing is erased" in bays[1].note
    assert (first / "A.mp4").read_bytes() == clip(1)
    assert (second / "B.mp4").read_bytes() == clip(2)
    assert not [event for event in await station.events() if event == "acquisition.warranted"]


async def test_p01_a_roll_back_that_an_operator_accepts_ends_with_all_clips_stored_or_listed(station, clip):
    store = station.store
    empty = copy.deepcopy((store.kept, store._uploads, store._receipts))
    await station.start()
    operations = Operations(station.daemon._sources(), station.daemon._operator_decided)
    with pytest.raises(IllegalTransition, match="contradicts nothing"):
        _ = [one async for one in operations.answer("accept_rollback", {"reason": "x"}, "pat")]
    station.camera(1, {"A.mp4": clip(1)})
    await station.until_states(bay1="ready")
    store.fail(Call.HOLDING, *[StoreUnreachable("away")] * 100)
    second = station.camera(2, {"B.mp4": clip(2)})
    await station.until(lambda now: now.bays[1].clips_stored == 1, "storing")
    store.kept, store._uploads, store._receipts = empty
    store._failing[Call.HOLDING].clear()
    third = station.camera(3, {"C.mp4": clip(3)})
    await station.until(lambda now: now.alarms, "the alarm")
    (answer,) = [one async for one in operations.answer("accept_rollback", {"reason": "old back-up"}, "pat")]
    assert (answer["decision"], answer["operator"]) == ("accept-rollback", "pat")
    await station.until_states(bay2="ready", bay3="ready")
    assert station.opened() == sorted([clip(2), clip(3)])
    assert not list(second.glob("*.mp4"))
    assert not list(third.glob("*.mp4"))
    lost, looked = [one async for one in operations.answer("lost", {}, "pat")]
    assert looked["type"] == "looked"
    assert (lost["path"], lost["state"], lost["receipt_seq"]) == ("A.mp4", "erased", 1)
    await station.until(lambda now: any(lost["acquisition"] in alarm for alarm in now.alarms), "the alarm about it")
    _ = [one async for one in operations.answer("accept_loss", {"reason": "reported"}, "pat")]
    await station.until(lambda now: not now.alarms, "no alarm")


async def until_called(store, call, count):
    while sum(one is call for one, _ in store.calls) < count:
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("moment", ["before its second read", "after its second read"])
async def test_p01_a_clip_changed_under_its_old_time_is_kept_in_both_versions(make_station, clip, moment):
    station = make_station(faults="kill@reread.done" if moment.startswith("before") else "")
    station.store.fail(Call.RECEIPT, *[StoreUnreachable("away")] * 100)
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    if moment.startswith("after"):
        await station.until_row(lambda row: row.reread is not None)
    else:
        await station.until(lambda now: now.bays[0].state == "interrupted", "the second read was kept from counting")
        station.forkserver._faults = ""
        await station.forkserver.aclose()
    status = (camera / "A.mp4").stat()
    changed = clip(1)[:5000] + b"!" + clip(1)[5001:]
    (camera / "A.mp4").write_bytes(changed)
    os.utime(camera / "A.mp4", ns=(status.st_atime_ns, status.st_mtime_ns))
    station.store._failing[Call.RECEIPT].clear()
    bays = await station.until_states(bay1="ready")
    assert station.opened() == sorted([clip(1), changed])
    assert bays[1].clips_erased == 1
    events = await station.events()
    assert events.count("acquisition.contested") == 1


async def test_a_restart_goes_on_by_itself(station, clip):
    clips = {f"C{number}.mp4": clip(number) for number in range(6)}
    await station.start()
    camera = station.camera(2, clips)
    for _ in range(3):
        await station.until(lambda now: now.bays[1].state != "empty", "docking")
        await station.stop()
        await station.start()
    await station.until_states(bay2="ready")
    assert station.opened() == sorted(clips.values())
    assert not list(camera.glob("*.mp4"))
    events = await station.events()
    assert events.count("acquisition.erased") == len(clips)
    assert events.count("station.started") == 4


async def test_p02_a_start_that_cannot_put_its_spool_in_order_goes_on(station, clip):
    station.store.fail(Call.REGISTER, *[StoreUnreachable("away")] * 1000)
    await station.start()
    station.camera(1, {"A.mp4": clip(1)})
    await station.until(lambda now: now.bays[0].clips_acquired == 1, "reading")
    await station.stop()
    (manifest,) = (station.directory / "spool").glob("*.manifest.json")
    manifest.unlink()
    manifest.mkdir()  # as a full disk does, it lets no manifest be written anew
    station.store._failing[Call.REGISTER].clear()
    await station.start()
    await station.until_states(bay1="ready")
    assert station.opened() == [clip(1)]


async def test_a_stop_that_can_keep_no_last_checkpoint_is_a_stop(station):
    await station.start()
    await station.until(lambda now: now.custody_witnessed, "the start")
    (station.journal.custody_directory / "witnessed").unlink()
    (station.journal.custody_directory / "witnessed").mkdir()
    (station.journal.custody_directory / "checkpoint").unlink()
    (station.journal.custody_directory / "checkpoint").mkdir()
    await station.stop()


async def test_p09_a_clip_larger_than_the_spool_waits_and_the_rest_goes_on(station, clip):
    station.max_spool_bytes = 3_000_000
    await station.start()
    big = clip(1) + (4_000_008).to_bytes(4, "big") + b"free" + bytes(4_000_000)
    camera = station.camera(1, {"BIG.mp4": big, "SMALL.mp4": clip(2)})
    bays = await station.until_states(bay1="attention")
    assert (bays[1].clips_erased, bays[1].clips_needing_spool) == (1, 1)
    assert "needs_spool" in bays[1].note
    (held,) = (await station.snapshot()).held
    assert (held.path, held.state) == (b"BIG.mp4", "needs_spool")
    assert (camera / "BIG.mp4").read_bytes() == big
    events = await station.events()
    assert events.count("acquisition.needs_spool") == 1
    await station.stop()

    station.max_spool_bytes = 0
    await station.start()
    await station.until_states(bay1="ready")
    assert station.opened() == sorted([big, clip(2)])
    assert not (camera / "BIG.mp4").exists()


async def test_a_larger_spool_is_tried_again_on_request(station, clip):
    station.max_spool_bytes = 50_000
    await station.start()
    station.camera(1, {"A.mp4": clip(1)})
    await station.until_states(bay1="attention")
    station.spool._max_bytes = 0
    (row,) = await station.rows("needs_spool")
    operations = Operations(station.daemon._sources(), station.daemon._operator_decided)
    asked = {"acquisition": row.acquisition, "reason": "the spool was enlarged"}
    assert [answer async for answer in operations.answer("retry", asked, "tester")]
    await station.until_states(bay1="ready")
    assert station.opened() == [clip(1)]


async def _spoiled_while_the_store_is_away(station, harm):
    station.store.fail(Call.REGISTER, *[StoreUnreachable("away")] * 1000)
    await station.until(lambda now: now.bays[0].clips_acquired == 1, "reading")
    (row,) = await station.rows()
    harm(station.spool.path(row.acquisition))
    return row


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_flip_a_bit, lambda path: path.unlink()], ids=["a bit flips", "it vanishes"])
async def test_p02_a_spoiled_spool_file_is_read_again_from_the_camera(station, clip, harm):
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    first = await _spoiled_while_the_store_is_away(station, harm)
    assert (camera / "A.mp4").exists()
    station.store._failing[Call.REGISTER].clear()
    station.daemon._stores.nudge()
    await station.until_states(bay1="ready")
    assert station.opened() == [clip(1)]
    assert not (camera / "A.mp4").exists()
    rows = {row.acquisition: row.state for row in await station.rows()}
    assert rows.pop(first.acquisition) == "spoiled"
    assert list(rows.values()) == ["erased"]
    assert (await station.snapshot()).alarms == ()
    assert await station.daemon._tidier.tidy(short_of_room=False) >= 0
    assert station.spool.present() == []


async def test_p02_a_spoiled_spool_file_whose_camera_left_is_an_alarm_until_it_comes_back(station, clip):
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    await _spoiled_while_the_store_is_away(station, _flip_a_bit)
    away = camera.rename(station.directory / "CAM1")
    await station.until_states(bay1="empty")
    station.store._failing[Call.REGISTER].clear()
    station.daemon._stores.nudge()
    snapshot = await station.until(lambda now: now.alarms and now, "the alarm")
    assert "dock CAM1 again" in snapshot.alarms[0]
    assert [(held.state, held.path) for held in snapshot.held] == [("spoiled", b"A.mp4")]
    away.rename(station.bays[2] / "CAM1")
    await station.until_states(bay2="ready")
    assert station.opened() == [clip(1)]
    assert (await station.snapshot()).alarms == ()


async def test_a_bay_says_that_it_waits_for_a_store_that_is_away(station, clip):
    station.store.fail(Call.REGISTER, *[StoreUnreachable("away")] * 3)
    await station.start()
    station.camera(1, {"A.mp4": clip(1)})
    waiting = await station.until(lambda now: now.bays[0].note and now, "a note")
    assert waiting.bays[0].note == "waits for the store, which is unreachable"
    assert (waiting.stores[0].state, waiting.stores[0].note) == ("unreachable", "away")
    bays = await station.until_states(bay1="ready")
    assert bays[1].note == ""


async def test_p09_a_spool_that_cannot_be_used_makes_cameras_wait_and_no_more(station, clip):
    await station.start()
    await station.until(lambda now: now.custody_witnessed, "the start")
    away = (station.directory / "spool").rename(station.directory / "away")
    station.camera(1, {"A.mp4": clip(1)})
    await station.until(lambda now: "the spool cannot be used" in now.bays[0].note, "the note")
    assert any("the spool cannot be used" in alarm for alarm in (await station.snapshot()).alarms)
    away.rename(station.directory / "spool")
    await station.until_states(bay1="ready")
    assert (await station.snapshot()).alarms == ()


@pytest.fixture
def spool_disk(station):
    """The spool on a disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    spool = station.directory / "spool"
    spool.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "spool", spool], check=True)
    yield spool
    subprocess.run(["umount", "-l", spool], check=True)


async def read_only(disk):
    """The kernel refuses as long as a file is open for writing: a reader has one most of the time, but not always."""
    async with asyncio.timeout(PATIENCE_S):
        while subprocess.run(["mount", "-o", "remount,ro", disk], check=False, capture_output=True).returncode:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("harm", ["read-only", "full"])
@pytest.mark.parametrize("moment", ["before", "meanwhile"])
async def test_p02_a_spool_that_takes_no_more_writes_makes_cameras_wait_until_it_does(
    spool_disk, station, clip, harm, moment
):
    await station.start()
    await station.until(lambda now: now.custody_witnessed, "the start")
    clips = {f"{number}.mp4": clip(number) for number in range(30)}
    if moment == "meanwhile":
        station.camera(1, clips)
        await station.until_row(lambda row: row.state != "found")
    if harm == "read-only":
        await read_only(spool_disk)
    else:
        with contextlib.suppress(OSError), (spool_disk / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    if moment == "before":
        station.camera(1, clips)
        await station.until(lambda now: "spool" in now.bays[0].note, "the note")
        assert not station.opened()
    station.camera(2, {})
    await station.until(lambda now: now.bays[1].state in ("ready", "interrupted"), "the other bay")
    if harm == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", spool_disk], check=True)
    else:
        (spool_disk / "fill").unlink()
    await station.until_states(bay1="ready", bay2="ready")
    assert station.opened() == sorted(clips.values())
    assert len(await station.rows("erased")) == len(clips)


async def test_p09_a_clip_that_the_store_refuses_while_it_is_read_again_ends_nothing(make_station, clip):
    station = make_station()
    station.store.fail(Call.REGISTER, *[StoreRefused("never", status=403)] * 1)
    await station.start()
    station.camera(1, {"A.mp4": clip(1), "B.mp4": clip(2)})
    bays = await station.until_states(bay1="attention")
    assert (bays[1].clips_quarantined, bays[1].clips_erased) == (1, 1)
    (row,) = await station.rows("quarantined")
    operations = Operations(station.daemon._sources(), station.daemon._operator_decided)
    asked = {"acquisition": row.acquisition, "reason": "the store was mended"}
    assert [answer async for answer in operations.answer("retry", asked, "tester")]
    await station.until_states(bay1="ready")
    assert station.opened() == sorted([clip(1), clip(2)])


async def test_hard_links_are_quarantined_and_retried_on_request(station, clip, tmp_path):
    await station.start()
    made = station.directory / "made" / "CAM3"
    made.mkdir(parents=True)
    (made / "A.mp4").write_bytes(clip(1))
    (station.directory / "kept.mp4").hardlink_to(made / "A.mp4")
    station.camera(3, {})
    bays = await station.until_states(bay3="attention")
    assert bays[3].clips_quarantined == 1
    assert (station.directory / "kept.mp4").read_bytes() == clip(1)
    held = (await station.snapshot()).held
    assert "link" in held[0].why


async def test_p05_hostile_names_and_links_end_in_named_states(station, clip):
    await station.start()
    made = station.directory / "made" / "CAM1"
    (made / "D").mkdir(parents=True)
    os.symlink("/etc/passwd", made / "link.mp4")
    os.symlink("..", made / "D" / "loop")
    names = ["new\nline.mp4", os.fsdecode(b"\xff\xfe.mp4"), "x" * 251 + ".mp4", "..mp4", "-rf.mp4", "a'b\"c.mp4"]
    bays = None
    station.camera(1, {name: clip(number) for number, name in enumerate(names)})
    bays = await station.until_states(bay1="attention")
    assert bays[1].clips_erased == len(names)
    assert bays[1].others == 2
    assert os.path.lexists(station.bays[1] / "CAM1" / "link.mp4")


async def test_a_camera_deleted_under_our_feet_is_an_undocking(station, clip):
    await station.start()
    camera = station.camera(1, {f"C{number}.mp4": clip(number) for number in range(20)})
    await station.until(lambda now: now.bays[0].clips_acquired >= 1, "reading")
    shutil.rmtree(camera)
    await station.until_states(bay1="empty")


async def test_p05_a_remnant_that_no_warrant_covers_is_no_odd_file_of_a_ready_camera(station, clip):
    station.store.fail(Call.HOLDING, *[StoreUnreachable("away")] * 1000)
    await station.start()
    camera = station.camera(1, {"A.mp4": clip(1)})
    await station.until(lambda now: now.bays[0].clips_stored == 1, "storing")
    (row,) = await station.rows()
    await station.stop()
    (camera / "A.mp4").rename(camera / os.fsdecode(remnant_name(row.acquisition)))
    await station.start()
    bays = await station.until_states(bay1="attention")
    assert "not looked into: 1" in bays[1].note
    noted = await station.journal.read(lambda tx: tx.noted_files(bays[1].docking))
    (noted,) = (file for file in noted if file.kind is FileKind.REFUSED)
    assert "no warrant covers" in noted.reason


class HastyClock(MachineClock):
    """Waits a hundredth of what it is asked to."""

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s / 100)


async def test_p09_a_machine_that_can_start_no_reader_blames_no_camera_and_tries_again(station, clip):
    station.clock = HastyClock()
    await station.start()
    station.camera(2, {})
    await station.until_states(bay2="ready")  # its fork server has begun
    pid = station.forkserver.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    station.camera(1, {"A.mp4": clip(1)})
    async with asyncio.timeout(60):
        while (await station.events()).count("docking.admitted") <= READERS_LIMIT + 2:
            await asyncio.sleep(0.05)
    (bay, *_) = (await station.snapshot()).bays
    assert bay.state == "interrupted"
    assert "no reader could be started" in bay.note
    assert "tried again by itself" in bay.note
    events = await station.events()
    assert events.count("docking.not_ready") == 1
    assert "docking.refused" not in events
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    await station.until_states(bay1="ready")
    assert station.opened() == [clip(1)]


async def test_p09_readers_that_cannot_be_sealed_off_are_an_alarm_and_go_on_reading(station, clip, tmp_path):
    station.readers_python = str(make_interpreter(tmp_path / "python"))
    await station.start()
    station.camera(1, {"A.mp4": clip(1)})
    await station.until_states(bay1="ready")
    snapshot = await station.snapshot()
    assert snapshot.confinement["files"] == os.strerror(errno.E2BIG)
    assert {why for item, why in snapshot.confinement.items() if item != "files"} == {HOLDS}
    assert any("files (Argument list too long)" in alarm for alarm in snapshot.alarms)


async def test_readers_that_are_sealed_off_are_no_alarm(station):
    await station.start()
    snapshot = await station.until(lambda now: set(now.confinement.values()) == {HOLDS} and now, "the measure")
    assert snapshot.alarms == ()
    station.camera(1, {})
    await station.until_states(bay1="ready")
