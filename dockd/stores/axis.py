"""The evidence store that is an Axis content destination: a subset of OpenStack Swift (docs/stores-axis.md).

One acquisition is one recording: a container with the sealed clip, its manifest and the manifest's signature, which
says `Status=Complete` last of all. On a Swift with large objects the clip travels in pieces; elsewhere in one PUT.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

from dockd.core import canonical
from dockd.core.manifest import decode
from dockd.core.objects import ObjectState, Piece
from dockd.core.patch_size import MIN_PATCH_BYTES
from dockd.core.transfer import Call
from dockd.errors import (
    OffsetConflict,
    PatchTooLarge,
    StoreIncomplete,
    StoreRefused,
    StoreUntrusted,
    UploadLost,
)
from dockd.model import AcquisitionId, Clock, SignedBytes, StationId, StoreId
from dockd.stores import axis_names as names
from dockd.stores.address import parse_address
from dockd.stores.axis_places import Places
from dockd.stores.axis_records import Objects, Upload, parse_objects, parse_upload
from dockd.stores.axis_segments import Limits, Segments, damaged, fingerprint, offered
from dockd.stores.axis_session import Account, CredentialSource, judge
from dockd.stores.tls import ClientCertificate
from dockd.stores.wire import Answer, Pace, Timeouts, Wire, open_client

_UNKNOWN = -1  # an object's size, where the store does not say it
_OCTETS = {"Content-Type": "application/octet-stream"}
_NEW = {"If-None-Match": "*"}
_CREATED, _OK, _GONE, _EXISTS = 201, 200, 404, 412
_SPEECHLESS = (400, 405, 501)  # to a HEAD, which the API itself never sends


class AxisStore:
    """ObjectStore over the Body Worn content destination API. `url` is its AuthenticationTokenURI.

    Raises ConfigError at construction where `url` or `ca_file` cannot be used. `segments`: None to believe what the
    store says of large objects, False to do without. `everything`: the connection file's FullStoreAndReadSupport.
    """

    def __init__(
        self,
        *,
        name: StoreId,
        url: str,
        ca_file: Path | None,
        clock: Clock,
        credentials: CredentialSource,
        station: StationId,
        station_name: str = "",
        timeouts: Timeouts | None = None,
        pace: Pace | None = None,
        insecure_loopback: bool = False,
        segments: bool | None = None,
        everything: bool = False,
        key_objects: bool = False,
        certificate: ClientCertificate | None = None,
        proxy_url: str | None = None,
    ) -> None:
        address, waits = parse_address(url, insecure_loopback=insecure_loopback), timeouts or Timeouts()
        client = open_client(ca_file, waits, least=ssl.TLSVersion.TLSv1_2, certificate=certificate, proxy_url=proxy_url)
        wire = Wire(client, clock=clock, timeouts=waits, judge=judge, pace=pace)
        self.account = Account(wire, address=address, credentials=credentials, clock=clock)
        self._name = name
        self._clock = clock
        self._station = station
        self._segments = Segments(self.account)
        self.joins_pieces = segments
        self.gives_ranges = True
        self._key_objects = key_objects
        self._places = Places(self.account, station=station, station_name=station_name, everything=everything)

    @property
    def store(self) -> StoreId:
        """The id that configuration gives it."""
        return self._name

    async def register(self, acquisition: AcquisitionId, manifest: SignedBytes, sealed_size_bytes: int) -> str:
        """As the port says: the camera, the user and the recording's container are made where they are missing."""
        recording = self._recording(manifest)
        await self._places.announce(recording)
        digest = hashlib.sha256(manifest.payload).hexdigest()
        container = await self._places.claim(recording, acquisition, digest)
        limits = await self.limits() if sealed_size_bytes > MIN_PATCH_BYTES else None
        if limits is not None:
            await self.account.ask(Call.REGISTER, "PUT", (names.SEGMENTS,))
        return Upload(
            acquisition=acquisition,
            container=container,
            name=recording.sealed,
            size_bytes=sealed_size_bytes,
            least_bytes=0 if limits is None else limits.piece_bytes(sealed_size_bytes),
            metadata=recording.clip_metadata,
        ).encode()

    async def offset(self, upload_url: str) -> int:
        """As the port says: whole pieces, or nothing or all of it."""
        upload = parse_upload(upload_url)
        size = await self._size(upload)
        if size == upload.size_bytes:
            return size
        if size not in (None, _UNKNOWN):
            raise _stands_there(upload.name)
        await self._look_for_container(upload)
        if not upload.least_bytes:
            return 0
        held = await self._segments.held(upload.acquisition, upload.size_bytes)
        return sum(one.size_bytes for one in held.values())

    def stretch(self, upload_url: str, offset: int, wanted_bytes: int) -> int:
        """As the port says: at least the shortest piece, or all of it."""
        upload = parse_upload(upload_url)
        rest = upload.size_bytes - offset
        return min(rest, max(wanted_bytes, upload.least_bytes)) if upload.least_bytes else rest

    async def append(self, upload_url: str, offset: int, blocks: AsyncIterator[bytes], length: int) -> int:
        """As the port says: one PUT, of which nothing is kept unless all of it came."""
        upload = parse_upload(upload_url)
        if offset + length > upload.size_bytes or (
            not upload.least_bytes and (offset, length) != (0, upload.size_bytes)
        ):
            raise OffsetConflict("the bytes are no piece of this upload: ask for the offset and go on there")
        said = {**_OCTETS, **_NEW, "Content-Length": str(length)}
        if upload.least_bytes:
            place: tuple[str, ...] = (names.SEGMENTS, names.segment(upload.acquisition, offset))
        else:
            place = (upload.container, upload.name)
            said |= names.headers("Object", upload.metadata)
        counted = _Counted(blocks)
        try:
            answer = await self.account.send(place, headers=said, blocks=counted.blocks(), expected=(_EXISTS,))
        except PatchTooLarge as error:
            if length > max(upload.least_bytes, 1) and upload.least_bytes:
                raise
            raise StoreRefused(f"the clip cannot be sent in smaller pieces ({error})", status=413) from error
        if answer.status != _CREATED:
            raise OffsetConflict("the store has an object there already: ask for the offset and go on there")
        wrong = damaged(answer.headers.get("etag", counted.digest()), counted.digest())
        if wrong is not None:
            await self._drop_damaged(upload, offset)
            raise wrong
        return offset + length

    async def finish(self, upload_url: str, acquisition: AcquisitionId, manifest: SignedBytes) -> str:
        """As the port says. `Status=Complete` comes last, when all objects are there."""
        upload, recording = parse_upload(upload_url), self._recording(manifest)
        if upload.acquisition != acquisition:
            raise StoreUntrusted("the upload is another acquisition's")
        await self._make_whole(upload)
        signature = manifest.signature.encode()
        small = {recording.manifest: (manifest.payload, "json"), recording.signature: (signature, "sig")}
        if self._key_objects:
            small[recording.key] = (_key_object(manifest), "key")
        for name, (content, kind) in small.items():
            await self._put(upload.container, name, content, kind, upload.metadata["StartTime"])
        await self._places.complete(upload.container)
        return Objects(
            acquisition=acquisition,
            container=upload.container,
            pieces={
                Piece.SEALED: (upload.name, upload.size_bytes),
                Piece.MANIFEST: (recording.manifest, len(manifest.payload)),
                Piece.SIGNATURE: (recording.signature, len(signature)),
            },
        ).encode()

    async def retain(self, objects: str, until: datetime) -> bool:
        """As the port says: Swift cannot."""
        del objects, until
        return False

    async def look(self, objects: str) -> Mapping[Piece, ObjectState]:
        """As the port says: HEAD of each. An MD5 is no checksum that counts, and Swift promises no retention.

        A large object's description does not change when one of its pieces does, so they are looked at as well.
        """
        found = parse_objects(objects)
        return {piece: await self._state(found, piece) for piece in Piece}

    async def read(
        self, objects: str, piece: Piece, offset: int, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """As the port says: GET with a range."""
        found = parse_objects(objects)
        name, size = found.pieces[piece]
        if offset >= size:
            return
        heads: list[Answer] = []
        part = bool(offset) or length is not None
        said = {"Range": f"bytes={offset}-{'' if length is None else offset + length - 1}"} if part else {}
        given = self.account.receive((found.container, name), headers=said, check=heads.append)
        skip = -1
        async with aclosing(given) as blocks:
            async for block in blocks:
                if skip < 0:
                    skip = _skipped(heads[-1], offset)
                    self.gives_ranges = self.gives_ranges and not (part and heads[-1].status == _OK)
                kept, skip = block[skip:], max(0, skip - len(block))
                if kept:
                    yield kept

    async def clear_orphans(self, wanted: Callable[[AcquisitionId], Awaitable[bool]]) -> tuple[AcquisitionId, ...]:
        """As the port says: nothing; its pieces are known by acquisition alone."""
        del wanted
        return ()

    async def abandon(self, upload_url: str) -> None:
        """As the port says: the pieces are deleted, and the recording's container where nothing is in it."""
        upload = parse_upload(upload_url)
        if await self._size(upload) is not None or not upload.least_bytes:
            return  # finished: the pieces are the object; or there is nothing that can be given up
        await self._segments.drop(upload.acquisition)
        await self.account.ask(Call.ABANDON, "DELETE", (upload.container,), expected=(_GONE, 409))

    async def aclose(self) -> None:
        """As the port says."""
        await self.account.aclose()

    async def limits(self) -> Limits | None:
        """What the store offers of large objects, where they are wanted."""
        return offered(await self.account.discoverable()) if self.joins_pieces is not False else None

    # --- how

    def _recording(self, manifest: SignedBytes) -> names.Recording:
        digest = hashlib.sha256(manifest.payload).hexdigest()
        return names.recording(decode(manifest.payload), digest, self._station, acquired_at=self._clock.now())

    async def _size(self, upload: Upload) -> int | None:
        """How long the sealed object is; None where it is not there, `_UNKNOWN` where the store does not say."""
        try:
            answer = await self.account.ask(Call.OFFSET, "HEAD", (upload.container, upload.name), expected=_SPEECHLESS)
        except UploadLost:
            return None
        if answer.status != _OK or not answer.headers.get("content-length"):
            return _UNKNOWN
        return answer.number("content-length") or _UNKNOWN

    async def _look_for_container(self, upload: Upload) -> None:
        await self.account.ask(Call.OFFSET, "HEAD", (upload.container,), expected=_SPEECHLESS)

    async def _drop_damaged(self, upload: Upload, offset: int) -> None:
        if upload.least_bytes:
            await self._segments.drop_one(upload.acquisition, offset)
        else:
            await self.account.ask(Call.ABANDON, "DELETE", (upload.container, upload.name), expected=(_GONE,))

    async def _make_whole(self, upload: Upload) -> None:
        size = await self._size(upload)
        if size in (upload.size_bytes, _UNKNOWN):
            return
        if size is not None:
            raise _stands_there(upload.name)
        await self._look_for_container(upload)
        pieces = await self._segments.held(upload.acquisition, upload.size_bytes) if upload.least_bytes else {}
        missing = upload.size_bytes - sum(one.size_bytes for one in pieces.values())
        if missing > 0:
            raise StoreIncomplete(f"{missing} bytes are missing")
        headers = {**_OCTETS, **names.headers("Object", upload.metadata)}
        made = await self._segments.join(upload.container, upload.name, upload.acquisition, pieces, headers)
        if not made and await self._size(upload) != upload.size_bytes:
            raise _stands_there(upload.name)

    async def _put(self, container: str, name: str, content: bytes, kind: str, started: str) -> None:
        """A small object, whole; or the same bytes are there already. Looked for first: not every store refuses."""
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()  # the store refuses what arrives damaged
        if await self._stands(container, name, content, etag):
            return
        said = {**_OCTETS, **_NEW, "ETag": etag, **names.headers("Object", {"FileType": kind, "StartTime": started})}
        answer = await self.account.ask(
            Call.FINISH, "PUT", (container, name), headers=said, content=content, expected=(_EXISTS,)
        )
        if answer.status == _EXISTS and not await self._stands(container, name, content, etag):
            raise _stands_there(name)

    async def _stands(self, container: str, name: str, content: bytes, etag: str) -> bool:
        """Whether these bytes are there, by length and MD5; reading back comes later. Others raise StoreRefused."""
        try:
            answer = await self.account.ask(Call.LOOK, "HEAD", (container, name), expected=_SPEECHLESS)
        except UploadLost:
            return False
        if answer.status != _OK or not answer.headers.get("content-length"):
            return False  # the store does not say: our own name, so our own bytes are put there again
        if (answer.number("content-length"), answer.headers.get("etag", "").strip('"').lower()) != (len(content), etag):
            raise _stands_there(name)
        return True

    async def _state(self, objects: Objects, piece: Piece) -> ObjectState:
        name, _ = objects.pieces[piece]
        answer = await self.account.ask(Call.LOOK, "HEAD", (objects.container, name), expected=_SPEECHLESS)
        if answer.status != _OK or not answer.headers.get("content-length"):
            raise StoreRefused("the store does not say what it holds: nothing can confirm it", status=answer.status)
        version = [answer.word("etag").strip('"'), answer.word("x-timestamp")]
        if piece is Piece.SEALED and _is_joined(answer):
            version.append(await self._pieces(objects, name))
        return ObjectState(
            size_bytes=answer.number("content-length"),
            version=" ".join(filter(None, version)),
            checksum=None,
            retention_until=None,
        )

    async def _pieces(self, objects: Objects, name: str) -> str:
        """A text for the pieces of a large object as they are. Raises UploadLost where one is not what was joined."""
        joined = await self._segments.joined(objects.container, name)
        there = await self._segments.listed(objects.acquisition)
        listed = {names.segment(objects.acquisition, at): one for at, one in there.items()}
        if any(listed.get(one) != piece for one, piece in joined.items()):
            raise UploadLost("pieces of the clip are gone or changed at the store")
        return fingerprint(joined)


class _Counted:
    """Blocks on their way, and their MD5, which is what Swift calls an ETag."""

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks
        self._md5 = hashlib.md5(usedforsecurity=False)

    async def blocks(self) -> AsyncIterator[bytes]:
        async for block in self._blocks:
            await asyncio.to_thread(self._md5.update, block)
            yield block

    def digest(self) -> str:
        return self._md5.hexdigest()


def _key_object(manifest: SignedBytes) -> bytes:
    """What a receiver looks for beside an encrypted clip: by whom, and by what, it can be opened."""
    decoded = decode(manifest.payload)
    return canonical.encode(
        {
            "type": "axis-key",
            "v": 1,
            "ContentEncryption": "age-encryption.org/v1",
            "PublicKeyId": ",".join(decoded.recipients),
            "ContentDigest": decoded.sealed_digest,
        }
    )


def _is_joined(answer: Answer) -> bool:
    return str(answer.headers.get("x-static-large-object", "")).lower() == "true"


def _skipped(answer: Answer, offset: int) -> int:
    """How many of the first bytes that came lie before `offset`. Raises StoreUntrusted for another range."""
    if answer.status == _OK:
        return offset
    if not answer.headers.get("content-range", "").startswith(f"bytes {offset}-"):
        raise StoreUntrusted("the store gave other bytes than it was asked for")
    return 0


def _stands_there(name: str) -> StoreRefused:
    return StoreRefused(f"another object stands under {name}", status=_EXISTS)
