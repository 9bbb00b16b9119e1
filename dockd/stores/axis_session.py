"""An account at an Axis content destination: its token, its address, its capabilities, and how it is understood."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import structlog

from dockd.core.transfer import Call, RetryClass, classify
from dockd.errors import OffsetConflict, StoreUnreachable, StoreUntrusted, UploadLost
from dockd.model import Clock
from dockd.stores.address import Address
from dockd.stores.axis_names import path
from dockd.stores.wire import Answer, Judgement, SessionExpired, Wire, sentence

_log = structlog.get_logger()
_T = TypeVar("_T")
_MAX_FILE_BYTES = 64 * 1024  # the API's own limit of a connection file
_EARLY = 0.9  # a token is renewed when so much of its life is over
_TAG = re.compile(r"<[^>]{0,200}>")
_TRANSACTION = ("x-trans-id", "x-openstack-request-id")
_WRITING = (Call.REGISTER, Call.APPEND, Call.FINISH)
_HEADS = (Call.OFFSET, Call.LOOK)
_BAD_REQUEST, _PAYMENT, _FORBIDDEN, _NO_METHOD = 400, 402, 403, 405
_TOO_LARGE, _UNPROCESSABLE, _FULL, _OK = 413, 422, 507, 200
_NOTHING_SAID = (301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 410, 501)  # to a question outside of the API
_GRAVE = (RetryClass.REFUSED, RetryClass.RESEND, RetryClass.CONTRADICTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisCredentials:
    """A user of the store and their key: `BlobAPIUserName` and `BlobAPIKey` of a connection file."""

    user: str
    key: str

    def __repr__(self) -> str:
        """Without the key: it ends in logs otherwise."""
        return f"AxisCredentials(user={self.user!r})"


class CredentialSource(Protocol):
    """Where user and key come from. Asked whenever a token is, in a thread of its own."""

    def __call__(self) -> AxisCredentials:
        """What they are now. Raises StoreUnreachable where there are none that can be used."""


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """The connection file that the store's application exports, read anew for each token."""

    path: Path

    def __call__(self) -> AxisCredentials:
        """User and key out of it. Raises StoreUnreachable: it may be replaced at any time, and is then read again."""
        try:
            if self.path.stat().st_size > _MAX_FILE_BYTES:
                raise ValueError("it has more than 64 KiB")  # noqa: TRY301  one place says what is allowed
            record = json.loads(self.path.read_bytes())
            user, key = record["BlobAPIUserName"], record["BlobAPIKey"]
            if not (_fits_a_header(user) and _fits_a_header(key)):
                raise ValueError("user or key is no text that a header can hold")  # noqa: TRY301
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreUnreachable(
                f"{self.path}: the store's credentials cannot be used ({type(error).__name__}: {error}); allowed: a "
                "connection file in JSON with BlobAPIUserName and BlobAPIKey"
            ) from error
        return AxisCredentials(user=user, key=key)


def judge(call: Call, answer: Answer) -> Judgement:
    """As a content destination speaks (docs/stores-axis.md has the table of what differs).

    Its own words bear Swift's transaction id, or are plain text. An HTML page without one is a proxy's.
    """
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    said = " ".join(html.unescape(_TAG.sub(" ", answer.body[:4000].decode(errors="replace"))).split())
    own_words = (
        any(answer.headers.get(name) for name in _TRANSACTION)
        or call in _HEADS
        or (kind.startswith(("text/plain", "application/json")) and bool(said))
    )
    found = _meaning(call, answer.status, said) or classify(call, answer.status, own_words=own_words)
    if found in _GRAVE and not own_words:
        found = RetryClass.UNUSABLE
    return Judgement(found=found, words=sentence(call, answer.status, _told(call, answer.status, said)))


def _meaning(call: Call, status: int, said: str) -> RetryClass | None:
    """What differs from the table of core.transfer."""
    if status in (_PAYMENT, _FULL) or (status == _TOO_LARGE and "quota" in said.lower()):
        return RetryClass.LATER
    if status == _BAD_REQUEST and call in _WRITING:
        return RetryClass.REFUSED  # the API: it can never store this
    if call is Call.READ and status in (_BAD_REQUEST, _FORBIDDEN, _NO_METHOD):
        return RetryClass.REFUSED  # a destination that only takes
    if status == _FORBIDDEN:
        return RetryClass.UNUSABLE  # a permission is missing, and nothing is wrong with any clip
    if status == _UNPROCESSABLE:
        return RetryClass.LATER  # the bytes arrived damaged, and were dropped
    return None


def _told(call: Call, status: int, said: str) -> str:
    if status == _PAYMENT:
        return f"the store is full: it has no licence left for another camera or user ({said})"
    if status == _FULL or (status == _TOO_LARGE and "quota" in said.lower()):
        return f"the store is full: it has no room left ({said})"
    if call is Call.SESSION:
        return f"compare the user and the key in store.credentials_file with the store's ({said})"
    return said


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    token: str
    account_path: str  # of the storage address; scheme and host are those that were dialled
    renew_at_s: float  # by the monotonic clock


class Account:
    """Requests with a token, below the account's path. Owns the wire."""

    def __init__(self, wire: Wire, *, address: Address, credentials: CredentialSource, clock: Clock) -> None:
        self._wire = wire
        self._address = address
        self._credentials = credentials
        self._clock = clock
        self._opened: _Opened | None = None
        self._opening = asyncio.Lock()  # one handshake at a time, however many uploads wait for it

    async def ask(
        self,
        call: Call,
        method: str,
        names: tuple[str, ...],
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        expected: Collection[int] = (),
    ) -> Answer:
        """A small request about what `names` lead to, as `Wire.ask`; with a new token, once, where it is refused."""

        async def once(opened: _Opened) -> Answer:
            url = self._at(opened, names, query)
            said = {**(headers or {}), "X-Auth-Token": opened.token}
            return await self._wire.ask(call, method, url, headers=said, content=content, expected=expected)

        return await self._with_token(once)

    async def send(
        self,
        names: tuple[str, ...],
        *,
        headers: Mapping[str, str],
        blocks: AsyncIterator[bytes],
        expected: Collection[int] = (),
    ) -> Answer:
        """PUT of a streamed object. Raises OffsetConflict where the token ended: the blocks are used up then."""
        opened = await self._current()
        said = {**headers, "X-Auth-Token": opened.token}
        try:
            url = self._at(opened, names, "")
            return await self._wire.send(Call.APPEND, "PUT", url, headers=said, blocks=blocks, expected=expected)
        except SessionExpired as error:
            self._drop(opened)
            raise OffsetConflict("the token ended during a PUT: ask for the offset and go on there") from error

    async def receive(
        self, names: tuple[str, ...], *, headers: Mapping[str, str], check: Callable[[Answer], None]
    ) -> AsyncGenerator[bytes, None]:
        """GET, as `Wire.receive`; with a new token, once, where it is refused before the first byte."""
        for last in (False, True):
            opened = await self._current()
            said = {**headers, "X-Auth-Token": opened.token}
            given = self._wire.receive(Call.READ, self._at(opened, names, ""), headers=said, check=check)
            try:
                async with aclosing(given) as blocks:
                    async for block in blocks:
                        yield block
            except SessionExpired:
                self._drop(opened)
                if last:
                    raise
            else:
                return

    async def discoverable(self) -> dict[str, Any]:
        """What a Swift says of itself at /info; empty where nothing does."""
        answer = await self._wire.ask(Call.SESSION, "GET", self._address.origin + "/info", expected=_NOTHING_SAID)
        return _record(answer.body) if answer.status == _OK else {}

    async def system_file(self, name: str) -> dict[str, Any]:
        """A JSON file in the container System; empty where it is missing, is no object, or its ETag is not its MD5."""
        try:
            answer = await self.ask(Call.LOOK, "GET", ("System", name))
        except UploadLost:
            return {}
        etag = answer.headers.get("etag", "").strip('"').lower()
        if etag != hashlib.md5(answer.body, usedforsecurity=False).hexdigest():
            return {}
        return _record(answer.body)

    def forget(self) -> None:
        """The next request gets a token of its own, as after a new start."""
        self._opened = None

    async def aclose(self) -> None:
        """Forget the token, close connections. Idempotent."""
        self._opened = None
        await self._wire.aclose()

    def _at(self, opened: _Opened, names: tuple[str, ...], query: str) -> str:
        return f"{self._address.origin}{opened.account_path}{path(*names)}{'?' if query else ''}{query}"

    async def _with_token(self, once: Callable[[_Opened], Awaitable[_T]]) -> _T:
        opened = await self._current()
        try:
            return await once(opened)
        except SessionExpired:
            self._drop(opened)
        return await once(await self._current())

    def _drop(self, opened: _Opened) -> None:
        if self._opened is opened:  # not where another call has got the next one meanwhile
            self._opened = None

    async def _current(self) -> _Opened:
        async with self._opening:
            if self._opened is None or self._clock.monotonic_s() >= self._opened.renew_at_s:
                self._opened = await self._open()
            return self._opened

    async def _open(self) -> _Opened:
        credentials = await asyncio.to_thread(self._credentials)
        said = {"X-Auth-User": credentials.user, "X-Auth-Key": credentials.key}
        url = self._address.origin + self._address.path
        answer = await self._wire.ask(Call.SESSION, "GET", url, headers=said)
        token, storage = answer.headers.get("x-auth-token", ""), answer.headers.get("x-storage-url", "")
        if not (_fits_a_header(token) and storage):
            raise StoreUnreachable("the store gave no token; is something else at its address?")
        life = answer.headers.get("x-auth-token-expires", "")
        renew_at_s = self._clock.monotonic_s() + _EARLY * int(life) if re.fullmatch(r"[0-9]{1,9}", life) else math.inf
        opened = _Opened(token=token, account_path=_account_path(url, storage), renew_at_s=renew_at_s)
        _log.info("axis_token_given", authority=self._address.authority, user=credentials.user)
        return opened


def _account_path(asked: str, storage: str) -> str:
    """The account's path. Only the path is kept: a server behind a proxy may not know its own scheme and port.

    Raises StoreUntrusted where it names another host: neither bytes nor the token go there.
    """
    try:
        here, there = urlsplit(asked), urlsplit(storage)
        fits = there.hostname == here.hostname and there.scheme in ("http", "https")
    except ValueError:
        fits = False
    if not fits or there.query or there.fragment or not re.fullmatch(r"(/[A-Za-z0-9._~%+@:=-]+)+/?", there.path):
        raise StoreUntrusted("the store named a storage address outside itself: compare its public name with store.url")
    return there.path.rstrip("/")


def _record(body: bytes) -> dict[str, Any]:
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _fits_a_header(text: object) -> bool:
    return isinstance(text, str) and text.isascii() and text.isprintable() and bool(text.strip())
