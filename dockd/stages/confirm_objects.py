"""Confirm by looking: a store that does not sign is asked what it has, and that is compared with what was sealed.

What the store computed itself is believed; where it states no checksum the object is read back whole and hashed. Where
it gives nothing back, or promises to keep nothing, the clip is held. Right before erasing the store is looked at again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from dockd.core import canonical
from dockd.core.challenge import Range, choose_ranges
from dockd.core.confirmation import (
    OwnSums,
    VerifiedObjects,
    parse_objects,
    still_there,
    to_read_back,
    to_show_again,
    verify_objects,
)
from dockd.core.lifecycle import DeliveryEvent, DeliveryState
from dockd.core.objects import Algorithm, ObjectState, Piece
from dockd.core.policy import StorePolicy
from dockd.core.warrant import ObjectConfirmation
from dockd.errors import (
    SpoolSpoiled,
    StoreForgot,
    StoreRefused,
    StoreUnproven,
    StoreUnreachable,
    StoreUntrusted,
    UploadLost,
    VerificationFailed,
)
from dockd.keep.deliveries import Delivery
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import Acquisition, AcquisitionId, Clock, Digest, Entropy, SignedBytes, StationId, StoreId
from dockd.stages.confirming import delivery_of, row_of
from dockd.stores.port import ObjectStore

if TYPE_CHECKING:
    from hashlib import _Hash

_log = structlog.get_logger()

BLOCK_BYTES = 1024 * 1024
SHOWN_FOR = timedelta(hours=1)  # that a whole reading right before erasing counts
MAX_BREAKS = 5  # in a row that brought a reading back no further, before the uplink is asked to wait


class Throttle:
    """Lets so many bytes a second through, of all that is read back from one store; 0: no limit."""

    def __init__(self, clock: Clock, bytes_s: int) -> None:
        self._clock = clock
        self._bytes_s = bytes_s
        self._due_s = 0.0

    async def __call__(self, count: int) -> None:
        """Wait until `count` more bytes may come. After cancellation they count as having come."""
        if not self._bytes_s:
            return
        now_s = self._clock.monotonic_s()
        self._due_s = max(self._due_s, now_s) + count / self._bytes_s
        if self._due_s > now_s:
            await self._clock.sleep(self._due_s - now_s)


@dataclass(slots=True, kw_only=True)
class _Partial:
    """What was read back of one object so far; mutable, since a connection that broke leaves it to the next."""

    state: ObjectState
    offset: int = 0
    hasher: _Hash = field(default_factory=hashlib.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectConfirmer:
    """Compares the objects at one store that does not sign. A stages.confirming.Confirming."""

    journal: Journal
    spool: Spool
    store: ObjectStore
    station: StationId
    policy: StorePolicy
    clock: Clock
    random: Entropy
    on_changed: Callable[[Acquisition], None]  # hears of every row that its delivery moved on; must not block
    throttle: Callable[[int], Awaitable[None]]
    _partial: dict[tuple[AcquisitionId, Piece], _Partial] = field(default_factory=dict)
    _shown_whole: dict[AcquisitionId, datetime] = field(default_factory=dict)  # just before it is to be erased

    @property
    def of(self) -> StoreId:
        """As Confirming says."""
        return self.store.store

    async def confirm(self, acquisition: AcquisitionId) -> Delivery:
        """As Confirming says. Raises StoreUnproven, too, where the store shows or promises too little.

        After cancellation the objects may be there without the journal's knowing: they are looked for again.
        """
        row, delivery, manifest = await self.journal.read(
            lambda tx: (
                row_of(tx, acquisition),
                delivery_of(tx, acquisition, self.of),
                tx.manifest(acquisition),
            )
        )
        if delivery.state is DeliveryState.REGISTERED:
            delivery = await self._finish(delivery, manifest)
        if delivery.state is not DeliveryState.FINISHED or delivery.objects is None:
            return delivery
        at = self.clock.now()
        states = await self.store.look(delivery.objects)
        self._require_retention(states)
        own = await self._own_sums(row, manifest, states)
        read_back = {piece: await self._read_back(delivery, piece, states[piece]) for piece in to_read_back(states)}
        try:
            verified = verify_objects(
                states,
                own=own,
                read_back=read_back,
                store=self.of,
                station=self.station,
                manifest=manifest,
                at=at,
            )
        except VerificationFailed as error:
            raise StoreUntrusted(f"what the store has of {acquisition} is not what was sent: {error}") from error
        return await self._believe(verified)

    async def ask_again(self, acquisition: AcquisitionId) -> ObjectConfirmation:
        """As Confirming says: what was found then, and a new look."""
        row, delivery, manifest = await self.journal.read(
            lambda tx: (row_of(tx, acquisition), tx.delivery(acquisition, self.of), tx.manifest(acquisition))
        )
        if delivery is None or delivery.confirmation is None or delivery.objects is None:
            raise VerificationFailed(f"acquisition {acquisition} has no confirmation of store {self.of}")
        confirmed = parse_objects(delivery.confirmation, store=self.of, station=self.station, manifest=manifest)
        try:
            # The bytes first, which may take long: the warrant's time runs from the question about what is there now.
            shown = await self._shown(row, manifest, delivery.objects, confirmed)
            asked_at = self.clock.now()
            states = await self.store.look(delivery.objects)
            presence = still_there(confirmed, states, shown=shown, at=self.clock.now())
        except (UploadLost, VerificationFailed) as error:
            raise StoreForgot(f"the store does not have {acquisition} as it was confirmed: {error}") from error
        return ObjectConfirmation(objects=confirmed, presence=presence, asked_at=asked_at)

    def forget(self, acquisition: AcquisitionId) -> None:
        """As Confirming says: what was read back so far, of a clip that was to be confirmed."""
        for piece in Piece:
            self._partial.pop((acquisition, piece), None)

    # --- how

    async def _finish(self, delivery: Delivery, manifest: SignedBytes) -> Delivery:
        objects = await self.store.finish(delivery.upload_url or "", delivery.acquisition, manifest)
        finished, row = await self.journal.write(
            lambda tx: tx.deliver(
                delivery.acquisition,
                self.of,
                DeliveryEvent.FINISHED,
                self.policy,
                details={"objects": objects},
                objects=objects,
            )
        )
        self.on_changed(row)
        return finished

    async def _believe(self, verified: VerifiedObjects) -> Delivery:
        details = {
            "kind": verified.kind.value,
            "confirmation": verified.payload_digest,
            "objects": verified.payload.decode(),
        }
        confirmed, row = await self.journal.write(
            lambda tx: tx.deliver(
                verified.acquisition,
                self.of,
                DeliveryEvent.CONFIRMED,
                self.policy,
                details=details,
                confirmation=verified.payload,
                confirmation_digest=verified.payload_digest,
            )
        )
        _log.info("delivery_confirmed", acquisition=verified.acquisition, store=self.of, kind=verified.kind.value)
        self.on_changed(row)
        return confirmed

    def _require_retention(self, states: Mapping[Piece, ObjectState]) -> None:
        """Before anything is read back: a confirmation for too short a time is none."""
        configured, now = self.policy.store(self.of), self.clock.now()
        for piece, state in states.items():
            promised = None if state.retention_until is None else state.retention_until - now
            enough = configured is not None and (
                not configured.min_retention or (promised is not None and promised >= configured.min_retention)
            )
            if not enough:
                until = "nothing" if promised is None else f"to keep it for {promised.days} days only"
                raise StoreUnproven(
                    f"the store promises {until} of the {piece.value}, which is less than its min_retention_days: the "
                    "clips wait on their cameras"
                )

    async def _own_sums(
        self, row: Acquisition, manifest: SignedBytes, states: Mapping[Piece, ObjectState]
    ) -> dict[Piece, OwnSums]:
        """What the station has. The digest of the sealed file is known from its sealing; checksums of parts are not."""
        parts = {piece: _part_bytes(state) for piece, state in states.items()}
        own = {
            piece: _sums(content, parts.get(piece, 0))
            for piece, content in ((Piece.MANIFEST, manifest.payload), (Piece.SIGNATURE, manifest.signature.encode()))
        }
        sealed = row.sealed
        if sealed is None:
            raise VerificationFailed(f"acquisition {row.acquisition} was never sealed")
        known = OwnSums(size_bytes=sealed.sealed_size_bytes, digest=sealed.sealed_digest)
        if part_bytes := parts.get(Piece.SEALED, 0):
            path = self.spool.path(row.acquisition)
            found = await asyncio.to_thread(_sums_of_file, path, part_bytes)
            if found is None or (found.size_bytes, found.digest) != (known.size_bytes, known.digest):
                raise SpoolSpoiled(f"the spool file of {row.acquisition} is no longer what was sealed")
            known = found
        return own | {Piece.SEALED: known}

    async def _read_back(self, delivery: Delivery, piece: Piece, state: ObjectState) -> OwnSums:
        """Read one object whole, going on where a connection broke. Raises StoreUnproven where nothing is given."""
        key = delivery.acquisition, piece
        partial = self._partial.get(key)
        if partial is None or partial.state != state:
            partial = self._partial[key] = _Partial(state=state)
        breaks = 0
        while partial.offset < state.size_bytes:
            before = partial.offset
            try:
                await self._read_on(delivery.objects or "", piece, partial)
            except StoreRefused as error:
                raise StoreUnproven(
                    f"the store states no checksum of the {piece.value}, and gives nothing back: the clips wait on "
                    f"their cameras ({error})"
                ) from error
            except StoreUnreachable:
                breaks = 0 if partial.offset > before else breaks + 1
                if breaks > MAX_BREAKS:
                    raise
        del self._partial[key]
        return OwnSums(size_bytes=partial.offset, digest=Digest("sha256:" + partial.hasher.hexdigest()))

    async def _read_on(self, objects: str, piece: Piece, partial: _Partial) -> None:
        """Read to the end. Raises StoreUnreachable where that comes before the object's length is there."""
        async with aclosing(self.store.read(objects, piece, partial.offset)) as blocks:
            async for block in blocks:
                await self.throttle(len(block))
                await asyncio.to_thread(partial.hasher.update, block)
                partial.offset += len(block)
                if partial.offset > partial.state.size_bytes:
                    break  # it is another object, and perhaps one without an end
        if partial.offset < partial.state.size_bytes:
            raise StoreUnreachable(f"the store ended the {piece.value} at {partial.offset} bytes")

    async def _shown(
        self, row: Acquisition, manifest: SignedBytes, objects: str, confirmed: VerifiedObjects
    ) -> frozenset[Piece]:
        """Those whose bytes the store gave back right now. Raises VerificationFailed where they are others."""
        shown = []
        for piece in to_show_again(confirmed):
            known = {Piece.MANIFEST: manifest.payload, Piece.SIGNATURE: manifest.signature.encode()}
            if piece is Piece.SEALED:
                await self._show_sealed(row, objects)
            elif await self._range(objects, piece, Range(offset=0, length=len(known[piece]))) != known[piece]:
                raise VerificationFailed(f"the store gave back other bytes of the {piece.value}")
            shown.append(piece)
        return frozenset(shown)

    async def _show_sealed(self, row: Acquisition, objects: str) -> None:
        """Compare ranges that nobody could foresee with the spool file.

        The whole of it where that file is gone, or where the store sends all of an object for any range of it.

        A whole reading counts for a while: the clips of one camera are erased together, each read one after the other.
        """
        sealed = row.sealed
        if sealed is None:
            raise VerificationFailed(f"acquisition {row.acquisition} was never sealed")
        path = self.spool.path(row.acquisition)
        for one in choose_ranges(sealed.sealed_size_bytes, self.random):
            mine = await asyncio.to_thread(_bytes_of_file, path, one)
            if mine is None or not self.store.gives_ranges:
                break
            if await self._range(objects, Piece.SEALED, one) != mine:
                raise VerificationFailed("the store gave back other bytes of the sealed clip")
        else:
            return
        now = self.clock.now()
        for name in [name for name, at in self._shown_whole.items() if now - at > SHOWN_FOR]:
            del self._shown_whole[name]
        if row.acquisition in self._shown_whole:
            return
        hasher, size = hashlib.sha256(), 0
        async with aclosing(self.store.read(objects, Piece.SEALED, 0)) as blocks:
            async for block in blocks:
                await self.throttle(len(block))
                await asyncio.to_thread(hasher.update, block)
                size += len(block)
                if size > sealed.sealed_size_bytes:
                    break  # the digest is another one then
        if f"sha256:{hasher.hexdigest()}" != sealed.sealed_digest:
            raise VerificationFailed("the store gave back other bytes of the sealed clip")
        self._shown_whole[row.acquisition] = self.clock.now()

    async def _range(self, objects: str, piece: Piece, wanted: Range) -> bytes:
        found = bytearray()
        async with aclosing(self.store.read(objects, piece, wanted.offset)) as blocks:
            async for block in blocks:
                await self.throttle(len(block))
                found += block
                if len(found) >= wanted.length:
                    break
        return bytes(found[: wanted.length])


def _part_bytes(state: ObjectState) -> int:
    checksum = state.checksum
    return checksum.part_bytes if checksum and checksum.algorithm is Algorithm.SHA256_OF_PARTS else 0


def _sums(content: bytes, part_bytes: int) -> OwnSums:
    parts = hashlib.sha256()
    for at in range(0, max(len(content), 1), part_bytes or max(len(content), 1)):
        parts.update(hashlib.sha256(content[at : at + part_bytes]).digest())
    return OwnSums(
        size_bytes=len(content),
        digest=canonical.digest(content),
        part_bytes=part_bytes,
        of_parts=parts.digest() if part_bytes else b"",
    )


def _sums_of_file(path: Path, part_bytes: int) -> OwnSums | None:
    """Both sums in one pass; None where the file cannot be read."""
    whole, parts, part = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    size, left = 0, part_bytes
    try:
        with path.open("rb") as file:
            while block := file.read(min(BLOCK_BYTES, left)):
                whole.update(block)
                part.update(block)
                size, left = size + len(block), left - len(block)
                if not left:
                    parts.update(part.digest())
                    part, left = hashlib.sha256(), part_bytes
    except OSError:
        return None
    if left < part_bytes or not size:
        parts.update(part.digest())
    return OwnSums(
        size_bytes=size,
        digest=Digest("sha256:" + whole.hexdigest()),
        part_bytes=part_bytes,
        of_parts=parts.digest(),
    )


def _bytes_of_file(path: Path, wanted: Range) -> bytes | None:
    try:
        with path.open("rb") as file:
            file.seek(wanted.offset)
            found = file.read(wanted.length)
    except OSError:
        return None
    return found if len(found) == wanted.length else None
