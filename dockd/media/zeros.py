"""Zeros where media should be, found without looking at every byte: at the end of a stretch, and within it.

What a card or a file system loses comes in whole clusters and is read back as zeros: 4 KiB is the smallest cluster in
use and a page of memory, while what coders and boxes legitimately end with are some dozens of zeros. So a shorter run
is no finding.
"""

from __future__ import annotations

from dockd.media.extents import Extents

THRESHOLD_BYTES = 4096
_ZEROS = bytes(65536)
_AT_ONCE = (len(_ZEROS), len(_ZEROS) // 4, THRESHOLD_BYTES)
_GLANCE_BYTES = 64


class ZeroTail:
    """Push it a stretch of bytes in order; `run_bytes` is then the number of zeros at its end."""

    __slots__ = ("run_bytes", "seen_bytes")

    def __init__(self) -> None:
        self.run_bytes = 0
        self.seen_bytes = 0

    def feed(self, block: memoryview) -> None:
        """Take the next bytes. A block with a non-zero end costs a look at its last 64 bytes."""
        self.add(trailing_zeros(block), len(block))

    def add(self, run: int, size: int) -> None:
        """Take the next `size` bytes, which are known to end with `run` zeros."""
        self.seen_bytes += size
        self.run_bytes = self.run_bytes + run if run == size else run

    @property
    def only_zeros(self) -> bool:
        """Nothing but zeros was pushed (also where nothing was)."""
        return self.run_bytes == self.seen_bytes

    @property
    def notable(self) -> bool:
        """The run is long enough to be a loss."""
        return self.run_bytes >= THRESHOLD_BYTES


class ZeroRuns:
    """The zeros in all the media of one file; push it each stretch in order, and `finish` it.

    What a file system loses inside a file begins and ends at multiples of `THRESHOLD_BYTES` from the file's start: one
    byte of each such cluster is looked at, and the rest only where that byte is 0.
    """

    __slots__ = ("_tail", "clusters", "tails")

    def __init__(self) -> None:
        self.clusters = Extents()  # that are nothing but zeros
        self.tails = Extents()  # the notable runs that stretches end with
        self._tail = ZeroTail()

    def feed(self, offset: int, block: memoryview) -> None:
        """Take the bytes at `offset` of the file."""
        begun = -offset % THRESHOLD_BYTES  # bytes of a cluster whose first part came before
        continued = begun and len(block) >= begun and self._tail.run_bytes >= THRESHOLD_BYTES - begun
        if continued and _ZEROS.startswith(block[:begun]):
            self.clusters.add(offset + begun - THRESHOLD_BYTES, offset + begun)
        first = bytes(block[begun::THRESHOLD_BYTES])
        index = first.find(0)
        while index >= 0:
            at = begun + index * THRESHOLD_BYTES
            index = first.find(0, index + max(1, self._zero_clusters(offset, block, at)))
        self._tail.add(self._run_at_end(offset, block, begun), len(block))

    def finish(self, end: int) -> int:
        """A stretch of media ended at `end` of the file. Returns the zeros it ends with, 0 where they are too few."""
        run = self._tail.run_bytes if self._tail.notable else 0
        if run:
            self.tails.add(end - run, end)
        self._tail = ZeroTail()
        return run

    def _run_at_end(self, offset: int, block: memoryview, begun: int) -> int:
        """How many zeros `block` ends with. Those in whole clusters were seen already, and are not looked at again."""
        edge = begun + max(len(block) - begun, 0) // THRESHOLD_BYTES * THRESHOLD_BYTES
        start, end = self.clusters.last()
        if end != offset + edge:
            return trailing_zeros(block)
        rest = trailing_zeros(block[edge:])
        if rest < len(block) - edge:
            return rest
        before = max(start - offset, 0)
        return len(block) - before + trailing_zeros(block[max(before - THRESHOLD_BYTES, 0) : before])

    def within(self, start: int, end: int, enough: int) -> int:
        """How many bytes from `start` to `end` are known to be zeros, counted up to `enough` or a little more."""
        return max(one.shared(start, end, enough) for one in (self.clusters, self.tails))

    def _zero_clusters(self, offset: int, block: memoryview, at: int) -> int:
        """Take the zero clusters of `block` from `at` on, as many as one comparison tells; returns how many."""
        for size in _AT_ONCE:
            piece = block[at : at + size]
            if len(piece) == size and _ZEROS.startswith(piece):
                self.clusters.add(offset + at, offset + at + size)
                return size // THRESHOLD_BYTES
        return 0


def trailing_zeros(block: memoryview) -> int:
    """How many zeros `block` ends with."""
    end, piece, largest = len(block), _GLANCE_BYTES, len(_ZEROS)
    while end:
        view = block[max(0, end - piece) : end]
        # startswith compares with a constant by memcmp, and copies nothing; rstrip would go byte by byte
        if _ZEROS.startswith(view):
            end -= len(view)
            piece = largest
        elif len(view) <= _GLANCE_BYTES:
            return len(block) - end + len(view) - len(bytes(view).rstrip(b"\0"))
        else:
            piece = largest = max(_GLANCE_BYTES, len(view) >> 4)
    return len(block)
