"""The faults of the store in memory: what is ordered happens, once, and as it says."""

import hashlib
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from dockd.core.findings import Answer, Finding, Question
from dockd.core.objects import Algorithm, Piece
from dockd.core.transfer import Call
from dockd.errors import StoreBusy, StoreIncomplete, StoreRefused, StoreUnreachable, UploadLost
from dockd.model import SignedBytes
from dockd.stores.memory_objects import MemoryObjects, object_name
from dockd.stores.probing import probe_name

NOW = datetime(2026, 11, 21, tzinfo=UTC)
MANIFEST = SignedBytes(payload=b"manifest", signature="signature")
CONTENT = bytes(range(256)) * 8


class StillClock:
    def now(self):
        return NOW

    def monotonic_s(self):
        return 0.0

    async def sleep(self, delay_s):
        raise AssertionError("nobody sleeps here")


async def _blocks(content, size=100):
    for at in range(0, len(content), size):
        yield content[at : at + size]


def _store(**settings):
    return MemoryObjects(store="objects", clock=StillClock(), **settings)


async def _filled(store, acquisition="a"):
    url = await store.register(acquisition, MANIFEST, len(CONTENT))
    offset = await store.offset(url)
    while offset < len(CONTENT):
        length = store.stretch(url, offset, len(CONTENT) - offset)
        offset = await store.append(url, offset, _blocks(CONTENT[offset : offset + length]), length)
    return url


async def _read(store, objects, offset=0):
    async with aclosing(store.read(objects, Piece.SEALED, offset)) as blocks:
        return b"".join([block async for block in blocks])


async def test_what_was_put_there_is_described_and_given_back():
    store = _store(retention=timedelta(days=3))
    objects = await store.finish(await _filled(store), "a", MANIFEST)
    found = (await store.look(objects))[Piece.SEALED]
    assert (found.size_bytes, found.retention_until) == (len(CONTENT), NOW + timedelta(days=3))
    assert found.checksum.digest == hashlib.sha256(CONTENT).digest()
    assert await _read(store, objects, 7) == CONTENT[7:]


async def test_a_checksum_of_parts_is_of_their_digests():
    store = _store(part_bytes=1000)
    objects = await store.finish(await _filled(store), "a", MANIFEST)
    checksum = (await store.look(objects))[Piece.SEALED].checksum
    parts = [CONTENT[:1000], CONTENT[1000:2000], CONTENT[2000:]]
    assert (checksum.algorithm, checksum.part_bytes) == (Algorithm.SHA256_OF_PARTS, 1000)
    assert checksum.digest == hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


async def test_failing_losing_and_cutting():
    store = _store()
    store.fail(Call.REGISTER, StoreBusy("later"))
    with pytest.raises(StoreBusy):
        await _filled(store)
    assert store.uploads == {}
    store.lose(Call.REGISTER)
    with pytest.raises(StoreUnreachable):
        await _filled(store)
    store.cut(150)
    with pytest.raises(StoreUnreachable):
        await _filled(store)
    assert [len(one.content) for one in store.uploads.values()] == [150]
    url = await _filled(store)
    store.cut_read(10)
    objects = await store.finish(url, "a", MANIFEST)
    with pytest.raises(StoreUnreachable):
        await _read(store, objects)
    assert await _read(store, objects) == CONTENT


async def test_no_half_part_is_kept():
    store = _store(part_bytes=1000)
    store.cut(999)
    with pytest.raises(StoreUnreachable):
        await _filled(store)
    store.cut(1000)
    with pytest.raises(StoreUnreachable):
        await _filled(store)
    assert [len(one.content) for one in store.uploads.values()] == [1000]


async def test_corrupting_truncating_and_forgetting():
    store = _store()
    store.corrupt()
    url = await _filled(store)
    assert store.uploads[url].content == bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    store.truncate("a", 10)
    assert await store.offset(url) == 10
    with pytest.raises(StoreIncomplete):
        await store.finish(url, "a", MANIFEST)
    objects = await store.finish(await _filled(store), "a", MANIFEST)
    store.forget("a")
    for lost in (store.offset(url), store.finish(url, "a", MANIFEST), store.look(objects)):
        with pytest.raises(UploadLost):
            await lost


async def test_another_object_under_the_name_stays():
    store = _store()
    store.put("a", Piece.MANIFEST, b"another")
    with pytest.raises(StoreRefused):
        await store.finish(await _filled(store), "a", MANIFEST)
    assert store.objects[object_name("a", Piece.MANIFEST)].content == b"another"


async def test_a_new_version_shows():
    store = _store()
    objects = await store.finish(await _filled(store), "a", MANIFEST)
    before = (await store.look(objects))[Piece.MANIFEST].version
    store.put("a", Piece.MANIFEST, b"manifest")
    assert (await store.look(objects))[Piece.MANIFEST].version != before


async def test_a_store_that_can_little_says_little():
    store = _store(checksums=False, versions=False, readable=False)
    objects = await store.finish(await _filled(store), "a", MANIFEST)
    found = (await store.look(objects))[Piece.SEALED]
    assert (found.version, found.checksum, found.retention_until) == ("", None, None)
    with pytest.raises(StoreRefused):
        await _read(store, objects)


def test_only_a_claim_that_was_seen_to_fail_is_broken():
    def finding(answer, claimed):
        return Finding(question=Question.RESUME, answer=answer, claimed=claimed, detail="")

    assert finding(Answer.NO, claimed=True).broken_claim
    assert not any(finding(Answer.NO, claimed=claimed).broken_claim for claimed in (False, None))
    assert not finding(Answer.UNKNOWN, claimed=True).broken_claim
    assert probe_name(bytes) == "dockd-probe-00000000-0000-4000-8000-000000000000"
