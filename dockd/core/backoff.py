"""The one policy of asking again: how long every wait is, and how often anything may be repeated.

Whatever failed is asked again only after a wait, and each wait in this program is drawn here:

- It is exponential. An outage of unknown length is looked at in intervals that grow with it, so that the end is noticed
  late by a constant share of the outage at most, and the number of asks grows with the logarithm of the time until the
  cap, and linearly behind it.
- It has full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015): docks that lost the same store in the same
  instant come back spread over the whole interval, not in waves. Where nobody else waits for the same thing, as for
  one camera in its bay, `spread` is 0, and the wait is the ceiling itself.
- It is counted on a monotonic clock. What the other side asks for (Retry-After) is the least, and an hour the most.
- It has a budget. Jitter bounds the number of asks in the mean only; the budget bounds it in every hour, however the
  draws fall and however many tasks ask the same store: `RetryBudget.most` is that bound.
- Only progress ends a row of failures. A byte is none: `ENOUGH_BYTES` between two breaks are, or all that was left. So
  an answer that ends after one byte is asked for as seldom as one that does not come.

`WAITS` lists every wait by name, and tests hold each to the number of asks that an hour may have. Pure: the caller
brings the time and the randomness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dockd.model import Entropy

MAX_ASKED_S = 3600.0  # whoever asks to be left alone for longer is asked again after an hour
ENOUGH_BYTES = 256 * 1024  # brought in one piece: that is progress; less is only where nothing more is left
_ONE = 1.0 - 1e-9  # ten times a tenth is a little less than one
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
    spread: float = 1.0  # the share of the ceiling that is drawn: 1 is full jitter, 0 is none

    def delay_s(self, failures: int, random: Entropy) -> float:
        """Seconds to wait after `failures` failures in a row (from 1)."""
        if failures < 1:
            raise ValueError("nothing failed yet")
        ceiling_s = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
        if not self.spread:
            return max(self.floor_s, ceiling_s)
        fraction = int.from_bytes(random(_FRACTION_BYTES), "big") / 2 ** (8 * _FRACTION_BYTES)
        return max(self.floor_s, float(ceiling_s * (1 - self.spread * (1 - fraction))))


STORE = Backoff()
"""A store, and each acquisition there: whatever is sent, read back, cleared up or shown to it."""
DOUBTED = Backoff(first_s=60.0, cap_s=60.0, floor_s=60.0, spread=0.0)
"""A store that contradicted itself, until it does well or a person decides."""
STOPPED = Backoff(first_s=10.0, cap_s=300.0, floor_s=5.0)
"""A store in which something unexpected came up: each try may cost what the last one did."""
CLIP = Backoff(first_s=2.0, cap_s=60.0, floor_s=2.0, spread=0.0)
"""One clip on one camera, and what has to be asked before it is erased."""
DOCKING = Backoff(first_s=2.0, cap_s=60.0, floor_s=2.0)
"""A camera whose docking was interrupted."""
NOT_READY = Backoff(first_s=4.0, cap_s=60.0, floor_s=2.0)
"""A camera that is not ready, or whose reader could not be started."""
QUEUE = Backoff(first_s=0.05, cap_s=1.0, floor_s=0.05, spread=0.0)
"""A socket of this machine whose queue is full."""
DESCRIPTORS = Backoff(first_s=1.0, cap_s=1.0, floor_s=1.0, spread=0.0)
"""A kernel that has nothing left to hand over a connection with."""

WAITS: Mapping[str, Backoff] = {
    "store": STORE,
    "doubted": DOUBTED,
    "stopped": STOPPED,
    "clip": CLIP,
    "docking": DOCKING,
    "not-ready": NOT_READY,
    "queue": QUEUE,
    "descriptors": DESCRIPTORS,
}


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
            delay_s = max(delay_s, min(retry_after_s, MAX_ASKED_S))
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


class RetryBudget:
    """Lets through retries up to a tenth of requests, so that a city of docks does not double the load of a sick store.

    One each `alone_every_s` is let through whatever the balance: a single clip has nothing to save from. `saved` is
    what there is to begin with.
    """

    def __init__(
        self, *, share: float = 0.1, most: float = 10.0, alone_every_s: float = 60.0, saved: float = 0.0
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError("a share is more than nothing, and all at most")
        self._share = share
        self._most = most
        self._alone_every_s = alone_every_s
        self._balance = saved
        self._alone_at_s = -math.inf

    def most(self, seconds: float, requests: int = 0) -> int:
        """How many retries there may be in so many seconds, beside so many requests that are none."""
        return math.ceil(self._most + requests * self._share + seconds / self._alone_every_s) + 1

    def requested(self) -> None:
        """A request that is no retry was made."""
        self._balance = min(self._most, self._balance + self._share)

    def may_retry(self, now_s: float) -> bool:
        """Whether a retry may be made now; it counts as made then."""
        if self._balance >= _ONE:
            self._balance = max(0.0, self._balance - 1.0)
            return True
        if now_s - self._alone_at_s >= self._alone_every_s:
            self._alone_at_s = now_s
            return True
        return False

    def wait_s(self, now_s: float) -> float:
        """How long until a retry is let through at the latest."""
        if self._balance >= _ONE:
            return 0.0
        return max(0.0, self._alone_at_s + self._alone_every_s - now_s)

    def reserve_s(self, now_s: float) -> float:
        """How long until a retry may be made, which counts as made from now on: for the few that wait for their own."""
        wait_s = self.wait_s(now_s)
        if not self.may_retry(now_s + wait_s):
            self._alone_at_s = now_s + wait_s  # a hair early by rounding
        return wait_s


@dataclass(slots=True, kw_only=True)
class Row:
    """Failures in a row of one task at one store, within the store's budget; mutable."""

    random: Entropy
    backoff: Backoff = STORE
    budget: RetryBudget
    pause: Pause = Pause()

    @property
    def failures(self) -> int:
        """How many there were since the last progress."""
        return self.pause.failures

    def failed(self, now_s: float, *, brought_bytes: int = 0, retry_after_s: float | None = None) -> float:
        """Seconds to wait after one more failure, that came after so many bytes; the retry counts as made."""
        enough = brought_bytes >= ENOUGH_BYTES
        if enough:
            self.succeeded()
        self.pause = self.pause.after_failure(now_s, self.random, self.backoff, retry_after_s=retry_after_s)
        left_s = self.pause.left_s(now_s)
        return left_s if enough else max(left_s, self.budget.reserve_s(now_s))

    def succeeded(self) -> None:
        """It got on: the row ends."""
        self.pause = Pause()
