"""Clips that a docking leaves alone for a while, or until a person decides, and why. In memory, one per device."""

from __future__ import annotations

from dataclasses import dataclass

from dockd.core.backoff import CLIP
from dockd.model import AcquisitionId, Clock


@dataclass(slots=True)
class _Wait:
    why: str
    times: int
    due_s: float | None  # None: until it is forgotten
    resists: bool = False  # it is the medium, as far as anybody can tell


class Postponed:
    """Grows only with the clips that fail. Not for several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waits: dict[AcquisitionId, _Wait] = {}
        self._strikes: dict[AcquisitionId, int] = {}

    def later(self, clip: AcquisitionId, why: str) -> None:
        """Leave the clip alone for a while, twice as long each time in a row, a minute at most."""
        times = self._waits[clip].times + 1 if clip in self._waits else 1
        due_s = self._clock.monotonic_s() + CLIP.delay_s(times, bytes)  # alone with its camera: nothing is drawn
        self._waits[clip] = _Wait(why, times, due_s)

    def aside(self, clip: AcquisitionId, why: str, *, resists: bool = False) -> None:
        """Leave the clip alone until a person decides or the camera is docked again.

        `resists`: it could not be erased, or ended readers, so that the camera itself has to be looked at.
        """
        self._waits[clip] = _Wait(why, 1, None, resists)

    def strike(self, clip: AcquisitionId) -> int:
        """The clip ended a reader; returns how many by now."""
        self._strikes[clip] = self._strikes.get(clip, 0) + 1
        return self._strikes[clip]

    def forget(self, clip: AcquisitionId) -> None:
        """Nothing holds the clip back any more."""
        self._waits.pop(clip, None)
        self._strikes.pop(clip, None)

    def __contains__(self, clip: AcquisitionId) -> bool:
        wait = self._waits.get(clip)
        return wait is not None and (wait.due_s is None or wait.due_s > self._clock.monotonic_s())

    def __len__(self) -> int:
        return len(self._waits)

    def next_due_s(self) -> float | None:
        """When, on the monotonic clock, the first of those still waiting may be tried again."""
        now = self._clock.monotonic_s()
        return min(
            (wait.due_s for wait in self._waits.values() if wait.due_s is not None and wait.due_s > now), default=None
        )

    def why(self, clip: AcquisitionId) -> str:
        """Why it is left alone; empty where it is not."""
        return self._waits[clip].why if clip in self else ""

    def set_aside(self) -> dict[AcquisitionId, str]:
        """Those that only a person, or another docking, brings back, with why."""
        return {clip: wait.why for clip, wait in self._waits.items() if wait.due_s is None}

    def resisting(self) -> int:
        """How many of those were set aside because the camera's memory seems to fail there."""
        return sum(wait.resists for wait in self._waits.values())

    def reasons(self) -> dict[AcquisitionId, str]:
        """Those that are left alone now, with why."""
        return {clip: wait.why for clip, wait in self._waits.items() if clip in self}
