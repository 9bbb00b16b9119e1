"""Sessions of the receiver's adapter, against a small scripted receiver over TLS."""

import asyncio
import base64
import contextlib
import json
import ssl
import uuid

import pytest
import structlog

from dockd.core import canonical, sshsig
from dockd.core.keyfiles import StorePublic
from dockd.errors import ConfigError, NotExtended, OffsetConflict, StoreIncomplete, StoreUnreachable, StoreUntrusted
from dockd.model import SignedBytes
from dockd.stores.receiver_store import ReceiverStore

STATION, STORE = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
KEY, STORE_KEY = sshsig.SigningKey.generate(), sshsig.SigningKey.generate()
MANIFEST = SignedBytes(payload=b"{}", signature="s")


class ScriptedReceiver:
    """Answers /session by the rules, and everything else from `answers` where the token is the newest."""

    def __init__(self):
        self.store = STORE
        self.challenge = bytes(range(32))
        self.refuse_tokens = 0
        self.sessions = 0
        self.asked = []
        self.statements = []
        self.unknown = False
        self.offers = None  # None: a receiver from before there was anything to choose
        self.gives = {}  # with a session of version 2
        self.refusal = None  # of an extension

    @property
    def token(self):
        return f"secret-token-{self.sessions}"

    def answer(self, method, path, headers, body):
        self.asked.append((method, path))
        if path.endswith("/session"):
            return self._session(json.loads(body))
        if headers.get("authorization") != f"Bearer {self.token}" or self.refuse_tokens:
            self.refuse_tokens = max(0, self.refuse_tokens - 1)
            return 401, {}, problem("the token is not known")
        if method == "HEAD":
            return 200, {"Upload-Offset": "5", "Tus-Resumable": "1.0.0"}, b""
        if method == "PUT":
            return 201, {"Location": "/uploads/a"}, encoded("upload", upload="/uploads/a", offset=0, stored=False)
        if method == "PATCH":
            offset = int(headers["upload-offset"]) + len(body)
            return 204, {"Upload-Offset": str(offset), "Tus-Resumable": "1.0.0"}, b""
        return self._extension() if path.endswith("/extension") else (200, {}, encoded("checkpoint-size", size=3))

    def _extension(self):
        said = {"type": f"urn:dockd:problem:{self.refusal}", "detail": "as it is"}
        return 409, {}, json.dumps(said).encode()

    def _session(self, record):
        if self.unknown:
            return 403, {}, problem("enrol this station first")
        if record["type"] == "session-request":
            if "accepts" in record and self.offers is None:
                return 400, {}, problem("unknown accepts")
            challenge = base64.b64encode(self.challenge).decode()
            offers = {"v": 2, "offers": self.offers} if "accepts" in record else {}
            return 200, {}, encoded("challenge", store=self.store, challenge=challenge, expires="x", **offers)
        signed = sshsig.signed_from_json(record)
        sshsig.verify(KEY.public, sshsig.SESSION, signed.payload, signed.signature)
        self.statements.append(canonical.decode(signed.payload, type_="session", newest=2))
        self.sessions += 1
        chosen = {"v": 2} | self.gives if self.statements[-1]["v"] == 2 else {}
        return 201, {}, encoded("session-token", token=self.token, expires="x", **chosen)


def encoded(type_, **fields):
    return canonical.encode({"type": type_, "v": 1} | fields)


def problem(detail):
    return json.dumps({"detail": detail}).encode()


async def _serve(scripted, reader, writer):
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split()
            headers = {
                key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            status, more, content = scripted.answer(method, path, headers, body)
            kind = "application/problem+json" if status >= 400 else "application/json"
            length = "" if status == 204 else f"Content-Length: {len(content)}\r\n"
            lines = "".join(f"{key}: {value}\r\n" for key, value in more.items())
            content = b"" if method == "HEAD" else content
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{length}{lines}\r\n".encode() + content)
            await writer.drain()
    writer.close()


@pytest.fixture
async def scripted():
    return ScriptedReceiver()


@pytest.fixture
async def store(scripted, certificates, clock):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates["store"])
    server = await asyncio.start_server(lambda *ends: _serve(scripted, *ends), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    made = _store(f"https://127.0.0.1:{port}/evidence/", certificates["store"][0], clock)
    scripted.authority = f"127.0.0.1:{port}"
    yield made
    await made.aclose()
    server.close()


def _store(url, ca_file, clock):
    public = StorePublic(store=STORE, key=STORE_KEY.public)
    return ReceiverStore(url=url, ca_file=ca_file, store_public=public, station=STATION, key=KEY, clock=clock)


async def test_one_session_serves_many_calls(store, scripted):
    sizes = await asyncio.gather(*(store.witnessed_size() for _ in range(5)))
    assert sizes == [3] * 5
    assert scripted.sessions == 1
    statement = scripted.statements[0]
    assert statement["host"] == scripted.authority
    assert (statement["store"], statement["station"]) == (STORE, STATION)
    assert scripted.asked[0] == ("POST", "/evidence/session")


async def test_a_token_that_is_not_taken_is_renewed_once(store, scripted):
    await store.witnessed_size()
    scripted.refuse_tokens = 1
    assert await store.offset("/uploads/a") == 5
    assert scripted.sessions == 2
    scripted.refuse_tokens = 2
    with pytest.raises(StoreUnreachable, match="401"):
        await store.offset("/uploads/a")
    assert await store.offset("/uploads/a") == 5


async def test_many_calls_with_a_stale_token_open_one_session(store, scripted):
    await store.witnessed_size()
    scripted.sessions += 1  # whatever token the station has, it is not the newest
    await asyncio.gather(*(store.offset("/uploads/a") for _ in range(5)))
    assert len(scripted.statements) == 2


async def test_a_patch_whose_session_ended_asks_for_the_offset(store, scripted):
    async def blocks():
        yield bytes(10)

    await store.witnessed_size()
    scripted.refuse_tokens = 1
    with pytest.raises(OffsetConflict, match="session"):
        await store.append("/uploads/a", 0, blocks(), 10)
    assert await store.append("/uploads/a", 5, blocks(), 10) == 15
    assert scripted.sessions == 2


async def test_p01_another_store_gets_no_statement(store, scripted):
    scripted.store = str(uuid.UUID(int=3))
    with pytest.raises(StoreUntrusted, match="pinned"):
        await store.register(str(uuid.UUID(int=9)), MANIFEST, 1)
    assert scripted.statements == []


@pytest.mark.parametrize("challenge", [b"", bytes(31), bytes(33), bytes(4096)])
async def test_only_a_challenge_of_32_bytes_is_signed(store, scripted, challenge):
    scripted.challenge = challenge
    with pytest.raises(StoreUnreachable, match="challenge"):
        await store.witnessed_size()
    assert scripted.statements == []


async def test_p09_a_station_that_is_not_enrolled_waits_and_condemns_no_clip(store, scripted):
    scripted.unknown = True
    with pytest.raises(StoreUnreachable, match="enrol this station"):
        await store.register(str(uuid.UUID(int=9)), MANIFEST, 1)
    scripted.unknown = False
    assert await store.register(str(uuid.UUID(int=9)), MANIFEST, 1) == "/uploads/a"


# --- versions

ALL = {"receipt": [1, 2, 3], "holding": [1, 2, 3], "policy": [1], "extension": [1]}
RECEIPT = canonical.digest(b"receipt")


async def test_a_receiver_of_before_gets_the_statement_of_before(store, scripted):
    assert await store.policy() is None
    assert scripted.asked == [("POST", "/evidence/session")] * 3  # asked, refused, asked as before
    (statement,) = scripted.statements
    assert statement["v"] == 1
    assert "accepts" not in statement
    with pytest.raises(NotExtended) as caught:
        await store.extension("a", RECEIPT, 0)
    assert not caught.value.over
    assert len(scripted.asked) == 3


async def test_a_receiver_that_offers_is_told_under_signature_what_is_accepted(store, scripted):
    scripted.offers = ALL
    scripted.gives = {"versions": {"receipt": 3, "policy": 1}, "policy": sshsig.signed_to_json(MANIFEST)}
    assert await store.policy() == MANIFEST
    (statement,) = scripted.statements
    assert (statement["v"], statement["accepts"]) == (2, ALL)
    assert await store.policy() == MANIFEST
    assert scripted.sessions == 1
    assert await store.policy(anew=True) == MANIFEST
    assert scripted.sessions == 2


@pytest.mark.parametrize(
    "gives",
    [
        {"versions": {"receipt": 4}},
        {"versions": {"letter": 1}},
        {"versions": []},
        {"versions": {"receipt": True}},
        {"policy": "text"},
        {"policy": {"type": "signed"}},
    ],
)
async def test_a_session_by_versions_that_were_not_accepted_is_none(store, scripted, gives):
    scripted.offers, scripted.gives = ALL, gives
    with pytest.raises(StoreUnreachable):
        await store.policy()


@pytest.mark.parametrize(
    ("refusal", "error", "over"),
    [("promise-over", NotExtended, True), ("not-longer", NotExtended, False), ("incomplete", StoreIncomplete, None)],
)
async def test_p01_an_extension_that_is_refused_says_whether_the_promise_is_over(store, scripted, refusal, error, over):
    scripted.offers, scripted.gives, scripted.refusal = ALL, {"versions": {"extension": 1}}, refusal
    with pytest.raises(error, match="as it is") as caught:
        await store.extension("a", RECEIPT, 0)
    assert over is None or caught.value.over is over


async def test_tokens_are_not_logged(store, scripted):
    with structlog.testing.capture_logs() as logs:
        await store.witnessed_size()
        scripted.refuse_tokens = 1
        await store.witnessed_size()
        scripted.refuse_tokens = 2
        with pytest.raises(StoreUnreachable) as caught:
            await store.witnessed_size()
    assert logs
    assert "secret-token" not in repr(logs) + str(caught.value)


async def test_an_upload_address_that_is_no_path_is_not_dialled(store):
    with pytest.raises(StoreUntrusted):
        await store.offset("https://elsewhere.example/uploads/a")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://a/?b", "https://a:99999"])
def test_an_address_that_cannot_be_used(url, certificates, clock):
    with pytest.raises(ConfigError) as caught:
        _store(url, certificates["store"][0], clock)
    assert "store.url" in caught.value.problems[0]
