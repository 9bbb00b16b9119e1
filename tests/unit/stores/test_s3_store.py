"""The S3 adapter against answers made by hand: what is lost, doubtful, or said by somebody else."""

import asyncio
import hashlib
import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from servers.scripted import scripted

from dockd.core import canonical, manifest
from dockd.core.findings import Answer
from dockd.core.manifest import Manifest
from dockd.core.objects import Algorithm, Checksum, Piece
from dockd.errors import (
    ConfigError,
    OffsetConflict,
    StoreBusy,
    StoreIncomplete,
    StoreRefused,
    StoreUnreachable,
    UploadCorrupt,
    UploadLost,
)
from dockd.model import CameraIdentity, Category, SignedBytes, VerdictStatus
from dockd.stores import s3_lifecycle
from dockd.stores.credentials import Credentials, EnvironmentCredentials
from dockd.stores.s3 import S3Store
from dockd.stores.s3_parts import composite
from dockd.stores.s3_records import MARK, Believed, Lock, LockMode

NOW = datetime(2026, 2, 1, 7, 30, tzinfo=UTC)
STATION = "6f1e2d3c-0000-4000-8000-000000000001"
ACQUISITION = "019c16f2-0000-7000-8000-000000000003"
BASE = f"/evidence/docks/{STATION}/{ACQUISITION}"
CLIP = f"{BASE}/clip.age"
PART = 5 << 20
SIZE = PART + 100
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
NO_KEY = b"<Error><Code>NoSuchKey</Code></Error>"
NO_UPLOAD = b"<Error><Code>NoSuchUpload</Code></Error>"
CREATED = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
NO_UPLOADS = "<ListMultipartUploadsResult></ListMultipartUploadsResult>"
COMPLETED = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"


class StillClock:
    def now(self):
        return NOW

    def monotonic_s(self):
        return 0.0

    async def sleep(self, delay_s):
        raise AssertionError("the adapter does not wait by itself")


def stated(category=Category.EVIDENCE):
    payload = manifest.encode(
        Manifest(
            acquisition=ACQUISITION,
            station=STATION,
            bay=1,
            docking="019c16f2-0000-7000-8000-000000000004",
            camera=CameraIdentity(serial="BC-17", model="M1", volume_id="6A7F-01D2"),
            path=b"DCIM/A.MP4",
            size_bytes=1000,
            mtime_ns=1_769_903_999_123_456_789,
            recorded_at=None,
            duration_ms=None,
            clock_offset_ms=None,
            category=category,
            category_reason="",
            verdict=VerdictStatus.INTACT,
            reasons=(),
            container="mp4",
            plaintext_digest=canonical.digest(b"plain"),
            plaintext_size_bytes=1000,
            sealed_digest=canonical.digest(b"sealed"),
            sealed_size_bytes=SIZE,
            recipients=("sha256:" + "1" * 64,),
            dockd="0.1.0",
            custody_seq=7,
            nonce=b"\x01" * 32,
        )
    )
    return SignedBytes(payload=payload, signature="signature\n")


MANIFEST = stated()
MARKED = {MARK: canonical.digest(MANIFEST.payload), "ETag": '"whole-2"'}


def made(server, **changes):
    wanted = {
        "name": "evidence",
        "url": server.url,
        "bucket": "evidence",
        "region": "eu-west-1",
        "station": STATION,
        "credentials": EnvironmentCredentials(KEYS),
        "clock": StillClock(),
        "prefix": "docks",
        "part_bytes": PART,
        "believed": Believed(checksum=True, parts_listed=True, put_if_absent=True, complete_if_absent=True),
        "insecure_loopback": True,
    }
    return S3Store(**(wanted | changes))


@pytest.fixture
async def server():
    async with scripted(NO_KEY) as running:
        yield running


@pytest.fixture
async def store(server):
    made_store = made(server)
    yield made_store
    await made_store.aclose()


def listed(*parts):
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><Size>{size}</Size>"
        + (f"<ChecksumSHA256>{b64encode(digest).decode()}</ChecksumSHA256>" if digest else "")
        + "</Part>"
        for number, etag, size, digest in parts
    )
    return f"<ListPartsResult><IsTruncated>false</IsTruncated>{rows}</ListPartsResult>"


WHOLE = listed((1, "e1", PART, bytes(32)), (2, "e2", 100, bytes(32)))
CONTENT = bytes(range(250)) * (SIZE // 250 + 1)


async def blocks(offset, length):
    yield CONTENT[offset : offset + length // 2]
    yield CONTENT[offset + length // 2 : offset + length]


async def registered(server, store):
    server.on("GET", "uploads=", 200, NO_UPLOADS)
    server.on("POST", "uploads=", 200, CREATED)
    return await store.register(ACQUISITION, MANIFEST, SIZE)


# --- register


async def test_an_upload_is_made_where_nothing_stands_yet(server, store):
    text = await registered(server, store)
    assert json.loads(text)["upload"] == "u1"
    (created,) = server.asked("POST", "uploads")
    assert created.path == CLIP
    assert created.headers[MARK] == canonical.digest(MANIFEST.payload)
    assert created.headers["x-amz-checksum-algorithm"] == "SHA256"
    assert created.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/20260201/eu-west-1/s3/")


async def test_an_upload_that_no_journal_knows_is_gone_on_with_and_others_of_its_key_are_aborted(server, store):
    uploads = "".join(
        f"<Upload><Key>{key}</Key><UploadId>{one}</UploadId><Initiated>2026-01-0{day}T00:00:00Z</Initiated></Upload>"
        for key, one, day in (
            (CLIP.removeprefix("/evidence/"), "newer", 2),
            (CLIP.removeprefix("/evidence/"), "older", 1),
            (CLIP.removeprefix("/evidence/") + ".other", "foreign", 3),
        )
    )
    server.on("GET", "uploads=", 200, f"<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>")
    server.on("DELETE", "uploadId=newer", 204)
    text = await store.register(ACQUISITION, MANIFEST, SIZE)
    assert json.loads(text)["upload"] == "older"
    assert [one.query["uploadId"] for one in server.asked("DELETE")] == ["newer"]
    assert not server.asked("POST")


async def test_an_upload_that_was_finished_before_is_not_made_again(server, store):
    server.on("HEAD", CLIP, 200, headers={**MARKED, "Content-Length": str(SIZE)}, times=2)
    text = await store.register(ACQUISITION, MANIFEST, SIZE)
    assert await store.offset(text) == SIZE
    assert not server.asked("POST")


async def test_another_object_under_the_name_is_refused(server, store):
    server.on("HEAD", CLIP, 200, headers={"ETag": '"x"', "Content-Length": str(SIZE)})
    with pytest.raises(StoreRefused, match="nothing is overwritten"):
        await store.register(ACQUISITION, MANIFEST, SIZE)


async def test_without_a_way_to_know_old_parts_no_checksums_are_asked_for(server):
    store = made(server, believed=Believed(checksum=True))
    await registered(server, store)
    assert "x-amz-checksum-algorithm" not in server.asked("POST", "uploads")[0].headers
    await store.aclose()


# --- parts


async def test_a_part_goes_with_its_checksum_and_its_signed_digest(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, listed())
    server.on("PUT", "partNumber=1", 200, headers={"ETag": '"e1"'})
    assert store.stretch(text, 0, 1 << 30) == PART
    assert await store.append(text, 0, blocks(0, PART), PART) == PART
    (put,) = server.asked("PUT")
    digest = hashlib.sha256(CONTENT[:PART]).digest()
    assert put.body == CONTENT[:PART]
    assert put.headers["x-amz-checksum-sha256"] == b64encode(digest).decode()
    assert put.headers["x-amz-content-sha256"] == digest.hex()
    assert store.stretch(text, PART, 1 << 30) == 100


async def test_a_part_that_the_store_lists_otherwise_than_it_was_sent_is_sent_again(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, listed())
    server.on("PUT", "partNumber=1", 200, headers={"ETag": '"e1"'})
    await store.append(text, 0, blocks(0, PART), PART)
    server.on("GET", "uploadId=u1", 200, listed((1, "e1", PART, b"\xff" * 32)))
    assert await store.offset(text) == 0


async def test_another_life_goes_on_behind_the_parts_without_a_gap(server, store):
    text = await registered(server, store)
    later = made(server)
    server.on("GET", "uploadId=u1", 200, listed((1, "e1", PART, None), (2, "e2", 99, None)), times=2)
    assert await later.offset(text) == PART  # the second part is too short
    with pytest.raises(OffsetConflict):
        await later.append(text, 0, blocks(0, PART), PART)
    server.on("PUT", "partNumber=2", 200, headers={"ETag": '"e2"'})
    assert await later.append(text, PART, blocks(PART, 100), 100) == SIZE
    await later.aclose()


async def test_parts_come_in_pages(server, store):
    text = await registered(server, store)
    first = listed((1, "e1", PART, None)).replace(
        "<IsTruncated>false", "<NextPartNumberMarker>1</NextPartNumberMarker><IsTruncated>true"
    )
    server.on("GET", "part-number-marker=1", 200, listed((2, "e2", 100, None)))
    server.on("GET", "uploadId=u1", 200, first)
    assert await store.offset(text) == SIZE


@pytest.mark.parametrize("step", [0, 1, -1], ids=["stands", "grows", "goes back"])
async def test_p10_a_listing_of_parts_ends_whatever_its_markers_say(server, store, step):
    text = await registered(server, store)
    for marker in range(1000, 2000):
        page = listed((1, "e1", PART, None)).replace(
            "<IsTruncated>false",
            f"<NextPartNumberMarker>{1500 + step * marker}</NextPartNumberMarker><IsTruncated>true",
        )
        server.on("GET", "uploadId=u1", 200, page)
    if step:
        with pytest.raises(StoreUnreachable, match="listing"):
            await store.offset(text)
    else:
        assert await store.offset(text) == PART
    assert len(server.asked("GET", "max-parts")) <= (250 if step > 0 else 2)


@pytest.mark.parametrize("step", [0, 1, -1], ids=["stands", "grows", "goes back"])
async def test_p10_a_listing_of_uploads_ends_whatever_its_markers_say(server, store, step):
    for number in range(1000):
        server.on(
            "GET",
            "uploads",
            200,
            f"<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k{2000 + step * number}"
            "</NextKeyMarker></ListMultipartUploadsResult>",
        )

    async def wanted(_):
        return True

    if step:
        with pytest.raises(StoreUnreachable, match="listing"):
            await store.clear_orphans(wanted)
    else:
        assert await store.clear_orphans(wanted) == ()
    assert len(server.asked("GET", "uploads")) <= (250 if step > 0 else 2)


@pytest.mark.parametrize(("offset", "length"), [(0, 5), (5, PART), (PART, PART), (SIZE, 1)])
async def test_what_is_no_part_is_no_place_to_go_on(server, store, offset, length):
    text = await registered(server, store)
    with pytest.raises(OffsetConflict):
        await store.append(text, offset, blocks(offset, length), length)
    assert not server.asked("PUT")


async def test_a_part_damaged_on_its_way_is_sent_again(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, listed(), times=2)
    server.on("PUT", "partNumber=1", 400, "<Error><Code>BadDigest</Code></Error>")
    with pytest.raises(OffsetConflict, match="BadDigest"):
        await store.append(text, 0, blocks(0, PART), PART)
    assert await store.offset(text) == 0


async def test_an_upload_that_is_gone(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 404, NO_UPLOAD, times=2)
    with pytest.raises(UploadLost):
        await store.offset(text)
    with pytest.raises(UploadLost):
        await store.append(text, 0, blocks(0, PART), PART)


@pytest.mark.parametrize("text", ["", "https://elsewhere/uploads/1", "[]", '{"base": 1}', "{" * 10_000])
async def test_what_the_journal_has_of_another_store_is_no_upload(store, text):
    with pytest.raises(UploadLost):
        await store.offset(text)
    with pytest.raises(UploadLost):
        await store.look(text)


# --- finish


async def finishing(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, WHOLE)
    server.on("PUT", f"{BASE}/manifest.json.sig", 200)
    server.on("PUT", f"{BASE}/manifest.json", 200)
    return text


async def test_finishing_puts_the_manifest_first_and_overwrites_nothing(server, store):
    text = await finishing(server, store)
    server.on("POST", "uploadId=u1", 200, COMPLETED)
    await store.finish(text, ACQUISITION, MANIFEST)
    written = [one for one in server.seen if one.method in ("PUT", "POST") and "uploads" not in one.query]
    assert [one.path.rpartition("/")[2] for one in written] == ["manifest.json", "manifest.json.sig", "clip.age"]
    assert all(one.headers["if-none-match"] == "*" for one in written)
    assert written[0].body == MANIFEST.payload
    assert written[2].body.count(b"<ChecksumSHA256>") == 2


async def test_missing_parts_are_said_before_anything_is_put(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, listed((1, "e1", PART, None)))
    with pytest.raises(StoreIncomplete):
        await store.finish(text, ACQUISITION, MANIFEST)
    assert not server.asked("PUT")


async def test_a_completion_whose_answer_was_lost(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 404, NO_UPLOAD)
    server.on("HEAD", CLIP, 200, headers={**MARKED, "Content-Length": str(SIZE)})
    server.on("PUT", f"{BASE}/manifest.json", 412, times=2)
    server.on("GET", f"{BASE}/manifest.json.sig", 200, MANIFEST.signature)
    server.on("GET", f"{BASE}/manifest.json", 200, MANIFEST.payload)
    objects = await store.finish(text, ACQUISITION, MANIFEST)
    assert json.loads(objects)["sizes"]["sealed"] == SIZE
    assert not [one for one in server.asked("POST") if "uploadId" in one.query]


async def test_a_success_that_is_an_error_is_an_error(server, store):
    text = await finishing(server, store)
    server.on("POST", "uploadId=u1", 200, "\n\n<Error><Code>InternalError</Code><Message>try again</Message></Error>")
    with pytest.raises(StoreBusy, match="InternalError"):
        await store.finish(text, ACQUISITION, MANIFEST)


async def test_a_race_for_the_name_that_another_object_won(server, store):
    text = await finishing(server, store)
    server.on("POST", "uploadId=u1", 412, "<Error><Code>PreconditionFailed</Code></Error>")
    server.on("HEAD", CLIP, 200, headers={"ETag": '"x"', "Content-Length": "5"})
    with pytest.raises(StoreRefused, match="nothing is overwritten"):
        await store.finish(text, ACQUISITION, MANIFEST)


async def test_another_manifest_under_the_name(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, WHOLE)
    server.on("PUT", f"{BASE}/manifest.json", 412)
    server.on("GET", f"{BASE}/manifest.json", 200, b"another")
    with pytest.raises(StoreRefused, match="nothing is overwritten"):
        await store.finish(text, ACQUISITION, MANIFEST)


async def test_parts_that_the_store_does_not_take_are_given_up(server, store):
    text = await finishing(server, store)
    server.on("POST", "uploadId=u1", 400, "<Error><Code>InvalidPart</Code></Error>")
    server.on("DELETE", "uploadId=u1", 204)
    with pytest.raises(UploadCorrupt, match="InvalidPart"):
        await store.finish(text, ACQUISITION, MANIFEST)
    assert server.asked("DELETE")


async def test_where_the_store_does_not_hold_conditions_it_is_looked_first(server):
    store = made(server, believed=Believed(parts_listed=True))
    text = await finishing(server, store)
    server.on("POST", "uploadId=u1", 200, COMPLETED)
    await store.finish(text, ACQUISITION, MANIFEST)
    first = {one.path.rpartition("/")[2]: one.method for one in reversed(server.seen) if not one.query}
    assert first["manifest.json"] == first["manifest.json.sig"] == "GET"
    assert first["clip.age"] == "HEAD"
    await store.aclose()


async def test_checksums_that_nobody_knows_any_more_come_from_the_spool(server):
    digests = [hashlib.sha256(CONTENT[:PART]).digest(), hashlib.sha256(CONTENT[PART:SIZE]).digest()]
    asked = []

    async def from_spool(acquisition, part_bytes):
        asked.append((acquisition, part_bytes))
        return digests

    store = made(server, believed=Believed(checksum=True, put_if_absent=True), part_digests=from_spool)
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, listed((1, "e1", PART, None), (2, "e2", 100, None)))
    server.on("PUT", f"{BASE}/manifest.json", 200, times=2)
    server.on("POST", "uploadId=u1", 200, COMPLETED)
    await store.finish(text, ACQUISITION, MANIFEST)
    assert asked == [(ACQUISITION, PART)]
    body = next(one for one in server.asked("POST") if "uploadId" in one.query).body.decode()
    assert all(b64encode(digest).decode() in body for digest in digests)
    await store.aclose()


# --- locks

LOCK = Lock(days={Category.EVIDENCE: 30})
UNTIL = "2026-03-05T00:00:00Z"


def retained(mode, until):
    return f"<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"


async def test_a_lock_is_asked_for_at_creation_and_set_again_where_it_was_dropped(server):
    store = made(server, lock=LOCK)
    text = await finishing(server, store)
    created = server.asked("POST", "uploads")[0].headers
    assert created["x-amz-object-lock-mode"] == "COMPLIANCE"
    assert created["x-amz-object-lock-retain-until-date"] == "2026-03-05T00:00:00Z"
    assert created["x-amz-object-lock-legal-hold"] == "ON"
    server.on("POST", "uploadId=u1", 200, COMPLETED)
    server.on("GET", "clip.age?retention", 404, "<Error><Code>NoSuchObjectLockConfiguration</Code></Error>")
    server.on("GET", "?retention", 200, retained("COMPLIANCE", UNTIL), times=2)
    server.on("GET", "?legal-hold", 200, "<LegalHold><Status>OFF</Status></LegalHold>", times=3)
    server.on("PUT", "clip.age?retention", 200)
    server.on("PUT", "?legal-hold", 200, times=3)
    await store.finish(text, ACQUISITION, MANIFEST)
    (put,) = server.asked("PUT", "retention")
    assert UNTIL.encode() in put.body
    assert put.headers["content-md5"]
    assert len(server.asked("PUT", "legal-hold")) == 3
    await store.aclose()


async def test_a_category_without_days_is_not_retained(server):
    store = made(server, lock=LOCK)
    server.on("GET", "uploads=", 200, NO_UPLOADS)
    server.on("POST", "uploads=", 200, CREATED)
    await store.register(ACQUISITION, stated(Category.NONE), SIZE)
    assert not [name for name in server.asked("POST")[0].headers if "lock" in name]
    await store.aclose()


@pytest.mark.parametrize("days", [1, 30, 365])
@pytest.mark.parametrize("hour", [0, 12, 23])
def test_a_retention_is_a_day_longer_than_asked_for_and_the_same_all_day(days, hour):
    lock = Lock(days={Category.EVIDENCE: days})
    now = NOW.replace(hour=hour, minute=59, second=59)
    until = lock.until(Category.EVIDENCE, now)
    assert timedelta(days=days + 1) <= until - now <= timedelta(days=days + 2)
    assert until == lock.until(Category.EVIDENCE, now.replace(hour=1))


@pytest.mark.parametrize(
    ("mode", "stands", "believes", "counts"),
    [
        (LockMode.COMPLIANCE, "COMPLIANCE", True, True),
        (LockMode.COMPLIANCE, "GOVERNANCE", True, False),  # weaker than asked for
        (LockMode.GOVERNANCE, "COMPLIANCE", True, True),
        (LockMode.GOVERNANCE, "GOVERNANCE", True, True),
        (LockMode.COMPLIANCE, "COMPLIANCE", False, False),  # nobody saw it hold
    ],
)
async def test_only_a_lock_that_was_tried_and_is_as_strict_counts(server, mode, stands, believes, counts):
    lock = Lock(mode=mode, days={Category.EVIDENCE: 30})
    store = made(server, lock=lock, believed=Believed(locks=believes))
    head = {"ETag": '"e"', "Content-Length": "5", "x-amz-version-id": "v7"}
    server.on("HEAD", BASE, 200, headers=head, times=3)
    server.on("GET", "?retention=&versionId=v7", 200, retained(stands, UNTIL), times=3)
    server.on("GET", "?legal-hold=&versionId=v7", 200, "<LegalHold><Status>ON</Status></LegalHold>", times=3)
    found = await store.look(OBJECTS)
    assert {state.retention_until for state in found.values()} == {datetime(2026, 3, 5, tzinfo=UTC) if counts else None}
    assert {state.version for state in found.values()} == {"v7"}
    await store.aclose()


async def test_a_lock_is_prolonged_for_the_objects_alone_whose_lock_ends_too_early(server):
    store = made(server, lock=LOCK, believed=Believed(locks=True))
    server.on("GET", "clip.age?retention", 200, retained("COMPLIANCE", "2026-02-02T00:00:00Z"))
    server.on("GET", "manifest.json.sig?retention", 200, retained("COMPLIANCE", UNTIL))
    server.on("GET", "manifest.json?retention", 404, "<Error><Code>NoSuchObjectLockConfiguration</Code></Error>")
    server.on("PUT", "?retention", 200, times=2)
    assert await store.retain(OBJECTS, datetime(2026, 3, 5, tzinfo=UTC))
    put = server.asked("PUT", "retention")
    assert {one.path for one in put} == {CLIP, f"{BASE}/manifest.json"}
    assert all(UNTIL.encode() in one.body and b"COMPLIANCE" in one.body for one in put)
    await store.aclose()


@pytest.mark.parametrize(("lock", "locks"), [(None, True), (LOCK, False)])
async def test_nothing_is_prolonged_where_no_lock_is_wanted_or_none_was_seen_to_hold(server, lock, locks):
    store = made(server, lock=lock, believed=Believed(locks=locks))
    assert not await store.retain(OBJECTS, datetime(2026, 3, 5, tzinfo=UTC))
    assert not server.seen
    await store.aclose()


# --- look and read

OBJECTS = json.dumps(
    {"base": BASE.removeprefix("/evidence/"), "part": PART, "sizes": {"sealed": SIZE, "manifest": 5, "signature": 5}}
)
DIGEST = hashlib.sha256(b"hello").digest()
COMPOSITE = composite([DIGEST, DIGEST])


async def look(server, store, sealed, small):
    for name, length, more in (
        ("clip.age", SIZE, sealed),
        ("manifest.json.sig", 5, small),
        ("manifest.json", 5, small),
    ):
        server.on("HEAD", f"{BASE}/{name}", 200, headers={"ETag": '"e"', "Content-Length": str(length), **more})
    return await store.look(OBJECTS)


async def test_checksums_of_both_kinds(server, store):
    found = await look(
        server,
        store,
        {"x-amz-checksum-sha256": f"{b64encode(COMPOSITE).decode()}-2", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-sha256": b64encode(DIGEST).decode()},
    )
    parts = Checksum(algorithm=Algorithm.SHA256_OF_PARTS, digest=COMPOSITE, part_bytes=PART)
    assert found[Piece.SEALED].checksum == parts
    assert found[Piece.MANIFEST].checksum == Checksum(algorithm=Algorithm.SHA256, digest=DIGEST)
    assert found[Piece.SEALED].size_bytes == SIZE


@pytest.mark.parametrize(
    "sealed",
    [
        {},
        {"x-amz-checksum-sha256": b64encode(COMPOSITE).decode()},  # of what?
        {"x-amz-checksum-sha256": f"{b64encode(COMPOSITE).decode()}-3"},  # of other parts than ours
        {"x-amz-checksum-sha256": f"{b64encode(COMPOSITE[:20]).decode()}-2"},
        {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="},
    ],
)
async def test_a_checksum_that_cannot_be_compared_is_none(server, store, sealed):
    found = await look(server, store, sealed, {"x-amz-checksum-sha256": f"{b64encode(DIGEST).decode()}-1"})
    assert {state.checksum for state in found.values()} == {None}


async def test_no_checksum_is_believed_that_was_not_tried(server):
    store = made(server, believed=Believed())
    found = await look(
        server,
        store,
        {"x-amz-checksum-sha256": f"{b64encode(COMPOSITE).decode()}-2"},
        {"x-amz-checksum-sha256": b64encode(DIGEST).decode()},
    )
    assert {state.checksum for state in found.values()} == {None}
    await store.aclose()


async def read(store, offset):
    return b"".join([block async for block in store.read(OBJECTS, Piece.MANIFEST, offset)])


async def test_reading_from_an_offset(server, store):
    server.on("GET", "manifest.json", 206, b"llo", headers={"Content-Range": "bytes 2-4/5"})
    assert await read(store, 2) == b"llo"
    assert server.seen[0].headers["range"] == "bytes=2-"
    assert store.gives_ranges
    server.on("GET", "manifest.json", 200, b"hello")  # ranges are optional in HTTP
    assert await read(store, 2) == b"llo"
    assert not store.gives_ranges
    assert await read(store, 5) == b""


async def test_another_range_than_the_one_asked_for(server, store):
    server.on("GET", "manifest.json", 206, b"hel", headers={"Content-Range": "bytes 0-2/5"})
    with pytest.raises(StoreUnreachable, match="another range"):
        await read(store, 2)


async def test_reading_what_is_not_there(store):
    with pytest.raises(UploadLost):
        await read(store, 0)


# --- what goes wrong for all clips


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((404, "<Error><Code>NoSuchBucket</Code></Error>", {}), StoreUnreachable, "bucket does not exist"),
        ((403, "<Error><Code>AccessDenied</Code></Error>", {}), StoreUnreachable, "no permission"),
        ((403, "<Error><Code>RequestTimeTooSkewed</Code></Error>", {}), StoreUnreachable, "set the station's time"),
        ((301, "", {"x-amz-bucket-region": "eu-north-1"}), StoreUnreachable, "in region eu-north-1"),
        (
            (400, "<Error><Code>AuthorizationHeaderMalformed</Code><Region>us-west-2</Region></Error>", {}),
            StoreUnreachable,
            "in region us-west-2",
        ),
        ((307, "<Error><Code>TemporaryRedirect</Code></Error>", {}), StoreUnreachable, "redirects are not followed"),
        ((503, "<Error><Code>SlowDown</Code></Error>", {"Retry-After": "7"}), StoreBusy, "SlowDown"),
        ((503, "busy", {}), StoreBusy, "503"),
        ((403, "<Error><Code>QuotaExceeded</Code></Error>", {}), StoreBusy, "quota"),
        ((413, "<html>too large</html>", {}), StoreUnreachable, "client_max_body_size"),
        ((404, "<html>Log in</html>", {"x-amz-request-id": ""}), StoreUnreachable, "404"),
        ((502, "<html>Bad gateway</html>", {}), StoreUnreachable, "502"),
        ((500, "<Error><Code>WhoKnows</Code></Error>", {}), StoreBusy, "WhoKnows"),
    ],
)
async def test_no_answer_about_the_store_condemns_a_clip(server, store, answer, error, words):
    status, body, headers = answer
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", status, body, headers=headers)
    with pytest.raises(error, match=words) as caught:
        await store.offset(text)
    if "Retry-After" in headers:
        assert caught.value.retry_after_s == 7


async def test_a_proxys_404_is_not_the_stores(server, store):
    server.on("HEAD", CLIP, 404, headers={"x-amz-request-id": "", "Content-Type": "text/html"})
    server.on("GET", CLIP, 404, "<html>nothing here</html>", headers={"x-amz-request-id": ""})
    with pytest.raises(StoreUnreachable):
        await store.register(ACQUISITION, MANIFEST, SIZE)


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
async def test_keys_that_changed_mid_clip_are_taken_up_and_the_part_sent_once_more(server, code):
    environment = dict(KEYS)
    store = made(server, credentials=EnvironmentCredentials(environment))
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, listed())
    assert await store.offset(text) == 0
    environment |= {"AWS_ACCESS_KEY_ID": "NEW", "AWS_SESSION_TOKEN": "token"}

    class Stale:
        """Gives the old keys until they are refused."""

        def __init__(self):
            self.fresh = EnvironmentCredentials(environment)
            self.refused = 0

        async def current(self):
            return Credentials(access_key="AKID", secret_key="secret")  # noqa: S106

        async def renewed(self, refused):
            self.refused += 1
            return await self.fresh.current()

    await store.aclose()
    source = Stale()
    store = made(server, credentials=source)
    server.on("GET", "uploadId=u1", 200, listed())
    server.on("PUT", "partNumber=1", 400, f"<Error><Code>{code}</Code></Error>")
    server.on("PUT", "partNumber=1", 200, headers={"ETag": '"e1"'})
    assert await store.append(text, 0, blocks(0, PART), PART) == PART
    first, second = server.asked("PUT")
    assert "Credential=AKID/" in first.headers["authorization"]
    assert "Credential=NEW/" in second.headers["authorization"]
    assert second.headers["x-amz-security-token"] == "token"
    assert first.body == second.body
    assert source.refused == 1
    await store.aclose()


async def test_keys_that_nobody_renewed_are_not_tried_twice(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 400, "<Error><Code>ExpiredToken</Code></Error>", times=5)
    with pytest.raises(StoreUnreachable, match="expired"):
        await store.offset(text)
    assert len(server.asked("GET", "uploadId")) == 1


async def test_a_head_cannot_say_why_so_the_keys_are_renewed_first(server, store):
    server.on("HEAD", CLIP, 403)
    with pytest.raises(StoreUnreachable, match="permission"):
        await store.register(ACQUISITION, MANIFEST, SIZE)


# --- orphans


async def test_only_this_stations_unwanted_uploads_are_aborted(server, store):
    base = CLIP.removeprefix("/evidence/")
    other = base.replace(ACQUISITION, "019c16f2-0000-7000-8000-00000000000f")
    keys = [base, other, other.replace(STATION, "another"), f"docks/{STATION}/notes.txt"]
    uploads = "".join(
        f"<Upload><Key>{key}</Key><UploadId>{number}</UploadId><Initiated>2026-01-01T00:00:00Z</Initiated></Upload>"
        for number, key in enumerate(keys)
    )
    server.on("GET", "uploads=", 200, f"<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>")
    server.on("DELETE", "uploadId", 204, times=9)

    async def wanted(acquisition):
        return acquisition == ACQUISITION

    assert await store.clear_orphans(wanted) == ("019c16f2-0000-7000-8000-00000000000f",)
    assert [one.query["uploadId"] for one in server.asked("DELETE")] == ["1"]
    assert server.seen[0].query["prefix"] == f"docks/{STATION}/"


async def test_abandoning_twice_is_no_error(server, store):
    text = await registered(server, store)
    server.on("DELETE", "uploadId=u1", 204)
    server.on("DELETE", "uploadId=u1", 404, NO_UPLOAD)
    await store.abandon(text)
    await store.abandon(text)


# --- configuration


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://s3.example/"},
        {"bucket": "a/b"},
        {"bucket": ""},
        {"prefix": "/lead"},
        {"prefix": "a b"},
        {"part_bytes": 1 << 20},
    ],
)
async def test_what_cannot_be_configured(server, changes):
    with pytest.raises(ConfigError):
        made(server, **changes)


async def test_a_cancelled_part_leaves_the_store_to_be_asked(server, store):
    text = await registered(server, store)
    server.on("GET", "uploadId=u1", 200, listed(), times=2)

    async def never():
        yield CONTENT[:10]
        await asyncio.Event().wait()

    sending = asyncio.create_task(store.append(text, 0, never(), PART))
    while len(server.asked("GET", "uploadId")) < 1:
        await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await store.offset(text) == 0


def rules(*said):
    return f"<LifecycleConfiguration>{''.join(f'<Rule>{one}</Rule>' for one in said)}</LifecycleConfiguration>"


ON, DAYS = "<Status>Enabled</Status>", "<Expiration><Days>31</Days></Expiration>"
VERSIONS = "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>"
NO_RULES = "<Error><Code>NoSuchLifecycleConfiguration</Code></Error>"


@pytest.mark.parametrize(
    ("lock", "answered", "answer", "words"),
    [
        (None, (200, rules(ON + DAYS)), Answer.YES, "expires clips after 31 days"),
        (None, (200, rules(f"{ON}<Filter><Prefix></Prefix></Filter>{DAYS}")), Answer.YES, "31 days"),
        (LOCK, (200, rules(ON + DAYS)), Answer.NO, "no byte goes"),
        (LOCK, (200, rules(ON + DAYS, ON + VERSIONS)), Answer.YES, "deletes their versions 1 days later"),
        (None, (200, rules("<Status>Disabled</Status>" + DAYS)), Answer.NO, "nothing deletes there"),
        (None, (200, rules(f"{ON}<Filter><Prefix>elsewhere/</Prefix></Filter>{DAYS}")), Answer.NO, "nothing deletes"),
        (None, (200, rules(f"{ON}<Filter><Tag><Key>k</Key></Tag></Filter>{DAYS}")), Answer.NO, "nothing deletes"),
        (None, (404, NO_RULES), Answer.NO, "nothing deletes there"),
        (None, (404, "<Error><Code>NoSuchBucket</Code></Error>"), Answer.UNKNOWN, "404"),
        (None, (403, "<Error><Code>AccessDenied</Code></Error>"), Answer.UNKNOWN, "AccessDenied"),
        (None, (200, "<html>portal</html>"), Answer.UNKNOWN, "something before the store"),
    ],
)
async def test_doctor_says_whether_anything_deletes_in_a_bucket(server, lock, answered, answer, words):
    status, body = answered
    store = made(server, lock=lock)
    server.on("GET", "?lifecycle", status, body)
    (found,) = await s3_lifecycle.look(store)
    assert found.answer is answer
    assert words in found.detail
    await store.aclose()
