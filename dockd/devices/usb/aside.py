"""Calls that may hang on a device, each in a thread of its own that nothing ever waits for at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")


async def aside(call: Callable[[], _T], *, undo: Callable[[_T], None] | None = None) -> _T:
    """What `call` returns, or raises. When cancelled the call goes on alone, and `undo` gets what it still returns."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def deliver(result: _T) -> None:
        if not future.cancelled():
            future.set_result(result)
        elif undo is not None:
            Thread(target=undo, args=(result,), daemon=True).start()

    def fail(error: Exception) -> None:
        if not future.cancelled():
            future.set_exception(error)

    def run() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - raised in the caller, whatever it is
            with suppress(RuntimeError):  # the loop was closed: nobody is waiting any more
                loop.call_soon_threadsafe(fail, error)
            return
        try:
            loop.call_soon_threadsafe(deliver, result)
        except RuntimeError:
            if undo is not None:
                undo(result)

    Thread(target=run, name="aside", daemon=True).start()
    return await future


def close_aside(descriptors: Iterable[int]) -> None:
    """Close descriptors of a device, without waiting: the last close of one that hangs may hang too."""
    Thread(target=close_all, args=(tuple(descriptors),), name="close", daemon=True).start()


def close_all(descriptors: Iterable[int]) -> None:
    """Close them, whatever becomes of each."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
