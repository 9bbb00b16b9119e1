"""The uplink: owns spooled acquisitions until the store confirmed them. Order, slots, back-off, the store's breaker.

The journal says what is to be sent and in which order; nothing is queued here. A worker outlives every error of one
acquisition; only a journal that failed, or an error that is none of ours, ends the uplink, loudly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from dockd.core.backoff import Backoff, Circuit, Pause
from dockd.core.lifecycle import AcquisitionEvent
from dockd.errors import (
    Disposition,
    DockdError,
    IllegalTransition,
    JournalError,
    SpoolSpoiled,
    StoreBusy,
    StoreError,
    StoreUnreachable,
    StoreUntrusted,
)
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Clock, Entropy, StationId
from dockd.stages.confirm import Confirmer
from dockd.stages.upload import PatchSize, Pusher, Track
from dockd.stages.witness import show_checkpoint, unaccepted, witnessed_size
from dockd.station.progress import Progress
from dockd.station.snapshot import StoreStatus
from dockd.station.trust import CHECKPOINT, Trust
from dockd.station.turns import Turns
from dockd.stores.port import EvidenceStore

_log = structlog.get_logger()

WITNESS_EVERY_S = 3600.0
UNACCEPTED_EVERY_S = 60.0
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

    `on_changed` hears of every row that the uplink changed. It is called from the workers and must not block.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        spool: Spool,
        store: EvidenceStore,
        station: StationId,
        clock: Clock,
        random: Entropy,
        slots: int,
        patch_bytes: int,
        on_changed: Callable[[Acquisition], None],
        min_retention: timedelta = timedelta(0),
        backoff: Backoff | None = None,
    ) -> None:
        self._journal = journal
        self._store = store
        self._clock = clock
        self._random = random
        self._slots = slots
        self._on_changed = on_changed
        self._backoff = backoff or Backoff()
        confirmer = Confirmer(
            journal=journal,
            spool=spool,
            store=store,
            station=station,
            random=random,
            on_changed=on_changed,
            min_retention=min_retention,
        )
        self._pusher = Pusher(
            journal=journal,
            spool=spool,
            store=store,
            confirmer=confirmer,
            patch=PatchSize(patch_bytes),
            on_progress=self._note_progress,
            on_answer=self._answered,
            on_changed=on_changed,
        )
        self._attempts: dict[AcquisitionId, _Attempts] = {}  # of those active, waiting or held; others are forgotten
        self._active: set[AcquisitionId] = set()
        self._turns = Turns()
        self._picking = asyncio.Lock()
        self._changed = asyncio.Event()  # look again: new work, or a wait that was cut short
        self._witness_wanted = asyncio.Event()
        self._circuit = Circuit()
        self._witnessing = Pause()
        self._seen = False  # the store answered in this life
        self._note = ""
        self.trust = Trust(
            journal=journal,
            store=store,
            station=station,
            clock=clock,
            random=random,
            on_changed=on_changed,
            on_settled=self._settled,
        )
        self._waiting = (0, 0)
        self._witnessed = 0
        self._absent = False  # the newest failure was no usable answer, rather than a request to wait
        self._rate = Progress()
        self._moved_bytes = 0  # in this life, for the rate

    # --- for others

    async def run(self) -> None:
        """Send until cancelled. After cancellation every connection of a PATCH is closed and nothing is lost.

        Raises JournalError where the journal failed, and whatever is no DockdError.
        """
        self._witnessed = await witnessed_size(self._journal)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._witness_regularly(), name="witness")
            group.create_task(self.trust.run(), name="trust")
            for slot in range(self._slots):
                in_turn = slot == 0 and self._slots > 1
                group.create_task(self._work(in_turn=in_turn), name=f"uplink-{slot}")

    async def begin(self) -> None:
        """Before anything else runs: learn what forbids erasing."""
        why = await unaccepted(self._journal)
        if why:
            self.trust.doubt(CHECKPOINT, why)

    def nudge(self) -> None:
        """Something changed: there may be work, or the store may be back. Waits are cut short, except bidden ones."""
        self._circuit = self._circuit.hastened(self._backoff)
        for attempts in self._attempts.values():
            attempts.pause = attempts.pause.hastened(self._backoff)
        self._changed.set()

    def witness_soon(self) -> None:
        """Show the newest checkpoint to the store as soon as it can be."""
        self._witness_wanted.set()

    def status(self) -> StoreStatus:
        """The store as it was last seen."""
        if self.trust.alarms:
            state, note = "untrusted", self.trust.alarms[0]
        elif self._absent:
            state, note = "unreachable", self._note
        else:
            state, note = ("reachable" if self._seen else "unknown"), self._note
        count, size_bytes = self._waiting
        return StoreStatus(name=str(self._store.store), state=state, note=note, waiting=count, waiting_bytes=size_bytes)

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
        return self._witnessed

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
                await self._pause(left_s, self._changed)

    async def _pick(self, *, in_turn: bool) -> tuple[Acquisition | None, float | None]:
        """The first candidate that is neither active nor waiting; else how long until one is due, None for unknown."""
        now_s = self._clock.monotonic_s()
        waits = {one: entry.pause.left_s(now_s) for one, entry in self._attempts.items()}
        passed_over = self._active | {one for one, left_s in waits.items() if left_s > 0}

        def ask(tx: Tx) -> tuple[list[Acquisition], list[Acquisition], tuple[int, int]]:
            limit = len(passed_over) + 1
            return tx.uplink_firsts(limit) if in_turn else [], tx.uplink_candidates(limit), tx.sendable()

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
            await self._give_up(row, AcquisitionEvent.SPOILED, str(error))
        except DockdError as error:
            if error.disposition is Disposition.RETRY:
                log.warning("upload_deferred", reason=str(error), error=type(error).__name__)
                self._defer(attempts, error)
            else:
                log.error("upload_refused", reason=str(error))  # noqa: TRY400  as above
                await self._give_up(row, AcquisitionEvent.QUARANTINED, str(error))
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

    async def _give_up(self, row: Acquisition, event: AcquisitionEvent, reason: str) -> None:
        """Take one acquisition out of the way; the rest goes on."""
        try:
            changed = await self._journal.write(
                lambda tx: tx.advance(
                    row.acquisition,
                    event,
                    details={"reason": reason},
                    quarantine_reason=reason,
                )
            )
        except IllegalTransition as error:
            _log.info("upload_overtaken", acquisition=row.acquisition, reason=str(error))
            return
        self._forget(row.acquisition)
        self._on_changed(changed)

    def _forget(self, acquisition: AcquisitionId) -> None:
        self._attempts.pop(acquisition, None)
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
        self._seen, self._absent, self._note = True, False, ""
        if was_open:
            _log.info("store_back", store=self._store.store)
            self.nudge()
            if self._witnessing.failures:
                self._witness_wanted.set()

    def _store_failed(self, error: StoreError, *, probe: bool = False, retry_after_s: float | None = None) -> None:
        was_open = self._circuit.open
        self._circuit = self._circuit.after_failure(
            self._clock.monotonic_s(), self._random, self._backoff, probe=probe, retry_after_s=retry_after_s
        )
        self._absent, self._note = isinstance(error, StoreUnreachable), str(error)
        if self._circuit.open and not was_open:
            _log.warning("store_held_off", store=self._store.store, reason=str(error))

    def _note_progress(self, acquisition: AcquisitionId, track: Track) -> None:
        attempts = self._attempts[acquisition]
        if attempts.counted_bytes is not None:  # what was there before this life's first answer was not sent now
            sent_bytes, now_s = max(0, track.sent_bytes - attempts.counted_bytes), self._clock.monotonic_s()
            self._moved_bytes += sent_bytes
            attempts.moved_bytes += sent_bytes
            self._rate.report(_ALL, _PHASE, self._moved_bytes, now_s)
            attempts.rate.report(acquisition, _PHASE, attempts.moved_bytes, now_s)
        attempts.counted_bytes = track.sent_bytes

    # --- the witness

    async def _witness_regularly(self) -> None:
        """Show the checkpoint at the start, on request and hourly; one that failed is shown again after a wait."""
        while True:
            delay_s = await self._witness()
            await self._pause(delay_s, self._witness_wanted)
            self._witness_wanted.clear()

    async def _witness(self) -> float:
        """Try once; returns the seconds until the next time."""
        before = self._witnessed
        try:
            self._witnessed = await show_checkpoint(self._journal, self._store)
        except JournalError:
            raise
        except StoreUntrusted as error:
            _log.error("store_untrusted", reason=str(error))
            self.trust.doubt(CHECKPOINT, str(error))
            if await unaccepted(self._journal):  # a person is about to accept the log: nothing was shown
                return UNACCEPTED_EVERY_S
            # The store keeps every contradiction that it is shown as evidence: once an hour is enough.
            return WITNESS_EVERY_S
        except (DockdError, OSError) as error:  # a full disk too: the log is as good without
            _log.warning("witness_deferred", reason=str(error))
            if isinstance(error, StoreError):
                self._store_failed(error)
            now_s = self._clock.monotonic_s()
            self._witnessing = self._witnessing.after_failure(now_s, self._random, self._backoff)
            return self._witnessing.left_s(now_s)
        self.trust.believe(CHECKPOINT)
        self._witnessing = Pause()
        if self._witnessed != before:  # else there was nothing to show, and the store was not asked
            self._answered()
        return WITNESS_EVERY_S

    async def _pause(self, delay_s: float | None, until: asyncio.Event) -> None:
        """Wait for the event, at most `delay_s` where that is known. Cancellation ends it at once."""
        if delay_s is None:
            await until.wait()
            return
        waits = [asyncio.ensure_future(self._clock.sleep(delay_s)), asyncio.ensure_future(until.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
