"""What a store tells of its own losses: clips are sent again where they can be, and nothing says "none" unlooked."""

import asyncio
from dataclasses import replace

import pytest
from fault.test_lies import _alarm_about_lost, _entries, _erased, _lost, _stored, _until
from fault.test_uplink import running

from dockd.core import sshsig
from dockd.core.lifecycle import AcquisitionEvent
from dockd.core.transfer import Call
from dockd.errors import StoreUnreachable
from dockd.station import told, trust


async def _asked(bench):
    """A life of the uplink in which the store was asked, and what it told was kept."""
    uplink = bench.uplink()
    async with running(uplink):
        async with asyncio.timeout(30):
            while uplink._witnessing.told._asked_at_s is None:
                await asyncio.sleep(0)
    return uplink


async def _delivery(bench, row):
    return await bench.journal.read(lambda tx: tx.delivery(row.acquisition, bench.store.store))


async def _again(bench, *rows):
    for row in rows:
        bench.states.pop(row.acquisition, None)
    async with running(bench.uplink()):
        for row in rows:
            await bench.until(row.acquisition, "stored")


async def test_p11_a_clip_that_the_store_says_it_lost_is_sent_again_by_itself_under_its_receipt(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(3)]
    await _stored(bench, *rows)
    lost, receipts = rows[1], list(bench.store._receipts)
    bench.store.found_lost(lost.acquisition)
    await _again(bench, lost)
    assert bench.store.kept[lost.acquisition].whole
    assert bench.store._receipts == receipts
    uplink = await _asked(bench)
    assert uplink.alarms == ()
    assert uplink.told.looking.losses == 0
    entries = await _entries(bench)
    events = [entry["event"] for entry in entries]
    wanted = ["store.losses_told", "store.loss_told", "acquisition.retracted", "store.loss_healed"]
    assert [event for event in events if event in wanted] == wanted
    assert "store.rolled_back" not in events
    (said,) = (entry["details"] for entry in entries if entry["event"] == "store.losses_told")
    sshsig.verify(bench.store.key, sshsig.LOSSES, said["statement"].encode(), said["signature"])
    assert lost.acquisition in said["statement"]


async def test_p11_an_erased_clip_that_the_store_says_it_lost_is_listed_and_alarmed(bench):
    row = await bench.sealed(1 << 20)
    await _stored(bench, row)
    await _erased(bench, row)
    bench.store.found_lost(row.acquisition)
    for _ in range(2):
        uplink = await _asked(bench)
        assert await _lost(bench) == [row.acquisition]
        assert row.acquisition in await _alarm_about_lost(bench)
        assert "lost 1 of the clips" in told.alarm(uplink.status().looked)
        assert "1 lost" in uplink.status().looked_note
    assert (await bench.events()).count("acquisition.lost") == 1


async def test_p11_an_erased_clip_that_the_spool_still_has_is_sent_again_and_is_lost_no_more(bench):
    row = await bench.sealed(1 << 20)
    await _stored(bench, row)

    def erase(tx):
        tx.advance(row.acquisition, AcquisitionEvent.WARRANTED)
        tx.advance(row.acquisition, AcquisitionEvent.ERASED)

    await bench.journal.write(erase)
    for turn in (1, 2):
        bench.store.found_lost(row.acquisition)
        uplink = bench.uplink()
        async with running(uplink), asyncio.timeout(30):
            while (await bench.events()).count("store.loss_healed") < turn:
                await asyncio.sleep(0)
            while (await _delivery(bench, row)).state != "confirmed":
                await asyncio.sleep(0)
        assert (await bench.events()).count("acquisition.lost") == turn
        assert await _lost(bench) == []
        assert bench.store.kept[row.acquisition].whole
    assert (await bench.row(row.acquisition)).state == "erased"


@pytest.mark.parametrize("older", [False, True])
async def test_p11_a_loss_that_was_accepted_covers_no_other_when_it_is_healed(bench, older):
    first, second = [await bench.sealed(1 << 18) for _ in range(2)]
    store = bench.store.store
    await bench.journal.write(lambda tx: trust._put_lost(tx, store, first.acquisition, 1))
    assert first.acquisition in await _alarm_about_lost(bench)
    if older:  # a version that kept how many were accepted, and not which
        await bench.journal.write(lambda tx: tx.put(f"lost_known/{store}", "1"))
    else:
        await bench.journal.write(lambda tx: trust.accept_loss(tx, store, operator="pat", reason="known"))
    assert not await _alarm_about_lost(bench)
    await bench.journal.write(lambda tx: trust.forget_lost(tx, store, first.acquisition))
    assert await _lost(bench) == []
    await bench.journal.write(lambda tx: trust._put_lost(tx, store, second.acquisition, 2))
    assert second.acquisition in await _alarm_about_lost(bench)


async def test_p01_nothing_is_erased_while_a_clip_under_a_warrant_is_told_to_be_lost(bench):
    row = await bench.sealed(1 << 20)
    await _stored(bench, row)
    await bench.journal.write(lambda tx: tx.advance(row.acquisition, AcquisitionEvent.WARRANTED))
    bench.store.found_lost(row.acquisition)
    uplink = bench.uplink()
    async with running(uplink):
        await _until(lambda: uplink.alarms)
        assert row.acquisition in uplink.alarms[0]


async def test_p11_all_pages_of_what_is_lost_are_asked_for(bench):
    rows = [await bench.sealed(1 << 18) for _ in range(5)]
    await _stored(bench, *rows)
    bench.store.page = 2
    for row in rows:
        bench.store.found_lost(row.acquisition)
    await _again(bench, *rows)
    assert all(kept.whole for kept in bench.store.kept.values())


async def test_p11_a_store_that_does_not_look_is_not_said_to_have_lost_nothing(bench):
    bench.store.looks = False
    before = bench.uplink()
    assert "has not said yet" in before.status().looked_note
    uplink = await _asked(bench)
    assert uplink.status().looked is None
    assert "does not read its clips again" in uplink.status().looked_note
    bench.store.looks = True
    uplink = await _asked(bench)
    assert "read 0 of 0 clips again" in uplink.status().looked_note
    assert "says that it" not in told.alarm(uplink.status().looked)
    assert "each clip was looked at when it was last asked for" in told.sentence(None, signs=False)


async def test_p11_a_store_that_stops_answering_is_asked_again_and_what_it_said_keeps_its_date(bench):
    await _asked(bench)
    said = bench.uplink()
    await said.begin()
    bench.store.looks = False  # or a proxy answers for it
    uplink = bench.uplink()
    async with running(uplink):
        await bench.store.calls.until(Call.LOSSES, 3)
    await uplink.begin()
    assert uplink.told == said.told
    assert uplink.told.looking is not None


@pytest.mark.parametrize(
    "lie", ["an old answer", "another station's", "of another page", "signed by another", "endless"]
)
async def test_p11_what_a_store_tells_is_verified(bench, lie):
    row = await bench.sealed(1 << 18)
    await _stored(bench, row)
    honest, first = bench.store.losses, await bench.store.losses(bytes(32), "")

    async def lying(nonce, after):
        signed = await honest(nonce, after)
        if lie == "an old answer":
            return first
        if lie == "another station's":
            payload = signed.payload.replace(str(bench.station).encode(), b"f" * 8 + str(bench.station).encode()[8:])
            return replace(signed, payload=payload, signature=sshsig.sign(bench.store._key, sshsig.LOSSES, payload))
        if lie == "of another page":
            return await honest(nonce, row.acquisition)
        if lie == "signed by another":
            return replace(signed, signature=sshsig.sign(sshsig.SigningKey.generate(), sshsig.LOSSES, signed.payload))
        payload = signed.payload.replace(b'"more":false', b'"more":true')
        return replace(signed, payload=payload, signature=sshsig.sign(bench.store._key, sshsig.LOSSES, payload))

    bench.store.losses = lying
    before = bench.uplink()
    await before.begin()
    uplink = bench.uplink()
    async with running(uplink):
        await bench.store.calls.until(Call.LOSSES, 4)
    await uplink.begin()
    assert uplink.told == before.told


async def test_p11_a_store_that_is_away_is_asked_when_it_is_back(bench):
    bench.store.fail(Call.LOSSES, StoreUnreachable("x"), StoreUnreachable("x"))
    uplink = await _asked(bench)
    assert uplink.told.looking.objects == 0
