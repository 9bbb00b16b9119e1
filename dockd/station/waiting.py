"""Wait for an event, but not for ever."""

from __future__ import annotations

import asyncio

from dockd.model import Clock


async def pause(clock: Clock, delay_s: float | None, until: asyncio.Event) -> None:
    """Wait for the event, at most `delay_s` where that is known. Cancellation ends it at once."""
    if delay_s is None:
        await until.wait()
        return
    waits = [asyncio.ensure_future(clock.sleep(delay_s)), asyncio.ensure_future(until.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
