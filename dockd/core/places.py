"""Whose upload begins next, over all stores: so many at once, flagged evidence before all others.

Pure. Each store says what it would send next; whoever has the better reason gets the free place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dockd.model import StoreId


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Rank:
    """Why an upload should be the next. The smaller goes first: flagged, then what frees a bay soonest, then oldest."""

    ordinary: bool  # not flagged as evidence
    outstanding_bytes: float  # of its docking, still to be read or confirmed; infinite where its camera has left
    found_at: datetime


class Places:
    """The places of all uploads together.

    One of several is kept for flagged evidence, since each of the others may be held for an hour. `subscribe` hears
    when it is worth asking again. Not for several threads.
    """

    def __init__(self, *, most: int) -> None:
        self._most = 1
        self._taken = 0
        self._wishes: dict[StoreId, Rank] = {}
        self._listeners: list[Callable[[], None]] = []
        self.adjust(most)

    @property
    def taken(self) -> int:
        """How many uploads are under way."""
        return self._taken

    @property
    def most(self) -> int:
        """How many may be."""
        return self._most

    def subscribe(self, listener: Callable[[], None]) -> None:
        """`listener` must not block, nor call back."""
        self._listeners.append(listener)

    def adjust(self, most: int) -> None:
        """Another number from configuration. Uploads under way go on."""
        if most < 1:
            raise ValueError("at least one upload is under way at once")
        self._most = most
        self._tell()

    def ask(self, store: StoreId, rank: Rank) -> bool:
        """Take a place for what the store would send next. Where it gets none, its wish is remembered."""
        self._wishes[store] = rank
        better = sum(other < rank for other in self._wishes.values())
        if better >= self._free(rank):
            return False
        del self._wishes[store]
        self._taken += 1
        self._tell()  # what it was ahead of may have a place as well
        return True

    def withdraw(self, store: StoreId) -> None:
        """The store has nothing to send for now."""
        if self._wishes.pop(store, None) is not None:
            self._tell()

    def leave(self) -> None:
        """An upload ended, however."""
        if not self._taken:
            raise ValueError("no upload is under way")
        self._taken -= 1
        self._tell()

    def _free(self, rank: Rank) -> int:
        kept = 1 if rank.ordinary and self._most > 1 else 0
        return self._most - kept - self._taken

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
