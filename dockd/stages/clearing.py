"""Clear: make the volumes of an emptied camera anew, so that nothing of its free space is left either.

What is under way is noted in the journal, by the camera's serial, with all that is needed to finish it: a power cut may
leave a camera without any file system. The note says `wanted` from the first warrant on, `begun` before the first
sector is overwritten, and `made` when every volume has a file system again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import structlog

from dockd.core.profile import EraseMethod
from dockd.devices.blocker import DiscardUnsupported
from dockd.devices.port import Attachment
from dockd.errors import EraseFailed
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import BayNumber, MediumKind
from dockd.stages.condition import why_unclean
from dockd.stages.stay import Stay

_log = structlog.get_logger()

WANTED, BEGUN, MADE = "wanted", "begun", "made"

CLAIMS = {
    "clear": "every sector of the volume was overwritten with zeros through the device's interface (SP 800-88: Clear)",
    "discard": "the device was told to discard every sector of the volume; what it does with them, it alone knows",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the journal remembers of a clearing that is not finished."""

    method: str
    stage: str
    volume_id: str
    profile: str
    blueprint: str = ""  # devices.port: what `attach_blank` needs
    done: str = ""  # what `make_anew` said that it did


def noted(tx: Tx, serial: str) -> Note | None:
    """The note about a camera, if there is one."""
    text = tx.get(_key(serial))
    return Note(**json.loads(text)) if text else None


def resumable(tx: Tx, serial: str) -> Note | None:
    """The note of a clearing that may have left this camera blank, if the camera is still enrolled."""
    note = noted(tx, serial)
    if note is None or note.stage == WANTED or tx.enrolment(serial, [note.profile]) is None:
        return None
    return note


def want_clearing(tx: Tx, stay: Stay) -> None:
    """Clips are about to be erased: when all are gone, the profile may ask for more than that."""
    method = stay.attachment.profile.erase
    if method not in (EraseMethod.CLEAR, EraseMethod.DISCARD) or stay.attachment.medium.kind is not MediumKind.VOLUMES:
        return
    before = noted(tx, stay.camera.serial)
    if before is None or before.stage == MADE:  # what was made anew then is in use again
        note = Note(
            method=method.value,
            stage=WANTED,
            volume_id=stay.camera.volume_id,
            profile=stay.attachment.profile.name,
        )
        _put(tx, stay.camera.serial, note)


async def clear(stay: Stay, note: Note, others: int, unaccounted: str | None) -> bool:
    """Clear the camera, which a listing just showed to be without clips; whether it was done.

    Where it may not be, the clips stay deleted and no more, and the log says why: `others` files are no clips, a file
    system was not clean, some block is taken by nothing that was listed. `unaccounted` says what the plan of this
    docking's newest batch found of that; None: there was no batch, and it has to be looked for now. Once begun it must
    be finished: raises EraseFailed, CameraGone or ReaderDied, and what a later docking has to do is noted.
    """
    if note.stage != MADE or others:
        reason = await _why_not(stay, note, others, unaccounted)
        if reason:
            await _decline(stay, note, reason)
            return False
        note = await _begin(stay, note)
        await stay.reader.let_go()
        try:
            note = await make(stay.attachment, note, stay.journal)
        except DiscardUnsupported as error:  # nothing was changed; the docking ends, as the volumes are not mounted
            await _decline(stay, note, str(error))
            raise
        await stay.attachment.open_to_read()
        await stay.reader.take(stay.attachment.medium)
    checked = await stay.reader.verify_empty(note.method)
    details = {"method": note.method, "claimed": CLAIMS[note.method], "done": note.done, "checked": checked}

    def change(tx: Tx) -> None:
        _record(tx, stay, "docking.cleared", details)
        tx.put(_key(stay.camera.serial), "")

    await stay.journal.write(change)
    _log.info("camera_cleared", bay=stay.bay, camera=stay.camera.serial, method=note.method)
    return True


async def make(attachment: Attachment, note: Note, journal: Journal) -> Note:
    """Make the volumes of an attached camera anew, under a note that says `begun`; returns it as `made`.

    Nothing may have them mounted. Raises EraseFailed, CameraGone; the note stays `begun` then, and it can be tried
    again.
    """
    made = replace(note, stage=MADE, done=await attachment.make_anew(note.method))
    serial = attachment.identity.serial
    await journal.write(lambda tx: _put(tx, serial, made))
    return made


async def resume(attachment: Attachment, note: Note, bay: BayNumber, journal: Journal) -> None:
    """Give a camera that was left blank its file systems back; a docking then verifies them. Raises as `make`."""
    camera = attachment.identity
    details = {"method": note.method, "volume_id": note.volume_id}
    await journal.write(lambda tx: tx.record("camera.clearing_resumed", bay=bay, camera=camera.serial, details=details))
    await make(attachment, note, journal)


async def _why_not(stay: Stay, note: Note, others: int, unaccounted: str | None) -> str:
    """Why the clips stay deleted and no more. Raises CameraGone, ReaderDied."""
    unclean = stay.unclean or why_unclean(stay.attachment.medium)
    reasons = {
        "its profile no longer asks for it": note.method != stay.attachment.profile.erase,
        f"its file system is {stay.camera.volume_id} now, not {note.volume_id}": note.volume_id
        != stay.camera.volume_id,
        f"not clean: {unclean}": bool(unclean),
        f"files on it that are no clips: {others}": bool(others),
    }
    reason = next((words for words, so in reasons.items() if so), "")
    if reason:
        return reason
    if unaccounted is not None:  # the reader still knows where those clips lay: a new plan would make it forget
        return unaccounted
    try:
        return (await stay.reader.plan_erasing({})).unaccounted
    except EraseFailed as error:
        return str(error)


async def _begin(stay: Stay, note: Note) -> Note:
    """The commit point: from here on the camera may be without a file system, and a later docking finishes it."""
    begun = replace(note, stage=BEGUN, blueprint=stay.attachment.blueprint)

    def change(tx: Tx) -> None:
        _put(tx, stay.camera.serial, begun)
        details = {"method": note.method, "volume_id": note.volume_id}
        _record(tx, stay, "docking.clearing", details)

    await stay.journal.write(change)
    return begun


async def _decline(stay: Stay, note: Note, reason: str) -> None:
    def change(tx: Tx) -> None:
        details = {"method": note.method, "instead": "delete", "reason": reason}
        _record(tx, stay, "docking.not_cleared", details)
        tx.put(_key(stay.camera.serial), "")

    await stay.journal.write(change)
    _log.warning("camera_not_cleared", bay=stay.bay, camera=stay.camera.serial, reason=reason)


def _record(tx: Tx, stay: Stay, event: str, details: dict[str, str]) -> None:
    tx.record(event, bay=stay.bay, docking=stay.docking, camera=stay.camera.serial, details=details)


def _put(tx: Tx, serial: str, note: Note) -> None:
    tx.put(_key(serial), json.dumps(asdict(note), sort_keys=True))


def _key(serial: str) -> str:
    return f"clearing:{serial}"
