"""The machine's clock, for the composition root to hand out."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class MachineClock:
    """A model.Clock."""

    def now(self) -> datetime:
        """The wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        await asyncio.sleep(delay_s)
