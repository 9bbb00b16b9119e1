"""Scrub: every stored object is read again and compared with what was signed for, soon after its receipt and for good.

One object at a time, slowly, on a thread that gets what no other wants. What is found gone is looked at again before
that counts; what cannot be read may come back, and is asked for again; both are said at once.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from dockd.core.receipts import stated_sealed
from dockd.errors import VerificationFailed
from dockd.faultpoints import Point
from dockd.model import Clock, Digest
from dockd.receiver import scrub_rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.layout import Layout, Stored
from dockd.receiver.look import Gone
from dockd.receiver.places import mend_papers
from dockd.receiver.problems import Problem
from dockd.receiver.reading import Reading, be_idle, wrong_papers
from dockd.receiver.scrub_rows import Due, Pace, What
from dockd.receiver.settings import ReceiverSettings
from dockd.receiver.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger()
_T = TypeVar("_T")
_IDLE_S = 60.0
_FAILED_S = 60.0
_MOST_PAUSE_S = 60.0  # between looks while nothing can be read: a whole disk may be away


@dataclass(slots=True, kw_only=True)
class Scrub:
    """Looks at what is due. `run` once."""

    catalogue: Catalogue
    layout: Layout
    settings: ReceiverSettings
    uploads: Uploads
    clock: Clock
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="scrub"))
    _free_at_s: float = -math.inf  # when the next slice may be read
    _unread: int = 0  # looks in a row that found nothing to read

    @property
    def pace(self) -> Pace:
        """How often is looked."""
        return pace_of(self.settings)

    async def run(self) -> None:
        """Look at what is due, until cancelled. Nothing is half noted then: the look that was under way comes again."""
        try:
            if refused := await self._aside(be_idle):
                _log.warning("scrub_not_idle", reason=refused)
            await self._measure()
            while True:
                await self.clock.sleep(await self.turn())
        finally:
            self._thread.shutdown(wait=False)  # at most one slice is under way

    async def _measure(self) -> None:
        now, pace = self.clock.now(), self.pace
        found = await self.catalogue.run(lambda db: scrub_rows.looked(db, pace, now))
        whole_s = found.size_bytes // self.settings.scrub_bytes_per_s
        _log.info("scrub_measured", **found.to_json(), estimated_s=whole_s)
        if whole_s > pace.next_after.total_seconds():
            _log.error("scrub_too_slow", estimated_s=whole_s, every_s=int(pace.every.total_seconds()))

    async def turn(self) -> float:
        """Look at one, if one is due. Returns for how many seconds nothing is to be done."""
        try:
            due = await self.catalogue.run(lambda db: scrub_rows.next_due(db, self.pace, self.clock.now()))
            if due is None:
                return min(_IDLE_S, self.pace.again_first.total_seconds())
            await self._look(due)
        except (OSError, sqlite3.Error, Problem) as error:  # the catalogue's own disk; or someone else is at the upload
            _log.error("scrub_failed", error=str(error))
            return min(_FAILED_S, self.pace.again_first.total_seconds())
        return min(_MOST_PAUSE_S, float(self._unread))

    async def _look(self, due: Due) -> None:
        begun_s = self.clock.monotonic_s()
        read_bytes, proof, seen = 0, None, ""
        try:
            if due.held == due.one:
                read_bytes = await self._read(due)
            if papers := await self._papers(due):
                await self._note(due, read_bytes, partial(scrub_rows.note_mended, detail=papers))
                self._log(due, begun_s, "object_papers_mended", detail=papers)
        except Gone as error:
            proof, seen = What(error.what), str(error)
        except (OSError, VerificationFailed) as error:
            seen = str(error)
        self._unread = self._unread + 1 if seen and proof is None else 0
        if not seen:
            was_lost = await self._note(due, read_bytes, scrub_rows.note_well)
            self._log(due, begun_s, "object_back" if was_lost else "object_well", read_bytes=read_bytes)
        elif proof is not None and due.proof is proof:
            new = await self._note(due, read_bytes, partial(scrub_rows.note_lost, what=proof, detail=seen))
            self._log(due, begun_s, "object_lost" if new else "object_still_lost", what=proof, error=seen)
        else:
            await self._note(due, read_bytes, partial(self._suspect, due=due, proof=proof, seen=seen))
            self._log(due, begun_s, "object_suspected", what=proof, error=seen, tries=due.tries + 1)

    def _suspect(self, db: sqlite3.Connection, one: Any, now: Any, *, due: Due, proof: What | None, seen: str) -> None:
        del one
        scrub_rows.note_suspected(db, due, self.pace, now, seen, proof)

    async def _note(self, due: Due, read_bytes: int, note: Callable[..., _T]) -> _T | None:
        """Keep what was found, unless the acquisition was sent again meanwhile."""
        now = self.clock.now()

        def change(db: sqlite3.Connection) -> _T | None:
            scrub_rows.count_read(db, read_bytes)
            return note(db, due.one, now) if scrub_rows.stands(db, due) else None

        return await self.catalogue.run(change, Point.LOOKED_ROW)

    # --- reading

    async def _read(self, due: Due) -> int:
        """Read the object at the configured rate; returns how many bytes. Raises OSError, Gone."""
        stored = self.layout.stored(due.one.station, due.one.acquisition)
        reading = await self._aside(lambda: Reading.open(stored, due.one))
        try:
            while length := await self._aside(reading.step):
                now_s = self.clock.monotonic_s()
                self._free_at_s = max(now_s, self._free_at_s) + length / self.settings.scrub_bytes_per_s
                await self.clock.sleep(self._free_at_s - now_s)
        finally:
            self._thread.submit(reading.close)
        if reading.digest != _signed_for(due):
            raise Gone(f"{stored.clip} has the digest {reading.digest}, not {_signed_for(due)}", what="changed")
        return reading.done

    async def _papers(self, due: Due) -> str:
        """Compare what is kept beside the clip, and mend it. Returns what was wrong. Raises OSError."""
        stored = self.layout.stored(due.one.station, due.one.acquisition)
        wrong = await self._aside(lambda: _wrong(stored, due))
        if wrong:
            async with self.uploads.hold(due.one.upload):
                await self._aside(lambda: mend_papers(self.layout, due.one, due.receipt, wrong))
        return ", ".join(path.name for path in wrong)

    async def _aside(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _log(self, due: Due, begun_s: float, event: str, **more: object) -> None:
        say = {"object_well": _log.info, "object_back": _log.warning, "object_lost": _log.critical}
        say.get(event, _log.error)(
            event,
            station=due.one.station,
            acquisition=due.one.acquisition,
            duration_ms=round((self.clock.monotonic_s() - begun_s) * 1000),
            **more,
        )


def _signed_for(due: Due) -> Digest:
    """The digest that the receipt names; where that was of another's object, which is no more, its own manifest's."""
    return stated_sealed(due.receipt.payload) or due.one.sealed_digest


def _wrong(stored: Stored, due: Due) -> list[Path]:
    if not stored.directory.parent.is_dir():
        raise FileNotFoundError(f"{stored.directory.parent} is not there: is its disk mounted?")
    return wrong_papers(stored, due.one, due.receipt)


def pace_of(settings: ReceiverSettings) -> Pace:
    """How often is looked, by these settings."""
    return Pace(every=settings.scrub_every, first_within=settings.scrub_first_within)
