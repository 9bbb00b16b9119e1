"""The client's half of tus 1.0: creation, HEAD, PATCH. Any tus server will do; authorisation comes as headers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urljoin, urlsplit

from dockd.core.transfer import Call
from dockd.errors import StoreUnreachable, StoreUntrusted
from dockd.stores.wire import Answer, Wire

_VERSION = {"Tus-Resumable": "1.0.0"}


class Tus:
    """tus 1.0 over one `Wire`. Every method may be called again; `append` only after `offset`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(self, url: str, length: int, metadata: Mapping[str, str], *, headers: Mapping[str, str]) -> str:
        """Make an upload of `length` bytes (tus "creation"); returns its address on the same server.

        Not idempotent: after any doubt the server may keep an upload that nobody fills, until it expires.
        """
        fields = ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in metadata.items())
        made = {**headers, **_VERSION, "Upload-Length": str(length)}
        if fields:  # some servers refuse an empty one
            made["Upload-Metadata"] = fields
        answer = await self._wire.ask(Call.REGISTER, "POST", url, headers=made, content=b"")
        return upload_path(url, answer)

    async def offset(self, url: str, *, headers: Mapping[str, str]) -> int:
        """How many bytes the server has, by its own word. Raises UploadLost where it does not know the upload."""
        answer = await self._wire.ask(Call.OFFSET, "HEAD", url, headers={**headers, **_VERSION})
        return _offset_of(answer)

    async def append(
        self, url: str, offset: int, blocks: AsyncIterator[bytes], length: int, *, headers: Mapping[str, str]
    ) -> int:
        """PATCH `length` bytes from `offset`; returns the server's offset afterwards.

        Always with Content-Length: chunked bodies halve the rate. After any error or cancellation the connection is
        closed, the server may have any part of it, and only `offset` knows.
        """
        said = {
            **headers,
            **_VERSION,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(length),
        }
        return _offset_of(await self._wire.send(Call.APPEND, "PATCH", url, headers=said, blocks=blocks))


def upload_path(asked: str, answer: Answer) -> str:
    """The upload's address out of `Location`, as a path on the server that was asked.

    Only the path is kept, so that an upload outlives a changed port or name of its store. Raises StoreUntrusted where
    it points to another host: neither bytes nor tokens go there.
    """
    location = answer.headers.get("location")
    if not location:
        raise StoreUnreachable("the store named no address for the upload; is something else at its address?")
    here, there = urlsplit(asked), urlsplit(urljoin(asked, location))
    # A server behind a proxy that ends TLS may call itself http: same host and path, so our own scheme is kept.
    if there.hostname != here.hostname or there.scheme not in ("http", "https"):
        raise StoreUntrusted("the store named an upload address outside itself: compare its public name with store.url")
    query = f"?{there.query}" if there.query else ""
    return f"{there.path}{query}"


def _offset_of(answer: Answer) -> int:
    if answer.headers.get("tus-resumable") != "1.0.0":
        raise StoreUnreachable("the answer is no tus 1.0; is something else at the store's address?")
    return answer.number("upload-offset")
