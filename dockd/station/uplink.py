"""The uplink to one store: owns deliveries until they are confirmed. Order, slots, back-off, the store's breaker.

The journal says what is to be sent and in which order; nothing is queued here. A worker outlives every error of one
acquisition; only a journal that failed, or an error that is none of ours, ends the uplink, loudly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from dockd.core.backoff import Backoff, Circuit, Pause
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState, DeliveryEvent
from dockd.errors import (
    Disposition,
    DockdError,
    IllegalTransition,
    JournalError,
    SpoolSpoiled,
    StoreBusy,
    StoreError,
    StoreUnproven,
    StoreUnreachable,
    StoreUntrusted,
)
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, StoreId
from dockd.stages.upload import PatchSize, Pusher, Track
from dockd.station.enforced import Enforced
from dockd.station.leftovers import Leftovers
from dockd.station.outlet import Outlet, Parts
from dockd.station.progress import Progress
from dockd.station.snapshot import StoreStatus
from dockd.station.trust import Trust
from dockd.station.turns import Turns
from dockd.station.waiting import pause
from dockd.station.witnessing import Witnessing

_log = structlog.get_logger()

_NEEDED = (AcquisitionState.SPOOLED, AcquisitionState.UPLOADING)
_PHASE, _ALL = "upload", AcquisitionId("")  # the rate is that of all uploads together


@dataclass(slots=True, kw_only=True)
class _Attempts:
    """One acquisition's history in this life of the program."""

    track: Track = field(default_factory=Track)
    pause: Pause = field(default_factory=Pause)
    rate: Progress = field(default_factory=Progress)
    counted_bytes: int | None = None  # of `track.sent_bytes`, those that the rate knows; None before the first answer
    moved_bytes: int = 0  # sent in this life, for the rate
    probe: bool = False  # this attempt is the open circuit's probe


class Uplink:
    """Sends to one store. `run` once; everything else may be called at any time from the same event loop.

    `on_reach` hears when the store goes out of reach and when it is back. It must not block.
    """

    def __init__(
        self,
        outlet: Outlet,
        parts: Parts,
        *,
        main_witness: bool = True,
        on_reach: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self.outlet = outlet
        self._journal, self._clock, self._random = parts.journal, parts.clock, parts.random
        self._policy, self._on_changed, self._on_reach = parts.policy, parts.on_changed, on_reach
        self._backoff = backoff or Backoff()
        self.confirmer = outlet.way.confirmer(parts)
        self.enforced = Enforced.of(outlet, parts)
        self._pusher = Pusher(
            journal=parts.journal,
            spool=parts.spool,
            store=outlet.port,
            confirmer=self.confirmer,
            sharing=outlet.way.sharing(parts),
            policy=parts.policy,
            patch=PatchSize(outlet.patch_bytes),
            on_progress=self._note_progress,
            on_answer=self._answered,
            on_changed=parts.on_changed,
        )
        self._attempts: dict[AcquisitionId, _Attempts] = {}  # of those active, waiting or held; others are forgotten
        self._active: set[AcquisitionId] = set()
        self._turns = Turns()
        self._picking = asyncio.Lock()
        self._changed = asyncio.Event()  # look again: new work, or a wait that was cut short
        self._circuit = Circuit()
        self._seen = False  # the store answered in this life
        self._note = ""
        self.trust = Trust(
            journal=parts.journal,
            confirmer=self.confirmer,
            policy=parts.policy,
            clock=parts.clock,
            on_changed=parts.on_changed,
            on_settled=self._settled,
        )
        self._witnessing = outlet.signing and Witnessing(
            journal=parts.journal,
            store=outlet.signing,
            main=main_witness,
            trust=self.trust,
            clock=parts.clock,
            random=parts.random,
            backoff=self._backoff,
            on_answer=self._answered,
            on_failure=self._store_failed,
        )
        self._leftovers = outlet.keeping and Leftovers.of(outlet.keeping.port, parts, self._backoff)
        self._waiting = (0, 0)
        self._absent = False  # the newest failure was no usable answer, rather than a request to wait
        self._out_since_s: float | None = None  # monotonic: since when only probes are let through
        self._rate = Progress()
        self._moved_bytes = 0  # in this life, for the rate

    # --- for others

    async def run(self) -> None:
        """Send until cancelled. After cancellation every connection of a PATCH is closed and nothing is lost.

        Raises JournalError where the journal failed, and whatever is no DockdError.
        """
        configured = self._policy.store(self.store)
        if configured is not None and configured.fallback_for is None:
            await self._journal.write(lambda tx: tx.add_outlet(self.store))
        async with asyncio.TaskGroup() as group:
            if self._witnessing:
                group.create_task(self._witnessing.run(), name=f"witness-{self.store}")
            if self._leftovers:
                group.create_task(self._leftovers.run(), name=f"leftovers-{self.store}")
            group.create_task(self.trust.run(), name="trust")
            for slot in range(self.outlet.slots):
                in_turn = slot == 0 and self.outlet.slots > 1
                group.create_task(self._work(in_turn=in_turn), name=f"uplink-{self.store}-{slot}")

    async def begin(self) -> None:
        """Before anything else runs: learn what forbids erasing, and what may be believed."""
        await self.enforced.begin()
        if self._witnessing:
            await self._witnessing.begin()

    async def show_last(self) -> None:
        """Show the store the log a last time, where it signs. Raises what it answered, OSError."""
        if self._witnessing:
            await self._witnessing.show_last()

    @property
    def store(self) -> StoreId:
        """The store's id."""
        return self.outlet.store

    def out_for_s(self) -> float:
        """For how many seconds the store has been out of reach; 0 where it is not."""
        return 0.0 if self._out_since_s is None else max(0.0, self._clock.monotonic_s() - self._out_since_s)

    @property
    def is_out(self) -> bool:
        """Whether only probes are let through."""
        return self._out_since_s is not None

    def nudge(self) -> None:
        """Something changed: there may be work, or the store may be back. Waits are cut short, except bidden ones."""
        self._circuit = self._circuit.hastened(self._backoff)
        for attempts in self._attempts.values():
            attempts.pause = attempts.pause.hastened(self._backoff)
        self._changed.set()

    def witness_soon(self) -> None:
        """Show the newest checkpoint to the store as soon as it can be."""
        if self._witnessing:
            self._witnessing.soon()

    def status(self, *, standing_in: bool = False) -> StoreStatus:
        """The store as it was last seen."""
        if self.trust.alarms:
            state, note = "untrusted", self.trust.alarms[0]
        elif self._absent:
            state, note = "unreachable", self._note
        else:
            state, note = ("reachable" if self._seen else "unknown"), self._note
        count, size_bytes = self._waiting
        return StoreStatus(
            name=self._policy.name(self.store),
            store=self.store,
            state=state,
            note=note,
            counts=self._policy.counts(self.store),
            waiting=count,
            waiting_bytes=size_bytes,
            standing_in=standing_in,
        )

    def progress(self, acquisition: AcquisitionId) -> int:
        """Bytes of an acquisition sent so far, as far as this life of the program knows; 0 once it is stored."""
        attempts = self._attempts.get(acquisition)
        return 0 if attempts is None else attempts.track.sent_bytes

    def rate(self, acquisition: AcquisitionId | None = None) -> int:
        """Bytes a second of one upload, or of all, over the last seconds."""
        now_s = self._clock.monotonic_s()
        if acquisition is None:
            return self._rate.rate_bytes_s(now_s)
        attempts = self._attempts.get(acquisition)
        return 0 if attempts is None else attempts.rate.rate_bytes_s(now_s)

    @property
    def witnessed(self) -> int:
        """Custody entries under the newest checkpoint that the store cosigned."""
        return self._witnessing.size if self._witnessing else 0

    @property
    def alarms(self) -> tuple[str, ...]:
        """What contradicts itself: nothing may be erased while there is any."""
        return self.trust.alarms

    # --- workers

    async def _work(self, *, in_turn: bool) -> None:
        while True:
            row = await self._next(in_turn=in_turn)
            try:
                await self._attend(row)
            finally:
                self._active.discard(row.acquisition)
                self._changed.set()  # whoever is picking looks again: this slot's acquisition may be due later

    async def _next(self, *, in_turn: bool) -> Acquisition:
        """The next acquisition to send, entered as active. One worker picks at a time, the others queue behind it."""
        async with self._picking:
            while True:
                self._changed.clear()
                now_s = self._clock.monotonic_s()
                left_s = self._circuit.left_s(now_s)
                if left_s == 0.0:
                    row, left_s = await self._pick(in_turn=in_turn)
                    if row is not None and self._circuit.left_s(now_s) != 0.0:
                        continue  # it opened while the journal was asked
                    if row is not None:
                        self._active.add(row.acquisition)
                        self._turns.began(row.docking, now_s)
                        attempts = self._attempts.setdefault(row.acquisition, _Attempts())
                        self._circuit = self._circuit.entered()
                        attempts.probe = self._circuit.probing
                        return row
                await pause(self._clock, left_s, self._changed)

    async def _pick(self, *, in_turn: bool) -> tuple[Acquisition | None, float | None]:
        """The first candidate that is neither active nor waiting; else how long until one is due, None for unknown."""
        now_s = self._clock.monotonic_s()
        waits = {one: entry.pause.left_s(now_s) for one, entry in self._attempts.items()}
        passed_over = self._active | {one for one, left_s in waits.items() if left_s > 0}

        def ask(tx: Tx) -> tuple[list[Acquisition], list[Acquisition], tuple[int, int]]:
            limit = len(passed_over) + 1
            firsts = tx.uplink_firsts(self.store, limit) if in_turn else []
            return firsts, tx.uplink_candidates(self.store, limit), tx.waiting(self.store)

        firsts, candidates, self._waiting = await self._journal.read(ask)
        for row in (*(self._turns.ordered(firsts) if in_turn else ()), *candidates):
            if row.acquisition not in passed_over:
                return row, None
        # The list is whole, so what stands on no list is done with, by whatever way.
        listed = {row.acquisition for row in candidates}
        for gone in [one for one in self._attempts if one not in listed and one not in self._active]:
            self._forget(gone)
        return None, min((waits[one] for one in self._attempts if one not in self._active), default=None)

    async def _attend(self, row: Acquisition) -> None:
        """Push one acquisition and draw the consequences. Raises JournalError and what is no DockdError only."""
        attempts = self._attempts[row.acquisition]
        log = _log.bind(acquisition=row.acquisition, bay=row.bay, camera=row.camera.serial)
        try:
            await self.enforced.known()
            await self._pusher.push(row, attempts.track)
        except JournalError:
            raise  # nothing can be recorded any more: the program ends, and a restart reconciles
        except StoreUntrusted as error:
            log.error("store_untrusted", reason=str(error))  # noqa: TRY400  the sentence is for a person
            self.trust.doubt(row.acquisition, str(error))
            self._store_failed(error, probe=attempts.probe)
            self._hold(attempts)
        except IllegalTransition as error:
            # Somebody else moved the row on meanwhile, for instance into quarantine: the journal is asked again.
            log.info("upload_overtaken", reason=str(error))
            self._hold(attempts)
        except SpoolSpoiled as error:
            log.error("spool_file_spoiled", reason=str(error))  # noqa: TRY400  as above
            await self._give_up(row, DeliveryEvent.UNSENDABLE, str(error))
        except StoreUnproven as error:
            log.warning("delivery_unproven", reason=str(error))
            self._answered()
            self._note = str(error)
            self._hold(attempts)
        except DockdError as error:
            if error.disposition is Disposition.RETRY:
                log.warning("upload_deferred", reason=str(error), error=type(error).__name__)
                self._defer(attempts, error)
            else:
                log.error("upload_refused", reason=str(error))  # noqa: TRY400  as above
                await self._give_up(row, DeliveryEvent.REFUSED, str(error))
        else:
            self._answered()
            self._forget(row.acquisition)
        finally:
            if attempts.probe and self._circuit.probing:
                self._circuit = self._circuit.given_up()
            attempts.probe = False

    def _defer(self, attempts: _Attempts, error: DockdError) -> None:
        asked_s = error.retry_after_s if isinstance(error, StoreBusy) else None
        now_s = self._clock.monotonic_s()
        attempts.pause = attempts.pause.after_failure(now_s, self._random, self._backoff, retry_after_s=asked_s)
        if isinstance(error, StoreError):
            self._store_failed(error, probe=attempts.probe, retry_after_s=asked_s)

    def _hold(self, attempts: _Attempts) -> None:
        """Wait the longest wait, whatever happens meanwhile."""
        now_s, cap_s = self._clock.monotonic_s(), self._backoff.cap_s
        attempts.pause = attempts.pause.after_failure(now_s, self._random, self._backoff, retry_after_s=cap_s)

    async def _give_up(self, row: Acquisition, event: DeliveryEvent, reason: str) -> None:
        """Take one delivery out of the way; the rest goes on."""
        try:
            changed = await self._journal.write(lambda tx: self._given_up(tx, row.acquisition, event, reason))
        except IllegalTransition as error:
            _log.info("upload_overtaken", acquisition=row.acquisition, reason=str(error))
            return
        self._forget(row.acquisition)
        if self._leftovers:
            self._leftovers.soon()
        self._on_changed(changed)

    def _given_up(self, tx: Tx, name: AcquisitionId, event: DeliveryEvent, reason: str) -> Acquisition:
        """A sealed file that is gone while too few stores have the clip: then the clip itself is read anew."""
        row, details = tx.acquisition(name), {"reason": reason}
        if event is DeliveryEvent.UNSENDABLE and row is not None and row.state in _NEEDED:
            return tx.advance(name, AcquisitionEvent.SPOILED, details=details, quarantine_reason=reason)
        return tx.deliver(name, self.store, event, self._policy, details=details, reason=reason)[1]

    def _forget(self, acquisition: AcquisitionId) -> None:
        self._attempts.pop(acquisition, None)
        self.confirmer.forget(acquisition)
        self.trust.believe(acquisition)

    # --- the store

    def _settled(self) -> None:
        """The store is believed again as it is: what was held because of it goes on now."""
        for attempts in self._attempts.values():
            attempts.pause = Pause()
        self.nudge()
        self.witness_soon()

    def _answered(self) -> None:
        """The store is there: the breaker closes, and those whom only its absence held up are let go."""
        was_open, self._circuit = self._circuit.open, self._circuit.after_success()
        self._seen, self._absent, self._note, self._out_since_s = True, False, "", None
        if was_open:
            _log.info("store_back", store=self.store)
            self._on_reach()
            self.nudge()
            if self._witnessing:
                self._witnessing.store_back()

    def _store_failed(self, error: StoreError, *, probe: bool = False, retry_after_s: float | None = None) -> None:
        was_open = self._circuit.open
        self._circuit = self._circuit.after_failure(
            self._clock.monotonic_s(), self._random, self._backoff, probe=probe, retry_after_s=retry_after_s
        )
        self._absent, self._note = isinstance(error, StoreUnreachable), str(error)
        if self._circuit.open and not was_open:
            _log.warning("store_held_off", store=self.store, reason=str(error))
            self._out_since_s = self._clock.monotonic_s()
            self._on_reach()

    def _note_progress(self, acquisition: AcquisitionId, track: Track) -> None:
        attempts = self._attempts[acquisition]
        if attempts.counted_bytes is not None:  # what was there before this life's first answer was not sent now
            sent_bytes, now_s = max(0, track.sent_bytes - attempts.counted_bytes), self._clock.monotonic_s()
            self._moved_bytes += sent_bytes
            attempts.moved_bytes += sent_bytes
            self._rate.report(_ALL, _PHASE, self._moved_bytes, now_s)
            attempts.rate.report(acquisition, _PHASE, attempts.moved_bytes, now_s)
        attempts.counted_bytes = track.sent_bytes
