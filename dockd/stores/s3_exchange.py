"""Signed requests to one bucket: addressed, signed with credentials that may end at any time, and judged."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

from dockd.core.transfer import Call
from dockd.errors import StoreUnreachable
from dockd.model import Clock
from dockd.stores.credentials import Credentials, CredentialSource
from dockd.stores.s3_signing import Signer
from dockd.stores.wire import Answer, SessionExpired, Wire

_T = TypeVar("_T")
_SAFE = "-_.~"
_EMPTY = hashlib.sha256().hexdigest()
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}

Query = Mapping[str, str]


class Exchange:
    """Asks one bucket. A request whose credentials are no longer taken is sent once more with renewed ones.

    `base_url` is the bucket's address, without a slash at its end.
    """

    def __init__(
        self, wire: Wire, *, base_url: str, signer: Signer, credentials: CredentialSource, clock: Clock
    ) -> None:
        self._wire = wire
        self._base = base_url
        self._path = urlsplit(base_url).path
        parts = urlsplit(base_url)
        self._host = parts.netloc.removesuffix(_DEFAULT_PORTS.get(parts.scheme, ""))
        self._signer = signer
        self._credentials = credentials
        self._clock = clock

    async def ask(
        self,
        call: Call,
        method: str,
        key: str = "",
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        expected: Collection[int] = (),
    ) -> Answer:
        """A small request and its answer, as `Wire.ask` says."""
        url = self._url(key, query)
        said = dict(headers or {})
        payload = _EMPTY
        if content:
            payload = hashlib.sha256(content).hexdigest()
            # Some stores want it of bodies that change locks or hold conditions.
            md5 = hashlib.md5(content, usedforsecurity=False).digest()
            said |= {"Content-MD5": base64.b64encode(md5).decode(), "Content-Length": str(len(content))}

        async def once(credentials: Credentials) -> Answer:
            signed = self._signed(method, url, said, payload, credentials)
            body = content if method in ("PUT", "POST") else None
            return await self._wire.ask(call, method, url, headers=signed, content=body, expected=expected)

        return await self._with_credentials(once)

    async def send(
        self, call: Call, key: str, *, query: Query, headers: Mapping[str, str], pieces: Sequence[bytes], sha256: bytes
    ) -> Answer:
        """PUT of a body that lies in memory in pieces, of this digest."""
        url = self._url(key, query)
        said = {**headers, "Content-Length": str(sum(map(len, pieces)))}

        async def once(credentials: Credentials) -> Answer:
            signed = self._signed("PUT", url, said, sha256.hex(), credentials)
            return await self._wire.send(call, "PUT", url, headers=signed, blocks=_each(pieces))

        return await self._with_credentials(once)

    async def receive(
        self, key: str, *, headers: Mapping[str, str], check: Callable[[Answer], None]
    ) -> AsyncGenerator[bytes, None]:
        """GET, as `Wire.receive` says."""
        url = self._url(key, None)
        credentials = await self._credentials.current()
        for again in (True, False):
            said = self._signed("GET", url, headers, _EMPTY, credentials)
            try:
                async with aclosing(self._wire.receive(Call.READ, url, headers=said, check=check)) as blocks:
                    async for block in blocks:
                        yield block
            except SessionExpired as error:  # comes before the first block
                renewed = await self._credentials.renewed(credentials)
                if not again or renewed == credentials:
                    raise StoreUnreachable(str(error)) from error
                credentials = renewed
            else:
                return

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        await self._wire.aclose()

    async def _with_credentials(self, once: Callable[[Credentials], Awaitable[_T]]) -> _T:
        credentials = await self._credentials.current()
        try:
            return await once(credentials)
        except SessionExpired as error:
            renewed = await self._credentials.renewed(credentials)
            if renewed == credentials:
                raise StoreUnreachable(str(error)) from error
        try:
            return await once(renewed)
        except SessionExpired as error:
            raise StoreUnreachable(str(error)) from error

    def _url(self, key: str, query: Query | None) -> str:
        path = f"/{quote(key, safe='/' + _SAFE)}" if key else ""
        asked = f"?{urlencode(sorted(query.items()), quote_via=quote, safe=_SAFE)}" if query else ""
        return f"{self._base}{path}{asked}"

    def _signed(
        self, method: str, url: str, headers: Mapping[str, str], payload: str, credentials: Credentials
    ) -> dict[str, str]:
        return self._signer.sign(
            method,
            url,
            {**headers, "Host": self._host},
            payload_sha256=payload,
            credentials=credentials,
            at=self._clock.now(),
        )


async def _each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
