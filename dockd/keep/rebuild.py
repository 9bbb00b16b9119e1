"""Rebuild a journal that is corrupt or gone: as far as spool, manifests and custody log prove what it knew.

The broken files are set aside under names of their own and never touched again. The new journal begins a new
generation of the custody log, whose entry 0 names the last checkpoint that the store witnessed of the one before; until
a person accepted it at the store, nothing is erased.

What is taken over: every sealed clip in the spool whose manifest this station signed (to be pushed; never grounds for
erasing), enrolments, the number of the newest docking, and the store's newest receipt. Nothing is taken over about what
is on cameras: what is on one is read anew when it is docked.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from dockd import faults as no
from dockd.core import checkpoint as notes
from dockd.core import sshsig
from dockd.core.canonical import digest, encode_path
from dockd.core.lifecycle import AcquisitionState, DockingState
from dockd.core.manifest import Manifest, decode
from dockd.core.receipts import NO_PREVIOUS
from dockd.errors import JournalCorrupt, VerificationFailed
from dockd.faultpoints import Point
from dockd.keep import aside, database
from dockd.keep.durable import fsync_directory
from dockd.keep.former import Former, read_former
from dockd.keep.journal import Journal
from dockd.keep.ledger import Ledger
from dockd.keep.records import DockingRecord
from dockd.model import (
    Acquisition,
    AcquisitionId,
    Clock,
    Digest,
    Epoch,
    FoundFile,
    Role,
    Sealed,
    SignedBytes,
    StationId,
    StoreId,
    Verdict,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dockd.core.sshsig import PublicKey, SigningKey
    from dockd.faults import Faults
    from dockd.keep.spool import Spool
    from dockd.keep.transaction import Tx

_log = structlog.get_logger()

UNACCEPTED = "log_unaccepted"  # the setting that says why nothing is erased; empty once the store witnessed the log
FORMER_UNPROVEN = "former_unproven"  # the setting that says why the log that was set aside proves nothing
_PAGE = 100


def receipt_floor(store: StoreId | str) -> str:
    """The setting with the last receipt that is known of a store from before the journal was rebuilt."""
    return f"receipt_floor/{store}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Whose journal it is, and what its parts are checked against."""

    station: StationId
    stores: tuple[StoreId, ...]  # those that sign
    clock: Clock
    checkpoint_key: SigningKey
    manifest_key: PublicKey


async def open_journal(directory: Path, spool: Spool, origins: Origins, faults: Faults = no.NONE) -> Journal:
    """Open the journal; where it is corrupt or gone, it is rebuilt first.

    Raises JournalError where it contradicts its log or its checkpoint, which a person has to look into, and OSError.
    """
    open_it = partial(
        Journal.open,
        directory,
        station=origins.station,
        clock=origins.clock,
        checkpoint_key=origins.checkpoint_key,
        faults=faults,
    )
    try:
        return await open_it()
    except JournalCorrupt as error:
        _log.critical("journal_corrupt", error=str(error))
        await asyncio.to_thread(rebuild, directory, spool, origins, str(error), faults)
        return await open_it()


def rebuild(directory: Path, spool: Spool, origins: Origins, why: str, faults: Faults = no.NONE) -> None:
    """Set the broken journal aside and make a new one. Blocking; cut short at any instant, the next start goes on.

    Raises JournalError where another program has the directory, OSError.
    """
    lock = database.lock(directory)
    try:
        if aside.finish(directory, faults=faults):
            return
        former = read_former(directory / aside.CUSTODY, origins.station, origins.checkpoint_key.public)
        name = aside.set_aside(directory, origins.clock.now(), faults)
        generation = aside.next_generation(directory, former.generation)
        making = directory / aside.REBUILDING
        if making.exists():
            faults.act(Point.REBUILT_GONE, shutil.rmtree, making)
        _make(making, generation, former, spool, origins, faults=faults, reason=why, journal=name)
        faults.act(Point.REBUILT_NAME, making.rename, directory / aside.REBUILT)
        faults.act(Point.REBUILT_SYNC, fsync_directory, directory)
        aside.finish(directory, generation - 1, faults)
        _log.critical("journal_rebuilt", generation=generation, set_aside=name, log_proven=former.proven)
    finally:
        os.close(lock)


def _make(
    place: Path, generation: int, former: Former, spool: Spool, origins: Origins, *, faults: Faults, **about: str
) -> None:
    proven, unproven = _manifests(spool, origins)
    ledger = Ledger(
        place,
        station=origins.station,
        clock=origins.clock,
        checkpoint_key=origins.checkpoint_key,
        faults=faults,
        generation=generation,
    )
    try:
        floors = dict.fromkeys(origins.stores, (0, str(NO_PREVIOUS))) | former.receipts
        details: dict[str, Any] = about | {
            "generation": generation,
            "before": _log_before(former),
            "receipts": {store: [seq, name] for store, (seq, name) in floors.items()},
            "sealed_clips": len(proven),
            "set_aside_in_spool": len(unproven),
        }
        changes = [partial(_begin, former=former, details=details, floors=floors)]
        changes += [
            partial(_restore, names=proven[at : at + _PAGE], former=former, spool=spool, origins=origins)
            for at in range(0, len(proven), _PAGE)
        ]
        for change in changes:
            (outcome,) = ledger.commit([change])
            if outcome.error is not None:
                raise outcome.error
        ledger.checkpoint()
    finally:
        ledger.close()
    for acquisition in unproven:
        spool.set_aside(acquisition)


def _log_before(former: Former) -> dict[str, Any]:
    """What the first entry of the new log says of the one before."""

    def head(one: notes.Checkpoint | None) -> dict[str, Any] | None:
        return {"origin": one.origin, "size": one.size, "root": one.root.hex()} if one else None

    return {
        "lines": former.lines,
        "proven": "yes" if former.proven else f"no: {former.problem}",
        "signed": head(former.signed),
        "witnessed": head(former.witnessed),
    }


def _begin(tx: Tx, *, former: Former, details: dict[str, Any], floors: dict[StoreId | str, tuple[int, str]]) -> None:
    tx.record("log.rebuilt", details=details)
    tx.put("epoch", str(former.epoch))
    if not former.proven:
        tx.put(FORMER_UNPROVEN, former.problem)
    for (kind, name), (operator, reason) in former.enrolments.items():
        tx.enrol(kind, name, operator=operator, reason=reason)
    for store, (seq, receipt) in floors.items():
        tx.put(receipt_floor(store), f"{seq} {receipt}")
    witnessed = former.witnessed.size if former.witnessed else 0
    tx.put(
        UNACCEPTED,
        f"the journal was lost ({details['reason']}) and rebuilt, set aside as {details['journal'] or 'nothing'}: the"
        f" custody log begins anew as generation {details['generation']}, after {witnessed} entries that the store had"
        " witnessed; nothing is erased until the store's operators accept it with `dockd receiver accept-log STATION"
        f" --generation {details['generation']}`",
    )


def _manifests(spool: Spool, origins: Origins) -> tuple[list[AcquisitionId], list[AcquisitionId]]:
    """The sealed files in the spool, by whether their manifest proves what they are."""
    proven: list[AcquisitionId] = []
    unproven: list[AcquisitionId] = []
    for acquisition in spool.present():
        try:
            _manifest(spool, acquisition, origins)
            proven.append(acquisition)
        except (VerificationFailed, OSError, UnicodeDecodeError) as error:
            _log.error("sealed_file_not_proven", acquisition=acquisition, reason=str(error))
            unproven.append(acquisition)
    return proven, unproven


def _manifest(spool: Spool, acquisition: AcquisitionId, origins: Origins) -> tuple[SignedBytes, Manifest]:
    """The manifest beside a sealed file. Raises VerificationFailed, OSError."""
    signed = spool.manifest(acquisition)
    sshsig.verify(origins.manifest_key, sshsig.MANIFEST, signed.payload, signed.signature)
    manifest = decode(signed.payload)
    if (manifest.acquisition, manifest.station) != (acquisition, origins.station):
        raise VerificationFailed("the manifest is of another acquisition or station")
    if spool.path(acquisition).stat().st_size != manifest.sealed_size_bytes:
        raise VerificationFailed("the sealed file does not have the length that its manifest states")
    return signed, manifest


def _restore(tx: Tx, *, names: list[AcquisitionId], former: Former, spool: Spool, origins: Origins) -> None:
    for name in names:
        signed, manifest = _manifest(spool, name, origins)
        if tx.docking(manifest.docking) is None:
            tx.restore_docking(_docking(tx, manifest, former))
        tx.restore(_row(manifest, digest(signed.payload)), signed, manifest.nonce, _said(signed, manifest))


def _said(signed: SignedBytes, manifest: Manifest) -> dict[str, Any]:
    return {
        "manifest": digest(signed.payload),
        "sealed": manifest.sealed_digest,
        "plaintext": manifest.plaintext_digest,
        "path": encode_path(manifest.path),
    }


def _docking(tx: Tx, manifest: Manifest, former: Former) -> DockingRecord:
    """The docking of a manifest: over, as every docking is by now."""
    entry = former.dockings.get(manifest.docking)
    epoch = entry.details.get("epoch") if entry else None
    if not isinstance(epoch, int) or tx.docking_of_epoch(Epoch(epoch)) is not None:
        epoch = tx.next_epoch()
    return DockingRecord(
        docking=manifest.docking,
        epoch=Epoch(epoch),
        bay=manifest.bay,
        device="(before the journal was rebuilt)",
        state=DockingState.ENDED,
        begun_at=entry.at if entry else tx.now(),
        camera=manifest.camera,
    )


def _row(manifest: Manifest, manifest_digest: Digest) -> Acquisition:
    """To be pushed, and never grounds for erasing: the log that would prove the way to it is another one."""
    file = FoundFile(path=manifest.path, size_bytes=manifest.size_bytes, mtime_ns=manifest.mtime_ns, inode=0)
    verdict = Verdict(
        status=manifest.verdict,
        container=manifest.container,
        reasons=manifest.reasons,
        duration_ms=manifest.duration_ms,
        recorded_at=manifest.recorded_at,
    )
    return Acquisition(
        acquisition=manifest.acquisition,
        state=AcquisitionState.SPOOLED,
        docking=manifest.docking,
        bay=manifest.bay,
        camera=manifest.camera,
        file=file,
        category=manifest.category,
        category_reason=manifest.category_reason,
        found_at=_time_of(manifest.acquisition),
        attempts=1,
        contested=True,
        sealed=Sealed(
            file=file,
            plaintext_digest=manifest.plaintext_digest,
            plaintext_size_bytes=manifest.plaintext_size_bytes,
            sealed_digest=manifest.sealed_digest,
            sealed_size_bytes=manifest.sealed_size_bytes,
            verdict=verdict,
            recipients=manifest.recipients,
        ),
        manifest_digest=manifest_digest,
        custody_seq=manifest.custody_seq,
        role=Role(manifest.role),
        profile=manifest.profile,
        profile_version=manifest.profile_version,
    )


def _time_of(acquisition: AcquisitionId) -> datetime:
    """When a UUIDv7 was made: the first 48 bits are milliseconds since 1970."""
    return datetime.fromtimestamp((uuid.UUID(acquisition).int >> 80) / 1000, UTC)
