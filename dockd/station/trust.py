"""What speaks against the store: doubts that stop all erasing, asked again until they are over, or an operator acts.

A store that was rolled back lost the newest of its receipts. That it did is noticed by itself; what follows from it
only a person may accept. Then, from the newest receipt down to the first whose clip the store still holds, each is
withdrawn: a clip that still is on its camera is pushed again, one that was erased is lost, and listed loudly.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from dockd.core.backoff import DOUBTED
from dockd.core.lifecycle import AcquisitionState, DeliveryEvent, DeliveryState, DockingState
from dockd.core.losses import ToldLoss
from dockd.core.policy import StorePolicy
from dockd.core.receipts import stated_witness
from dockd.errors import (
    IllegalTransition,
    JournalError,
    StoreBusy,
    StoreError,
    StoreForgot,
    StoreUnreachable,
    StoreUntrusted,
    VerificationFailed,
)
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Clock, SignedBytes, StoreId
from dockd.stages.confirming import Confirming
from dockd.stages.witness import forget_witnessed
from dockd.station.waiting import pause

_log = structlog.get_logger()

CHECKPOINT = "checkpoint"  # the topic of what speaks against the store's word about the custody log
_NAMED = 3  # in a sentence
_PUSHED_AGAIN, _LOST, _OTHER = "pushed_again", "lost", "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The doubts about one store. `run` once; everything else may be called at any time from the same event loop.

    `on_changed` hears of every row that changed, `on_settled` that an accepted roll-back was carried out; neither may
    block.
    """

    journal: Journal
    confirmer: Confirming
    policy: StorePolicy
    clock: Clock
    on_changed: Callable[[Acquisition], None]
    on_settled: Callable[[], None]
    _doubts: dict[str, str] = field(default_factory=dict)  # sentences, by acquisition or another topic
    _broken: set[AcquisitionId] = field(default_factory=set)  # of those, what it was asked whether it holds it
    _recorded: set[str] = field(default_factory=set)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def of(self) -> StoreId:
        """The store that it is about."""
        return self.confirmer.of

    @property
    def alarms(self) -> tuple[str, ...]:
        """What contradicts itself: where the store counts, nothing may be erased while there is any."""
        return tuple(self._doubts.values())

    def doubt(self, topic: str, sentence: str) -> None:
        """The store contradicts itself, or could not prove what it is."""
        self._doubts[topic] = sentence
        self._woken.set()

    def doubt_holding(self, acquisition: AcquisitionId, sentence: str) -> None:
        """Asked right before erasing, the store did not say that it holds a clip. It is asked again every minute."""
        self._broken.add(acquisition)
        self.doubt(_about_holding(acquisition), sentence)

    def believe(self, topic: str) -> None:
        """The store did well in what it had been doubted for."""
        self._doubts.pop(topic, None)

    def look(self) -> None:
        """An operator accepted a roll-back: carry it out."""
        self._woken.set()

    async def run(self) -> None:
        """Record doubts, ask again, carry out what was accepted; until cancelled. Raises JournalError."""
        while True:
            self._woken.clear()
            await self._record_doubts()
            await self._ask_again()
            done = await self._carry_out()
            if done and not self._broken:
                await self._woken.wait()
            else:
                await pause(self.clock, DOUBTED.cap_s, self._woken)

    async def _record_doubts(self) -> None:
        """A custody entry for each sentence, once for as long as it stands."""
        standing = set(self._doubts.values())
        self._recorded.intersection_update(standing)
        for sentence in standing - self._recorded:
            details = {"store": self.of, "reason": sentence}
            await self.journal.write(lambda tx, details=details: tx.record("store.distrusted", details=details))  # type: ignore[misc]
            self._recorded.add(sentence)

    async def _ask_again(self) -> None:
        for name in sorted(self._broken):
            row = await self.journal.read(lambda tx, name=name: tx.acquisition(name))  # type: ignore[misc]
            try:
                if await self._is_confirmed(name):
                    await self.confirmer.ask_again(name)
            except JournalError:
                raise
            except (StoreUntrusted, VerificationFailed) as error:
                self._doubts[_about_holding(name)] = str(error)
                continue
            except StoreError as error:
                _log.info("holding_not_asked_again", acquisition=name, reason=str(error))
                if isinstance(error, StoreUnreachable | StoreBusy):
                    return  # it is not there for the others either: a minute later is soon enough
                continue
            self._broken.discard(name)
            self.believe(_about_holding(name))
            if row is not None:
                self.on_changed(row)

    async def _carry_out(self) -> bool:
        """Act on what the store lost, where an operator accepted that. False where it has to be tried again.

        The newest receipts are withdrawn, as far as the store does not know of them any more: it will give these
        numbers again. Any other clip that it lacks is pushed again under its receipt, which stays in its place.
        """
        if not await self.journal.read(lambda tx: tx.get(_accepted(self.of))):
            return True
        try:
            last_seq = await self._withdraw_newest()
            for name in sorted(self._broken):
                try:
                    if await self._is_confirmed(name):  # else it was withdrawn above
                        await self.confirmer.ask_again(name)
                except StoreForgot as error:
                    self.on_changed(
                        await self.journal.write(lambda tx, name=name, why=str(error): self._push_again(tx, name, why))  # type: ignore[misc]
                    )
        except (StoreError, VerificationFailed, IllegalTransition) as error:
            _log.warning("rollback_not_carried_out", reason=str(error))
            return False
        await self.journal.write(lambda tx: self._conclude(tx, last_seq))
        _log.error("store_rolled_back", store=self.of)
        for topic in self._doubts.keys() - {CHECKPOINT}:  # that one ends when the store cosigns again
            self._doubts.pop(topic)
        self._broken.clear()
        self.on_settled()
        return True

    async def _withdraw_newest(self) -> int:
        """Withdraw the newest receipts, as far as the store knows nothing of them.

        Returns the number of the one that stands, which the store's next receipt follows; 0 where none does.
        """
        while (newest := await self.journal.read(lambda tx: tx.last_receipt(self.of))) is not None:
            name = newest[1]
            try:
                await self.confirmer.ask_again(name)
            except StoreForgot as error:
                if not error.receipt_stands:
                    row = await self.journal.write(lambda tx, name=name, why=str(error): self._withdraw(tx, name, why))  # type: ignore[misc]
                    self.on_changed(row)
                    continue
                self._broken.add(name)
            # Whatever came before it, the store signed before it was backed up.
            return await self.journal.read(lambda tx, name=name: tx.receipt_seq(name, self.of))  # type: ignore[misc]
        return 0

    async def _is_confirmed(self, name: AcquisitionId) -> bool:
        delivery = await self.journal.read(lambda tx: tx.delivery(name, self.of))
        return delivery is not None and delivery.state is DeliveryState.CONFIRMED

    def retract_told(self, tx: Tx, told: ToldLoss) -> Acquisition | None:
        """The store itself says that it lost this one: send it again, if that can be. Returns the row where it changed.

        Nobody has to accept that: it contradicts nothing. Raises IllegalTransition while the clip is being erased.
        """
        delivery = tx.delivery(told.acquisition, self.of)
        if delivery is None or delivery.state is not DeliveryState.CONFIRMED:
            return None
        before, signed = self._row(tx, told.acquisition), tx.receipt(told.acquisition, self.of)
        details: dict[str, Any] = {"reason": f"the store says that it lost it: {told.what}"}
        if signed is not None and before.state == AcquisitionState.ERASED:
            details |= {"receipt_seq": stated_witness(signed.payload).receipt_seq, **_evidence(signed)}
        return self._retract(tx, before, details, accepted=False)

    def _push_again(self, tx: Tx, name: AcquisitionId, why: str) -> Acquisition:
        """A clip whose receipt, if there is one, stands."""
        row, signed = self._row(tx, name), tx.receipt(name, self.of)
        details: dict[str, Any] = {"reason": why}
        delivery = tx.delivery(name, self.of)
        if delivery is None or delivery.state is not DeliveryState.CONFIRMED:
            return row
        if signed is not None and row.state == AcquisitionState.ERASED:  # what it once held is evidence then
            details |= {"receipt_seq": stated_witness(signed.payload).receipt_seq, **_evidence(signed)}
        return self._retract(tx, row, details)

    def _retract(self, tx: Tx, before: Acquisition, details: dict[str, Any], *, accepted: bool = True) -> Acquisition:
        """The store does not hold it any more: push it again, if that can be; else it is one copy less, or lost.

        `accepted`: as part of a roll-back that an operator accepted, and that is counted.
        """
        count = self._count if accepted else _uncounted
        name, delivery = before.acquisition, tx.delivery(before.acquisition, self.of)
        erased = before.state == AcquisitionState.ERASED
        if delivery is None or delivery.state is not DeliveryState.CONFIRMED:
            if "receipt_seq" in details:
                tx.record_about(before, "store.receipt_withdrawn", {"store": self.of} | details)
                self._count(tx, _OTHER)
            return before
        _, row = tx.deliver(
            name,
            self.of,
            DeliveryEvent.RETRACTED,
            self.policy,
            details=details,
            upload_url=None,
            objects=None,
            confirmation=None,
            confirmation_digest=None,
        )
        left = {one.store for one in tx.deliveries(name) if one.state is DeliveryState.CONFIRMED}
        if not erased:
            count(tx, _PUSHED_AGAIN)
        elif self.policy.satisfied(left):
            count(tx, _OTHER)  # the others still have it
        else:
            tx.record_about(before, "acquisition.lost", {"store": self.of} | details)
            _put_lost(tx, self.of, name, details.get("receipt_seq", 0))
            count(tx, _LOST)
        return row

    def _row(self, tx: Tx, name: AcquisitionId) -> Acquisition:
        """Raises IllegalTransition while the clip is being erased, which is over soon."""
        row = tx.acquisition(name)
        if row is None:
            raise JournalError(f"the journal has no acquisition {name}")
        docking = tx.docking(row.docking)
        if row.state == AcquisitionState.WARRANTED and docking is not None and docking.state != DockingState.ENDED:
            raise IllegalTransition(f"{name} is under a warrant at this moment")
        return row

    def _count(self, tx: Tx, kind: str) -> None:
        counted = json.loads(tx.get(_accepted(self.of)) or "{}")
        tx.put(_accepted(self.of), json.dumps(counted | {kind: counted.get(kind, 0) + 1}))

    def _withdraw(self, tx: Tx, name: AcquisitionId, why: str) -> Acquisition:
        """One receipt that the store does not stand by any more; the log keeps it as evidence."""
        row = self._row(tx, name)
        receipt_seq, signed = tx.withdraw_receipt(name, self.of)
        return self._retract(tx, row, {"reason": why, "receipt_seq": receipt_seq, **_evidence(signed)})

    def _conclude(self, tx: Tx, last_seq: int) -> None:
        counted = json.loads(tx.get(_accepted(self.of)) or "{}")
        details = {"store": self.of, "last_receipt_seq": last_seq}
        details |= {kind: counted.get(kind, 0) for kind in (_PUSHED_AGAIN, _LOST)}
        tx.record("store.rolled_back", details=details)
        tx.put(_accepted(self.of), "")
        forget_witnessed(tx, self.of)


def accept_rollback(tx: Tx, store: StoreId, *, operator: str, reason: str) -> None:
    """An operator's word that the store was rolled back: what it lost is to be pushed again, or counted as lost."""
    tx.record("store.rollback_accepted", details={"store": store, "operator": operator, "reason": reason})
    if not tx.get(_accepted(store)):
        tx.put(_accepted(store), json.dumps({}))


def lost(tx: Tx, store: StoreId) -> list[tuple[Acquisition, int]]:
    """The clips that were erased from their cameras and that the store lost then, with their receipts' numbers."""
    rows = ((tx.acquisition(name), int(tx.get(_lost(store) + name) or 0)) for name in _names(tx, store))
    return [(row, receipt_seq) for row, receipt_seq in rows if row is not None]


def _names(tx: Tx, store: StoreId) -> list[AcquisitionId]:
    return [AcquisitionId(key.removeprefix(_lost(store))) for key in tx.keys(_lost(store))]


def alarm_about_lost(tx: Tx, store: StoreId) -> str:
    """A sentence where clips were lost that no operator has accepted yet."""
    names = _names(tx, store)
    if not _unknown(tx, store):
        return ""
    return (
        f"clips that were erased from their cameras, and that the store lost afterwards: {len(names)}, among them "
        f"{', '.join(names[:_NAMED])}; `dockd store lost` lists them all: have the store's operators search every copy"
    )


def accept_loss(tx: Tx, store: StoreId, *, operator: str, reason: str) -> int:
    """An operator's word that he knows what was lost; returns how many clips. Raises LookupError where none is new."""
    count = len(_names(tx, store))
    if not _unknown(tx, store):
        raise LookupError("the store has lost no clip that was erased, beyond those that were accepted before")
    tx.record("store.loss_accepted", details={"store": store, "operator": operator, "reason": reason, "clips": count})
    _mark_known(tx, store, _names(tx, store))
    return count


def forget_lost(tx: Tx, store: StoreId, name: AcquisitionId) -> None:
    """The store has it again. What was accepted of others stays so, and a new loss of this one is an alarm again."""
    _count_no_more(tx, store)
    tx.drop(_lost(store) + name)
    tx.drop(_known(store, name))


def _put_lost(tx: Tx, store: StoreId, name: AcquisitionId, receipt_seq: int) -> None:
    _count_no_more(tx, store)
    tx.put(_lost(store) + name, str(receipt_seq))


def _unknown(tx: Tx, store: StoreId) -> list[AcquisitionId]:
    """The lost clips that no operator has accepted. What an older version kept is how many were accepted, not which."""
    names = _names(tx, store)
    if len(names) <= int(tx.get(_known(store)) or 0):
        return []
    return [name for name in names if not tx.get(_known(store, name))]


def _count_no_more(tx: Tx, store: StoreId) -> None:
    """Before the number of lost clips changes: of an older version's count it would not be known whom it is of."""
    _mark_known(tx, store, [] if _unknown(tx, store) else _names(tx, store))


def _mark_known(tx: Tx, store: StoreId, names: list[AcquisitionId]) -> None:
    for name in names:
        tx.put(_known(store, name), "accepted")
    tx.drop(_known(store))


def _uncounted(tx: Tx, kind: str) -> None:
    """What nobody had to accept is not part of a roll-back."""


def _record(tx: Tx, event: str, row: Acquisition, details: dict[str, Any]) -> None:
    tx.record(
        event,
        bay=row.bay,
        docking=row.docking,
        acquisition=row.acquisition,
        camera=row.camera.serial,
        details=details,
    )


def _about_holding(name: AcquisitionId) -> str:
    return f"holding/{name}"


def _evidence(signed: SignedBytes) -> dict[str, str]:
    """The store's own words, whole: they prove what it once held."""
    return {"receipt": signed.payload.decode(), "signature": signed.signature}


def _accepted(store: StoreId) -> str:
    return f"rollback_accepted/{store}"


def _lost(store: StoreId) -> str:
    return f"lost/{store}/"


def _known(store: StoreId, name: AcquisitionId | None = None) -> str:
    return f"lost_known/{store}" + (f"/{name}" if name else "")
