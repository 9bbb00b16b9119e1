"""One tree of errors. Each class says what its catcher should do; adapters translate into it once, with `from`."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Disposition(StrEnum):
    """What the catcher does with an error."""

    RETRY = "retry"  # the same call may succeed later
    QUARANTINE = "quarantine"  # a person has to look; everything else goes on
    FATAL = "fatal"  # the program ends, loudly


class DockdError(Exception):
    """The root. `str(error)` is one sentence for a person that says what to do, where something can be done."""

    disposition: ClassVar[Disposition] = Disposition.FATAL


class ConfigError(DockdError):
    """A configuration cannot be used. `problems` holds every mistake found, a line each."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class VerificationFailed(DockdError):
    """Bytes do not say what they should: a signature, a digest, a chain, a seal."""

    disposition = Disposition.QUARANTINE


class IllegalTransition(DockdError):
    """An event that its state does not allow. Nothing was changed."""


class JournalError(DockdError):
    """The journal or its custody mirror cannot be read, written or trusted."""


class JournalCorrupt(JournalError):
    """The journal's file is damaged or gone: it has to be rebuilt, as far as what is beside it proves it."""


# --- the control socket, from the asking side


class DaemonUnreachable(DockdError):
    """No daemon answers at the control socket."""

    disposition = Disposition.RETRY


class RequestRefused(DockdError):
    """The daemon answered that it will not. `kind` is "usage" or a disposition."""

    disposition = Disposition.QUARANTINE

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


# --- cameras and their reader


class CameraRefused(DockdError):
    """The device is not a camera that may be read; nothing on it was touched."""

    disposition = Disposition.QUARANTINE


class CameraTwice(CameraRefused):
    """A camera with the same serial is docked already. It may be tried again when that one left."""


class CameraNotEnrolled(CameraRefused):
    """Nobody enrolled the camera as it is now. It may be tried again when an operator did."""


class CameraBlank(CameraRefused):
    """The camera names itself, but a volume of it has no file system: it may be one whose `make_anew` was cut short."""

    def __init__(self, message: str, *, serial: str) -> None:
        super().__init__(message)
        self.serial = serial


class CameraNotReady(DockdError):
    """The camera cannot be had as things are now, and nothing speaks against it: that may pass by itself."""

    disposition = Disposition.RETRY


class CameraGone(DockdError):
    """The camera left its bay."""

    disposition = Disposition.RETRY


class ReaderDied(DockdError):
    """The reader process ended, or broke its protocol, before it answered."""

    disposition = Disposition.RETRY


class ReaderNotStarted(DockdError):
    """No reader could be started, for want of descriptors, memory or processes. That says nothing about the camera."""

    disposition = Disposition.RETRY


class ClipChanged(DockdError):
    """The clip is not the file it was when it was listed: other size, time, inode or content."""

    disposition = Disposition.RETRY


class ClipBusy(DockdError):
    """Some program has the clip open for writing."""

    disposition = Disposition.RETRY


class ClipGone(DockdError):
    """The clip is no longer on the camera."""

    disposition = Disposition.RETRY


class ClipRefused(DockdError):
    """The clip cannot be handled without a person, for instance a file with several links."""

    disposition = Disposition.QUARANTINE


class SpoolFull(DockdError):
    """The spool has no room for this clip now."""

    disposition = Disposition.RETRY


class SpoolSpoiled(DockdError):
    """A sealed file is not what was sealed, or is gone: what is pushed has to be read from its camera anew."""

    disposition = Disposition.QUARANTINE


class FilesystemUnclear(DockdError):
    """The structures of a file system contradict each other, or go beyond a cap. The sentence says which and where."""

    disposition = Disposition.QUARANTINE


class EraseFailed(DockdError):
    """An erasure could not be completed or not be verified; the clip counts as still on the camera."""

    disposition = Disposition.QUARANTINE


class WarrantRefused(DockdError):
    """A condition for erasing is not met. `reasons` names each."""

    disposition = Disposition.QUARANTINE

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("not erased: " + "; ".join(reasons))
        self.reasons = reasons


# --- stores


class DeliveryAwaits(DockdError):
    """A delivery has to wait for something that is no fault of the store: it is tried again after `wait_s`.

    Not sooner, whatever happens meanwhile: there may be as many of them as a camera has clips.
    """

    disposition = Disposition.RETRY
    wait_s: ClassVar[float] = 20.0


class StoreError(DockdError):
    """The root of what a store can answer amiss."""

    disposition = Disposition.RETRY


class StoreUnreachable(StoreError):
    """No usable answer: refused, reset, timed out, TLS broken, HTML from a captive portal.

    `silent`: nothing answered at all, so that the next question would wait as long.
    """

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class StoreLacks(StoreUnreachable):
    """The store itself answered, but without something that dockd needs: nothing goes there until it is mended.

    `what` names it: an operation, an element or a header.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"reached, but it lacks {what}")
        self.what = what


class StoreStopped(StoreError):
    """An unexpected error stopped the store (station.boundary): its word cannot be had until it is tried again."""


class StoreBusy(StoreError):
    """The store asks to come back later, after `retry_after_s` seconds where it said so.

    `pushed_back`: nothing is amiss with it, it only has too much to do.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, pushed_back: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.pushed_back = pushed_back


class OffsetConflict(StoreError):
    """The store's offset is not the one that was sent from: ask for it and go on there."""


class UploadLost(StoreError):
    """The store no longer knows this upload: register again; it may also be finished."""


class ObjectLost(UploadLost):
    """The store stands by its receipt, and no longer has the object as it was signed for: it takes it again."""


class StoreIncomplete(StoreError):
    """The store has not got all bytes of this acquisition yet: push the rest."""


class UploadCorrupt(StoreIncomplete):
    """What arrived at the store has another digest; it dropped it all. Look at the spool file, then send it again."""


class NotExtended(StoreError):
    """The store promises no more of this clip. `over`: what it promised has ended, or nearly: it is sent as a new one.

    Else its policy promises no more than it did, or it knows no extensions: a longer policy may change that.
    """

    def __init__(self, message: str, *, over: bool) -> None:
        super().__init__(message)
        self.over = over


class PatchTooLarge(StoreError):
    """The store, or something before it, takes only smaller pieces."""


class StoreRefused(StoreError):
    """The store will not take this acquisition, however often it is asked."""

    disposition = Disposition.QUARANTINE

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class StoreUntrusted(StoreError):
    """The store could not prove what it is, or contradicts what it signed before: hold, alarm, erase nothing."""

    disposition = Disposition.QUARANTINE


class StoreForgot(StoreUntrusted):
    """The store does not hold what it confirmed; `receipt_stands`: it knows of its receipt none the less."""

    def __init__(self, message: str, *, receipt_stands: bool = False) -> None:
        super().__init__(message)
        self.receipt_stands = receipt_stands


class StoreUnsuited(StoreError):
    """The store is there, and it and this station are not set up for each other: one repair by a person for all clips.

    It keeps clips for too short, does not know the station, or takes none that are sealed to these recipients
    (`of_one`: which is said of one clip; others may be sealed to others). Nothing is decided about a clip: it waits.
    """

    def __init__(self, message: str, *, of_one: bool = False) -> None:
        super().__init__(message)
        self.of_one = of_one


class StoreUnproven(StoreError):
    """The store contradicts nothing, but shows too little, or promises too little, to count: the clip is held."""
