"""Compose the snapshot: what the journal counts, and what the running parts know besides."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dockd import __version__
from dockd.core.canonical import encode_path
from dockd.core.lifecycle import AcquisitionState as State
from dockd.core.lifecycle import DockingState
from dockd.errors import SpoolFull
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, BayNumber, Clock, StationId, StoreId
from dockd.reader.client import ForkServer
from dockd.stages.stay import in_spool
from dockd.station.confinement import in_words
from dockd.station.docking import Docking
from dockd.station.snapshot import BayStatus, HeldClip, Snapshot, StoreStatus
from dockd.station.stores import Stores
from dockd.station.told import alarm
from dockd.station.trust import alarm_about_lost

_HELD_LIMIT = 100
_NAMED = 8  # cameras in one sentence
_SENDING = 16  # uploads of one docking whose progress is looked at

_SEALED = (State.SPOOLED, State.UPLOADING, State.STORED, State.WARRANTED, State.ERASED)
_ON_ITS_WAY = {
    State.FOUND: "it is still to be read",
    State.ACQUIRING: "it is being read",
    State.SPOOLED: "the store has not signed for it yet",
    State.UPLOADING: "the store has not signed for it yet",
}
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
    stores: Stores
    bays: Sequence[BayNumber]
    dockings: Mapping[str, Docking]
    alarms: Alarms
    forkserver: ForkServer


async def take_snapshot(sources: Sources) -> Snapshot:
    """The station at this instant. Cheap: no query but the count of those to send grows with the number of clips."""
    files, size, free = await _spool(sources)
    held = await _held(sources)
    stores = await _stores(sources)
    lost = await sources.journal.read(lambda tx: tx.spoiled(limit=_HELD_LIMIT))
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
        stores=stores,
        uplink=sources.stores.uplink(),
        policy=sources.stores.policy.sentence(),
        spool_files=files,
        spool_bytes=size,
        spool_free_bytes=free,
        custody_size=sources.journal.durable_size,
        custody_signed=sources.journal.signed_size,
        custody_witnessed=sources.stores.witnessed,
        tasks=len(asyncio.all_tasks()),
        confinement=in_words(sources.forkserver.unmet),
        config_note=sources.alarms.by_topic.get("configuration", ""),
        alarms=tuple(dict.fromkeys((*sources.alarms.by_topic.values(), *sources.stores.alarms, *_lost(lost)))),
        held=held,
    )


async def _stores(sources: Sources) -> tuple[StoreStatus, ...]:
    """Each store, with what it lacks. Asked here: an uplink does not look while it leaves an absent store alone."""

    def complete(tx: Tx, one: StoreStatus) -> StoreStatus:
        waiting, waiting_bytes = tx.waiting(StoreId(one.store))
        given_up = tx.given_up(StoreId(one.store))
        return dataclasses.replace(one, waiting=waiting, waiting_bytes=waiting_bytes, given_up=given_up)

    found = sources.stores.status()
    stores, lost = await sources.journal.read(
        lambda tx: (
            tuple(complete(tx, one) for one in found),
            {one.name: alarm_about_lost(tx, StoreId(one.store)) for one in found},
        )
    )
    for one in found:
        sentence = alarm(one.looked)
        sources.alarms.set(f"told/{one.name}", f"{one.name}: {sentence}" if sentence and len(found) > 1 else sentence)
    for name, sentence in lost.items():
        sources.alarms.set(f"lost/{name}", f"{name}: {sentence}" if sentence and len(found) > 1 else sentence)
    return stores


def _waits_for(stores: Sequence[StoreStatus]) -> str:
    """Why a docking waits, where it is for stores that are not to be had."""
    out = [one for one in stores if one.counts and one.out_of_reach]
    if not out:
        return ""
    if len(stores) == 1:
        return f"waits for the store, which {_is(out[0])}"
    return "waits for " + ", ".join(f"{one.name}, which {_is(one)}" for one in out)


def _is(store: StoreStatus) -> str:
    return "was reached, but lacks something" if store.state == "lacking" else f"is {store.state}"


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
    # All at one instant: it goes on while the journal is asked, and a note is of one state. What is counted is newer.
    state, docking, camera = shown.state, shown.docking, shown.camera
    if docking is None:
        return BayStatus(bay=bay, state=state, note=note, camera=shown.plugged.label)
    counts, others, sending = await sources.journal.read(
        lambda tx: (tx.counts(docking), tx.count_noted(docking), tx.next_in(docking, State.UPLOADING, limit=_SENDING))
    )
    under_way = sum(sources.stores.progress(row.acquisition) for row in sending)
    total, acquired, stored = counts.of(), counts.of(*_SEALED), counts.of(*_CONFIRMED)
    bytes_acquired = min(total.size_bytes, acquired.size_bytes + shown.progress.acquiring_bytes())
    bytes_stored = min(total.size_bytes, stored.size_bytes + under_way)
    rate = shown.progress.rate_bytes_s(sources.clock.monotonic_s()) + sum(
        sources.stores.rate(row.acquisition) for row in sending
    )
    left = (total.size_bytes - bytes_acquired) + (total.size_bytes - bytes_stored)
    if not note and state == DockingState.DELIVERING and stored.clips < acquired.clips:
        note = _waits_for(sources.stores.status())
    return BayStatus(
        bay=bay,
        state=state,
        note=note,
        docking=docking,
        camera=camera.serial if camera else shown.plugged.label,
        model=camera.model if camera else None,
        clips_total=total.clips,
        clips_acquired=acquired.clips,
        clips_stored=stored.clips,
        clips_erased=counts.of(State.ERASED).clips,
        clips_held=counts.held.clips,
        clips_quarantined=counts.of(State.QUARANTINED).clips,
        clips_needing_spool=counts.of(State.NEEDS_SPOOL).clips,
        others=others,
        bytes_total=total.size_bytes,
        bytes_acquired=bytes_acquired,
        bytes_stored=bytes_stored,
        rate_bytes_s=rate,
        left_s=left // rate if rate and left else None,
    )


def _lost(spoiled: Sequence[Acquisition]) -> Iterator[str]:
    """The alarm about clips that nothing but their cameras may still have."""
    cameras = sorted({row.camera.serial for row in spoiled})
    if cameras:
        yield (
            f"sealed files that were damaged or lost on this dock before the store had them: {len(spoiled)}; their "
            f"clips are read anew where they still are: dock {', '.join(cameras[:_NAMED])} again, and look at the disk"
        )


async def _held(sources: Sources) -> tuple[HeldClip, ...]:
    docked = {docking.docking: docking for docking in sources.dockings.values()}
    held = await sources.journal.read(lambda tx: tx.held(limit=_HELD_LIMIT))
    quarantined, large, spoiled = await sources.journal.read(
        lambda tx: (
            tx.acquisitions(state=State.QUARANTINED, limit=_HELD_LIMIT),
            tx.acquisitions(state=State.NEEDS_SPOOL, limit=_HELD_LIMIT),
            tx.spoiled(limit=_HELD_LIMIT),
        )
    )
    why = {clip: reason for docking in docked.values() for clip, reason in docking.postponed.set_aside().items()}
    aside = await sources.journal.read(lambda tx: [tx.acquisition(clip) for clip in list(why)[:_HELD_LIMIT]])
    seen = {row.acquisition: row for row in (*held, *quarantined, *large, *spoiled, *aside) if row}
    why = {row.acquisition: why.get(row.acquisition) or why_held(row) for row in seen.values()}
    for row, reason in await sources.journal.read(lambda tx: _kept_with_them(tx, list(seen.values()), why)):
        seen[row.acquisition], why[row.acquisition] = row, reason
    return tuple(
        HeldClip(
            acquisition=row.acquisition,
            bay=docked[row.docking].plugged.bay if row.docking in docked else None,
            camera=row.camera.serial,
            path=row.file.path,
            state=row.state,
            why=why[row.acquisition],
        )
        for row in list(seen.values())[:_HELD_LIMIT]
    )


def _kept_with_them(
    tx: Tx, held: Sequence[Acquisition], why: Mapping[AcquisitionId, str]
) -> list[tuple[Acquisition, str]]:
    """What stays on its camera because of these alone, and why."""
    others = {other.acquisition: other for row in held for other in tx.companions(row) if other.acquisition not in why}
    reasons = [(other, why_kept(tx, other, why)) for other in others.values()]
    return [(other, reason) for other, reason in reasons if reason]


def why_kept(tx: Tx, row: Acquisition, why: Mapping[AcquisitionId, str]) -> str:
    """Why a stored acquisition stays on its camera because of another, with which it is erased or not at all.

    Empty where none of those speaks against it. `why` holds what is known beside the journal.
    """
    if row.state != State.STORED:
        return ""
    for other in tx.companions(row):
        reason = why.get(other.acquisition) or why_held(other) or _ON_ITS_WAY.get(State(other.state), "")
        if reason:
            return f"erased together with {encode_path(other.file.path)} or not at all, of which is to say: {reason}"
    return ""


def why_held(row: Acquisition) -> str:
    """Why an acquisition waits for a person; empty where it does not."""
    if row.state == State.QUARANTINED:
        return row.quarantine_reason or "quarantined"
    if row.state == State.NEEDS_SPOOL:
        return "it is larger than the spool can ever hold: give the spool a larger disk, or raise spool.max_bytes"
    if row.state == State.SPOILED:
        return f"its sealed file was lost on the dock: {row.quarantine_reason}; dock camera {row.camera.serial} again"
    if row.contested:
        return "kept, and never grounds for erasing: two reads disagree, or it was restored after a journal was lost"
    if row.state == State.STORED and row.sealed and row.sealed.verdict.status != "intact" and not row.released_by:
        return f"{row.sealed.verdict.status.value}: {'; '.join(row.sealed.verdict.reasons)}"
    return ""
