"""How much of what is stored was read again, and what was found: what people at the store look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dockd.core.canonical import format_time
from dockd.receiver import scrub_rows
from dockd.receiver.left import open_beside
from dockd.receiver.scrub_rows import Looked, Loss, Pace

_ALL = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """At one moment. `losses`: what is lost now, then what was once, where that was asked for."""

    looked: Looked
    losses: tuple[Loss, ...]
    counts: Mapping[str, int]
    estimated_s: int  # to read all once, at the configured rate

    def lines(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Each line as a JSON object (docs/receiver.md), and for people."""
        counted = {"type": "scrub", "v": 1, **self.looked.to_json(), "estimated_s": self.estimated_s}
        yield counted | {"counts": dict(self.counts)}, "\n".join(self._sentences())
        for one in self.losses:
            yield one.to_json(), one.sentence()

    def _sentences(self) -> Iterator[str]:
        found = self.looked
        since = f", the earliest of these looks at {format_time(found.oldest)}" if found.oldest else ""
        yield f"read again and compared: {found.looked} of {found.objects} clips with a receipt{since}"
        if found.never:
            yield f"not looked at since they were signed for: {found.never}"
        if found.late:
            yield f"LATE: {found.late} should have been looked at by now: raise scrub.bytes_per_s, or see the log"
        if found.unread:
            yield f"UNREADABLE now, and asked for again: {found.unread}; see the log: object_suspected"
        lost = f"LOST or changed: {found.losses}" if found.losses else f"lost or changed among the {found.looked}: 0"
        yield f"{lost}; ever found: {self.counts['losses']}; mended beside clips: {self.counts['mended']}"


def report(
    directory: Path, *, every_days: int, first_within_s: int, bytes_per_s: int, now: datetime, history: bool
) -> Report:
    """Ask the catalogue, also beside a running receiver. Raises ConfigError where there is none that can be read."""
    pace = Pace(every=timedelta(days=every_days), first_within=timedelta(seconds=first_within_s))
    with open_beside(directory) as db:
        db.execute("BEGIN")  # all of one moment
        found = scrub_rows.looked(db, pace, now)
        lost = scrub_rows.losses(db, None, "", _ALL)
        healed = scrub_rows.history(db) if history else []
        return Report(
            looked=found,
            losses=(*lost, *healed),
            counts=scrub_rows.counts(db),
            estimated_s=found.size_bytes // bytes_per_s,
        )
