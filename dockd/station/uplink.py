"""The uplink to one store: owns deliveries until they are confirmed. Order, places, back-off, manners towards it.

The journal says what is to be sent and in which order; nothing is queued here. An upload's errors are its own. An error
that is none of ours stops the store for a while (station.boundary); only a journal that failed ends the uplink, loudly.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from dockd.core.backoff import STORE, Backoff, Row
from dockd.core.bandwidth import spread_s
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState, DeliveryEvent
from dockd.core.manners import Begun, Manners
from dockd.core.patch_size import PatchSize
from dockd.core.proof import Verdict, weigh
from dockd.errors import (
    DeliveryAwaits,
    Disposition,
    DockdError,
    IllegalTransition,
    JournalError,
    SpoolSpoiled,
    StoreBusy,
    StoreError,
    StoreLacks,
    StoreStopped,
    StoreUnproven,
    StoreUnreachable,
    StoreUnsuited,
    StoreUntrusted,
)
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, StoreId
from dockd.stages.upload import Pusher, Track
from dockd.station.agreement import Agreement
from dockd.station.attempts import Attempt, Attempts
from dockd.station.boundary import MAX_HOLD_S, Boundary
from dockd.station.choosing import Choice, Wanted, choose, is_flagged
from dockd.station.enforced import Enforced
from dockd.station.leftovers import Leftovers
from dockd.station.outlet import Outlet, Parts
from dockd.station.snapshot import StoreStatus
from dockd.station.told import Known, Told, sentence
from dockd.station.trust import Trust
from dockd.station.turns import Turns
from dockd.station.waiting import pause
from dockd.station.witnessing import Witnessing

_log = structlog.get_logger()

_NEEDED = (AcquisitionState.SPOOLED, AcquisitionState.UPLOADING)


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
        self._backoff = backoff or STORE
        self._manners = Manners(slots=max(1, outlet.slots), random=parts.random, backoff=self._backoff)
        self._pacing, self._places = parts.pacing, parts.places
        self.boundary = Boundary(store=outlet.store, clock=parts.clock, random=parts.random, on_change=on_reach)
        self._begun = False
        self.enforced = Enforced.of(outlet, parts)
        self.confirmer = outlet.way.confirmer(parts, self.enforced.tried, self._manners.budget)
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
            on_sent=self._manners.sent,
            may_retry=lambda: self._manners.may_retry(self._clock.monotonic_s()),
            on_changed=parts.on_changed,
        )
        self.agreement = Agreement(
            store=outlet.signing,
            configured=parts.policy.store(outlet.store),
            clock=parts.clock,
            random=parts.random,
            on_settled=self._settled,
        )
        self._attempts = Attempts()
        self._turns = Turns()
        self._changed = asyncio.Event()  # look again: new work, a free place, or a wait that was cut short
        self._places.subscribe(self._changed.set)
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
            waits=self._row(),
            on_answer=self._answered,
            on_failure=self._store_failed,
            told=Told(
                journal=parts.journal,
                store=outlet.signing,
                station=parts.station,
                trust=self.trust,
                clock=parts.clock,
                random=parts.random,
                waits=self._row(),
                on_changed=parts.on_changed,
                on_lost=self.nudge,
            ),
        )
        self._leftovers = outlet.keeping and Leftovers.of(outlet.keeping.port, parts, self._row())
        self._waiting = (0, 0)
        self._lacks = False  # of an answer that is absent: the store is there, but lacks something
        self._absent = False  # the newest failure was no usable answer, rather than a request to wait

    # --- for others

    async def run(self) -> None:
        """Send until cancelled. After cancellation every connection of a PATCH is closed and nothing is lost.

        Raises JournalError where the journal failed.
        """
        await self.boundary.run(self._run)

    async def _run(self) -> None:
        """Raises JournalError, and whatever is no DockdError. However it ends, no place and no wish is left behind."""
        if not self._begun:
            await self._begin()
        try:
            await self._send()
        finally:
            for name in self._attempts.active:  # tasks that were cancelled before their first step
                self._manners.ended(self._attempts.of(name).begun)
                self._attempts.end(name)
                self._places.leave()
            self._places.withdraw(self.store)

    async def _send(self) -> None:
        configured = self._policy.store(self.store)
        if configured is not None and configured.fallback_for is None:
            await self._journal.write(lambda tx: tx.add_outlet(self.store))
        async with asyncio.TaskGroup() as group:
            if self._witnessing:
                group.create_task(self._witnessing.run(), name=f"witness-{self.store}")
            if self._leftovers:
                group.create_task(self._leftovers.run(), name=f"leftovers-{self.store}")
            group.create_task(self.trust.run(), name="trust")
            group.create_task(self.agreement.run(), name=f"agreement-{self.store}")
            while self.outlet.slots:
                row = await self._next()
                group.create_task(self._work(row), name=f"upload-{self.store}-{row.acquisition}")

    async def begin(self) -> None:
        """Before anything else runs: learn what forbids erasing, and what may be believed. Raises JournalError.

        Where that cannot be learnt the store is not begun with, and `run` tries it again.
        """
        with suppress(StoreStopped), self.boundary.within():
            await self._begin()

    async def _begin(self) -> None:
        await self.enforced.begin()
        if self._witnessing:
            await self._witnessing.begin()
        self._begun = True

    def returning(self, outage: timedelta) -> None:
        """The station was away for so long, and others may have been with it: do not come back all at once.

        Flagged evidence waits for nothing of the kind.
        """
        quiet_s = spread_s(outage, self._random)
        self._manners.quiet_for(quiet_s, self._clock.monotonic_s())
        if self._witnessing:
            self._witnessing.first_after_s = quiet_s

    async def show_last(self) -> None:
        """Show the store the log a last time, where it signs. Raises what it answered."""
        if self._witnessing:
            with self.boundary.within():
                await self._witnessing.show_last()

    @property
    def store(self) -> StoreId:
        """The store's id."""
        return self.outlet.store

    def out_for_s(self) -> float:
        """For how many seconds the store has been out of reach; 0 where it is not."""
        return max(self._manners.out_for_s(self._clock.monotonic_s()), self.boundary.out_for_s())

    @property
    def is_out(self) -> bool:
        """Whether the store is out of reach, or stopped."""
        return self._manners.is_out or self.boundary.out_for_s() > 0

    def nudge(self) -> None:
        """Something changed: there may be work, or the store may be back. Waits are cut short, except bidden ones."""
        self._manners.hasten()
        self._attempts.hasten(self._backoff)
        self._changed.set()

    def try_again(self) -> None:
        """What may have stopped the store, or held its clips, may be mended: nothing waits any longer."""
        self._attempts.settle()
        self.boundary.try_again()
        self.nudge()

    def witness_soon(self) -> None:
        """Show the newest checkpoint to the store as soon as it can be."""
        if self._witnessing:
            self._witnessing.soon()

    def status(self, *, standing_in: bool = False) -> StoreStatus:
        """The store as it was last seen."""
        if self.trust.alarms:
            state, note = "untrusted", self.trust.alarms[0]
        elif self.boundary.alarm:
            state, note = "stopped", self.boundary.alarm
        elif self._absent:
            state, note = "lacking" if self._lacks else "unreachable", self._note
        else:
            state = "reachable" if self._seen else "unknown"
            note = next(iter(self.agreement.alarms), self._note)
        waiting, waiting_bytes = self._waiting
        return StoreStatus(
            name=self._policy.name(self.store),
            store=self.store,
            state=state,
            note=note,
            counts=self._policy.counts(self.store),
            waiting=waiting,
            waiting_bytes=waiting_bytes,
            standing_in=standing_in,
            at_once=self._manners.limit,
            looked_at=self.told.at if self.told else None,
            looked=self.told.looking if self.told else None,
            looked_note=sentence(self.told, signs=bool(self._witnessing)),
            spread_left_s=math.ceil(self._manners.spread_left_s(self._clock.monotonic_s())),
            held="; ".join(self._verdict.held),
        )

    @property
    def _verdict(self) -> Verdict:
        """What its word is worth, by what is known of it: the same verdict as at the warrant."""
        return weigh(self._policy.store(self.store), self.enforced.findings, signs=self.outlet.signing is not None)

    def progress(self, acquisition: AcquisitionId) -> int:
        """Bytes of an acquisition sent so far, as far as this life of the program knows; 0 once it is stored."""
        return self._attempts.progress(acquisition)

    def rate(self, acquisition: AcquisitionId | None = None) -> int:
        """Bytes a second of one upload, or of all, over the last seconds."""
        return self._attempts.rate_bytes_s(acquisition, self._clock.monotonic_s())

    @property
    def witnessed(self) -> int:
        """Custody entries under the newest checkpoint that the store cosigned."""
        return self._witnessing.size if self._witnessing else 0

    @property
    def told(self) -> Known | None:
        """What the store last said of how much it looked at again; None where it never did."""
        return self._witnessing.told.known if self._witnessing else None

    @property
    def alarms(self) -> tuple[str, ...]:
        """What contradicts itself: nothing may be erased while there is any."""
        return self.trust.alarms

    def _row(self) -> Row:
        """For one task that asks the store beside the uploads."""
        return Row(random=self._random, backoff=self._backoff, budget=self._manners.budget)

    # --- uploads

    async def _work(self, row: Acquisition) -> None:
        try:
            with self._pacing.serving(urgent=is_flagged(row)):
                await self._attend(row)
        except Exception:
            # Once the store is tried again the others come first, and this one ever more seldom: it may be the cause.
            attempt = self._attempts.of(row.acquisition)
            self._hold(attempt, min(MAX_HOLD_S, self._backoff.cap_s * 2.0 ** min(attempt.pause.failures, 10)))
            raise
        finally:
            self._attempts.end(row.acquisition)
            self._places.leave()
            self._changed.set()  # what was just sent may be due again later

    async def _next(self) -> Acquisition:
        """The next acquisition to send, entered as active, with a place taken for it."""
        while True:
            self._changed.clear()
            row, left_s = await self._choose()
            if row is not None:
                return row
            await pause(self._clock, left_s, self._changed)

    async def _choose(self) -> tuple[Acquisition | None, float | None]:
        """Begin with the next one that may; else how long until another look is worth it, None for unknown."""
        left_s = self._left_s(flagged=True)
        if left_s != 0.0:
            self._places.withdraw(self.store)
            return None, left_s
        ordinary_s = self._left_s(flagged=False)
        choice, due_s = await self._pick(flagged_only=ordinary_s != 0.0)
        if choice is None or self.agreement.holds:
            self._places.withdraw(self.store)
            return None, min((one for one in (due_s, ordinary_s) if one), default=None)
        row = choice.row
        if self._left_s(flagged=is_flagged(row)) != 0.0:
            return None, 0.0  # the store was heard of while the journal was asked
        if not self._places.ask(self.store, choice.rank):
            return None, due_s
        now_s = self._clock.monotonic_s()
        attempt = self._attempts.begin(row.acquisition)
        attempt.begun = self._manners.begin(now_s, again=attempt.failed)
        attempt.in_turn = choice.in_turn and not is_flagged(row)
        self._turns.began(row.docking, now_s)
        return row, None

    def _left_s(self, *, flagged: bool) -> float | None:
        return self._manners.left_s(self._clock.monotonic_s(), under_way=len(self._attempts.active), flagged=flagged)

    async def _pick(self, *, flagged_only: bool) -> tuple[Choice | None, float | None]:
        """The first candidate that is neither active nor waiting; and how long until one that waits is due."""
        now_s = self._clock.monotonic_s()
        waits = self._attempts.waits(now_s, self._manners.retry_left_s(now_s))
        passed_over = self._attempts.active | {one for one, left_s in waits.items() if left_s > 0}
        in_turn = self.outlet.slots > 1 and not self._attempts.in_turn
        wanted = Wanted(
            store=self.store,
            passed_over=passed_over,
            turns=self._turns if in_turn else None,
            flagged_only=flagged_only,
        )

        choice, listed, self._waiting = await self._journal.read(
            lambda tx: (*choose(tx, wanted), tx.waiting(self.store))
        )
        if choice is None and not flagged_only:
            # The list is whole, so what stands on no list is done with, by whatever way.
            for gone in self._attempts.gone(listed):
                waits.pop(gone, None)
                self._forget(gone)
        return choice, min((left_s for left_s in waits.values() if left_s > 0), default=None)

    async def _attend(self, row: Acquisition) -> None:
        """Push one acquisition and draw the consequences. Raises JournalError and what is no DockdError only."""
        attempt = self._attempts.of(row.acquisition)
        log = _log.bind(acquisition=row.acquisition, bay=row.bay, camera=row.camera.serial)
        try:
            await self.enforced.known()
            await self.agreement.known()
            await self._pusher.push(row, attempt.track)
        except JournalError:
            raise  # nothing can be recorded any more: the program ends, and a restart reconciles
        except StoreUntrusted as error:
            log.error("store_untrusted", reason=str(error))  # noqa: TRY400  the sentence is for a person
            self.trust.doubt(row.acquisition, str(error))
            self._store_failed(error, attempt.begun)
            self._hold(attempt)
        except IllegalTransition as error:
            # Somebody else moved the row on meanwhile, for instance into quarantine: the journal is asked again.
            log.info("upload_overtaken", reason=str(error))
            self._hold(attempt)
        except SpoolSpoiled as error:
            log.error("spool_file_spoiled", reason=str(error))  # noqa: TRY400  as above
            await self._give_up(row, DeliveryEvent.UNSENDABLE, str(error))
        except (StoreUnsuited, StoreUnproven) as error:
            self._await_repair(row, error)
            self._hold(attempt)
        except DeliveryAwaits as error:
            log.info("delivery_awaits", reason=str(error))
            self._hold(attempt, error.wait_s)
        except DockdError as error:
            if error.disposition is Disposition.RETRY:
                log.warning("upload_deferred", reason=str(error), error=type(error).__name__)
                self._defer(attempt, error)
            else:
                log.error("upload_refused", reason=str(error))  # noqa: TRY400  as above
                await self._give_up(row, DeliveryEvent.REFUSED, str(error))
        else:
            self._answered()
            self._forget(row.acquisition)
        finally:
            self._manners.ended(attempt.begun)

    def _await_repair(self, row: Acquisition, error: StoreUnsuited | StoreUnproven) -> None:
        """Nothing is wrong with the clip, and the store is there: somebody has to mend something for all clips."""
        _log.warning("delivery_unproven", acquisition=row.acquisition, store=self.store, reason=str(error))
        self._answered()
        if isinstance(error, StoreUnsuited):
            self.agreement.doubt(error, row.acquisition)
        else:
            self._note = str(error)

    def _defer(self, attempt: Attempt, error: DockdError) -> None:
        asked_s = error.retry_after_s if isinstance(error, StoreBusy) else None
        attempt.excused = isinstance(error, StoreBusy) and error.pushed_back
        now_s = self._clock.monotonic_s()
        attempt.pause = attempt.pause.after_failure(now_s, self._random, self._backoff, retry_after_s=asked_s)
        if isinstance(error, StoreError):
            self._store_failed(error, attempt.begun)

    def _hold(self, attempt: Attempt, wait_s: float | None = None) -> None:
        """Wait so long, or the longest wait, whatever happens meanwhile."""
        attempt.excused = True
        now_s, bidden_s = self._clock.monotonic_s(), wait_s or self._backoff.cap_s
        attempt.pause = attempt.pause.after_failure(now_s, self._random, self._backoff, retry_after_s=bidden_s)

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
        self._attempts.forget(acquisition)
        self.agreement.forget(acquisition)
        self.confirmer.forget(acquisition)
        self.trust.believe(acquisition)

    # --- the store

    def _settled(self) -> None:
        """The store is believed again as it is: what was held because of it goes on now."""
        self._attempts.settle()
        self.nudge()
        self.witness_soon()

    def _answered(self) -> None:
        """The store is there: the breaker closes, and those whom only its absence held up are let go."""
        self._seen, self._absent, self._note = True, False, ""
        if self._manners.answered(self._clock.monotonic_s()):
            _log.info("store_back", store=self.store)
            self._on_reach()
            self.nudge()
            if self._witnessing:
                self._witnessing.store_back()

    def _store_failed(self, error: StoreError, begun: Begun | None = None) -> None:
        now_s = self._clock.monotonic_s()
        asked_s = error.retry_after_s if isinstance(error, StoreBusy) else None
        if isinstance(error, StoreBusy) and error.pushed_back:
            went_out = self._manners.pushed_back(now_s, begun=begun, retry_after_s=asked_s)
        else:
            went_out = self._manners.failed(now_s, begun=begun, retry_after_s=asked_s)
        self._absent, self._note = isinstance(error, StoreUnreachable), str(error)
        self._lacks = isinstance(error, StoreLacks)
        if went_out:
            _log.warning("store_held_off", store=self.store, reason=str(error))
            self._on_reach()

    def _note_progress(self, acquisition: AcquisitionId, track: Track) -> None:
        self._attempts.note(acquisition, track, self._clock.monotonic_s())
