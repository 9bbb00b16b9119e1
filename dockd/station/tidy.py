"""Keep the spool small: sealed files go when they are erased from the camera, or confirmed and old, or room is short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from dockd.core.canonical import format_time
from dockd.core.lifecycle import AcquisitionState
from dockd.errors import VerificationFailed
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.keep.transaction import Tx
from dockd.model import AcquisitionId, Clock, StationId
from dockd.stages.confirm import stored_receipt
from dockd.stores.port import EvidenceStore

_log = structlog.get_logger()

EVERY_S = 600.0
_CONFIRMED = (AcquisitionState.STORED, AcquisitionState.WARRANTED)


async def sweep(journal: Journal, spool: Spool) -> int:
    """At the start: remove what no acquisition owns, and lay missing manifests beside their sealed files.

    Returns how many files were removed. Nothing that the journal counts as sealed is touched.
    """
    present = await asyncio.to_thread(spool.present)
    rows = await journal.read(lambda tx: [tx.acquisition(name) for name in present])
    owned = {row.acquisition for row in rows if row and row.sealed and row.state != AcquisitionState.ERASED}
    removed = await asyncio.to_thread(spool.sweep, owned.__contains__)
    for name in owned:
        manifest = await journal.read(lambda tx, name=name: tx.manifest(name))  # type: ignore[misc]
        await asyncio.to_thread(spool.put_manifest, name, manifest)
    return len(removed)
