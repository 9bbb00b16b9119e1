"""A clip that two stations bring: one suite for every store that signs, in memory and over TLS on loopback."""

import secrets

import pytest
from contract.evidence import OTHER, STATION, STORE, Clip, Keys, MachineClock, blocks, receiving

from dockd.core import receipts
from dockd.core.canonical import digest
from dockd.core.challenge import Range, range_digest
from dockd.core.manifest import decode
from dockd.core.twins import shared_of
from dockd.errors import ObjectLost, StoreIncomplete, UploadLost, VerificationFailed
from dockd.model import CameraIdentity
from dockd.stores.memory import MemoryStore

PLAIN = digest(b"what the camera recorded")
SIZE = 200_000


class Memory:
    """The store in memory, and what another station brought there."""

    def __init__(self, keys):
        self.store = MemoryStore(store=STORE, key=keys.store, station=keys.station_public, clock=MachineClock())

    async def lodge(self, clip):
        self.store.lodge(clip.manifest, clip.content)

    async def spoil(self, clip):
        for kept in self.store.lodged:
            if kept.manifest == clip.manifest:
                kept.content[-1] ^= 1


class Real:
    """Our receiver, to which the other station pushes."""

    def __init__(self, keys, receiver, directory):
        self.store, self._other = receiver.connect(), receiver.connect(station=OTHER, key=keys.other)
        self._directory = directory

    async def lodge(self, clip):
        url = await self._other.register(clip.acquisition, clip.manifest, len(clip.content))
        await self._other.append(url, 0, blocks(clip.content), len(clip.content))
        await self._other.receipt(clip.acquisition, clip.manifest)

    async def spoil(self, clip):
        stored = self._directory / "store" / "acquisitions" / OTHER / clip.acquisition / "clip.age"
        content = bytearray(stored.read_bytes())
        content[-1] ^= 1
        stored.chmod(0o600)
        stored.write_bytes(content)

    async def aclose(self):
        await self._other.aclose()
        await self.store.aclose()


@pytest.fixture
def keys():
    return Keys()


@pytest.fixture(params=["memory", "receiver"])
async def place(request, keys, tmp_path):
    if request.param == "memory":
        yield Memory(keys)
        return
    async with receiving(keys, tmp_path) as receiver:
        real = Real(keys, receiver, tmp_path)
        yield real
        await real.aclose()


def own(keys, **changes):
    return Clip(keys, SIZE, **({"plaintext_digest": PLAIN} | changes))


def others(keys, **changes):
    return own(keys, station=OTHER, key=keys.other, **changes)


async def registered(store, clip):
    return await store.register(clip.acquisition, clip.manifest, len(clip.content))


def verified(keys, clip, signed):
    return receipts.verify_receipt(
        signed, store_key=keys.store.public, store=STORE, station=STATION, manifest=clip.manifest.payload
    )


async def shared(keys, place):
    """A clip of this station whose object is the other's; returns both."""
    clip, other = own(keys), others(keys)
    await place.lodge(other)
    await registered(place.store, clip)
    await place.store.share(clip.acquisition, digest(other.manifest.payload))
    return clip, other


async def test_what_another_station_brought_is_told_as_it_was_signed(place, keys):
    clip, other = own(keys), others(keys)
    await place.lodge(other)
    await registered(place.store, clip)
    assert await place.store.twins(clip.acquisition, {OTHER}) == (other.manifest,)
    assert await place.store.twins(clip.acquisition, {OTHER}) == (other.manifest,)


@pytest.mark.parametrize(
    "changes",
    [
        {"plaintext_digest": digest(b"another recording")},
        {"camera": CameraIdentity(serial="CAM2", model="M", volume_id="v")},
        {"camera": CameraIdentity(serial="CAM1", model="M", volume_id="another")},
        {"role": "sidecar"},
    ],
    ids=["plaintext", "serial", "volume", "role"],
)
async def test_another_clip_is_no_twin(place, keys, changes):
    clip, other = own(keys), others(keys, **changes)
    await place.lodge(other)
    await registered(place.store, clip)
    assert await place.store.twins(clip.acquisition, {OTHER}) == ()
    with pytest.raises(UploadLost):
        await place.store.share(clip.acquisition, digest(other.manifest.payload))


async def test_a_station_that_is_not_asked_about_is_not_told_of(place, keys):
    clip, other = own(keys), others(keys)
    await place.lodge(other)
    await registered(place.store, clip)
    assert await place.store.twins(clip.acquisition, set()) == ()
    assert await place.store.twins(clip.acquisition, {STATION}) == ()


async def test_nobody_asks_about_what_was_not_announced(place, keys):
    clip, other = own(keys), others(keys)
    await place.lodge(other)
    with pytest.raises(UploadLost):
        await place.store.twins(clip.acquisition, {OTHER})
    with pytest.raises(UploadLost):
        await place.store.share(clip.acquisition, digest(other.manifest.payload))


async def test_the_receipt_names_both_and_shows_what_was_read(place, keys):
    clip, other = await shared(keys, place)
    signed = await place.store.receipt(clip.acquisition, clip.manifest)
    receipt = verified(keys, clip, signed)
    assert receipt.shared == shared_of(decode(other.manifest.payload), other.manifest.payload)
    assert (receipt.sealed_digest, receipt.sealed_size_bytes) == (digest(other.content), len(other.content))
    assert receipt.shown == range_digest(decode(clip.manifest.payload).nonce, other.content)
    assert (receipt.station, receipt.acquisition) == (STATION, clip.acquisition)
    assert await place.store.receipt(clip.acquisition, clip.manifest) == signed


async def test_sharing_is_idempotent_and_leaves_nothing_to_send(place, keys):
    clip, other = await shared(keys, place)
    await place.store.share(clip.acquisition, digest(other.manifest.payload))
    url = await registered(place.store, clip)
    assert await place.store.offset(url) == len(clip.content)
    with pytest.raises(UploadLost):
        await place.store.append(url, 0, blocks(clip.content), len(clip.content))


async def test_what_had_arrived_is_given_up(place, keys):
    clip, other = own(keys), others(keys)
    await place.lodge(other)
    url = await registered(place.store, clip)
    await place.store.append(url, 0, blocks(clip.content[:70_000]), 70_000)
    await place.store.share(clip.acquisition, digest(other.manifest.payload))
    assert verified(keys, clip, await place.store.receipt(clip.acquisition, clip.manifest)).shared


async def test_holding_and_ranges_are_of_the_others_object(place, keys):
    clip, other = await shared(keys, place)
    await place.store.receipt(clip.acquisition, clip.manifest)
    nonce = secrets.token_bytes(32)
    holding = receipts.verify_holding(
        await place.store.holding(clip.acquisition, nonce),
        store_key=keys.store.public,
        store=STORE,
        station=STATION,
        manifest=clip.manifest.payload,
        nonce=nonce,
    )
    assert holding.shared == shared_of(decode(other.manifest.payload), other.manifest.payload)
    assert holding.sealed_digest == digest(other.content)
    piece = Range(offset=100, length=50)
    assert await place.store.ranges(clip.acquisition, nonce, (piece,)) == (range_digest(nonce, other.content[100:150]),)


async def test_an_object_that_is_not_what_was_signed_for_stands_for_nothing(place, keys):
    """The same length, other bytes: only reading all of it tells."""
    clip, other = own(keys), others(keys)
    await place.lodge(other)
    await place.spoil(other)
    url = await registered(place.store, clip)
    with pytest.raises(ObjectLost):
        await place.store.share(clip.acquisition, digest(other.manifest.payload))
    assert await place.store.offset(url) == 0
    with pytest.raises(StoreIncomplete):
        await place.store.receipt(clip.acquisition, clip.manifest)
    await place.store.append(url, 0, blocks(clip.content), len(clip.content))
    assert verified(keys, clip, await place.store.receipt(clip.acquisition, clip.manifest)).shared is None


async def test_what_was_signed_for_already_is_not_shared(place, keys):
    clip, other = own(keys), others(keys)
    await place.lodge(other)
    url = await registered(place.store, clip)
    await place.store.append(url, 0, blocks(clip.content), len(clip.content))
    signed = await place.store.receipt(clip.acquisition, clip.manifest)
    with pytest.raises(UploadLost):
        await place.store.share(clip.acquisition, digest(other.manifest.payload))
    assert await place.store.receipt(clip.acquisition, clip.manifest) == signed


async def test_a_receipt_of_the_second_version_is_for_this_manifest_alone(place, keys):
    clip, _ = await shared(keys, place)
    signed = await place.store.receipt(clip.acquisition, clip.manifest)
    with pytest.raises(VerificationFailed):
        verified(keys, own(keys), signed)
