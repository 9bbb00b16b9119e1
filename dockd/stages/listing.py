"""List: bring the journal in line with what is on the camera. Every file found gets a named state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from dockd.core.ids import uuid7
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState
from dockd.core.marker import MARKER_NAME
from dockd.core.remnants import remnant_of
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, FileKind, FoundFile, ListedFile
from dockd.stages.stay import Stay

CONTESTED_LIMIT = 2  # acquisitions of one path whose second read disagreed, and a person has to look

_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Remnant:
    """What an interrupted erasure left on the camera, under the name that the reader gave it."""

    acquisition: AcquisitionId
    file: FoundFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one complete listing found. `clips` are to be read, pushed or erased; `others` stay."""

    clips: int
    others: int
    refused: int  # entries that could not be listed, or are neither file nor directory
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
    fingerprint = 0
    await stay.journal.write(lambda tx: tx.clear_files(stay.docking))
    async for batch in stay.reader.list():
        found = [listed for listed in batch if listed.file.path != MARKER_NAME]  # the camera's own, not a finding
        for listed in found:
            counts[listed.kind] += 1
            fingerprint = _mix(fingerprint, listed)
        remnants += await stay.journal.write(partial(_reconcile, stay=stay, batch=found))
    if not counts[FileKind.REFUSED]:  # else what was not shown may lie in what could not be looked into
        await stay.journal.write(lambda tx: _close(tx, stay, {remnant.acquisition for remnant in remnants}))
    return Listing(
        clips=counts[FileKind.CLIP],
        others=counts[FileKind.OTHER] - len(remnants),
        refused=counts[FileKind.REFUSED],
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


def _reconcile(tx: Tx, *, stay: Stay, batch: list[ListedFile]) -> list[Remnant]:
    remnants: list[Remnant] = []
    for listed in batch:
        if listed.kind is FileKind.CLIP:
            _reconcile_clip(tx, stay, listed)
            continue
        name = remnant_of(listed.file.path)
        row = tx.acquisition(name) if name else None
        if row and row.state == AcquisitionState.WARRANTED and row.camera == stay.camera:
            remnants.append(Remnant(acquisition=row.acquisition, file=listed.file))
        else:
            tx.note_file(stay.docking, listed)
    return remnants


def _reconcile_clip(tx: Tx, stay: Stay, listed: ListedFile) -> None:
    file = listed.file
    known = tx.find_clip(stay.camera.serial, stay.camera.volume_id, file.path, file.size_bytes, file.mtime_ns)
    if known is None:
        _find(tx, stay, listed)
    elif known.docking != stay.docking or known.file != file or known.state == AcquisitionState.DEPARTED:
        if known.state == AcquisitionState.WARRANTED:
            why = {"reason": "the clip is still on the camera, untouched, in a new docking"}
            tx.advance(known.acquisition, AcquisitionEvent.LAPSED, details=why)
        tx.advance(
            known.acquisition,
            AcquisitionEvent.SEEN_AGAIN,
            details={"docking_before": known.docking},
            docking=stay.docking,
            bay=stay.bay,
            file=file,
        )


def _find(tx: Tx, stay: Stay, listed: ListedFile) -> None:
    file = listed.file
    for stale in tx.find_path(stay.camera.serial, stay.camera.volume_id, file.path):
        if stale.state == AcquisitionState.FOUND:
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
        ),
    )
    if tx.count_contested(stay.camera, file.path) >= CONTESTED_LIMIT:
        reason = "its reads disagree again and again: the camera's memory is failing, have it examined"
        details = {"reason": reason}
        tx.advance(added.acquisition, AcquisitionEvent.QUARANTINED, details=details, quarantine_reason=reason)


def _close(tx: Tx, stay: Stay, remnants: set[AcquisitionId]) -> None:
    """What the complete listing did not show is not on the camera."""
    for row in _elsewhere(tx, stay, AcquisitionState.FOUND):
        why = {"reason": "not in the newest listing of its camera"}
        tx.advance(row.acquisition, AcquisitionEvent.DEPARTED, details=why, docking=stay.docking)
    for row in _elsewhere(tx, stay, AcquisitionState.WARRANTED):
        if row.acquisition not in remnants:
            seen = {"method": "delete", "checked": "not in the complete listing of a later docking of its camera"}
            tx.advance(row.acquisition, AcquisitionEvent.ERASED, details=seen, docking=stay.docking)


def _elsewhere(tx: Tx, stay: Stay, state: AcquisitionState) -> Iterator[Acquisition]:
    """Rows of this camera in `state` that this docking has not seen."""
    after = None
    while page := tx.acquisitions(state=state, serial=stay.camera.serial, limit=_PAGE, after=after):
        after = page[-1].acquisition
        yield from (row for row in page if row.docking != stay.docking and row.camera == stay.camera)
