"""List: bring the journal in line with what is on the camera. Every file found gets a named state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from dockd.core.ids import uuid7
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState
from dockd.core.marker import MARKER_NAME
from dockd.core.remnants import remnant_of
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, FileKind, FoundFile, ListedFile, MediumKind, Role
from dockd.stages import condition
from dockd.stages.named import named
from dockd.stages.outlived import why_outlived
from dockd.stages.stay import Stay

CONTESTED_LIMIT = 2  # acquisitions of one path whose second read disagreed, and a person has to look

_PAGE = 500
_GONE = (AcquisitionState.ERASED, AcquisitionState.DEPARTED, AcquisitionState.SPOILED)
_WAITING = (AcquisitionState.FOUND, AcquisitionState.NEEDS_SPOOL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remnant:
    """What an interrupted erasure left on the camera, under the name that the reader gave it."""

    acquisition: AcquisitionId
    file: FoundFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one complete listing found. `clips` and sidecars are to be read, pushed or erased; `others` stay."""

    clips: int  # with the sidecars
    others: int
    refused: int  # entries that could not be listed, are neither file nor directory, or are what nobody may erase
    remnants: tuple[Remnant, ...]
    fingerprint: int  # equal for two listings that saw the same entries, in whatever order

    @property
    def empty(self) -> bool:
        """Whether no clip, and nothing that might hide one, is left."""
        return not (self.clips or self.refused or self.remnants)


async def list_camera(stay: Stay) -> Listing:
    """List the whole camera and reconcile the journal with it, batch by batch.

    A clip known from an earlier docking is seen again, never registered twice; what was there before and is not
    any more has departed, or, under a durable warrant, is erased; that is concluded only where every entry could be
    looked into. Idempotent. Raises ReaderDied, CameraGone. After cancellation the journal holds some of the batches;
    the next listing makes it whole.
    """
    counts = dict.fromkeys(FileKind, 0)
    remnants: list[Remnant] = []
    strays = 0
    fingerprint = 0
    await stay.journal.write(lambda tx: tx.clear_files(stay.docking))
    async for batch in stay.reader.list():
        found = [listed for listed in batch if listed.file.path != MARKER_NAME]  # the camera's own, not a finding
        for listed in found:
            counts[listed.kind] += 1
            fingerprint = _mix(fingerprint, listed)
        reconciled = await stay.journal.write(partial(_reconcile, stay=stay, batch=found))
        remnants += reconciled.remnants
        strays += reconciled.strays
    await _pair(stay)
    if not counts[FileKind.REFUSED]:  # else what was not shown may lie in what could not be looked into
        await stay.journal.write(lambda tx: _close(tx, stay, {remnant.acquisition for remnant in remnants}))
    return Listing(
        clips=counts[FileKind.CLIP] + counts[FileKind.SIDECAR],
        others=counts[FileKind.OTHER] - len(remnants) - strays,
        refused=counts[FileKind.REFUSED] + strays,
        remnants=tuple(remnants),
        fingerprint=fingerprint,
    )


async def fingerprint_camera(stay: Stay) -> int:
    """List the camera without recording anything: the fingerprint that such a listing would have."""
    fingerprint = 0
    async for batch in stay.reader.list():
        for listed in batch:
            if listed.file.path != MARKER_NAME:
                fingerprint = _mix(fingerprint, listed)
    return fingerprint


def _mix(fingerprint: int, listed: ListedFile) -> int:
    """Add an entry; a sum does not care for the order in which a file system lists."""
    entry = hashlib.sha256(repr((listed.kind.value, listed.file)).encode()).digest()
    return (fingerprint + int.from_bytes(entry, "big")) % 2**256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reconciled:
    remnants: list[Remnant]
    strays: int  # remnants that no warrant covers: part of a clip, or all of it, so not just any other file


def _reconcile(tx: Tx, *, stay: Stay, batch: list[ListedFile]) -> _Reconciled:
    remnants: list[Remnant] = []
    strays = 0
    for listed in batch:
        if listed.kind in (FileKind.CLIP, FileKind.SIDECAR):
            _reconcile_clip(tx, stay, listed)
            continue
        name = remnant_of(listed.file.path)
        row = tx.acquisition(name) if name else None
        if row and row.state == AcquisitionState.WARRANTED and row.camera == stay.camera:
            condition.seen_again(tx, row.acquisition)
            remnants.append(Remnant(acquisition=row.acquisition, file=listed.file))
            continue
        if row and row.camera == stay.camera:
            strays += 1
            why = f"what is left of {row.acquisition}, which no warrant covers: it is {row.state}"
            tx.note_file(stay.docking, replace(listed, kind=FileKind.REFUSED, reason=why))
        else:
            tx.note_file(stay.docking, listed)
    return _Reconciled(remnants=remnants, strays=strays)


def _reconcile_clip(tx: Tx, stay: Stay, listed: ListedFile) -> None:
    file = listed.file
    known = tx.find_clip(stay.camera.serial, stay.camera.volume_id, file.path, file.size_bytes, file.mtime_ns)
    if known is None:
        _find(tx, stay, listed)
    elif over := _outlived(tx, stay, known):
        tx.record_about(known, "acquisition.outlived", {"reason": over})
        _find(tx, stay, listed)
    elif known.docking != stay.docking or known.file != file or known.state == AcquisitionState.DEPARTED:
        if known.state == AcquisitionState.WARRANTED:
            why = {"reason": "the clip is still on the camera, untouched, in a new docking"}
            condition.seen_again(tx, known.acquisition)
            tx.advance(known.acquisition, AcquisitionEvent.LAPSED, details=why)
        tx.advance(
            known.acquisition,
            AcquisitionEvent.SEEN_AGAIN,
            details={"docking_before": known.docking},
            docking=stay.docking,
            bay=stay.bay,
            file=file,
        )


def _outlived(tx: Tx, stay: Stay, known: Acquisition) -> str:
    """Why a clip that is stored is read and sent once more, in a new docking: what was promised of it is over."""
    if known.state != AcquisitionState.STORED or known.docking == stay.docking:
        return ""
    return why_outlived(tx, known, stay.clock.now())


async def _pair(stay: Stay) -> None:
    """Tie each sidecar to its clip, now that all are known. One that is alone stays so: it is evidence like another."""
    after: AcquisitionId | None = None

    def page(tx: Tx) -> AcquisitionId | None:
        rows = tx.sidecars(stay.docking, limit=_PAGE, after=after)
        for row in rows:
            clip = tx.clip_beside(row)
            if clip is not None and clip.acquisition != row.of and row.state not in _GONE:
                tx.pair(row.acquisition, clip)
        return rows[-1].acquisition if rows else None

    while await stay.journal.read(lambda tx: tx.sidecars(stay.docking, limit=1, after=after)):  # noqa: B023 - read here
        after = await stay.journal.write(page)


def _find(tx: Tx, stay: Stay, listed: ListedFile) -> None:
    file, profile = listed.file, stay.attachment.profile
    read_by_profile = bool(profile.matches)
    for stale in tx.find_path(stay.camera.serial, stay.camera.volume_id, file.path):
        if stale.state in _WAITING:
            why = {"reason": "a file of other size or time stands in its place"}
            tx.advance(stale.acquisition, AcquisitionEvent.DEPARTED, details=why)
    added = tx.add_acquisition(
        Acquisition(
            acquisition=AcquisitionId(uuid7(stay.clock.now(), stay.random(10))),
            state=AcquisitionState.FOUND,
            docking=stay.docking,
            bay=stay.bay,
            camera=stay.camera,
            file=file,
            category=listed.category,
            category_reason=listed.reason,
            found_at=stay.clock.now(),
            role=Role.SIDECAR if listed.kind is FileKind.SIDECAR else Role.CLIP,
            profile=profile.name if read_by_profile else "",
            profile_version=profile.version if read_by_profile else 0,
            named=named(profile.names, file.path),
        ),
    )
    if tx.count_contested(stay.camera, file.path) >= CONTESTED_LIMIT:
        reason = "its reads disagree again and again: the camera's memory is failing, have it examined"
        details = {"reason": reason}
        tx.advance(added.acquisition, AcquisitionEvent.QUARANTINED, details=details, quarantine_reason=reason)


def _close(tx: Tx, stay: Stay, remnants: set[AcquisitionId]) -> None:
    """What the complete listing did not show is not on the camera.

    The mount that it was listed on is of this docking, and a clip's name goes only after its zeros are durable: so a
    clip under a warrant is erased, unless the look at its old blocks said otherwise.
    """
    for row in (row for state in _WAITING for row in _elsewhere(tx, stay, state)):
        why = {"reason": "not in the newest listing of its camera"}
        tx.advance(row.acquisition, AcquisitionEvent.DEPARTED, details=why, docking=stay.docking)
    for row in _elsewhere(tx, stay, AcquisitionState.WARRANTED):
        if row.acquisition in remnants:
            continue
        if unverified := condition.why_unverified(tx, row.acquisition):
            reason = f"its name is gone, but its erasure could not be verified: {unverified}; have the camera examined"
            why = {"reason": reason}
            tx.advance(row.acquisition, AcquisitionEvent.QUARANTINED, details=why, quarantine_reason=reason)
        else:
            method = "logical-delete" if stay.attachment.medium.kind is MediumKind.MTP else "delete"
            seen = {"method": method, "checked": "not in the complete listing of a later docking of its camera"}
            tx.advance(row.acquisition, AcquisitionEvent.ERASED, details=seen, docking=stay.docking)


def _elsewhere(tx: Tx, stay: Stay, state: AcquisitionState) -> Iterator[Acquisition]:
    """Rows of this camera in `state` that this docking has not seen."""
    after = None
    while page := tx.acquisitions(state=state, serial=stay.camera.serial, limit=_PAGE, after=after):
        after = page[-1].acquisition
        yield from (row for row in page if row.docking != stay.docking and row.camera == stay.camera)
