"""The evidence store that is a bucket of an S3 service: multipart uploads, resumed part by part in any life.

Keys are PREFIX/STATION/ACQUISITION/clip.age, manifest.json and manifest.json.sig. Nothing is ever overwritten.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import structlog

from dockd.core import canonical
from dockd.core import manifest as manifests
from dockd.core.objects import ObjectState, Piece
from dockd.errors import (
    ConfigError,
    OffsetConflict,
    StoreIncomplete,
    StoreRefused,
    StoreUnreachable,
    UploadCorrupt,
    UploadLost,
    VerificationFailed,
)
from dockd.model import AcquisitionId, Category, Clock, SignedBytes, StationId, StoreId
from dockd.stores import s3_parts
from dockd.stores.address import parse_address
from dockd.stores.credentials import CredentialSource
from dockd.stores.s3_answers import judge
from dockd.stores.s3_bucket import Bucket
from dockd.stores.s3_exchange import Exchange
from dockd.stores.s3_records import (
    MARK,
    NAMES,
    Believed,
    Head,
    Lock,
    LockMode,
    Objects,
    Upload,
    checksum_header,
    parse_objects,
    parse_upload,
)
from dockd.stores.s3_signing import Signer
from dockd.stores.tls import ClientCertificate
from dockd.stores.wire import Answer, Pace, Timeouts, Wire, open_client

_log = structlog.get_logger()
_NAME = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")


PartDigests = Callable[[AcquisitionId, int], Awaitable[Sequence[bytes]]]
"""SHA-256 of each stretch of so many bytes of an acquisition's sealed file, as it lies in the spool now."""


@dataclass(slots=True, kw_only=True)
class _Going:
    """What this life knows of an upload."""

    sent: dict[int, s3_parts.Part] = field(default_factory=dict)
    offset: int | None = None  # None: ask the store


class S3Store:
    """ObjectStore. Holds one part in memory for each `append` under way.

    Raises ConfigError at construction for what cannot be used. `believed` is what a probe found (stores.s3_probe).
    `part_digests` is asked where an upload began in another life, and the store completes uploads with their parts'
    checksums only, but does not list them. Without it, uploads to such a store are begun without checksums to give
    back, and their objects have to be read back.
    """

    def __init__(
        self,
        *,
        name: StoreId,
        url: str,
        bucket: str,
        region: str,
        station: StationId,
        credentials: CredentialSource,
        clock: Clock,
        prefix: str = "",
        part_bytes: int = s3_parts.DEFAULT_PART_BYTES,
        lock: Lock | None = None,
        believed: Believed | None = None,
        part_digests: PartDigests | None = None,
        bucket_in_host: bool = False,
        ca_file: Path | None = None,
        certificate: ClientCertificate | None = None,
        proxy_url: str | None = None,
        timeouts: Timeouts | None = None,
        pace: Pace | None = None,
        insecure_loopback: bool = False,
    ) -> None:
        _check(bucket, prefix, part_bytes)
        address = parse_address(url, insecure_loopback=insecure_loopback)
        base_url = f"{address.origin}{address.path}/{bucket}"
        if bucket_in_host:
            base_url = f"{address.scheme}://{bucket}.{address.authority}{address.path}"
        waits = timeouts or Timeouts()
        client = open_client(ca_file, waits, least=ssl.TLSVersion.TLSv1_2, certificate=certificate, proxy_url=proxy_url)
        self._name = name
        self._clock = clock
        self._part_bytes = part_bytes
        self._prefix = "/".join(filter(None, (prefix, station)))
        self._part_digests = part_digests
        self._going: dict[str, _Going] = {}
        self.lock = lock
        self.believed = believed or Believed()
        self.gives_ranges = True
        wire = Wire(client, clock=clock, timeouts=waits, judge=judge, pace=pace)
        self.bucket = Bucket(
            Exchange(wire, base_url=base_url, signer=Signer(region), credentials=credentials, clock=clock)
        )

    @property
    def store(self) -> StoreId:
        """The id that configuration gives it."""
        return self._name

    @property
    def prefix(self) -> str:
        """What every key of this station begins with, without the slash."""
        return self._prefix

    # --- bytes

    async def register(self, acquisition: AcquisitionId, manifest: SignedBytes, sealed_size_bytes: int) -> str:
        """As the port says: an unfinished upload of the same key is gone on with, others of it are aborted."""
        try:
            cut = s3_parts.cut(sealed_size_bytes, self._part_bytes)
        except ValueError as error:
            raise StoreRefused(str(error), status=0) from error
        mark = canonical.digest(manifest.payload)
        upload = Upload(base=f"{self._prefix}/{acquisition}", upload_id="", cut=cut, mark=mark)
        if (standing := await self.bucket.found(upload.key())) is not None:
            _require_own(standing, upload)
            return upload.text()
        pending = [one async for one in self.bucket.unfinished(upload.key()) if one.key == upload.key()]
        pending.sort(key=lambda one: (one.initiated_at, one.upload_id))
        for other in pending[1:]:
            await self.bucket.abort(other.key, other.upload_id)
        if pending:
            upload_id = pending[0].upload_id
        else:
            summed = self.believed.parts_listed or self._part_digests is not None
            upload_id = await self.bucket.create(upload.key(), self._headers(manifest, mark), summed=summed)
        return Upload(base=upload.base, upload_id=upload_id, cut=cut, mark=mark).text()

    async def offset(self, upload_url: str) -> int:
        """As the port says: ListParts, as far as the parts follow each other; HEAD where it is finished."""
        upload = parse_upload(upload_url)
        parts = await self._parts(upload)
        if parts is None:
            if not (await self.bucket.head(upload.key())).is_of(upload):
                raise UploadLost("another object stands under the upload's name")
            return upload.cut.size_bytes
        return upload.cut.offset_behind(parts)

    def stretch(self, upload_url: str, offset: int, wanted_bytes: int) -> int:
        """As the port says: the part at hand."""
        del wanted_bytes
        return parse_upload(upload_url).cut.stretch(offset)

    async def append(self, upload_url: str, offset: int, blocks: AsyncIterator[bytes], length: int) -> int:
        """As the port says: one part, whole in memory, hashed before it is sent. Its checksum goes with it."""
        upload = parse_upload(upload_url)
        number = upload.cut.number_at(offset)
        if number is None or length != upload.cut.length(number):
            raise OffsetConflict(f"no part of this upload is {length} bytes from {offset} on")
        going = self._going.setdefault(upload.upload_id, _Going())
        if going.offset is None and await self._parts(upload) is None:
            raise UploadLost("the store no longer takes parts of this upload")
        if going.offset != offset:
            raise OffsetConflict(f"the store stands at {going.offset}, not at {offset}")
        pieces = [block async for block in blocks]
        if sum(map(len, pieces)) != length:
            raise ValueError("the blocks are not of the length that was said")
        sha256 = await asyncio.to_thread(_sha256, pieces)
        going.offset = None  # until the answer is there, or ListParts was asked
        going.sent[number] = await self.bucket.put_part(upload.key(), upload.upload_id, number, pieces, sha256=sha256)
        going.offset = offset + length
        return going.offset

    # --- objects

    async def finish(self, upload_url: str, acquisition: AcquisitionId, manifest: SignedBytes) -> str:
        """As the port says. The manifest and its signature come first: a clip that stands there is never without."""
        upload = parse_upload(upload_url)
        parts = await self._parts(upload)
        if parts is None:
            _require_own(await self.bucket.head(upload.key()), upload)
        elif upload.cut.offset_behind(parts) < upload.cut.size_bytes:
            raise StoreIncomplete("the store has not got all parts of this upload yet")
        contents = {Piece.MANIFEST: manifest.payload, Piece.SIGNATURE: manifest.signature.encode()}
        for piece, content in contents.items():
            await self._put_once(upload.key(piece), content, self._headers(manifest, upload.mark))
        if parts is not None:
            await self._complete(upload, await self._summed(acquisition, upload, parts))
        if self.lock is not None:
            for piece in Piece:
                await self._keep_locked(upload.key(piece), self.lock, _category(manifest))
        self._going.pop(upload.upload_id, None)
        sizes = {Piece.SEALED: upload.cut.size_bytes, **{piece: len(content) for piece, content in contents.items()}}
        return Objects(base=upload.base, part_bytes=upload.cut.part_bytes, sizes=sizes).text()

    async def retain(self, objects: str, until: datetime) -> bool:
        """As the port says: PutObjectRetention, in the mode that is configured."""
        if self.lock is None or not self.believed.locks:
            return False
        named = parse_objects(objects)
        for piece in Piece:
            found = await self.bucket.retention(named.key(piece), "")
            if found is None or found.until < until:
                await self.bucket.retain(named.key(piece), self.lock.mode, until)
        return True

    async def look(self, objects: str) -> Mapping[Piece, ObjectState]:
        """As the port says: HEAD, and the retention and legal hold of the version that it named."""
        named = parse_objects(objects)
        found = {}
        for piece in Piece:
            head = await self.bucket.head(named.key(piece))
            retained, held = None, False
            if self.lock is not None and self.believed.locks:
                retained = await self.bucket.retention(named.key(piece), head.version_id)
                if retained is not None and retained.mode not in (self.lock.mode, LockMode.COMPLIANCE):
                    retained = None  # weaker than what was asked for
                held = await self.bucket.legal_hold(named.key(piece), head.version_id)
            part_bytes = named.part_bytes if piece is Piece.SEALED else 0
            found[piece] = head.state(part_bytes=part_bytes, believed=self.believed, retained=retained, held=held)
        return found

    async def read(
        self, objects: str, piece: Piece, offset: int, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """As the port says: GET with a range."""
        named = parse_objects(objects)
        if offset >= named.sizes[piece]:
            return
        part = bool(offset) or length is not None
        headers = {"Range": f"bytes={offset}-{'' if length is None else offset + length - 1}"} if part else {}
        skip = 0

        def check(answer: Answer) -> None:
            nonlocal skip
            partial = answer.headers.get("content-range", "").startswith(f"bytes {offset}-")
            if answer.status == 206 and not partial:  # noqa: PLR2004
                raise StoreUnreachable("the store gives another range back than the one that was asked for")
            if answer.status == 200:  # noqa: PLR2004  it knows no ranges
                skip, self.gives_ranges = offset, self.gives_ranges and not part

        async with aclosing(self.bucket.read(named.key(piece), headers=headers, check=check)) as blocks:
            async for block in blocks:
                if kept := block[skip:]:
                    yield kept
                skip = max(0, skip - len(block))

    async def abandon(self, upload_url: str) -> None:
        """As the port says: AbortMultipartUpload."""
        upload = parse_upload(upload_url)
        self._going.pop(upload.upload_id, None)
        if upload.upload_id:
            await self.bucket.abort(upload.key(), upload.upload_id)

    async def clear_orphans(self, wanted: Callable[[AcquisitionId], Awaitable[bool]]) -> tuple[AcquisitionId, ...]:
        """As the port says; `wanted` is asked after an upload was seen, so that none begun meanwhile is taken for one.

        For the start: an upload that a crash kept out of the journal is either wanted, and `register` finds it again,
        or in nobody's way but the bill's. Other stations' uploads are not touched.
        """
        gone = []
        async for one in self.bucket.unfinished(f"{self._prefix}/"):
            acquisition, _, name = one.key.removeprefix(f"{self._prefix}/").partition("/")
            if name == NAMES[Piece.SEALED] and not await wanted(AcquisitionId(acquisition)):
                await self.bucket.abort(one.key, one.upload_id)
                gone.append(AcquisitionId(acquisition))
        if gone:
            _log.info("orphan_uploads_aborted", store=self._name, count=len(gone))
        return tuple(gone)

    async def aclose(self) -> None:
        """As the port says."""
        await self.bucket.aclose()

    # --- the rest

    def _headers(self, manifest: SignedBytes, mark: str) -> dict[str, str]:
        headers = {"Content-Type": "application/octet-stream", MARK: mark}
        if self.lock is not None:
            headers |= self.lock.headers(_category(manifest), self._clock.now())
        return headers

    async def _parts(self, upload: Upload) -> tuple[s3_parts.Part, ...] | None:
        """The parts that are there, from the first on; None where there is no such upload (any more)."""
        if not upload.upload_id:
            return None
        try:
            listed = await self.bucket.parts(upload.key(), upload.upload_id)
        except UploadLost:
            self._going.pop(upload.upload_id, None)
            return None
        going = self._going.setdefault(upload.upload_id, _Going())
        whole = upload.cut.whole(listed, going.sent)
        going.offset = upload.cut.offset_behind(whole)
        return whole

    async def _summed(
        self, acquisition: AcquisitionId, upload: Upload, parts: tuple[s3_parts.Part, ...]
    ) -> tuple[s3_parts.Part, ...]:
        """The parts with their checksums, where those can be known."""
        if self._part_digests is None or all(part.sha256 is not None for part in parts):
            return parts
        digests = await self._part_digests(acquisition, upload.cut.part_bytes)
        if len(digests) != len(parts):
            raise UploadCorrupt("the sealed file is not as long as the parts that were sent of it")
        return tuple(replace(part, sha256=digest) for part, digest in zip(parts, digests, strict=True))

    async def _complete(self, upload: Upload, parts: tuple[s3_parts.Part, ...]) -> None:
        made = False
        if self.believed.complete_if_absent or await self.bucket.found(upload.key()) is None:
            try:
                made = await self.bucket.complete(upload.key(), upload.upload_id, parts)
            except UploadLost:
                _log.info("completed_before", store=self._name)  # its answer was lost
            except UploadCorrupt:
                await self.bucket.abort(upload.key(), upload.upload_id)
                raise
        if not made:
            _require_own(await self.bucket.head(upload.key()), upload)
            await self.bucket.abort(upload.key(), upload.upload_id)

    async def _put_once(self, key: str, content: bytes, headers: Mapping[str, str]) -> None:
        """Put a small object where there is none. Raises StoreRefused where there is one of other bytes."""
        if not self.believed.put_if_absent and await self.bucket.stands(key, content):
            return
        said = {**headers, **checksum_header(hashlib.sha256(content).digest())}
        if not await self.bucket.put(key, content, said) and not await self.bucket.stands(key, content):
            raise StoreUnreachable("the store says that an object is there, and then that it is not")

    async def _keep_locked(self, key: str, lock: Lock, category: Category) -> None:
        """Set retention and hold where they are not there: some stores drop those that an upload began with."""
        until = lock.until(category, self._clock.now())
        if until is not None:
            found = await self.bucket.retention(key, "")
            if found is None or found.until < until:
                await self.bucket.retain(key, lock.mode, until)
        if category in lock.hold and not await self.bucket.legal_hold(key, ""):
            await self.bucket.hold(key)


def _check(bucket: str, prefix: str, part_bytes: int) -> None:
    problems = []
    if not _NAME.fullmatch(bucket) or "/" in bucket:
        problems.append(f"store.bucket: found {bucket!r}; allowed: letters, digits, '.', '_', '-'")
    if prefix and not _NAME.fullmatch(prefix):
        problems.append(
            f"store.prefix: found {prefix!r}; allowed: names of letters, digits, '.', '_', '-' with '/' between"
        )
    if part_bytes < s3_parts.MIN_PART_BYTES:
        problems.append(f"store.part_bytes: found {part_bytes}; allowed: {s3_parts.MIN_PART_BYTES} or more")
    if problems:
        raise ConfigError("the S3 store cannot be used as it is configured", problems=tuple(problems))


def _require_own(head: Head, upload: Upload) -> None:
    if not head.is_of(upload):
        raise StoreRefused(f"another object stands at {upload.key()}; nothing is overwritten", status=412)


def _category(manifest: SignedBytes) -> Category:
    try:
        return manifests.decode(manifest.payload).category
    except VerificationFailed as error:
        raise StoreRefused(
            f"the manifest cannot be read, so nobody knows how long to retain it: {error}", status=0
        ) from error


def _sha256(pieces: Sequence[bytes]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
