"""What is special to S3, on SeaweedFS and Ceph: locks, from creation to a refused deletion; orphans; no bucket."""

import contextlib
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from contract.evidence import Clip, Keys, blocks
from servers.buckets import MachineClock, adapter, make_bucket

from dockd.core.objects import Piece
from dockd.errors import StoreUnreachable, UploadLost
from dockd.model import Category
from dockd.stores.s3_parts import MIN_PART_BYTES
from dockd.stores.s3_probe import believed, probe
from dockd.stores.s3_records import Believed, Lock, LockMode, parse_objects

pytestmark = pytest.mark.servers

DAYS = 3
LOCK = Lock(mode=LockMode.COMPLIANCE, days={Category.EVIDENCE: DAYS, Category.NONE: 1})


async def _bucket(server, *, lock, **settings):
    bucket = f"enforces-{secrets.token_hex(6)}"
    store = adapter(server, bucket, lock=LOCK if lock else None, part_bytes=MIN_PART_BYTES, **settings)
    await make_bucket(store, lock=lock)
    return store


async def _stored(store, clip):
    size = len(clip.content)
    upload = await store.register(clip.acquisition, clip.manifest, size)
    offset = 0
    while offset < size:
        length = store.stretch(upload, offset, size - offset)
        offset = await store.append(upload, offset, blocks(clip.content[offset : offset + length]), length)
    return await store.finish(upload, clip.acquisition, clip.manifest)


@pytest.mark.parametrize("server", ["seaweed", "ceph"])
@pytest.mark.parametrize(("category", "days", "held"), [(Category.EVIDENCE, DAYS, True), (Category.NONE, 1, False)])
async def test_a_clip_is_locked_as_its_category_says(request, server, category, days, held):
    store = await _bucket(request.getfixturevalue(server), lock=True)
    async with contextlib.aclosing(store):
        store.believed = believed(await probe(store, random=secrets.token_bytes, clock=MachineClock()))
        assert store.believed.locks
        objects = await _stored(store, Clip(Keys(), category=category))
        states = await store.look(objects)
        for piece in Piece:
            state, key = states[piece], parse_objects(objects).key(piece)
            assert state.retention_until >= datetime.now(UTC) + timedelta(days=days), piece
            assert state.legal_hold is held, piece
            assert state.version
            assert await store.bucket.refuses("DELETE", key, query={"versionId": state.version}, headers={})
        assert await store.look(objects) == states


async def test_an_object_that_a_delete_marker_hides_is_missed(seaweed):
    """Locks keep versions; a marker may still be laid over them, and then the object does not count as there."""
    store = await _bucket(seaweed, lock=True)
    async with contextlib.aclosing(store):
        store.believed = Believed(locks=True)
        objects = await _stored(store, Clip(Keys(), category=Category.EVIDENCE))
        await store.bucket.delete(parse_objects(objects).key(Piece.SEALED), "")
        with pytest.raises(UploadLost, match="no such object"):
            await store.look(objects)


async def test_a_bucket_that_is_not_there_holds_everything_back(seaweed, ceph):
    for server in (seaweed, ceph):
        store = adapter(server, "no-such-bucket-here")
        clip = Clip(Keys(), size=1000)
        async with contextlib.aclosing(store):
            with pytest.raises(StoreUnreachable, match="bucket"):
                await store.register(clip.acquisition, clip.manifest, len(clip.content))


@pytest.mark.parametrize("server", ["seaweed", "ceph"])
async def test_parts_that_nobody_will_complete_are_found_and_dropped(request, server):
    store = await _bucket(request.getfixturevalue(server), lock=False)
    async with contextlib.aclosing(store):
        wanted, orphan = Clip(Keys()), Clip(Keys())

        async def is_wanted(acquisition):
            return acquisition == wanted.acquisition

        for clip in (wanted, orphan):
            await store.register(clip.acquisition, clip.manifest, len(clip.content))
        assert await store.clear_orphans(is_wanted) == (orphan.acquisition,)
        left = [one.key async for one in store.bucket.unfinished("")]
        assert len(left) == 1
        assert wanted.acquisition in left[0]
