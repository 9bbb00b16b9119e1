"""The course of one stay: list, acquire, reread, sanitise, settle; then wait for a change, and look again.

The loop asks the journal for the next thing to do, does it, and asks again: there is no other plan to lose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dockd.core.lifecycle import DOCKING, AcquisitionState, DockingEvent, DockingState, following
from dockd.errors import (
    ClipBusy,
    ClipChanged,
    ClipGone,
    ClipRefused,
    EraseFailed,
    IllegalTransition,
    ReaderDied,
    SpoolFull,
)
from dockd.keep.records import Counts
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId
from dockd.stages import clearing, condition
from dockd.stages.acquire import STRIKES, acquire
from dockd.stages.listing import Listing, fingerprint_camera, list_camera
from dockd.stages.reread import reread
from dockd.stages.stay import Stay
from dockd.station.erasing import Erasing
from dockd.station.postponed import Postponed
from dockd.station.surroundings import Surroundings

_log = structlog.get_logger()

LOOK_S = 30.0  # between looks at a camera that is ready or waits for a person

_SETTLED = (DockingState.READY, DockingState.ATTENTION)
_TRAVELLING = (AcquisitionState.FOUND, AcquisitionState.SPOOLED, AcquisitionState.UPLOADING)
_UNDELIVERED = (
    *_TRAVELLING,
    AcquisitionState.NEEDS_SPOOL,
    AcquisitionState.ACQUIRING,
    AcquisitionState.WARRANTED,
    AcquisitionState.QUARANTINED,
)


class Course:
    """Drives one stay. `state` and `note` are what status shows; whoever changes an acquisition sets `changed`."""

    def __init__(
        self, stay: Stay, around: Surroundings, postponed: Postponed, changed: asyncio.Event, forbidden: str = ""
    ) -> None:
        self.state = DockingState.LISTING
        self.note = ""
        self._stay = stay
        self._around = around
        self._postponed = postponed
        self._changed = changed
        self._listing: Listing | None = None  # None: not listed since something was erased or failed
        self._erasing = Erasing(stay, around, postponed, forbidden)
        self._looked_for: set[AcquisitionId] = set()  # those for which the camera was listed again
        self._looked_s = 0.0  # monotonic: when a settled camera was last looked at

    async def run(self) -> None:
        """Drive until cancelled.

        Raises what a new docking has to begin with: ReaderDied, CameraGone, ClipChanged or ClipGone for a clip that
        was about to be erased, EraseFailed where a medium did not take what was written; and what is fatal. All else
        is settled in here.
        """
        while True:
            self._changed.clear()
            due_s = self._due_s()
            if not await self._step():
                await self._wait(due_s)

    async def _step(self) -> bool:
        """Do the next thing. False where nothing can be done before something changes or a time comes."""
        match self.state:
            case DockingState.LISTING:
                return await self._list()
            case DockingState.ACQUIRING:
                return await self._acquire_next()
            case DockingState.DELIVERING:
                return (
                    await self._read_anew()
                    or await self._reread_next()
                    or await self._sanitise()
                    or await self._settle()
                )
            case _:
                return await self._look_again()

    # --- one step each

    async def _list(self) -> bool:
        self._listing = listing = await list_camera(self._stay)
        self._erasing.remnants = listing.remnants
        await self._advance(DockingEvent.LISTED, clips=listing.clips, others=listing.others, refused=listing.refused)
        return True

    async def _acquire_next(self) -> bool:
        row = await self._next_to_acquire()
        if row is None:
            await self._advance(DockingEvent.READ)
            return True
        try:
            await acquire(self._stay, row, self._around.recipients)
        except (ClipBusy, ClipChanged, SpoolFull) as error:
            self._postponed.later(row.acquisition, str(error))
            if isinstance(error, SpoolFull):
                self._around.spool_short()
        except ClipGone as error:
            _log.info("clip_departed", bay=self._stay.bay, acquisition=row.acquisition, reason=str(error))
        self._around.wake_uplink()
        return True

    async def _read_anew(self) -> bool:
        """Where a sealed file was lost before the store had it: find its clip again, if it is still there."""
        spoiled = await self._stay.journal.read(lambda tx: tx.spoiled(docking=self._stay.docking))
        missing = {row.acquisition for row in spoiled} - self._looked_for
        if missing:
            self._looked_for |= missing
            await self._advance(DockingEvent.RELISTING, reason="a sealed file was lost before the store had it")
        return bool(missing)

    async def _reread_next(self) -> bool:
        row = await self._pick(lambda tx, limit: tx.next_to_reread(self._stay.docking, limit=limit))
        if row is None:
            return False
        try:
            row = await self._striking(row, reread(self._stay, row))
        except ClipBusy as error:
            self._postponed.later(row.acquisition, str(error))
        except ClipRefused as error:
            self._postponed.aside(row.acquisition, str(error))
        except IllegalTransition as error:  # the store refused it meanwhile: it is in quarantine
            _log.info("second_read_overtaken", acquisition=row.acquisition, reason=str(error))
        except (ClipChanged, ClipGone) as error:
            await self._relist(row, error)
        else:
            if row.contested:
                await self._advance(DockingEvent.RELISTING, reason="two reads of a clip disagree")
        return True

    async def _sanitise(self) -> bool:
        """Erase all that may be erased by now."""
        counts = await self._stay.journal.read(lambda tx: tx.counts(self._stay.docking))
        if not await self._erasing.wanted(counts.of(*_TRAVELLING).clips):
            return False
        await self._advance(DockingEvent.SANITISING)
        self._listing = None
        try:
            await self._erasing.run()
        except IllegalTransition as error:  # a new listing tells what is what; it must not end the daemon
            raise EraseFailed(f"the journal moved on under an erasure: {error}") from error
        await self._advance(DockingEvent.SANITISED)
        self._around.witness()
        return True

    async def _clear(self, others: int) -> bool:
        """What the profile asks for once no clip is left on the camera. True where the camera has to be listed anew."""
        stay = self._stay
        note = await stay.journal.read(lambda tx: clearing.noted(tx, stay.camera.serial))
        if note is None or self._erasing.forbidden or self._around.alarms():
            return False
        await self._advance(DockingEvent.SANITISING)
        cleared = await clearing.clear(stay, note, others, self._erasing.unaccounted)
        await self._advance(DockingEvent.SANITISED, cleared="yes" if cleared else "no")
        if cleared:
            self._listing = None
        return True

    async def _settle(self) -> bool:
        """Nothing is left to do here: say what the camera is, from a listing made after the last change."""
        counts = await self._stay.journal.read(lambda tx: tx.counts(self._stay.docking))
        waiting = self._postponed.next_due_s() is not None or self._erasing.due_s is not None
        if waiting or counts.of(*_TRAVELLING).clips:
            if await self._next_to_acquire() is not None:
                await self._advance(DockingEvent.RELISTING, reason="a clip that had to wait is tried again")
                return True
            self.note = next(iter(self._postponed.reasons().values()), "")
            return False
        if self._listing is None:
            await self._advance(DockingEvent.RELISTING, reason="to look at the camera again")
            return True
        if self._listing.empty and await self._clear(self._listing.others):
            return True
        self._looked_s = self._stay.clock.monotonic_s()
        await self._say_what_it_is(self._listing, counts)
        self._around.witness()
        return True

    async def _say_what_it_is(self, listing: Listing, counts: Counts) -> None:
        stay = self._stay
        if listing.empty and not self._erasing.forbidden:
            if stay.unclean:
                await stay.journal.write(lambda tx: condition.seen_empty(tx, stay.camera))
            await self._advance(DockingEvent.EMPTY, others=listing.others)
            self.note = f"left alone, as no clips: {listing.others}" if listing.others else ""
        elif self._erasing.keeps and not (listing.refused or listing.remnants or counts.of(*_UNDELIVERED).clips):
            await self._advance(DockingEvent.DELIVERED, clips=listing.clips, others=listing.others)
            self.note = f"stored, and still on the camera, from which nothing is erased: {listing.clips} clips"
        else:
            await self._advance(DockingEvent.NEEDS_PERSON, clips=listing.clips, refused=listing.refused)
            self.note = self._what_is_left(listing, counts)

    async def _look_again(self) -> bool:
        """A settled camera: is there something new to do, or something new on it?"""
        stay, now_s = self._stay, self._stay.clock.monotonic_s()
        if await self._read_anew():
            return True
        if (
            await self._next_to_acquire()
            or await self._pick(lambda tx, limit: tx.next_to_reread(stay.docking, limit=limit))
            or await self._erasing.next()
        ):
            await self._advance(DockingEvent.RELISTING, reason="something changed")
            return True
        if now_s - self._looked_s < LOOK_S:
            return False
        self._looked_s = now_s
        if self._listing is None or await fingerprint_camera(stay) != self._listing.fingerprint:
            await self._advance(DockingEvent.RELISTING, reason="the camera's listing changed")
            return True
        return False

    # --- how

    async def _next_to_acquire(self) -> Acquisition | None:
        return await self._pick(lambda tx, limit: tx.next_in(self._stay.docking, AcquisitionState.FOUND, limit=limit))

    async def _pick(self, query: Callable[[Tx, int], list[Acquisition]]) -> Acquisition | None:
        """The first row of a query that is not postponed."""
        rows = await self._stay.journal.read(lambda tx: query(tx, len(self._postponed) + 1))
        return next((row for row in rows if row.acquisition not in self._postponed), None)

    async def _striking(self, row: Acquisition, step: Awaitable[Acquisition]) -> Acquisition:
        """A step whose reader may die: two such deaths, and the clip is left for a person."""
        try:
            return await step
        except ReaderDied as error:
            if self._postponed.strike(row.acquisition) >= STRIKES:
                why = f"it ended {STRIKES} readers, the last one: {error}"
                self._postponed.aside(row.acquisition, why, resists=True)
            raise

    async def _relist(self, row: Acquisition, error: Exception) -> None:
        """Look at the camera again; a clip that is no longer the one that was read is then left alone as it is."""
        if row.acquisition in self._looked_for:
            self._postponed.aside(row.acquisition, f"{error}; what was read of it is kept")
            return
        self._looked_for.add(row.acquisition)
        self._postponed.later(row.acquisition, str(error))
        await self._advance(DockingEvent.RELISTING, reason=str(error))

    async def _advance(self, event: DockingEvent, **details: object) -> None:
        stay = self._stay
        await stay.journal.write(lambda tx: tx.advance_docking(stay.docking, event, details))
        self.state = following(DOCKING, self.state, event)
        self.note = ""
        _log.info("docking_moved", bay=stay.bay, camera=stay.camera.serial, state=self.state.value, **details)

    def _what_is_left(self, listing: Listing, counts: Counts) -> str:
        parts = []
        too_large = counts.of(AcquisitionState.NEEDS_SPOOL).clips
        if too_large:
            parts.append(f"clips that need a larger spool than there is (needs_spool): {too_large}")
        to_decide = listing.clips + len(listing.remnants) - too_large
        if to_decide > 0:
            parts.append(f"clips for a person to decide on: {to_decide}")
        if resisting := self._postponed.resisting():
            parts.append(f"clips that cannot be read or erased: {resisting}, have the camera examined")
        if listing.refused:
            parts.append(f"entries that were not looked into: {listing.refused}")
        why = self._erasing.forbidden or next(iter(self._around.alarms()), "")
        alarm = f"nothing is erased: {why}; " if why else ""
        return f"{alarm}{', '.join(parts)} (`dockd clips --camera {self._stay.camera.serial}` lists them)"

    def _due_s(self) -> float | None:
        """When, on the monotonic clock, the next thing has to be tried or looked at. None: nothing comes by itself."""
        settled_s = self._looked_s + LOOK_S if self.state in _SETTLED else None
        times = (self._postponed.next_due_s(), self._erasing.due_s, settled_s)
        return min((time_s for time_s in times if time_s is not None), default=None)

    async def _wait(self, expected_s: float | None) -> None:
        """Until something changed or the next time comes; `expected_s` was it before the last step.

        What came due while that step was being done was not seen by it, and is nothing to wait for any more.
        """
        times = (expected_s, self._due_s())
        due_s = min((time_s for time_s in times if time_s is not None), default=None)
        if due_s is None:
            await self._changed.wait()
            return
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._set_at(due_s))
            await self._changed.wait()
            timer.cancel()

    async def _set_at(self, due_s: float) -> None:
        await self._stay.clock.sleep(max(0.0, due_s - self._stay.clock.monotonic_s()))
        self._changed.set()
