"""Stretches of a file that hold media, and the question whether other stretches lie inside them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

MAX_EXTENTS = 250_000  # 4 MiB; a recording of 12 hours in fragments of 0.2 s has 216,000
_MAX_OFFSET = 1 << 62  # beyond this no file is; sums of hostile fields are


class Extents:
    """Half-open stretches in ascending order; neighbours that touch may be taken for one."""

    __slots__ = ("_ends", "_starts", "left_out")

    def __init__(self) -> None:
        self._starts = array("Q")
        self._ends = array("Q")
        self.left_out = 0  # stretches that no longer fitted

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int) -> bool:
        """Take a stretch. False where no file can hold it; it is not taken then."""
        if not 0 <= start <= end < _MAX_OFFSET:
            return False
        if self._ends and self._ends[-1] == start:
            self._ends[-1] = end
        elif len(self._starts) < MAX_EXTENTS:
            self._starts.append(start)
            self._ends.append(end)
        else:
            self.left_out += 1
        return True

    def limit(self, size: int) -> None:
        """Cut the last stretch off at the end of the file."""
        if self._ends and self._ends[-1] > size:
            self._ends[-1] = max(size, self._starts[-1])

    def covers(self, start: int, end: int) -> bool:
        """One stretch holds all of `start` to `end`. Only for stretches that were added in ascending order."""
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and end <= self._ends[index]

    def shared(self, start: int, end: int, enough: int) -> int:
        """How many bytes from `start` to `end` lie in these stretches, counted up to `enough` or a little more.

        Only for stretches that were added in ascending order.
        """
        index = bisect_right(self._starts, start) - 1
        total = max(0, min(end, self._ends[index]) - start) if index >= 0 else 0
        index += 1
        while total < enough and index < len(self._starts) and self._starts[index] < end:
            total += min(end, self._ends[index]) - self._starts[index]
            index += 1
        return total

    def last(self) -> tuple[int, int]:
        """Start and end of the one that was added last; (0, 0) where there is none."""
        return (self._starts[-1], self._ends[-1]) if self._ends else (0, 0)

    def total(self) -> int:
        """How many bytes they have together."""
        return sum(self._ends) - sum(self._starts)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Start and end of each."""
        return zip(self._starts, self._ends, strict=True)

    def first_outside(self, others: Extents) -> tuple[int, int]:
        """How many of these stretches lie not inside `others`, and where the first of them starts."""
        count, first = 0, 0
        for start, end in zip(self._starts, self._ends, strict=True):
            if start != end and not others.covers(start, end):
                first = first if count else start
                count += 1
        return count, first
