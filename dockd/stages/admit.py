"""Admit: identify what was plugged, decide, and open its docking in the journal. Nothing but its identity is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dockd.core.admission import admit as decide
from dockd.core.ids import uuid7
from dockd.core.lifecycle import DockingEvent
from dockd.devices.port import Attachment, DeviceSource, Plugged
from dockd.errors import CameraRefused
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


async def attach(
    plugged: Plugged, source: DeviceSource, docked: Callable[[], Iterable[tuple[BayNumber, CameraIdentity]]]
) -> Attachment:
    """Make the camera reachable if it may be read. Raises CameraRefused or CameraGone, with nothing left attached.

    `docked` is asked only after the camera named itself, so that of two with one serial one is always seen.
    """
    attachment = await source.attach(plugged)
    try:
        decide(attachment.identity, docked())
    except CameraRefused:
        await attachment.aclose()
        raise
    return attachment


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
