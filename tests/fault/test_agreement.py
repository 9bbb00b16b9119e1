"""What a store and a station have to agree on: one alarm with one repair, no decision about any clip, no restart."""

import asyncio
import contextlib
from datetime import timedelta

import pytest

from dockd.core import canonical
from dockd.core.retention import Terms, Until
from dockd.core.transfer import Call
from dockd.errors import StoreUnproven, StoreUnreachable, StoreUnsuited
from dockd.station.doctor import unsuited

USUAL = {"evidence": Terms(until=Until.ENDED), "none": Terms()}
MINIMA = {"evidence": Terms(), "none": Terms()}
SHORT = USUAL | {"none": Terms(recorded_days=20, review_days=2, undo_days=2)}


@contextlib.asynccontextmanager
async def running(uplink):
    task = asyncio.create_task(uplink.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def alarmed(bench, uplink):
    while not uplink.agreement.alarms:
        await bench.clock.until_slept()
    return uplink.agreement.alarms


def calls(bench, wanted):
    return [call for call, _ in bench.store.calls if call is wanted]


async def test_p01_a_policy_that_is_too_short_is_one_alarm_and_no_clip_is_sent_until_it_is_mended(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(5)]
    bench.store.mend(SHORT)
    uplink = bench.uplink(minima=MINIMA)
    async with running(uplink):
        (alarm,) = await alarmed(bench, uplink)
        assert "none: it keeps 20 days from recording and 4 from arrival" in alarm
        assert uplink.status().note == alarm
        assert uplink.alarms == (), "nothing contradicts itself: what is promised well may be erased"
        assert await unsuited(uplink.outlet, bench.policy(minima=MINIMA).stores[0]) == alarm
        for _ in range(20):
            await bench.clock.until_slept()
        assert calls(bench, Call.REGISTER) == []
        bench.store.mend(USUAL)
        for row in rows:
            await bench.until(row.acquisition, "stored")
        assert uplink.agreement.alarms == ()
        assert await unsuited(uplink.outlet, bench.policy(minima=MINIMA).stores[0]) == ""
    assert not {"acquisition.quarantined", "delivery.refused", "delivery.given_up"} & set(await bench.events())


async def test_p01_a_policy_that_is_too_short_is_an_alarm_although_nothing_is_to_be_sent(bench):
    bench.store.mend(SHORT)
    uplink = bench.uplink(minima=MINIMA)
    async with running(uplink):
        await alarmed(bench, uplink)
        bench.store.mend(USUAL)
        while uplink.agreement.alarms:
            await bench.clock.until_slept()


async def test_p01_a_receipt_that_promises_too_little_is_extended_once_the_policy_is_mended(bench):
    row = await bench.sealed(1 << 20)
    bench.store.mend(SHORT)
    manifest = await bench.journal.read(lambda tx: tx.manifest(row.acquisition))
    content = bench.spool.path(row.acquisition).read_bytes()
    url = await bench.store.register(row.acquisition, manifest, len(content))

    async def blocks():
        yield content

    await bench.store.append(url, 0, blocks(), len(content))
    short = await bench.store.receipt(row.acquisition, manifest)
    assert b'"keep_until"' in short.payload
    bench.store.fail(Call.SESSION, *[StoreUnreachable("not yet")] * 2)
    uplink = bench.uplink(minima=MINIMA)
    async with running(uplink):
        await alarmed(bench, uplink)
        assert (await bench.row(row.acquisition)).state != "stored"
        bench.store.mend(USUAL)
        await bench.until(row.acquisition, "stored")
    assert "delivery.extended" in await bench.events()
    (extension,) = await bench.journal.read(lambda tx: tx.extensions(row.acquisition, bench.store.store))
    assert extension.payload in [one.payload for one in bench.store.kept[row.acquisition].extensions]
    confirmation = await uplink.confirmer.ask_again(row.acquisition)
    assert confirmation.extension.n == 1
    assert confirmation.receipt.payload_digest == canonical.digest(short.payload)


async def stored_under(bench, categories):
    bench.store.mend(categories)
    row = await bench.sealed(1 << 20)
    uplink = bench.uplink()
    async with running(uplink):
        await bench.until(row.acquisition, "stored")
    return row, uplink


async def test_p01_a_promise_that_nears_its_end_is_extended_before_the_warrant_and_only_then(bench):
    row, uplink = await stored_under(bench, USUAL)
    await uplink.confirmer.prolong(row.acquisition)
    assert calls(bench, Call.EXTENSION) == [], "it reaches far enough"
    bench.clock.passed_s += timedelta(days=20).total_seconds()
    bench.store.mend(USUAL | {"none": Terms(recorded_days=90)})
    await uplink.confirmer.prolong(row.acquisition)
    assert calls(bench, Call.EXTENSION) == []
    bench.clock.passed_s += timedelta(days=9).total_seconds()
    with pytest.raises(StoreUnproven, match=r"too near or over, and it promises no more"):
        await uplink.confirmer.prolong(row.acquisition)


async def test_p01_an_answer_that_was_lost_is_asked_for_again_and_kept_once(bench):
    row, uplink = await stored_under(bench, USUAL | {"none": Terms(review_days=1, undo_days=1, recorded_days=4)})
    bench.clock.passed_s += timedelta(days=1, hours=12).total_seconds()
    bench.store.mend(USUAL | {"none": Terms(undo_days=1)})
    bench.store.lose(Call.EXTENSION)
    with pytest.raises(StoreUnreachable):
        await uplink.confirmer.prolong(row.acquisition)
    await uplink.confirmer.prolong(row.acquisition)
    assert len(bench.store.kept[row.acquisition].extensions) == 1
    assert (await bench.events()).count("delivery.extended") == 1


async def test_recipients_that_the_store_does_not_take_are_one_alarm_and_no_decision(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(4)]
    words = "recipient sha256:11 is not one that this store accepts: compare the recipients files"
    bench.store.fail(Call.REGISTER, *[StoreUnsuited(words, of_one=True)] * len(rows))
    uplink = bench.uplink()
    async with running(uplink):
        while len(calls(bench, Call.REGISTER)) < len(rows):
            await bench.clock.until_slept()
        assert await alarmed(bench, uplink) == (words,)
        for row in rows:  # mended at the store: nobody restarts anything
            await bench.until(row.acquisition, "stored")
        assert uplink.agreement.alarms == ()
    assert "acquisition.quarantined" not in await bench.events()


async def test_a_station_that_is_not_enrolled_is_one_alarm_and_no_decision(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(4)]
    words = "the station is not enrolled here"
    bench.store.mend(USUAL)
    bench.store.fail(Call.SESSION, *[StoreUnsuited(words)] * 3)
    uplink = bench.uplink(minima=MINIMA)
    async with running(uplink):
        assert await alarmed(bench, uplink) == (words,)
        assert calls(bench, Call.REGISTER) == []
        for row in rows:
            await bench.until(row.acquisition, "stored")
        assert uplink.agreement.alarms == ()
    assert "acquisition.quarantined" not in await bench.events()
