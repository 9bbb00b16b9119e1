"""Turns: one upload slot of several serves the docked cameras one after the other.

All other slots free bays, the soonest first. By that rule alone a camera with many clips would wait for as long as
smaller ones keep coming.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from dockd.model import Acquisition, Category, DockingId


class Turns:
    """When each docking had its last turn, in any slot. In memory only; not for several threads."""

    def __init__(self) -> None:
        self._last_s: dict[DockingId, float] = {}

    def began(self, docking: DockingId, now_s: float) -> None:
        """A clip of this docking is being sent."""
        self._last_s[docking] = now_s

    def ordered(self, waiting: Iterable[Acquisition]) -> list[Acquisition]:
        """These in the order in which they are to be sent: evidence first, then whose last turn is longest ago.

        They have to be all that wait of all dockings, or the first of each: dockings without any are forgotten.
        """
        rows = list(waiting)
        here = {row.docking for row in rows}
        self._last_s = {docking: at_s for docking, at_s in self._last_s.items() if docking in here}
        last_s = self._last_s
        return sorted(rows, key=lambda row: (row.category is not Category.EVIDENCE, last_s.get(row.docking, -inf)))
