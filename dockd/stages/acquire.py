"""Acquire: read a clip once into a sealed file, sign its manifest, and commit both to the spool and the journal."""

from __future__ import annotations

from typing import Any

import structlog

from dockd import __version__
from dockd.core import sealing
from dockd.core.canonical import digest
from dockd.core.lifecycle import AcquisitionEvent as Event
from dockd.core.manifest import Manifest, encode
from dockd.core.sshsig import MANIFEST, sign
from dockd.errors import (
    CameraGone,
    ClipBusy,
    ClipChanged,
    ClipGone,
    ClipRefused,
    ReaderDied,
    SpoolFull,
)
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, Role, Sealed, SignedBytes
from dockd.stages.stay import Stay, in_spool

_log = structlog.get_logger()

STRIKES = 2  # a clip whose reads ended this many readers is quarantined
_NONCE_BYTES = 32


async def acquire(stay: Stay, row: Acquisition, recipients: int) -> Acquisition:
    """Read, seal and commit one clip in state `found`; returns its row as `spooled`, `needs_spool` or `quarantined`.

    Each attempt is journalled before it starts. Raises ClipBusy, ClipChanged, ClipGone, SpoolFull, CameraGone or
    ReaderDied; the row is then `found` again (`departed`, for ClipGone). After cancellation it may be left
    `acquiring`, which the end of its docking sets right; an unfinished sealing is thrown away.
    """
    needed = sealing.sealed_size(row.file.size_bytes, recipients)
    too_small = await in_spool(stay.spool.never_fits, needed)
    if too_small:
        _log.warning("clip_needs_spool", bay=stay.bay, acquisition=row.acquisition, reason=too_small)
        return await _advance(stay, row, Event.NEEDS_SPOOL, {"reason": too_small, "needed_bytes": needed})
    shortage = await in_spool(stay.spool.shortage, needed)
    if shortage:
        raise SpoolFull(f"{shortage}; the clip waits on its camera")
    row = await _advance(stay, row, Event.READ_STARTED, {"attempt": row.attempts + 1}, attempts=row.attempts + 1)
    try:
        sealed = await stay.reader.acquire(row.acquisition, row.file, sidecar=row.role is Role.SIDECAR)
    except (ClipBusy, ClipChanged, SpoolFull, CameraGone) as error:
        await _advance(stay, row, Event.READ_ABANDONED, {"reason": str(error)})
        raise
    except ClipGone as error:
        await _advance(stay, row, Event.READ_ABANDONED, {"reason": str(error)})
        await _advance(stay, row, Event.DEPARTED, {"reason": str(error)})
        raise
    except ClipRefused as error:
        return await quarantine(stay, row, str(error))
    except ReaderDied as error:
        await _strike(stay, row, error)
        raise
    try:
        await in_spool(stay.spool.adopt, stay.docking, row.acquisition)
    except SpoolFull as error:
        await _advance(stay, row, Event.READ_ABANDONED, {"reason": str(error)})
        raise
    return await _commit(stay, row, sealed)


async def quarantine(stay: Stay, row: Acquisition, reason: str) -> Acquisition:
    """Set a clip aside for a person; everything else goes on."""
    _log.warning("clip_quarantined", bay=stay.bay, acquisition=row.acquisition, reason=reason)
    return await _advance(stay, row, Event.QUARANTINED, {"reason": reason}, quarantine_reason=reason)


async def _strike(stay: Stay, row: Acquisition, error: ReaderDied) -> None:
    ended = row.readers_ended + 1
    _log.warning("reader_died", bay=stay.bay, acquisition=row.acquisition, attempt=row.attempts, readers_ended=ended)
    if ended >= STRIKES:
        reason = f"reading it ended {ended} reader processes, the last one: {error}"
        await _advance(stay, row, Event.QUARANTINED, {"reason": reason}, readers_ended=ended, quarantine_reason=reason)
        return
    await _advance(stay, row, Event.READ_ABANDONED, {"reason": str(error)}, readers_ended=ended)


async def _commit(stay: Stay, row: Acquisition, sealed: Sealed) -> Acquisition:
    """Commit manifest, state and custody entry in one transaction, then lay the manifest beside the sealed file.

    The commit point is the journal's: a sealed file that was staged without it is an orphan, swept at the next start,
    and the clip is read again. The manifest's copy in the spool is written anew at the next start where it is missing.
    """
    nonce = stay.random(_NONCE_BYTES)
    manifest: SignedBytes | None = None

    def change(tx: Tx) -> Acquisition:
        nonlocal manifest
        seq = tx.next_seq()
        payload = encode(_manifest(stay, row, sealed, custody_seq=seq, nonce=nonce))
        manifest = SignedBytes(payload=payload, signature=sign(stay.manifest_key, MANIFEST, payload))
        tx.put_manifest(row.acquisition, manifest, nonce)
        return tx.advance(
            row.acquisition,
            Event.SEALED,
            details={
                "manifest": digest(payload),
                "plaintext": sealed.plaintext_digest,
                "sealed": sealed.sealed_digest,
                "size_bytes": sealed.plaintext_size_bytes,
                "verdict": sealed.verdict.status.value,
                "reasons": list(sealed.verdict.reasons),
            },
            sealed=sealed,
            manifest_digest=digest(payload),
            custody_seq=seq,
        )

    row = await stay.journal.write(change)
    if manifest is not None:
        try:
            await in_spool(stay.spool.put_manifest, row.acquisition, manifest)
        except SpoolFull as error:
            _log.warning("manifest_not_laid_beside", acquisition=row.acquisition, reason=str(error))
    return row


def _manifest(stay: Stay, row: Acquisition, sealed: Sealed, *, custody_seq: int, nonce: bytes) -> Manifest:
    verdict = sealed.verdict
    return Manifest(
        acquisition=row.acquisition,
        station=stay.station,
        bay=stay.bay,
        docking=stay.docking,
        camera=stay.camera,
        path=row.file.path,
        size_bytes=sealed.file.size_bytes,
        mtime_ns=sealed.file.mtime_ns,
        recorded_at=verdict.recorded_at,
        duration_ms=verdict.duration_ms,
        clock_offset_ms=None,
        category=row.category,
        category_reason=row.category_reason,
        verdict=verdict.status,
        reasons=verdict.reasons,
        container=verdict.container,
        plaintext_digest=sealed.plaintext_digest,
        plaintext_size_bytes=sealed.plaintext_size_bytes,
        sealed_digest=sealed.sealed_digest,
        sealed_size_bytes=sealed.sealed_size_bytes,
        recipients=sealed.recipients,
        dockd=__version__,
        custody_seq=custody_seq,
        nonce=nonce,
        role=row.role.value,
        of=row.of,
        profile=row.profile,
        profile_version=row.profile_version,
        named=row.named,
    )


async def _advance(stay: Stay, row: Acquisition, event: Event, details: dict[str, Any], **changes: Any) -> Acquisition:
    return await stay.journal.write(lambda tx: tx.advance(row.acquisition, event, details=details, **changes))
