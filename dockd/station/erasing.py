"""What of a stay may be erased, and when: clip by clip, or together, where the volumes are mounted anew for it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from dockd.core.lifecycle import AcquisitionState
from dockd.core.profile import EraseMethod
from dockd.errors import (
    ClipBusy,
    ClipChanged,
    ClipGone,
    ClipRefused,
    DockdError,
    EraseFailed,
    IllegalTransition,
    ReaderDied,
    StoreError,
    StoreUntrusted,
    VerificationFailed,
    WarrantRefused,
)
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, DockingId, FoundFile, MediumKind, Role
from dockd.stages.acquire import STRIKES
from dockd.stages.batch import Batch
from dockd.stages.listing import Remnant
from dockd.stages.sanitise import Permit, commit, permit, sanitise
from dockd.stages.stay import Stay
from dockd.station.postponed import Postponed
from dockd.station.surroundings import Surroundings

_log = structlog.get_logger()

PATIENCE_S = 60.0  # that a batch waits for clips that still travel: one stuck upload does not hold the rest for ever
GATHER_S = 120.0  # that the warrants of one batch may take: the first is still fresh when the last is there
GATHER_CLIPS = 1000
SPARE = timedelta(minutes=1)  # that a warrant has to stand yet, so that its batch can be made durable

_APART = "what belongs to it was not erased, and the two are erased together or not at all"

_T = TypeVar("_T")
_Group = list[tuple[Acquisition, FoundFile | None]]  # a clip with its sidecars, or what is left of one file


class Erasing:
    """Erases for one course. `remnants` are of its newest listing."""

    def __init__(self, stay: Stay, around: Surroundings, postponed: Postponed, forbidden: str) -> None:
        self.remnants: tuple[Remnant, ...] = ()
        self.due_s: float | None = None  # monotonic: when a batch begins even though clips still travel
        self.unaccounted: str | None = None  # what the newest batch's plan said of all other blocks; None: no batch
        self.forbidden = forbidden  # why nothing is erased in this stay, whatever it holds
        self._stay = stay
        self._around = around
        self._postponed = postponed
        self._together = stay.attachment.medium.kind is MediumKind.VOLUMES
        self.keeps = stay.attachment.profile.erase is EraseMethod.NONE

    async def next(self) -> tuple[Acquisition, FoundFile | None] | None:
        """What may be erased next: first the remnants of interrupted erasures, with their files."""
        return next(iter(await self._candidates(1)), None)

    async def wanted(self, travelling: int) -> bool:
        """Whether to begin now. For volumes not while clips of the camera still travel, but for a while at most."""
        if await self.next() is None:
            self.due_s = None
            return False
        if not self._together:
            return True
        now_s = self._stay.clock.monotonic_s()
        if self.due_s is None:
            self.due_s = now_s + PATIENCE_S
        if now_s < self.due_s and (travelling or self._postponed.next_due_s() is not None):
            return False
        self.due_s = None
        return True

    async def run(self) -> None:
        """Erase all that may be erased by now, for volumes as many as one batch takes.

        What of it speaks against one clip only is noted in `postponed`. Raises what a new docking has to begin with:
        ReaderDied, CameraGone; ClipChanged or ClipGone for a clip that was about to be erased; EraseFailed where the
        medium did not take what was written.
        """
        if self._together:
            await self._run_together()
            return
        while groups := await self._groups(1):
            await self._run_one_by_one(groups[0])

    # --- one by one

    async def _run_one_by_one(self, group: _Group) -> None:
        stay, permits = self._stay, await self._permits(group)
        if not permits or self._around.alarms():
            return
        if len(permits) > 1:  # none of a family is touched where another, in use for instance, would have to stay
            for one in permits:
                if not await self._succeeds(one, stay.reader.check(one.warrant)):
                    return
        try:
            await commit(stay, permits)
        except WarrantRefused as error:
            self._try_later(permits, error)
            return
        for number, one in enumerate(permits):
            if not await self._succeeds(one, sanitise(stay, permits[number:])):
                return

    async def _succeeds(self, one: Permit, step: Awaitable[None]) -> bool:
        """Whether it does; if not, what speaks against this one is noted. Raises what a new docking begins with."""
        try:
            await self._striking(one.row, step)
        except (ClipChanged, ClipGone) as error:
            self._strike(one.row, error)
            raise
        except DockdError as error:
            self._hold_back(one.row, error)
            return False
        return True

    # --- together

    async def _run_together(self) -> None:
        permits = await self._gather()
        if not permits:
            return
        batch = Batch(self._stay, permits)
        await self._plan(batch)
        if not batch.permits:
            return
        try:
            await batch.begin()
        except WarrantRefused as error:
            self._try_later(batch.permits, error)
            return
        changed = await self._erase_each(batch)
        await batch.finish()
        self.unaccounted = batch.unaccounted
        if changed is not None:  # what was read a second time is not what was there: only a new docking may go on
            raise changed

    async def _erase_each(self, batch: Batch) -> ClipChanged | ClipGone | None:
        """Erase what was permitted; returns why a new docking has to begin, if it has."""
        changed: ClipChanged | ClipGone | None = None
        spared: set[AcquisitionId] = set()  # clips of which, or of whose sidecars, something was not erased
        for one in batch.permits:
            if _clip(one) in spared:
                await batch.spare(one, _APART)
                continue
            spared.add(_clip(one))
            try:
                await self._striking(one.row, batch.erase(one))
            except (ClipChanged, ClipGone) as error:
                self._strike(one.row, error)
                changed = error
            except (ClipBusy, ClipRefused, EraseFailed) as error:
                self._hold_back(one.row, error)
            else:
                spared.discard(_clip(one))
        return changed

    async def _plan(self, batch: Batch) -> None:
        """What must not be erased, as it could not be verified or might change something else, is set aside.

        With a clip, its sidecars stay, and with one of those, the clip.
        """
        permits = batch.permits
        try:
            left_out = dict(await batch.plan())
        except EraseFailed as error:
            left_out = {one.row.acquisition: str(error) for one in batch.permits}
            batch.permits = ()
        apart = {_clip(one) for one in permits if one.row.acquisition in left_out and one.remnant is None}
        batch.permits = tuple(one for one in batch.permits if one.remnant is not None or _clip(one) not in apart)
        for name, why in left_out.items():
            _log.warning("clip_not_erased", bay=self._stay.bay, acquisition=name, reason=why)
            self._postponed.aside(name, why)

    async def _gather(self) -> list[Permit]:
        """Warrants for as many as can be had in time, none of them recorded yet."""
        begun_s = self._stay.clock.monotonic_s()
        gathered: list[list[Permit]] = []
        for group in await self._groups(GATHER_CLIPS):
            if self._stay.clock.monotonic_s() - begun_s > GATHER_S:
                break
            gathered.append(await self._permits(group))
        return [] if self._around.alarms() else standing(gathered, self._stay.clock.now())

    # --- how

    async def _permits(self, group: _Group) -> list[Permit]:
        """A permit for each of them, or none at all: what speaks against one of them is noted, and keeps them all."""
        around, permits = self._around, []
        for row, remnant in group:
            try:
                permits.append(await permit(self._stay, row, around.asking, remnant=remnant))
            except WarrantRefused as error:  # of the others it is to be known as well: a person may have to decide
                self._hold_back(row, error)
            except (StoreError, VerificationFailed) as error:
                self._hold_back(row, error)
                break
        return permits if len(permits) == len(group) else []

    async def _candidates(self, limit: int) -> Sequence[tuple[Acquisition, FoundFile | None]]:
        return [one for group in await self._groups(limit) for one in group]

    async def _groups(self, limit: int) -> Sequence[_Group]:
        """What may be erased, each clip with its sidecars: as many as hold `limit` files, and the last one whole."""
        if self.forbidden or self.keeps or self._around.alarms():
            return ()
        found: list[_Group] = []
        for remnant in self.remnants:
            if len(found) == limit:
                return found
            row = await self._stay.journal.read(lambda tx, name=remnant.acquisition: tx.acquisition(name))  # type: ignore[misc]
            if row and row.state == AcquisitionState.WARRANTED and row.acquisition not in self._postponed:
                found.append([(row, remnant.file)])
        left, postponed, docking = limit - len(found), frozenset(self._postponed.reasons()), self._stay.docking
        return found + await self._stay.journal.read(lambda tx: _stored(tx, docking, postponed, left))

    async def _striking(self, row: Acquisition, step: Awaitable[_T]) -> _T:
        try:
            return await step
        except ReaderDied as error:
            if self._postponed.strike(row.acquisition) >= STRIKES:
                why = f"it ended {STRIKES} readers, the last one: {error}"
                self._postponed.aside(row.acquisition, why, resists=True)
            raise

    def _strike(self, row: Acquisition, error: ClipChanged | ClipGone) -> None:
        if self._postponed.strike(row.acquisition) >= STRIKES:
            self._postponed.aside(row.acquisition, str(error))

    def _try_later(self, permits: Sequence[Permit], error: WarrantRefused) -> None:
        """One of them moved on since its permit was given, or took too long: none was touched."""
        for one in permits:
            self._postponed.later(one.row.acquisition, str(error))

    def _hold_back(self, row: Acquisition, error: DockdError) -> None:
        """What speaks against one clip. Anything else is raised again."""
        match error:
            case StoreUntrusted():
                _log.error("store_untrusted", acquisition=row.acquisition, reason=str(error))
                self._postponed.later(row.acquisition, str(error))
            case ClipBusy() | StoreError():
                self._postponed.later(row.acquisition, str(error))
            case WarrantRefused() | EraseFailed() | ClipRefused() | VerificationFailed() | IllegalTransition():
                _log.warning("clip_not_erased", bay=self._stay.bay, acquisition=row.acquisition, reason=str(error))
                self._postponed.aside(row.acquisition, str(error), resists=isinstance(error, EraseFailed))
            case _:
                raise error


def standing(gathered: Sequence[Sequence[Permit]], now: datetime) -> list[Permit]:
    """Those of a batch whose warrants stand for a while yet, each clip with its sidecars or not at all.

    A store may have been read for long since the first of them was asked for. What is left out is asked for again in
    the next batch: one of which any part is too old would be refused whole, again and again.
    """
    return [one for permits in gathered if all(now + SPARE < one.warrant.until for one in permits) for one in permits]


def _stored(tx: Tx, docking: DockingId, postponed: frozenset[AcquisitionId], limit: int) -> list[_Group]:
    """Groups of which nothing is postponed. Of those that are, rows are picked in vain: then more are asked for.

    The clip goes before its sidecars: as long as it resists, none of them was touched.
    """
    asked = limit + len(postponed)
    while limit > 0:
        rows = tx.next_to_erase(docking, limit=asked)
        found: list[_Group] = []
        seen: set[AcquisitionId] = set()
        for row in rows:
            if len(seen) >= limit:
                return found
            group = [row, *(one for one in tx.companions(row) if one.state == AcquisitionState.STORED)]
            if row.acquisition not in seen and not any(one.acquisition in postponed for one in group):
                group.sort(key=lambda one: one.role is Role.SIDECAR)
                found.append([(one, None) for one in group])
                seen.update(one.acquisition for one in group)
        if len(rows) < asked:
            return found
        asked *= 2
    return []


def _clip(permit: Permit) -> AcquisitionId:
    """Names the group; what is left of an interrupted erasure is one of its own."""
    row = permit.row
    return row.acquisition if permit.remnant else row.of or row.acquisition
