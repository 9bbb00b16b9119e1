"""How one store is treated: how many uploads at once, when the next may begin, and what follows from its answers.

Pure: the caller brings the time (seconds of a monotonic clock) and the randomness. A store that is away opens the
breaker; one that only has too much to do (429, 503) gets fewer uploads at once, and that is no failure of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from dockd.core.backoff import Backoff, Circuit, Pause, RetryBudget
from dockd.core.bandwidth import Concurrency, spread_s
from dockd.model import Entropy

BUSY_IS_OUT_S = 60.0  # a store that only pushes back for so long is no store: many proxies answer 503 for a dead one
_LONG_OUTAGE = timedelta(seconds=10)  # a store that only restarted bears what it bore
_ALONE_EVERY_S = 30.0  # what waits with full jitter come to in the long run: the budget makes none of them longer
_SAVED = 10.0  # retries that a start may make at once: enough for minutes, with the waits between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What was known when an attempt began; it comes back with what the attempt met."""

    probe: bool = False  # it is the open breaker's probe
    round: int = 0


class Manners:
    """The state of dealing with one store; mutable. `now_s` never goes back."""

    def __init__(self, *, slots: int, random: Entropy, backoff: Backoff) -> None:
        self._random = random
        self._backoff = backoff
        self._circuit = Circuit()
        self._concurrency = Concurrency(most=slots)
        self.budget = RetryBudget(saved=_SAVED, alone_every_s=_ALONE_EVERY_S)  # of all that asks this store again
        self._lull = Pause()  # after a push-back: of the whole store
        self._spread_until_s: float | None = None  # after an outage: one upload at a time until then
        self._quiet_until_s: float | None = None  # after the station itself was away: none until then
        self._out_since_s: float | None = None
        self._busy_since_s: float | None = None

    # --- asked

    @property
    def limit(self) -> int:
        """How many uploads of clips that are not flagged may be under way at once, as the store bears them."""
        return self._concurrency.limit

    @property
    def open(self) -> bool:
        """Whether only probes are let through."""
        return self._circuit.open

    @property
    def is_out(self) -> bool:
        """Whether the store is out of reach."""
        return self._out_since_s is not None

    def out_for_s(self, now_s: float) -> float:
        """For how many seconds it has been; 0 where it is not."""
        return 0.0 if self._out_since_s is None else max(0.0, now_s - self._out_since_s)

    def spread_left_s(self, now_s: float) -> float:
        """For how many seconds clips that are not flagged wait, or go one by one, after an outage."""
        return max(_left_s(self._spread_until_s, now_s), _left_s(self._quiet_until_s, now_s))

    def left_s(self, now_s: float, *, under_way: int, flagged: bool) -> float | None:
        """Seconds until an upload may begin beside those under way; 0 for now; None where something has to end first.

        Flagged evidence may be one more than what the store is given otherwise, and waits for no spread.
        """
        circuit_s = self._circuit.left_s(now_s)
        if circuit_s is None:
            return None
        left_s = max(circuit_s, self._lull.left_s(now_s), self.budget.wait_s(now_s) if self._circuit.open else 0.0)
        if flagged:
            return left_s if under_way <= self._concurrency.limit else None
        left_s = max(left_s, _left_s(self._quiet_until_s, now_s))
        if under_way >= self._concurrency.limit:
            return None
        return max(left_s, _left_s(self._spread_until_s, now_s)) if under_way else left_s

    def retry_left_s(self, now_s: float) -> float:
        """Seconds until something that failed before may be tried again, as far as the number of retries goes."""
        return self.budget.wait_s(now_s)

    def may_retry(self, now_s: float) -> bool:
        """Whether a request may be repeated now; it counts as repeated then."""
        return self.budget.may_retry(now_s)

    # --- told

    def quiet_for(self, seconds: float, now_s: float) -> None:
        """The station comes back from an outage of its own: nothing but flagged evidence goes out for so long."""
        self._quiet_until_s = now_s + seconds

    def begin(self, now_s: float, *, again: bool) -> Begun:
        """An upload begins; `again`: it failed before."""
        if again or self._circuit.open:
            self.budget.may_retry(now_s)
        self._circuit = self._circuit.entered()
        return Begun(probe=self._circuit.probing, round=self._concurrency.begin())

    def ended(self, begun: Begun) -> None:
        """An upload ended, whatever came of it."""
        if begun.probe and self._circuit.probing:
            self._circuit = self._circuit.given_up()

    def answered(self, now_s: float) -> bool:
        """The store is there. Returns whether it was out of reach, or the breaker open, until now.

        After an outage it is given one upload at a time until the spread is over, and after a long one no more at once
        than it bears by then, so that all the docks that waited for it do not come at once.
        """
        self.budget.requested()
        was_out = self._circuit.open or self.is_out
        if was_out:
            outage = timedelta(seconds=self.out_for_s(now_s))
            self._spread_until_s = now_s + spread_s(outage, self._random)
            if outage >= _LONG_OUTAGE:
                self._concurrency.restart()
        self._circuit, self._out_since_s, self._busy_since_s = self._circuit.after_success(), None, None
        return was_out

    def sent(self) -> None:
        """The store took bytes: it bears what it is given."""
        self._concurrency.succeeded()
        self._lull = Pause()

    def failed(self, now_s: float, *, begun: Begun | None = None, retry_after_s: float | None = None) -> bool:
        """No usable answer. Returns whether the store went out of reach by that."""
        was_open = self._circuit.open
        self._circuit = self._circuit.after_failure(
            now_s,
            self._random,
            self._backoff,
            probe=begun is not None and begun.probe,
            retry_after_s=retry_after_s,
        )
        return self._circuit.open and not was_open and self._went_out(now_s)

    def pushed_back(self, now_s: float, *, begun: Begun | None = None, retry_after_s: float | None = None) -> bool:
        """429 or 503. Returns whether the store counts as out of reach, since it has done nothing else for long.

        The breaker learns nothing from it: an open one stays open, and the next probe comes after this wait.
        """
        if begun is not None:
            self._concurrency.pushed_back(begun.round)
        lull = self._lull.after_failure(now_s, self._random, self._backoff, retry_after_s=retry_after_s)
        if self._lull.bidden and self._lull.due_s > lull.due_s:  # another upload was told of a longer one
            lull = replace(lull, due_s=self._lull.due_s, bidden=True)
        self._lull = lull
        if self._busy_since_s is None:
            self._busy_since_s = now_s
        if now_s - self._busy_since_s < BUSY_IS_OUT_S or self.is_out:
            return False
        return self._went_out(self._busy_since_s)

    def hasten(self) -> None:
        """Something changed: waits are cut short, except those that the store asked for."""
        self._circuit = self._circuit.hastened(self._backoff)
        self._lull = self._lull.hastened(self._backoff)

    def _went_out(self, since_s: float) -> bool:
        if self._out_since_s is None:
            self._out_since_s = since_s
        return True


def _left_s(until_s: float | None, now_s: float) -> float:
    return 0.0 if until_s is None else max(0.0, until_s - now_s)
