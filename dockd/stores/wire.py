"""One HTTP exchange with a store: sent over httpx, read with a cap, and every failure translated once.

TLS 1.3 with a pinned authority only, HTTP/1.1 (uploads over HTTP/2 are several times slower), no redirects, no
proxies from the environment.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import anyio
import httpx

from dockd.core import canonical
from dockd.core.transfer import Call, RetryClass, classify, retry_after_s
from dockd.errors import (
    ConfigError,
    ObjectLost,
    OffsetConflict,
    PatchTooLarge,
    StoreBusy,
    StoreIncomplete,
    StoreRefused,
    StoreUnreachable,
    StoreUntrusted,
    UploadCorrupt,
    UploadLost,
    VerificationFailed,
)
from dockd.model import Clock

MAX_ANSWER_BYTES = 256 * 1024  # a cosigned note or an envelope is a few KiB
_MAX_WORDS = 300  # of a store's own words in our sentences
_UNKNOWN_STATION = "urn:dockd:problem:unknown-station"
_OBJECT_LOST = "urn:dockd:problem:object-lost"
_IDLE_CONNECTION_S = 2.0  # shorter than any server's keep-alive, so that a request seldom meets a closing connection

# What httpx lets through untranslated when TLS breaks in the middle of a stream, beside its own errors.
_TRANSPORT_ERRORS = (
    httpx.HTTPError,
    ssl.SSLError,
    OSError,
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)


class SessionExpired(StoreUnreachable):
    """The store does not take the token any more. Adapters renew it; it never leaves them twice in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for what."""

    connect_s: float = 10.0
    read_s: float = 60.0  # for the next bytes of an answer; a store may fsync a whole PATCH meanwhile
    write_s: float = 120.0  # for one block: 1 MiB in two minutes is 70 kbit/s
    exchange_s: float = 180.0  # for a small request and its whole answer, however slowly the peer trickles


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self, type_: str) -> dict[str, Any]:
        """The body as a record of `type_`. Raises StoreUnreachable where somebody else seems to have answered."""
        try:
            return canonical.decode(self.body, type_=type_)
        except VerificationFailed as error:
            raise StoreUnreachable(f"the store's answer cannot be used: {error}") from error

    def number(self, header: str) -> int:
        """A header's number. Raises StoreUnreachable where it is missing or none."""
        text = self.headers.get(header, "")
        if not (text.isascii() and text.isdigit() and len(text) < 17):  # noqa: PLR2004  below 2^53
            raise StoreUnreachable(f"the store's answer has no usable {header}; is something else at its address?")
        return int(text)

    def problem(self) -> dict[str, Any] | None:
        """The problem record (RFC 9457), where there is one."""
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/problem+json":
            return None
        try:
            record = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None


def open_client(ca_file: Path, timeouts: Timeouts) -> httpx.AsyncClient:
    """A client that believes `ca_file` alone. Raises ConfigError where it cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        problem = f"{ca_file}: store.ca_file: cannot be used ({error}); allowed: a PEM file with the store's authority"
        raise ConfigError("the store's certificate authority cannot be read", problems=(problem,)) from error
    return httpx.AsyncClient(
        verify=context,
        http1=True,
        http2=False,
        follow_redirects=False,
        trust_env=False,
        timeout=httpx.Timeout(connect=timeouts.connect_s, read=timeouts.read_s, write=timeouts.write_s, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=_IDLE_CONNECTION_S),
    )


class Wire:
    """Exchanges with one store. Owns the client."""

    def __init__(self, client: httpx.AsyncClient, *, clock: Clock, timeouts: Timeouts) -> None:
        self._client = client
        self._clock = clock
        self._timeouts = timeouts

    async def ask(
        self,
        call: Call,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """A small request and its answer, of class DONE; every other is raised.

        After cancellation the store may or may not have got it; the connection is closed.
        """
        try:
            async with asyncio.timeout(self._timeouts.exchange_s):
                answer = await self._exchange(method, url, headers=headers or {}, content=content)
        except _TRANSPORT_ERRORS as error:
            _raise_transport(error)
        return self._judged(call, answer)

    async def send(
        self, call: Call, method: str, url: str, *, headers: Mapping[str, str], blocks: AsyncIterator[bytes]
    ) -> Answer:
        """A request with a streamed body of the Content-Length that `headers` say, and its answer, of class DONE.

        An answer that came before the body was sent may be lost with the connection: then StoreUnreachable is
        raised, and a small request tells more. After cancellation the connection is closed.
        """
        try:
            answer = await self._exchange(method, url, headers=headers, content=blocks)
        except _TRANSPORT_ERRORS as error:
            _raise_transport(error)
        return self._judged(call, answer)

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._client.aclose()

    async def _exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | AsyncIterator[bytes] | None
    ) -> Answer:
        async with self._client.stream(method, url, headers=dict(headers), content=content) as response:
            body = bytearray()
            async with aclosing(response.aiter_bytes()) as pieces:  # type: ignore[type-var]  # an async generator
                async for piece in pieces:
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise StoreUnreachable("the store's answer is far too long; is something else at its address?")
            return Answer(status=response.status_code, headers=response.headers, body=bytes(body))

    def _judged(self, call: Call, answer: Answer) -> Answer:
        problem = answer.problem()
        own_words = problem is not None or call is Call.OFFSET  # a HEAD's answer has no body to speak in
        if problem is not None and problem.get("type") == _UNKNOWN_STATION:
            own_words = False  # about this station's enrolment, not about any clip
        found = classify(call, answer.status, own_words=own_words)
        if found is RetryClass.GONE and problem is not None and problem.get("type") == _OBJECT_LOST:
            raise ObjectLost(_words(call, answer.status, problem))
        if found is not RetryClass.DONE:
            wait_s = retry_after_s(answer.headers.get("retry-after"), self._clock.now())
            _raise_class(found, answer.status, _words(call, answer.status, problem), wait_s)
        return answer


def _raise_transport(error: Exception) -> NoReturn:
    if (refusal := _certificate_error(error)) is not None:
        raise StoreUntrusted(
            f"the store's certificate does not fit the pinned authority ({refusal.verify_message}): renew it, or "
            "compare store.ca_file with the store's; nothing is sent until it fits"
        ) from error
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        what = "it did not answer in time"
    elif isinstance(error, httpx.ConnectError):
        what = "no connection could be made"
    else:
        what = "the connection broke"
    text = f" ({_printable(str(error))})" if str(error) else ""
    raise StoreUnreachable(f"the store cannot be reached: {what}{text}") from error


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _raise_class(found: RetryClass, status: int, words: str, wait_s: float | None) -> NoReturn:
    match found:
        case RetryClass.RENEW:
            raise SessionExpired(words)
        case RetryClass.RESUME:
            raise OffsetConflict(words)
        case RetryClass.LATER:
            raise StoreBusy(words, retry_after_s=wait_s)
        case RetryClass.SHRINK:
            raise PatchTooLarge(words)
        case RetryClass.GONE:
            raise UploadLost(words)
        case RetryClass.INCOMPLETE:
            raise StoreIncomplete(words)
        case RetryClass.RESEND:
            raise UploadCorrupt(words)
        case RetryClass.REFUSED:
            raise StoreRefused(words, status=status)
        case RetryClass.CONTRADICTION:
            raise StoreUntrusted(words)
        case _:
            raise StoreUnreachable(words)


def _words(call: Call, status: int, problem: dict[str, Any] | None) -> str:
    said = ""
    if problem is not None:
        said = ": " + _printable(str(problem.get("detail") or problem.get("title") or "no reason given"))
    return f"the store answered {status} to {call.value}{said}"


def _printable(text: str) -> str:
    """A store's words as far as they may enter a log line or a terminal."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= _MAX_WORDS else plain[: _MAX_WORDS - 1] + "…"
