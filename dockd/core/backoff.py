"""How long to wait before asking again: full jitter, and a circuit that lets one probe through at a time.

Pure: the caller brings the time (seconds of a monotonic clock) and the randomness.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dockd.model import Entropy

_MAX_DOUBLINGS = 32  # beyond it the cap has long been reached; keeps 2**n small
_FRACTION_BYTES = 6  # 48 bits: exact in a float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Full jitter: a delay drawn evenly from nothing to a ceiling that doubles with each failure.

    Drawing from the whole range spreads docks that lost the same store at the same instant; the floor keeps an
    unlucky draw from turning into a busy loop.
    """

    first_s: float = 0.5  # the first ceiling: a store that only restarted is found soon
    cap_s: float = 60.0
    floor_s: float = 0.05

    def delay_s(self, failures: int, random: Entropy) -> float:
        """Seconds to wait after `failures` failures in a row (from 1)."""
        if failures < 1:
            raise ValueError("nothing failed yet")
        ceiling_s = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
        fraction = int.from_bytes(random(_FRACTION_BYTES), "big") / 2 ** (8 * _FRACTION_BYTES)
        return max(self.floor_s, float(ceiling_s * fraction))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A wait after failures in a row: of one acquisition, or of a whole store."""

    failures: int = 0
    failed_at_s: float = 0.0
    due_s: float = 0.0  # not before this instant
    bidden: bool = False  # the other side named the time: it is not cut short

    def after_failure(
        self, now_s: float, random: Entropy, backoff: Backoff, *, retry_after_s: float | None = None
    ) -> Pause:
        """The wait that follows one more failure; what the other side asked for is the least."""
        failures = self.failures + 1
        delay_s = backoff.delay_s(failures, random)
        if retry_after_s is not None:
            delay_s = max(delay_s, retry_after_s)
        return Pause(failures=failures, failed_at_s=now_s, due_s=now_s + delay_s, bidden=retry_after_s is not None)

    def hastened(self, backoff: Backoff) -> Pause:
        """The same wait, cut to the first ceiling because something changed; never below what was asked for."""
        if self.bidden:
            return self
        return replace(self, due_s=min(self.due_s, self.failed_at_s + backoff.first_s))

    def left_s(self, now_s: float) -> float:
        """Seconds still to wait; 0 where the time has come."""
        return max(0.0, self.due_s - now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """A store's breaker. Closed: all may call. Open: one probe at a time, each after its wait."""

    threshold: int = 3  # failures in a row before it opens: one broken connection is no outage
    failures: int = 0
    pause: Pause = Pause()  # between probes, counted from the opening
    probing: bool = False

    @property
    def open(self) -> bool:
        """Whether only probes are let through."""
        return self.failures >= self.threshold

    def left_s(self, now_s: float) -> float | None:
        """Seconds until the next call may start; 0 for now; None while a probe is under way."""
        if not self.open:
            return 0.0
        return None if self.probing else self.pause.left_s(now_s)

    def entered(self) -> Circuit:
        """A call was let through; it is the probe where the circuit is open."""
        return replace(self, probing=self.open)

    def after_failure(
        self,
        now_s: float,
        random: Entropy,
        backoff: Backoff,
        *,
        probe: bool = False,
        retry_after_s: float | None = None,
    ) -> Circuit:
        """A call found no usable store. Those let through before it opened say nothing new, and lengthen no wait."""
        if self.open and not probe:
            return self
        failed = replace(self, failures=self.failures + 1, probing=False)
        if not failed.open:
            return failed
        return replace(failed, pause=self.pause.after_failure(now_s, random, backoff, retry_after_s=retry_after_s))

    def after_success(self) -> Circuit:
        """The store answered."""
        return Circuit(threshold=self.threshold)

    def given_up(self) -> Circuit:
        """The probe ended without learning anything of the store."""
        return replace(self, probing=False)

    def hastened(self, backoff: Backoff) -> Circuit:
        """Something changed: probe soon."""
        return replace(self, pause=self.pause.hastened(backoff))
