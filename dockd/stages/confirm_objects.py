"""Confirm by looking: a store that does not sign is asked what it has, and that is compared with what was sealed.

What the store computed itself is believed where a trial showed that it may be; else the object is read back whole and
hashed. Where it gives nothing back, or promises to keep nothing, the clip is held. Right before erasing the store is
looked at again, and bytes are read back again: a sample where its checksum is believed, else as dockd.core.proof says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from dockd.core import canonical
from dockd.core.backoff import RetryBudget, Row
from dockd.core.challenge import Range
from dockd.core.confirmation import (
    OwnSums,
    VerifiedObjects,
    needs_of,
    parse_objects,
    still_there,
    to_read_back,
    verify_objects,
)
from dockd.core.findings import Findings
from dockd.core.lifecycle import DeliveryEvent, DeliveryState
from dockd.core.objects import Algorithm, ObjectState, Piece
from dockd.core.policy import StorePolicy
from dockd.core.proof import Needs, Verdict, believed, choose_chunks, is_whole, weigh
from dockd.core.warrant import ObjectConfirmation
from dockd.errors import (
    SpoolSpoiled,
    StoreForgot,
    StoreLacks,
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

LOCKED_ON = timedelta(days=14)  # from a warrant on, where a lock was about to end

BLOCK_BYTES = 1024 * 1024
_SMALL_BYTES = 1024 * 1024  # more than a manifest or a signature ever has
MAX_BREAKS = 5  # in a row that brought hardly anything of a reading back, before the uplink is asked to wait


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
    tried: Callable[[], Awaitable[Findings]]  # what is known of the store, from a trial now where one is due
    budget: RetryBudget = field(default_factory=RetryBudget)  # of all that asks this store again
    _partial: dict[tuple[AcquisitionId, Piece], _Partial] = field(default_factory=dict)

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
        verdict = self._judge(await self.tried())
        at = self.clock.now()
        states = believed(await self.store.look(delivery.objects), verdict)
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

    async def prolong(self, acquisition: AcquisitionId) -> None:
        """As Confirming says: by a lock that ends later, for a while. What it is then, `ask_again` sees."""
        delivery, manifest = await self.journal.read(
            lambda tx: (tx.delivery(acquisition, self.of), tx.manifest(acquisition))
        )
        configured, now = self.policy.store(self.of), self.clock.now()
        if delivery is None or delivery.objects is None or delivery.confirmation is None:
            return
        confirmed = parse_objects(delivery.confirmation, store=self.of, station=self.station, manifest=manifest)
        until = confirmed.kept_until
        if configured is None or until is None or until - now >= self.policy.margin:
            return
        try:
            if await self.store.retain(delivery.objects, now + max(self.policy.margin, LOCKED_ON)):
                _log.info("lock_extended", acquisition=acquisition, store=self.of)
        except UploadLost as error:
            raise StoreForgot(f"the store does not have {acquisition} as it was confirmed: {error}") from error

    async def ask_again(self, acquisition: AcquisitionId) -> ObjectConfirmation:
        """As Confirming says: what was found then, bytes that are the same now, and a new look.

        Raises StoreUnproven, too, where a trial found that its word cannot count, or the store gives nothing back.
        """
        row, delivery, manifest = await self.journal.read(
            lambda tx: (row_of(tx, acquisition), tx.delivery(acquisition, self.of), tx.manifest(acquisition))
        )
        if delivery is None or delivery.confirmation is None or delivery.objects is None:
            raise VerificationFailed(f"acquisition {acquisition} has no confirmation of store {self.of}")
        confirmed = parse_objects(delivery.confirmation, store=self.of, station=self.station, manifest=manifest)
        findings = await self.tried()
        verdict = self._judge(findings)
        try:
            # The bytes first, which may take long: the warrant's time runs from the question about what is there now.
            shown = await self._shown(row, manifest, delivery.objects, confirmed, verdict)
            asked_at = self.clock.now()
            states = believed(await self.store.look(delivery.objects), verdict)
            presence = still_there(confirmed, states, verdict=verdict, shown=shown, at=self.clock.now())
        except StoreRefused as error:
            raise StoreUnproven(f"the store gives nothing back of {acquisition}: {error}") from error
        except (UploadLost, VerificationFailed) as error:
            raise StoreForgot(f"the store does not have {acquisition} as it was confirmed: {error}") from error
        return ObjectConfirmation(objects=confirmed, presence=presence, asked_at=asked_at, findings=findings)

    def forget(self, acquisition: AcquisitionId) -> None:
        """As Confirming says: what was read back so far, of a clip that was to be confirmed."""
        for piece in Piece:
            self._partial.pop((acquisition, piece), None)

    # --- how

    def _judge(self, findings: Findings) -> Verdict:
        """The verdict on the store. Raises StoreUnproven where nothing can be erased on its word."""
        verdict = weigh(self.policy.store(self.of), findings, signs=False)
        if verdict.held:
            raise StoreUnproven("; ".join(verdict.held))
        return verdict

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
        breaks = Row(random=self.random, budget=self.budget)
        while partial.offset < state.size_bytes:
            before = partial.offset
            try:
                await self._read_on(delivery.objects or "", piece, partial)
            except StoreRefused as error:
                raise StoreUnproven(
                    f"the store states no checksum of the {piece.value}, and gives nothing back: the clips wait on "
                    f"their cameras ({error})"
                ) from error
            except StoreLacks:
                raise
            except StoreUnreachable:
                wait_s = breaks.failed(self.clock.monotonic_s(), brought_bytes=partial.offset - before)
                if breaks.failures > MAX_BREAKS:
                    raise
                await self.clock.sleep(wait_s)
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
        self,
        row: Acquisition,
        manifest: SignedBytes,
        objects: str,
        confirmed: VerifiedObjects,
        verdict: Verdict,
    ) -> dict[Piece, int]:
        """How many bytes of each the store gave back right now. Raises VerificationFailed where they are others."""
        known = {Piece.MANIFEST: manifest.payload, Piece.SIGNATURE: manifest.signature.encode()}
        for piece, content in known.items():
            if await self._range(objects, piece, None) != content:
                raise VerificationFailed(f"the store gave back other bytes of the {piece.value}")
        shown = {piece: len(content) for piece, content in known.items()}
        sealed = await self._show_sealed(row, objects, needs_of(confirmed, Piece.SEALED, verdict))
        return shown | {Piece.SEALED: sealed}

    async def _show_sealed(self, row: Acquisition, objects: str, needs: Needs) -> int:
        """Compare all of a short clip with its digest, of a longer one chunks that nobody could foresee with the spool.

        All of it also where that cannot be: where the spool file is gone or is not what was sealed, or where the store
        sends all of an object for any range of it.
        """
        sealed = row.sealed
        if sealed is None:
            raise VerificationFailed(f"acquisition {row.acquisition} was never sealed")
        if not is_whole(sealed.sealed_size_bytes, needs):
            shown = await self._show_chunks(objects, row.acquisition, sealed.sealed_size_bytes, needs)
            if shown:
                return shown
        hasher, count = hashlib.sha256(), 0
        async with aclosing(self.store.read(objects, Piece.SEALED, 0)) as blocks:
            async for block in blocks:
                await self.throttle(len(block))
                await asyncio.to_thread(hasher.update, block)
                count += len(block)
                if count > sealed.sealed_size_bytes:
                    break  # the digest is another one then
        if f"sha256:{hasher.hexdigest()}" != sealed.sealed_digest:
            raise VerificationFailed("the store gave back other bytes of the sealed clip")
        return count

    async def _show_chunks(self, objects: str, acquisition: AcquisitionId, size_bytes: int, needs: Needs) -> int:
        """How many bytes of chunks are the same as in the spool; 0 where they cannot be compared, or one differs."""
        path, shown = self.spool.path(acquisition), 0
        for one in choose_chunks(size_bytes, needs, self.random):
            mine = await asyncio.to_thread(_bytes_of_file, path, one)
            if mine is None or not self.store.gives_ranges or await self._range(objects, Piece.SEALED, one) != mine:
                return 0
            shown += len(mine)
        return shown

    async def _range(self, objects: str, piece: Piece, wanted: Range | None) -> bytes:
        """A range of an object; None: all of a small one, of which more than it should have is a difference, too."""
        found = bytearray()
        offset, length = (0, None) if wanted is None else (wanted.offset, wanted.length)
        async with aclosing(self.store.read(objects, piece, offset, length)) as blocks:
            async for block in blocks:
                await self.throttle(len(block))
                found += block
                if len(found) >= (_SMALL_BYTES if length is None else length):
                    break
        return bytes(found[:length])


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
