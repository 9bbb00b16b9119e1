"""A camera moved between docks: what another station has brought is not sent again, where its word can be believed.

In every case that is wrong the clip itself is sent, or held; never is one stored on a word that does not hold.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import uuid

import manifests
import pytest

from dockd.core import canonical, sshsig
from dockd.core.lifecycle import AcquisitionEvent, DockingEvent
from dockd.core.manifest import encode
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.transfer import Call
from dockd.errors import StoreBusy, StoreUnreachable, UploadLost
from dockd.model import CacheState, Reread, SignedBytes
from dockd.stages.sharing import SECOND_READ_S
from dockd.station import trust
from dockd.station.outlet import Outlet, Signing
from dockd.station.uplink import Uplink

OTHER, THIRD = str(uuid.UUID(int=11)), str(uuid.UUID(int=12))
OTHER_KEY, THIRD_KEY = sshsig.SigningKey.generate(), sshsig.SigningKey.generate()
TRUSTED = {OTHER: OTHER_KEY.public}
SIZE = 1 << 20


@contextlib.asynccontextmanager
async def running(uplink):
    task = asyncio.create_task(uplink.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def sending(bench, trusted=TRUSTED):
    """The uplink of a station that trusts these."""
    policy = StorePolicy(
        [PolicyStore(store=bench.store.store, name="archive", trust_stations=frozenset(trusted))],
    )
    outlet = Outlet(way=Signing(port=bench.store, trusted=trusted), slots=3, patch_bytes=1 << 20)
    return Uplink(outlet, bench.parts(policy))


async def brought(bench, row, *, station=OTHER, key=OTHER_KEY, recipients=None, **changes):
    """Another station's acquisition of the same clip, at the store; with something else in its manifest."""
    name = str(uuid.UUID(int=(0x019 << 116) | (7 << 76) | (2 << 62) | 1000 + len(bench.store.lodged)))
    content = hashlib.sha256(name.encode()).digest() * (SIZE // 32)
    sealed = dataclasses.replace(
        row.sealed,
        sealed_digest=canonical.digest(content),
        sealed_size_bytes=len(content),
        recipients=recipients or row.sealed.recipients,
    )
    stated = manifests.stated(station, dataclasses.replace(row, acquisition=name), sealed, 7, b"\x09" * 32)
    payload = encode(dataclasses.replace(stated, **changes))
    signed = SignedBytes(payload=payload, signature=sshsig.sign(key, sshsig.MANIFEST, payload))
    return bench.store.lodge(signed, content)


async def read_twice(bench, row, *, contested=False):
    """The second read of a clip, in its docking."""
    event = AcquisitionEvent.CONTESTED if contested else AcquisitionEvent.REREAD
    reread = Reread(
        docking=row.docking,
        file=row.file,
        plaintext_digest=row.sealed.plaintext_digest,
        cache=CacheState.DIRECT,
    )
    changes = {"contested": True} if contested else {"reread": reread}
    await bench.journal.write(lambda tx: tx.advance(row.acquisition, event, **changes))


def sent(bench):
    return [what for call, what in bench.store.calls if call is Call.APPEND]


async def custody(bench, event):
    lines = await bench.journal.read(lambda tx: tx.lines(0, 100_000))
    entries = [canonical.decode(line, type_="custody") for line in lines]
    return [entry["details"] for entry in entries if entry["event"] == event]


async def stored(bench, row, trusted=TRUSTED):
    async with running(sending(bench, trusted)):
        await bench.until(row.acquisition, "stored")


# --- it need not be sent


async def test_what_a_trusted_station_brought_is_not_sent_again(bench):
    row = await bench.sealed(SIZE)
    other = await brought(bench, row)
    await read_twice(bench, row)
    await stored(bench, row)
    assert not sent(bench)
    assert bench.store.kept[row.acquisition].manifest.payload  # the store has this station's manifest, too
    (entry,) = await custody(bench, "delivery.shared")
    (confirmed,) = await custody(bench, "delivery.confirmed")
    named = {
        "station": OTHER,
        "acquisition": other.decoded.acquisition,
        "manifest": canonical.digest(other.manifest.payload),
    }
    assert entry["shares"] == confirmed["shares"] == named
    assert entry["plaintext"] == row.sealed.plaintext_digest
    assert (entry["sealed"], entry["size_bytes"]) == (other.decoded.sealed_digest, SIZE)
    assert confirmed["compared_bytes"] == 0


async def test_it_waits_for_the_second_read_and_goes_on_with_it(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    uplink = sending(bench)
    async with running(uplink):
        await bench.store.calls.until(Call.TWINS)
        for _ in range(5):
            await bench.clock.until_slept()
        assert (await bench.row(row.acquisition)).state == "uploading"
        assert not sent(bench)
        assert uplink.status().state == "reachable"
        await read_twice(bench, row)
        await bench.until(row.acquisition, "stored")
    assert not sent(bench)
    assert len([call for call, _ in bench.store.calls if call is Call.TWINS]) == 1


async def test_asked_for_before_erasing_the_store_says_it_of_both(bench):
    row = await bench.sealed(SIZE)
    other = await brought(bench, row)
    await read_twice(bench, row)
    uplink = sending(bench)
    async with running(uplink):
        await bench.until(row.acquisition, "stored")
    said = await uplink.confirmer.ask_again(row.acquisition)
    assert said.twin.other == other.decoded
    assert said.receipt.shared == said.holding.shared == said.twin.shared


@pytest.mark.parametrize("lost", [Call.TWINS, Call.SHARE, Call.RECEIPT])
async def test_a_lost_answer_changes_nothing(bench, lost):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    bench.store.lose(lost)
    await stored(bench, row)
    assert not sent(bench)


@pytest.mark.parametrize("call", [Call.TWINS, Call.SHARE])
async def test_another_life_goes_on_where_the_first_stopped(bench, call):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    bench.store.fail(call, *[StoreBusy("reading")] * 3)
    async with running(sending(bench)):
        await bench.store.calls.until(call, 1)
    await stored(bench, row)
    assert not sent(bench)


async def test_a_store_that_reads_for_long_holds_up_no_other_clip(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    beside = await bench.sealed(SIZE)
    bench.store.fail(Call.SHARE, *[StoreUnreachable("it did not answer in time")] * 8)
    uplink = sending(bench)
    async with running(uplink):
        await bench.until(beside.acquisition, "stored")
        assert not uplink.is_out
        await bench.until(row.acquisition, "stored")
    assert len(sent(bench)) == 1


async def test_receipts_of_both_kinds_are_one_chain(bench):
    rows = [await bench.sealed(SIZE) for _ in range(3)]
    await brought(bench, rows[1])
    await read_twice(bench, rows[1])
    for row in rows:
        await stored(bench, row)
    assert len(sent(bench)) == 2
    store = bench.store.store
    numbers = await bench.journal.read(lambda tx: [tx.receipt_seq(row.acquisition, store) for row in rows])
    assert sorted(numbers) == [1, 2, 3]


# --- it is sent


async def _sent(bench, row, trusted=TRUSTED):
    await stored(bench, row, trusted)
    assert len(sent(bench)) == 1
    assert not await custody(bench, "delivery.shared")


async def test_by_default_it_is_sent_again(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    await _sent(bench, row, trusted={})
    assert not [call for call, _ in bench.store.calls if call is Call.TWINS]


WRONG = {
    "by a station that is not listed": {"station": THIRD, "key": THIRD_KEY},
    "forged": {"key": THIRD_KEY},
    "of another recipient": {"recipients": ("sha256:" + "1" * 64, "sha256:" + "3" * 64)},
    "of fewer recipients": {"recipients": ("sha256:" + "1" * 64,)},
    "of more recipients": {"recipients": tuple("sha256:" + one * 64 for one in "123")},
    "of another plaintext": {"plaintext_digest": canonical.digest(b"other")},
    "of another length": {"plaintext_size_bytes": SIZE - 1, "size_bytes": SIZE - 1},
    "of a sidecar": {"role": "sidecar"},
}


class Careless:
    """A store that shows and shares whatever it has, without comparing anything."""

    def __init__(self, honest):
        self._honest = honest

    def __getattr__(self, name):
        return getattr(self._honest, name)

    async def twins(self, acquisition, _stations):
        self._honest._begin(Call.TWINS, acquisition)
        return tuple(one.manifest for one in self._honest.lodged)

    async def share(self, acquisition, _manifest):
        self._honest._begin(Call.SHARE, acquisition)
        self._honest.kept[acquisition].other = self._honest.lodged[0]


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
async def test_p01_a_manifest_that_does_not_hold_is_not_believed(bench, changes):
    row = await bench.sealed(SIZE)
    await brought(bench, row, **changes)
    await read_twice(bench, row)
    bench.store = Careless(bench.store)
    await _sent(bench, row)


@pytest.mark.parametrize("field", ["serial", "model", "volume_id", "vendor", "product"])
async def test_p01_another_camera_with_the_same_recording_is_another_clip(bench, field):
    row = await bench.sealed(SIZE)
    await brought(bench, row, camera=dataclasses.replace(row.camera, **{field: "another"}))
    await read_twice(bench, row)
    bench.store = Careless(bench.store)
    await _sent(bench, row)


async def test_p01_a_trusted_station_cannot_speak_for_another(bench):
    """Its key signs a manifest that names the other."""
    row = await bench.sealed(SIZE)
    await brought(bench, row, station=OTHER, key=THIRD_KEY)
    await read_twice(bench, row)
    bench.store = Careless(bench.store)
    await _sent(bench, row, trusted={OTHER: OTHER_KEY.public, THIRD: THIRD_KEY.public})


async def test_the_first_that_holds_is_taken(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row, key=THIRD_KEY)
    right = await brought(bench, row)
    await read_twice(bench, row)
    await stored(bench, row)
    assert not sent(bench)
    assert bench.store.kept[row.acquisition].other is right


async def test_p01_what_two_reads_disagree_about_is_sent(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row, contested=True)
    await stored(bench, row)
    assert len(sent(bench)) == 1


async def test_what_leaves_before_its_second_read_is_sent(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    async with running(sending(bench)) as _:
        await bench.store.calls.until(Call.TWINS, 1)
        await bench.journal.write(lambda tx: tx.advance_docking(row.docking, DockingEvent.ENDED))
        await bench.until(row.acquisition, "stored")
    assert len(sent(bench)) == 1


async def test_what_is_never_read_a_second_time_is_sent_after_a_while(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await stored(bench, row)
    assert bench.clock.passed_s > SECOND_READ_S
    assert len(sent(bench)) == 1


@pytest.mark.parametrize("error", [UploadLost("no such address"), UploadLost("forbidden")])
async def test_a_store_that_does_not_take_such_questions_gets_the_clip(bench, error):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    bench.store.fail(Call.TWINS, error)
    await _sent(bench, row)


@pytest.mark.parametrize("when", ["before it is read", "after it was read"])
async def test_p01_an_object_that_is_gone_is_no_ground_and_the_clip_is_sent(bench, when):
    """Deleted, or put aside by the store's people, while this station relies on it."""
    row = await bench.sealed(SIZE)
    other = await brought(bench, row)
    await read_twice(bench, row)
    if when == "before it is read":
        other.content.clear()
    else:
        share = bench.store.share

        async def going(acquisition, manifest):
            await share(acquisition, manifest)
            other.content.clear()

        bench.store.share = going
    await stored(bench, row)
    assert len(sent(bench)) == 1
    assert "delivery.reopened" in await bench.events()
    (confirmed,) = await custody(bench, "delivery.confirmed")
    assert confirmed["compared_bytes"] > 0
    assert "shares" not in confirmed


# --- a store that lies


async def _held(bench, row, words):
    uplink = sending(bench)
    async with running(uplink):
        while words not in uplink.status().note and not any(words in alarm for alarm in uplink.alarms):
            await bench.clock.until_slept()
    assert (await bench.row(row.acquisition)).state == "uploading"
    assert not await custody(bench, "acquisition.stored")
    return uplink


async def test_p01_a_receipt_for_another_object_of_that_station_is_not_believed(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    second = await brought(bench, row)
    await read_twice(bench, row)
    share = bench.store.share

    async def twisting(acquisition, manifest):
        await share(acquisition, manifest)
        bench.store.kept[acquisition].other = second

    bench.store.share = twisting
    assert (await _held(bench, row, "than it had named")).alarms


async def test_p01_a_receipt_with_another_length_or_digest_is_not_believed(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    sign = bench.store._sign_receipt

    def restating(kept):
        record = canonical.decode(sign(kept).payload, type_="receipt", newest=2)
        payload = canonical.encode(record | {"sealed": record["sealed"] | {"size_bytes": SIZE + 1}})
        return SignedBytes(payload=payload, signature=sshsig.sign(bench.store._key, sshsig.RECEIPT, payload))

    bench.store._sign_receipt = restating
    assert (await _held(bench, row, "than it had named")).alarms


async def test_p01_a_plain_receipt_for_what_was_never_sent_is_not_believed(bench):
    """It signs for this station's own sealed file, of which it has not seen a byte: it has to show it."""
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    share = bench.store.share

    async def pretending(acquisition, manifest):
        await share(acquisition, manifest)
        bench.store.kept[acquisition].other = None

    bench.store.share = pretending
    bench.store._require_whole = lambda _kept: None
    assert (await _held(bench, row, "does not hold it")).alarms


async def test_p01_a_replayed_receipt_is_not_believed(bench):
    """That of another clip, which was shared before."""
    first, row = await bench.sealed(SIZE), await bench.sealed(SIZE)
    for one in (first, row):
        await brought(bench, one)
        await read_twice(bench, one)
    receipt, kept = bench.store.receipt, []

    async def replaying(acquisition, manifest):
        kept.append(await receipt(acquisition, manifest))
        return kept[0]

    bench.store.receipt = replaying
    uplink = sending(bench)
    async with running(uplink):
        while not uplink.alarms:
            await bench.clock.until_slept()
    assert "cannot be trusted" in uplink.alarms[0]
    assert len(await custody(bench, "acquisition.stored")) == 1


# --- later


async def test_p01_a_station_that_is_no_longer_listed_is_no_ground_for_erasing(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    await stored(bench, row)
    said = await sending(bench, {THIRD: THIRD_KEY.public}).confirmer.ask_again(row.acquisition)
    assert said.receipt.shared
    assert said.twin is None  # and without it no warrant is issued


async def test_p01_a_station_that_is_taken_off_the_list_meanwhile_leaves_the_clip_held(bench):
    row = await bench.sealed(SIZE)
    await brought(bench, row)
    await read_twice(bench, row)
    bench.store.fail(Call.SHARE, StoreBusy("reading"))
    async with running(sending(bench)):
        await bench.store.calls.until(Call.SHARE, 1)
    uplink = sending(bench, {THIRD: THIRD_KEY.public})
    beside = await bench.sealed(SIZE)
    async with running(uplink):
        await bench.until(beside.acquisition, "stored")
        while "list it again" not in uplink.status().note:
            await bench.clock.until_slept()
    assert (await bench.row(row.acquisition)).state == "uploading"
    await stored(bench, row)  # it was listed again
    assert len(sent(bench)) == 1


async def test_what_the_store_lost_afterwards_is_sent_under_the_receipt_that_stands(bench):
    row = await bench.sealed(SIZE)
    other = await brought(bench, row)
    await read_twice(bench, row)
    await stored(bench, row)
    before = await bench.journal.read(lambda tx: tx.receipt(row.acquisition, bench.store.store))
    other.content.clear()
    uplink = sending(bench)
    uplink.trust.doubt_holding(row.acquisition, "it was asked right before erasing, and does not hold it")
    async with running(uplink):
        await bench.journal.write(lambda tx: trust.accept_rollback(tx, bench.store.store, operator="p", reason="known"))
        uplink.trust.look()
        while "delivery.retracted" not in await bench.events():
            await bench.clock.until_slept()
        await bench.until(row.acquisition, "spooled")
        await bench.until(row.acquisition, "stored")
    assert len(sent(bench)) == 1
    assert await bench.journal.read(lambda tx: tx.receipt(row.acquisition, bench.store.store)) == before
    said = await uplink.confirmer.ask_again(row.acquisition)
    assert said.receipt.shared
    assert said.holding.shared is None  # it has the clip's own bytes now


async def test_after_the_journal_was_lost_the_store_is_asked_for_the_manifest_again(bench):
    """The receipt names the other station's object, and nothing here knows of it any more."""
    row = await bench.sealed(SIZE)
    other = await brought(bench, row)
    await bench.store.register(row.acquisition, await bench.journal.read(lambda tx: tx.manifest(row.acquisition)), SIZE)
    await bench.store.share(row.acquisition, canonical.digest(other.manifest.payload))
    bench.store.fail(Call.TWINS, UploadLost("as if it were not asked"))
    await stored(bench, row)
    kept = await bench.journal.read(lambda tx: tx.twin(row.acquisition, bench.store.store))
    assert kept == other.manifest
    assert not sent(bench)
