"""What this life of the program knows of the uploads to one store: tries, waits, and how fast they are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from dockd.core.backoff import Backoff, Pause
from dockd.core.manners import Begun
from dockd.model import AcquisitionId
from dockd.stages.upload import Track
from dockd.station.progress import Progress

_PHASE, _ALL = "upload", AcquisitionId("")  # the rate is that of all uploads together


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One acquisition's history."""

    track: Track = field(default_factory=Track)
    pause: Pause = field(default_factory=Pause)
    begun: Begun = field(default_factory=Begun)  # of the newest try
    excused: bool = False  # no request failed: the store had too much to do, or something else is waited for
    in_turn: bool = False  # it has the place that goes from camera to camera
    rate: Progress = field(default_factory=Progress)
    counted_bytes: int | None = None  # of `track.sent_bytes`, those that the rate knows; None before the first answer
    moved_bytes: int = 0  # sent in this life, for the rate

    @property
    def failed(self) -> bool:
        """Whether another try is a retry."""
        return self.pause.failures > 0 and not self.excused


class Attempts:
    """Of the acquisitions that are being sent, wait or are held; all others are forgotten. Not for several threads."""

    def __init__(self) -> None:
        self._of: dict[AcquisitionId, Attempt] = {}
        self._active: set[AcquisitionId] = set()
        self._rate = Progress()
        self._moved_bytes = 0

    @property
    def active(self) -> frozenset[AcquisitionId]:
        """Those that are being sent."""
        return frozenset(self._active)

    @property
    def in_turn(self) -> bool:
        """Whether one of these has the place that goes from camera to camera."""
        return any(self._of[one].in_turn for one in self._active)

    def of(self, acquisition: AcquisitionId) -> Attempt:
        """What is known of it."""
        return self._of[acquisition]

    def waits(self, now_s: float, retry_left_s: float) -> dict[AcquisitionId, float]:
        """For how many seconds each that is not being sent still waits; one that failed, at least `retry_left_s`."""
        return {
            one: max(entry.pause.left_s(now_s), retry_left_s if entry.failed else 0.0)
            for one, entry in self._of.items()
            if one not in self._active
        }

    def begin(self, acquisition: AcquisitionId) -> Attempt:
        """It is being sent from now on."""
        self._active.add(acquisition)
        return self._of.setdefault(acquisition, Attempt())

    def end(self, acquisition: AcquisitionId) -> None:
        """It is no longer being sent."""
        self._active.discard(acquisition)

    def forget(self, acquisition: AcquisitionId) -> None:
        """It is done with."""
        self._of.pop(acquisition, None)

    def gone(self, listed: Collection[AcquisitionId]) -> list[AcquisitionId]:
        """Those that are not among the listed ones, which are all that are still to be sent."""
        return [one for one in self._of if one not in listed and one not in self._active]

    def hasten(self, backoff: Backoff) -> None:
        """Cut the waits short, except bidden ones."""
        for entry in self._of.values():
            entry.pause = entry.pause.hastened(backoff)

    def settle(self) -> None:
        """Nobody waits any longer."""
        for entry in self._of.values():
            entry.pause = Pause()

    # --- for people to look at

    def note(self, acquisition: AcquisitionId, track: Track, now_s: float) -> None:
        """Bytes went out, or the store told what it has."""
        entry = self._of[acquisition]
        if entry.counted_bytes is not None:  # what was there before this life's first answer was not sent now
            sent_bytes = max(0, track.sent_bytes - entry.counted_bytes)
            self._moved_bytes += sent_bytes
            entry.moved_bytes += sent_bytes
            self._rate.report(_ALL, _PHASE, self._moved_bytes, now_s)
            entry.rate.report(acquisition, _PHASE, entry.moved_bytes, now_s)
        entry.counted_bytes = track.sent_bytes

    def progress(self, acquisition: AcquisitionId) -> int:
        """Bytes of an acquisition sent so far; 0 for one that is not known."""
        entry = self._of.get(acquisition)
        return 0 if entry is None else entry.track.sent_bytes

    def rate_bytes_s(self, acquisition: AcquisitionId | None, now_s: float) -> int:
        """Bytes a second of one upload, or of all, over the last seconds."""
        if acquisition is None:
            return self._rate.rate_bytes_s(now_s)
        entry = self._of.get(acquisition)
        return 0 if entry is None else entry.rate.rate_bytes_s(now_s)
