"""Every adapter against answers from a grammar: mostly right, with something hostile in them somewhere.

The rule: a verdict or a DockdError, in bounded time and memory, and the same of whatever the journal keeps of an
answer. A model of each kind of store answers rightly; then statuses, headers and bodies of some answers are changed.
The bytes go over a socket and through the real client, so that what httpx and its parsers make of them is part of it.
"""

import asyncio
import base64
import contextlib
import json
import re
import ssl
import tracemalloc
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core import canonical, sshsig
from dockd.core.challenge import Range
from dockd.core.confirmation import OwnSums, still_there, verify_objects
from dockd.core.extensions import build_extension, verify_extension
from dockd.core.keyfiles import StorePublic
from dockd.core.manifest import Manifest, encode
from dockd.core.objects import Piece
from dockd.core.receipts import NO_PREVIOUS, build_holding, build_receipt, verify_holding, verify_receipt
from dockd.core.retention import (
    Terms,
    build_policy,
    keep_until,
    promise,
    too_short,
    verify_policy,
)
from dockd.errors import DockdError, VerificationFailed
from dockd.model import CameraIdentity, Category, SignedBytes, VerdictStatus
from dockd.stores.axis import AxisStore
from dockd.stores.axis_names import segment
from dockd.stores.axis_session import AxisCredentials
from dockd.stores.credentials import Credentials, EnvironmentCredentials
from dockd.stores.receiver_store import ReceiverStore
from dockd.stores.s3 import S3Store
from dockd.stores.s3_records import MARK, Believed, Lock
from dockd.stores.tus_store import TusStore
from dockd.stores.web_identity import WebIdentityCredentials
from dockd.stores.wire import Timeouts

NOW = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
STATION = "6f1e2d3c-0000-4000-8000-000000000001"
STORE = "6f1e2d3c-0000-4000-8000-000000000002"
KEY, STORE_KEY = sshsig.SigningKey.generate(), sshsig.SigningKey.generate()
SIZE = 6000
TIMEOUTS = Timeouts(connect_s=2, read_s=1, write_s=2, exchange_s=2)
SECONDS = 30.0  # for one call, of which few take more than milliseconds
MOST_BYTES = 64 << 20


class StillClock:
    def now(self):
        return NOW

    def monotonic_s(self):
        return 0.0

    async def sleep(self, delay_s):
        raise AssertionError("no adapter waits by itself")


# --- the grammar of what is hostile

NUMBERS = [
    "-1",
    "0",
    "1",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "1.5",
    "9" * 15,
    "9" * 17,
    "9" * 5000,
    "0x10",
    "1_0",
    " 7",
]
DATES = [
    "9999-12-31T23:59:59-12:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999Z",
    "0001-01-01T00:00:00.000Z",
    "2026-02-30T00:00:00Z",
    "2026-W53-7",
    "20261121T080000Z",
    "2026-11-21T08:00:00+23:59:59.999999",
    "2026-11-21",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Mon, 01 Jan 0001 00:00:00 GMT",
    "Sat, 21 Nov 99999999999999999999 08:00:00 GMT",
    "Saturday, 21-Nov-99 08:00:00 GMT",
    "Sat Nov 31 08:61:99 2026",
    "253402300800",
    "-62135596801",
]
TEXTS = [
    "",
    "x" * 300,
    "x" * 5000,
    "\x7f",
    "a\tb",
    "é",
    "\u0661",
    "../..//",
    "//[",
    "http://[::1",
    "https://elsewhere.example/x",
    "/%00%ff%2e%2e",
    "#?&=;",
    "null",
    "gzip, gzip",
]
WORDS = st.sampled_from(NUMBERS + DATES + TEXTS)
JSON_TOKENS = st.one_of(
    st.sampled_from(
        [
            *NUMBERS,
            "null",
            "true",
            "[]",
            "{}",
            '"\\ud800"',
            '"\\u0000"',
            "[" * 3000,
            "[" * 500 + "]" * 500,
            '{"a":' * 500 + "1" + "}" * 500,
            '[{"name":7}]',
            '{"a":1,"a":2}',
        ]
    ),
    WORDS.map(json.dumps),
)
BODIES = st.sampled_from(
    [
        b"",
        b"\x00",
        b"\xff\xfe<\x00",
        b"[]",
        b"[null]",
        b"{",
        b"7",
        b'"text"',
        b"[" * 100_000,
        b"<a>" * 60_000,
        b"<a>" * 500 + b"</a>" * 500,
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;">]><Error><Code>&c;</Code></Error>',
        b"<Error><Code>" + b"x" * 9000 + b"</Code></Error>",
        b"<Error><Code>ExpiredToken</Code></Error>",
        b"<Error><Code>NoSuchUpload</Code></Error>",
        b'{"type":"urn:dockd:problem:object-lost","detail":' + b"[" * 900 + b"]" * 900 + b"}",
        b"<html>&#99999999999;&" + b"amp;" * 999 + b"</html>",
        b"x" * 300_000,
    ]
)
STATUSES = st.sampled_from(
    [100, 199, 200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 409, 412, 413, 422, 429, 503, 507, 599]
)
HEADERS = st.sampled_from(
    [
        "Content-Length",
        "Content-Type",
        "Content-Range",
        "Content-Encoding",
        "Transfer-Encoding",
        "Date",
        "ETag",
        "Location",
        "Retry-After",
        "Set-Cookie",
        "Tus-Max-Size",
        "Tus-Resumable",
        "Upload-Offset",
        "Upload-Length",
        "X-Auth-Token",
        "X-Auth-Token-Expires",
        "X-Storage-Url",
        "X-Static-Large-Object",
        "X-Timestamp",
        "x-amz-version-id",
        "x-amz-checksum-sha256",
        "x-amz-checksum-type",
        MARK,
    ]
)
CHANGES = st.one_of(
    st.tuples(st.just("leaf"), st.integers(0, 30), JSON_TOKENS, WORDS),
    st.tuples(st.just("leaf"), st.integers(0, 30), JSON_TOKENS, WORDS),
    st.tuples(st.just("header"), HEADERS, WORDS),
    st.tuples(st.just("header"), HEADERS, WORDS),
    st.tuples(st.just("own header"), st.integers(0, 9), WORDS),
    st.tuples(st.just("own header"), st.integers(0, 9), WORDS),
    st.tuples(st.just("status"), STATUSES),
    st.tuples(st.just("body"), BODIES),
)
PLANS = st.dictionaries(st.integers(0, 15), st.lists(CHANGES, min_size=1, max_size=2), min_size=1, max_size=6)
"""Which answers of a run are changed, and how."""

_JSON_LEAF = re.compile(rb'("(?:[^"\\]|\\.)*"|-?[0-9]+|true|false|null)(?=[,}\]])')
_XML_LEAF = re.compile(rb">([^<>]*)</")


@dataclass
class Said:
    status: int
    headers: dict
    body: bytes = b""


def _changed(said, change):
    kind, *what = change
    headers = dict(said.headers)
    if kind == "status":
        return Said(what[0], headers, said.body)
    if kind == "body":
        return Said(said.status, headers, what[0])
    if kind == "header":
        return Said(said.status, headers | {what[0]: what[1]}, said.body)
    if kind == "own header" and headers:
        return Said(said.status, headers | {sorted(headers)[what[0] % len(headers)]: what[1]}, said.body)
    if kind == "leaf":
        number, token, word = what
        xml = said.body.startswith(b"<")
        found = list((_XML_LEAF if xml else _JSON_LEAF).finditer(said.body))
        if found:
            first, last = found[number % len(found)].span(1)
            content = word.encode("utf-8", "replace") if xml else token.encode()
            return Said(said.status, headers, said.body[:first] + content + said.body[last:])
    return said


class Peer:
    """Serves `model(method, target, headers, body)`, changed as the plan says."""

    def __init__(self, model, plan):
        self.model, self.plan, self.count = model, plan, 0
        self.tasks = set()

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                said = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(said.get("content-length", 0)))
                answer = self.model(method, target, said, body)
                for change in self.plan.get(self.count, ()):
                    answer = _changed(answer, change)
                self.count += 1
                writer.write(_bytes(method, answer))
                await writer.drain()
                if self.plan:
                    return  # what was changed may be no whole answer: its connection ends with it
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.tasks.discard(asyncio.current_task())
            writer.close()


def _bytes(method, said):
    content = b"" if method == "HEAD" or said.status in (204, 304) else said.body
    headers = {"Content-Length": str(len(content))} | said.headers
    if said.status == 204:
        del headers["Content-Length"]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {said.status} X\r\nConnection: close\r\n{lines}\r\n".encode() + content


@contextlib.asynccontextmanager
async def peer(model, plan, context=None):
    made = Peer(model, plan)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)


async def judged(call):
    """What the call says, or None: a verdict or one of our errors, in bounded time."""
    try:
        async with asyncio.timeout(SECONDS):
            return await call
    except DockdError:
        return None


async def drained(blocks, most=1 << 16):
    async with contextlib.aclosing(blocks) as given:
        total = 0
        async for block in given:
            total += len(block)
            if total > most:
                break
    return total


async def content(size):
    while size:
        yield bytes(min(size, 1 << 20))
        size -= min(size, 1 << 20)


@pytest.fixture(autouse=True)
def bounded_memory():
    """Of the whole of a test, which holds a part of 5 MiB for each upload under way."""
    tracemalloc.start(1)
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_BYTES


# --- one run through an adapter that keeps objects


ACQUISITION = "019c16f2-0000-7000-8000-000000000003"


@pytest.fixture(scope="module")
def acquisition():
    return ACQUISITION


@pytest.fixture(scope="module")
def manifest():
    payload = encode(
        Manifest(
            acquisition=ACQUISITION,
            station=STATION,
            bay=3,
            docking="019c16f2-0000-7000-8000-000000000004",
            camera=CameraIdentity(serial="B8A44F0A1B2C", model="W110", volume_id="6A7F-01D2"),
            path=b"DCIM/A.MP4",
            size_bytes=1000,
            mtime_ns=1_769_903_999_123_456_789,
            recorded_at=None,
            duration_ms=None,
            clock_offset_ms=None,
            category=Category.NONE,
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
            nonce=bytes(32),
        )
    )
    return SignedBytes(payload=payload, signature=sshsig.sign(KEY, sshsig.MANIFEST, payload))


async def through(store, acquisition, manifest, *, upload, objects):
    """All that the station asks of such a store, and of what a later life finds in its journal."""
    registered = await judged(store.register(acquisition, manifest, SIZE))
    for text in dict.fromkeys(filter(None, (registered, upload))):
        stands = await judged(store.offset(text))
        if stands == 0:
            length = store.stretch(text, 0, SIZE)
            await judged(store.append(text, 0, content(length), length))
        finished = await judged(store.finish(text, acquisition, manifest))
        for named in filter(None, (finished, objects)):
            states = await judged(store.look(named))
            if states is not None:
                _compared(states, acquisition, manifest)
            for piece, offset in ((Piece.SEALED, 100), (Piece.MANIFEST, 0)):
                await judged(drained(store.read(named, piece, offset)))
        await judged(store.abandon(text))

    async def wanted(_):
        return False

    await judged(store.clear_orphans(wanted))


def _compared(states, acquisition, manifest):
    """As ObjectConfirmer does. Raises what it would."""
    read = {
        Piece.MANIFEST: manifest.payload,
        Piece.SIGNATURE: manifest.signature.encode(),
    }
    own = {piece: OwnSums(size_bytes=len(one), digest=canonical.digest(one)) for piece, one in read.items()}
    own[Piece.SEALED] = OwnSums(size_bytes=SIZE, digest=canonical.digest(b"sealed"))
    for state in states.values():
        if state.retention_until is not None:
            _ = (state.retention_until - NOW).days, canonical.format_time(state.retention_until)
    with contextlib.suppress(VerificationFailed):
        verified = verify_objects(
            states, own=own, read_back=own, store=STORE, station=STATION, manifest=manifest, at=NOW
        )
        still_there(verified, states, at=NOW)
        assert len(verified.payload) < 40_000  # it has to fit into a custody entry


# --- S3


def s3_model(manifest, *, there):  # noqa: C901  one branch a request
    mark = canonical.digest(manifest.payload)
    digest = base64.b64encode(bytes(32)).decode()
    whole = {
        "ETag": '"whole-2"',
        "x-amz-version-id": "v1",
        "x-amz-request-id": "1",
        "x-amz-checksum-sha256": f"{digest}-1",
        "x-amz-checksum-type": "COMPOSITE",
        "x-amz-object-lock-mode": "COMPLIANCE",
        MARK: mark,
    }

    def answer(method, target, headers, body):  # noqa: PLR0911  same
        query = parse_qs(urlsplit(target).query, keep_blank_values=True)
        own = {"x-amz-request-id": "1", "Content-Type": "application/xml"}
        if method == "HEAD":
            known = there or not target.endswith("clip.age")
            size = SIZE if target.endswith("clip.age") else 100
            return Said(200, whole | {"Content-Length": str(size)}) if known else Said(404, own)
        if method == "POST" and "uploads" in query:
            return Said(
                200, own, b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
            )
        if method == "POST":
            done = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
            return Said(200, own, done)
        if method == "PUT":
            return Said(200, own | {"ETag": '"e1"'})
        if method == "DELETE":
            return Said(204, own)
        if "uploads" in query:
            key = f"{STATION}/{ACQUISITION}/clip.age"
            one = f"<Upload><Key>{key}</Key><UploadId>u1</UploadId><Initiated>2026-11-21T08:00:00Z</Initiated></Upload>"
            page = f"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><NextKeyMarker>k</NextKeyMarker>{one}"
            return Said(200, own, f"{page}</ListMultipartUploadsResult>".encode())
        if "uploadId" in query:
            summed = f"<ChecksumSHA256>{digest}</ChecksumSHA256>"
            part = f"<Part><PartNumber>1</PartNumber><ETag>e1</ETag><Size>{SIZE}</Size>{summed}</Part>"
            page = (
                f"<ListPartsResult><IsTruncated>false</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>{part}"
            )
            return Said(200, own, f"{page}</ListPartsResult>".encode())
        if "retention" in query:
            until = b"<RetainUntilDate>2027-11-21T08:00:00Z</RetainUntilDate>"
            return Said(200, own, b"<Retention><Mode>COMPLIANCE</Mode>" + until + b"</Retention>")
        if "legal-hold" in query:
            return Said(200, own, b"<LegalHold><Status>ON</Status></LegalHold>")
        return Said(200, own | {"Content-Type": "x"}, manifest.payload)

    return answer


@settings(max_examples=15)
@given(plan=PLANS, there=st.booleans())
def test_p10_any_answer_of_s3_is_a_verdict_or_one_of_our_errors(manifest, acquisition, plan, there):
    async def run():
        async with peer(s3_model(manifest, there=there), plan) as url:
            store = S3Store(
                name="cloud",
                url=url,
                bucket="evidence",
                region="eu-west-1",
                station=STATION,
                credentials=EnvironmentCredentials({"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}),
                clock=StillClock(),
                part_bytes=8 << 20,
                lock=Lock(days={"none": 30, "evidence": 30}),
                believed=Believed(checksum=True, parts_listed=True, locks=True),
                insecure_loopback=True,
                timeouts=TIMEOUTS,
            )
            base = f"{STATION}/{acquisition}"
            mark = canonical.digest(manifest.payload)
            upload = json.dumps({"base": base, "upload": "u1", "size": SIZE, "part": 8 << 20, "mark": mark})
            sizes = {"sealed": SIZE, "manifest": 100, "signature": 100}
            objects = json.dumps({"base": base, "part": 8 << 20, "sizes": sizes})
            async with contextlib.aclosing(store):
                await through(store, acquisition, manifest, upload=upload, objects=objects)

    asyncio.run(run())


@settings(max_examples=15)
@given(plan=PLANS)
def test_p10_any_answer_of_a_session_service_is_a_verdict_or_one_of_our_errors(tmp_path_factory, plan):
    def model(method, target, headers, body):
        keys = b"<AccessKeyId>AKID</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        inner = keys + b"<Expiration>2026-11-21T09:00:00Z</Expiration>"
        found = (
            b"<AssumeRoleWithWebIdentityResult><Credentials>"
            + inner
            + b"</Credentials></AssumeRoleWithWebIdentityResult>"
        )
        return Said(200, {}, b"<AssumeRoleWithWebIdentityResponse>" + found + b"</AssumeRoleWithWebIdentityResponse>")

    async def run():
        async with peer(model, plan) as url:
            source = WebIdentityCredentials(
                url=url,
                role="r",
                session_name="s",
                token_file=token,
                clock=StillClock(),
                insecure_loopback=True,
                timeouts=TIMEOUTS,
            )
            async with contextlib.aclosing(source):
                for _ in range(3):
                    held = await judged(source.current())
                if held is not None:
                    assert isinstance(held, Credentials)
                    await judged(source.renewed(held))

    token = tmp_path_factory.getbasetemp() / "token"
    token.write_text("token")
    asyncio.run(run())


# --- Axis content destinations, which are a Swift


def axis_model(manifest, acquisition, *, there):
    whole = {"ETag": "0" * 32, "X-Timestamp": "1.0", "X-Trans-Id": "t", "X-Static-Large-Object": "True"}

    def answer(method, target, headers, body):  # noqa: PLR0911  same
        if target.startswith("/auth"):
            host = headers["host"]
            said = {"X-Auth-Token": "t", "X-Storage-Url": f"http://{host}/v1/a", "X-Auth-Token-Expires": "3600"}
            return Said(200, said)
        if target == "/info":
            return Said(200, {}, b'{"slo":{"max_manifest_segments":1000,"min_segment_size":1}}')
        if "format=json" in target or "multipart-manifest=get" in target:
            name = segment(acquisition, 0)
            name = f"/dockd_segments/{name}" if "get" in target else name
            row = {"name": name, "bytes": SIZE, "hash": "0" * 32}
            return Said(200, {"X-Trans-Id": "t"}, json.dumps([row], separators=(",", ":")).encode())
        if method == "HEAD":
            known = there or (".age" not in target and ".mp4" not in target)
            return Said(200, whole | {"Content-Length": str(SIZE)}) if known else Said(404, {"X-Trans-Id": "t"})
        if method in ("PUT", "POST"):
            return Said(201, whole)
        if method == "DELETE":
            return Said(204, whole)
        return Said(200, whole, manifest.payload)

    return answer


@settings(max_examples=12)
@given(plan=PLANS, there=st.booleans())
def test_p10_any_answer_of_axis_is_a_verdict_or_one_of_our_errors(manifest, acquisition, plan, there):
    async def run():
        async with peer(axis_model(manifest, acquisition, there=there), plan) as url:
            store = AxisStore(
                name="axis",
                url=f"{url}/auth/v1.0",
                ca_file=None,
                clock=StillClock(),
                credentials=lambda: AxisCredentials(user="u", key="k"),
                station=STATION,
                insecure_loopback=True,
                timeouts=TIMEOUTS,
            )
            upload = {
                "type": "axis-upload",
                "v": 1,
                "acquisition": acquisition,
                "container": "c",
                "name": "n.mp4.age",
                "size_bytes": SIZE,
                "least_bytes": 6000,
                "metadata": {"StartTime": "1"},
            }
            pieces = {one.value: {"name": f"{one.value}.age", "size_bytes": SIZE} for one in Piece}
            objects = {"type": "axis-objects", "v": 1, "acquisition": acquisition, "container": "c", "pieces": pieces}
            async with contextlib.aclosing(store):
                await through(
                    store,
                    acquisition,
                    manifest,
                    upload=canonical.encode(upload).decode(),
                    objects=canonical.encode(objects).decode(),
                )

    asyncio.run(run())


# --- tus


def tus_model(manifest, *, stands):
    own = {"Tus-Resumable": "1.0.0"}

    def answer(method, target, headers, body):
        if method == "OPTIONS":
            said = {"Tus-Version": "1.0.0", "Tus-Extension": "creation,checksum,termination,creation-with-upload"}
            return Said(204, own | said | {"Tus-Max-Size": "1000000000", "Tus-Checksum-Algorithm": "sha1,sha256"})
        if method == "POST":
            return Said(201, own | {"Location": "/files/1", "Upload-Offset": headers.get("content-length", "0")})
        if method == "HEAD":
            found = {"Upload-Offset": str(stands), "Upload-Length": str(SIZE), "ETag": '"e"'}
            return Said(200, own | found | {"Content-Length": str(SIZE)})
        if method == "PATCH":
            return Said(204, own | {"Upload-Offset": str(int(headers["upload-offset"]) + len(body))})
        if method == "DELETE":
            return Said(204, own)
        return Said(200, own, manifest.payload)

    return answer


@settings(max_examples=15)
@given(plan=PLANS, stands=st.sampled_from([0, SIZE]), by_name=st.booleans())
def test_p10_any_answer_of_tus_is_a_verdict_or_one_of_our_errors(manifest, acquisition, plan, stands, by_name):
    async def run():
        async with peer(tus_model(manifest, stands=stands), plan) as url:
            store = TusStore(
                name="tus",
                url=f"{url}/files",
                objects_url=f"{url}/objects" if by_name else None,
                clock=StillClock(),
                random=lambda count: bytes(range(count)),
                insecure_loopback=True,
                timeouts=TIMEOUTS,
            )
            named = f"{acquisition}/x/clip.age" if by_name else ""
            upload = f"/files/1#acquisition={acquisition}&size={SIZE}&name={named}"
            objects = json.dumps({one.value: f"o/{one.value}" if by_name else "/files/1" for one in Piece})
            async with contextlib.aclosing(store):
                await through(store, acquisition, manifest, upload=upload, objects=objects)

    asyncio.run(run())


# --- our receiver, or who says that it is


def _json(type_, **fields):
    return canonical.encode({"type": type_, "v": 1, **fields})


def receiver_model(manifest, acquisition):  # noqa: C901  one branch a request
    def signed(namespace, payload):
        return sshsig.signed_to_json(SignedBytes(payload=payload, signature=sshsig.sign(STORE_KEY, namespace, payload)))

    receipt = canonical.encode(signed(sshsig.RECEIPT, _receipt(manifest)))

    def answer(method, target, headers, body):  # noqa: PLR0911  same
        if target.endswith("/session"):
            if b"session-request" in body:
                challenge = base64.b64encode(bytes(32)).decode()
                return Said(200, {}, _json("challenge", store=STORE, challenge=challenge, expires="x", offers={}))
            return Said(201, {}, _json("session-token", token="t", expires="x"))  # noqa: S106  made up
        if method == "PUT":
            return Said(201, {"Location": "/uploads/1"}, _json("upload", upload="/uploads/1", offset=0, stored=False))
        if method == "HEAD":
            return Said(200, {"Tus-Resumable": "1.0.0", "Upload-Offset": "5"})
        if method == "PATCH":
            return Said(204, {"Tus-Resumable": "1.0.0", "Upload-Offset": "9"})
        if target.endswith("/ranges"):
            return Said(200, {}, _json("ranges", digests=["0" * 64]))
        if target.endswith("/twins"):
            return Said(200, {}, _json("twins", manifests=[json.loads(receipt)]))
        if target.endswith("/share"):
            return Said(200, {}, _json("shared"))
        if target.endswith("/checkpoints"):
            return Said(200, {}, _json("checkpoint-size", size=3) if method == "GET" else _json("cosigned", note="n\n"))
        return Said(200, {}, receipt)

    return answer


def _receipt(manifest):
    return build_receipt(
        store=STORE,
        signed_manifest=manifest.payload,
        receipt_seq=1,
        previous=NO_PREVIOUS,
        witnessed_size=1,
        witnessed_root=bytes(32),
        at=NOW,
        retention_until=_promise("none"),
    )


def _promise(category):
    return promise(policy=NO_PREVIOUS, category=category, terms=Terms(), stated=None, arrived=NOW, now=NOW)


@settings(max_examples=12)
@given(plan=PLANS)
def test_p10_any_answer_of_a_receiver_is_a_verdict_or_one_of_our_errors(certificates, manifest, acquisition, plan):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates["store"])

    async def run():
        async with peer(receiver_model(manifest, acquisition), plan, context) as url:
            store = ReceiverStore(
                url=url,
                ca_file=certificates["store"][0],
                store_public=StorePublic(store=STORE, key=STORE_KEY.public),
                station=STATION,
                key=KEY,
                clock=StillClock(),
                timeouts=TIMEOUTS,
            )
            async with contextlib.aclosing(store):
                text = await judged(store.register(acquisition, manifest, SIZE)) or "/uploads/1"
                await judged(store.offset(text))
                await judged(store.append(text, 0, content(9), 9))
                await judged(store.twins(acquisition, [STATION]))
                await judged(store.share(acquisition, NO_PREVIOUS))
                receipt = await judged(store.receipt(acquisition, manifest))
                if receipt is not None:
                    _verified(receipt, manifest)
                await judged(store.ranges(acquisition, bytes(32), (Range(offset=0, length=1),)))
                await judged(store.holding(acquisition, bytes(32)))
                await judged(store.extension(acquisition, NO_PREVIOUS, 0))
                await judged(store.policy(anew=True))
                await judged(store.witnessed_size())
                await judged(store.witness(b"note\n", 0, ()))

    asyncio.run(run())


# --- what a store signs: its key is good, and what it says is not


def _verified(signed, manifest):
    known = {"store_key": STORE_KEY.public, "store": STORE, "station": STATION, "manifest": manifest.payload}
    with contextlib.suppress(VerificationFailed):
        found = verify_receipt(signed, **known)
        _ = found.kept_until - NOW, canonical.format_time(found.kept_until)
        return found
    return None


@settings(max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(0, 40), JSON_TOKENS), min_size=1, max_size=3), kind=st.integers(0, 3))
def test_p10_whatever_a_store_signs_is_a_verdict_or_one_of_our_errors(manifest, changes, kind):
    receipt = _receipt(manifest)
    payload = (
        receipt,
        build_holding(
            store=STORE, signed_manifest=manifest.payload, nonce=bytes(32), at=NOW, retention_until=_promise("none")
        ),
        build_policy(store=STORE, policy_seq=1, at=NOW, categories={"none": Terms(), "evidence": Terms()}),
        build_extension(receipt=receipt, previous=None, at=NOW, promise=_promise("none")),
    )[kind]
    for number, token in changes:
        payload = _changed(Said(200, {}, payload), ("leaf", number, token, "")).body
    namespace = (sshsig.RECEIPT, sshsig.HOLDING, sshsig.POLICY, sshsig.EXTENSION)[kind]
    signed = SignedBytes(payload=payload, signature=sshsig.sign(STORE_KEY, namespace, payload))
    known = {"store_key": STORE_KEY.public, "store": STORE, "station": STATION, "manifest": manifest.payload}
    said = ""
    try:
        if kind == 0:
            _verified(signed, manifest)
        elif kind == 1:
            found = verify_holding(signed, nonce=bytes(32), **known)
            _ = found.kept_until - NOW
        elif kind == 2:
            policy = verify_policy(signed, store_key=STORE_KEY.public, store=STORE)
            too_short(policy, {"none": Terms(), "evidence": Terms()})
            for terms in policy.categories.values():
                keep_until(terms, recorded_at=NOW, arrived=NOW, now=NOW)
        else:
            whole = SignedBytes(payload=receipt, signature=sshsig.sign(STORE_KEY, sshsig.RECEIPT, receipt))
            verify_extension(signed, receipt=_verified(whole, manifest), previous=None, **_but_station(known))
    except VerificationFailed as error:
        said = str(error)
    assert len(said) < 1000  # it may end in a custody entry


def _but_station(known):
    return {key: value for key, value in known.items() if key not in ("station", "store")}


# --- the grammar itself


def test_the_models_are_right_where_nothing_is_changed(certificates, manifest, acquisition):
    """Else the runs above would end at their first step."""

    async def run():
        async with peer(s3_model(manifest, there=True), {}) as url:
            store = S3Store(
                name="cloud",
                url=url,
                bucket="evidence",
                region="eu-west-1",
                station=STATION,
                credentials=EnvironmentCredentials({"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}),
                clock=StillClock(),
                lock=Lock(days={"none": 30, "evidence": 30}),
                believed=Believed(locks=True),
                insecure_loopback=True,
                timeouts=TIMEOUTS,
            )
            async with contextlib.aclosing(store):
                upload = await store.register(acquisition, manifest, SIZE)
                assert await store.offset(upload) == SIZE
        async with peer(axis_model(manifest, acquisition, there=False), {}) as url:
            store = AxisStore(
                name="axis",
                url=f"{url}/auth/v1.0",
                ca_file=None,
                clock=StillClock(),
                credentials=lambda: AxisCredentials(user="u", key="k"),
                station=STATION,
                insecure_loopback=True,
                timeouts=TIMEOUTS,
            )
            async with contextlib.aclosing(store):
                assert await store.limits() is not None
        async with peer(tus_model(manifest, stands=SIZE), {}) as url:
            store = TusStore(
                name="tus",
                url=f"{url}/files",
                clock=StillClock(),
                random=lambda count: bytes(range(count)),
                insecure_loopback=True,
                timeouts=TIMEOUTS,
            )
            async with contextlib.aclosing(store):
                upload = await store.register(acquisition, manifest, SIZE)
                assert await store.offset(upload) == SIZE
                assert len(await store.look(await store.finish(upload, acquisition, manifest))) == 3

    asyncio.run(run())
    assert _verified(
        SignedBytes(payload=_receipt(manifest), signature=sshsig.sign(STORE_KEY, sshsig.RECEIPT, _receipt(manifest))),
        manifest,
    )
