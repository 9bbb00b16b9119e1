"""The uplink against every fault that a store can order, with a real journal and spool."""

import asyncio
import contextlib
import uuid

import pytest

from dockd.core.lifecycle import AcquisitionEvent
from dockd.core.transfer import Call
from dockd.errors import (
    JournalError,
    OffsetConflict,
    PatchTooLarge,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    StoreUntrusted,
    UploadLost,
)
from dockd.model import Category
from dockd.stages.confirm import holding, stored_receipt
from dockd.stages.witness import show_checkpoint


@contextlib.asynccontextmanager
async def running(uplink):
    task = asyncio.create_task(uplink.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _calls(bench, call):
    return [what for kind, what in bench.store.calls if kind is call]


async def test_p02_a_spooled_clip_becomes_stored_with_its_receipt(bench):
    row = await bench.sealed(5 << 20)
    async with running(bench.uplink()):
        await bench.until(row.acquisition, "stored")
    assert bytes(bench.store.kept[row.acquisition].content) == bench.spool.path(row.acquisition).read_bytes()
    receipt = await stored_receipt(row.acquisition, journal=bench.journal, store=bench.store, station=bench.station)
    assert receipt.receipt_seq == 1
    assert len(_calls(bench, Call.APPEND)) == 5  # never more than patch_bytes at a time
    events = await bench.events()
    assert events.index("acquisition.registered") < events.index("acquisition.stored")
    held = await holding(
        row.acquisition,
        journal=bench.journal,
        store=bench.store,
        station=bench.station,
        random=lambda count: b"\x05" * count,
    )
    assert held.acquisition == row.acquisition


async def test_evidence_goes_first(bench):
    plain = [await bench.sealed(1 << 20) for _ in range(3)]
    flagged = await bench.sealed(1 << 20, category=Category.EVIDENCE)
    async with running(bench.uplink(slots=1)):
        await bench.until(plain[-1].acquisition, "stored")
    assert _calls(bench, Call.REGISTER)[0] == flagged.acquisition


@pytest.mark.parametrize(("slots", "waits"), [(1, 6), (2, 2)])
async def test_one_slot_of_several_lets_no_camera_wait_for_all_the_smaller_ones(bench, slots, waits):
    large = [await bench.sealed(4 << 20) for _ in range(3)]
    await bench.dock(str(uuid.UUID(int=98)))
    small = [await bench.sealed(1 << 20) for _ in range(6)]
    async with running(bench.uplink(slots=slots)):
        await bench.until(large[-1].acquisition, "stored")
    begun = _calls(bench, Call.REGISTER)
    of_the_large = begun.index(large[0].acquisition)
    assert of_the_large == waits
    assert begun[0] == small[0].acquisition, "what frees a bay soonest is still what comes first"


FAULTS = {
    "register refused by the network": lambda store: store.fail(Call.REGISTER, StoreUnreachable("x")),
    "register's answer lost": lambda store: store.lose(Call.REGISTER),
    "head fails": lambda store: store.fail(Call.OFFSET, StoreBusy("500"), StoreUnreachable("x")),
    "store busy with a wait": lambda store: store.fail(Call.APPEND, StoreBusy("503", retry_after_s=30)),
    "full": lambda store: store.fail(Call.REGISTER, *[StoreBusy("507")] * 7),
    "conflict": lambda store: store.fail(Call.APPEND, OffsetConflict("409"), OffsetConflict("460")),
    "too large": lambda store: store.fail(Call.APPEND, PatchTooLarge("413")),
    "cut in the middle": lambda store: store.cut(300_000, 0, 1, 0),
    "patch's answer lost": lambda store: store.lose(Call.APPEND, 3),
    "receipt's answer lost": lambda store: store.lose(Call.RECEIPT, 2),
    "receipt unreachable": lambda store: store.fail(Call.RECEIPT, *[StoreUnreachable("x")] * 9),
    "changed on the way": lambda store: store.corrupt(),
    "transient 404": lambda store: store.fail(Call.OFFSET, UploadLost("404")),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_p02_every_fault_ends_stored_and_whole(bench, fault):
    rows = [await bench.sealed(3 << 20) for _ in range(4)]
    FAULTS[fault](bench.store)
    async with running(bench.uplink(slots=2)) as task:
        for row in rows:
            await bench.until(row.acquisition, "stored")
        assert not task.done()
    for row in rows:
        assert bytes(bench.store.kept[row.acquisition].content) == bench.spool.path(row.acquisition).read_bytes()


async def test_p02_a_lost_receipt_is_settled_before_another_is_asked_for(bench):
    first = await bench.sealed(1 << 20)
    bench.store.lose(Call.RECEIPT)
    async with running(bench.uplink(slots=1)):  # this life ends with its receipt signed, but never seen
        await bench.store.calls.until(Call.RECEIPT)
    assert (await bench.row(first.acquisition)).state == "uploading"
    second = await bench.sealed(1 << 20, category=Category.EVIDENCE)  # so it is picked first
    before = len(bench.store.calls)
    uplink = bench.uplink(slots=1)
    async with running(uplink):
        await bench.until(second.acquisition, "stored")
        await bench.until(first.acquisition, "stored")
        assert uplink.alarms == ()
    calls = bench.store.calls[before:]
    assert [what for call, what in calls if call is Call.REGISTER] == [second.acquisition]
    assert next(what for call, what in calls if call is Call.RECEIPT) == first.acquisition


async def test_p02_a_new_life_goes_on_at_the_stores_offset(bench):
    row = await bench.sealed(8 << 20)
    async with running(bench.uplink(slots=1)):
        await bench.store.calls.until(Call.APPEND, 4)
    had = len(bench.store.kept[row.acquisition].content)
    assert had >= 3 << 20
    before = len(bench.store.calls)
    sent = []
    append = bench.store.append

    async def spying(url, offset, blocks, length):
        sent.append(offset)
        return await append(url, offset, blocks, length)

    bench.store.append = spying
    async with running(bench.uplink()):
        await bench.until(row.acquisition, "stored")
    first = next(call for call, _ in bench.store.calls[before:] if call in (Call.OFFSET, Call.APPEND))
    assert first is Call.OFFSET  # asked before a byte was sent
    assert all(offset >= had for offset in sent)
    assert len(bench.store.kept) == 1
    assert (await bench.events()).count("acquisition.registered") == 1


async def test_an_upload_the_store_lost_is_begun_anew(bench):
    row = await bench.sealed(3 << 20)
    async with running(bench.uplink()):
        await bench.store.calls.until(Call.APPEND, 2)
    bench.store.forget(row.acquisition)
    async with running(bench.uplink()):
        await bench.until(row.acquisition, "stored")
    events = await bench.events()
    assert events.count("acquisition.reopened") == 1
    assert events.count("acquisition.registered") == 2


async def test_bytes_the_store_lost_are_journalled_and_sent_again(bench):
    row = await bench.sealed(4 << 20)
    append = bench.store.append

    async def losing(url, offset, blocks, length):
        reached = await append(url, offset, blocks, length)
        if offset == 2 << 20 and not lost:
            lost.append(offset)
            bench.store.truncate(row.acquisition, 1 << 20)
            raise StoreUnreachable("restarted from an older disk")
        return reached

    lost = []
    bench.store.append = losing
    async with running(bench.uplink()):
        await bench.until(row.acquisition, "stored")
    assert lost
    assert (await bench.events()).count("store.lost_bytes") == 1


async def test_more_bytes_than_there_are_hold_the_clip_and_raise_an_alarm(bench):
    bad, good = await bench.sealed(1 << 20), await bench.sealed(1 << 20)
    offset = bench.store.offset

    async def boasting(url):
        return 2 << 20 if bench.store._uploads[url] == bad.acquisition else await offset(url)

    bench.store.offset = boasting
    uplink = bench.uplink()
    async with running(uplink):
        await bench.until(good.acquisition, "stored")
        while not uplink.alarms:
            await bench.clock.until_slept()
        assert uplink.status().state == "untrusted"
        assert "claims" in uplink.status().note
        bench.store.offset = offset
        await bench.until(bad.acquisition, "stored")
        assert uplink.alarms == ()


async def test_p01_a_rolled_back_store_confirms_nothing_more(bench):
    first = await bench.sealed(1 << 20)
    async with running(bench.uplink()):
        await bench.until(first.acquisition, "stored")
    bench.store.roll_back_receipts(1)
    second = await bench.sealed(1 << 20)
    uplink = bench.uplink()
    async with running(uplink):
        while not uplink.alarms:
            await bench.clock.until_slept()
        assert "rolled back" in uplink.alarms[0]
    assert (await bench.row(second.acquisition)).state == "uploading"


async def test_p01_too_short_a_retention_is_no_confirmation(bench):
    bench.store.retention = bench.store.retention / 100
    first, second = await bench.sealed(1 << 20), await bench.sealed(1 << 20)
    uplink = bench.uplink(min_retention=bench.store.retention * 2)
    async with running(uplink):
        while "it keeps the clip until" not in uplink.status().note:
            await bench.clock.until_slept()
    assert uplink.alarms == (), "nothing contradicts itself"
    for row in (first, second):
        assert (await bench.row(row.acquisition)).state == "uploading"
    # Once the operators of both agree, the receipts that were kept do.
    async with running(bench.uplink()):
        await bench.until(second.acquisition, "stored")
        await bench.until(first.acquisition, "stored")


async def test_p09_a_refused_clip_is_quarantined_and_the_rest_goes_on(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(3)]
    bench.store.fail(Call.REGISTER, StoreRefused("a recipient is not allowed", status=403))
    async with running(bench.uplink(slots=1)) as task:
        await bench.until(rows[0].acquisition, "quarantined")
        await bench.until(rows[2].acquisition, "stored")
        assert not task.done()
    row = await bench.row(rows[0].acquisition)
    assert "recipient" in row.quarantine_reason
    await bench.journal.write(lambda tx: tx.try_again(row.acquisition, bench.policy(), {"operator": "pat"}))
    async with running(bench.uplink()):
        await bench.until(row.acquisition, "stored")


@pytest.mark.parametrize("harm", ["cut", "missing", "changed", "shrinks"])
async def test_p09_a_spoiled_spool_file_stops_its_own_clip_alone(bench, harm):
    bad, good = await bench.sealed(3 << 20), await bench.sealed(1 << 20)
    path = bench.spool.path(bad.acquisition)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "missing":
        path.unlink()
    elif harm == "changed":
        path.write_bytes(b"x" + path.read_bytes()[1:])
    else:
        append = bench.store.append

        async def shrinking(url, offset, blocks, length):
            if bench.store._uploads[url] == bad.acquisition:
                path.write_bytes(b"")
            return await append(url, offset, blocks, length)

        bench.store.append = shrinking
    async with running(bench.uplink()) as task:
        await bench.until(bad.acquisition, "spoiled")
        await bench.until(good.acquisition, "stored")
        assert not task.done()
    assert [row.acquisition for row in await bench.journal.read(lambda tx: tx.spoiled())] == [bad.acquisition]


async def test_p02_a_spool_that_is_away_for_a_while_loses_no_clip(bench):
    row = await bench.sealed(1 << 20)
    away = bench.spool.directory.rename(bench.spool.directory.with_name("away"))
    async with running(bench.uplink()):
        await bench.clock.until_slept()
        assert (await bench.row(row.acquisition)).state == "spooled"
        away.rename(bench.spool.directory)
        await bench.until(row.acquisition, "stored")


async def test_p02_a_lost_spool_file_of_a_finished_upload_is_no_loss(bench):
    row = await bench.sealed(1 << 20)
    bench.store.fail(Call.RECEIPT, StoreUnreachable("x"))
    async with running(bench.uplink()):
        await bench.store.calls.until(Call.RECEIPT)
    bench.spool.path(row.acquisition).unlink()
    async with running(bench.uplink()):
        await bench.until(row.acquisition, "stored")


async def test_p09_an_outage_is_probed_by_one_at_a_time_and_found_again(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(6)]
    probes, most = 0, 0
    register = bench.store.register
    down = True

    async def counting(acquisition, manifest, size):
        nonlocal probes, most
        if not down:
            return await register(acquisition, manifest, size)
        probe = uplink._attempts.of(acquisition).begun.probe  # those let through before it opened do not count
        probes += probe
        most = max(most, probes)
        await asyncio.sleep(0)
        probes -= probe
        raise StoreUnreachable("refused")

    bench.store.register = counting
    uplink = bench.uplink()
    async with running(uplink):
        while len([delay for delay in bench.clock.sleeps if delay <= 60]) < 40:
            await bench.clock.until_slept()
        assert uplink.status().state == "unreachable"
        assert uplink.status().note == "refused"
        assert uplink.status().waiting == 6
        assert uplink.status().waiting_bytes == 6 << 20
        waits = [delay for delay in bench.clock.sleeps if delay < 3600]
        down = False
        for row in rows:
            await bench.until(row.acquisition, "stored")
        assert uplink.status().state == "reachable"
    assert most == 1
    assert max(waits) <= 60


async def test_a_nudge_cuts_a_wait_short_and_a_stop_too(bench):
    row = await bench.sealed(1 << 20)
    bench.store.fail(Call.REGISTER, *[StoreUnreachable("x")] * 5)
    bench.clock.longest_s = 0  # time stands still while anybody sleeps
    uplink = bench.uplink(slots=1)
    async with running(uplink):
        slept = 1  # the witness's hour
        for failures in range(1, 6):
            await bench.store.calls.until(Call.REGISTER, failures)
            slept += 1
            await bench.clock.until_slept(slept)
            bench.clock.passed_s += 0.5  # the first ceiling, and no more
            uplink.nudge()
        await bench.until(row.acquisition, "stored")


async def test_what_a_store_asks_for_is_not_cut_short(bench):
    row = await bench.sealed(1 << 20)
    bench.store.fail(Call.REGISTER, StoreBusy("503", retry_after_s=300))
    bench.clock.longest_s = 0
    uplink = bench.uplink(slots=1)
    async with running(uplink):
        while not any(299 < delay <= 300 for delay in bench.clock.sleeps):
            await bench.clock.until_slept()
        bench.clock.passed_s += 299
        uplink.nudge()
        await bench.clock.until_slept()
        assert len(_calls(bench, Call.REGISTER)) == 1
        bench.clock.passed_s += 2
        uplink.nudge()
        await bench.until(row.acquisition, "stored")


async def test_a_failed_journal_ends_the_uplink_loudly(bench):
    await bench.sealed(1 << 20)
    uplink = bench.uplink()
    await bench.journal.aclose()
    with pytest.raises((JournalError, ExceptionGroup)):
        await asyncio.wait_for(uplink.run(), 20)


async def test_a_clip_quarantined_by_somebody_else_is_left_alone(bench):
    row, other = await bench.sealed(1 << 20), await bench.sealed(1 << 20)
    append = bench.store.append

    async def overtaken(url, offset, blocks, length):
        if bench.store._uploads[url] == row.acquisition:
            await bench.journal.write(
                lambda tx: tx.advance(row.acquisition, AcquisitionEvent.QUARANTINED, quarantine_reason="person")
            )
        return await append(url, offset, blocks, length)

    bench.store.append = overtaken
    async with running(bench.uplink()) as task:
        await bench.until(other.acquisition, "stored")
        await bench.store.calls.until(Call.RECEIPT, 2)
        assert not task.done()
    assert (await bench.row(row.acquisition)).state == "quarantined"


class Killing:
    """A store during whose n-th call its caller is cancelled: the work was done, the answer is lost."""

    def __init__(self, inner, after):
        self._inner = inner
        self._left = after
        self.victim = None

    def __getattr__(self, name):
        inner = getattr(self._inner, name)
        if name not in ("register", "offset", "append", "receipt"):
            return inner

        async def call(*arguments):
            answer = await inner(*arguments)
            self._left -= 1
            if not self._left:
                self.victim.cancel()
                await asyncio.sleep(0)
            return answer

        return call


async def test_p02_cancelled_at_any_call_it_ends_the_same(bench):
    row = await bench.sealed(3 << 20)
    for after in range(1, 30):
        store = Killing(bench.store, after)
        async with running(bench.uplink(store=store)) as task:
            store.victim = task
            watch = asyncio.create_task(bench.until(row.acquisition, "stored"))
            await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        if (await bench.row(row.acquisition)).state == "stored":
            break
    assert after > 2
    assert len(bench.store.kept) == 1
    assert len(bench.store._receipts) == 1
    assert bytes(bench.store.kept[row.acquisition].content) == bench.spool.path(row.acquisition).read_bytes()


# --- witness


async def test_p07_the_checkpoint_is_cosigned_kept_and_not_shown_in_circles(bench):
    first = await show_checkpoint(bench.journal, bench.store)
    assert first == 1
    assert (bench.journal.custody_directory / "witnessed").read_bytes().count(b"\xe2\x80\x94") == 2
    shown = len(_calls(bench, Call.WITNESS))
    for _ in range(3):
        assert await show_checkpoint(bench.journal, bench.store) == first
    assert len(_calls(bench, Call.WITNESS)) == shown
    await bench.sealed(1 << 20)
    size = await bench.journal.read(lambda tx: tx.size)
    assert await show_checkpoint(bench.journal, bench.store) == size
    assert (await bench.events()).count("checkpoint.witnessed") == 2


async def test_p07_a_fork_and_a_rollback_are_contradictions(bench):
    await bench.sealed(1 << 20)
    await show_checkpoint(bench.journal, bench.store)
    size, _ = bench.store._witnessed
    await bench.sealed(1 << 20)
    bench.store._witnessed = (size, bytes(32))
    with pytest.raises(StoreUntrusted, match="forked"):
        await show_checkpoint(bench.journal, bench.store)
    bench.store._witnessed = (10_000, bytes(32))
    with pytest.raises(StoreUntrusted, match="rolled back"):
        await show_checkpoint(bench.journal, bench.store)


async def test_a_checkpoint_the_store_moved_past_is_shown_once_more(bench):
    bench.store.fail(Call.WITNESS, OffsetConflict("409"))
    assert await show_checkpoint(bench.journal, bench.store) == 1


async def test_a_lost_cosignature_is_asked_for_again(bench):
    bench.store.lose(Call.WITNESS)
    with pytest.raises(StoreUnreachable):
        await show_checkpoint(bench.journal, bench.store)
    assert await show_checkpoint(bench.journal, bench.store) == 1


async def test_the_uplink_witnesses_on_request_after_a_failure(bench):
    bench.store.fail(Call.WITNESS, StoreUnreachable("x"), StoreUnreachable("x"))
    uplink = bench.uplink()
    async with running(uplink):
        while uplink.witnessed != 1:
            await bench.clock.until_slept()
        await bench.sealed(1 << 20)
        uplink.witness_soon()
        while uplink.witnessed < 4:
            await bench.clock.until_slept()


async def test_p09_a_cosigned_note_that_cannot_be_kept_is_asked_for_again(bench):
    in_the_way = bench.journal.custody_directory / "witnessed"
    in_the_way.mkdir()
    uplink = bench.uplink()
    async with running(uplink):
        await bench.clock.until_slept()
        assert uplink.witnessed == 0
        in_the_way.rmdir()
        while uplink.witnessed != 1:
            await bench.clock.until_slept()
    assert in_the_way.is_file()


async def test_progress_and_rate_follow_the_bytes(bench):
    row = await bench.sealed(4 << 20)
    seen = []
    append = bench.store.append

    async def slow(url, offset, blocks, length):
        bench.clock.passed_s += 1
        seen.append((uplink.progress(row.acquisition), uplink.rate(), uplink.rate(row.acquisition)))
        return await append(url, offset, blocks, length)

    bench.store.append = slow
    uplink = bench.uplink(slots=1)
    async with running(uplink):
        await bench.until(row.acquisition, "stored")
        assert uplink.progress(row.acquisition) == 0
    assert [progress for progress, _, _ in seen] == [0, 1 << 20, 2 << 20, 3 << 20]
    assert seen[-1][1] == seen[-1][2]
    assert (1 << 19) < seen[-1][1] < (1 << 22)
