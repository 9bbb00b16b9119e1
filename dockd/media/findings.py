"""What a parser found out on its way, and the verdict made of it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from dockd.model import Verdict, VerdictStatus

MAX_REASONS = 12
_MAX_DURATION_MS = (1 << 53) - 1  # what the manifest can state


class Parser(Protocol):
    """One container's push parser."""

    def feed(self, offset: int, block: memoryview) -> None:
        """Take the bytes at `offset`; blocks follow each other without a gap, from 0."""

    def finish(self, size: int) -> Verdict:
        """Judge the whole. `size` is the number of bytes that were fed."""


class Findings:
    """Reasons in the order they were found. Damage makes a clip damaged; a note says what was not looked at."""

    __slots__ = ("_damaged", "_more", "_reasons")

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._damaged = False
        self._more = 0

    def damage(self, reason: str) -> None:
        """Something is missing, lost or contradicts itself."""
        self._damaged = True
        self._add(reason)

    def note(self, reason: str) -> None:
        """Something was left unchecked; this alone damages nothing."""
        self._add(reason)

    def verdict(
        self, container: str, *, duration_ms: int | None = None, recorded_at: datetime | None = None
    ) -> Verdict:
        """The verdict of a file whose container was recognised."""
        more = (f"and {self._more} more findings",) if self._more else ()
        if duration_ms is not None and not 0 < duration_ms <= _MAX_DURATION_MS:
            duration_ms = None
        return Verdict(
            status=VerdictStatus.DAMAGED if self._damaged else VerdictStatus.INTACT,
            container=container,
            reasons=(*self._reasons, *more),
            duration_ms=duration_ms,
            recorded_at=recorded_at,
        )

    def _add(self, reason: str) -> None:
        if reason in self._reasons:
            return
        if len(self._reasons) < MAX_REASONS:
            self._reasons.append(reason)
        else:
            self._more += 1
