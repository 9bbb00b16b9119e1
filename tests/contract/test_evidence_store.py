"""One suite for every evidence store: the in-memory one, and the real receiver over TLS on loopback.

What an implementation must do is in dockd/stores/port.py; each test here holds one of its sentences.
"""

import asyncio
import contextlib
import secrets
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from contract.evidence import STATION, STORE, Clip, Keys, MachineClock, blocks, receiving

from dockd.core import canonical, checkpoint, extensions, merkle, receipts, retention
from dockd.core.challenge import MAX_RANGES, MAX_TOTAL_BYTES, Range, choose_ranges, range_digest
from dockd.errors import (
    NotExtended,
    ObjectLost,
    OffsetConflict,
    StoreBusy,
    StoreIncomplete,
    StoreRefused,
    StoreUnreachable,
    StoreUntrusted,
    UploadCorrupt,
    UploadLost,
    VerificationFailed,
)
from dockd.model import Category
from dockd.stores.memory import MemoryStore


class Log:
    """A custody log that only has leaves and signed heads."""

    def __init__(self, keys, *, salt=b""):
        self._key = keys.checkpoint
        self._frontier = merkle.Frontier()
        self._nodes = {}
        self._salt = salt

    def grow(self, count):
        for _ in range(count):
            entry = self._salt + str(self._frontier.size).encode()
            self._nodes.update({(level, index): node for level, index, node in self._frontier.append(entry)})
        return self

    def node(self, level, index):
        return self._nodes[level, index]

    def note(self, size):
        head = checkpoint.Checkpoint(
            origin=checkpoint.origin_of(STATION, 1), size=size, root=merkle.root_at(self, size)
        )
        return checkpoint.sign(head, self._key)

    def proof(self, old, new):
        return tuple(merkle.consistency_proof(self, old, new)) if 0 < old < new else ()


async def put(store, clip, *, start=0, end=None):
    """Send a piece of a clip; returns the upload's address."""
    url = await store.register(clip.acquisition, clip.manifest, len(clip.content))
    piece = clip.content[start:end]
    assert await store.append(url, start, blocks(piece), len(piece)) == start + len(piece)
    return url


def _verify(keys, clip, signed):
    return receipts.verify_receipt(
        signed, store_key=keys.store.public, store=STORE, station=STATION, manifest=clip.manifest.payload
    )


# --- the stores


@pytest.fixture
def keys():
    return Keys()


@pytest.fixture(params=["memory", "receiver"])
async def store(request, keys, tmp_path):
    if request.param == "memory":
        yield MemoryStore(store=STORE, key=keys.store, station=keys.station_public, clock=MachineClock())
        return
    async with receiving(keys, tmp_path) as receiver:
        made = receiver.connect()
        yield made
        await made.aclose()


# --- register


async def test_registering_again_gives_the_same_address(store, keys):
    clip = Clip(keys)
    first = await store.register(clip.acquisition, clip.manifest, len(clip.content))
    assert await store.register(clip.acquisition, clip.manifest, len(clip.content)) == first
    assert await store.offset(first) == 0


async def test_another_manifest_for_the_same_id_is_refused(store, keys):
    clip = Clip(keys)
    await store.register(clip.acquisition, clip.manifest, len(clip.content))
    other = Clip(keys, content=clip.content, acquisition=clip.acquisition)
    with pytest.raises(StoreRefused) as caught:
        await store.register(other.acquisition, other.manifest, len(other.content))
    assert caught.value.status == 409


async def test_another_manifest_for_the_same_ciphertext_is_refused(store, keys):
    clip = Clip(keys)
    await store.register(clip.acquisition, clip.manifest, len(clip.content))
    other = Clip(keys, content=clip.content)
    with pytest.raises(StoreRefused) as caught:
        await store.register(other.acquisition, other.manifest, len(other.content))
    assert caught.value.status == 409


async def test_a_manifest_by_another_key_or_station_is_refused(store, keys):
    for clip in (Clip(keys, key=keys.checkpoint), Clip(keys, station=str(uuid.uuid4()))):
        with pytest.raises(StoreRefused):
            await store.register(clip.acquisition, clip.manifest, len(clip.content))


async def test_a_manifest_under_another_id_is_refused(store, keys):
    clip, other = Clip(keys), Clip(keys)
    with pytest.raises(StoreRefused):
        await store.register(other.acquisition, clip.manifest, len(clip.content))


# --- offset and append


async def test_an_upload_goes_on_where_it_stopped(store, keys):
    clip = Clip(keys)
    url = await put(store, clip, end=70_000)
    assert await store.offset(url) == 70_000
    assert await put(store, clip, start=70_000) == url
    assert await store.offset(url) == len(clip.content)


async def test_a_wrong_offset_is_a_conflict_and_changes_nothing(store, keys):
    clip = Clip(keys)
    url = await put(store, clip, end=1000)
    for wrong in (0, 999, 1001):
        with pytest.raises(OffsetConflict):
            await store.append(url, wrong, blocks(clip.content[:10]), 10)
    assert await store.offset(url) == 1000


async def test_an_unknown_upload_is_lost(store):
    with pytest.raises(UploadLost):
        await store.offset("/uploads/" + "0" * 32)
    with pytest.raises(UploadLost):
        await store.append("/uploads/" + "0" * 32, 0, blocks(b"x"), 1)


async def test_p02_after_a_cancelled_patch_the_offset_is_within_what_was_sent(store, keys):
    clip = Clip(keys, size=3 << 20)
    url = await store.register(clip.acquisition, clip.manifest, len(clip.content))
    begun = asyncio.Event()

    async def endless():
        yield clip.content[: 2 << 20]
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.append(url, 0, endless(), len(clip.content)))
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started = [await finish(store, clip, url)]
    assert 0 <= started[0] <= 2 << 20
    _verify(keys, clip, await store.receipt(clip.acquisition, clip.manifest))


async def finish(store, clip, url):
    """Send the rest as a client does whose old connection may not be quite dead; returns where the last try began.

    HEAD may overtake bytes of the old connection: then the PATCH is a conflict or locked, and HEAD is asked again.
    """
    for _ in range(200):
        with contextlib.suppress(StoreBusy, OffsetConflict):
            offset = await store.offset(url)
            await store.append(url, offset, blocks(clip.content[offset:]), len(clip.content) - offset)
            return offset
    raise AssertionError("the store never let go of a dead connection")


async def test_p02_a_killed_receiver_goes_on_at_its_durable_offset(keys, tmp_path):
    clip = Clip(keys, size=24 << 20)
    async with receiving(keys, tmp_path) as receiver:
        store = receiver.connect()
        url = await put(store, clip, end=5 << 20)

        async def half():
            yield clip.content[5 << 20 : 9 << 20]
            await receiver.kill()
            yield clip.content[9 << 20 :]

        with pytest.raises(StoreUnreachable):
            await store.append(url, 5 << 20, half(), len(clip.content) - (5 << 20))
        with pytest.raises(StoreUnreachable):
            await store.offset(url)
        await receiver.start()
        # What was acknowledged is there; of the rest, what was durable; the session outlives the restart or is renewed.
        assert 5 << 20 <= await finish(store, clip, url) <= 9 << 20
        assert await store.register(clip.acquisition, clip.manifest, len(clip.content)) == url
        signed = await store.receipt(clip.acquisition, clip.manifest)
        await receiver.kill()
        await receiver.start()
        assert await store.receipt(clip.acquisition, clip.manifest) == signed
        _verify(keys, clip, signed)
        await store.aclose()


# --- receipt and holding


async def test_p01_a_receipt_needs_every_byte(store, keys):
    clip = Clip(keys)
    url = await store.register(clip.acquisition, clip.manifest, len(clip.content))
    with pytest.raises(StoreIncomplete):
        await store.receipt(clip.acquisition, clip.manifest)
    await put(store, clip, end=-1)
    with pytest.raises(StoreIncomplete) as caught:
        await store.receipt(clip.acquisition, clip.manifest)
    assert not isinstance(caught.value, UploadCorrupt)
    await put(store, clip, start=len(clip.content) - 1)
    receipt = _verify(keys, clip, await store.receipt(clip.acquisition, clip.manifest))
    assert receipt.sealed_size_bytes == len(clip.content)
    assert url


async def test_a_receipt_asked_for_again_is_the_same(store, keys):
    clip = Clip(keys)
    await put(store, clip)
    first = await store.receipt(clip.acquisition, clip.manifest)
    assert await store.receipt(clip.acquisition, clip.manifest) == first


async def test_an_unknown_acquisition_has_no_receipt(store, keys):
    clip = Clip(keys)
    with pytest.raises(UploadLost):
        await store.receipt(clip.acquisition, clip.manifest)


async def test_receipts_form_a_chain(store, keys):
    previous = None
    for _ in range(3):
        clip = Clip(keys, size=1000)
        await put(store, clip)
        receipt = _verify(keys, clip, await store.receipt(clip.acquisition, clip.manifest))
        receipts.check_succession(previous, receipt)
        previous = receipt
    assert previous.receipt_seq == 3


async def test_a_finished_upload_takes_no_more_bytes(store, keys):
    clip = Clip(keys)
    url = await put(store, clip)
    await store.receipt(clip.acquisition, clip.manifest)
    with pytest.raises(UploadLost):
        await store.append(url, len(clip.content), blocks(b"x"), 1)
    # Registering what is stored is still no error, whatever its address then says.
    await store.register(clip.acquisition, clip.manifest, len(clip.content))


async def test_p02_bytes_that_arrived_changed_are_dropped_and_can_be_sent_again(store, keys):
    clip = Clip(keys)
    url = await store.register(clip.acquisition, clip.manifest, len(clip.content))
    changed = clip.content[:-1] + bytes([clip.content[-1] ^ 1])
    await store.append(url, 0, blocks(changed), len(changed))
    with pytest.raises(UploadCorrupt):
        await store.receipt(clip.acquisition, clip.manifest)
    url = await store.register(clip.acquisition, clip.manifest, len(clip.content))
    assert await store.offset(url) == 0
    await put(store, clip)
    _verify(keys, clip, await store.receipt(clip.acquisition, clip.manifest))


async def test_p01_a_holding_statement_answers_its_own_nonce_only(store, keys):
    clip = Clip(keys)
    await put(store, clip)
    with pytest.raises((StoreIncomplete, UploadLost)):
        await store.holding(clip.acquisition, bytes(32))
    await store.receipt(clip.acquisition, clip.manifest)
    signed = await store.holding(clip.acquisition, b"\x01" * 32)
    known = {"store_key": keys.store.public, "store": STORE, "station": STATION, "manifest": clip.manifest.payload}
    assert receipts.verify_holding(signed, nonce=b"\x01" * 32, **known).acquisition == clip.acquisition
    with pytest.raises(VerificationFailed):
        receipts.verify_holding(signed, nonce=b"\x02" * 32, **known)


async def test_what_was_never_announced_is_not_held(store, keys):
    with pytest.raises(UploadLost):
        await store.holding(Clip(keys).acquisition, bytes(32))


async def test_p01_what_was_signed_for_and_is_gone_is_taken_again_under_its_receipt(store, keys, tmp_path):
    clip = Clip(keys)
    url = await put(store, clip)
    receipt = await store.receipt(clip.acquisition, clip.manifest)
    assert await store.register(clip.acquisition, clip.manifest, len(clip.content)) == url
    with pytest.raises(UploadLost):  # it is there, and stays
        await store.append(url, 0, blocks(clip.content), len(clip.content))
    if isinstance(store, MemoryStore):
        store.truncate(clip.acquisition, 100)
    else:
        (tmp_path / "store" / "acquisitions" / STATION / clip.acquisition / "clip.age").unlink()
    some = (Range(offset=0, length=10),)
    for ask in (
        lambda: store.holding(clip.acquisition, bytes(32)),
        lambda: store.ranges(clip.acquisition, bytes(32), some),
    ):
        with pytest.raises(ObjectLost):
            await ask()
    assert await store.register(clip.acquisition, clip.manifest, len(clip.content)) == url
    assert await store.offset(url) == 0
    with pytest.raises(StoreIncomplete):
        await store.receipt(clip.acquisition, clip.manifest)
    assert await store.append(url, 0, blocks(clip.content), len(clip.content)) == len(clip.content)
    with pytest.raises(ObjectLost):  # nothing was looked at yet
        await store.holding(clip.acquisition, bytes(32))
    assert await store.receipt(clip.acquisition, clip.manifest) == receipt
    signed = await store.holding(clip.acquisition, bytes(32))
    assert canonical.decode(signed.payload, type_="holding", newest=3)["acquisition"] == clip.acquisition
    assert len(await store.ranges(clip.acquisition, bytes(32), some)) == 1


# --- ranges


async def test_p01_ranges_are_read_from_the_object_under_the_nonce(store, keys):
    clip, nonce = Clip(keys, size=600_000), secrets.token_bytes(32)
    await put(store, clip)
    await store.receipt(clip.acquisition, clip.manifest)
    wanted = choose_ranges(len(clip.content), secrets.token_bytes)
    assert len(wanted) == MAX_RANGES
    found = await store.ranges(clip.acquisition, nonce, wanted)
    assert found == tuple(range_digest(nonce, clip.content[one.offset :][: one.length]) for one in wanted)
    assert await store.ranges(clip.acquisition, bytes(32), wanted) != found
    whole = (Range(offset=0, length=MAX_TOTAL_BYTES),)
    assert await store.ranges(clip.acquisition, nonce, whole) == (range_digest(nonce, clip.content[:MAX_TOTAL_BYTES]),)


async def test_p01_nothing_is_shown_of_what_is_not_signed_for(store, keys):
    clip, some = Clip(keys), (Range(offset=0, length=10),)
    with pytest.raises(UploadLost):
        await store.ranges(clip.acquisition, bytes(32), some)
    await put(store, clip)
    with pytest.raises(StoreIncomplete):
        await store.ranges(clip.acquisition, bytes(32), some)


# --- witness


async def test_p07_checkpoints_are_cosigned_and_receipts_name_them(store, keys):
    log = Log(keys).grow(10)
    assert await store.witnessed_size() == 0
    old = 0
    for size in (3, 3, 7, 10):
        note = log.note(size)
        cosigned = (await store.witness(note, old, log.proof(old, size))).note
        assert cosigned.startswith(note)
        checkpoint.verify_cosignature(cosigned, f"dockd-store/{STORE}", keys.store.public)
        assert await store.witnessed_size() == size
        old = size
    clip = Clip(keys)
    await put(store, clip)
    receipt = _verify(keys, clip, await store.receipt(clip.acquisition, clip.manifest))
    assert (receipt.witnessed_size, receipt.witnessed_root) == (10, merkle.root_at(log, 10))


async def test_p07_a_fork_is_a_contradiction_and_changes_nothing(store, keys):
    log, forked = Log(keys).grow(8), Log(keys, salt=b"other").grow(8)
    await store.witness(log.note(4), 0, ())
    with pytest.raises(StoreUntrusted):
        await store.witness(forked.note(8), 4, forked.proof(4, 8))
    with pytest.raises(StoreUntrusted):
        await store.witness(forked.note(4), 4, ())
    assert await store.witnessed_size() == 4
    await store.witness(log.note(8), 4, log.proof(4, 8))


async def test_a_checkpoint_from_an_old_size_is_a_conflict(store, keys):
    log = Log(keys).grow(8)
    await store.witness(log.note(4), 0, ())
    with pytest.raises(OffsetConflict):
        await store.witness(log.note(8), 0, ())
    with pytest.raises(OffsetConflict):
        await store.witness(log.note(8), 6, log.proof(6, 8))


# --- how long it is kept


@pytest.fixture(params=["memory", "receiver"])
async def ruled(request, keys, tmp_path):
    """A store that has a policy."""
    if request.param == "memory":
        yield MemoryStore(
            store=STORE,
            key=keys.store,
            station=keys.station_public,
            clock=MachineClock(),
            categories=retention.usual_terms(),
        )
        return
    async with receiving(keys, tmp_path) as receiver:
        made = receiver.connect()
        yield made
        await made.aclose()


async def test_a_store_with_a_policy_states_it_and_says_its_rule_in_what_it_signs(ruled, keys):
    signed = await ruled.policy()
    assert await ruled.policy(anew=True) == signed
    policy = retention.verify_policy(signed, store_key=keys.store.public, store=STORE)
    assert (policy.policy_seq, policy.categories) == (1, retention.usual_terms())
    clip = Clip(keys)
    await put(ruled, clip)
    receipt = _verify(keys, clip, await ruled.receipt(clip.acquisition, clip.manifest))
    receipts.check_rule(receipt, policy)
    assert (receipt.rule.category, receipt.rule.policy) == ("none", policy.payload_digest)
    nonce = secrets.token_bytes(32)
    holding = receipts.verify_holding(
        await ruled.holding(clip.acquisition, nonce),
        store_key=keys.store.public,
        store=STORE,
        station=STATION,
        manifest=clip.manifest.payload,
        nonce=nonce,
    )
    assert (holding.rule, holding.kept_until) == (receipt.rule, receipt.kept_until)


async def test_no_more_is_promised_than_the_policy_says(ruled, keys):
    clip = Clip(keys)
    await put(ruled, clip)
    with pytest.raises((StoreIncomplete, UploadLost)):
        await ruled.extension(clip.acquisition, canonical.digest(b"no receipt"), 0)
    receipt = await ruled.receipt(clip.acquisition, clip.manifest)
    with pytest.raises(NotExtended) as caught:
        await ruled.extension(clip.acquisition, canonical.digest(receipt.payload), 0)
    assert not caught.value.over


async def test_p01_what_a_person_ends_is_extended_from_now_and_each_extension_stays_as_it_is(ruled, keys):
    clip = Clip(keys, category=Category.EVIDENCE, recorded_at=datetime.now(UTC).replace(microsecond=0) - timedelta(20))
    url = await put(ruled, clip)
    signed = await ruled.receipt(clip.acquisition, clip.manifest)
    receipt, digest = _verify(keys, clip, signed), canonical.digest(signed.payload)
    while datetime.now(UTC) - receipt.at < timedelta(milliseconds=2):  # the floor moves by milliseconds
        await ruled.offset(url)
    first = await ruled.extension(clip.acquisition, digest, 0)
    assert await ruled.extension(clip.acquisition, digest, 0) == first
    about = {"store_key": keys.store.public, "receipt": receipt, "manifest": clip.manifest.payload}
    one = extensions.verify_extension(first, previous=None, **about)
    assert (one.n, one.delete_by, one.kept_until > receipt.kept_until) == (1, None, True)
    with pytest.raises((StoreIncomplete, UploadLost)):
        await ruled.extension(clip.acquisition, digest, 7)


async def test_closing_twice_is_no_error(store):
    await store.aclose()
    await store.aclose()
