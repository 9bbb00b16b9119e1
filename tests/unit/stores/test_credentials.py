"""Keys out of files, environments and token exchanges, and how they are renewed."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from servers.scripted import scripted

from dockd.errors import StoreError, StoreUnreachable
from dockd.stores.credentials import Credentials, EnvironmentCredentials, FileCredentials
from dockd.stores.s3_signing import Signer
from dockd.stores.web_identity import WebIdentityCredentials

NOW = datetime(2026, 2, 1, 7, 30, tzinfo=UTC)


class TurnedClock:
    def __init__(self):
        self.moment = NOW

    def now(self):
        return self.moment

    def monotonic_s(self):
        return 0.0

    async def sleep(self, delay_s):
        raise AssertionError("nothing waits here")


def _write(path, key, secret="s%x", token=""):  # noqa: S107
    path.write_text(
        f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        + (f"aws_session_token = {token}\n" if token else "")
        + "[other]\naws_access_key_id = OTHER\naws_secret_access_key = o\n"
    )


async def test_a_file_is_read_again_when_it_changed(tmp_path):
    path = tmp_path / "credentials"
    _write(path, "ONE")
    source = FileCredentials(path)
    assert await source.current() == Credentials(access_key="ONE", secret_key="s%x")  # noqa: S106
    beside = tmp_path / "new"
    _write(beside, "TWO", token="t")  # noqa: S106
    os.replace(beside, path)
    assert await source.current() == Credentials(access_key="TWO", secret_key="s%x", session_token="t")  # noqa: S106
    assert (await FileCredentials(path, profile="other").current()).access_key == "OTHER"


async def test_a_file_that_seems_unchanged_is_read_again_when_its_key_was_refused(tmp_path):
    path = tmp_path / "credentials"
    _write(path, "ONE")
    stood = path.stat()
    source = FileCredentials(path)
    old = await source.current()
    _write(path, "TWO")
    os.utime(path, ns=(stood.st_atime_ns, stood.st_mtime_ns))
    assert (await source.renewed(old)).access_key == "TWO"


@pytest.mark.parametrize(
    "text", ["", "[default]\n", "no section", "[other]\naws_access_key_id = x\n", "[default]\nsecret"]
)
async def test_a_file_without_keys_says_so_and_no_more(tmp_path, text):
    path = tmp_path / "credentials"
    path.write_text(text)
    with pytest.raises(StoreUnreachable, match="aws_access_key_id") as caught:
        await FileCredentials(path).current()
    assert "= x" not in str(caught.value)


async def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StoreUnreachable, match="cannot be read"):
        await FileCredentials(tmp_path / "none").current()


async def test_an_environment():
    environment = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "S", "AWS_SESSION_TOKEN": "T"}
    found = await EnvironmentCredentials(environment).current()
    assert (found.access_key, found.secret_key, found.session_token) == ("A", "S", "T")
    with pytest.raises(StoreUnreachable, match="environment"):
        await EnvironmentCredentials({"AWS_ACCESS_KEY_ID": "A"}).current()


def test_what_is_secret_is_not_shown():
    shown = repr(Credentials(access_key="A", secret_key="hidden", session_token="hidden"))  # noqa: S106
    assert "hidden" not in shown


@pytest.mark.parametrize("text", ["\u00e9", "a\nb", "a\x7f"])
def test_p09_credentials_that_no_request_can_hold_are_one_of_our_errors(text):
    with pytest.raises(StoreUnreachable, match="characters"):
        Credentials(access_key="A", secret_key="S", session_token=text)  # noqa: S106


# --- token exchange


async def test_p09_a_session_that_is_over_when_it_is_given_is_not_asked_for_with_every_request(exchange):
    server, _token, _clock, source = exchange
    server.on("POST", "/", 200, _answer(1, NOW - timedelta(seconds=1)))
    with pytest.raises(StoreUnreachable, match="over already"):
        await source.current()


def _answer(number, expires_at):
    return (
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
        f"<AccessKeyId>A{number}</AccessKeyId><SecretAccessKey>S</SecretAccessKey><SessionToken>T</SessionToken>"
        f"<Expiration>{expires_at.isoformat()}</Expiration>"
        "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )


@pytest.fixture
async def exchange(tmp_path):
    async with scripted() as server:
        token = tmp_path / "token"
        token.write_text("first.token\n")
        clock = TurnedClock()
        source = WebIdentityCredentials(
            url=server.url,
            role="arn:aws:iam::1:role/dock",
            session_name="dock-7",
            token_file=token,
            clock=clock,
            insecure_loopback=True,
        )
        yield server, token, clock, source
        await source.aclose()


async def test_a_token_becomes_a_session_once(exchange):
    server, _token, _clock, source = exchange
    server.on("POST", "/", 200, _answer(1, NOW + timedelta(hours=1)))
    first = await source.current()
    assert (first.access_key, first.session_token) == ("A1", "T")
    assert await source.current() is first
    (asked,) = server.seen
    assert b"Action=AssumeRoleWithWebIdentity" in asked.body
    assert b"WebIdentityToken=first.token" in asked.body
    assert b"DurationSeconds=3600" in asked.body


async def test_a_session_is_renewed_before_it_ends_with_the_token_of_then(exchange):
    server, token, clock, source = exchange
    server.on("POST", "/", 200, _answer(1, NOW + timedelta(hours=1)))
    await source.current()
    clock.moment = NOW + timedelta(minutes=56)
    token.write_text("second.token")
    server.on("POST", "/", 200, _answer(2, NOW + timedelta(hours=2)))
    assert (await source.current()).access_key == "A2"
    assert b"second.token" in server.seen[1].body


async def test_a_session_that_cannot_be_renewed_early_is_used_to_its_end(exchange):
    server, _token, clock, source = exchange
    server.on("POST", "/", 200, _answer(1, NOW + timedelta(hours=1)))
    await source.current()
    clock.moment = NOW + timedelta(minutes=56)
    server.on("POST", "/", 503, times=2)
    assert (await source.current()).access_key == "A1"
    clock.moment = NOW + timedelta(minutes=61)
    with pytest.raises(StoreError):
        await source.current()


async def test_a_session_that_was_refused_is_exchanged_once_for_all_who_hold_it(exchange):
    server, _token, _clock, source = exchange
    server.on("POST", "/", 200, _answer(1, NOW + timedelta(hours=1)))
    server.on("POST", "/", 200, _answer(2, NOW + timedelta(hours=1)))
    old = await source.current()
    assert (await source.renewed(old)).access_key == "A2"
    assert (await source.renewed(old)).access_key == "A2"
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "body",
    [
        "<ErrorResponse><Error><Code>ExpiredTokenException</Code></Error></ErrorResponse>",
        "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>",
        "<html>Log in</html>",
    ],
)
async def test_a_token_that_is_not_taken(exchange, body):
    server, _token, _clock, source = exchange
    server.on("POST", "/", 400, body)
    with pytest.raises(StoreUnreachable):
        await source.current()


async def test_no_token_no_session(exchange):
    _server, token, _clock, source = exchange
    token.write_text("")
    with pytest.raises(StoreUnreachable, match="no identity token"):
        await source.current()
    token.unlink()
    with pytest.raises(StoreUnreachable, match="cannot be read"):
        await source.current()


# --- signatures


def test_the_example_of_amazons_documentation():
    # Amazon S3 API Reference, "Signature Calculations for the Authorization Header", example GET Object.
    signed = Signer("us-east-1").sign(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        {"Host": "examplebucket.s3.amazonaws.com", "Range": "bytes=0-9"},
        payload_sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        credentials=Credentials(
            access_key="AKIAIOSFODNN7EXAMPLE",
            secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # noqa: S106  the documentation's
        ),
        at=datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
