"""Sanitise: obtain the erase warrant, make it durable, erase under it, look again, and record what was seen.

This module erases one clip at a time, which is enough for a folder and for MTP; dockd.stages.batch erases the clips of
mounted volumes together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from dockd.core import releases
from dockd.core import warrant as warrants
from dockd.core.canonical import encode_path
from dockd.core.lifecycle import AcquisitionEvent as Event
from dockd.core.lifecycle import AcquisitionState, DeliveryState
from dockd.core.manifest import decode
from dockd.core.policy import StorePolicy
from dockd.core.warrant import Confirmation, EraseWarrant
from dockd.errors import (
    ClipBusy,
    ClipChanged,
    ClipGone,
    ClipRefused,
    EraseFailed,
    IllegalTransition,
    SpoolFull,
    StoreError,
    StoreUntrusted,
    VerificationFailed,
    WarrantRefused,
)
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Erasure, FoundFile, StoreId
from dockd.stages.clearing import want_clearing
from dockd.stages.confirming import Confirming
from dockd.stages.stay import Stay, in_spool

_log = structlog.get_logger()

UNTOUCHED = (EraseFailed, ClipBusy, ClipChanged, ClipGone, ClipRefused)  # by these the reader says: not begun

CLAIMS = {
    "delete": "its blocks were overwritten with zeros through the file system, and its name was removed; copies that "
    "the medium keeps out of reach may remain",
    "logical-delete": "the camera was told to delete it; nothing is known about its memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Whom to ask right before erasing. The calls do not wait."""

    policy: StorePolicy
    confirmers: Callable[[], Sequence[Confirming]]  # of all stores, those that answer first
    doubt: Callable[[StoreId, AcquisitionId, str], None]  # this store does not hold what it confirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """A warrant, and what it is for: a clip, or what an interrupted erasure left of one."""

    row: Acquisition
    warrant: EraseWarrant
    remnant: FoundFile | None

    @property
    def file(self) -> FoundFile:
        """What may be erased."""
        return self.remnant or self.row.file


async def sanitise(stay: Stay, permits: Sequence[Permit]) -> None:
    """Erase the first of those of one family that are left, all under warrants that `commit` made durable.

    Its row is `erased` then. Raises EraseFailed, ClipBusy, ClipChanged, ClipGone or ClipRefused with it untouched: its
    row and those of all the others are `stored` then, but for a remnant, which stays `warranted`. Raises CameraGone or
    ReaderDied with the rows `warranted`: the next listing of the camera tells what became of them. After cancellation
    it may be either.
    """
    permit = permits[0]
    try:
        erasure = await stay.reader.erase(permit.warrant, permit.file)
    except UNTOUCHED as error:
        await lapse(stay, permits, str(error))
        raise
    await record(stay, permit, erasure, erasure.checked)


async def permit(stay: Stay, row: Acquisition, asking: Asking, *, remnant: FoundFile | None) -> Permit:
    """Obtain the warrant. All that it needs is asked for anew, right now; nothing is recorded yet.

    A remnant bears the acquisition's name, which it was given under a durable warrant, and is not a clip any more:
    part of it is overwritten, so it cannot be compared again. As many stores as the policy needs are asked again.
    Raises WarrantRefused, a StoreError, VerificationFailed or CameraGone.
    """
    if (
        row.sealed is None
        or row.reread is None
        or row.state not in (AcquisitionState.STORED, AcquisitionState.WARRANTED)
    ):
        raise WarrantRefused(("the clip was not sealed, stored and read a second time",))
    if remnant is None:
        await _require_whole(stay, row)
    manifest = decode((await stay.journal.read(lambda tx: tx.manifest(row.acquisition))).payload)
    needed = releases.grounds(manifest.verdict, manifest.size_bytes, stay.unclean)
    if missing := releases.uncovered(needed, row.released_for):  # as the warrant would say, but no store is asked
        raise WarrantRefused(tuple(map(releases.sentence, missing)))
    confirmations = await _confirmations(stay, row, asking)
    warrant = warrants.issue(
        acquisition=row,
        manifest=manifest,
        confirmations=confirmations,
        policy=asking.policy,
        reread=row.reread,
        docking=stay.docking,
        epoch=stay.epoch,
        camera_now=await stay.attachment.identify_again(),
        custody_durable_size=stay.journal.durable_size,
        now=stay.clock.now(),
        remnant=remnant,
        unclean=stay.unclean,
    )
    return Permit(row=row, warrant=warrant, remnant=remnant)


async def _confirmations(stay: Stay, row: Acquisition, asking: Asking) -> list[Confirmation]:
    """The word of as many stores as the policy needs. One that does not answer hinders nothing where others suffice.

    Raises what the last of them answered where they do not suffice, and StoreUntrusted at once: a contradiction of a
    store that counts is a matter for a person, whatever the others say.
    """
    deliveries = await stay.journal.read(lambda tx: tx.deliveries(row.acquisition))
    confirmed = {one.store for one in deliveries if one.state is DeliveryState.CONFIRMED}
    found: list[Confirmation] = []
    failed: StoreError | VerificationFailed | None = None
    for one in asking.confirmers():
        if one.of not in confirmed or not asking.policy.counts(one.of):
            continue
        try:
            await one.prolong(row.acquisition)
            found.append(await one.ask_again(row.acquisition))
        except StoreUntrusted as error:
            asking.doubt(one.of, row.acquisition, str(error))
            raise
        except (StoreError, VerificationFailed) as error:
            _log.info("store_not_asked", acquisition=row.acquisition, store=one.of, reason=str(error))
            failed = error
        if asking.policy.satisfied([said.store for said in found]):
            return found
    if failed is not None:
        raise failed
    return found  # too few: the warrant's refusal says whose word is missing


async def _require_whole(stay: Stay, row: Acquisition) -> None:
    """Raise WarrantRefused where something that may belong to a clip could not be looked into: both stay then."""
    if not stay.attachment.profile.files.sidecars:
        return
    refused = await stay.journal.read(lambda tx: tx.refused_beside(row))
    if refused is not None:
        beside = encode_path(refused.file.path)
        raise WarrantRefused((f"{beside}, which may belong to it, could not be looked into: {refused.reason}",))


async def commit(stay: Stay, permits: Sequence[Permit]) -> None:
    """Make warrants durable in journal and mirror, all or none; only from then on may a byte on the camera change.

    Raises WarrantRefused where a row moved on since its warrant was issued, or what the warrant rests on is no longer
    fresh, or no longer promised for long enough.
    """

    def change(tx: Tx) -> None:
        now = stay.clock.now()  # in the transaction itself, which may have had to wait for others
        for one in permits:
            warrants.require_standing(one.warrant, now)
        want_clearing(tx, stay)
        for one in permits:
            details = {"warrant": warrants.to_wire(one.warrant)}
            if one.remnant is None:
                tx.advance(one.row.acquisition, Event.WARRANTED, details=details)
                continue
            row = tx.acquisition(one.row.acquisition)
            if row is None or row.state != AcquisitionState.WARRANTED:
                raise IllegalTransition(f"what is left of {one.row.acquisition} is under no warrant any more")
            tx.record(  # in this docking: the row still names the one of its warrant
                "acquisition.erasure_resumed",
                bay=stay.bay,
                docking=stay.docking,
                acquisition=row.acquisition,
                camera=stay.camera.serial,
                details=details,
            )

    try:
        await stay.journal.write(change)
    except IllegalTransition as error:
        raise WarrantRefused((str(error),)) from error


async def lapse(stay: Stay, permits: Sequence[Permit], reason: str) -> None:
    """Take back durable warrants under which nothing was changed. What is a remnant stays `warranted`: it is none."""

    def change(tx: Tx) -> None:
        for one in permits:
            if one.remnant is None:
                tx.advance(one.row.acquisition, Event.LAPSED, details={"reason": reason})

    await stay.journal.write(change)


async def record(stay: Stay, permit: Permit, erasure: Erasure, checked: str) -> Acquisition:
    """Count a clip as erased: what was done, what is claimed for it, and what the look afterwards established."""
    name = permit.row.acquisition
    details = {
        "method": erasure.method,
        "claimed": CLAIMS.get(erasure.method, ""),
        "overwritten_bytes": erasure.overwritten_bytes,
        "checked": checked,
    }
    row = await stay.journal.write(lambda tx: tx.advance(name, Event.ERASED, details=details, docking=stay.docking))
    _log.info("clip_erased", bay=stay.bay, camera=stay.camera.serial, acquisition=name)
    if await stay.journal.read(lambda tx: tx.lacking(name)):
        return row  # another store is still to get it
    try:
        await in_spool(stay.spool.discard, name)
    except SpoolFull as error:  # tidying finds it again
        _log.warning("sealed_file_not_discarded", acquisition=name, reason=str(error))
    return row
