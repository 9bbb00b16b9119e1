"""How fast a bay moves: bytes done over a short sliding window. In memory only; nothing depends on it."""

from __future__ import annotations

from collections import deque

from dockd.model import AcquisitionId

_WINDOW_S = 5.0
_STEP_S = 0.2  # samples closer together than this are merged, so that the window stays small


class Progress:
    """Bytes that the reader of one docking has moved. Not for several threads."""

    def __init__(self) -> None:
        self._total = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._clip: AcquisitionId | None = None
        self._phase = ""
        self._done = 0

    def report(self, clip: AcquisitionId, phase: str, done_bytes: int, now_s: float) -> None:
        """The reader is `done_bytes` into `phase` ("acquire", "reread", "erase") of `clip`."""
        if (clip, phase) != (self._clip, self._phase):
            self._clip, self._phase, self._done = clip, phase, 0
        self._total += max(0, done_bytes - self._done)
        self._done = done_bytes
        if not self._samples or now_s - self._samples[-1][0] >= _STEP_S:
            self._samples.append((now_s, self._total))
        while self._samples and now_s - self._samples[0][0] > _WINDOW_S:
            self._samples.popleft()

    def acquiring_bytes(self) -> int:
        """Bytes of the clip that is being acquired right now; 0 in any other phase."""
        return self._done if self._phase == "acquire" else 0

    def finished(self, clip: AcquisitionId) -> None:
        """The clip's phase is over: what it added is counted elsewhere from now on."""
        if clip == self._clip:
            self._clip, self._phase, self._done = None, "", 0

    def rate_bytes_s(self, now_s: float) -> int:
        """Bytes a second over the last seconds; 0 when nothing moved."""
        if len(self._samples) < 2 or now_s - self._samples[-1][0] > _WINDOW_S:  # noqa: PLR2004  a rate needs two samples
            return 0
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return int((last - first) / max(last_s - first_s, _STEP_S))
