"""What is special to an Axis content destination, on a real OpenStack Swift. The common part is in contract/stores."""

import asyncio
import contextlib
import dataclasses
import json
import random
import urllib.request
from contextlib import aclosing
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from dockd.core import canonical
from dockd.core.findings import Answer, Question
from dockd.core.ids import uuid7
from dockd.core.manifest import Manifest, encode
from dockd.core.objects import Piece
from dockd.errors import (
    OffsetConflict,
    StoreBusy,
    StoreIncomplete,
    StoreRefused,
    StoreUnreachable,
    UploadLost,
)
from dockd.model import CameraIdentity, Category, SignedBytes, VerdictStatus
from dockd.stores.axis import AxisStore
from dockd.stores.axis_probe import METADATA, joins_pieces, probe
from dockd.stores.axis_session import AxisCredentials, CredentialFile

pytestmark = pytest.mark.servers
STATION = "6f1e2d3c-0000-4000-8000-000000000001"
KIB = 1024
EXPIRED = "AUTH_tk0"
SEED = random.Random(20261121)


class MachineClock:
    """The machine's; `ahead_s` can be put forward."""

    ahead_s = 0.0

    def now(self):
        return datetime.now(UTC)

    def monotonic_s(self):
        return asyncio.get_running_loop().time() + self.ahead_s

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s)


class Sent:
    """A made-up sealed clip with its manifest."""

    def __init__(self, size, *, serial="B8A44F0A1B2C", at=None, container="mp4"):
        self.sealed = SEED.randbytes(size)
        self.acquisition = uuid7(datetime.now(UTC), SEED.randbytes(10))
        self.stated = Manifest(
            acquisition=self.acquisition,
            station=STATION,
            bay=3,
            docking=uuid7(datetime.now(UTC), SEED.randbytes(10)),
            camera=CameraIdentity(serial=serial, model="W110", volume_id="6A7F-01D2"),
            path=b"DCIM/A.MP4",
            size_bytes=size,
            mtime_ns=0,
            recorded_at=at or datetime.fromtimestamp(SEED.randrange(10**9, 2 * 10**9), UTC),
            duration_ms=60_000,
            clock_offset_ms=None,
            category=Category.NONE,
            category_reason="",
            verdict=VerdictStatus.INTACT,
            reasons=(),
            container=container,
            plaintext_digest=canonical.digest(b"plain"),
            plaintext_size_bytes=size,
            sealed_digest=canonical.digest(self.sealed),
            sealed_size_bytes=size,
            recipients=("sha256:" + "1" * 64,),
            dockd="0.1.0",
            custody_seq=7,
            nonce=SEED.randbytes(32),
        )
        self.manifest = SignedBytes(payload=encode(self.stated), signature="made up\n")

    def again(self, **changes):
        return SignedBytes(payload=encode(dataclasses.replace(self.stated, **changes)), signature="made up\n")

    async def blocks(self, offset, length, until=None):
        for at in range(offset, offset + length, 64 * KIB):
            if until is not None and at - offset >= until:
                raise ConnectionResetError("the test ends it")
            yield self.sealed[at : min(at + 64 * KIB, offset + length)]


def _store(swift, *, clock=None, credentials=None, url=None, **more):
    return AxisStore(
        name="axis",
        url=url or swift.url,
        ca_file=None,
        clock=clock or MachineClock(),
        credentials=credentials or (lambda: AxisCredentials(user=swift.user, key=swift.key)),
        station=STATION,
        insecure_loopback=True,
        **more,
    )


async def _push(store, sent, *, wanted=200 * KIB, url=None):
    url = url or await store.register(sent.acquisition, sent.manifest, len(sent.sealed))
    offset = await store.offset(url)
    while offset < len(sent.sealed):
        length = store.stretch(url, offset, min(wanted, len(sent.sealed) - offset))
        offset = await store.append(url, offset, sent.blocks(offset, length), length)
    return url


async def _whole(store, objects, piece, offset=0):
    async with aclosing(store.read(objects, piece, offset)) as blocks:
        return b"".join([block async for block in blocks])


@pytest.fixture
def operator(swift):
    return _operator(swift)


def _operator(swift):
    """Requests with the account's own rights, beside the adapter."""
    asked = urllib.request.Request(  # noqa: S310  loopback
        swift.url, headers={"X-Auth-User": swift.user, "X-Auth-Key": swift.key}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310  same
        token, url = answer.headers["X-Auth-Token"], answer.headers["X-Storage-Url"]

    def ask(method, *names, content=None, **headers):
        where = url + "".join("/" + quote(name, safe="") for name in names)
        said = {"X-Auth-Token": token, **headers}
        request = urllib.request.Request(where, method=method, data=content, headers=said)  # noqa: S310  same
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  same
            return answer.status, dict(answer.headers), answer.read()

    return ask


async def test_a_recording_is_complete_only_when_everything_is_there(swift, operator):
    store, sent = _store(swift, key_objects=True), Sent(700 * KIB)
    url = await _push(store, sent)
    container = json.loads(url)["container"]
    assert operator("HEAD", container)[1]["X-Container-Meta-Status"] == "Transferring"
    objects = await store.finish(url, sent.acquisition, sent.manifest)
    said = operator("HEAD", container)[1]
    assert said["X-Container-Meta-Status"] == "Complete"
    assert said["X-Container-Meta-Bwcserialnumber"] == "B8A44F0A1B2C"
    assert said["X-Container-Meta-Containername"] == container
    listed = operator("GET", container)[2].decode().split()
    stem = min(listed).rsplit(".", 1)[0]
    assert sorted(listed) == [f"{stem}.key", f"{stem}.manifest.json", f"{stem}.manifest.json.sig", f"{stem}.mp4"]
    assert operator("HEAD", "Devices", "B8A44F0A1B2C")[1]["X-Object-Meta-Model"] == "W110"
    user = said["X-Container-Meta-Userid"]
    assert operator("HEAD", "Users", user)[1]["X-Object-Meta-Name"] == "unassigned"
    assert operator("GET", container, f"{stem}.mp4")[2] == sent.sealed
    assert json.loads(operator("GET", container, f"{stem}.key")[2])["ContentEncryption"] == "age-encryption.org/v1"
    assert await store.finish(url, sent.acquisition, sent.manifest) == objects
    assert await store.offset(url) == len(sent.sealed)
    await store.aclose()


@pytest.mark.parametrize("size", [1000, 256 * KIB, 256 * KIB + 1, 900 * KIB])
async def test_what_is_looked_at_and_read_back_is_what_was_sent(swift, size):
    store, sent = _store(swift), Sent(size)
    url = await _push(store, sent)
    objects = await store.finish(url, sent.acquisition, sent.manifest)
    await store.aclose()
    store = _store(swift)
    seen = await store.look(objects)
    assert {piece: one.size_bytes for piece, one in seen.items()} == {
        Piece.SEALED: size,
        Piece.MANIFEST: len(sent.manifest.payload),
        Piece.SIGNATURE: len(sent.manifest.signature),
    }
    assert all(one.version and one.checksum is None and one.retention_until is None for one in seen.values())
    assert await store.look(objects) == seen
    assert await _whole(store, objects, Piece.SEALED) == sent.sealed
    assert await _whole(store, objects, Piece.SEALED, 777) == sent.sealed[777:]
    assert await _whole(store, objects, Piece.SEALED, size) == b""
    assert await _whole(store, objects, Piece.MANIFEST) == sent.manifest.payload
    assert await _whole(store, objects, Piece.SIGNATURE, 3) == sent.manifest.signature.encode()[3:]
    await store.aclose()


async def test_a_later_life_goes_on_at_the_last_whole_piece(swift):
    store, sent = _store(swift), Sent(1000 * KIB)
    url = await store.register(sent.acquisition, sent.manifest, len(sent.sealed))
    assert await store.append(url, 0, sent.blocks(0, 300 * KIB), 300 * KIB) == 300 * KIB
    with pytest.raises((StoreUnreachable, ConnectionResetError)):
        await store.append(url, 300 * KIB, sent.blocks(300 * KIB, 300 * KIB, until=128 * KIB), 300 * KIB)
    await store.aclose()
    store = _store(swift)
    assert await store.register(sent.acquisition, sent.manifest, len(sent.sealed)) == url
    assert await store.offset(url) == 300 * KIB
    with pytest.raises(OffsetConflict):
        await store.append(url, 0, sent.blocks(0, 300 * KIB), 300 * KIB)
    with pytest.raises(StoreIncomplete, match=str(700 * KIB)):
        await store.finish(url, sent.acquisition, sent.manifest)
    await _push(store, sent, url=url)
    objects = await store.finish(url, sent.acquisition, sent.manifest)
    assert await _whole(store, objects, Piece.SEALED) == sent.sealed
    await store.aclose()


async def test_p01_a_piece_that_changed_after_joining_is_seen(swift, operator):
    store, sent = _store(swift), Sent(600 * KIB)
    objects = await store.finish(await _push(store, sent), sent.acquisition, sent.manifest)
    seen = await store.look(objects)
    piece = next(name for name in operator("GET", "dockd-segments")[2].decode().split() if sent.acquisition in name)
    operator("PUT", "dockd-segments", piece, content=bytes(200 * KIB))
    with pytest.raises(UploadLost, match="pieces"):  # though the object's own description is the same as before
        await store.look(objects)
    assert seen[Piece.SEALED].size_bytes == len(sent.sealed)
    await store.aclose()


async def test_p01_an_object_that_somebody_replaced_has_another_version(swift, operator):
    store, sent = _store(swift), Sent(1000)
    objects = await store.finish(await _push(store, sent), sent.acquisition, sent.manifest)
    seen = await store.look(objects)
    record = json.loads(objects)
    operator("PUT", record["container"], record["pieces"]["sealed"]["name"], content=sent.sealed)  # the same bytes
    assert (await store.look(objects))[Piece.SEALED].version != seen[Piece.SEALED].version
    operator("DELETE", record["container"], record["pieces"]["signature"]["name"])
    with pytest.raises(UploadLost):
        await store.look(objects)
    await store.aclose()


async def test_two_recordings_of_one_second_do_not_share_a_container(swift):
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    store, sents = _store(swift), [Sent(1000, at=moment) for _ in range(3)]
    urls = await asyncio.gather(*(store.register(one.acquisition, one.manifest, 1000) for one in sents))
    assert len({json.loads(url)["container"] for url in urls}) == 3
    for one, url in zip(sents, urls, strict=True):
        await _push(store, one, url=url)
        objects = await store.finish(url, one.acquisition, one.manifest)
        assert await _whole(store, objects, Piece.SEALED) == one.sealed
    await store.aclose()


async def test_another_manifest_for_the_same_acquisition_is_refused(swift):
    store, sent = _store(swift), Sent(1000)
    await store.register(sent.acquisition, sent.manifest, 1000)
    with pytest.raises(StoreRefused, match="another manifest"):
        await store.register(sent.acquisition, sent.again(bay=4), 1000)
    await store.aclose()


async def test_another_object_under_the_name_is_never_overwritten(swift, operator):
    store, sent = _store(swift), Sent(1000)
    url = await _push(store, sent)
    container = json.loads(url)["container"]
    name = json.loads(url)["name"].replace(".mp4", ".manifest.json")
    operator("PUT", container, name, content=b"somebody else's")
    with pytest.raises(StoreRefused, match="another object"):
        await store.finish(url, sent.acquisition, sent.manifest)
    assert operator("GET", container, name)[2] == b"somebody else's"
    assert operator("HEAD", container)[1]["X-Container-Meta-Status"] == "Transferring"
    await store.aclose()


async def test_a_token_that_ended_is_renewed_once_also_mid_clip(swift):
    given = []

    def credentials():
        given.append(1)
        return AxisCredentials(user=swift.user, key=swift.key)

    clock = MachineClock()
    store, sent = _store(swift, credentials=credentials, clock=clock), Sent(600 * KIB)
    url = await store.register(sent.acquisition, sent.manifest, len(sent.sealed))
    store.account._opened = dataclasses.replace(store.account._opened, token=EXPIRED)
    with pytest.raises(OffsetConflict, match="token"):
        await store.append(url, 0, sent.blocks(0, 300 * KIB), 300 * KIB)
    assert await store.offset(url) == 0
    store.account._opened = dataclasses.replace(store.account._opened, token=EXPIRED)
    await _push(store, sent, url=url)
    clock.ahead_s = 86_000.0  # most of its day is over
    objects = await store.finish(url, sent.acquisition, sent.manifest)
    assert len(given) == 4
    store.account._opened = dataclasses.replace(store.account._opened, token=EXPIRED)
    assert await _whole(store, objects, Piece.SEALED) == sent.sealed
    await store.aclose()


async def test_wrong_credentials_hold_and_condemn_nothing(swift, tmp_path):
    file = tmp_path / "connection.json"
    file.write_text(json.dumps({"BlobAPIUserName": swift.user, "BlobAPIKey": "wrong"}))
    store, sent = _store(swift, credentials=CredentialFile(file)), Sent(1000)
    with pytest.raises(StoreUnreachable, match="credentials_file"):
        await store.register(sent.acquisition, sent.manifest, 1000)
    file.write_text(json.dumps({"BlobAPIUserName": swift.user, "BlobAPIKey": swift.key}))
    await _push(store, sent)
    file.write_text("{")
    with pytest.raises(StoreUnreachable, match="BlobAPIKey"):
        await _store(swift, credentials=CredentialFile(file)).register(sent.acquisition, sent.manifest, 1000)
    await store.aclose()


async def test_an_abandoned_upload_leaves_nothing_and_a_finished_one_everything(swift, operator):
    store, sent, kept = _store(swift), Sent(900 * KIB), Sent(900 * KIB)
    url = await store.register(sent.acquisition, sent.manifest, len(sent.sealed))
    await store.append(url, 0, sent.blocks(0, 300 * KIB), 300 * KIB)
    await store.abandon(url)
    await store.abandon(url)
    assert sent.acquisition not in operator("GET", "dockd-segments")[2].decode()
    with pytest.raises(UploadLost):
        await store.offset(url)
    url = await _push(store, kept)
    objects = await store.finish(url, kept.acquisition, kept.manifest)
    await store.abandon(url)
    assert await _whole(store, objects, Piece.SEALED) == kept.sealed
    await store.aclose()


async def test_a_clip_that_an_operator_removed_is_lost(swift, operator):
    store, sent = _store(swift), Sent(1000)
    url = await store.register(sent.acquisition, sent.manifest, 1000)
    operator("DELETE", json.loads(url)["container"])
    with pytest.raises(UploadLost):
        await store.offset(url)
    with pytest.raises(UploadLost):
        await store.append(url, 0, sent.blocks(0, 1000), 1000)
    with pytest.raises(UploadLost):
        await store.finish(url, sent.acquisition, sent.manifest)
    assert await store.register(sent.acquisition, sent.manifest, 1000) == url
    await _push(store, sent, url=url)
    await store.aclose()


async def test_a_store_without_large_objects_takes_a_clip_in_one_put(plain_swift):
    store, sent = _store(plain_swift), Sent(900 * KIB)
    url = await store.register(sent.acquisition, sent.manifest, len(sent.sealed))
    assert store.stretch(url, 0, 64 * KIB) == len(sent.sealed)
    with pytest.raises((StoreUnreachable, ConnectionResetError)):
        await store.append(url, 0, sent.blocks(0, len(sent.sealed), until=300 * KIB), len(sent.sealed))
    assert await store.offset(url) == 0
    await _push(store, sent, url=url)
    assert await store.offset(url) == len(sent.sealed)
    objects = await store.finish(url, sent.acquisition, sent.manifest)
    assert await _whole(store, objects, Piece.SEALED) == sent.sealed
    await store.aclose()


async def test_a_full_disk_holds_what_cannot_be_stored(full_swift):
    store, sent = _store(full_swift), Sent(1000)
    with pytest.raises(StoreBusy):
        await _push(store, sent)
    await store.aclose()


@contextlib.asynccontextmanager
async def _flipping(port, marker):
    """A way to `port` on which the first byte after `marker` is another one, once."""
    state, carried = {"left": 1}, []

    async def carry(reader, writer, *, flip):
        with contextlib.suppress(OSError):
            while piece := await reader.read(64 * KIB):
                at = piece.find(marker) + len(marker)
                if flip and state["left"] and marker in piece and at < len(piece):
                    state["left"] -= 1
                    piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
                writer.write(piece)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def serve(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", port)
        carried.append(asyncio.create_task(carry(reader, back, flip=True)))
        carried.append(asyncio.create_task(carry(there, writer, flip=False)))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], state
    await asyncio.gather(*carried)


@pytest.mark.parametrize("size", [1000, 600 * KIB])
async def test_damage_on_the_way_is_dropped_at_once(swift, size):
    sent = Sent(size)
    async with _flipping(swift.port, sent.sealed[:32]) as (port, state):
        store = _store(swift, url=f"http://127.0.0.1:{port}/auth/v1.0")
        url = await store.register(sent.acquisition, sent.manifest, size)
        length = store.stretch(url, 0, min(size, 300 * KIB))
        with pytest.raises(OffsetConflict, match="damaged"):
            await store.append(url, 0, sent.blocks(0, length), length)
        assert state["left"] == 0
        assert await store.offset(url) == 0
        objects = await store.finish(await _push(store, sent, url=url), sent.acquisition, sent.manifest)
        assert await _whole(store, objects, Piece.SEALED) == sent.sealed
        await store.aclose()


async def test_the_probe_names_what_a_swift_does_and_leaves_nothing(swift, operator):
    store = _store(swift)
    found = {one.question: one for one in await probe(store, random=SEED.randbytes)}
    answers = {question: one.answer for question, one in found.items()}
    assert answers == {
        METADATA: Answer.YES,
        Question.OVERWRITE: Answer.YES,
        Question.WRONG_CHECKSUM: Answer.YES,
        Question.CHECKSUM_BACK: Answer.NO,
        Question.READ_BACK: Answer.YES,
        Question.RESUME: Answer.YES,
        Question.LOCKED: Answer.NO,
    }
    assert not any(one.broken_claim for one in found.values())
    assert joins_pieces(tuple(found.values())) is None
    assert b"dockd-probe" not in operator("GET")[2]
    assert b"dockd-probe" not in operator("GET", "dockd-segments")[2]
    await store.aclose()


async def test_the_probe_of_a_store_without_large_objects_says_what_an_interruption_costs(plain_swift):
    store = _store(plain_swift)
    findings = await probe(store, random=SEED.randbytes)
    found = {one.question: one for one in findings}[Question.RESUME]
    assert (found.answer, found.claimed) == (Answer.NO, False)
    assert "all of it" in found.detail
    assert joins_pieces(findings) is False
    await store.aclose()


async def test_a_store_that_gives_no_token_leaves_every_question_open(swift):
    store = _store(swift, credentials=lambda: AxisCredentials(user=swift.user, key="wrong"))
    assert {one.answer for one in await probe(store, random=SEED.randbytes)} == {Answer.UNKNOWN}
    await store.aclose()
