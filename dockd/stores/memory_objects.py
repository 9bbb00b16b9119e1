"""A store of objects in memory, that signs nothing: for tests and trials.

What it can do is set at construction: whether it states checksums and versions, whether it keeps objects for a time,
whether it gives bytes back, and whether it takes parts of one length. Faults are ordered beforehand: `fail` before
anything was done, `lose` the answer after it was, `cut` an append short, `corrupt` its bytes, `truncate` or `forget`
what was acknowledged. What it holds is `objects`, which a test may change behind its back.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dockd.core.findings import Answer, Finding, Findings, Question
from dockd.core.objects import Algorithm, Checksum, ObjectState, Piece
from dockd.core.transfer import Call
from dockd.errors import OffsetConflict, StoreError, StoreIncomplete, StoreRefused, StoreUnreachable, UploadLost
from dockd.model import AcquisitionId, Clock, SignedBytes, StoreId
from dockd.stores.probing import Probing

_READ_BYTES = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Filling:
    """One upload that is under way, or was."""

    acquisition: AcquisitionId
    size_bytes: int
    content: bytearray = field(default_factory=bytearray)
    finished: bool = False


@dataclass(slots=True, kw_only=True)
class Stored:
    """One object. What the store says of it was worked out when it was made, and not again."""

    content: bytes
    version: str
    checksum: Checksum | None
    retention_until: datetime | None
    legal_hold: bool = False


class MemoryObjects:
    """ObjectStore without a network. `objects` by name, and `calls`, can be looked at.

    `part_bytes`: takes parts of that length only, keeps no part that was cut, and states the checksum of parts.
    """

    def __init__(
        self,
        *,
        store: StoreId,
        clock: Clock,
        checksums: bool = True,
        versions: bool = True,
        readable: bool = True,
        part_bytes: int = 0,
        retention: timedelta | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._part_bytes = part_bytes
        self.checksums = checksums
        self.versions = versions
        self.readable = readable
        self.gives_ranges = True
        self.retention = retention
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Filling] = {}
        self.calls: list[tuple[Call, str]] = []
        self._made = 0
        self._failing: dict[Call, deque[StoreError]] = {call: deque() for call in Call}
        self._losing: dict[Call, int] = dict.fromkeys(Call, 0)
        self._cuts: deque[int] = deque()
        self._read_cuts: deque[int] = deque()
        self._corrupting = 0

    # --- faults

    def fail(self, call: Call, *errors: StoreError) -> None:
        """The next calls of this kind raise these, one each, before they do anything."""
        self._failing[call].extend(errors)

    def lose(self, call: Call, count: int = 1) -> None:
        """The next calls of this kind do all they should, and their answer is lost."""
        self._losing[call] += count

    def cut(self, *kept_bytes: int) -> None:
        """The next appends break after so many bytes, which are kept as far as they are whole parts."""
        self._cuts.extend(kept_bytes)

    def cut_read(self, *given_bytes: int) -> None:
        """The next readings back break after so many bytes."""
        self._read_cuts.extend(given_bytes)

    def corrupt(self, count: int = 1) -> None:
        """The first byte of the next appends is turned over."""
        self._corrupting += count

    def truncate(self, acquisition: AcquisitionId, size_bytes: int) -> None:
        """Lose acknowledged bytes of what is being uploaded."""
        for filling in self.uploads.values():
            if filling.acquisition == acquisition:
                del filling.content[size_bytes:]

    def forget(self, acquisition: AcquisitionId) -> None:
        """Lose an acquisition altogether: its upload and its objects."""
        self.uploads = {url: one for url, one in self.uploads.items() if one.acquisition != acquisition}
        for piece in Piece:
            self.objects.pop(object_name(acquisition, piece), None)

    def put(self, acquisition: AcquisitionId, piece: Piece, content: bytes) -> None:
        """Somebody puts an object under this name, whatever stands there: a new version."""
        self.objects[object_name(acquisition, piece)] = self._stored(content)

    # --- trials

    def findings(self) -> Findings:
        """What a trial finds now, by how it was set up."""

        def said(question: Question, holds: bool) -> Finding:
            return Finding(question=question, answer=Answer.YES if holds else Answer.NO, claimed=None, detail="set up")

        return (
            said(Question.WRONG_CHECKSUM, self.checksums),
            said(Question.CHECKSUM_BACK, self.checksums),
            said(Question.READ_BACK, self.readable),
            said(Question.LOCKED, self.retention is not None),
        )

    def probing(self) -> Probing:
        """How it is tried: what is found is what it is now, whatever it becomes."""
        found = self.findings()

        async def probe() -> Findings:
            return found

        return Probing(probe=probe, believe=lambda _: None)

    # --- the port

    @property
    def store(self) -> StoreId:
        """The name."""
        return self._store

    async def register(self, acquisition: AcquisitionId, manifest: SignedBytes, sealed_size_bytes: int) -> str:
        """As the port says. The same acquisition has the same upload, finished or not."""
        del manifest
        self._begin(Call.REGISTER, acquisition)
        known = (url for url, one in self.uploads.items() if one.acquisition == acquisition)
        url = next(known, None)
        if url is None:
            self._made += 1
            url = f"/uploads/{self._made}"
            self.uploads[url] = Filling(acquisition=acquisition, size_bytes=sealed_size_bytes)
        self._end(Call.REGISTER)
        return url

    async def offset(self, upload_url: str) -> int:
        """As the port says."""
        self._begin(Call.OFFSET, upload_url)
        offset = len(self._find(upload_url).content)
        self._end(Call.OFFSET)
        return offset

    def stretch(self, upload_url: str, offset: int, wanted_bytes: int) -> int:
        """As the port says."""
        filling = self.uploads.get(upload_url)
        if not self._part_bytes or filling is None:
            return wanted_bytes
        return min(self._part_bytes, filling.size_bytes - offset)

    async def append(self, upload_url: str, offset: int, blocks: AsyncIterator[bytes], length: int) -> int:
        """As the port says. Blocks that arrived before a cancellation are kept, as far as they are whole parts."""
        self._begin(Call.APPEND, upload_url)
        filling = self._find(upload_url)
        if filling.finished:
            raise UploadLost("the upload is finished and takes no more bytes")
        if offset != len(filling.content):
            raise OffsetConflict(f"the upload stands at {len(filling.content)}, not at {offset}")
        if offset + length > filling.size_bytes:
            raise StoreRefused("more bytes than were announced", status=413)
        cut = self._cuts.popleft() if self._cuts else None
        flip, self._corrupting = self._corrupting > 0, max(0, self._corrupting - 1)
        try:
            async for block in blocks:
                arrived = bytes([block[0] ^ 1]) + block[1:] if flip else block
                flip = False
                filling.content += arrived
                if cut is not None and len(filling.content) - offset >= cut:
                    del filling.content[offset + cut :]
                    raise StoreUnreachable("the connection broke")
        finally:
            self._drop_half_a_part(filling)
        self._end(Call.APPEND)
        return len(filling.content)

    async def finish(self, upload_url: str, acquisition: AcquisitionId, manifest: SignedBytes) -> str:
        """As the port says. What is returned is the three names as JSON."""
        self._begin(Call.FINISH, acquisition)
        names = {piece: object_name(acquisition, piece) for piece in Piece}
        filling = self.uploads.get(upload_url)
        if filling is None and names[Piece.SEALED] not in self.objects:
            raise UploadLost("neither the upload nor the object is there")
        contents: dict[Piece, bytes] = {Piece.MANIFEST: manifest.payload, Piece.SIGNATURE: manifest.signature.encode()}
        if filling is not None:
            missing = filling.size_bytes - len(filling.content)
            if missing:
                raise StoreIncomplete(f"{missing} bytes are missing")
            contents[Piece.SEALED] = bytes(filling.content)
        for piece, content in contents.items():
            there = self.objects.get(names[piece])
            if there is not None and there.content != content:
                raise StoreRefused(f"another object stands under {names[piece]}", status=412)
        for piece, content in contents.items():
            self.objects.setdefault(names[piece], self._stored(content))
        if filling is not None:
            filling.finished = True
        self._end(Call.FINISH)
        return json.dumps(names)

    async def retain(self, objects: str, until: datetime) -> bool:
        """As the port says: one that locks objects can."""
        self._begin(Call.FINISH, objects)
        if self.retention is None:
            return False
        for piece in Piece:
            stored = self._object(objects, piece)
            stored.retention_until = max(until, stored.retention_until or until)
        return True

    async def look(self, objects: str) -> Mapping[Piece, ObjectState]:
        """As the port says."""
        self._begin(Call.LOOK, objects)
        found = {}
        for piece in Piece:
            stored = self._object(objects, piece)
            found[piece] = ObjectState(
                size_bytes=len(stored.content),
                version=stored.version,
                checksum=stored.checksum,
                retention_until=stored.retention_until,
                legal_hold=stored.legal_hold,
            )
        self._end(Call.LOOK)
        return found

    async def read(
        self, objects: str, piece: Piece, offset: int, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """As the port says."""
        self._begin(Call.READ, objects)
        content = self._object(objects, piece).content
        if not self.readable:
            raise StoreRefused("the store gives nothing back", status=405)
        cut = self._read_cuts.popleft() if self._read_cuts else None
        end = len(content) if length is None else min(len(content), offset + length)
        end = end if cut is None else min(end, offset + cut)
        for at in range(offset, end, _READ_BYTES):
            yield content[at : min(at + _READ_BYTES, end)]
        if cut is not None:
            raise StoreUnreachable("the connection broke")

    async def clear_orphans(self, wanted: Callable[[AcquisitionId], Awaitable[bool]]) -> tuple[AcquisitionId, ...]:
        """As the port says."""
        self._begin(Call.ABANDON, "orphans")
        gone = []
        for url, filling in list(self.uploads.items()):
            if not filling.finished and not await wanted(filling.acquisition):
                self.uploads.pop(url, None)
                gone.append(filling.acquisition)
        self._end(Call.ABANDON)
        return tuple(gone)

    async def abandon(self, upload_url: str) -> None:
        """As the port says."""
        self._begin(Call.ABANDON, upload_url)
        filling = self.uploads.get(upload_url)
        if filling is not None and not filling.finished:
            del self.uploads[upload_url]
        self._end(Call.ABANDON)

    async def aclose(self) -> None:
        """As the port says."""

    # --- how

    def _begin(self, call: Call, what: str) -> None:
        self.calls.append((call, what))
        if self._failing[call]:
            raise self._failing[call].popleft()

    def _end(self, call: Call) -> None:
        if self._losing[call]:
            self._losing[call] -= 1
            raise StoreUnreachable("the answer was lost")

    def _find(self, upload_url: str) -> Filling:
        filling = self.uploads.get(upload_url)
        if filling is None:
            raise UploadLost("no such upload")
        return filling

    def _object(self, objects: str, piece: Piece) -> Stored:
        name = json.loads(objects)[piece]
        if name not in self.objects:
            raise UploadLost(f"{name} is not there")
        return self.objects[name]

    def _drop_half_a_part(self, filling: Filling) -> None:
        if self._part_bytes and len(filling.content) < filling.size_bytes:
            del filling.content[len(filling.content) // self._part_bytes * self._part_bytes :]

    def _stored(self, content: bytes) -> Stored:
        self._made += 1
        return Stored(
            content=content,
            version=f"v{self._made}" if self.versions else "",
            checksum=self._checksum(content) if self.checksums else None,
            retention_until=None if self.retention is None else self._clock.now() + self.retention,
        )

    def _checksum(self, content: bytes) -> Checksum:
        part = self._part_bytes
        if not part or len(content) <= part:
            return Checksum(algorithm=Algorithm.SHA256, digest=hashlib.sha256(content).digest())
        digests = (hashlib.sha256(content[at : at + part]).digest() for at in range(0, len(content), part))
        whole = hashlib.sha256(b"".join(digests)).digest()
        return Checksum(algorithm=Algorithm.SHA256_OF_PARTS, digest=whole, part_bytes=part)


def object_name(acquisition: AcquisitionId, piece: Piece) -> str:
    """The name of one of an acquisition's objects."""
    return f"{acquisition}/{piece.value}"
