"""Compose the snapshot: what the journal counts, and what the running parts know besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dockd import __version__
from dockd.core.lifecycle import AcquisitionState as State
from dockd.core.lifecycle import DockingState
from dockd.errors import SpoolFull
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import Acquisition, BayNumber, Clock, StationId
from dockd.stages.stay import in_spool
from dockd.station.docking import Docking
from dockd.station.snapshot import BayStatus, HeldClip, Snapshot
from dockd.station.uplink import Uplink

_HELD_LIMIT = 100
_SENDING = 16  # uploads of one docking whose progress is looked at

_SEALED = (State.SPOOLED, State.UPLOADING, State.STORED, State.WARRANTED, State.ERASED)
_CONFIRMED = (State.STORED, State.WARRANTED, State.ERASED)


@dataclass(slots=True)
class Alarms:
    """What IT has to look at, a sentence under each topic; a topic that is well again is cleared."""

    by_topic: dict[str, str] = field(default_factory=dict)

    def set(self, topic: str, sentence: str) -> None:
        """Raise, or clear with an empty sentence."""
        if sentence:
            self.by_topic[topic] = sentence
        else:
            self.by_topic.pop(topic, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a snapshot comes from."""

    station: StationId
    trial: bool
    started_at: datetime
    clock: Clock
    journal: Journal
    spool: Spool
    uplink: Uplink
    bays: Sequence[BayNumber]
    dockings: Mapping[str, Docking]
    alarms: Alarms


async def take_snapshot(sources: Sources) -> Snapshot:
    """The station at this instant. Cheap: no query grows with the number of clips."""
    files, size, free = await _spool(sources)
    held = await _held(sources)
    by_bay: dict[BayNumber, list[Docking]] = {bay: [] for bay in sources.bays}
    for docking in sources.dockings.values():
        by_bay.setdefault(docking.plugged.bay, []).append(docking)
    return Snapshot(
        version=__version__,
        station=sources.station,
        trial=sources.trial,
        started_at=sources.started_at,
        at=sources.clock.now(),
        bays=tuple([await _bay(sources, bay, by_bay[bay]) for bay in sorted(by_bay)]),
        store=sources.uplink.status(),
        spool_files=files,
        spool_bytes=size,
        spool_free_bytes=free,
        custody_size=sources.journal.durable_size,
        custody_signed=sources.journal.signed_size,
        custody_witnessed=sources.uplink.witnessed,
        config_note=sources.alarms.by_topic.get("configuration", ""),
        alarms=(*sources.alarms.by_topic.values(), *sources.uplink.alarms),
        held=held,
    )


async def _spool(sources: Sources) -> tuple[int, int, int]:
    """Files, bytes and free bytes; zeros, and an alarm, where its disk does not even answer that."""
    try:
        files, size = await in_spool(sources.spool.usage)
        free = await in_spool(sources.spool.free_bytes)
    except SpoolFull as error:
        sources.alarms.set("spool", str(error))
        return 0, 0, 0
    sources.alarms.set("spool", "")
    return files, size, free


async def _bay(sources: Sources, bay: BayNumber, dockings: list[Docking]) -> BayStatus:
    """One bay. Where several devices lie in it, the one that was admitted is shown, with a word about the others."""
    if not dockings:
        return BayStatus(bay=bay, state="empty")
    shown = min(dockings, key=lambda docking: docking.state == DockingState.REFUSED)
    refused = [other.note for other in dockings if other is not shown]
    note = "; ".join(part for part in (shown.note, *refused) if part)
    docking = shown.docking
    if docking is None:
        return BayStatus(bay=bay, state=shown.state, note=note, camera=shown.plugged.label)
    counts, others, sending = await sources.journal.read(
        lambda tx: (tx.counts(docking), tx.count_noted(docking), tx.next_in(docking, State.UPLOADING, limit=_SENDING))
    )
    under_way = sum(sources.uplink.progress(row.acquisition) for row in sending)
    total, acquired, stored = counts.of(), counts.of(*_SEALED), counts.of(*_CONFIRMED)
    bytes_acquired = min(total.size_bytes, acquired.size_bytes + shown.progress.acquiring_bytes())
    bytes_stored = min(total.size_bytes, stored.size_bytes + under_way)
    rate = shown.progress.rate_bytes_s(sources.clock.monotonic_s()) + sum(
        sources.uplink.rate(row.acquisition) for row in sending
    )
    left = (total.size_bytes - bytes_acquired) + (total.size_bytes - bytes_stored)
    store = sources.uplink.status()
    if not note and shown.state == DockingState.DELIVERING and stored.clips < acquired.clips and store.out_of_reach:
        note = f"waits for the store, which is {store.state}"
    return BayStatus(
        bay=bay,
        state=shown.state,
        note=note,
        docking=docking,
        camera=shown.camera.serial if shown.camera else shown.plugged.label,
        model=shown.camera.model if shown.camera else None,
        clips_total=total.clips,
        clips_acquired=acquired.clips,
        clips_stored=stored.clips,
        clips_erased=counts.of(State.ERASED).clips,
        clips_held=counts.held.clips,
        clips_quarantined=counts.of(State.QUARANTINED).clips,
        others=others,
        bytes_total=total.size_bytes,
        bytes_acquired=bytes_acquired,
        bytes_stored=bytes_stored,
        rate_bytes_s=rate,
        left_s=left // rate if rate and left else None,
    )


async def _held(sources: Sources) -> tuple[HeldClip, ...]:
    docked = {docking.docking: docking for docking in sources.dockings.values()}
    held = await sources.journal.read(lambda tx: tx.held(limit=_HELD_LIMIT))
    quarantined = await sources.journal.read(lambda tx: tx.acquisitions(state=State.QUARANTINED, limit=_HELD_LIMIT))
    why = {clip: reason for docking in docked.values() for clip, reason in docking.postponed.set_aside().items()}
    aside = await sources.journal.read(lambda tx: [tx.acquisition(clip) for clip in list(why)[:_HELD_LIMIT]])
    seen = {row.acquisition: row for row in (*held, *quarantined, *aside) if row}
    return tuple(
        HeldClip(
            acquisition=row.acquisition,
            bay=docked[row.docking].plugged.bay if row.docking in docked else None,
            camera=row.camera.serial,
            path=row.file.path,
            state=row.state,
            why=why.get(row.acquisition) or why_held(row),
        )
        for row in list(seen.values())[:_HELD_LIMIT]
    )


def why_held(row: Acquisition) -> str:
    """Why an acquisition waits for a person; empty where it does not."""
    if row.state == State.QUARANTINED:
        return row.quarantine_reason or "quarantined"
    if row.contested:
        return "two reads of it disagree: it is kept, and never grounds for erasing"
    if row.state == State.STORED and row.sealed and row.sealed.verdict.status != "intact" and not row.released_by:
        return f"{row.sealed.verdict.status.value}: {'; '.join(row.sealed.verdict.reasons)}"
    return ""
