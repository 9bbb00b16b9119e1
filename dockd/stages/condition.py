"""What is to be remembered of a camera's file systems and clips from one docking to the next.

Small notes in the journal's settings: whether its file systems were found unclean by somebody else's doing, whether
this station was writing to them, and which erasures could not be verified.
"""

from __future__ import annotations

import structlog

from dockd.devices.port import Attachment
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import AcquisitionId, BayNumber, CameraIdentity, DockingId, Medium, MediumKind
from dockd.stages.stay import Stay

_log = structlog.get_logger()


def why_unclean(medium: Medium) -> str:
    """Which of its volumes are not clean, and why; empty where all are."""
    return "; ".join(f"{volume.name} {volume.dirty}".strip() for volume in medium.volumes if volume.dirty)


async def take_stock(
    attachment: Attachment, docking: DockingId, bay: BayNumber, journal: Journal, *, may_write: bool
) -> str:
    """At the start of a docking, before its reader: why no clip of it may be erased without a person; empty if none.

    A file system that somebody left unclean is read as it is, and the log says so; the clips on it wait for releases
    until the camera was seen empty. One that this station itself was writing to when it was cut off is not held
    against the camera. An ext4 of that kind first gets its journal replayed, by mounting it writable and read-only
    again: what the journal holds, the station wrote under warrants, and without it the listing would show the past.
    Not where `may_write` is false, as the medium did not take writes before. Raises CameraGone, EraseFailed.
    """
    if attachment.medium.kind is not MediumKind.VOLUMES:
        return ""
    camera = attachment.identity
    ours = bool(await journal.read(lambda tx: tx.get(_writing(camera))))
    before = why_unclean(attachment.medium)
    if may_write and ours and any(volume.dirty and volume.filesystem == "ext4" for volume in attachment.medium.volumes):
        await attachment.open_to_write()
        await attachment.open_to_read()
    now = why_unclean(attachment.medium)

    def change(tx: Tx) -> str:
        if before and ours:
            details = {"before": before, "now": now}
            tx.record("docking.writing_ended", bay=bay, docking=docking, camera=camera.serial, details=details)
        elif before:
            tx.record(
                "docking.unclean", bay=bay, docking=docking, camera=camera.serial, details={"file_systems": before}
            )
            tx.put(_unclean(camera), before)
        if ours and not now:
            tx.put(_writing(camera), "")
        return left_unclean(tx, camera)

    if not (before or ours):
        return await journal.read(lambda tx: left_unclean(tx, camera))
    if before:
        _log.warning("camera_unclean", bay=bay, camera=camera.serial, ours=ours, reason=before)
    return await journal.write(change)


async def note_writing(stay: Stay) -> None:
    """From here on it is this station that may leave the file systems unclean."""
    await stay.journal.write(lambda tx: tx.put(_writing(stay.camera), str(stay.docking)))


async def note_written(stay: Stay) -> None:
    """The volumes are mounted read-only again. One that is still marked as unclean stays the station's own doing.

    Linux leaves that mark of a FAT alone once it was set: only a fresh file system is without it.
    """
    if not why_unclean(stay.attachment.medium):
        await stay.journal.write(lambda tx: tx.put(_writing(stay.camera), ""))


def left_unclean(tx: Tx, camera: CameraIdentity) -> str:
    """Why clips of this camera need a release; empty where they need none."""
    return tx.get(_unclean(camera)) or ""


def seen_empty(tx: Tx, camera: CameraIdentity) -> None:
    """Nothing is on the camera: nothing that was found unclean is left."""
    if tx.get(_unclean(camera)):
        tx.put(_unclean(camera), "")


# --- erasures


def note_unverified(tx: Tx, stay: Stay, name: AcquisitionId, why: str) -> None:
    """A listing that no longer shows the clip must not count it as erased."""
    tx.put(_unverified(name), why)
    tx.record(
        "acquisition.erasure_unverified",
        bay=stay.bay,
        docking=stay.docking,
        acquisition=name,
        camera=stay.camera.serial,
        details={"reason": why},
    )


def why_unverified(tx: Tx, name: AcquisitionId) -> str:
    """Why an erasure could not be verified when it was made; empty where nothing is known against it."""
    return tx.get(_unverified(name)) or ""


def seen_again(tx: Tx, name: AcquisitionId) -> None:
    """The clip, or what is left of it, is on its camera: nothing is left to be verified of an erasure."""
    if tx.get(_unverified(name)):
        tx.put(_unverified(name), "")


def _unverified(name: AcquisitionId) -> str:
    return f"unverified:{name}"


def _writing(camera: CameraIdentity) -> str:
    return f"writing:{camera.serial}:{camera.volume_id}"


def _unclean(camera: CameraIdentity) -> str:
    return f"unclean:{camera.serial}:{camera.volume_id}"
