"""A clock whose time passes only when everybody waits, and then just to the next who is due."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta


class VirtualClock:
    """A model.Clock. `run_until` lets time pass; whatever does not wait by this clock must not need a thread."""

    def __init__(self, began: datetime = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)) -> None:
        self.began = began
        self.passed_s = 0.0
        self.woken = 0  # how many waits ended by time
        self._due: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.passed_s)

    def monotonic_s(self) -> float:
        return self.passed_s

    async def sleep(self, delay_s: float) -> None:
        self._count += 1
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (self.passed_s + delay_s, self._count, future))
        await future

    async def run_until(self, at_s: float) -> None:
        while True:
            await asyncio.sleep(0)
            while asyncio.get_running_loop()._ready:  # whoever was woken comes to wait again
                await asyncio.sleep(0)
            while self._due and self._due[0][2].done():  # cancelled
                heapq.heappop(self._due)
            if not self._due or self._due[0][0] > at_s:
                self.passed_s = max(self.passed_s, at_s)
                return
            due_s, _, future = heapq.heappop(self._due)
            self.passed_s = max(self.passed_s, due_s)
            self.woken += 1
            future.set_result(None)
