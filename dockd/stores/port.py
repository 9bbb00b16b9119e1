"""The evidence store port. Each method says whether it may be called again, and what is true after cancellation.

Bytes travel alike to every store (`EvidenceStore`). What confirms that they arrived depends on the store: one that
signs gives receipts (`SigningStore`); of any other the objects are looked at, or read back (`ObjectStore`).

Errors are those of `dockd.errors`, below StoreError; an adapter translates its transport's own, once, with `from`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dockd.core.challenge import Range
from dockd.core.objects import ObjectState, Piece
from dockd.core.sshsig import PublicKey
from dockd.model import AcquisitionId, Digest, SignedBytes, StationId, StoreId


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """What a store said of a custody checkpoint: the note with the store's own signature line added."""

    note: bytes


class EvidenceStore(Protocol):
    """One store. All calls are safe to make again after any doubt; none blocks the event loop."""

    @property
    def store(self) -> StoreId:
        """The store's id: of one that signs the pinned UUID, of any other one that is made of its place."""

    async def register(self, acquisition: AcquisitionId, manifest: SignedBytes, sealed_size_bytes: int) -> str:
        """Announce an acquisition and get its upload URL, or whatever else names the upload at this store.

        What is returned is kept in the journal, and handed in again by any later life of the program. Idempotent for
        the same manifest bytes: the same upload where it can still be gone on with, so that a crash between this call
        and the journal leaves no orphan that is never looked for. What a store gave a receipt for and provably no
        longer has, it takes again from the first byte, under the receipt that it gave. Raises StoreRefused where the
        store will never take it. After cancellation the store may or may not know the acquisition.
        """

    async def offset(self, upload_url: str) -> int:
        """How many bytes the store durably holds. Raises UploadLost where it no longer knows the upload.

        Also of an upload that is finished by now, where the store can tell: then all of them.
        """

    def stretch(self, upload_url: str, offset: int, wanted_bytes: int) -> int:
        """How many bytes from `offset` the next `append` has to carry, where `wanted_bytes` are asked for. Pure.

        A store of parts of one length answers with its own part's; `wanted_bytes` reaches to the end at most.
        """

    async def append(self, upload_url: str, offset: int, blocks: AsyncIterator[bytes], length: int) -> int:
        """Send `length` bytes from `offset`; returns the store's durable offset afterwards.

        Raises OffsetConflict where the store stands elsewhere, PatchTooLarge where it takes only less at a time,
        UploadLost where it is gone or finished. After any error or cancellation ask `offset`.
        """

    async def aclose(self) -> None:
        """Close connections. Idempotent."""


class SigningStore(EvidenceStore, Protocol):
    """A store that signs for what it holds: a dockd receiver."""

    @property
    def key(self) -> PublicKey:
        """The store's public key, as pinned by configuration: what it signs is verified against this one alone."""

    async def twins(self, acquisition: AcquisitionId, stations: Collection[StationId]) -> tuple[SignedBytes, ...]:
        """The manifests, unverified, of what these stations brought of the same clip, and the store signed for.

        The acquisition was registered before. Changes nothing. Empty where there are none, or none that this station
        may know of. Raises UploadLost where the store does not take such questions.
        """

    async def share(self, acquisition: AcquisitionId, manifest: Digest) -> None:
        """Let the object of another station's manifest, one of the twins, stand for a registered acquisition.

        The store has read the whole object when this returns, and takes no more bytes of this acquisition; its receipt
        is asked for as ever. Idempotent. Raises UploadLost where that object cannot stand for it: then it is sent.
        After cancellation it may or may not be so.
        """

    async def receipt(self, acquisition: AcquisitionId, manifest: SignedBytes) -> SignedBytes:
        """The store's signed receipt, unverified. Idempotent: the same receipt.

        Raises StoreIncomplete while bytes are missing, UploadCorrupt where all arrived but their digest is wrong,
        UploadLost where the store does not know the acquisition.
        """

    async def policy(self, *, anew: bool = False) -> SignedBytes | None:
        """The store's policy statement, unverified, as its session gave it; opens a session where there is none.

        `anew` opens one in any case, so that a policy that was mended meanwhile is heard of. None: the store states
        none, and its receipts are of version 1 or 2.
        """

    async def extension(self, acquisition: AcquisitionId, receipt: Digest, after: int) -> SignedBytes:
        """The extension number `after` + 1 of a receipt, unverified: one that was made before, or else a new one.

        `receipt` is the digest of the receipt's bytes, `after` the number of extensions of it that this station has.
        Safe to ask again after a lost answer: the same statement. Raises NotExtended where the store promises no more,
        StoreIncomplete or UploadLost where it does not know of the receipt, ObjectLost where it lacks the object.
        """

    async def ranges(self, acquisition: AcquisitionId, nonce: bytes, ranges: tuple[Range, ...]) -> tuple[bytes, ...]:
        """`core.challenge.range_digest` of each of these ranges, as the store reads its object now; not yet compared.

        `nonce` is 32 fresh bytes. May be asked as often as one likes. Raises UploadLost or StoreIncomplete where the
        store does not hold an acquisition that it gave a receipt for, ObjectLost where it still knows of that receipt.
        """

    async def holding(self, acquisition: AcquisitionId, nonce: bytes) -> SignedBytes:
        """The store's signed statement, unverified, that it holds the acquisition now. `nonce` is 32 fresh bytes.

        Raises UploadLost or StoreIncomplete where it does not hold it, ObjectLost where it knows of its receipt.
        """

    async def losses(self, nonce: bytes, after: str) -> SignedBytes:
        """The store's signed statement, unverified, of what it looked at again, and what of that is lost now.

        A page of at most `core.losses.PAGE` of this station's acquisitions, beyond the one named `after` ("": from the
        first). `nonce` is 32 fresh bytes. Changes nothing. Raises UploadLost where the store takes no such question.
        """

    async def witness(self, note: bytes, old_size: int, proof: tuple[bytes, ...]) -> Witnessed:
        """Show a custody checkpoint with a consistency proof from `old_size`; the store cosigns it.

        Raises OffsetConflict where `old_size` is not the newest that the store has, StoreUntrusted where it says that
        the log forked.
        """

    async def witnessed_size(self) -> int:
        """The size of the newest checkpoint of this station that the store cosigned; 0 where there is none."""


class ObjectStore(EvidenceStore, Protocol):
    """A store that keeps objects and does not sign: a tus server, S3, an Axis content destination."""

    async def finish(self, upload_url: str, acquisition: AcquisitionId, manifest: SignedBytes) -> str:
        """All bytes are there: make the sealed object whole, and put the manifest and its signature beside it.

        Returns what names the three objects at this store; it is kept in the journal. Idempotent, also after a lost
        answer, and never overwrites another object. Raises StoreIncomplete while bytes are missing, UploadLost where
        neither the upload nor the finished object is there, UploadCorrupt where the store dropped the bytes as
        damaged, StoreRefused where another object stands under the name. After cancellation any part of it is done.
        """

    async def retain(self, objects: str, until: datetime) -> bool:
        """Have the three kept until then, where they are locked for less; whether the store can. Idempotent.

        A look tells what came of it. Raises UploadLost where one of them is not there.
        """

    async def look(self, objects: str) -> Mapping[Piece, ObjectState]:
        """The three objects as the store describes them now, by new requests. Changes nothing.

        Raises UploadLost where one of them is not there.
        """

    @property
    def gives_ranges(self) -> bool:
        """False once the store was seen to send all of an object where `read` wanted the end of it.

        Then a few bytes from the middle cost as much as all that lies before them.
        """

    def read(self, objects: str, piece: Piece, offset: int, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """The object's bytes as the store has them, from `offset` on, in blocks; for reading back. Changes nothing.

        `length`: so many bytes are wanted, which lie within the object; a store may give more. None: all.

        Raises UploadLost where it is not there, StoreRefused where the store gives nothing back at all.
        """

    async def clear_orphans(self, wanted: Callable[[AcquisitionId], Awaitable[bool]]) -> tuple[AcquisitionId, ...]:
        """Give up this station's unfinished uploads that are not `wanted`; returns whose they were. Idempotent.

        For the start: of an upload that a crash kept out of the journal nobody else would ever hear. Nothing is done
        at a store that does not list uploads: there they stay until it expires them.
        """

    async def abandon(self, upload_url: str) -> None:
        """Give up an unfinished upload, where the store can. Idempotent; an upload that is unknown is no error."""
