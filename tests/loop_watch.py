"""Watches every event loop of the test run: no code of ours may block one, or keep one busy for long in one step.

A step is what the loop runs between two looks at its sockets: one callback, or one task from an await to the next. It
is measured in seconds of the thread's own processor time, so that a busy machine makes no step longer; what sleeps
instead of working uses none, and is blockbuster's to find. A loop serves nobody but the test while the test's own
coroutine runs: that one may do both.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
import traceback
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

import pytest_asyncio

try:
    import blockbuster
    from blockbuster import blockbuster as blockbuster_inside
except ImportError:  # tests/unit/test_loop_watch.py is skipped then, which fails a run of continuous integration
    blockbuster = None

STEP_LIMIT_S = 0.1

_ALSO_BLOCKING = (  # what blockbuster does not look for by itself
    "os.open",
    "os.fsync",
    "os.fdatasync",
    "os.pread",
    "os.preadv",
    "os.pwrite",
    "os.posix_fallocate",
    "os.truncate",
    "os.ftruncate",
    "os.waitpid",
    "os.walk",
    "io.open",
    "builtins.open",
    "shutil.rmtree",
    "socket.getaddrinfo",
    "pwd.getpwuid",
)
_MAY_BLOCK = {
    # Where it has to cut a connection, uvicorn says so in a line on standard error, as every log line is written.
    "dockd/receiver/serve.py": {"shutdown"},
    # It binds before the loop serves anybody.
    "dockd/control/server.py": {"bind"},
    # The thread has said its last word: the join waits for microseconds.
    "dockd/keep/journal.py": {"aclose"},
    # A program that the main thread has to start, as it ends with its starter; and its pidfd said that it is gone.
    "dockd/reader/server.py": {"_start", "_on_end"},
    # The directory of a socket in /run, which is memory, and opened as a path only.
    "dockd/devices/blocker.py": {"_connect"},
}
_TESTS = (str(Path(__file__).parent), pytest_asyncio.__path__[0])
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


@dataclass(slots=True)
class Watch:
    """What was seen since it was last asked."""

    _seen: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        self._seen.append(sentence)

    def take(self) -> list[str]:
        """All of it, once."""
        seen, self._seen = self._seen, []
        return seen


def start(watch: Watch) -> None:
    """Watch from here to the end of the program. Once: a second watch would leave the first one blind."""
    if hasattr(events.Handle._run, "watch"):
        raise RuntimeError("tests/conftest.py was imported by a second name: import from the modules beside it instead")
    _time_steps(watch)
    if blockbuster is not None:
        _forbid_blocking(watch)


# --- long steps


class _Aside(threading.local):
    """Processor time of this thread that is not dockd's.

    The garbage collector's, which goes through the whole test run's heap, and that of tests' stand-ins.
    """

    began_s = 0.0
    spent_s = 0.0

    def __call__(self, phase, _info):
        if phase == "start":
            self.began_s = time.thread_time()
        else:
            self.spent_s += time.thread_time() - self.began_s


_ASIDE = _Aside()


@contextmanager
def stand_in():
    """What runs in here stands for a device or a program of its own, in whose place a test does its work."""
    spent_s, began_s = _ASIDE.spent_s, time.thread_time()
    try:
        yield
    finally:
        _ASIDE.spent_s = spent_s + time.thread_time() - began_s  # with what the collector took meanwhile


def _time_steps(watch: Watch) -> None:
    run = events.Handle._run
    gc.callbacks.append(_ASIDE)

    def timed(handle):
        task = getattr(handle._callback, "__self__", None)
        before = _coroutines_of(task)
        began_s, aside_s = time.thread_time(), _ASIDE.spent_s
        run(handle)
        step_s = time.thread_time() - began_s - (_ASIDE.spent_s - aside_s)
        if step_s > STEP_LIMIT_S and not any(map(_is_a_tests, before + _coroutines_of(task))):
            watch.note(f"a step of {step_s:.3f} s of processor time: {handle!r}, in {before}")

    timed.watch = watch
    events.Handle._run = timed


def _coroutines_of(task: object) -> list[CodeType]:
    """Those of which a task is made, the innermost last; none where it is no task."""
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    found = []
    while coroutine is not None:
        found += [getattr(coroutine, name) for name in ("cr_code", "ag_code") if hasattr(coroutine, name)]
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return found


def _is_a_tests(code: CodeType) -> bool:
    return code.co_filename.startswith(_TESTS)


# --- blocking calls


def _forbid_blocking(watch: Watch) -> None:
    class Noted(blockbuster.BlockingError):
        """Noted as it is raised: whoever catches it does not hide it."""

        def __init__(self, function):
            super().__init__(function)
            stack = "".join(traceback.format_stack(limit=12)[:-2])
            watch.note(f"a blocking call of {function} in the event loop:\n{stack}")

    blockbuster_inside.BlockingError = Noted
    guard = blockbuster.BlockBuster("dockd")
    for name in _ALSO_BLOCKING:
        guard.functions[name] = blockbuster.BlockBusterFunction(None, name, scanned_modules="dockd")
    for function in guard.functions.values():
        function.can_block_predicate = _either(function.can_block_predicate)
        for file, names in _MAY_BLOCK.items():
            function.can_block_in(file, names)
    guard.activate()


def _either(allowed):
    """What blockbuster allows, and what a test calls: its coroutine, or what it gave to code of ours to be called."""

    def may_block(*arguments, **named):
        return any(map(_is_a_tests, _callers())) or allowed(*arguments, **named)

    return may_block


def _callers() -> Iterator[CodeType]:
    """From here outwards, to the innermost coroutine or to the loop."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "_run_once":
        if frame.f_code.co_filename != __file__:
            yield frame.f_code
        frame = None if frame.f_code.co_flags & _COROUTINE else frame.f_back
