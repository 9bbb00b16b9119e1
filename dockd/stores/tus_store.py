"""The evidence store that is a tus 1.0 server: `@tus/server`, tusd, SeaweedFS and the like.

Such a server signs nothing, states no checksum and promises no retention: its objects have to be read back. The sealed
clip, the manifest and its signature are uploads of their own. Most servers name uploads themselves, and give a finished
one back at its own address. Where `objects_url` is set, the server files uploads under names of ours (SeaweedFS): they
are created below `url` and found below `objects_url`, and an upload that is finished is known there alone.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from dockd.core.objects import ObjectState, Piece
from dockd.errors import StoreBusy, StoreIncomplete, StoreRefused, StoreUntrusted, UploadLost
from dockd.model import AcquisitionId, Clock, Entropy, SignedBytes, StoreId
from dockd.stores.address import parse_address
from dockd.stores.header_file import HeaderFile
from dockd.stores.tls import ClientCertificate
from dockd.stores.tus_records import (
    Upload,
    format_addresses,
    judge_tus,
    metadata,
    parse_addresses,
    parse_upload,
    sealed_name,
)
from dockd.stores.tus_server import CHECKSUM_BYTES, TusServer
from dockd.stores.wire import Pace, Timeouts, Wire, open_client

_REMEMBERED = 256  # uploads under way at once: far more than ever are
_NAME_BYTES = 4
_K = TypeVar("_K")
_V = TypeVar("_V")


class TusStore:
    """ObjectStore over a tus server. Raises ConfigError at construction where an address or a file cannot be used.

    Register is idempotent within a life of the program, and of an upload that the journal kept. Where an answer to
    register is lost together with that life, the server keeps an empty upload until it expires there.
    """

    def __init__(
        self,
        *,
        name: StoreId,
        url: str,
        clock: Clock,
        random: Entropy,
        objects_url: str | None = None,
        ca_file: Path | None = None,
        insecure_loopback: bool = False,
        authorization: HeaderFile | None = None,
        certificate: ClientCertificate | None = None,
        proxy_url: str | None = None,
        timeouts: Timeouts | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._name = name
        self._random = random
        waits = timeouts or Timeouts()
        client = open_client(ca_file, waits, least=ssl.TLSVersion.TLSv1_2, certificate=certificate, proxy_url=proxy_url)
        self.server = TusServer(
            Wire(client, clock=clock, timeouts=waits, judge=judge_tus, pace=pace),
            base=parse_address(url, insecure_loopback=insecure_loopback),
            objects=None if objects_url is None else parse_address(objects_url, insecure_loopback=insecure_loopback),
            authorization=authorization,
            random=random,
        )
        self._known: OrderedDict[AcquisitionId, Upload] = OrderedDict()
        self._placed: OrderedDict[tuple[str, Piece], str] = OrderedDict()

    @property
    def store(self) -> StoreId:
        """The id that configuration gives it."""
        return self._name

    async def register(self, acquisition: AcquisitionId, manifest: SignedBytes, sealed_size_bytes: int) -> str:
        """As the port says. Raises StoreRefused where the server takes nothing as long as this."""
        del manifest  # it is an object of its own, at the end
        known = self._known.get(acquisition)
        if known is not None and known.size_bytes == sealed_size_bytes:
            with suppress(UploadLost):
                await self.offset(known.text())
                return known.text()
            self._known.pop(acquisition, None)
        limit = (await self.server.offers()).max_size_bytes
        if limit is not None and sealed_size_bytes > limit:
            raise StoreRefused(
                f"the clip has {sealed_size_bytes} bytes and the store takes {limit} at most: raise its limit "
                "(Tus-Max-Size)",
                status=413,
            )
        name = sealed_name(acquisition, self._random(_NAME_BYTES)) if self.server.files_by_name else ""
        path = await self.server.create(name, sealed_size_bytes, metadata(acquisition, Piece.SEALED))
        upload = Upload(path=path, acquisition=acquisition, size_bytes=sealed_size_bytes, name=name)
        _remember(self._known, acquisition, upload)
        return upload.text()

    async def offset(self, upload_url: str) -> int:
        """As the port says: HEAD of the upload, and where it is gone, of the object that it became."""
        upload = parse_upload(upload_url)
        await self.server.offers()  # `stretch` rests on it, and asks nobody
        offset = await self._stands(upload)
        _remember(self._known, upload.acquisition, upload)
        return offset

    def stretch(self, upload_url: str, offset: int, wanted_bytes: int) -> int:
        """As the port says: any length will do; pieces with a checksum are kept small."""
        del upload_url, offset
        return min(wanted_bytes, CHECKSUM_BYTES) if self.server.checks else wanted_bytes

    async def append(self, upload_url: str, offset: int, blocks: AsyncIterator[bytes], length: int) -> int:
        """As the port says: one PATCH. After cancellation its connection is closed."""
        return await self.server.append(parse_upload(upload_url).path, offset, blocks, length)

    async def finish(self, upload_url: str, acquisition: AcquisitionId, manifest: SignedBytes) -> str:
        """As the port says. What is returned is the three addresses as JSON: paths of uploads, or names of objects."""
        upload = parse_upload(upload_url)
        offset = await self.offset(upload_url)
        if offset < upload.size_bytes:
            raise StoreIncomplete(f"{upload.size_bytes - offset} bytes are missing")
        if offset > upload.size_bytes:
            raise StoreUntrusted(f"the store claims {offset} bytes of {acquisition}, which has {upload.size_bytes}")
        await self._file(upload)
        return format_addresses(
            {
                Piece.SEALED: upload.name or upload.path,
                Piece.MANIFEST: await self._place(upload, Piece.MANIFEST, manifest.payload),
                Piece.SIGNATURE: await self._place(upload, Piece.SIGNATURE, manifest.signature.encode()),
            }
        )

    async def retain(self, objects: str, until: datetime) -> bool:
        """As the port says: no tus server can."""
        del objects, until
        return False

    async def look(self, objects: str) -> Mapping[Piece, ObjectState]:
        """As the port says: a HEAD each. Such a server states no checksum and promises no retention."""
        found = {}
        for piece, address in parse_addresses(objects).items():
            if address.startswith("/"):
                standing = await self.server.standing(address)
                size_bytes, version = standing.offset, standing.etag
            else:
                answer = await self.server.described(address)
                size_bytes, version = answer.number("content-length"), answer.word("etag")
            found[piece] = ObjectState(size_bytes=size_bytes, version=version, checksum=None, retention_until=None)
        return found

    @property
    def gives_ranges(self) -> bool:
        """As the port says."""
        return self.server.gives_ranges

    async def read(
        self, objects: str, piece: Piece, offset: int, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """As the port says: GET."""
        async with aclosing(self.server.read(parse_addresses(objects)[piece], offset, length)) as blocks:
            async for block in blocks:
                yield block

    async def clear_orphans(self, wanted: Callable[[AcquisitionId], Awaitable[bool]]) -> tuple[AcquisitionId, ...]:
        """As the port says: nothing; such a server lists no uploads."""
        del wanted
        return ()

    async def abandon(self, upload_url: str) -> None:
        """As the port says. A finished upload stays; at a server without termination all do, until they expire."""
        upload = parse_upload(upload_url)
        if self._known.get(upload.acquisition) == upload:
            del self._known[upload.acquisition]
        offers = await self.server.offers()
        with suppress(UploadLost):
            standing = await self.server.standing(upload.path)
            if standing.offset < upload.size_bytes and "termination" in offers.extensions:
                await self.server.terminate(upload.path)

    async def aclose(self) -> None:
        """As the port says."""
        await self.server.aclose()

    # --- how

    async def _stands(self, upload: Upload) -> int:
        try:
            standing = await self.server.standing(upload.path)
        except UploadLost:
            if upload.name and await self.server.object_size(upload.name) == upload.size_bytes:
                return upload.size_bytes
            raise
        if standing.length not in (None, upload.size_bytes):
            raise UploadLost("another upload lives at the address by now")
        return standing.offset

    async def _file(self, upload: Upload) -> None:
        """Make sure that a full upload became the object of its name. Raises StoreBusy where it has not yet."""
        if not upload.name or await self.server.object_size(upload.name) == upload.size_bytes:
            return
        # The last piece was answered by an error: every byte is there, and nothing is stored.
        await self.server.complete(upload.path, upload.size_bytes)
        if await self.server.object_size(upload.name) != upload.size_bytes:
            raise StoreBusy(f"the store has every byte of {upload.acquisition}, but has not filed it yet")

    async def _place(self, upload: Upload, piece: Piece, content: bytes) -> str:
        """Put a small object beside the sealed one; returns its address. One that is there already is compared."""
        described = metadata(upload.acquisition, piece)
        name = upload.beside(piece)
        if name:
            if not await self._is_there(name, content):
                await self.server.put(name, content, described)
                if await self.server.object_size(name) != len(content):
                    raise StoreBusy(f"the store took {name}, but has not filed it yet")
            return name
        known = self._placed.get((upload.path, piece))
        with suppress(UploadLost):
            if known is not None and (await self.server.standing(known)).offset == len(content):
                return known
        path = await self.server.put("", content, described)
        _remember(self._placed, (upload.path, piece), path)
        return path

    async def _is_there(self, name: str, content: bytes) -> bool:
        """Whether the object of this name is there with this content. Raises StoreRefused where it is another."""
        size = await self.server.object_size(name)
        if size is None:
            return False
        found = bytearray()
        if size == len(content):
            async with aclosing(self.server.read(name, 0)) as blocks:
                async for block in blocks:
                    found += block
                    if len(found) > len(content):
                        break
        if found != content:
            raise StoreRefused(f"another object stands under {name}; it is not overwritten", status=409)
        return True


def _remember(known: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
