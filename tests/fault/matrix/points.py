"""Which points the matrix tries, and at which of the times that they are passed."""

from __future__ import annotations

import zlib

from dockd import faults
from dockd.faultpoints import Kind, Point

ELSEWHERE = {
    Point.ERASE_LIFT,  # on mounted volumes only: tests/fault/reader/test_volumes.py
    Point.ERASE_CUT,  # same
    Point.DROPPED_ROW,  # nothing that a station does: tests/contract/receiver
}
HERE = [point for point in Point if point not in ELSEWHERE]


def moment(point: Point, kind: Kind, count: int) -> int:
    """One of the times, but none of the last, which a run in another order might not reach."""
    return zlib.crc32(f"{point} {kind}".encode()) % max(1, count * 2 // 3) + 1


class Counting(faults.Faults):
    """Fails nowhere, and counts how often each point is passed."""

    def __init__(self):
        self.counts = {}

    def act(self, point, call, *args, **kwargs):
        self.counts[point] = self.counts.get(point, 0) + 1
        return call(*args, **kwargs)

    def write(self, point, fd, block, offset=None):
        self.counts[point] = self.counts.get(point, 0) + 1
        return super().write(point, fd, block, offset)
