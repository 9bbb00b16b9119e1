"""Run a program's main coroutine until a signal, and end within a bound."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

from dockd.errors import DockdError

_log = structlog.get_logger()

STOP_S = 4.5  # after the first signal; whatever still hangs then, a dying disk for instance, is left behind
_KILLED = 128


def run_until_signal(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run `main` until it ends, or until SIGTERM or SIGINT cancels it; returns the exit code.

    A second signal ends the program at once, and so does the kernel's alarm `STOP_S` after the first: everything that
    counts is durable at every instant, so neither loses anything.
    """
    return asyncio.run(_supervise(main))


async def _supervise(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main())
    stopping = False

    def stop(number: int) -> None:
        nonlocal stopping
        if stopping:
            os._exit(_KILLED + number)
        stopping = True
        _log.info("stopping", signal=signal.Signals(number).name)
        signal.setitimer(signal.ITIMER_REAL, STOP_S)
        task.cancel()

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not stopping:
            raise
    except BaseExceptionGroup as group:
        # Parts that run side by side fail in groups. One sentence is for people; what is no DockdError is a mistake
        # of ours, and shown whole.
        for error in _leaves(group):
            if not isinstance(error, DockdError):
                raise
        raise next(_leaves(group)) from group
    return 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
