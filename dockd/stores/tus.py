"""The client's half of tus 1.0. Any tus server will do; authorisation comes as headers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from dockd.core.transfer import Call
from dockd.errors import StoreUnreachable, StoreUntrusted
from dockd.stores.wire import Answer, Wire

_VERSION = {"Tus-Resumable": "1.0.0"}
_BYTES = {"Content-Type": "application/offset+octet-stream"}
_NO_OPTIONS = (403, 404, 405, 501)  # servers, and proxies before them, that know no OPTIONS
_NOT_WITH_BYTES = (400, 411, 413, 415, 501)  # a creation that is refused for the bytes it carries
_MAX_PATH = 2048  # characters: three of them fit into a custody entry
_CHECKSUM_REFUSED = (400, 460)  # by the protocol: an algorithm that is not known, a digest that does not fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What a server says that it can (OPTIONS). Nothing here was tried."""

    extensions: frozenset[str] = frozenset()
    checksums: tuple[str, ...] = ()
    max_size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an upload stands, by the server's word."""

    offset: int
    length: int | None  # None: the server does not say
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new upload: its address as a path on the server, and how many of its bytes were taken with it."""

    path: str
    offset: int | None  # None: the server does not say


class Tus:
    """tus 1.0 over one `Wire`. Every method may be called again; `append` only after `offset`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def offers(self, url: str, *, headers: Mapping[str, str]) -> Offers:
        """Ask what the server can. One that does not answer OPTIONS as tus says offers nothing beyond the core."""
        answer = await self._wire.ask(Call.REGISTER, "OPTIONS", url, headers=headers, expected=_NO_OPTIONS)
        if answer.status in _NO_OPTIONS or "1.0.0" not in _listed(answer, "tus-version"):
            return Offers()
        size = answer.number("tus-max-size") if "tus-max-size" in answer.headers else 0
        return Offers(
            extensions=frozenset(_listed(answer, "tus-extension")),
            checksums=tuple(_listed(answer, "tus-checksum-algorithm")),
            max_size_bytes=size or None,
        )

    async def create(self, url: str, length: int, metadata: Mapping[str, str], *, headers: Mapping[str, str]) -> str:
        """Make an upload of `length` bytes (tus "creation"); returns its address on the same server.

        Not idempotent: after any doubt the server may keep an upload that nobody fills, until it expires.
        """
        answer = await self._wire.ask(
            Call.REGISTER, "POST", url, headers=_creation(length, metadata, headers), content=b""
        )
        return upload_path(url, answer)

    async def create_with(
        self, url: str, content: bytes, metadata: Mapping[str, str], *, headers: Mapping[str, str]
    ) -> Created | None:
        """Make an upload and give it all its bytes ("creation-with-upload"). None: refused, with nothing made."""
        said = {**_creation(len(content), metadata, headers), **_BYTES}
        answer = await self._wire.ask(
            Call.REGISTER, "POST", url, headers=said, content=content, expected=_NOT_WITH_BYTES
        )
        if answer.status in _NOT_WITH_BYTES:
            return None
        offset = answer.number("upload-offset") if "upload-offset" in answer.headers else None
        return Created(path=upload_path(url, answer), offset=offset)

    async def standing(self, url: str, *, headers: Mapping[str, str]) -> Standing:
        """Where the upload stands, by the server's own word. Raises UploadLost where it does not know the upload."""
        answer = await self._wire.ask(Call.OFFSET, "HEAD", url, headers={**headers, **_VERSION})
        return Standing(
            offset=_offset_of(answer),
            length=answer.number("upload-length") if "upload-length" in answer.headers else None,
            etag=answer.word("etag"),
        )

    async def offset(self, url: str, *, headers: Mapping[str, str]) -> int:
        """How many bytes the server has, as of `standing`."""
        return (await self.standing(url, headers=headers)).offset

    async def append(
        self,
        url: str,
        offset: int,
        blocks: AsyncIterator[bytes],
        length: int,
        *,
        headers: Mapping[str, str],
        checksum: str = "",
    ) -> int:
        """PATCH `length` bytes from `offset`; returns the server's offset afterwards.

        Always with Content-Length: chunked bodies halve the rate. After any error or cancellation the connection is
        closed, the server may have any part of it, and only `offset` knows. `checksum` is the Upload-Checksum.
        """
        said = {**headers, **_VERSION, **_BYTES, "Upload-Offset": str(offset), "Content-Length": str(length)}
        if checksum:
            said["Upload-Checksum"] = checksum
        return _offset_of(await self._wire.send(Call.APPEND, "PATCH", url, headers=said, blocks=blocks))

    async def refuses(
        self, url: str, offset: int, content: bytes, *, headers: Mapping[str, str], checksum: str
    ) -> bool:
        """Send bytes with a checksum, and hear whether they are refused for it. For trials."""
        said = {**headers, **_VERSION, **_BYTES, "Upload-Offset": str(offset), "Upload-Checksum": checksum}
        answer = await self._wire.ask(
            Call.APPEND, "PATCH", url, headers=said, content=content, expected=_CHECKSUM_REFUSED
        )
        return answer.status in _CHECKSUM_REFUSED

    async def terminate(self, url: str, *, headers: Mapping[str, str]) -> None:
        """Let the server drop the upload ("termination"). Raises UploadLost where it does not know it."""
        await self._wire.ask(Call.ABANDON, "DELETE", url, headers={**headers, **_VERSION})


def upload_path(asked: str, answer: Answer) -> str:
    """The upload's address out of `Location`, as a path on the server that was asked.

    Only the path is kept, so that an upload outlives a changed port or name of its store. Raises StoreUntrusted where
    it points to another host: neither bytes nor tokens go there.
    """
    location = answer.headers.get("location")
    if not location:
        raise StoreUnreachable("the store named no address for the upload; is something else at its address?")
    try:
        here, there = urlsplit(asked), urlsplit(urljoin(asked, location))
        host = there.hostname
    except ValueError as error:  # a bracket without its other, for instance
        raise StoreUnreachable("the store named an address for the upload that is none") from error
    # A server behind a proxy that ends TLS may call itself http: same host and path, so our own scheme is kept.
    if host != here.hostname or there.scheme not in ("http", "https"):
        raise StoreUntrusted("the store named an upload address outside itself: compare its public name with store.url")
    path = f"{there.path}?{there.query}" if there.query else there.path
    # It is kept, and used again by every later life: what no request can be made of has to be found here.
    if not (path.startswith("/") and path.isprintable() and len(path) <= _MAX_PATH):
        raise StoreUnreachable("the store named an address for the upload that cannot be asked for")
    return path


def checksum_header(algorithm: str, digest: bytes) -> str:
    """The value of Upload-Checksum."""
    return f"{algorithm} {b64encode(digest).decode()}"


def _creation(length: int, metadata: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
    fields = ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in metadata.items())
    made = {**headers, **_VERSION, "Upload-Length": str(length)}
    if fields:  # some servers refuse an empty one
        made["Upload-Metadata"] = fields
    return made


def _listed(answer: Answer, header: str) -> list[str]:
    return [word.strip() for word in answer.headers.get(header, "").split(",") if word.strip()]


def _offset_of(answer: Answer) -> int:
    if answer.headers.get("tus-resumable") != "1.0.0":
        raise StoreUnreachable("the answer is no tus 1.0; is something else at the store's address?")
    return answer.number("upload-offset")
