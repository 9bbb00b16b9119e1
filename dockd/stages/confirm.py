"""Confirm: obtain the store's receipt, verify it, and make it durable together with the new state.

Receipts to a station form a chain, so only one is ever asked for at a time, and the journal knows which: after any
doubt (a lost answer, a crash) that one is settled before another is asked for. Without this an ordinary lost answer
would look like a gap, which is the alarm for a store that was rolled back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from dockd.core import canonical, merkle, receipts
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState
from dockd.core.receipts import VerifiedHolding, VerifiedReceipt
from dockd.errors import StoreIncomplete, StoreRefused, StoreUntrusted, UploadLost, VerificationFailed
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Entropy, SignedBytes, StationId
from dockd.stores.port import EvidenceStore

_log = structlog.get_logger()
_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmer:
    """Asks one store for receipts, one at a time. One for each store and program."""

    journal: Journal
    store: EvidenceStore
    station: StationId
    on_changed: Callable[[Acquisition], None]  # hears of every row that became stored; must not block
    min_retention: timedelta = timedelta(0)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def confirm(self, acquisition: AcquisitionId) -> Acquisition:
        """Get and verify the receipt; returns the acquisition in state stored.

        Idempotent. Raises StoreIncomplete or UploadLost where the store has not got it all, StoreUntrusted where what
        it signed contradicts itself, and the store's other errors. After cancellation the receipt may have been
        signed but not kept: it is asked for again before any other.
        """
        async with self.turn:
            waiting = await self.journal.read(lambda tx: tx.get(_key(self.store)))
            if waiting and waiting != acquisition:
                await self._settle_earlier(AcquisitionId(waiting))
            if waiting != acquisition:
                await self.journal.write(lambda tx: tx.put(_key(self.store), acquisition))
            return await self._settle(acquisition)

    async def _settle_earlier(self, waiting: AcquisitionId) -> None:
        """Finish what an earlier call left open. Its errors pass, except those that mean: nothing was signed."""
        try:
            await self._settle(waiting)
        except (StoreIncomplete, UploadLost, StoreRefused) as error:
            _log.info("receipt_not_signed", acquisition=waiting, reason=str(error))

    async def _settle(self, acquisition: AcquisitionId) -> Acquisition:
        """Ask for one receipt and keep it; also of a row that has left its way, so that the chain has no gap."""
        row, kept = await self.journal.read(
            lambda tx: (_row(tx, acquisition), tx.receipt(acquisition, self.store.store))
        )
        if row.state != AcquisitionState.UPLOADING and kept is not None:
            return row
        manifest = await self.journal.read(lambda tx: tx.manifest(acquisition))
        signed = await self.store.receipt(acquisition, manifest)
        receipt = await self._verified(row, signed, manifest)
        promised = receipt.retention_until - receipt.at
        enough = promised >= self.min_retention

        def keep(tx: Tx) -> Acquisition:
            payload_digest = canonical.digest(signed.payload)
            tx.put_receipt(acquisition, self.store.store, signed, receipt.receipt_seq, payload_digest)
            tx.put(_key(self.store), "")
            now = _row(tx, acquisition)  # a person may have acted meanwhile
            if now.state != AcquisitionState.UPLOADING or not enough:
                return now
            details = {
                "store": self.store.store,
                "receipt": payload_digest,
                "receipt_seq": receipt.receipt_seq,
                "retention_until": canonical.format_time(receipt.retention_until),
            }
            return tx.advance(acquisition, AcquisitionEvent.STORED, details=details)

        stored = await self.journal.write(keep)
        if not enough:
            raise StoreUntrusted(
                f"the store promises to keep the clip for {promised.days} days only, less than store.min_retention_days"
            )
        if stored.state == AcquisitionState.STORED:
            _log.info("acquisition_stored", acquisition=acquisition, receipt_seq=receipt.receipt_seq)
            self.on_changed(stored)
        return stored

    async def _verified(self, row: Acquisition, signed: SignedBytes, manifest: SignedBytes) -> VerifiedReceipt:
        try:
            return await self._checked(row, signed, manifest)
        except VerificationFailed as error:
            raise StoreUntrusted(f"the store's receipt for {row.acquisition} cannot be trusted: {error}") from error

    async def _checked(self, row: Acquisition, signed: SignedBytes, manifest: SignedBytes) -> VerifiedReceipt:
        """The receipt by itself, and in its place behind the last one."""
        receipt = self._verify(signed, manifest)
        await self.journal.read(lambda tx: _check_witnessed(tx, receipt))
        kept = await self.journal.read(lambda tx: tx.receipt(row.acquisition, self.store.store))
        if kept is not None:
            if kept.payload != signed.payload:
                raise VerificationFailed("the store signed another receipt for the same acquisition before")
            return receipt  # its place was checked when it was kept
        last = await self.journal.read(lambda tx: tx.last_receipt(self.store.store))
        previous = None
        if last is not None:
            earlier, of = last
            previous = self._verify(earlier, await self.journal.read(lambda tx: tx.manifest(of)))
        receipts.check_succession(previous, receipt)
        return receipt

    def _verify(self, signed: SignedBytes, manifest: SignedBytes) -> VerifiedReceipt:
        return receipts.verify_receipt(
            signed,
            store_key=self.store.key,
            store=self.store.store,
            station=self.station,
            manifest=manifest.payload,
        )


async def stored_receipt(
    acquisition: AcquisitionId, *, journal: Journal, store: EvidenceStore, station: StationId
) -> VerifiedReceipt:
    """The kept receipt of a stored acquisition, verified anew. Raises VerificationFailed, also where there is none."""
    signed = await journal.read(lambda tx: tx.receipt(acquisition, store.store))
    if signed is None:
        raise VerificationFailed(f"acquisition {acquisition} has no receipt of store {store.store}")
    manifest = await journal.read(lambda tx: tx.manifest(acquisition))
    return receipts.verify_receipt(
        signed, store_key=store.key, store=store.store, station=station, manifest=manifest.payload
    )


async def holding(
    acquisition: AcquisitionId, *, journal: Journal, store: EvidenceStore, station: StationId, random: Entropy
) -> VerifiedHolding:
    """The store's statement, now, that it holds a stored acquisition. Changes nothing; call right before erasing.

    Raises StoreUntrusted where the store no longer holds what it signed for, or its statement does not verify; its
    other errors pass.
    """
    manifest = await journal.read(lambda tx: tx.manifest(acquisition))
    nonce = random(_NONCE_BYTES)
    try:
        signed = await store.holding(acquisition, nonce)
        return receipts.verify_holding(
            signed, store_key=store.key, store=store.store, station=station, manifest=manifest.payload, nonce=nonce
        )
    except (StoreIncomplete, UploadLost) as error:
        raise StoreUntrusted(f"the store signed for {acquisition} but does not hold it: {error}") from error
    except VerificationFailed as error:
        raise StoreUntrusted(f"the store's holding statement for {acquisition} cannot be trusted: {error}") from error


def _check_witnessed(tx: Tx, receipt: VerifiedReceipt) -> None:
    """The store's word about this station's custody log must fit the log: else one of the two was rolled back."""
    size = receipt.witnessed_size
    if size > tx.size or (size and merkle.root_at(tx, size) != receipt.witnessed_root):
        raise VerificationFailed(
            f"it names a custody log of {size} entries that is not this station's; compare custody/witnessed with the "
            "store's checkpoint"
        )


def _key(store: EvidenceStore) -> str:
    return f"receipt_asked/{store.store}"


def _row(tx: Tx, acquisition: AcquisitionId) -> Acquisition:
    row = tx.acquisition(acquisition)
    if row is None:
        raise VerificationFailed(f"the journal has no acquisition {acquisition}")
    return row
