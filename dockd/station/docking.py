"""A docking: one device in one bay, from plug to unplug.

When its reader dies, the docking ends in the journal and a new one begins, with a new epoch: no second read that was
made before counts any more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from dockd.core.backoff import DOCKING, NOT_READY
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState, DockingEvent, DockingState
from dockd.core.profile import Profile
from dockd.core.sshsig import SigningKey
from dockd.devices.port import Attachment, DeviceSource, Plugged
from dockd.errors import (
    CameraBlank,
    CameraGone,
    CameraNotEnrolled,
    CameraNotReady,
    CameraRefused,
    CameraTwice,
    Disposition,
    DockdError,
    EraseFailed,
    ReaderDied,
    ReaderNotStarted,
    SpoolFull,
)
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.keep.transaction import Tx
from dockd.model import AcquisitionId, BayNumber, CameraIdentity, Clock, DockingId, Entropy, StationId
from dockd.reader.client import ClipRules, ForkServer
from dockd.stages import clearing
from dockd.stages.admit import identify, open_docking
from dockd.stages.condition import take_stock
from dockd.stages.stay import Stay, in_spool
from dockd.station.course import Course
from dockd.station.postponed import Postponed
from dockd.station.progress import Progress
from dockd.station.surroundings import Surroundings

_log = structlog.get_logger()

READERS_LIMIT = 6  # readers that die on one device before a person has to look
ERASURES_LIMIT = 3  # dockings of one device that end in its erasing, and nothing is erased from it any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every docking of a station works with."""

    station: StationId
    journal: Journal
    spool: Spool
    forkserver: ForkServer
    manifest_key: SigningKey
    recipients: tuple[str, ...]
    rules: Callable[[Profile], ClipRules]
    clock: Clock
    random: Entropy
    around: Surroundings
    docked: Callable[[], Iterable[tuple[BayNumber, CameraIdentity]]]


class Docking:
    """Owns one device in one bay. `run` ends by cancellation only: an undocking and a stop both reach it that way."""

    def __init__(self, plugged: Plugged, source: DeviceSource, parts: Parts) -> None:
        self.plugged = plugged
        self.camera: CameraIdentity | None = None  # while it is attached
        self.docking: DockingId | None = None
        self.progress = Progress()
        self.postponed = Postponed(parts.clock)
        self._state = "identifying"
        self._note = ""
        self._course: Course | None = None
        self._source = source
        self._parts = parts
        self._changed = asyncio.Event()
        self._deaths = 0
        self._not_ready = 0  # times in a row
        self._interrupted = 0  # times in a row before it was admitted
        self._was_erasing = False  # when its newest docking ended
        self._spoilt = 0  # dockings that ended because what was to be erased could not be
        self._forbidden = ""  # why nothing is erased from it any more

    @property
    def state(self) -> str:
        """What status shows: a DockingState, "identifying", or "interrupted" between two stays."""
        return self._course.state.value if self._course else self._state

    @property
    def note(self) -> str:
        """Why it stands where it stands, where there is something to say."""
        return self._course.note if self._course else self._note

    def changed(self) -> None:
        """Something about this docking's acquisitions changed in the journal."""
        self._changed.set()

    def decided(self, clip: AcquisitionId) -> None:
        """An operator decided about a clip: what held it back before counts no more."""
        self.postponed.forget(clip)
        self.changed()

    async def run(self) -> None:
        """Dock, and stay docked. A DockdError ends at this boundary, unless it is fatal to the whole station."""
        while True:
            pause_s = 0.0
            try:
                await self._stay()
            except (CameraTwice, CameraNotEnrolled) as refusal:  # until the other left, or an operator decided
                await self._refuse(str(refusal), until=self._changed)
            except CameraBlank as blank:
                await self._give_back(blank)
            except CameraRefused as refusal:
                await self._refuse(str(refusal), until=asyncio.Event())
            except (CameraNotReady, ReaderNotStarted) as error:
                pause_s = await self._note_not_ready(error)
            except DockdError as error:
                if error.disposition is Disposition.FATAL:
                    raise
                self._deaths += isinstance(error, ReaderDied)
                if isinstance(error, EraseFailed) or (self._was_erasing and isinstance(error, CameraGone)):
                    self._note_spoilt(error)
                self._state, self._note = "interrupted", str(error)
            _log.warning("docking_interrupted", bay=self.plugged.bay, device=self.plugged.device, reason=self._note)
            if self._deaths >= READERS_LIMIT:
                await self._refuse(
                    f"{self._deaths} readers died on this camera: have it examined", until=asyncio.Event()
                )
            await self._parts.clock.sleep(pause_s or self._interruption_s())

    async def _stay(self) -> None:
        parts = self._parts
        self._changed.clear()  # what comes to pass from here on may change the answer
        self._was_erasing = False
        candidate = await identify(self.plugged, self._source, parts.docked, journal=parts.journal)
        self.camera = candidate.identity  # before anything is awaited: the next camera with this serial is refused
        try:
            attachment = await self._source.attach(self.plugged, candidate)
            try:
                async with self._admitted(attachment) as stay:
                    self._not_ready = self._interrupted = 0
                    self._course = Course(stay, parts.around, self.postponed, self._changed, self._forbidden)
                    await self._course.run()
            finally:
                self._was_erasing = self._course is not None and self._course.state is DockingState.SANITISING
                self._course = None
                await attachment.aclose()
        finally:
            self.camera = None

    @asynccontextmanager
    async def _admitted(self, attachment: Attachment) -> AsyncIterator[Stay]:
        """A docking that is open in the journal, with a live reader. However it is left, both are ended."""
        parts = self._parts
        admission = await open_docking(
            self.plugged, attachment, "", journal=parts.journal, clock=parts.clock, random=parts.random
        )
        self.docking = admission.docking
        reason = "undocked, or the station stopped"
        incoming = -1
        try:
            unclean = await take_stock(
                attachment, admission.docking, self.plugged.bay, parts.journal, may_write=not self._forbidden
            )
            incoming = await in_spool(parts.spool.open_incoming, admission.docking)
            reader = await parts.forkserver.reader(
                docking=admission.docking,
                epoch=admission.epoch,
                bay=self.plugged.bay,
                medium=attachment.medium,
                incoming_fd=incoming,
                identity=attachment.identity,
                recipients=parts.recipients,
                rules=parts.rules(attachment.profile),
                on_progress=self._on_progress,
            )
            try:
                yield Stay(
                    station=parts.station,
                    docking=admission.docking,
                    epoch=admission.epoch,
                    bay=self.plugged.bay,
                    camera=attachment.identity,
                    attachment=attachment,
                    reader=reader,
                    journal=parts.journal,
                    spool=parts.spool,
                    manifest_key=parts.manifest_key,
                    clock=parts.clock,
                    random=parts.random,
                    unclean=unclean,
                )
            finally:
                await reader.kill()
        except DockdError as error:
            reason = str(error)
            raise
        finally:
            if incoming >= 0:
                os.close(incoming)
            await parts.journal.write(lambda tx: end_docking(tx, admission.docking, reason))
            parts.around.wake_uplink()  # a clip that was sealed at the last moment: nobody was left to say so
            with suppress(SpoolFull):  # swept at the next start
                await in_spool(parts.spool.drop_incoming, admission.docking)

    async def _give_back(self, blank: CameraBlank) -> None:
        """A camera without a file system: finish what left it so, or refuse it. Then it is looked at anew."""
        parts, bay = self._parts, self.plugged.bay
        note = await parts.journal.read(lambda tx: clearing.resumable(tx, blank.serial))
        if note is None:
            await self._refuse(str(blank), until=asyncio.Event())
            return
        twin = next((other for other, camera in parts.docked() if camera.serial == blank.serial), None)
        if twin is not None:  # what the note is about may be under way there
            await self._refuse(f"a camera with this serial is docked in bay {twin}", until=self._changed)
            return
        self.camera = CameraIdentity(serial=blank.serial, model="", volume_id=note.volume_id)
        self._state, self._note = "clearing", f"it is given its file systems back: {blank}"
        try:
            attachment = await self._source.attach_blank(self.plugged, note.blueprint)
            try:
                await clearing.resume(attachment, note, bay, parts.journal)
            finally:
                await attachment.aclose()
        except CameraRefused as refusal:
            await self._refuse(str(refusal), until=asyncio.Event())
        except DockdError as error:
            if error.disposition is Disposition.FATAL:
                raise
            self._spoilt += isinstance(error, EraseFailed)
            self._state, self._note = "interrupted", str(error)
            if self._spoilt >= ERASURES_LIMIT:
                await self._refuse(f"it cannot be given a file system: {error}", until=asyncio.Event())
        finally:
            self.camera = None

    def _interruption_s(self) -> float:
        """Seconds until an interrupted docking is begun again."""
        self._interrupted += 1
        return DOCKING.delay_s(self._interrupted, self._parts.random)

    async def _note_not_ready(self, error: CameraNotReady | ReaderNotStarted) -> float:
        """Say that nothing speaks against it, the first time in the log too. Returns when to try again, in seconds."""
        parts, plugged = self._parts, self.plugged
        self._state, self._note = "interrupted", f"{error}; it is tried again by itself"
        self._not_ready += 1
        if self._not_ready == 1:
            details = {"label": plugged.label, "reason": str(error)}
            await parts.journal.write(lambda tx: tx.record("docking.not_ready", bay=plugged.bay, details=details))
        return NOT_READY.delay_s(self._not_ready, parts.random)

    def _note_spoilt(self, error: DockdError) -> None:
        """A medium that does not take what is written to it would be read, erased and read again for ever.

        To its reader it may seem to be gone, as then it gives nothing; but what is gone is not docked here again.
        """
        self._spoilt += 1
        if self._spoilt >= ERASURES_LIMIT:
            self._forbidden = f"{self._spoilt} times it could not be erased: have it examined; the last time: {error}"

    async def _refuse(self, reason: str, *, until: asyncio.Event) -> None:
        """Say why, and leave the device alone until it is taken out, or `until` says that it may be tried again."""
        parts = self._parts
        admission = await open_docking(
            self.plugged, None, reason, journal=parts.journal, clock=parts.clock, random=parts.random
        )
        self.docking, self._state, self._note = admission.docking, DockingState.REFUSED.value, reason
        _log.warning("camera_refused", bay=self.plugged.bay, device=self.plugged.device, reason=reason)
        try:
            await until.wait()
        finally:
            reason = "taken out, tried again, or the station stopped"
            await parts.journal.write(lambda tx: end_docking(tx, admission.docking, reason))

    def _on_progress(self, clip: AcquisitionId, phase: str, done_bytes: int, _size_bytes: int) -> None:
        self.progress.report(clip, phase, done_bytes, self._parts.clock.monotonic_s())


def end_docking(tx: Tx, docking: DockingId, reason: str) -> None:
    """End a docking: a read that was under way is abandoned, and the clip is found again by the next listing.

    A clip whose erasure was under way stays `warranted`: only the next listing of its camera can tell what became
    of it.
    """
    for row in tx.acquisitions(state=AcquisitionState.ACQUIRING, docking=docking):
        tx.advance(row.acquisition, AcquisitionEvent.READ_ABANDONED, details={"reason": reason})
    tx.advance_docking(docking, DockingEvent.ENDED, {"reason": reason})
