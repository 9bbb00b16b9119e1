"""MP4 sample tables (ISO/IEC 14496-12, 8.7): where each chunk of a track lies, and whether media is there.

A chunk starts where stco or co64 says, and is as long as the sizes in stsz or stz2 of the samples that stsc puts into
it. Tables stay the big-endian bytes they came as, and are opened a batch at a time, so that memory stays near the
tables' own size and the work runs in C loops.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import Literal

from dockd.media.extents import Extents
from dockd.media.zeros import ZeroRuns

_BATCH = 16384  # chunks or samples looked at together
_FULL_BOX_BYTES = 4  # version and flags
_COUNTED_BYTES = 8  # the same and an entry count
_SIZES_BYTES = 12  # the same with a size before the count
_RUN_BYTES = 12
_NIBBLE_BITS = 4
_LAYOUTS: dict[int, tuple[Literal["B", "H", "I", "Q"], int]] = {8: ("B", 1), 16: ("H", 2), 32: ("I", 4), 64: ("Q", 8)}


class BadTable(Exception):
    """A table contradicts itself or another. The sentence becomes a reason."""


def numbers(table: bytes | bytearray | memoryview, start: int, count: int, bits: int) -> array[int]:
    """`count` big-endian numbers of 8, 16, 32 or 64 bits from byte `start`."""
    code, width = _LAYOUTS[bits]
    result = array(code)
    result.frombytes(memoryview(table)[start : start + count * width])
    if sys.byteorder == "little":
        result.byteswap()
    return result


def u32(table: bytes | bytearray | memoryview, at: int) -> int:
    """The big-endian number at `at`; BadTable where the table ends before."""
    if at + 4 > len(table):
        raise BadTable("a table is shorter than its own head")
    return int.from_bytes(table[at : at + 4], "big")


class _Entries:
    """The numbers of a table after its head."""

    def __init__(self, table: bytearray, head: int, count: int, bits: int) -> None:
        if head + (count * bits + 7) // 8 > len(table):
            raise BadTable("a table has fewer entries than it says")
        self._table, self._head, self._bits = table, head, bits
        self.count = count

    def take(self, first: int, count: int) -> array[int]:
        """`count` numbers from number `first`."""
        if self._bits != _NIBBLE_BITS:
            return numbers(self._table, self._head + first * self._bits // 8, count, self._bits)
        packed = self._table[self._head + first // 2 : self._head + (first + count + 1) // 2]
        pairs = array("B", (half for byte in packed for half in (byte >> 4, byte & 15)))
        return pairs[first % 2 : first % 2 + count]


class _Sizes:
    """Sample sizes, handed out in order."""

    def __init__(self, stsz: bytearray | None, stz2: bytearray | None) -> None:
        self._constant, self._entries, self._next = 0, None, 0
        if stsz is not None:
            self._constant, self.count = u32(stsz, 4), u32(stsz, 8)
            if not self._constant:
                self._entries = _Entries(stsz, _SIZES_BYTES, self.count, 32)
        elif stz2 is not None:
            bits, self.count = u32(stz2, 4) & 0xFF, u32(stz2, 8)
            if bits not in (4, 8, 16):
                raise BadTable(f"its sample sizes claim to have {bits} bits")
            self._entries = _Entries(stz2, _SIZES_BYTES, self.count, bits)
        else:
            raise BadTable("it has no sample sizes")

    @property
    def left(self) -> int:
        return self.count - self._next

    def chunks(self, count: int, samples: int) -> list[int]:
        """Lengths in bytes of the next `count` chunks of `samples` samples each. BadTable where samples run out."""
        if count * samples > self.left:
            raise BadTable("its chunks hold more samples than it has sizes")
        first, self._next = self._next, self._next + count * samples
        if self._entries is None or not samples:
            return [self._constant * samples] * count
        if samples > _BATCH:
            return [self._sum(first + index * samples, samples) for index in range(count)]
        sizes = self._entries.take(first, count * samples)
        if samples == 1:
            return sizes.tolist()
        return [sum(sizes[index : index + samples]) for index in range(0, len(sizes), samples)]

    def _sum(self, first: int, count: int) -> int:
        entries, end = self._entries, first + count
        return sum(sum(entries.take(at, min(_BATCH, end - at))) for at in range(first, end, _BATCH)) if entries else 0


@dataclass(slots=True, kw_only=True)
class Checked:
    """What came of comparing a track's chunks with the media."""

    chunks: int
    media_bytes: int = 0  # in all chunks together
    outside: int = 0  # chunks that are not wholly inside the media
    first_outside: int = 0  # where the first of those starts
    zeroed: int = 0  # chunks with zeros where media should be
    first_zeroed: int = 0

    def see_outside(self, media: Extents, chunks: Iterable[tuple[int, int]]) -> None:
        """Count the chunks (start, length) that do not lie in `media`."""
        for start, length in chunks:
            if length and not media.covers(start, start + length):
                self.first_outside = self.first_outside if self.outside else start
                self.outside += 1

    def see_zeros(self, zeros: ZeroRuns, most_bytes: int, chunks: Iterable[tuple[int, int]]) -> None:
        """Count the chunks of which `most_bytes` or more are zeros, or all."""
        for start, length in chunks:
            enough = min(length, most_bytes)
            if length and zeros.within(start, start + length, enough) >= enough:
                self.first_zeroed = self.first_zeroed if self.zeroed else start
                self.zeroed += 1


class SampleTables:
    """The five tables of one track, as their boxes' payloads."""

    __slots__ = ("by_kind",)
    KINDS = frozenset((b"stsz", b"stz2", b"stsc", b"stco", b"co64"))

    def __init__(self) -> None:
        self.by_kind: dict[bytes, bytearray] = {}

    def samples(self) -> int:
        """How many samples the track claims; 0 where it does not say."""
        try:
            return _Sizes(self.by_kind.get(b"stsz"), self.by_kind.get(b"stz2")).count
        except BadTable:
            return 0

    def check(self, media: Extents, zeros: ZeroRuns, most_zeros_bytes: int) -> Checked:
        """Compare each chunk with `media`, and with the `zeros` in it.

        `most_zeros_bytes`: from so many zeros on a chunk has lost something; 0: its samples may be zeros.

        Raises BadTable, in words that follow the name of the track.
        """
        offsets = self._offsets()
        sizes = _Sizes(self.by_kind.get(b"stsz"), self.by_kind.get(b"stz2"))
        found, at = Checked(chunks=offsets.count), 0
        for lengths in _batches(_runs(self.by_kind.get(b"stsc"), offsets.count), sizes):
            starts = offsets.take(at, len(lengths))
            at += len(lengths)
            found.media_bytes += sum(lengths)
            first, last = min(starts), max(map(add, starts, lengths))
            # nearly always one mdat holds the whole batch, and no chunk needs to be looked at by itself
            if not media.covers(first, last):
                found.see_outside(media, zip(starts, lengths, strict=True))
            if most_zeros_bytes and zeros.within(first, last, 1):
                found.see_zeros(zeros, most_zeros_bytes, zip(starts, lengths, strict=True))
        if sizes.left:
            raise BadTable(f"{sizes.left} of its {sizes.count} samples are in no chunk")
        return found

    def _offsets(self) -> _Entries:
        for kind, bits in ((b"stco", 32), (b"co64", 64)):
            table = self.by_kind.get(kind)
            if table is not None:
                return _Entries(table, _COUNTED_BYTES, u32(table, _FULL_BOX_BYTES), bits)
        raise BadTable("it has no chunk offsets")


def _runs(stsc: bytearray | None, chunks: int) -> Iterator[tuple[int, int]]:
    """Runs of chunks alike: how many chunks, and how many samples in each."""
    if stsc is None:
        raise BadTable("it does not say which samples are in which chunk")
    entries = _Entries(stsc, _COUNTED_BYTES, u32(stsc, _FULL_BOX_BYTES) * 3, 32)
    if not chunks:
        return
    if not entries.count or entries.take(0, 1)[0] != 1:
        raise BadTable("its first chunk holds no samples")
    per_take = _BATCH // _RUN_BYTES * 3
    for start in range(0, entries.count, per_take):
        # three numbers more, so that the last run of this take sees where the next one begins
        taken = entries.take(start, min(per_take + 3, entries.count - start))
        firsts, samples = taken[0::3], taken[1::3]
        if start + per_take >= entries.count:
            firsts.append(chunks + 1)
        for (first, after), each in zip(pairwise(firsts), samples, strict=False):
            if first > chunks:
                return  # entries for chunks that were never written
            if after <= first:
                raise BadTable("its runs of chunks are out of order")
            yield min(after, chunks + 1) - first, each


def _batches(runs: Iterator[tuple[int, int]], sizes: _Sizes) -> Iterator[list[int]]:
    """The lengths of all chunks in order, some thousands at a time."""
    lengths: list[int] = []
    for chunks, samples in runs:
        left = chunks
        while left:
            count = min(left, max(1, _BATCH // max(1, samples)))
            lengths += sizes.chunks(count, samples)
            left -= count
            if len(lengths) >= _BATCH:
                yield lengths
                lengths = []
    if lengths:
        yield lengths
