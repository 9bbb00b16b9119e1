"""The tus store against a small tus server that lies, forgets, or speaks as some real servers do."""

import asyncio
import base64
import contextlib
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from dockd.core.findings import Answer, Question
from dockd.core.objects import Piece
from dockd.errors import (
    OffsetConflict,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    StoreUntrusted,
    UploadLost,
)
from dockd.model import SignedBytes
from dockd.stores.header_file import HeaderFile
from dockd.stores.tus_probe import FOUND, WITH_UPLOAD, probe
from dockd.stores.tus_server import CHECKSUM_BYTES
from dockd.stores.tus_store import TusStore
from dockd.stores.wire import Timeouts

ACQUISITION = "0190a5c0-0000-7000-8000-000000000001"
MANIFEST = SignedBytes(payload=b"a manifest", signature="a signature")
CONTENT = bytes(range(256)) * 40
OLD, NEW = "Bearer old", "Bearer new"
REASONS = {200: "OK", 201: "Created", 204: "No Content"}


class MachineClock:
    def now(self):
        return datetime.now(UTC)

    def monotonic_s(self):
        return asyncio.get_running_loop().time()

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s)


@dataclass
class LittleTus:
    """A tus server in some lines. Its settings are its virtues and vices."""

    extensions: str = "creation,creation-with-upload,termination,checksum"
    algorithms: str = "md5,sha1,sha256"
    options: int = 200
    max_size: int | None = None
    checks: bool = True  # looks at checksums
    with_upload: str = "takes"  # or "drops" the bytes, or "refuses", or is "silent" of how many it took
    terminates: bool = True
    found: bool = True  # a finished upload still answers HEAD
    gives: bool = True  # and GET
    ranges: bool = False
    location: str = "/files/{}"
    token: str = ""
    uploads: dict = field(default_factory=dict)  # path: [length, content]
    seen: list = field(default_factory=list)  # method, path, headers
    answers: list = field(default_factory=list)  # (method, status): said when the work was done, in place of the truth
    serving: set = field(default_factory=set)
    port: int = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/files"

    async def serve(self, reader, writer):
        self.serving.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.seen.append((method, path, headers))
                status, said, content = self._answer(method, path, headers, body)
                ordered = next((one for one in self.answers if one[0] == method), None)
                if ordered is not None:
                    self.answers.remove(ordered)
                    status, said, content = ordered[1], {}, b""
                said = {"Tus-Resumable": "1.0.0", "Content-Length": str(len(content))} | said
                text = "".join(f"{key}: {value}\r\n" for key, value in said.items())
                writer.write(f"HTTP/1.1 {status} {REASONS.get(status, 'X')}\r\n{text}\r\n".encode())
                writer.write(content if method != "HEAD" else b"")
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def _answer(self, method, path, headers, body):  # noqa: PLR0911  one for each method
        if self.token and headers.get("authorization") != self.token:
            return 401, {}, b""
        match method:
            case "OPTIONS":
                return self.options, self._options(), b""
            case "POST":
                return self._create(headers, body)
        if path not in self.uploads:
            return 404, {}, b""
        length, content = self.uploads[path]
        done = len(content) == length
        match method:
            case "HEAD" if self.found or not done:
                return 200, {"Upload-Offset": str(len(content)), "Upload-Length": str(length)}, b""
            case "PATCH":
                return self._patch(path, headers, body)
            case "DELETE":
                if self.terminates:
                    del self.uploads[path]
                return 204, {}, b""
            case "GET" if self.gives and done:
                return self._get(headers, bytes(content))
        return 404, {}, b""

    def _options(self):
        said = {"Tus-Version": "1.0.0", "Tus-Extension": self.extensions, "Tus-Checksum-Algorithm": self.algorithms}
        return said | ({} if self.max_size is None else {"Tus-Max-Size": str(self.max_size)})

    def _create(self, headers, body):
        if body and self.with_upload == "refuses":
            return 415, {}, b""
        path = f"/files/{len(self.uploads) + 1}"
        taken = body if self.with_upload != "drops" else b""
        self.uploads[path] = [int(headers["upload-length"]), bytearray(taken)]
        said = {"Location": self.location.format(path.rpartition("/")[2])}
        if body and self.with_upload != "silent":
            said["Upload-Offset"] = str(len(taken))
        return 201, said, b""

    def _patch(self, path, headers, body):
        content = self.uploads[path][1]
        if int(headers["upload-offset"]) != len(content):
            return 409, {}, b""
        algorithm, _, digest = headers.get("upload-checksum", "").partition(" ")
        if algorithm and self.checks and hashlib.new(algorithm, body).digest() != base64.b64decode(digest):
            return 460, {}, b""
        content += body
        return 204, {"Upload-Offset": str(len(content))}, b""

    def _get(self, headers, content):
        first = headers.get("range", "").removeprefix("bytes=").removesuffix("-")
        if self.ranges and first:
            said = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
            return 206, said, content[int(first) :]
        return 200, {}, content


@pytest.fixture
async def serving():
    """Starts a server with these settings, and a store before it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*, authorization=None, **settings):
            little = LittleTus(**settings)
            server = await asyncio.start_server(little.serve, "127.0.0.1", 0)
            little.port = server.sockets[0].getsockname()[1]
            stack.push_async_callback(_ended, server, little)
            return little, _connect(stack, little, authorization)

        yield start


async def _ended(server, little):
    server.close()
    await asyncio.wait_for(asyncio.gather(*little.serving), 20)


def _connect(stack, little, authorization=None):
    store = TusStore(
        name="tus",
        url=little.url,
        clock=MachineClock(),
        random=secrets.token_bytes,
        insecure_loopback=True,
        authorization=authorization and HeaderFile(authorization),
        timeouts=Timeouts(connect_s=20, read_s=20, write_s=20, exchange_s=20),
    )
    stack.push_async_callback(store.aclose)
    return store


async def _blocks(content):
    for at in range(0, len(content), 1000):
        yield content[at : at + 1000]


async def _pushed(store, content=CONTENT):
    url = await store.register(ACQUISITION, MANIFEST, len(content))
    await store.append(url, 0, _blocks(content), len(content))
    return url


async def _read(store, objects, piece, offset=0):
    async with contextlib.aclosing(store.read(objects, piece, offset)) as blocks:
        return b"".join([block async for block in blocks])


# --- checksums


async def test_a_checksum_goes_with_every_piece_where_a_wrong_one_was_refused(serving):
    little, store = await serving()
    await _pushed(store)
    assert store.stretch("", 0, 1 << 30) == CHECKSUM_BYTES
    sent = [headers for method, _, headers in little.seen if method == "PATCH"][-1]["upload-checksum"]
    assert sent == "sha256 " + base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()


async def test_sha1_is_sent_where_nothing_better_is_offered(serving):
    little, store = await serving(algorithms="md5,sha1")
    await _pushed(store)
    assert [headers for method, _, headers in little.seen if method == "PATCH"][-1]["upload-checksum"][:5] == "sha1 "


@pytest.mark.parametrize(
    "settings",
    [
        {"checks": False},  # it says that it looks at them
        {"algorithms": "md5"},
        {"extensions": "creation"},
        {"options": 405},
    ],
)
async def test_no_checksum_goes_where_it_would_mean_nothing(serving, settings):
    little, store = await serving(**settings)
    await _pushed(store)
    assert store.stretch("", 0, 1 << 30) == 1 << 30
    assert "upload-checksum" not in [headers for method, _, headers in little.seen if method == "PATCH"][-1]


async def test_bytes_that_arrived_changed_are_asked_for_again(serving):
    little, store = await serving()
    url = await store.register(ACQUISITION, MANIFEST, len(CONTENT))
    little.answers.append(("PATCH", 460))
    with pytest.raises(OffsetConflict):
        await store.append(url, 0, _blocks(CONTENT), len(CONTENT))


# --- what is offered and not done


@pytest.mark.parametrize("with_upload", ["takes", "drops", "refuses", "silent"])
async def test_a_manifest_arrives_whatever_becomes_of_bytes_in_a_creation(serving, with_upload):
    little, store = await serving(with_upload=with_upload)
    objects = await store.finish(await _pushed(store), ACQUISITION, MANIFEST)
    assert await _read(store, objects, Piece.MANIFEST) == MANIFEST.payload
    assert await _read(store, objects, Piece.SIGNATURE) == MANIFEST.signature.encode()
    assert all(len(content) == length for length, content in little.uploads.values())


async def test_a_clip_that_is_too_long_for_the_store_is_refused_in_words(serving):
    little, store = await serving(extensions="creation", max_size=len(CONTENT) - 1)
    with pytest.raises(StoreRefused, match="Tus-Max-Size"):
        await store.register(ACQUISITION, MANIFEST, len(CONTENT))
    assert {method for method, *_ in little.seen} == {"OPTIONS"}


@pytest.mark.parametrize("ranges", [False, True])
async def test_reading_goes_on_at_an_offset(serving, ranges):
    _, store = await serving(ranges=ranges)
    objects = await store.finish(await _pushed(store), ACQUISITION, MANIFEST)
    assert await _read(store, objects, Piece.SEALED) == CONTENT
    assert store.gives_ranges
    assert await _read(store, objects, Piece.SEALED, 5000) == CONTENT[5000:]
    assert store.gives_ranges is ranges


async def test_a_store_that_gives_nothing_back_says_so(serving):
    _, store = await serving(gives=False)
    objects = await store.finish(await _pushed(store), ACQUISITION, MANIFEST)
    with pytest.raises(StoreRefused, match="nothing back"):
        await _read(store, objects, Piece.SEALED)


async def test_a_finished_upload_that_is_not_found_any_more_is_lost(serving):
    _, store = await serving(found=False)
    url = await _pushed(store)
    with pytest.raises(UploadLost):
        await store.finish(url, ACQUISITION, MANIFEST)


async def test_more_bytes_than_there_are_hold_the_clip(serving):
    little, store = await serving()
    url = await _pushed(store)
    little.uploads[url.partition("#")[0]][1].extend(b"more")
    with pytest.raises(StoreUntrusted):
        await store.finish(url, ACQUISITION, MANIFEST)


async def test_another_upload_at_the_address_is_not_ours(serving):
    little, store = await serving()
    url = await store.register(ACQUISITION, MANIFEST, len(CONTENT))
    little.uploads[url.partition("#")[0]] = [3, bytearray(b"abc")]
    with pytest.raises(UploadLost):
        await store.offset(url)


# --- addresses and credentials


async def test_an_address_that_was_downgraded_is_used_as_we_dialled(serving):
    little, store = await serving(location="http://127.0.0.1:9/files/{}")
    url = await _pushed(store)
    assert await store.offset(url) == len(CONTENT)
    assert {path.rpartition("/")[0] for _, path, _ in little.seen} == {"", "/files"}


@pytest.mark.parametrize("text", ["", "/files/1", "http://other/#acquisition=a&size=1&name=", "/a#size=x"])
async def test_an_upload_of_another_kind_of_store_is_begun_anew(serving, text):
    _, store = await serving()
    with pytest.raises(UploadLost):
        await store.offset(text)
    with pytest.raises(UploadLost):
        await store.look(text)


async def test_a_token_that_was_renewed_is_taken_up_in_the_middle_of_a_clip(serving, tmp_path):
    file = tmp_path / "authorization"
    file.write_text(OLD + "\n")
    little, store = await serving(token=OLD, authorization=file)
    url = await store.register(ACQUISITION, MANIFEST, len(CONTENT))
    await store.append(url, 0, _blocks(CONTENT[:5000]), 5000)
    little.token = NEW
    with pytest.raises(OffsetConflict):
        await store.append(url, 5000, _blocks(CONTENT[5000:]), len(CONTENT) - 5000)
    with pytest.raises(StoreUnreachable, match="renew"):
        await store.offset(url)
    file.write_text(NEW + "\n")
    assert await store.offset(url) == 5000
    assert await store.append(url, 5000, _blocks(CONTENT[5000:]), len(CONTENT) - 5000) == len(CONTENT)


@pytest.mark.parametrize("text", ["", "Bearer a\nBearer b", "Bearer \x07"])
async def test_credentials_that_cannot_be_used_are_not_shown(serving, tmp_path, text):
    file = tmp_path / "authorization"
    file.write_text(text)
    _, store = await serving(authorization=file)
    with pytest.raises(StoreUnreachable) as caught:
        await store.register(ACQUISITION, MANIFEST, 1)
    assert "Bearer a" not in str(caught.value)


# --- answers


async def test_a_refusal_by_something_between_condemns_no_clip(serving):
    little, store = await serving()
    for status, error in ((400, StoreUnreachable), (403, StoreUnreachable), (404, StoreUnreachable), (507, StoreBusy)):
        little.answers.append(("POST", status))
        with pytest.raises(error):
            await store.register(ACQUISITION, MANIFEST, len(CONTENT))


async def test_a_lost_answer_to_a_creation_leaves_one_upload_that_is_used(serving):
    little, store = await serving(extensions="creation")
    little.answers.append(("POST", 502))
    with pytest.raises(StoreUnreachable):
        await store.register(ACQUISITION, MANIFEST, len(CONTENT))
    url = await _pushed(store)
    assert await store.register(ACQUISITION, MANIFEST, len(CONTENT)) == url
    assert sorted(len(content) for _, content in little.uploads.values()) == [0, len(CONTENT)]


# --- the probe


async def test_a_probe_finds_what_is_done_and_leaves_nothing(serving):
    little, store = await serving()
    found = {one.question: one for one in await probe(store, store, random=secrets.token_bytes)}
    yes = (Question.WRONG_CHECKSUM, Question.RESUME, WITH_UPLOAD, FOUND, Question.READ_BACK, Question.OVERWRITE)
    assert [found[one].answer for one in (*yes, Question.ABANDON)] == [Answer.YES] * 7
    assert (found[Question.LOCKED].answer, found[Question.LOCKED].claimed) == (Answer.NO, False)
    assert not any(one.broken_claim for one in found.values())
    assert little.uploads == {}


@pytest.mark.parametrize(
    ("settings", "question", "claimed"),
    [
        ({"checks": False}, Question.WRONG_CHECKSUM, True),
        ({"terminates": False}, Question.ABANDON, True),
        ({"found": False}, FOUND, None),
        ({"extensions": "creation"}, Question.WRONG_CHECKSUM, False),
    ],
)
async def test_a_probe_names_what_is_not_done(serving, settings, question, claimed):
    _, store = await serving(**settings)
    found = {one.question: one for one in await probe(store, store, random=secrets.token_bytes)}[question]
    assert (found.answer, found.claimed, found.broken_claim) == (Answer.NO, claimed, claimed is True)


async def test_a_probe_of_nobody_says_so(serving):
    little, store = await serving()
    little.answers.extend([("OPTIONS", 503)] * 3)
    (found,) = await probe(store, store, random=secrets.token_bytes)
    assert found.answer is Answer.UNKNOWN
    assert "503" in found.detail
