"""What each server really enforces, by the probes that set-up and `dockd doctor` run, is what docs/stores.md says.

`DOCKD_WRITE_DOCS=1` writes it there instead.
"""

import contextlib
import os
import secrets

import pytest
from contract.evidence import STATION, STORE, Clip, Keys, MachineClock, blocks, receiving
from contract.stores import enforced
from servers.buckets import adapter, make_bucket

from dockd.core import receipts
from dockd.core.findings import Answer, Finding, Question
from dockd.errors import StoreLacks, StoreRefused, StoreUnreachable, UploadLost
from dockd.model import Category
from dockd.stores import axis_probe, receiver_probe, s3_probe, tus_probe
from dockd.stores.axis import AxisStore
from dockd.stores.axis_session import AxisCredentials
from dockd.stores.header_file import HeaderFile
from dockd.stores.s3_parts import MIN_PART_BYTES
from dockd.stores.s3_records import Lock, LockMode
from dockd.stores.tus import checksum_header
from dockd.stores.tus_store import TusStore

pytestmark = pytest.mark.servers

LOCK = Lock(mode=LockMode.COMPLIANCE, days={Category.EVIDENCE: 3, Category.NONE: 1})


def _compare(server, found):
    text = enforced.DOCUMENT.read_text()
    if os.environ.get("DOCKD_WRITE_DOCS") == "1":
        enforced.DOCUMENT.write_text(enforced.replaced(text, server, found))
    else:
        assert found == enforced.documented(text).get(server), f"docs/stores.md says another thing of {server}"


async def _bucket(server, lock):
    store = adapter(server, f"enforced-{secrets.token_hex(6)}", lock=lock, part_bytes=MIN_PART_BYTES)
    async with contextlib.aclosing(store):
        await make_bucket(store, lock=lock is not None)
        found = await s3_probe.probe(store, random=secrets.token_bytes, clock=MachineClock())
        with contextlib.suppress(StoreLacks):
            assert [one async for one in store.bucket.unfinished("")] == []
    return enforced.cells(found)


SERVERS = [("seaweed", "SeaweedFS, S3"), ("ceph", "Ceph RGW, S3")]
SERVERS += [("moto", "moto, S3"), ("rclone", "`rclone serve s3`"), ("s3rver", "s3rver, S3")]  # less strict


@pytest.mark.parametrize(("fixture", "server"), SERVERS)
async def test_what_an_s3_server_enforces(request, fixture, server):
    running = request.getfixturevalue(fixture)
    _compare(server, enforced.with_locks(await _bucket(running, None), await _bucket(running, LOCK)))


async def test_what_swift_enforces(swift):
    store = AxisStore(
        name="axis",
        url=swift.url,
        ca_file=None,
        clock=MachineClock(),
        credentials=lambda: AxisCredentials(user=swift.user, key=swift.key),
        station=STATION,
        insecure_loopback=True,
    )
    async with contextlib.aclosing(store):
        _compare("OpenStack Swift, Axis", enforced.cells(await axis_probe.probe(store, random=secrets.token_bytes)))


async def test_what_tus_server_enforces(tus_server, tmp_path):
    file = tmp_path / "authorization"
    file.write_text(f"Bearer {tus_server.token}")
    found = await _tus(url=tus_server.url, ca_file=tus_server.ca_file, authorization=HeaderFile(file))
    _compare("`@tus/server`", found)


async def test_what_seaweedfs_enforces_of_tus(seaweed):
    _compare("SeaweedFS, tus", await _tus(url=seaweed.tus_url + "/probe", objects_url=seaweed.files_url + "/probe"))


async def _tus(**settings):
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(
                contextlib.aclosing(
                    TusStore(
                        name="tus",
                        clock=MachineClock(),
                        random=secrets.token_bytes,
                        insecure_loopback=True,
                        **settings,
                    )
                )
            )
            for _ in range(2)
        ]
        return enforced.cells(await tus_probe.probe(*stores, random=secrets.token_bytes))


async def test_what_our_receiver_enforces(tmp_path):
    """It signs, so nothing of this is what it is believed for; the same questions are put to it all the same."""
    keys = Keys()
    async with receiving(keys, tmp_path) as receiver:
        one, other = receiver.connect(), receiver.connect()
        async with contextlib.aclosing(one), contextlib.aclosing(other):
            found = list(await receiver_probe.probe(one, random=secrets.token_bytes))
            for question, ask in _ASKED_OF_OURS.items():
                answer = Answer.YES if await ask(keys, one, other) else Answer.NO
                found.append(Finding(question=question, answer=answer, claimed=None, detail=""))
    _compare("dockd receiver", enforced.cells(found))


async def _begun(store, clip, length):
    url = await store.register(clip.acquisition, clip.manifest, len(clip.content))
    assert await store.append(url, 0, blocks(clip.content[:length]), length) == length
    return url


async def _headers(store):
    return {"Authorization": f"Bearer {(await store._current()).token}"}


async def _wrong_checksum(keys, store, _):
    url = await _begun(store, clip := Clip(keys), 1)
    rest, wrong = clip.content[1:], checksum_header("sha256", bytes(32))
    refused = await store._tus.refuses(store._at(url), 1, rest, headers=await _headers(store), checksum=wrong)
    return refused and await store.offset(url) == 1


async def _checksum_back(keys, store, _):
    clip = Clip(keys)
    await _begun(store, clip, len(clip.content))
    signed = await store.receipt(clip.acquisition, clip.manifest)
    receipts.verify_receipt(
        signed, store_key=keys.store.public, store=STORE, station=STATION, manifest=clip.manifest.payload
    )
    return True


async def _overwrite(keys, store, _):
    clip = Clip(keys)
    await _begun(store, clip, 1)
    another = Clip(keys, content=clip.content, acquisition=clip.acquisition)
    with pytest.raises(StoreRefused):
        await store.register(another.acquisition, another.manifest, len(another.content))
    return True


async def _locked(keys, store, _):
    """What was signed for stays."""
    clip = Clip(keys)
    url = await _begun(store, clip, len(clip.content))
    await store.receipt(clip.acquisition, clip.manifest)
    with pytest.raises(StoreUnreachable, match="403"):
        await store._tus.terminate(store._at(url), headers=await _headers(store))
    await store.holding(clip.acquisition, secrets.token_bytes(32))
    return True


async def _resume(keys, store, other):
    clip = Clip(keys)
    url = await _begun(store, clip, 1000)
    rest = clip.content[1000:]
    return await other.offset(url) == 1000 and await other.append(url, 1000, blocks(rest), len(rest)) == len(
        clip.content
    )


async def _abandon(keys, store, _):
    url = await _begun(store, Clip(keys), 1)
    await store._tus.terminate(store._at(url), headers=await _headers(store))
    with pytest.raises(UploadLost):
        await store.offset(url)
    return True


_ASKED_OF_OURS = {
    Question.WRONG_CHECKSUM: _wrong_checksum,
    Question.CHECKSUM_BACK: _checksum_back,
    Question.OVERWRITE: _overwrite,
    Question.LOCKED: _locked,
    Question.RESUME: _resume,
    Question.ABANDON: _abandon,
}
