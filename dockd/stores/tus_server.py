"""A tus server as a store uses it: with credentials, with what it was seen to do, with the objects that it files."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TypeVar
from urllib.parse import quote

import structlog

from dockd.core.transfer import Call
from dockd.errors import OffsetConflict, StoreError, StoreRefused, StoreUnreachable, StoreUntrusted, UploadLost
from dockd.model import Entropy
from dockd.stores.address import Address
from dockd.stores.header_file import HeaderFile
from dockd.stores.probing import probe_name
from dockd.stores.tus import Offers, Standing, Tus, checksum_header
from dockd.stores.wire import Answer, SessionExpired, Wire

_log = structlog.get_logger()
_T = TypeVar("_T")

CHECKSUM_BYTES = 4 * 1024 * 1024  # a piece with a checksum is held in memory, since the checksum goes before it
_CHECKSUMS = ("sha256", "sha1")  # by preference; against accidents SHA-1 is enough, and what is read back is SHA-256
_WHOLE = 200


class TusServer:
    """One server. Addresses are paths on it, beginning with a slash, or names of objects below `objects`."""

    def __init__(
        self,
        wire: Wire,
        *,
        base: Address,
        objects: Address | None,
        authorization: HeaderFile | None,
        random: Entropy,
    ) -> None:
        self._wire = wire
        self._tus = Tus(wire)
        self._base = base
        self._objects = objects
        self._authorization = authorization
        self._random = random
        self._offers: Offers | None = None
        self._algorithm = ""
        self.gives_ranges = True

    @property
    def files_by_name(self) -> bool:
        """Whether uploads are created under names of ours, and found as objects of these names."""
        return self._objects is not None

    @property
    def checks(self) -> bool:
        """Whether pieces go with a checksum: one that is offered, and whose wrong digests were seen to be refused."""
        return bool(self._algorithm)

    async def offers(self) -> Offers:
        """What the server says that it can: asked once, and a checksum tried before it is relied on."""
        if self._offers is None:
            url = self._creation_url("")
            offers = await self.authorised(lambda headers: self._tus.offers(url, headers=headers))
            chosen = next((one for one in _CHECKSUMS if one in offers.checksums), "")
            if chosen and "checksum" in offers.extensions:
                if await self.refuses_wrong(chosen, offers):
                    self._algorithm = chosen
                else:
                    _log.warning("store_ignores_checksum", authority=self._base.authority, algorithm=chosen)
            self._offers = offers
        return self._offers

    async def refuses_wrong(self, algorithm: str, offers: Offers) -> bool:
        """Whether a wrong digest is refused and a right one is not, by an upload of a few bytes that is no evidence."""
        content = probe_name(self._random).encode()
        right = hashlib.new(algorithm, content).digest()
        wrong = bytes([right[0] ^ 1]) + right[1:]
        path = await self.create(content.decode(), len(content), {"filename": content.decode()})
        refused = await self._refuses(path, content, checksum_header(algorithm, wrong))
        taken = refused and not await self._refuses(path, content, checksum_header(algorithm, right))
        if "termination" in offers.extensions:
            with suppress(StoreError):
                await self.terminate(path)
        return refused and taken

    async def _refuses(self, path: str, content: bytes, checksum: str) -> bool:
        return await self._tus.refuses(self._at(path), 0, content, headers=await self._headers(), checksum=checksum)

    async def create(self, name: str, length: int, metadata: Mapping[str, str]) -> str:
        """Make an upload; returns its path. `name` is of the object, and counts only where the server files by name."""
        url = self._creation_url(name)
        return await self.authorised(lambda headers: self._tus.create(url, length, metadata, headers=headers))

    async def standing(self, path: str) -> Standing:
        """Where an upload stands. Raises UploadLost where the server does not know it."""
        return await self.authorised(lambda headers: self._tus.standing(self._at(path), headers=headers))

    async def append(self, path: str, offset: int, blocks: AsyncIterator[bytes], length: int) -> int:
        """One PATCH, with a checksum where `checks` says so and it is not longer than CHECKSUM_BYTES."""
        checksum = ""
        if self.checks and length <= CHECKSUM_BYTES:
            content = b"".join([block async for block in blocks])
            checksum = checksum_header(self._algorithm, hashlib.new(self._algorithm, content).digest())
            blocks = once(content)
        headers = await self._headers()
        try:
            return await self._tus.append(self._at(path), offset, blocks, length, headers=headers, checksum=checksum)
        except SessionExpired as error:
            # The blocks are used up, and the store may have kept some: HEAD shows whether the credentials are at fault.
            raise OffsetConflict("the store took no credentials with a PATCH: ask for the offset") from error

    async def put(self, name: str, content: bytes, metadata: Mapping[str, str]) -> str:
        """Upload some bytes that fit into one piece; returns the upload's path."""
        url, path, offset = self._creation_url(name), "", 0
        if "creation-with-upload" in (await self.offers()).extensions:
            made = await self.authorised(lambda headers: self._tus.create_with(url, content, metadata, headers=headers))
            if made is not None:
                path = made.path
                # A server may take the creation and leave the bytes, or say nothing of them.
                offset = made.offset if made.offset is not None else (await self.standing(path)).offset
        path = path or await self.create(name, len(content), metadata)
        if offset < len(content):
            await self.append(path, offset, once(content[offset:]), len(content) - offset)
        return path

    async def complete(self, path: str, size_bytes: int) -> None:
        """Send an empty piece at the end: asks a server that failed to store a full upload to do it now."""
        await self.append(path, size_bytes, once(b""), 0)

    async def terminate(self, path: str) -> None:
        """Drop an upload. Raises UploadLost where the server does not know it."""
        await self.authorised(lambda headers: self._tus.terminate(self._at(path), headers=headers))

    async def described(self, name: str) -> Answer:
        """HEAD of an object that was filed. Raises UploadLost where it is not there."""
        url = self._object_url(name)
        return await self.authorised(lambda headers: self._wire.ask(Call.LOOK, "HEAD", url, headers=headers))

    async def object_size(self, name: str) -> int | None:
        """The length of an object that was filed; None where it is not there."""
        try:
            return (await self.described(name)).number("content-length")
        except UploadLost:
            return None

    async def read(self, address: str, offset: int, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """An object's bytes from `offset` on, or `length` of them.

        A server that gives all instead of a range is read through up to there.

        Raises UploadLost where it is not there, StoreRefused where it is and is not given back.
        """
        headers = await self._headers()
        part = bool(offset) or length is not None
        if part:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        skip = 0

        def check(answer: Answer) -> None:
            nonlocal skip
            if answer.status == _WHOLE:  # RFC 9110: the range was not looked at
                skip = offset
                self.gives_ranges = self.gives_ranges and not part
            elif not answer.headers.get("content-range", "").startswith(f"bytes {offset}-"):
                raise StoreUnreachable("the store gave another range than it was asked for")

        try:
            source = self._wire.receive(Call.READ, self._object_url(address), headers=headers, check=check)
            async with aclosing(source) as blocks:
                async for block in blocks:
                    if len(block) > skip:
                        yield block[skip:]
                    skip = max(0, skip - len(block))
        except UploadLost as error:
            if address.startswith("/"):
                await self.standing(address)
                raise StoreRefused("the store keeps the upload and gives nothing back of it", status=404) from error
            raise

    async def authorised(self, ask: Callable[[dict[str, str]], Awaitable[_T]]) -> _T:
        """Call with the credentials; with newer ones, once, where they are not taken and the file has others by now."""
        headers = await self._headers()
        try:
            return await ask(headers)
        except SessionExpired as error:
            newer = await self._headers()
            if newer == headers:
                where = f": renew {self._authorization.path}" if self._authorization else ", and it wants some"
                raise StoreUnreachable(f"the store does not take our credentials{where}") from error
        return await ask(newer)

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._wire.aclose()

    async def _headers(self) -> dict[str, str]:
        return {} if self._authorization is None else {"Authorization": await self._authorization.current()}

    def _creation_url(self, name: str) -> str:
        below = f"/{quote(name)}" if name and self.files_by_name else ""
        return self._base.origin + self._base.path + below

    def _object_url(self, address: str) -> str:
        if address.startswith("/"):
            return self._at(address)
        if self._objects is None:
            raise StoreUntrusted(f"{address} lies below an address that is not configured any more: set objects_url")
        return f"{self._objects.origin}{self._objects.path}/{quote(address)}"

    def _at(self, path: str) -> str:
        return self._base.origin + path


async def once(content: bytes) -> AsyncGenerator[bytes, None]:
    """Some bytes as a stream of one block."""
    if content:
        yield content
