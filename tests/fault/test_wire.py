"""The HTTP side of a store, against a TLS server that does one scripted, mostly bad, thing."""

import asyncio
import contextlib
import gc
import gzip
import ssl
import tracemalloc
from datetime import UTC, datetime

import pytest

from dockd.core.transfer import Call
from dockd.errors import (
    ConfigError,
    OffsetConflict,
    PatchTooLarge,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    StoreUnsuited,
    StoreUntrusted,
    UploadLost,
)
from dockd.stores.tls import ClientCertificate
from dockd.stores.tus import Tus
from dockd.stores.wire import SessionExpired, Timeouts, Wire, open_client

NOW = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
PROBLEM = "Content-Type: application/problem+json\r\n"


class StillClock:
    def now(self):
        return NOW

    def monotonic_s(self):
        return 0.0

    async def sleep(self, delay_s):
        raise AssertionError("the wire does not wait by itself")


class Scripted:
    """Answers each connection with `behave(reader, writer)`; notes when a client's connection ended."""

    def __init__(self):
        self.ended = asyncio.Event()
        self.heads = []
        self.behave = None

    async def __call__(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            await self.behave(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self.ended.set()
            writer.close()


@contextlib.asynccontextmanager
async def _serving(certificates, *, name="store", trusted="store", maximum=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates[name])
    if maximum:
        context.maximum_version = maximum
    scripted = Scripted()
    server = await asyncio.start_server(scripted, "127.0.0.1", 0, ssl=context)
    timeouts = Timeouts(connect_s=5, read_s=5, write_s=5, exchange_s=5)
    wire = Wire(open_client(certificates[trusted][0], timeouts), clock=StillClock(), timeouts=timeouts)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield scripted, wire, url
    finally:
        await wire.aclose()
        server.close()
        await asyncio.wait_for(scripted.ended.wait(), 5) if scripted.heads else None


def _says(text):
    async def behave(reader, writer):
        writer.write(text.encode())
        await writer.drain()

    return behave


def _answer(status, headers="", body=""):
    return _says(f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}")


async def _blocks(count, size=65536):
    for _ in range(count):
        yield bytes(size)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (
            _answer(403, PROBLEM, '{"detail":"the recipient \\u001b[31m is not allowed"}'),
            StoreRefused,
            r"recipient \?\[31m",
        ),
        (_answer(403, "Content-Type: text/html\r\n", "<html>"), StoreUnreachable, "403"),
        (_answer(409, PROBLEM, '{"title":"other manifest"}'), StoreRefused, "other manifest"),
        (_answer(403, PROBLEM, '{"type":"urn:dockd:problem:unknown-station"}'), StoreUnsuited, "403"),
        (_answer(403, PROBLEM, '{"type":"urn:dockd:problem:recipient-refused"}'), StoreUnsuited, "403"),
        (_answer(401), SessionExpired, "401"),
        (_answer(302, "Location: https://elsewhere.example/\r\n"), StoreUnreachable, "302"),
        (_answer(200, "Content-Type: text/html\r\n", "<html>portal</html>"), StoreUnreachable, "cannot be used"),
        (_answer(507, PROBLEM, '{"title":"full"}'), StoreBusy, "full"),
        (_answer(500, PROBLEM, "[" * 2000), StoreBusy, "500"),
        (_answer(200, "", "x" * 300_000), StoreUnreachable, "too long"),
        (_says("SSH-2.0-OpenSSH\r\n"), StoreUnreachable, "reached"),
        (_says(""), StoreUnreachable, "reached"),
        (_says("HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nhalf"), StoreUnreachable, "reached"),
    ],
)
async def test_every_bad_answer_is_one_of_our_errors(certificates, answer, error, words):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = answer
        with pytest.raises(error, match=words):
            (await wire.ask(Call.REGISTER, "PUT", url + "/acquisitions/x", content=b"{}")).json("upload")


async def test_retry_after_is_passed_on(certificates):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = _answer(503, "Retry-After: Sat, 21 Nov 2026 08:00:42 GMT\r\n")
        with pytest.raises(StoreBusy) as caught:
            await wire.ask(Call.RECEIPT, "POST", url, content=b"{}")
        assert caught.value.retry_after_s == 42.0


async def test_a_foreign_certificate_is_no_store(certificates):
    async with _serving(certificates, name="stranger") as (_, wire, url):
        with pytest.raises(StoreUntrusted, match="certificate"):
            await wire.ask(Call.SESSION, "POST", url, content=b"{}")


async def test_nothing_below_tls_1_3(certificates):
    async with _serving(certificates, maximum=ssl.TLSVersion.TLSv1_2) as (scripted, wire, url):
        with pytest.raises(StoreUnreachable):
            await wire.ask(Call.SESSION, "POST", url, content=b"{}")
        assert scripted.heads == []


async def test_nobody_there(certificates):
    async with _serving(certificates) as (_, wire, _):
        with pytest.raises(StoreUnreachable, match="reached"):
            await wire.ask(Call.SESSION, "POST", "https://127.0.0.1:1/", content=b"{}")


async def test_a_peer_that_trickles_is_left(certificates):
    async with _serving(certificates) as (scripted, _, url):
        timeouts = Timeouts(exchange_s=0.2)
        wire = Wire(open_client(certificates["store"][0], timeouts), clock=StillClock(), timeouts=timeouts)

        async def behave(reader, writer):
            while not reader.at_eof():
                writer.write(b"H")
                await writer.drain()
                await asyncio.wait_for(reader.read(1), 5)

        scripted.behave = behave
        with pytest.raises(StoreUnreachable):
            await wire.ask(Call.SESSION, "POST", url, content=b"")
        await asyncio.wait_for(scripted.ended.wait(), 5)
        await wire.aclose()


# --- P10: what a peer sends has a limit before memory or time is spent on it


def _stacked(layers, size):
    body = bytes(size)
    for _ in range(layers):
        body = gzip.compress(body, 9)
    return body


@pytest.fixture(scope="module")
def bomb():
    """Some hundreds of bytes that were 64 MiB."""
    return _stacked(3, 64 << 20)


@contextlib.contextmanager
def _within(most_bytes):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


def _raw(head, body=b""):
    async def behave(reader, writer):
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()

    return behave


@pytest.mark.parametrize("encoding", ["gzip, gzip, gzip", "gzip", "deflate", "br", "zstd", "identity, gzip"])
@pytest.mark.parametrize("status", [200, 403, 503])
async def test_p10_an_encoded_answer_is_refused_and_never_unpacked(certificates, bomb, encoding, status):
    async with _serving(certificates) as (scripted, wire, url):
        said = f"HTTP/1.1 {status} X\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n"
        scripted.behave = _raw(said, bomb)
        with _within(8 << 20), pytest.raises(StoreUnreachable, match="encoded"):
            await wire.ask(Call.REGISTER, "PUT", url, content=b"{}")
        with _within(8 << 20), pytest.raises(StoreUnreachable, match="encoded"):
            _ = [block async for block in wire.receive(Call.READ, url, headers={}, check=lambda _: None)]
        assert all("accept-encoding: identity\r\n" in head.lower() for head in scripted.heads)


@pytest.mark.parametrize("path", ["ask", "send", "receive"])
@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n", "10000\r\n" + "x" * 65536 + "\r\n"),
        ("HTTP/1.1 404 X\r\nConnection: close\r\n\r\n", "x" * 65536),
        ("HTTP/1.1 404 X\r\n", "X-More: " + "x" * 8000 + "\r\n"),
        ("HTTP/1.1 404 X\r\nX-Long: ", "x" * 65536),
        ("HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n", "1;" + "x" * 65536),
        ("HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-More: " + "x" * 8000 + "\r\n"),
    ],
    ids=["chunks", "body", "headers", "header", "chunk extension", "trailers"],
)
async def test_p10_an_answer_without_an_end_is_left_early(certificates, path, first, again):
    async with _serving(certificates) as (scripted, wire, url):
        sent = 0

        async def behave(reader, writer):
            nonlocal sent
            writer.write(first.encode())
            while not writer.is_closing():
                writer.write(again.encode())
                sent += len(again)
                assert sent < 64 << 20
                await writer.drain()

        scripted.behave = behave
        asked = {
            "ask": lambda: wire.ask(Call.OFFSET, "GET", url),
            "send": lambda: wire.send(Call.APPEND, "PUT", url, headers={"Content-Length": "65536"}, blocks=_blocks(1)),
            "receive": lambda: anext(wire.receive(Call.READ, url, headers={}, check=lambda _: None)),
        }
        with _within(16 << 20), pytest.raises((StoreUnreachable, UploadLost)):
            await asked[path]()


@pytest.mark.parametrize("part", ["head", "body", "informational"])
@pytest.mark.parametrize("path", ["send", "receive"])
async def test_p10_a_peer_that_trickles_behind_a_body_or_within_a_long_answer_is_left(certificates, path, part):
    async with _serving(certificates) as (scripted, _, url):
        timeouts = Timeouts(exchange_s=0.3, write_s=1.0)
        wire = Wire(open_client(certificates["store"][0], timeouts), clock=StillClock(), timeouts=timeouts)

        async def behave(reader, writer):
            if part == "body":
                writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 9999\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"HTTP/1.1 102 X\r\n\r\n" if part == "informational" else b"H")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(65536), 0.05)

        scripted.behave = behave
        said = {"Content-Length": "65536"}
        asked = {
            "send": lambda: wire.send(Call.APPEND, "PUT", url, headers=said, blocks=_blocks(1)),
            "receive": lambda: anext(wire.receive(Call.READ, url, headers={}, check=lambda _: None)),
        }
        with pytest.raises(StoreUnreachable, match="time"):
            await asked[path]()
        await asyncio.wait_for(scripted.ended.wait(), 5)
        await wire.aclose()


async def test_p10_no_answer_sets_a_cookie(certificates):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = _answer(200, "".join(f"Set-Cookie: a{n}={'x' * 400}; Path=/\r\n" for n in range(100)))
        for _ in range(2):
            await wire.ask(Call.OFFSET, "GET", url)
        assert len(scripted.heads) == 2
        assert "cookie" not in scripted.heads[1].lower()


@pytest.mark.parametrize("path", ["/x\x7f", "/" + "x" * 70_000, "//[", "http://["])
async def test_an_address_that_the_store_named_and_nobody_can_ask_for(certificates, path):
    async with _serving(certificates) as (scripted, wire, url):
        with pytest.raises(StoreUnreachable):
            await wire.ask(Call.OFFSET, "GET", url + path if path.startswith("/") else path)
        scripted.behave = _answer(201, f"Location: {path}\r\nTus-Resumable: 1.0.0\r\n")
        with pytest.raises(StoreUnreachable):
            await Tus(wire).create(url + "/files", 5, {}, headers={})


# --- tus


async def test_p02_cancellation_within_a_patch_closes_its_connection(certificates):
    async with _serving(certificates) as (scripted, wire, url):
        begun = asyncio.Event()

        async def behave(reader, writer):
            await reader.readexactly(100_000)
            begun.set()
            while await reader.read(65536):
                pass

        async def endless():
            yield bytes(200_000)
            await asyncio.Event().wait()

        scripted.behave = behave
        task = asyncio.create_task(Tus(wire).append(url + "/uploads/1", 0, endless(), 1 << 30, headers={}))
        await asyncio.wait_for(begun.wait(), 5)
        assert not scripted.ended.is_set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(scripted.ended.wait(), 5)


async def test_a_patch_says_its_length_and_offset(certificates):
    async with _serving(certificates) as (scripted, wire, url):

        async def behave(reader, writer):
            await reader.readexactly(2 * 65536)
            await _answer(204, "Tus-Resumable: 1.0.0\r\nUpload-Offset: 131079\r\n")(reader, writer)

        scripted.behave = behave
        assert await Tus(wire).append(url + "/uploads/1", 7, _blocks(2), 131072, headers={"A": "b"}) == 131079
        head = scripted.heads[0].lower()
        assert head.startswith("patch /uploads/1 http/1.1\r\n")
        assert "content-length: 131072\r\n" in head
        assert "upload-offset: 7\r\n" in head
        assert "transfer-encoding" not in head
        assert "content-type: application/offset+octet-stream\r\n" in head


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (409, OffsetConflict),
        (460, OffsetConflict),
        (413, PatchTooLarge),
        (403, UploadLost),
        (404, UploadLost),
        (410, UploadLost),
        (423, StoreBusy),
        (401, SessionExpired),
        (502, StoreUnreachable),
    ],
)
async def test_a_patch_that_is_not_taken(certificates, status, error):
    async with _serving(certificates) as (scripted, wire, url):

        async def behave(reader, writer):
            await reader.readexactly(65536)
            await _answer(status, PROBLEM, "{}")(reader, writer)

        scripted.behave = behave
        with pytest.raises(error):
            await Tus(wire).append(url + "/uploads/1", 0, _blocks(1), 65536, headers={})


async def test_an_early_refusal_is_an_error_of_ours_whether_or_not_its_status_survives(certificates):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = _answer(413)  # and closes, with the body unread
        with pytest.raises((PatchTooLarge, StoreUnreachable)):
            await Tus(wire).append(url + "/uploads/1", 0, _blocks(1000), 65_536_000, headers={})


class Slow:
    """A pace that lets `piece` bytes through a time, each after `wait_s`; `paid` goes without waiting."""

    def __init__(self, piece, wait_s):
        self.piece, self.wait_s, self.taken, self.paid = piece, wait_s, 0, 0

    async def take(self, wanted):
        await asyncio.sleep(self.wait_s)
        granted = min(wanted, self.piece)
        self.taken += granted
        return granted

    def spend(self, sent):
        self.paid += sent


async def test_a_body_goes_out_at_the_pace_and_no_time_out_counts_the_wait_for_it(certificates):
    async with _serving(certificates) as (scripted, _, url):
        got = bytearray()

        async def behave(reader, writer):
            got.extend(await reader.readexactly(100_000))
            await _answer(204, "Tus-Resumable: 1.0.0\r\nUpload-Offset: 100000\r\n")(reader, writer)

        scripted.behave = behave
        body = bytes(range(250)) * 400

        async def blocks():
            yield body[:60_000]
            yield body[60_000:]

        pace = Slow(60_000, 2.2)
        timeouts = Timeouts(connect_s=60, read_s=60, write_s=2.0, exchange_s=2.0)
        wire = Wire(open_client(certificates["store"][0], timeouts), clock=StillClock(), timeouts=timeouts, pace=pace)
        assert await Tus(wire).append(url + "/uploads/1", 0, blocks(), len(body), headers={}) == 100_000
        assert bytes(got) == body
        assert (pace.taken, pace.paid) == (100_000, 0)
        await wire.aclose()


async def test_a_large_body_in_one_piece_waits_before_its_exchange_begins_and_a_small_one_not_at_all(certificates):
    async with _serving(certificates) as (scripted, _, url):
        scripted.behave = _answer(204)
        pace = Slow(40_000, 2.0)
        timeouts = Timeouts(connect_s=60, read_s=60, write_s=60, exchange_s=5.0)
        wire = Wire(open_client(certificates["store"][0], timeouts), clock=StillClock(), timeouts=timeouts, pace=pace)
        await wire.ask(Call.REGISTER, "POST", url, content=bytes(100_000))
        assert (pace.taken, pace.paid) == (100_000, 0)
        await wire.ask(Call.REGISTER, "POST", url, content=bytes(1000))
        assert (pace.taken, pace.paid) == (100_000, 1000)
        await wire.aclose()


async def test_what_fails_while_reading_the_spool_passes_through(certificates):
    class OwnError(Exception):
        pass

    async def broken():
        yield bytes(65536)
        raise OwnError

    async with _serving(certificates) as (scripted, wire, url):

        async def behave(reader, writer):
            while await reader.read(65536):
                pass

        scripted.behave = behave
        with pytest.raises(OwnError):
            await Tus(wire).append(url + "/uploads/1", 0, broken(), 1 << 20, headers={})
        await asyncio.wait_for(scripted.ended.wait(), 5)


@pytest.mark.parametrize(
    "header", ["", "Upload-Offset: -1\r\n", "Upload-Offset: 1e3\r\n", "Upload-Offset: " + "9" * 30 + "\r\n"]
)
async def test_an_offset_that_is_none(certificates, header):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = _answer(200, "Tus-Resumable: 1.0.0\r\n" + header)
        with pytest.raises(StoreUnreachable, match="upload-offset"):
            await Tus(wire).offset(url + "/uploads/1", headers={})


async def test_a_head_without_tus_is_somebody_else(certificates):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = _answer(200, "Upload-Offset: 5\r\n")
        with pytest.raises(StoreUnreachable, match="tus"):
            await Tus(wire).offset(url + "/uploads/1", headers={})


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/uploads/a?b=c", "/uploads/a?b=c"),
        ("a", "/uploads/a"),
        ("https://127.0.0.1/files/a", "/files/a"),
        ("http://127.0.0.1:80/files/a", "/files/a"),  # a proxy ended TLS: our own scheme and port are kept
    ],
)
async def test_creation_keeps_the_path_alone(certificates, location, path):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = _answer(201, f"Tus-Resumable: 1.0.0\r\nLocation: {location}\r\n")
        assert await Tus(wire).create(url + "/uploads/", 10, {"name": "é"}, headers={}) == path
        assert "upload-metadata: name w6k=\r\n" in scripted.heads[0].lower().replace("W6k=", "w6k=")


@pytest.mark.parametrize("location", ["https://elsewhere.example/a", "//elsewhere.example/a", "ftp://127.0.0.1/a"])
async def test_an_upload_elsewhere_is_not_used(certificates, location):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = _answer(201, f"Tus-Resumable: 1.0.0\r\nLocation: {location}\r\n")
        with pytest.raises(StoreUntrusted, match="outside"):
            await Tus(wire).create(url + "/uploads", 10, {}, headers={})


def test_an_authority_that_cannot_be_read_is_a_configuration_error(tmp_path):
    bad = tmp_path / "ca.pem"
    bad.write_text("not a certificate")
    for path in (bad, tmp_path / "missing"):
        with pytest.raises(ConfigError) as caught:
            open_client(path, Timeouts())
        assert "store.ca_file" in caught.value.problems[0]


async def _received(wire, url, seen=None):
    got = b""
    async with contextlib.aclosing(wire.receive(Call.READ, url, headers={}, check=seen or (lambda _: None))) as blocks:
        async for block in blocks:
            got += block
    return got


async def test_an_object_is_received_whole_and_its_head_is_seen_first(certificates):
    async with _serving(certificates) as (scripted, wire, url):
        body = "x" * 3_000_000  # longer than any answer that is held in memory
        scripted.behave = _answer(206, "ETag: abc\r\n", body)
        heads = []
        assert await _received(wire, url, heads.append) == body.encode()
        assert [(one.status, one.headers["etag"]) for one in heads] == [(206, "abc")]
        assert "accept-encoding: identity" in scripted.heads[0].lower()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_says("HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nhalf"), StoreUnreachable),
        (_answer(404), UploadLost),
        (_answer(503), StoreBusy),
        (_answer(204), StoreUnreachable),
        (_answer(401), SessionExpired),
        (_says(""), StoreUnreachable),
    ],
)
async def test_what_cannot_be_received_is_one_of_our_errors(certificates, answer, error):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = answer
        with pytest.raises(error):
            await _received(wire, url)


async def test_a_status_that_the_caller_expects_is_not_judged(certificates):
    async with _serving(certificates) as (scripted, wire, url):
        scripted.behave = _answer(412)
        assert (await wire.ask(Call.REGISTER, "PUT", url, expected=(412,))).status == 412


async def test_the_system_s_trust_does_not_know_a_stranger(certificates):
    async with _serving(certificates) as (_, _, url):
        timeouts = Timeouts(connect_s=5, read_s=5, write_s=5, exchange_s=5)
        wire = Wire(open_client(None, timeouts), clock=StillClock(), timeouts=timeouts)
        with pytest.raises(StoreUntrusted, match="authority"):
            await wire.ask(Call.REGISTER, "POST", url, content=b"")
        await wire.aclose()


async def test_a_new_client_certificate_is_shown_without_a_new_client(certificates, tmp_path):
    ours = tmp_path / "ours.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates["store"])
    context.verify_mode = ssl.CERT_REQUIRED
    for name in ("store", "stranger"):
        context.load_verify_locations(certificates[name][0])
    shown = []

    async def serve(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            shown.append(ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)))
            writer.write(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    def show(*names):
        ours.write_bytes(b"".join(path.read_bytes() for path in names))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    timeouts = Timeouts(connect_s=5, read_s=5, write_s=5, exchange_s=5)
    show(*certificates["store"])
    files = ClientCertificate(cert_file=ours, key_file=ours)
    client = open_client(certificates["store"][0], timeouts, certificate=files)
    wire = Wire(client, clock=StillClock(), timeouts=timeouts)
    await wire.ask(Call.REGISTER, "POST", url, content=b"")
    show(certificates["stranger"][0], certificates["store"][1])  # half of a change: the old one goes on
    await wire.ask(Call.REGISTER, "POST", url, content=b"")
    show(*certificates["stranger"])
    await wire.ask(Call.REGISTER, "POST", url, content=b"")
    await wire.aclose()
    server.close()
    old, new = (certificates[name][0].read_text() for name in ("store", "stranger"))
    assert shown == [old, old, new]


def test_a_client_certificate_that_cannot_be_read_is_a_configuration_error(certificates, tmp_path):
    missing = ClientCertificate(cert_file=tmp_path / "none", key_file=tmp_path / "none")
    with pytest.raises(ConfigError, match="our own certificate"):
        open_client(certificates["store"][0], Timeouts(), certificate=missing)
    with pytest.raises(ConfigError, match="proxy"):
        open_client(certificates["store"][0], Timeouts(), proxy_url="gopher://proxy:1")


async def test_a_proxy_is_asked_for_a_tunnel(certificates):
    async with _serving(certificates) as (scripted, _, url):
        scripted.behave = _answer(204)
        asked = []

        async def tunnel(reader, writer):
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
            port = int(url.rpartition(":")[2])
            there, back = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

            async def pass_on(source, sink):
                with contextlib.suppress(OSError):
                    while piece := await source.read(65536):
                        sink.write(piece)
                        await sink.drain()
                sink.close()

            await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        proxy_url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        timeouts = Timeouts(connect_s=5, read_s=5, write_s=5, exchange_s=5)
        client = open_client(certificates["store"][0], timeouts, proxy_url=proxy_url)
        wire = Wire(client, clock=StillClock(), timeouts=timeouts)
        await wire.ask(Call.REGISTER, "POST", url, content=b"")
        await wire.aclose()
        proxy.close()
        assert asked == [f"CONNECT {url.removeprefix('https://')} HTTP/1.1"]


async def test_a_handshake_that_is_cut_short_closes_its_connection(certificates):
    """Without us it would stay open until the garbage collector comes by."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def says_nothing(reader, writer):
        await reader.read(1)
        begun.set()
        while await reader.read(65536):
            pass
        ended.set()
        writer.close()

    async with await asyncio.start_server(says_nothing, "127.0.0.1", 0) as server, asyncio.timeout(20):
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        client = open_client(certificates["store"][0], Timeouts())
        gc.disable()
        try:
            asking = asyncio.create_task(client.get(url))
            await begun.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await ended.wait()
        finally:
            gc.enable()
            await client.aclose()
