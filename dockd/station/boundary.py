"""The boundary around one store: what nobody foresaw in it stops that store, with an alarm, and nothing else.

A store's answers are somebody else's, and some are kept in the journal and read again by every later life. An error
that is none of ours would otherwise end the daemon, and end it again after each start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from traceback import walk_tb

import structlog

from dockd.core.backoff import STOPPED, Pause
from dockd.core.canonical import shown
from dockd.errors import DockdError, JournalError, StoreStopped
from dockd.model import Clock, Entropy, StoreId
from dockd.station.waiting import pause

_log = structlog.get_logger()

STEADY_S = 600.0  # without anything unexpected, until the alarm is over and the next wait is a short one again

MAX_HOLD_S = 0.8 * STEADY_S  # for a clip in whose upload it came: while one is tried in vain, the alarm is not over
_FRAMES = 12  # of where it came from, for the log


@dataclass(slots=True, kw_only=True)
class Boundary:
    """Runs a store's tasks, and lets others call into it. Nothing passes but cancellation, and JournalError.

    That one is not the store's: nothing can be recorded any more, and a restart reconciles. Not for several threads.
    `on_change` hears that the store was stopped, or is tried again; it must not block.
    """

    store: StoreId
    clock: Clock
    random: Entropy
    on_change: Callable[[], None]
    stopped: bool = False  # its tasks do not run at this moment
    _fault: str = ""
    _waits: Pause = field(default_factory=Pause)
    _out_since_s: float | None = None  # monotonic: when its tasks were stopped for the first time of these
    _struck_s: float = 0.0  # monotonic: when something unexpected came last
    _again: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def alarm(self) -> str:
        """A sentence while the store is stopped, and until it has run for a while after that; else empty."""
        steady = not self.stopped and self.clock.monotonic_s() - self._struck_s >= STEADY_S
        return "" if steady else self._fault

    def out_for_s(self) -> float:
        """For how many seconds it has been stopped again and again, until it has run for a while; 0 where it is not."""
        return self.clock.monotonic_s() - self._out_since_s if self._out_since_s is not None and self.alarm else 0.0

    def sound_in_s(self) -> float | None:
        """When the alarm will be over, if nothing more comes; None where that cannot be said, or there is none."""
        if self.stopped or not self.alarm:
            return None
        return max(0.0, self._struck_s + STEADY_S - self.clock.monotonic_s())

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`, and again after a wait where it ended by anything unexpected. Raises JournalError.

        After cancellation `work` has ended.
        """
        while True:
            try:
                await work()
            except Exception as error:
                if _is_the_journals(error):
                    raise
                self._strike(error)
            else:
                return
            self.stopped = True
            if self._out_since_s is None:
                self._out_since_s = self._struck_s
            self.on_change()
            self._again.clear()
            await pause(self.clock, self._waits.left_s(self.clock.monotonic_s()), self._again)
            self.stopped = False
            _log.warning("store_tried_again", store=self.store)
            self.on_change()

    def try_again(self) -> None:
        """Something changed that may have mended it, such as the configuration: it is tried at once."""
        self._again.set()

    @contextmanager
    def within(self) -> Iterator[None]:
        """For a call into the store from outside of its tasks. Raises StoreStopped instead of anything unexpected.

        At once where the store is stopped. The store's tasks, which met nothing of the kind, go on.
        """
        if self.stopped:
            raise StoreStopped(self._fault)
        try:
            yield
        except DockdError:
            raise
        except Exception as error:
            self._strike(error)
            raise StoreStopped(self._fault) from error

    def _strike(self, error: Exception) -> None:
        now_s = self.clock.monotonic_s()
        if not self.alarm:
            self._waits, self._out_since_s = Pause(), None
        self._waits, self._struck_s = self._waits.after_failure(now_s, self.random, STOPPED), now_s
        cause = _first(error)
        self._fault = (
            f"an unexpected error stopped the store ({type(cause).__name__}: {shown(str(cause))}): it is tried again "
            "by itself, and on a reload; its word counts for nothing meanwhile; report what the log has of it"
        )
        _log.error("store_stopped", store=self.store, reason=self._fault, where=_where(cause))


def _is_the_journals(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_the_journals, error.exceptions))
    return isinstance(error, JournalError)


def _where(error: BaseException) -> list[str]:
    """The innermost calls: no source lines, for which files would have to be read, and no values, some are secret."""
    frames = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)][-_FRAMES:]
    return [f"{PurePath(code.co_filename).name}:{line} {code.co_name}" for code, line in frames]


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
