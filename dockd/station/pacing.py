"""One pace for every byte of a body that leaves the station, whatever the store: a cap, and flagged evidence first.

Nothing runs here by itself: whoever stands first in the queue waits for the bucket, the others for their turn.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime

from dockd.core.bandwidth import Bucket, Caps, Override
from dockd.model import Clock
from dockd.station.waiting import pause

TRICKLE_EVERY_S = 10.0  # shorter than any server waits for the next byte of a body
TRICKLE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CapNow:
    """The cap that holds, and what will be in its place."""

    bytes_per_s: int | None  # None: no cap
    operator: str = ""  # who set it; empty where the windows say so
    changes_at: datetime | None = None  # None: it stays for a week, or until somebody says otherwise
    then_bytes_per_s: int | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiter:
    urgent: bool
    turn: int
    since_s: float
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def order(self) -> tuple[bool, int]:
        return (not self.urgent, self.turn)


class Pacing:
    """A stores.wire.Pace. One for all stores of a station; all of it within one event loop.

    While somebody sends flagged evidence, all others get a trickle only: so much that no server takes them for gone.
    """

    def __init__(self, clock: Clock, caps: Caps | None = None) -> None:
        self._clock = clock
        self._caps = caps or Caps()
        self._override: Override | None = None
        self._bucket = Bucket()
        self._queue: list[_Waiter] = []  # by order
        self._turns = 0
        self._urgent: ContextVar[bool] = ContextVar("urgent", default=False)

    # --- the cap

    def follow(self, caps: Caps) -> None:
        """Other windows hold from now on."""
        self._caps = caps
        self._look()

    def override(self, override: Override | None) -> None:
        """What an operator says holds in place of the windows; None: the windows again."""
        self._override = override
        self._look()

    def cap(self) -> CapNow:
        """The cap as it is now."""
        now = self._clock.now()
        override = self._in_force(now)
        if override is not None:
            then = None if override.until is None else self._caps.bytes_per_s(override.until)
            return CapNow(
                bytes_per_s=override.bytes_per_s,
                operator=override.operator,
                changes_at=override.until,
                then_bytes_per_s=then,
            )
        at = self._caps.next_change(now)
        then = None if at is None else self._caps.bytes_per_s(at)
        return CapNow(bytes_per_s=self._caps.bytes_per_s(now), changes_at=at, then_bytes_per_s=then)

    # --- stores.wire.Pace

    @contextmanager
    def serving(self, *, urgent: bool) -> Iterator[None]:
        """What this task, and those that it starts, take meanwhile is for flagged evidence, or not."""
        token = self._urgent.set(urgent)
        try:
            yield
        finally:
            self._urgent.reset(token)

    async def take(self, wanted_bytes: int) -> int:
        """Wait until something may be sent; returns how much. Whoever took something waits behind the others again."""
        if not self._queue and self._bytes_per_s() is None:
            return wanted_bytes
        self._turns += 1
        waiter = _Waiter(urgent=self._urgent.get(), turn=self._turns, since_s=self._clock.monotonic_s())
        insort(self._queue, waiter, key=_Waiter.order)
        try:
            while True:
                granted_bytes, wait_s = self._try(waiter, wanted_bytes)
                if granted_bytes:
                    return granted_bytes
                waiter.woken.clear()
                await pause(self._clock, wait_s, waiter.woken)
        finally:
            self._queue.remove(waiter)
            self._look()

    def spend(self, sent_bytes: int) -> None:
        """So much is sent without waiting."""
        self._bucket.spend(sent_bytes)

    # --- how

    def _try(self, waiter: _Waiter, wanted_bytes: int) -> tuple[int, float | None]:
        """What is granted now; where that is nothing, when to try again unless woken."""
        now_s = self._clock.monotonic_s()
        if self._queue[0] is waiter:
            grant = self._bucket.take(wanted_bytes, bytes_per_s=self._bytes_per_s(), now_s=now_s)
            return grant.granted_bytes, grant.wait_s
        if waiter.urgent:
            return 0, None
        left_s = waiter.since_s + TRICKLE_EVERY_S - now_s
        if left_s > 0:
            return 0, left_s
        trickle_bytes = min(wanted_bytes, TRICKLE_BYTES)
        self._bucket.spend(trickle_bytes)
        return trickle_bytes, None

    def _look(self) -> None:
        if self._queue:
            self._queue[0].woken.set()

    def _bytes_per_s(self) -> int | None:
        now = self._clock.now()
        override = self._in_force(now)
        return self._caps.bytes_per_s(now) if override is None else override.bytes_per_s

    def _in_force(self, now: datetime) -> Override | None:
        if self._override is not None and self._override.until is not None and now >= self._override.until:
            self._override = None
        return self._override
