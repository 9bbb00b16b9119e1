"""Confirm: obtain the store's receipt, verify and keep it, and believe it once the store has shown the bytes.

Receipts to a station form a chain, so only one is ever asked for at a time, and the journal knows which: after any
doubt (a lost answer, a crash) that one is settled before another is asked for. Without this an ordinary lost answer
would look like a gap, which is the alarm for a store that was rolled back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from dockd.core import canonical, merkle, receipts
from dockd.core.confirmation import Kind
from dockd.core.lifecycle import DeliveryEvent, DeliveryState
from dockd.core.policy import StorePolicy
from dockd.core.receipts import VerifiedHolding, VerifiedReceipt
from dockd.core.sshsig import PublicKey
from dockd.core.twins import Shared, VerifiedTwin
from dockd.core.warrant import SignedConfirmation
from dockd.errors import (
    DeliveryAwaits,
    ObjectLost,
    StoreBusy,
    StoreForgot,
    StoreIncomplete,
    StoreRefused,
    StoreUnproven,
    StoreUnreachable,
    StoreUntrusted,
    UploadLost,
    VerificationFailed,
)
from dockd.keep.aside import was_former
from dockd.keep.deliveries import Delivery
from dockd.keep.journal import Journal
from dockd.keep.rebuild import FORMER_UNPROVEN, receipt_floor
from dockd.keep.spool import Spool
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Clock, Entropy, SignedBytes, StationId, StoreId
from dockd.stages.challenge import challenge
from dockd.stages.confirming import delivery_of, row_of
from dockd.stages.extending import Extending
from dockd.stages.sharing import fetch_twin, kept_twin
from dockd.stores.port import SigningStore

_log = structlog.get_logger()
_NONCE_BYTES = 32
_CONFIRMABLE = (DeliveryState.REGISTERED, DeliveryState.FINISHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmer:
    """Asks one store that signs for receipts, one at a time. A stages.confirming.Confirming."""

    journal: Journal
    spool: Spool
    store: SigningStore
    station: StationId
    policy: StorePolicy
    clock: Clock
    random: Entropy
    on_changed: Callable[[Acquisition], None]  # hears of every row that its delivery moved on; must not block
    trusted: Mapping[StationId, PublicKey] = field(default_factory=dict)  # whose objects may stand for this one's own
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def of(self) -> StoreId:
        """As Confirming says."""
        return self.store.store

    async def confirm(self, acquisition: AcquisitionId) -> Delivery:
        """As Confirming says: get and verify the receipt, and have the store show the bytes.

        After cancellation the receipt may have been signed but not kept: it is asked for again before any other.
        """
        await self._share(acquisition)  # reading a whole object takes its time: nobody waits behind it
        async with self.turn:
            waiting = await self.journal.read(lambda tx: tx.get(_key(self.store)))
            if waiting and waiting != acquisition:
                await self._settle_earlier(AcquisitionId(waiting))
            if waiting != acquisition:
                await self.journal.write(lambda tx: tx.put(_key(self.store), acquisition))
            receipt = await self._settle(acquisition)
        return await self._believe(acquisition, receipt)  # others may ask for theirs meanwhile

    async def _share(self, acquisition: AcquisitionId) -> None:
        """Let another's object stand for the clip at the store, where that was decided."""
        delivery = await self.journal.read(lambda tx: tx.delivery(acquisition, self.of))
        if delivery is None or delivery.state is not DeliveryState.FINISHED:
            return
        twin = await self._required_twin(acquisition)
        try:
            await self.store.share(acquisition, twin.shared.manifest_digest)
        except (StoreBusy, StoreUnreachable) as error:
            raise DeliveryAwaits(f"the store is still to read the object of the other station: {error}") from error

    async def _settle_earlier(self, waiting: AcquisitionId) -> None:
        """Finish what an earlier call left open. Its errors pass, except those that mean: nothing was signed."""
        try:
            await self._settle(waiting)
        except (StoreIncomplete, UploadLost, StoreRefused) as error:
            _log.info("receipt_not_signed", acquisition=waiting, reason=str(error))

    async def _settle(self, acquisition: AcquisitionId) -> VerifiedReceipt:
        """Ask for one receipt and keep it; also of a row that has left its way, so that the chain has no gap."""
        row, delivery, kept = await self.journal.read(
            lambda tx: (row_of(tx, acquisition), tx.delivery(acquisition, self.of), tx.receipt(acquisition, self.of))
        )
        manifest = await self.journal.read(lambda tx: tx.manifest(acquisition))
        if kept is not None and (delivery is None or delivery.state not in _CONFIRMABLE):
            return self._verify(kept, manifest)
        signed = await self.store.receipt(acquisition, manifest)
        receipt = await self._verified(row, signed, manifest)

        def keep(tx: Tx) -> None:
            tx.put_receipt(acquisition, self.store.store, signed, receipt.receipt_seq, receipt.payload_digest)
            tx.put(_key(self.store), "")

        await self.journal.write(keep)
        return receipt

    async def _believe(self, acquisition: AcquisitionId, receipt: VerifiedReceipt) -> Delivery:
        """Count a receipt that is kept as the confirmation: it promises enough, and the store has shown the bytes."""
        row, delivery = await self.journal.read(
            lambda tx: (row_of(tx, acquisition), delivery_of(tx, acquisition, self.of))
        )
        if delivery.state not in _CONFIRMABLE:
            return delivery
        extension = await self._extending.lasting(receipt)
        details = {
            "kind": Kind.RECEIPT.value,
            "confirmation": receipt.payload_digest,
            "receipt_seq": receipt.receipt_seq,
            "retention_until": canonical.format_time((extension or receipt).kept_until),
            **await self._shown(row, delivery, receipt),
        }

        def believe(tx: Tx) -> tuple[Delivery, Acquisition]:
            now = delivery_of(tx, acquisition, self.of)  # a person may have acted meanwhile
            if now.state is not delivery.state:
                return now, row_of(tx, acquisition)
            return tx.deliver(
                acquisition,
                self.of,
                DeliveryEvent.CONFIRMED,
                self.policy,
                details=details,
                confirmation_digest=receipt.payload_digest,
            )

        confirmed, row = await self.journal.write(believe)
        if confirmed.state is DeliveryState.CONFIRMED:
            _log.info("delivery_confirmed", acquisition=acquisition, store=self.of, receipt_seq=receipt.receipt_seq)
            self.on_changed(row)
        return confirmed

    def forget(self, acquisition: AcquisitionId) -> None:
        """As Confirming says: there is nothing."""

    async def _shown(self, row: Acquisition, delivery: Delivery, receipt: VerifiedReceipt) -> dict[str, Any]:
        """Have the store show the bytes; of another station's object, which is not here, what the receipt says of it.

        Raises StoreUntrusted where it shows other bytes, or signed for another object than it had named.
        """
        name, shared = row.acquisition, receipt.shared
        twin_known = await self.journal.read(lambda tx: tx.twin(name, self.of)) is not None
        # Also what was sent after the other's object had been lost: its receipt stands.
        if shared is None or (delivery.state is DeliveryState.REGISTERED and twin_known):
            return {"compared_bytes": await challenge(row, spool=self.spool, store=self.store, random=self.random)}
        twin = await self._required_twin(name, shared)
        if not twin.is_meant(shared, receipt.sealed_digest, receipt.sealed_size_bytes):
            raise StoreUntrusted(f"the store signed for another object of station {shared.station} than it had named")
        return {"compared_bytes": 0, "shares": shared.record()}

    async def _required_twin(self, acquisition: AcquisitionId, shared: Shared | None = None) -> VerifiedTwin:
        """The manifest of the other station whose object stands for this one's own; `shared`: as a receipt names it.

        Where the journal was lost since, the store is asked for it anew. Raises StoreUnproven where there is none that
        is believed.
        """
        twin = await kept_twin(acquisition, self.journal, self.store, self.trusted)
        if twin is None and shared is not None:
            twin = await fetch_twin(acquisition, shared, self.journal, self.store, self.trusted)
        if twin is None:
            raise StoreUnproven(
                "the store has another station's object in the place of this clip, and that station is not, or no "
                "longer, one of trust_stations: list it again"
            )
        return twin

    async def ask_again(self, acquisition: AcquisitionId) -> SignedConfirmation:
        """As Confirming says: the receipt that is kept, and a holding statement for a fresh nonce."""
        receipt = await stored_receipt(acquisition, journal=self.journal, store=self.store, station=self.station)
        asked_at = self.clock.now()
        statement = await holding(
            acquisition, journal=self.journal, store=self.store, station=self.station, random=self.random
        )
        shared = receipt.shared or statement.shared
        twin = await kept_twin(acquisition, self.journal, self.store, self.trusted) if shared else None
        extension = await self._extending.newest(receipt)
        return SignedConfirmation(receipt=receipt, holding=statement, asked_at=asked_at, twin=twin, extension=extension)

    async def prolong(self, acquisition: AcquisitionId) -> None:
        """As Confirming says: by extensions."""
        receipt = await stored_receipt(acquisition, journal=self.journal, store=self.store, station=self.station)
        await self._extending.lasting(receipt)

    @property
    def _extending(self) -> Extending:
        return Extending(journal=self.journal, store=self.store, policy=self.policy, clock=self.clock)

    async def _verified(self, row: Acquisition, signed: SignedBytes, manifest: SignedBytes) -> VerifiedReceipt:
        try:
            return await self._checked(row, signed, manifest)
        except VerificationFailed as error:
            raise StoreUntrusted(f"the store's receipt for {row.acquisition} cannot be trusted: {error}") from error

    async def _checked(self, row: Acquisition, signed: SignedBytes, manifest: SignedBytes) -> VerifiedReceipt:
        """The receipt by itself, and in its place behind the last one."""
        receipt = self._verify(signed, manifest)
        await self._check_witnessed(receipt)
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
        floor = await self.journal.read(lambda tx: tx.get(receipt_floor(self.store.store)))
        if floor is None or not _follows_rebuilding(floor, row, previous, receipt):
            receipts.check_succession(previous, receipt)
        return receipt

    async def _check_witnessed(self, receipt: VerifiedReceipt) -> None:
        """The log that the store witnessed is this station's, or one that was set aside when its journal was lost."""
        try:
            await self.journal.read(lambda tx: _check_witnessed(tx, receipt))
        except VerificationFailed:
            place = self.journal.custody_directory.parent
            if await asyncio.to_thread(was_former, place, receipt.witnessed_size, receipt.witnessed_root):
                return
            if not await self.journal.read(lambda tx: tx.get(FORMER_UNPROVEN)):
                raise
            # The log that was set aside is not what it was: nothing is left to compare with, as its successor says.
            _log.warning("witnessed_log_unknown", size=receipt.witnessed_size)

    def _verify(self, signed: SignedBytes, manifest: SignedBytes) -> VerifiedReceipt:
        return receipts.verify_receipt(
            signed,
            store_key=self.store.key,
            store=self.store.store,
            station=self.station,
            manifest=manifest.payload,
        )


async def stored_receipt(
    acquisition: AcquisitionId, *, journal: Journal, store: SigningStore, station: StationId
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
    acquisition: AcquisitionId, *, journal: Journal, store: SigningStore, station: StationId, random: Entropy
) -> VerifiedHolding:
    """The store's statement, now, that it holds a stored acquisition. Changes nothing; call right before erasing.

    Raises StoreForgot where the store no longer holds what it signed for, StoreUntrusted where its statement does not
    verify; its other errors pass.
    """
    manifest = await journal.read(lambda tx: tx.manifest(acquisition))
    nonce = random(_NONCE_BYTES)
    try:
        signed = await store.holding(acquisition, nonce)
        return receipts.verify_holding(
            signed, store_key=store.key, store=store.store, station=station, manifest=manifest.payload, nonce=nonce
        )
    except (StoreIncomplete, UploadLost) as error:
        raise StoreForgot(
            f"the store signed for {acquisition} but does not hold it: {error}",
            receipt_stands=isinstance(error, ObjectLost),
        ) from error
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


def _follows_rebuilding(
    floor: str, row: Acquisition, previous: VerifiedReceipt | None, receipt: VerifiedReceipt
) -> bool:
    """Whether a receipt is in its place although receipts before it were lost with the journal.

    That is one for a clip that was restored, which is never grounds for erasing; or the first one beyond those known.
    """
    text, _, digest = floor.partition(" ")
    known = int(text)
    newest = max(known, previous.receipt_seq if previous else 0)
    if row.contested and receipt.receipt_seq <= newest:
        return True
    if newest > known or receipt.receipt_seq <= known:
        return False
    if receipt.receipt_seq > known + 1:
        _log.warning("receipts_were_lost", known=known, receipt_seq=receipt.receipt_seq)
        return True
    return receipt.previous == digest


def _key(store: SigningStore) -> str:
    return f"receipt_asked/{store.store}"
