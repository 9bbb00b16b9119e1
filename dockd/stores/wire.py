"""One HTTP exchange with a store: sent over httpx, read with a cap, and every failure translated once.

Our receiver: TLS 1.3 with a pinned authority only. A store of another kind: TLS 1.2 at least, by a given authority or
the system's. HTTP/1.1 (uploads over HTTP/2 are several times slower), no redirects, no proxies from the environment.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import anyio
import httpx

from dockd.core import canonical
from dockd.core.transfer import PUSH_BACK, Call, RetryClass, classify, retry_after_s
from dockd.errors import (
    ConfigError,
    DockdError,
    ObjectLost,
    OffsetConflict,
    PatchTooLarge,
    StoreBusy,
    StoreIncomplete,
    StoreLacks,
    StoreRefused,
    StoreUnreachable,
    StoreUnsuited,
    StoreUntrusted,
    UploadCorrupt,
    UploadLost,
    VerificationFailed,
)
from dockd.model import Clock
from dockd.stores.handshake import Transport
from dockd.stores.tls import ClientCertificate, Shown, believing

MAX_ANSWER_BYTES = 256 * 1024  # a cosigned note or an envelope is a few KiB
RECEIVE_BYTES = 1024 * 1024  # a block of an object that is read back
_HEADS = (Call.OFFSET, Call.LOOK)
_CONTENT = (200, 206)
_MAX_WORD = 1024  # an S3 version id's most
_MAX_WORDS = 300  # of a store's own words in our sentences
_UNKNOWN_STATION = "urn:dockd:problem:unknown-station"
_OF_THE_STATION = {_UNKNOWN_STATION: False, "urn:dockd:problem:recipient-refused": True}  # whether of one clip alone
_OBJECT_LOST = "urn:dockd:problem:object-lost"
_PLAIN = ("", "identity")  # any other encoding would let a few bytes of an answer become gigabytes in here
_SMALL_BYTES = 16 * 1024  # of a body that is charged for but does not wait: answers that people wait for hang on it
# Idle connections are kept for less than any server's keep-alive, so that a request seldom meets a closing one.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=2.0)

# What httpx lets through untranslated when TLS breaks in the middle of a stream, beside its own errors.
_TRANSPORT_ERRORS = (
    httpx.HTTPError,
    httpx.InvalidURL,  # an address that the store named, with characters or a length that none has
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
    # However slowly the peer trickles: for a small request and its whole answer, for the answer to a body that was
    # sent, for the head of a long answer, and for each block of it (1 MiB in three minutes is 47 kbit/s).
    exchange_s: float = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self, type_: str, *, newest: int = 1) -> dict[str, Any]:
        """The body as a record of `type_`. Raises StoreUnreachable where somebody else seems to have answered."""
        try:
            return canonical.decode(self.body, type_=type_, newest=newest)
        except VerificationFailed as error:
            raise StoreUnreachable(f"the store's answer cannot be used: {_printable(str(error))}") from error

    def number(self, header: str) -> int:
        """A header's number. Raises StoreUnreachable where it is missing or none."""
        text = self.headers.get(header, "")
        if not (text.isascii() and text.isdigit() and len(text) < 17):  # noqa: PLR2004  below 2^53
            raise StoreUnreachable(f"the store's answer has no usable {header}; is something else at its address?")
        return int(text)

    def word(self, header: str) -> str:
        """A header's value that is kept, such as an ETag; empty where it is missing.

        Raises StoreUnreachable where it is no plain text of a length that a custody entry has room for.
        """
        text = self.headers.get(header, "")
        if not (text.isascii() and text.isprintable() and len(text) <= _MAX_WORD):
            raise StoreUnreachable(f"the store's answer has no usable {header}; is something else at its address?")
        return str(text)

    def problem(self) -> dict[str, Any] | None:
        """The problem record (RFC 9457), where there is one."""
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/problem+json":
            return None
        try:
            record = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an answer means: its class, and the words of our sentence about it."""

    found: RetryClass
    words: str


Judge = Callable[[Call, Answer], Judgement]
"""How one kind of store is understood."""


class Pace(Protocol):
    """Who may send how much when, over all stores."""

    async def take(self, wanted_bytes: int) -> int:
        """Wait until something may be sent; returns how much of `wanted_bytes`, one at least.

        After cancellation nothing was taken, unless it was granted already.
        """

    def spend(self, sent_bytes: int) -> None:
        """So much is sent without waiting; what waits does so the longer."""


class Unpaced:
    """A Pace that lets everything through at once."""

    async def take(self, wanted_bytes: int) -> int:
        """All of it."""
        return wanted_bytes

    def spend(self, sent_bytes: int) -> None:
        """Nothing is counted."""


def open_client(
    ca_file: Path | None,
    timeouts: Timeouts,
    *,
    least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    certificate: ClientCertificate | None = None,
    proxy_url: str | None = None,
) -> httpx.AsyncClient:
    """A client that believes `ca_file` alone (None: the system's authorities). Raises ConfigError if it is no use.

    It shows `certificate` to a store that asks, as its file stands then, and goes through the proxy where one is named.
    """
    context = believing(ca_file, least)
    before = [Shown(context, certificate).before] if certificate is not None else []
    try:
        transport = Transport(verify=context, limits=_LIMITS, proxy_url=proxy_url)
    except (ValueError, httpx.InvalidURL) as error:
        problem = f"store.proxy: found {proxy_url!r} ({error}); allowed: http://HOST:PORT or https://HOST:PORT"
        raise ConfigError("the proxy's address cannot be used", problems=(problem,)) from error
    return httpx.AsyncClient(
        transport=transport,
        follow_redirects=False,
        trust_env=False,
        headers={"Accept-Encoding": "identity"},
        timeout=httpx.Timeout(connect=timeouts.connect_s, read=timeouts.read_s, write=timeouts.write_s, pool=None),
        event_hooks={"request": before},
    )


def judge_problem(call: Call, answer: Answer) -> Judgement:
    """As our receiver speaks: the table of core.transfer, and problem records."""
    problem = answer.problem()
    own_words = problem is not None or call in _HEADS  # the answer has no body to speak in
    if problem is not None and problem.get("type") == _UNKNOWN_STATION:
        own_words = False  # about this station's enrolment, not about any clip
    found = classify(call, answer.status, own_words=own_words)
    said = ""
    if problem is not None:
        told = problem.get("detail") or problem.get("title")
        said = told if isinstance(told, str) else "no reason given"
    return Judgement(found=found, words=sentence(call, answer.status, said))


class Wire:
    """Exchanges with one store. Owns the client. `judge` says how this kind of store is understood."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        clock: Clock,
        timeouts: Timeouts,
        judge: Judge = judge_problem,
        pace: Pace | None = None,
    ) -> None:
        self._client = client
        self._pace = pace or Unpaced()
        self._clock = clock
        self._timeouts = timeouts
        self._judge = judge

    async def ask(
        self,
        call: Call,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        expected: Collection[int] = (),
    ) -> Answer:
        """A small request and its answer, of class DONE or of a status `expected`; every other is raised.

        After cancellation the store may or may not have got it; the connection is closed.
        """
        await self._pay_for(len(content or b""))
        try:
            async with asyncio.timeout(self._timeouts.exchange_s):
                answer = await self._exchange(method, url, headers=headers or {}, content=content)
        except _TRANSPORT_ERRORS as error:
            _raise_transport(error)
        return self._judged(call, answer, expected)

    async def send(
        self,
        call: Call,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        blocks: AsyncIterator[bytes],
        expected: Collection[int] = (),
    ) -> Answer:
        """A request with a streamed body of the Content-Length that `headers` say, and its answer, as of `ask`.

        The body goes out at the pace that is given. Waiting for that is between two writes, so no time-out counts it.
        An answer that came before the body was sent may be lost with the connection: then StoreUnreachable is
        raised, and a small request tells more. After cancellation the connection is closed.
        """
        try:
            async with asyncio.timeout(None) as limit, aclosing(self._paced(blocks, limit)) as body:
                answer = await self._exchange(method, url, headers=headers, content=body)
        except _TRANSPORT_ERRORS as error:
            _raise_transport(error)
        return self._judged(call, answer, expected)

    async def receive(
        self, call: Call, url: str, *, headers: Mapping[str, str], check: Callable[[Answer], None]
    ) -> AsyncGenerator[bytes, None]:
        """GET: the answer's bytes in blocks, however many. `check` sees status and headers before the first one.

        Every answer that is not of class DONE is raised. The connection is closed when the generator is, and whoever
        has enough has to close it: some answers never end. A body that ends before its Content-Length, or whose next
        block takes longer than `exchange_s`, raises StoreUnreachable.
        """
        try:
            request = self._client.build_request("GET", url, headers=dict(headers))
            async with asyncio.timeout(self._timeouts.exchange_s):
                response = await self._client.send(request, stream=True)
            async with aclosing(response):
                _require_plain(response)
                answer = Answer(status=response.status_code, headers=response.headers, body=b"")
                if response.status_code not in _CONTENT:
                    async with asyncio.timeout(self._timeouts.exchange_s):
                        whole = await _whole(response)
                    self._judged(call, whole, ())
                    raise StoreUnreachable(sentence(call, response.status_code, "no content"))
                check(answer)
                async with aclosing(response.aiter_raw(RECEIVE_BYTES)) as pieces:  # type: ignore[type-var]
                    while (piece := await self._next(pieces)) is not None:
                        yield piece
        except _TRANSPORT_ERRORS as error:
            _raise_transport(error)

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._client.aclose()

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """One block of a long answer; None at its end. Only the peer's time counts, not that of whoever reads."""
        async with asyncio.timeout(self._timeouts.exchange_s):
            return await anext(pieces, None)

    async def _paced(self, blocks: AsyncIterator[bytes], limit: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
        """The blocks as they may be sent. `limit` counts while the peer has the word, and not while we wait to send."""
        loop = asyncio.get_running_loop()
        async for block in blocks:
            at = 0
            while at < len(block):
                limit.reschedule(None)
                granted = await self._pace.take(len(block) - at)
                limit.reschedule(loop.time() + self._timeouts.write_s + self._timeouts.exchange_s)
                yield block if granted == len(block) else block[at : at + granted]
                at += granted
            limit.reschedule(None)
        limit.reschedule(loop.time() + self._timeouts.exchange_s)

    async def _pay_for(self, size_bytes: int) -> None:
        """For a body that goes out in one piece."""
        if size_bytes <= _SMALL_BYTES:
            self._pace.spend(size_bytes)
            return
        while size_bytes:
            size_bytes -= await self._pace.take(size_bytes)

    async def _exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | AsyncIterator[bytes] | None
    ) -> Answer:
        async with self._client.stream(method, url, headers=dict(headers), content=content) as response:
            return await _whole(response)

    def _judged(self, call: Call, answer: Answer, expected: Collection[int]) -> Answer:
        if answer.status in expected:
            return answer
        judgement = self._judge(call, answer)
        if judgement.found is RetryClass.GONE and (answer.problem() or {}).get("type") == _OBJECT_LOST:
            raise ObjectLost(judgement.words)
        if (problem := (answer.problem() or {}).get("type")) in _OF_THE_STATION:
            raise StoreUnsuited(judgement.words, of_one=_OF_THE_STATION[problem])
        if judgement.found is not RetryClass.DONE:
            wait_s = retry_after_s(answer.headers.get("retry-after"), self._clock.now())
            _raise_class(judgement.found, answer.status, judgement.words, wait_s)
        return answer


def _require_plain(response: httpx.Response) -> None:
    """Raise StoreUnreachable for an encoded answer, which was not asked for: nothing is ever unpacked."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in _PLAIN:
        raise StoreUnreachable(
            f"the store's answer is encoded ({_printable(encoding)}), and was asked for as it is: let neither the "
            "store nor a proxy before it compress answers"
        )


async def _whole(response: httpx.Response) -> Answer:
    _require_plain(response)
    body = bytearray()
    async with aclosing(response.aiter_raw()) as pieces:  # type: ignore[type-var]  # an async generator
        async for piece in pieces:
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise StoreUnreachable("the store's answer is far too long; is something else at its address?")
    return Answer(status=response.status_code, headers=response.headers, body=bytes(body))


def _raise_transport(error: Exception) -> NoReturn:
    if (refusal := _certificate_error(error)) is not None:
        raise StoreUntrusted(
            f"the store's certificate does not fit the authority that is believed ({refusal.verify_message}): renew "
            "it, or compare store.ca_file with the store's; nothing is sent until it fits"
        ) from error
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        what = "it did not answer in time"
    elif isinstance(error, httpx.ConnectError):
        what = "no connection could be made"
    else:
        what = "the connection broke"
    text = f" ({_printable(str(error))})" if str(error) else ""
    raise StoreUnreachable(f"the store cannot be reached: {what}{text}", silent=True) from error


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


_CLASSES: Mapping[RetryClass, type[DockdError]] = {
    RetryClass.RENEW: SessionExpired,
    RetryClass.RESUME: OffsetConflict,
    RetryClass.LACKING: StoreLacks,
    RetryClass.SHRINK: PatchTooLarge,
    RetryClass.GONE: UploadLost,
    RetryClass.INCOMPLETE: StoreIncomplete,
    RetryClass.RESEND: UploadCorrupt,
    RetryClass.CONTRADICTION: StoreUntrusted,
}


def _raise_class(found: RetryClass, status: int, words: str, wait_s: float | None) -> NoReturn:
    if found is RetryClass.LATER:
        raise StoreBusy(words, retry_after_s=wait_s, pushed_back=status in PUSH_BACK)
    if found is RetryClass.REFUSED:
        raise StoreRefused(words, status=status)
    raise _CLASSES.get(found, StoreUnreachable)(words)


def sentence(call: Call, status: int, said: str) -> str:
    """What the store answered, with its own words `said` as far as they may enter a log line."""
    return f"the store answered {status} to {call.value}{': ' if said else ''}{_printable(said)}"


def _printable(text: str) -> str:
    """A store's words as far as they may enter a log line or a terminal."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= _MAX_WORDS else plain[: _MAX_WORDS - 1] + "…"
