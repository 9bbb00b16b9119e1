"""What an Axis content destination's answers mean, and one that only takes, as Axis's own example does."""

import hashlib
import json
from contextlib import aclosing
from datetime import UTC, datetime

import httpx
import pytest
from servers.scripted import scripted

from dockd.core.manifest import encode
from dockd.core.objects import Piece
from dockd.core.transfer import Call, RetryClass
from dockd.errors import StoreBusy, StoreRefused, StoreUnreachable, StoreUntrusted
from dockd.model import SignedBytes
from dockd.stores.axis import AxisStore
from dockd.stores.axis_names import segment
from dockd.stores.axis_segments import MAX_PIECES, Segments
from dockd.stores.axis_session import AxisCredentials, CredentialFile, judge
from dockd.stores.wire import Answer

STATION = "6f1e2d3c-0000-4000-8000-000000000001"
SWIFT, PLAIN, PAGE = {"x-trans-id": "tx1"}, {"content-type": "text/plain; charset=utf-8"}, {"content-type": "text/html"}
ALWAYS = 1000


class StillClock:
    def now(self):
        return datetime(2026, 2, 1, 7, 30, tzinfo=UTC)

    def monotonic_s(self):
        return 0.0

    async def sleep(self, delay_s):
        raise AssertionError("nothing waits here")


def _judged(call, status, headers, body=b"no"):
    return judge(call, Answer(status=status, headers=httpx.Headers(headers), body=body))


@pytest.mark.parametrize(
    ("call", "status", "headers", "body", "found"),
    [
        (Call.REGISTER, 400, PLAIN, b"the clip has no duration", RetryClass.REFUSED),
        (Call.APPEND, 400, SWIFT, b"", RetryClass.REFUSED),
        (Call.FINISH, 400, PAGE, b"<html>nginx</html>", RetryClass.UNUSABLE),
        (Call.SESSION, 400, PLAIN, b"no", RetryClass.UNUSABLE),
        (Call.REGISTER, 402, PLAIN, b"no licence", RetryClass.LATER),
        (Call.APPEND, 403, SWIFT, b"", RetryClass.UNUSABLE),
        (Call.READ, 403, PLAIN, b"Operation forbidden", RetryClass.REFUSED),
        (Call.READ, 403, PAGE, b"<html>sign in</html>", RetryClass.UNUSABLE),
        (Call.READ, 405, SWIFT, b"", RetryClass.REFUSED),
        (Call.OFFSET, 404, {}, b"", RetryClass.GONE),
        (Call.APPEND, 413, SWIFT, b"<html><p>Upload exceeds quota.</p></html>", RetryClass.LATER),
        (Call.APPEND, 413, PAGE, b"<html>nginx</html>", RetryClass.SHRINK),
        (Call.FINISH, 422, SWIFT, b"", RetryClass.LATER),
        (Call.APPEND, 503, SWIFT, b"", RetryClass.LATER),
        (Call.APPEND, 507, PLAIN, b"Insufficient Storage", RetryClass.LATER),
        (Call.APPEND, 401, SWIFT, b"", RetryClass.RENEW),
        (Call.SESSION, 401, SWIFT, b"", RetryClass.UNUSABLE),
        (Call.APPEND, 201, {}, b"", RetryClass.DONE),
    ],
)
def test_what_an_answer_means(call, status, headers, body, found):
    assert _judged(call, status, headers, body).found is found


@pytest.mark.parametrize("call", list(Call))
def test_p09_a_page_of_a_proxy_refuses_no_clip(call):
    for status in range(400, 600):
        if call in (Call.OFFSET, Call.LOOK):
            continue  # a HEAD's answer has no words; none of its classes is a refusal
        assert _judged(call, status, PAGE, b"<html>portal</html>").found is not RetryClass.REFUSED


def test_a_full_store_says_so_in_words():
    assert "no licence left" in _judged(Call.REGISTER, 402, PLAIN).words
    assert "no room left" in _judged(Call.APPEND, 507, PLAIN).words
    assert "no room left" in _judged(Call.APPEND, 413, SWIFT, b"<p>Upload exceeds quota.</p>").words
    assert "\x1b" not in _judged(Call.REGISTER, 400, PLAIN, b"clip \x1b[31m refused").words


def _store(server, **more):
    return AxisStore(
        name="axis",
        url=f"{server.url}/auth/v1.0",
        ca_file=None,
        clock=StillClock(),
        credentials=lambda: AxisCredentials(user="u", key="k"),
        station=STATION,
        insecure_loopback=True,
        **more,
    )


def _token(server, storage=None, **headers):
    said = {"X-Auth-Token": "t1", "X-Storage-Url": storage or f"{server.url}/v1.0/abc", **headers}
    server.on("GET", "/auth/v1.0", 200, headers=said, times=ALWAYS)


@pytest.mark.parametrize(
    "storage",
    [
        "https://elsewhere.example/v1/a",
        "//elsewhere.example/v1/a",
        "ftp://127.0.0.1/v1/a",
        "http://127.0.0.1/v1/a?token=1",
        "http://127.0.0.1",
        "http://127.0.0.1/v1//a",
        "http://[::1/v1/a",
        "/v1/a",
    ],
)
async def test_a_storage_address_elsewhere_is_not_used(storage):
    async with scripted() as server:
        _token(server, storage)
        async with aclosing(_store(server)) as store:
            with pytest.raises(StoreUntrusted, match="outside"):
                await store.account.ask(Call.LOOK, "HEAD", ("Users",))
        assert not server.asked("HEAD")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_only_the_path_of_a_storage_address_counts(scheme):
    async with scripted() as server:
        _token(server, f"{scheme}://127.0.0.1:1/v1/AUTH_a/")  # a server behind a proxy knows neither scheme nor port
        server.on("HEAD", "/v1/AUTH_a/Users", 204)
        async with aclosing(_store(server)) as store:
            await store.account.ask(Call.LOOK, "HEAD", ("Users",))
        assert server.asked("HEAD")[0].headers["x-auth-token"] == "t1"


@pytest.mark.parametrize("token", ["", "a\x7fb", "é"])
async def test_a_token_that_is_none_is_no_session(token):
    async with scripted() as server:
        said = {"X-Auth-Token": token, "X-Storage-Url": f"{server.url}/v1.0/abc"}
        server.on("GET", "/auth/v1.0", 200, headers=said)
        async with aclosing(_store(server)) as store:
            with pytest.raises(StoreUnreachable):
                await store.account.ask(Call.LOOK, "HEAD", ("Users",))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"BlobAPIUserName":"u"}',
        '{"BlobAPIUserName":"u","BlobAPIKey":7}',
        '{"BlobAPIUserName":"u","BlobAPIKey":"a\\r\\nb"}',
        "[" * 9999,
        " " * 70_000,
    ],
)
def test_a_connection_file_that_is_no_use_is_named(tmp_path, content):
    file = tmp_path / "connection.json"
    file.write_text(content)
    with pytest.raises(StoreUnreachable, match="BlobAPIKey"):
        CredentialFile(file)()
    assert "k" not in repr(AxisCredentials(user="u", key="k")).removeprefix("AxisCredentials")


def _taking(server, *, capabilities=None):
    """Rules of a destination that knows the API's own requests alone, and gives nothing back."""
    _token(server)
    body = json.dumps(capabilities or {}).encode()
    etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    server.on("GET", "/System/Capabilities.json", 200, body, headers={"ETag": etag}, times=ALWAYS)
    server.on("GET", "/v1.0/abc/", 403, "forbidden", headers=PLAIN, times=ALWAYS)
    server.on("HEAD", "/v1.0/abc/", 400, times=ALWAYS)
    server.on("PUT", "/v1.0/abc/", 201, times=ALWAYS)
    server.on("POST", "/v1.0/abc/", 204, times=ALWAYS)


async def _blocks(content):
    yield content


async def test_a_destination_that_only_takes_gets_everything_and_confirms_nothing(make_manifest):
    content = b"sealed" * 100
    stated = make_manifest(sealed_size_bytes=len(content))
    manifest = SignedBytes(payload=encode(stated), signature="s\n")
    async with scripted() as server, aclosing(_store(server, key_objects=True)) as store:
        _taking(server, capabilities={"StoreAndRead": {"StoreReadSystemID": True}, "Store": {"StoreUserIDKey": True}})
        url = await store.register(stated.acquisition, manifest, len(content))
        assert await store.offset(url) == 0
        assert await store.append(url, 0, _blocks(content), len(content)) == len(content)
        objects = await store.finish(url, stated.acquisition, manifest)
        with pytest.raises(StoreRefused, match="does not say what it holds"):
            await store.look(objects)
        with pytest.raises(StoreRefused, match="forbidden"):
            async with aclosing(store.read(objects, Piece.SEALED, 0)) as blocks:
                _ = [block async for block in blocks]
        await store.abandon(url)
        puts = [(one.path.removeprefix("/v1.0/abc/"), one) for one in server.asked("PUT")]
        assert f"System/{STATION}" in dict(puts)
        assert "x-object-meta-userid" in dict(puts)[next(one for one, _ in puts if one.startswith("Users/"))].headers
        assert [one.split("/")[-1].split("_")[-1].partition(".")[2] for one, _ in puts[-4:]] == [
            "mp4",
            "manifest.json",
            "manifest.json.sig",
            "key",
        ]
        clip = puts[-4][1]
        assert (clip.headers["if-none-match"], clip.body) == ("*", content)
        assert clip.headers["x-object-meta-containertype"] == "mp4"
        assert server.seen.index(server.asked("POST")[0]) > server.seen.index(puts[-1][1])
        assert server.asked("POST")[0].headers["x-container-meta-status"] == "Complete"
        assert not server.asked("DELETE")


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, StoreRefused), (402, StoreBusy), (403, StoreUnreachable), (503, StoreBusy), (507, StoreBusy)],
)
async def test_a_camera_that_the_store_does_not_take(make_manifest, status, error):
    stated = make_manifest()
    async with scripted() as server, aclosing(_store(server)) as store:
        server.on("PUT", "/Devices/", status, "words of the store", headers=PLAIN | {"Retry-After": "9"})
        _taking(server)
        with pytest.raises(error, match="words of the store") as caught:
            await store.register(stated.acquisition, SignedBytes(payload=encode(stated), signature="s"), 600)
        assert not isinstance(caught.value, StoreBusy) or caught.value.retry_after_s == 9.0


async def test_capabilities_whose_etag_is_wrong_do_not_count(make_manifest):
    stated = make_manifest()
    async with scripted() as server, aclosing(_store(server)) as store:
        server.on("GET", "/System/Capabilities.json", 200, '{"Store":{"StoreUserIDKey":true}}', headers={"ETag": "0"})
        _taking(server)
        await store.register(stated.acquisition, SignedBytes(payload=encode(stated), signature="s"), 600)
        assert not [one for one in server.asked("PUT") if "x-object-meta-userid" in one.headers]


# --- P10: what the store lists of a clip's pieces


def _page(names, size=7):
    return json.dumps([{"name": name, "bytes": size, "hash": "0" * 32} for name in names])


@pytest.mark.parametrize("step", [0, 1, -1], ids=["stands", "grows", "goes back"])
async def test_p10_a_listing_of_pieces_ends_whatever_the_store_lists(make_manifest, step):
    acquisition = make_manifest().acquisition
    async with scripted() as server, aclosing(_store(server)) as store:
        _token(server)
        for number in range(100):
            first = 100_000 + 500 * step * number
            server.on("GET", "format=json", 200, _page([segment(acquisition, first + at) for at in range(500)]))
        with pytest.raises(StoreUnreachable, match="listing"):
            await Segments(store.account).listed(acquisition)
        assert len(server.asked("GET", "format")) <= (8 if step > 0 else 2)


async def test_p10_pieces_of_one_byte_are_not_asked_for_one_after_the_other_for_ever(make_manifest):
    async with scripted() as server, aclosing(_store(server)) as store:
        _token(server)
        server.on("GET", "format=json", 200, "[]")
        server.on("HEAD", "/v1.0/abc/", 200, headers={"ETag": "0" * 32, "Content-Length": "1"}, times=10 * ALWAYS)
        with pytest.raises(StoreUnreachable, match="more pieces"):
            await Segments(store.account).held(make_manifest().acquisition, 1 << 40)
        assert len(server.asked("HEAD")) <= MAX_PIECES + 1


@pytest.mark.parametrize(
    "size", ["1e999", "-1e999", "NaN", "-1", "1.5", "9" * 5000, "9" * 17, "true1", '"7"', "null", "[]"]
)
async def test_p10_a_size_that_is_none_is_one_of_our_errors(make_manifest, size):
    acquisition = make_manifest().acquisition
    async with scripted() as server, aclosing(_store(server)) as store:
        _token(server)
        body = f'[{{"name": "{segment(acquisition, 0)}", "bytes": {size}, "hash": "{"0" * 32}"}}]'
        server.on("GET", "format=json", 200, body)
        with pytest.raises(StoreUnreachable, match="cannot be read"):
            await Segments(store.account).listed(acquisition)


@pytest.mark.parametrize("length", ["9" * 5000, "9" * 17])
async def test_p10_a_length_that_is_none_is_one_of_our_errors(make_manifest, length):
    stated = make_manifest()
    async with scripted() as server, aclosing(_store(server)) as store:
        _taking(server)
        url = await store.register(stated.acquisition, SignedBytes(payload=encode(stated), signature="s"), 600)
        server.rules.clear()
        server.on("HEAD", "/v1.0/abc/", 200, headers={"Content-Length": length})
        with pytest.raises(StoreUnreachable):
            await store.offset(url)
