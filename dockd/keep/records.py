"""Between the shared records and the journal's rows: exact both ways."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dockd.core.canonical import decode_path, encode_path
from dockd.core.lifecycle import AcquisitionState, DockingState
from dockd.model import (
    Acquisition,
    AcquisitionId,
    BayNumber,
    CacheState,
    CameraIdentity,
    Category,
    Digest,
    DockingId,
    Epoch,
    FileKind,
    FoundFile,
    ListedFile,
    Named,
    Reread,
    Role,
    Sealed,
    Verdict,
    VerdictStatus,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DockingRecord:
    """One docking, as the journal has it."""

    docking: DockingId
    epoch: Epoch
    bay: BayNumber
    device: str  # the source's own name for what is in the bay
    state: DockingState
    begun_at: datetime
    camera: CameraIdentity | None  # None where it was refused before it said who it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A number of clips and the bytes that they have on the camera."""

    clips: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A docking's clips by state. `held` are those of `stored` that wait for an operator's release."""

    states: Mapping[AcquisitionState, Tally]
    held: Tally

    def of(self, *states: AcquisitionState) -> Tally:
        """The sum over some states; over all of them where none is named."""
        chosen = [self.states.get(state, Tally()) for state in (states or AcquisitionState)]
        return Tally(clips=sum(one.clips for one in chosen), size_bytes=sum(one.size_bytes for one in chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRecord:
    """An operator's word that a camera, or every camera of a profile, may be docked."""

    kind: str  # "serial" or "profile"
    name: str
    operator: str
    reason: str
    enrolled_at: datetime
    since_epoch: Epoch


def enrolment_of(row: Mapping[str, Any]) -> EnrolmentRecord:
    """The record of a row of `enrolment`."""
    return EnrolmentRecord(
        kind=row["kind"],
        name=row["name"],
        operator=row["operator"],
        reason=row["reason"],
        enrolled_at=moment(row["enrolled_at_us"]),
        since_epoch=Epoch(row["since_epoch"]),
    )


def microseconds(moment: datetime) -> int:
    """An aware time as whole microseconds since 1970. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return (moment - _START) // _MICROSECOND


def moment(value: int) -> datetime:
    """The inverse of `microseconds`."""
    return _START + value * _MICROSECOND


def docking_columns(record: DockingRecord) -> dict[str, Any]:
    """The row of a docking."""
    return {
        "docking": record.docking,
        "epoch": record.epoch,
        "bay": record.bay,
        "device": os.fsencode(record.device),
        "state": record.state.value,
        "begun_at_us": microseconds(record.begun_at),
        **(_camera_columns(record.camera) if record.camera else dict.fromkeys(_CAMERA)),
    }


def docking_of(row: sqlite3.Row) -> DockingRecord:
    """The docking of a row."""
    return DockingRecord(
        docking=DockingId(row["docking"]),
        epoch=Epoch(row["epoch"]),
        bay=BayNumber(row["bay"]),
        device=os.fsdecode(row["device"]),
        state=DockingState(row["state"]),
        begun_at=moment(row["begun_at_us"]),
        camera=None if row["serial"] is None else _camera_of(row),
    )


def acquisition_columns(record: Acquisition) -> dict[str, Any]:
    """The row of an acquisition."""
    return {
        "acquisition": record.acquisition,
        "state": AcquisitionState(record.state).value,
        "docking": record.docking,
        "bay": record.bay,
        **_camera_columns(record.camera),
        **_file_columns(record.file),
        "category": record.category.value,
        "category_reason": record.category_reason,
        "found_at_us": microseconds(record.found_at),
        "attempts": record.attempts,
        "readers_ended": record.readers_ended,
        "contested": int(record.contested),
        **_sealed_columns(record.sealed),
        "manifest_digest": record.manifest_digest,
        "custody_seq": record.custody_seq,
        **_reread_columns(record.reread),
        "role": record.role.value,
        "of": record.of,
        "profile": record.profile,
        "profile_version": record.profile_version,
        "named": _named_text(record.named),
        "released_by": record.released_by,
        "released_for": json.dumps(list(record.released_for)),
        "quarantine_reason": record.quarantine_reason,
    }


def acquisition_of(row: sqlite3.Row) -> Acquisition:
    """The acquisition of a row."""
    return Acquisition(
        acquisition=AcquisitionId(row["acquisition"]),
        state=AcquisitionState(row["state"]),
        docking=DockingId(row["docking"]),
        bay=BayNumber(row["bay"]),
        camera=_camera_of(row),
        file=_file_of(row),
        category=Category(row["category"]),
        category_reason=row["category_reason"],
        found_at=moment(row["found_at_us"]),
        attempts=row["attempts"],
        readers_ended=row["readers_ended"],
        contested=bool(row["contested"]),
        sealed=_sealed_of(row),
        manifest_digest=row["manifest_digest"],
        custody_seq=row["custody_seq"],
        reread=_reread_of(row),
        role=Role(row["role"]),
        of=row["of"],
        profile=row["profile"],
        profile_version=row["profile_version"],
        named=_named_from_text(row["named"]),
        released_by=row["released_by"],
        released_for=tuple(json.loads(row["released_for"])),
        quarantine_reason=row["quarantine_reason"],
    )


def noted_columns(docking: DockingId, listed: ListedFile) -> dict[str, Any]:
    """The row of a noted file."""
    return {
        "docking": docking,
        **_file_columns(listed.file),
        "kind": listed.kind.value,
        "category": listed.category.value,
        "reason": listed.reason,
    }


def noted_of(row: sqlite3.Row) -> ListedFile:
    """The noted file of a row."""
    return ListedFile(
        file=_file_of(row), kind=FileKind(row["kind"]), category=Category(row["category"]), reason=row["reason"]
    )


def counts_of(rows: Iterable[sqlite3.Row]) -> Counts:
    """The counts of a docking's tally rows."""
    states: dict[AcquisitionState, Tally] = {}
    held = Tally()
    for row in rows:
        state = AcquisitionState(row["state"])
        before = states.get(state, Tally())
        one = Tally(clips=row["clips"], size_bytes=row["size_bytes"])
        states[state] = Tally(clips=before.clips + one.clips, size_bytes=before.size_bytes + one.size_bytes)
        if row["held"]:
            held = one
    return Counts(states=states, held=held)


_CAMERA = ("serial", "model", "volume_id", "vendor", "product")


def _camera_columns(camera: CameraIdentity) -> dict[str, Any]:
    return {name: getattr(camera, name) for name in _CAMERA}


def _camera_of(row: sqlite3.Row) -> CameraIdentity:
    return CameraIdentity(**{name: row[name] for name in _CAMERA})


def _file_columns(file: FoundFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "size_bytes": file.size_bytes,
        "mtime_ns": str(file.mtime_ns),
        "inode": str(file.inode),
        "links": file.links,
    }


def _file_of(row: sqlite3.Row) -> FoundFile:
    return FoundFile(
        path=row["path"],
        size_bytes=row["size_bytes"],
        mtime_ns=int(row["mtime_ns"]),
        inode=int(row["inode"]),
        links=row["links"],
    )


def _file_text(file: FoundFile) -> str:
    return json.dumps([encode_path(file.path), file.size_bytes, file.mtime_ns, file.inode, file.links])


def _file_from_text(text: str) -> FoundFile:
    path, size_bytes, mtime_ns, inode, links = json.loads(text)
    return FoundFile(path=decode_path(path), size_bytes=size_bytes, mtime_ns=mtime_ns, inode=inode, links=links)


def _named_text(named: Named | None) -> str | None:
    if named is None:
        return None
    started_us = None if named.started_at is None else microseconds(named.started_at)
    return json.dumps([started_us, named.local, named.time_zone, named.sequence, named.officer, named.category])


def _named_from_text(text: str | None) -> Named | None:
    if text is None:
        return None
    started_us, local, time_zone, sequence, officer, category = json.loads(text)
    return Named(
        started_at=None if started_us is None else moment(started_us),
        local=local,
        time_zone=time_zone,
        sequence=sequence,
        officer=officer,
        category=category,
    )


_SEALED = (
    "sealed_file",
    "plaintext_digest",
    "plaintext_size_bytes",
    "sealed_digest",
    "sealed_size_bytes",
    "verdict",
    "container",
    "reasons",
    "duration_ms",
    "recorded_at_us",
    "recipients",
)


def _sealed_columns(sealed: Sealed | None) -> dict[str, Any]:
    if sealed is None:
        return dict.fromkeys(_SEALED)
    verdict = sealed.verdict
    return {
        "sealed_file": _file_text(sealed.file),
        "plaintext_digest": sealed.plaintext_digest,
        "plaintext_size_bytes": sealed.plaintext_size_bytes,
        "sealed_digest": sealed.sealed_digest,
        "sealed_size_bytes": sealed.sealed_size_bytes,
        "verdict": verdict.status.value,
        "container": verdict.container,
        "reasons": json.dumps(verdict.reasons),
        "duration_ms": verdict.duration_ms,
        "recorded_at_us": None if verdict.recorded_at is None else microseconds(verdict.recorded_at),
        "recipients": json.dumps(sealed.recipients),
    }


def _sealed_of(row: sqlite3.Row) -> Sealed | None:
    if row["sealed_file"] is None:
        return None
    return Sealed(
        file=_file_from_text(row["sealed_file"]),
        plaintext_digest=Digest(row["plaintext_digest"]),
        plaintext_size_bytes=row["plaintext_size_bytes"],
        sealed_digest=Digest(row["sealed_digest"]),
        sealed_size_bytes=row["sealed_size_bytes"],
        verdict=Verdict(
            status=VerdictStatus(row["verdict"]),
            container=row["container"],
            reasons=tuple(json.loads(row["reasons"])),
            duration_ms=row["duration_ms"],
            recorded_at=None if row["recorded_at_us"] is None else moment(row["recorded_at_us"]),
        ),
        recipients=tuple(json.loads(row["recipients"])),
    )


def _reread_columns(reread: Reread | None) -> dict[str, Any]:
    return {
        "reread_docking": reread.docking if reread else None,
        "reread_file": _file_text(reread.file) if reread else None,
        "reread_digest": reread.plaintext_digest if reread else None,
        "reread_cache": reread.cache.value if reread else None,
    }


def _reread_of(row: sqlite3.Row) -> Reread | None:
    if row["reread_docking"] is None:
        return None
    return Reread(
        docking=DockingId(row["reread_docking"]),
        file=_file_from_text(row["reread_file"]),
        plaintext_digest=Digest(row["reread_digest"]),
        cache=CacheState(row["reread_cache"]),
    )
