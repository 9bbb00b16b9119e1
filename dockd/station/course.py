"""The course of one stay: list, acquire, reread, sanitise, settle; then wait for a change, and look again.

The loop asks the journal for the next thing to do, does it, and asks again: there is no other plan to lose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

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
    StoreError,
    VerificationFailed,
    WarrantRefused,
)
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, FoundFile
from dockd.stages.acquire import STRIKES, acquire
from dockd.stages.listing import Listing, Remnant, fingerprint_camera, list_camera
from dockd.stages.reread import reread
from dockd.stages.sanitise import finish_erasing, sanitise
from dockd.stages.stay import Stay
from dockd.station.postponed import Postponed
from dockd.stores.port import EvidenceStore

_log = structlog.get_logger()

LOOK_S = 30.0  # between looks at a camera that is ready or waits for a person

_SETTLED = (DockingState.READY, DockingState.ATTENTION)
_TRAVELLING = (AcquisitionState.FOUND, AcquisitionState.SPOOLED, AcquisitionState.UPLOADING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a course needs of its station. The calls do not wait."""

    store: EvidenceStore
    min_retention: timedelta
    recipients: int
    wake_uplink: Callable[[], None]
    witness: Callable[[], None]
    spool_short: Callable[[], None]
    alarms: Callable[[], tuple[str, ...]]  # while the store contradicts itself, nothing is erased


class Course:
    """Drives one stay. `state` and `note` are what status shows; whoever changes an acquisition sets `changed`."""

    def __init__(self, stay: Stay, around: Surroundings, postponed: Postponed, changed: asyncio.Event) -> None:
        self.state = DockingState.LISTING
        self.note = ""
        self._stay = stay
        self._around = around
        self._postponed = postponed
        self._changed = changed
        self._listing: Listing | None = None  # None: not listed since something was erased or failed
        self._remnants: tuple[Remnant, ...] = ()
        self._looked_s = 0.0  # monotonic: when a settled camera was last looked at

    async def run(self) -> None:
        """Drive until cancelled.

        Raises what a new docking has to begin with: ReaderDied, CameraGone, ClipChanged or ClipGone for a clip that
        was about to be erased; and what is fatal. All else is settled in here.
        """
        while True:
            self._changed.clear()
            if not await self._step():
                await self._wait()

    async def _step(self) -> bool:
        """Do the next thing. False where nothing can be done before something changes or a time comes."""
        match self.state:
            case DockingState.LISTING:
                return await self._list()
            case DockingState.ACQUIRING:
                return await self._acquire_next()
            case DockingState.DELIVERING:
                return await self._reread_next() or await self._sanitise() or await self._settle()
            case _:
                return await self._look_again()

    # --- one step each

    async def _list(self) -> bool:
        self._listing = listing = await list_camera(self._stay)
        self._remnants = listing.remnants
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
        """Erase, one by one, all that may be erased by now."""
        if await self._next_to_erase() is None:
            return False
        await self._advance(DockingEvent.SANITISING)
        while (erasure := await self._next_to_erase()) is not None:
            row, remnant = erasure
            try:
                await self._striking(row, self._erase(row, remnant))
            except (ClipBusy, StoreError) as error:
                self._postponed.later(row.acquisition, str(error))
            except (WarrantRefused, EraseFailed, ClipRefused, VerificationFailed) as error:
                _log.warning("clip_not_erased", bay=self._stay.bay, acquisition=row.acquisition, reason=str(error))
                self._postponed.aside(row.acquisition, str(error))
            except (ClipChanged, ClipGone) as error:
                # What was read a second time is not what is there now: only a new docking may go on with this camera.
                if self._postponed.strike(row.acquisition) >= STRIKES:
                    self._postponed.aside(row.acquisition, str(error))
                raise
        await self._advance(DockingEvent.SANITISED)
        self._around.witness()
        return True

    async def _settle(self) -> bool:
        """Nothing is left to do here: say what the camera is, from a listing made after the last change."""
        counts = await self._stay.journal.read(lambda tx: tx.counts(self._stay.docking))
        waiting = self._postponed.next_due_s() is not None
        if waiting or counts.of(*_TRAVELLING).clips:
            if await self._next_to_acquire() is not None:
                await self._advance(DockingEvent.RELISTING, reason="a clip that had to wait is tried again")
                return True
            self.note = next(iter(self._postponed.reasons().values()), "")
            return False
        if self._listing is None:
            await self._advance(DockingEvent.RELISTING, reason="to look at the camera again")
            return True
        self._looked_s = self._stay.clock.monotonic_s()
        if self._listing.empty:
            await self._advance(DockingEvent.EMPTY, others=self._listing.others)
            self.note = f"left alone, as no clips: {self._listing.others}" if self._listing.others else ""
        else:
            await self._advance(DockingEvent.NEEDS_PERSON, clips=self._listing.clips, refused=self._listing.refused)
            self.note = self._what_is_left(self._listing)
        self._around.witness()
        return True

    async def _look_again(self) -> bool:
        """A settled camera: is there something new to do, or something new on it?"""
        stay, now_s = self._stay, self._stay.clock.monotonic_s()
        if (
            await self._next_to_acquire()
            or await self._pick(lambda tx, limit: tx.next_to_reread(stay.docking, limit=limit))
            or await self._next_to_erase()
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

    async def _erase(self, row: Acquisition, remnant: FoundFile | None) -> Acquisition:
        self._listing = None
        store, min_retention = self._around.store, self._around.min_retention
        if remnant is None:
            return await sanitise(self._stay, row, store, min_retention)
        return await finish_erasing(self._stay, row, remnant, store, min_retention)

    async def _next_to_acquire(self) -> Acquisition | None:
        return await self._pick(lambda tx, limit: tx.next_in(self._stay.docking, AcquisitionState.FOUND, limit=limit))

    async def _next_to_erase(self) -> tuple[Acquisition, FoundFile | None] | None:
        """What may be erased next: first the remnants of interrupted erasures, with their files."""
        if self._around.alarms():
            return None
        for remnant in self._remnants:
            row = await self._stay.journal.read(lambda tx, name=remnant.acquisition: tx.acquisition(name))  # type: ignore[misc]
            if row and row.state == AcquisitionState.WARRANTED and row.acquisition not in self._postponed:
                return row, remnant.file
        row = await self._pick(lambda tx, limit: tx.next_to_erase(self._stay.docking, limit=limit))
        return (row, None) if row else None

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
                self._postponed.aside(row.acquisition, f"it ended {STRIKES} readers, the last one: {error}")
            raise

    async def _relist(self, row: Acquisition, error: Exception) -> None:
        self._postponed.later(row.acquisition, str(error))
        await self._advance(DockingEvent.RELISTING, reason=str(error))

    async def _advance(self, event: DockingEvent, **details: object) -> None:
        stay = self._stay
        await stay.journal.write(lambda tx: tx.advance_docking(stay.docking, event, details))
        self.state = following(DOCKING, self.state, event)
        self.note = ""
        _log.info("docking_moved", bay=stay.bay, camera=stay.camera.serial, state=self.state.value, **details)

    def _what_is_left(self, listing: Listing) -> str:
        parts = []
        if listing.clips or listing.remnants:
            parts.append(f"clips for a person to decide on: {listing.clips + len(listing.remnants)}")
        if listing.refused:
            parts.append(f"entries that were not looked into: {listing.refused}")
        alarm = "".join(f"nothing is erased: {one}; " for one in self._around.alarms()[:1])
        return f"{alarm}{', '.join(parts)} (`dockd clips --camera {self._stay.camera.serial}` lists them)"

    async def _wait(self) -> None:
        """Until something changed or the next time comes."""
        due_s = self._postponed.next_due_s()
        if self.state in _SETTLED:
            due_s = min(due_s or self._looked_s + LOOK_S, self._looked_s + LOOK_S)
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
