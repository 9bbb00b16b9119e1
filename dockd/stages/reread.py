"""Reread: read a sealed clip a second time from the medium, within the docking that is to erase it."""

from __future__ import annotations

import structlog

from dockd.core.lifecycle import AcquisitionEvent as Event
from dockd.model import Acquisition
from dockd.stages.stay import Stay

_log = structlog.get_logger()


async def reread(stay: Stay, row: Acquisition) -> Acquisition:
    """Compare a second read with what was sealed; returns the row, with `reread` set or `contested`.

    A disagreement contests the acquisition: it is kept and pushed, but never grounds for erasing; the next listing
    finds the clip anew. Raises ClipBusy, ClipChanged, ClipGone, ClipRefused, CameraGone or ReaderDied, with the row
    as it was. After cancellation nothing is recorded.
    """
    if row.sealed is None:
        raise ValueError("only a sealed clip is read a second time")
    sealed = row.sealed
    again = await stay.reader.reread(row.acquisition, row.file)
    agrees = again.plaintext_digest == sealed.plaintext_digest
    details = {"plaintext": again.plaintext_digest, "cache": again.cache.value, "docking": stay.docking}
    if agrees:
        return await stay.journal.write(
            lambda tx: tx.advance(row.acquisition, Event.REREAD, details=details, reread=again)
        )
    _log.error("second_read_disagrees", bay=stay.bay, acquisition=row.acquisition)
    return await stay.journal.write(
        lambda tx: tx.advance(row.acquisition, Event.CONTESTED, details=details, contested=True)
    )
