"""The file allocation table: which cluster follows which. Read in pages, of which a bounded number is kept."""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from dockd.errors import FilesystemUnclear
from dockd.filesystems.records import ReadAt, exactly

FIRST_CLUSTER = 2
_PAGE_SHIFT = 14  # a page is 16,384 entries: 64 KiB of FAT32
_PAGE = 1 << _PAGE_SHIFT
_PAGES_KEPT = 128
_MAX_RUNS = 1 << 18  # of one file
_LOADS_PER_PAGE, _LOADS = 16, 4096  # reads of pages, in all, for chains that jump about
_BAD = {12: 0xFF7, 16: 0xFFF7, 28: 0x0FFFFFF7, 32: 0xFFFFFFF7}

Run = tuple[int, int]
"""The first of some clusters in a row, and how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The clusters of one file, in order."""

    runs: tuple[Run, ...] = ()
    clusters: int = 0
    longer: bool = False  # it goes on after as many clusters as were asked for
    broken: str = ""  # why it cannot be followed, in words; "" where it can


class Chains:
    """One FAT. `bits` are those of an entry that count: 12, 16, 28 (FAT32), 32 (exFAT)."""

    def __init__(self, read: ReadAt, *, start: int, bits: int, clusters: int) -> None:
        self.bad = _BAD[bits]  # marks a bad cluster; what is above ends a chain
        self._read = read
        self._start = start
        self._bits = bits
        self._mask = (1 << bits) - 1
        self._limit = clusters + FIRST_CLUSTER
        self._loads_left = (self._limit >> _PAGE_SHIFT) * _LOADS_PER_PAGE + _LOADS
        self._pages: OrderedDict[int, array[int]] = OrderedDict()

    def follow(self, first: int, most: int) -> Chain:
        """The chain that begins at `first`, of which at most `most` clusters are looked at: loops end, too.

        Raises FilesystemUnclear where the FAT is not on the volume, or jumps about without end.
        """
        if not FIRST_CLUSTER <= first < self._limit:
            return Chain(broken=f"it begins at cluster {first}, which there is not")
        if not most:
            return Chain(longer=True)
        runs, begin, cluster, taken = [], first, first, 0
        limit, mask, number, page = self._limit, self._mask, -1, array("I")
        while True:
            if cluster >> _PAGE_SHIFT != number:
                number = cluster >> _PAGE_SHIFT
                page = self._page(number)
            after = page[cluster & _PAGE - 1] & mask
            taken += 1
            if after == cluster + 1 and after < limit and taken < most:
                cluster = after
                continue
            runs.append((begin, cluster - begin + 1))
            if after > self.bad:
                return Chain(runs=tuple(runs), clusters=taken)
            if not FIRST_CLUSTER <= after < limit:
                broken = f"it breaks off after cluster {cluster}"
                return Chain(runs=tuple(runs), clusters=taken, broken=broken)
            if len(runs) == _MAX_RUNS:
                return Chain(runs=tuple(runs), clusters=taken, broken=f"it lies in more than {_MAX_RUNS} pieces")
            if taken == most:
                return Chain(runs=tuple(runs), clusters=taken, longer=True)
            begin = cluster = after

    def pages(self) -> Iterator[tuple[int, array[int]]]:
        """All entries but the two that stand for no cluster, masked, each page with the number of its first."""
        for number in range((self._limit + _PAGE - 1) >> _PAGE_SHIFT):
            page = self._page(number)
            mask = self._mask
            if mask != (1 << 8 * page.itemsize) - 1:
                page = array("I", [entry & mask for entry in page])
            yield (number << _PAGE_SHIFT, page) if number else (FIRST_CLUSTER, page[FIRST_CLUSTER:])

    def differs(self, other_start: int) -> bool:
        """Another copy of the FAT, `other_start` bytes from the start of the volume, is not like this one."""
        size = (self._limit * (32 if self._bits == 28 else self._bits) + 7) // 8  # noqa: PLR2004  28 bits of 32
        step = 4 * _PAGE
        for at in range(0, size, step):
            count = min(step, size - at)
            if exactly(self._read, self._start + at, count) != exactly(self._read, other_start + at, count):
                return True
        return False

    def _page(self, number: int) -> array[int]:
        page = self._pages.get(number)
        if page is not None:
            self._pages.move_to_end(number)
            return page
        self._loads_left -= 1
        if self._loads_left < 0:
            raise FilesystemUnclear("the FAT jumps about more than can be followed")
        first = number << _PAGE_SHIFT
        count = min(_PAGE, self._limit - first)
        page = self._load(first, count)
        self._pages[number] = page
        if len(self._pages) > _PAGES_KEPT:
            self._pages.popitem(last=False)
        return page

    def _load(self, first: int, count: int) -> array[int]:
        if self._bits == 12:  # noqa: PLR2004  of FAT12
            packed = exactly(self._read, self._start + first * 3 // 2, (count * 3 + 1) // 2) + b"\0"
            pairs = [packed[at * 3 // 2] | packed[at * 3 // 2 + 1] << 8 for at in range(count)]
            return array("I", [pair >> 4 if at & 1 else pair & 0xFFF for at, pair in enumerate(pairs)])
        page = array("H" if self._bits == 16 else "I")  # noqa: PLR2004  of FAT16
        page.frombytes(exactly(self._read, self._start + first * page.itemsize, count * page.itemsize))
        if sys.byteorder == "big":
            page.byteswap()
        return page
