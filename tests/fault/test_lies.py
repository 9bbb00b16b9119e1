"""Stores that lie and stores that forget: nothing they say makes a clip count as stored, or be erased, that they lack.

docs/reliability.md has the same cases in a table.
"""

import asyncio
import contextlib
import copy
import dataclasses
import secrets
from pathlib import Path

import pytest

from dockd.core import canonical, sshsig
from dockd.core.challenge import range_digest
from dockd.core.lifecycle import AcquisitionEvent, DockingEvent
from dockd.core.transfer import Call
from dockd.errors import StoreBusy, StoreUnreachable, UploadLost
from dockd.model import SignedBytes
from dockd.stages.witness import show_checkpoint
from dockd.station import trust
from dockd.stores.memory import MemoryStore


@contextlib.asynccontextmanager
async def running(uplink):
    task = asyncio.create_task(uplink.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Liar(MemoryStore):
    """A store that can sign for anything. Each lie is a method put in the place of an honest one."""

    @classmethod
    def instead_of(cls, honest):
        liar = cls(store=honest.store, key=honest._key, station=honest._station, clock=honest._clock)
        liar.calls = honest.calls
        return liar

    def signed(self, payload, namespace=sshsig.RECEIPT, key=None):
        return SignedBytes(payload=payload, signature=sshsig.sign(key or self._key, namespace, payload))

    def restated(self, kept, **changes):
        """A receipt for what is kept, with something else in it."""
        record = canonical.decode(self._sign_receipt(kept).payload, type_="receipt")
        return self.signed(canonical.encode(record | changes))

    def backup(self):
        """Its state of now, to be put back later."""
        return copy.deepcopy((self.kept, self._uploads, self._made, self._receipts, self._witnessed))

    def restore(self, state):
        self.kept, self._uploads, self._made, self._receipts, self._witnessed = copy.deepcopy(state)

    def holes(self, every):
        """Lose every so manieth KiB, in all that is kept, and sign on."""
        for kept in self.kept.values():
            for at in range(5 * 1024, len(kept.content) - 5 * 1024, every * 1024):
                kept.content[at : at + 1024] = bytes(len(kept.content[at : at + 1024]))


@pytest.fixture
def liar(bench):
    bench.store = Liar.instead_of(bench.store)
    return bench.store


async def _alarm(bench, uplink):
    while not uplink.alarms:
        await bench.clock.until_slept()
    return uplink.alarms[0]


async def _never_stored(bench, row, words):
    """The uplink raises an alarm with these words, and the clip does not come to count as stored."""
    uplink = bench.uplink(random=secrets.token_bytes)
    async with running(uplink):
        assert words in await _alarm(bench, uplink)
        assert uplink.status().state == "untrusted"
    assert (await bench.row(row.acquisition)).state == "uploading"
    assert "acquisition.stored" not in await bench.events()


# --- what it does not have


async def test_p01_a_store_that_signs_for_bytes_it_has_dropped_is_not_believed(bench, liar):
    row = await bench.sealed(3 << 20)
    sign = liar._sign_receipt

    def dropping(kept):
        signed = sign(kept)
        kept.content[:] = bytes(len(kept.content))
        return signed

    liar._sign_receipt = dropping
    await _never_stored(bench, row, "does not have its bytes")


async def test_p01_a_store_that_signs_for_a_clip_with_holes_is_not_believed(bench, liar):
    row = await bench.sealed(3 << 20)
    sign = liar._sign_receipt

    def losing(kept):
        signed = sign(kept)
        liar.holes(every=8)
        return signed

    liar._sign_receipt = losing
    await _never_stored(bench, row, "does not have its bytes")


async def test_p01_a_store_that_echoes_digests_is_not_believed(bench, liar):
    """It never kept a byte: it knows the digests that it was told, and repeats them."""
    row = await bench.sealed(1 << 20)

    async def echoing(acquisition, nonce, ranges):
        return (bytes.fromhex(row.sealed.sealed_digest.removeprefix("sha256:")),) * len(ranges)

    liar.ranges = echoing
    await _never_stored(bench, row, "does not have its bytes")


@pytest.mark.parametrize("answer", ["none", "one too few", "an old nonce's", "in another order"])
async def test_p01_only_the_right_answers_to_the_right_question_count(bench, liar, answer):
    row = await bench.sealed(1 << 20)
    honest = liar.ranges

    async def wrong(acquisition, nonce, ranges):
        if answer == "none":
            return ()
        found = await honest(acquisition, bytes(32) if answer == "an old nonce's" else nonce, ranges)
        return found[1:] if answer == "one too few" else found[::-1] if answer == "in another order" else found

    liar.ranges = wrong
    uplink = bench.uplink(random=secrets.token_bytes)
    async with running(uplink):
        assert "does not have its bytes" in await _alarm(bench, uplink)
    assert (await bench.row(row.acquisition)).state == "uploading"


@pytest.mark.parametrize("excuse", ["gone", "not finished"])
async def test_p01_a_store_that_cannot_show_what_it_signed_for_is_not_believed(bench, liar, excuse):
    row = await bench.sealed(1 << 20)
    honest = liar.ranges

    async def excusing(acquisition, nonce, ranges):
        if excuse == "gone":
            raise UploadLost("410")
        liar.kept[acquisition].receipt = None
        return await honest(acquisition, nonce, ranges)

    liar.ranges = excusing
    await _never_stored(bench, row, "does not hold it")


async def test_p09_a_clip_that_a_store_cannot_show_holds_up_no_other(bench, liar):
    bad, good = await bench.sealed(1 << 20), await bench.sealed(1 << 20)
    honest = liar.ranges

    async def lacking(acquisition, nonce, ranges):
        found = await honest(acquisition, nonce, ranges)
        return tuple(bytes(32) for _ in found) if acquisition == bad.acquisition else found

    liar.ranges = lacking
    uplink = bench.uplink()
    async with running(uplink):
        await bench.until(good.acquisition, "stored")
        await _alarm(bench, uplink)
        liar.ranges = honest  # its operators found the disk that it was on
        await bench.until(bad.acquisition, "stored")
        assert uplink.alarms == ()
    assert (await bench.events()).count("acquisition.stored") == 2


async def test_p02_a_challenge_that_the_network_cut_short_is_asked_again(bench):
    row = await bench.sealed(1 << 20)
    bench.store.fail(Call.RANGES, StoreUnreachable("x"), StoreBusy("503"))
    bench.store.lose(Call.RANGES, 2)
    uplink = bench.uplink()
    async with running(uplink):
        await bench.until(row.acquisition, "stored")
        assert uplink.alarms == ()
    assert len(bench.store._receipts) == 1
    (entry,) = [entry for entry in await _entries(bench) if entry["event"] == "delivery.confirmed"]
    assert entry["details"]["compared_bytes"] == 262_144


async def test_p02_a_sealed_file_that_rots_after_its_upload_does_not_make_the_store_a_liar(bench):
    row = await bench.sealed(1 << 20)
    honest = bench.store.ranges

    async def rotting(acquisition, nonce, ranges):
        found = await honest(acquisition, nonce, ranges)
        return tuple(range_digest(nonce, b"as the disk had it") for _ in found)

    bench.store.ranges = rotting
    path = bench.spool.path(row.acquisition)
    bench.store.fail(Call.RECEIPT, StoreUnreachable("x"))
    async with running(bench.uplink()):
        await bench.store.calls.until(Call.RECEIPT)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    uplink = bench.uplink()
    async with running(uplink):
        await bench.until(row.acquisition, "stored")
        assert uplink.alarms == ()


# --- what it signs


async def test_p01_an_old_receipt_played_again_is_none(bench, liar):
    first = await bench.sealed(1 << 20)
    async with running(bench.uplink()):
        await bench.until(first.acquisition, "stored")
    second = await bench.sealed(1 << 20)
    liar._sign_receipt = lambda kept: liar.kept[first.acquisition].receipt
    uplink = bench.uplink()
    async with running(uplink):
        assert "signed for another acquisition" in await _alarm(bench, uplink)
    assert (await bench.row(second.acquisition)).state == "uploading"


async def test_p01_a_receipt_for_another_clip_is_none(bench, liar):
    rows = [await bench.sealed(1 << 20) for _ in range(2)]
    signed = liar._sign_receipt

    def swapped(kept):
        other = next(one for one in liar.kept.values() if one is not kept)
        return signed(dataclasses.replace(kept, manifest=other.manifest, decoded=other.decoded, content=other.content))

    registered = asyncio.Event()
    honest = liar.receipt

    async def once_both_are_there(acquisition, manifest):
        while len(liar.kept) < 2 or any(len(one.content) < 1 << 20 for one in liar.kept.values()):
            await asyncio.sleep(0)
        registered.set()
        return await honest(acquisition, manifest)

    liar.receipt, liar._sign_receipt = once_both_are_there, swapped
    uplink = bench.uplink()
    async with running(uplink):
        assert "signed for another acquisition" in await _alarm(bench, uplink)
    assert {(await bench.row(row.acquisition)).state for row in rows} == {"uploading"}


FORGED = {
    "another key's": lambda liar, kept: liar.signed(
        MemoryStore._sign_receipt(liar, kept).payload, key=sshsig.SigningKey.generate()
    ),
    "a signature of another kind": lambda liar, kept: liar.signed(
        MemoryStore._sign_receipt(liar, kept).payload, namespace=sshsig.HOLDING
    ),
    "another digest": lambda liar, kept: liar.restated(
        kept, sealed={"digest": "sha256:" + "0" * 64, "size_bytes": kept.decoded.sealed_size_bytes}
    ),
    "another length": lambda liar, kept: liar.restated(
        kept, sealed={"digest": kept.decoded.sealed_digest, "size_bytes": 1}
    ),
    "another manifest": lambda liar, kept: liar.restated(kept, manifest="sha256:" + "0" * 64),
    "another station": lambda liar, kept: liar.restated(kept, station=liar.store),
    "another store": lambda liar, kept: liar.restated(kept, store=kept.decoded.station),
    "another nonce": lambda liar, kept: liar.restated(kept, nonce="0" * 64),
    "a number left out": lambda liar, kept: liar.restated(kept, receipt_seq=2),
    "another one before": lambda liar, kept: liar.restated(kept, previous="sha256:" + "1" * 64),
    "another custody log": lambda liar, kept: liar.restated(kept, witnessed={"size": 1, "root": "0" * 64}),
    "more to it": lambda liar, kept: liar.restated(kept, also="trust me"),
}


@pytest.mark.parametrize("forged", FORGED)
async def test_p01_a_forged_receipt_is_none(bench, liar, forged):
    row = await bench.sealed(1 << 20)
    liar._sign_receipt = lambda kept: _as_honest(liar, lambda: FORGED[forged](liar, kept))
    await _never_stored(bench, row, "cannot be trusted")
    assert await bench.journal.read(lambda tx: tx.receipt(row.acquisition, liar.store)) is None


def _as_honest(liar, lie):
    """Run a lie that is made out of an honest receipt."""
    lying = liar.__dict__.pop("_sign_receipt")
    try:
        return lie()
    finally:
        liar._sign_receipt = lying


# --- what it forgets


async def _stored(bench, *rows):
    async with running(bench.uplink()):
        for row in rows:
            await bench.until(row.acquisition, "stored")


async def _erased(bench, row):
    def change(tx):
        tx.advance(row.acquisition, AcquisitionEvent.WARRANTED)
        tx.advance(row.acquisition, AcquisitionEvent.ERASED)

    await bench.journal.write(change)
    bench.spool.discard(row.acquisition)


async def _until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


async def _accept(bench, uplink):
    await bench.journal.write(
        lambda tx: trust.accept_rollback(tx, bench.store.store, operator="pat", reason="an old back-up")
    )
    uplink.trust.look()


async def _lost(bench):
    return [row.acquisition for row, _ in await bench.journal.read(lambda tx: trust.lost(tx, bench.store.store))]


async def _alarm_about_lost(bench):
    return await bench.journal.read(lambda tx: trust.alarm_about_lost(tx, bench.store.store))


async def _rolled_back(bench, liar):
    """One clip from before the back-up, and after it one that was erased and two that were not."""
    early = await bench.sealed(1 << 20)
    await _stored(bench, early)
    state = liar.backup()
    gone, one, other = [await bench.sealed(1 << 20) for _ in range(3)]
    await _stored(bench, gone, one, other)
    await _erased(bench, gone)
    liar.restore(state)
    return early, gone, one, other


@pytest.mark.parametrize("interrupted", [None, "unreachable", "killed"])
async def test_p01_a_store_that_was_rolled_back_gets_again_what_is_still_there(bench, liar, interrupted):
    early, gone, one, other = await _rolled_back(bench, liar)
    newest = await bench.sealed(1 << 20)
    uplink = bench.uplink()
    async with running(uplink):
        assert "rolled back" in await _alarm(bench, uplink)
        assert (await bench.row(one.acquisition)).state == "stored"  # nothing happens by itself
        assert await _lost(bench) == []
        if interrupted == "killed":
            await bench.journal.write(
                lambda tx: trust.accept_rollback(tx, liar.store, operator="pat", reason="an old back-up")
            )
        else:
            if interrupted == "unreachable":
                liar.fail(Call.HOLDING, StoreUnreachable("x"), StoreBusy("503"))
            await _accept(bench, uplink)
            await _all_again(bench, uplink, one, other, newest)
    if interrupted == "killed":
        uplink = bench.uplink()
        async with running(uplink):
            await _all_again(bench, uplink, one, other, newest)
    assert await _lost(bench) == [gone.acquisition]
    assert (await bench.row(gone.acquisition)).state == "erased"
    assert gone.acquisition in await _alarm_about_lost(bench)
    entries = await _entries(bench)
    events = [entry["event"] for entry in entries]
    assert events.count("acquisition.retracted") == 2
    assert events.count("delivery.retracted") == 3
    assert events.index("store.distrusted") < events.index("store.rollback_accepted") < events.index("acquisition.lost")
    (concluded,) = (entry["details"] for entry in entries if entry["event"] == "store.rolled_back")
    assert (concluded["last_receipt_seq"], concluded["pushed_again"], concluded["lost"]) == (1, 2, 1)
    # What the store had signed is kept, whole: it proves what it once held.
    for entry in entries:
        if entry["event"] in ("acquisition.lost", "delivery.retracted"):
            signed = entry["details"]
            sshsig.verify(liar.key, sshsig.RECEIPT, signed["receipt"].encode(), signed["signature"])
    assert sorted(liar.kept) == sorted(row.acquisition for row in (early, one, other, newest))
    assert len(liar._receipts) == 4


async def _all_again(bench, uplink, *rows):
    for row in rows:
        bench.states.pop(row.acquisition, None)
    for row in rows:
        await bench.until(row.acquisition, "stored")
    assert uplink.alarms == ()


async def _entries(bench):
    lines = await bench.journal.read(lambda tx: tx.lines(0, 100_000))
    return [canonical.decode(line, type_="custody") for line in lines]


async def test_p01_a_store_that_lost_everything_is_filled_again(bench, liar):
    empty = liar.backup()
    rows = [await bench.sealed(1 << 20) for _ in range(3)]
    await _stored(bench, *rows)
    liar.restore(empty)
    newest = await bench.sealed(1 << 20)
    uplink = bench.uplink()
    async with running(uplink):
        await _alarm(bench, uplink)
        await _accept(bench, uplink)
        await _all_again(bench, uplink, *rows, newest)
    assert len(liar._receipts) == 4
    assert await _lost(bench) == []


async def test_p01_a_roll_back_is_noticed_at_the_next_checkpoint(bench, liar):
    await bench.sealed(1 << 20)
    state = liar.backup()
    shown = await show_checkpoint(bench.journal, liar)
    liar.restore(state)
    await bench.sealed(1 << 20)
    uplink = bench.uplink(slots=0)
    async with running(uplink):
        assert "rolled back" in await _alarm(bench, uplink)
        await _accept(bench, uplink)
        await _until(lambda: not uplink.alarms and uplink.witnessed > shown)
    assert (await bench.events()).count("checkpoint.witnessed") == 2


async def test_p01_what_a_store_does_not_hold_is_asked_again_until_it_does(bench, liar):
    row = await bench.sealed(1 << 20)
    await _stored(bench, row)
    kept = liar.kept.pop(row.acquisition)
    uplink = bench.uplink()
    async with running(uplink):
        uplink.trust.doubt_holding(row.acquisition, "the store does not hold it")
        await liar.calls.until(Call.HOLDING, 3)
        assert "does not hold it" in uplink.alarms[0]
        liar.kept[row.acquisition] = kept  # its operators found it
        await _until(lambda: not uplink.alarms)
    assert (await bench.row(row.acquisition)).state == "stored"
    assert (await bench.events()).count("store.distrusted") == 2  # one for each of the two sentences


@pytest.mark.parametrize("which", ["first", "middle", "newest", "all"])
async def test_p01_what_a_store_lost_of_what_it_signed_for_is_pushed_again_under_its_receipt(bench, liar, which):
    """Its receipts stand, so nothing was rolled back: none is withdrawn, and the chain goes on where it was."""
    rows = [await bench.sealed(1 << 20) for _ in range(3)]
    await _stored(bench, *rows)
    lost = {"first": rows[:1], "middle": rows[1:2], "newest": rows[2:], "all": rows}[which]
    uplink = bench.uplink()
    async with running(uplink):
        for row in lost:
            liar.truncate(row.acquisition, 100)
            uplink.trust.doubt_holding(row.acquisition, "the store does not hold it")
        await liar.calls.until(Call.HOLDING, len(lost))
        assert [(await bench.row(row.acquisition)).state for row in lost] == ["stored"] * len(lost)
        await _accept(bench, uplink)
        await _all_again(bench, uplink, *lost)
    await _stored(bench, await bench.sealed(1 << 20))
    assert all(kept.whole for kept in liar.kept.values())
    assert len(liar._receipts) == 4
    events = await bench.events()
    assert events.count("acquisition.retracted") == len(lost)
    assert "store.receipt_withdrawn" not in events
    assert await _lost(bench) == []


async def test_p01_an_erased_clip_that_a_store_lost_is_listed_once_with_its_receipt(bench, liar):
    row = await bench.sealed(1 << 20)
    await _stored(bench, row)
    await _erased(bench, row)
    liar.truncate(row.acquisition, 100)
    uplink = bench.uplink()
    async with running(uplink):
        for turn in (1, 2):
            await _accept(bench, uplink)
            while (await bench.events()).count("store.rolled_back") < turn:
                await liar.calls.until(Call.HOLDING)
    assert await _lost(bench) == [row.acquisition]
    (lost,) = (entry["details"] for entry in await _entries(bench) if entry["event"] == "acquisition.lost")
    sshsig.verify(liar.key, sshsig.RECEIPT, lost["receipt"].encode(), lost["signature"])
    assert lost["receipt_seq"] == 1


async def test_p07_a_loss_is_alarmed_until_a_person_knows_of_it_and_listed_for_ever(bench, liar):
    _, gone, _, other = await _rolled_back(bench, liar)
    uplink = bench.uplink()
    async with running(uplink):
        uplink.trust.doubt_holding(other.acquisition, "the store does not hold it")
        await _accept(bench, uplink)
        await _until(lambda: liar.calls.count((Call.HOLDING, gone.acquisition)) and not uplink.alarms)
    assert await _alarm_about_lost(bench)
    count = await bench.journal.write(lambda tx: trust.accept_loss(tx, liar.store, operator="pat", reason="reported"))
    assert count == 1
    assert await _alarm_about_lost(bench) == ""
    assert len(await _lost(bench)) == 1
    with pytest.raises(LookupError):
        await bench.journal.write(lambda tx: trust.accept_loss(tx, liar.store, operator="pat", reason="again"))


async def test_p02_a_clip_under_a_warrant_is_not_taken_back_before_its_docking_ended(bench, liar):
    state = liar.backup()
    row = await bench.sealed(1 << 20)
    await _stored(bench, row)
    await bench.journal.write(lambda tx: tx.advance(row.acquisition, AcquisitionEvent.WARRANTED))
    liar.restore(state)
    uplink = bench.uplink()
    async with running(uplink):
        await _accept(bench, uplink)
        await liar.calls.until(Call.HOLDING, 2)
        assert (await bench.row(row.acquisition)).state == "warranted"
        await bench.journal.write(lambda tx: tx.advance_docking(bench._docking, DockingEvent.ENDED))
        bench.states.clear()
        await bench.until(row.acquisition, "stored")


def test_the_document_has_a_row_for_each_kind_of_lie():
    document = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    table = document.split("## Stores that lie and stores that forget", 1)[1].split("\n## ", 1)[0]
    assert f"any of {len(FORGED)} fields and ways" in table
