"""Sanitise: obtain the erase warrant, make it durable, erase under it, look again, and record what was seen."""

from __future__ import annotations

from datetime import timedelta

import structlog

from dockd.core import warrant as warrants
from dockd.core.lifecycle import AcquisitionEvent as Event
from dockd.core.lifecycle import AcquisitionState
from dockd.core.manifest import decode
from dockd.core.warrant import EraseWarrant
from dockd.errors import ClipBusy, ClipChanged, ClipGone, ClipRefused, EraseFailed, SpoolFull, WarrantRefused
from dockd.model import Acquisition, FoundFile
from dockd.stages.confirm import holding, stored_receipt
from dockd.stages.stay import Stay, in_spool
from dockd.stores.port import EvidenceStore

_log = structlog.get_logger()


async def sanitise(stay: Stay, row: Acquisition, store: EvidenceStore, min_retention: timedelta) -> Acquisition:
    """Erase one stored clip from its camera; returns its row in state `erased`.

    All that a warrant needs is asked for anew, right now: the store's holding statement, the camera's identity.
    Raises WarrantRefused, a StoreError, CameraGone, EraseFailed, ClipBusy, ClipChanged, ClipGone or ClipRefused; the
    row is then `stored`. Raises ReaderDied with the row `warranted`: the next listing of the camera tells what became
    of the clip. After cancellation it may be either.
    """
    warrant = await _warrant(stay, row, store, min_retention, remnant=None)
    row = await stay.journal.write(
        lambda tx: tx.advance(row.acquisition, Event.WARRANTED, details={"warrant": warrants.to_wire(warrant)})
    )
    # The warrant is durable in journal and mirror; only from here on may a byte on the camera change.
    try:
        return await _erase(stay, row, warrant, row.file)
    except (EraseFailed, ClipBusy, ClipChanged, ClipGone, ClipRefused) as error:
        reason = str(error)
        await stay.journal.write(lambda tx: tx.advance(row.acquisition, Event.LAPSED, details={"reason": reason}))
        raise


async def finish_erasing(
    stay: Stay, row: Acquisition, remnant: FoundFile, store: EvidenceStore, min_retention: timedelta
) -> Acquisition:
    """Finish an erasure that was interrupted; returns the row in state `erased`.

    The remnant bears the acquisition's name, which it was given under a durable warrant, and is not a clip any more:
    part of it is overwritten, so it cannot be compared again. The store is asked again whether it holds the clip.
    Raises as `sanitise`; the row stays `warranted` until the remnant is gone.
    """
    warrant = await _warrant(stay, row, store, min_retention, remnant=remnant)
    await stay.journal.write(
        lambda tx: tx.record(
            "acquisition.erasure_resumed",
            bay=stay.bay,
            docking=stay.docking,
            acquisition=row.acquisition,
            camera=stay.camera.serial,
            details={"warrant": warrants.to_wire(warrant)},
        )
    )
    return await _erase(stay, row, warrant, remnant)


async def _warrant(
    stay: Stay, row: Acquisition, store: EvidenceStore, min_retention: timedelta, *, remnant: FoundFile | None
) -> EraseWarrant:
    if (
        row.sealed is None
        or row.reread is None
        or row.state not in (AcquisitionState.STORED, AcquisitionState.WARRANTED)
    ):
        raise WarrantRefused(("the clip was not sealed, stored and read a second time",))
    manifest = decode((await stay.journal.read(lambda tx: tx.manifest(row.acquisition))).payload)
    receipt = await stored_receipt(row.acquisition, journal=stay.journal, store=store, station=stay.station)
    asked_at = stay.clock.now()
    statement = await holding(
        row.acquisition, journal=stay.journal, store=store, station=stay.station, random=stay.random
    )
    return warrants.issue(
        acquisition=row,
        manifest=manifest,
        receipt=receipt,
        holding=statement,
        reread=row.reread,
        docking=stay.docking,
        epoch=stay.epoch,
        camera_now=await stay.attachment.identify_again(),
        custody_durable_size=stay.journal.durable_size,
        min_retention=min_retention,
        asked_at=asked_at,
        now=stay.clock.now(),
        remnant=remnant,
    )


async def _erase(stay: Stay, row: Acquisition, warrant: EraseWarrant, file: FoundFile) -> Acquisition:
    erasure = await stay.reader.erase(warrant, file)
    details = {
        "method": erasure.method,
        "overwritten_bytes": erasure.overwritten_bytes,
        "checked": erasure.checked,
    }
    _log.info("clip_erased", bay=stay.bay, camera=stay.camera.serial, acquisition=row.acquisition)
    row = await stay.journal.write(
        lambda tx: tx.advance(row.acquisition, Event.ERASED, details=details, docking=stay.docking)
    )
    try:
        await in_spool(stay.spool.discard, row.acquisition)
    except SpoolFull as error:  # tidying finds it again
        _log.warning("sealed_file_not_discarded", acquisition=row.acquisition, reason=str(error))
    return row
