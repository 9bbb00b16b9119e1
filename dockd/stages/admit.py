"""Admit: identify what was plugged, decide, and open its docking in the journal. Nothing but its identity is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from dockd.core.admission import Enrolment
from dockd.core.admission import admit as decide
from dockd.core.ids import uuid7
from dockd.core.lifecycle import DockingEvent
from dockd.devices.port import Attachment, Candidate, DeviceSource, Plugged
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import BayNumber, CameraIdentity, Clock, DockingId, Entropy, Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of an arrival. `attachment` is None where it was refused, and `refusal` says why."""

    docking: DockingId
    epoch: Epoch
    attachment: Attachment | None
    refusal: str = ""


async def identify(
    plugged: Plugged,
    source: DeviceSource,
    docked: Callable[[], Iterable[tuple[BayNumber, CameraIdentity]]],
    *,
    journal: Journal,
) -> Candidate:
    """Who it is, if it may be attached; with no profiles but those that admit it.

    Raises CameraRefused, CameraNotReady or CameraGone. `docked` is asked last, and nothing is awaited after that: of
    two with one serial, one is always seen, if the caller notes the other before it awaits anything.
    """
    candidate = await source.identify(plugged)
    enrolment = await journal.read(partial(_enrolment, candidate))
    decide(candidate.identity, enrolment, docked())
    if enrolment is None or enrolment.profile is None:
        return candidate
    enrolled = tuple(profile for profile in candidate.profiles if profile.name == enrolment.profile)
    return replace(candidate, profiles=enrolled)


def _enrolment(candidate: Candidate, tx: Tx) -> Enrolment | None:
    """Which operator's word admits it. What made a folder a camera admits it, too."""
    if candidate.enrolled:
        return Enrolment(profile=None, volume_seen=None)
    serial = candidate.identity.serial
    record = tx.enrolment(serial, [profile.name for profile in candidate.profiles])
    if record is None:
        return None
    profile = record.name if record.kind == "profile" else None
    return Enrolment(profile=profile, volume_seen=tx.volume_seen(serial, record.since_epoch))


async def open_docking(
    plugged: Plugged, attachment: Attachment | None, refusal: str, *, journal: Journal, clock: Clock, random: Entropy
) -> Admission:
    """Journal a docking, admitted or refused, under a fresh id and epoch."""
    docking = DockingId(uuid7(clock.now(), random(10)))

    def change(tx: Tx) -> Epoch:
        epoch = tx.next_epoch()
        tx.begin_docking(
            docking,
            epoch,
            plugged.bay,
            plugged.device,
            attachment.identity if attachment else None,
            DockingEvent.ADMITTED if attachment else DockingEvent.REFUSED,
            {"label": plugged.label, "reason": refusal} if refusal else {"label": plugged.label},
        )
        return epoch

    epoch = await journal.write(change)
    return Admission(docking=docking, epoch=epoch, attachment=attachment, refusal=refusal)
