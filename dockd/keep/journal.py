"""The journal: every state of the station, and every custody entry, durable before anybody acts on it.

One SQLite connection on one thread (dockd.keep.ledger); this is its asynchronous face. The event loop never waits for
the disk. Changes that queue up together share one commit and one sync of the mirror.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import structlog

from dockd import faults as no
from dockd.errors import JournalError
from dockd.keep.ledger import Ledger, Outcome
from dockd.keep.records import Counts, DockingRecord, Tally
from dockd.keep.transaction import Tx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dockd.core.sshsig import SigningKey
    from dockd.faults import Faults
    from dockd.model import Clock, StationId

__all__ = ["Counts", "DockingRecord", "Journal", "Tally", "Tx"]

_log = structlog.get_logger()
T = TypeVar("T")

_QUEUE_JOBS = 256
_BATCH_CHANGES = 64  # changes that share a commit at most: bounds what one failing disk takes along
_IDLE_S = 0.02  # a pause this long in the queue makes a checkpoint worth its three syncs
_UNSIGNED_ENTRIES = 512  # and so does this many entries without one, pause or not


class _Job(Generic[T]):
    """One thing for the thread to do. The thread only looks whether its future was cancelled."""

    __slots__ = ("call", "future", "is_change")

    def __init__(self, call: Callable[[Any], T], future: asyncio.Future[T], *, is_change: bool) -> None:
        self.call = call
        self.future = future
        self.is_change = is_change


class Journal:
    """Open it with `Journal.open`. One per state directory; one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, open_ledger: Callable[[], Ledger], faults: Faults) -> None:
        self.faults = faults  # for those who keep files beside it
        self._loop = loop
        self._open_ledger = open_ledger
        self._queue: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_QUEUE_JOBS)
        self._opened: asyncio.Future[Ledger] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._closing = False
        self._waiting: set[_Job[Any]] = set()
        self._ledger: Ledger | None = None
        # A daemon thread: should the program end without `aclose`, there is nothing to save that is not durable.
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        station: StationId,
        clock: Clock,
        checkpoint_key: SigningKey,
        faults: Faults = no.NONE,
    ) -> Self:
        """Open or make the journal in `directory`, reconciled with its custody file; a checkpoint is written.

        Raises JournalError where another program has it, where it cannot be used or is another station's, or where
        journal, custody file and checkpoint contradict each other; OSError where the directory cannot be used. After
        cancellation it closes again by itself.
        """

        def open_ledger() -> Ledger:
            return Ledger(directory, station=station, clock=clock, checkpoint_key=checkpoint_key, faults=faults)

        journal = cls(asyncio.get_running_loop(), open_ledger, faults)
        journal._thread.start()
        try:
            journal._ledger = await asyncio.shield(journal._opened)
        except BaseException:
            journal._close()
            raise
        return journal

    async def write(self, change: Callable[[Tx], T]) -> T:
        """Run `change` in a transaction of its own; on return it is durable, its custody entries in the mirror too.

        `change` runs in the journal's thread, must not block, and may be undone with others if the disk fails. What it
        raises passes through, with nothing changed. Raises JournalError where the journal failed: then the change may
        or may not turn out to have happened once dockd is started again. After cancellation the same: it may still
        commit, or may already have.
        """
        return await self._submit(change, is_change=True)

    async def read(self, query: Callable[[Tx], T]) -> T:
        """Run `query` on one consistent state, after every change that was asked for before. Cancel at will."""
        return await self._submit(query, is_change=False)

    async def checkpoint(self) -> bytes:
        """Sign the log as it stands now, write `custody/checkpoint`, and return the note.

        Raises JournalError. After cancellation the checkpoint may still be written; that harms nothing.
        """
        ledger = self._usable()
        return await self._submit(lambda _: ledger.checkpoint(), is_change=False)

    @property
    def durable_size(self) -> int:
        """The number of custody entries that are durable in journal and mirror."""
        return self._usable().durable_size

    @property
    def signed_size(self) -> int:
        """The number of custody entries under the newest checkpoint."""
        return self._usable().signed_size

    @property
    def mended(self) -> tuple[str, ...]:
        """Sentences about what was missing at the opening, and stands again, although no crash takes it away."""
        return self._usable().mended

    @property
    def origin(self) -> str:
        """The log's name: `dockd/<station>/<generation>`."""
        return self._usable().origin

    @property
    def custody_directory(self) -> Path:
        """Where custody.jsonl and its checkpoint are."""
        return self._usable().custody

    async def aclose(self) -> None:
        """Do what is queued, write a last checkpoint, close. Idempotent. Cancellation does not stop the closing."""
        self._close()
        await asyncio.shield(self._ended)
        self._thread.join()  # it has said its last word: this waits for microseconds

    # --- in the event loop

    def _usable(self) -> Ledger:
        if self._ledger is None:
            raise JournalError("the journal is not open")
        return self._ledger

    async def _submit(self, call: Callable[[Tx], T], *, is_change: bool) -> T:
        await self._room.acquire()  # given back when the thread takes the job up
        if self._closing:
            self._room.release()
            raise JournalError("the journal is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        job = _Job(call, future, is_change=is_change)
        self._waiting.add(job)
        self._queue.put(job)
        try:
            return await future
        finally:
            self._waiting.discard(job)

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._queue.put(None)

    def _answer(self, jobs: list[tuple[_Job[Any], Outcome[Any]]]) -> None:
        for job, outcome in jobs:
            if job.future.done():  # cancelled meanwhile
                continue
            if outcome.error is not None:
                job.future.set_exception(outcome.error)
            else:
                job.future.set_result(outcome.value)

    def _bury(self, error: BaseException) -> None:
        """The thread ended over a mistake of ours: nobody waits for it in vain, and everybody learns why."""
        self._closing = True
        for job in self._waiting:
            if not job.future.done():
                death = JournalError(f"the journal's thread ended: {type(error).__name__}: {error}")
                death.__cause__ = error
                job.future.set_exception(death)
        for _ in range(_QUEUE_JOBS):
            self._room.release()

    # --- in the thread

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(call, *arguments)

    def _run(self) -> None:
        try:
            ledger = self._open_ledger()
        except BaseException as error:  # noqa: BLE001  it belongs to whoever opens
            self._tell(_set_error, self._opened, error)
            self._tell(_set_result, self._ended, None)
            return
        self._tell(_set_result, self._opened, ledger)
        try:
            self._serve(ledger)
        except BaseException as error:  # noqa: BLE001  passed on to everybody who waits
            _log.critical("journal_thread_ended", error=f"{type(error).__name__}: {error}")
            self._tell(self._bury, error)
        finally:
            ledger.close()
            self._tell(_set_result, self._ended, None)

    def _serve(self, ledger: Ledger) -> None:
        _sign(ledger)
        first = self._take(ledger)
        while first is not None:
            batch, following = [first], None
            if first.is_change:
                batch, following = self._gather(first)
            live = [job for job in batch if not job.future.cancelled()]
            if first.is_change:
                outcomes = ledger.commit([job.call for job in live]) if live else []
            else:
                outcomes = [ledger.ask(job.call) for job in live]
            self._tell(self._answer, list(zip(live, outcomes, strict=True)))
            if ledger.durable_size - ledger.signed_size >= _UNSIGNED_ENTRIES:
                _sign(ledger)
            first = following or self._take(ledger)
        _sign(ledger)

    def _gather(self, first: _Job[Any]) -> tuple[list[_Job[Any]], _Job[Any] | None]:
        """The changes that wait behind `first`, to share its commit, and what was taken up beyond them."""
        batch = [first]
        while len(batch) < _BATCH_CHANGES:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:  # the end: to be found again once these are done
                self._queue.put(None)
                break
            self._tell(self._room.release)
            if not job.is_change:
                return batch, job
            batch.append(job)
        return batch, None

    def _take(self, ledger: Ledger) -> _Job[Any] | None:
        """The next job; a checkpoint is signed while there is none. None: the end."""
        try:
            job = self._queue.get(timeout=_IDLE_S)
        except queue.Empty:
            _sign(ledger)
            job = self._queue.get()
        if job is not None:
            self._tell(self._room.release)
        return job


def _sign(ledger: Ledger) -> None:
    """Bring the checkpoint up to date, if it can be: the log is as good without, and the next occasion tries again."""
    if ledger.is_signed():
        return
    try:
        ledger.checkpoint()
    except JournalError as error:
        _log.error("custody_checkpoint_failed", error=str(error))


def _set_result(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
