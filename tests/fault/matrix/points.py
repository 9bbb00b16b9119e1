"""Which scenario passes which point, what has to go wrong before it, and which of its times is the one that fails."""

from __future__ import annotations

import zlib

from dockd import faultpoints, faults
from dockd.faultpoints import FilePoints, Kind, Point, Side


def _of(file: FilePoints) -> tuple[Point, ...]:
    return file.data, file.sync, file.name, file.name_sync


# Every point that is not named here is passed on the way of two clips: the scenario "whole".
_SCENARIOS: dict[str, tuple[Point, ...]] = {
    "leftovers": (
        Point.MIRROR_CUT,
        Point.CUSTODY_SWEEP,
        Point.SWEEP,
        Point.SWEEP_SYNC,
        Point.STORE_SWEEP,
        Point.DROPPED_ROW,
        Point.PART_GONE,
    ),
    "rubble": (
        Point.ASIDE_NAME,
        Point.ASIDE_SYNC,
        Point.REBUILT_NAME,
        Point.REBUILT_SYNC,
        Point.REBUILT_FORMER,
        Point.REBUILT_LOG,
        Point.REBUILT_LOG_SYNC,
        Point.REBUILT_JOURNAL,
        Point.REBUILT_JOURNAL_SYNC,
        Point.REBUILT_GONE,
        Point.REBUILT_GONE_SYNC,
        Point.SPOOL_ASIDE,
        Point.SPOOL_ASIDE_SYNC,
        *_of(faultpoints.FORMER),
        *_of(faultpoints.ACCEPTED),
    ),
    "volume": (
        Point.ERASE_LIFT,
        Point.ERASE_MARK,
        Point.ERASE_BACK,
        Point.ERASE_BACK_SYNC,
        Point.ERASE_END_ZEROS,
        Point.ERASE_END_SYNC,
        Point.ERASE_CUT,
        Point.ERASE_CUT_SYNC,
        Point.ERASE_CUT_NAME,
        Point.ERASE_CUT_NAME_SYNC,
        Point.ERASE_VOLUME_SYNC,
    ),
    "newcomer": _of(faultpoints.ENROLLED),
    "resent": (Point.STORED_ASIDE,),
    "reread": (Point.LOOKED_ROW,),
    "moved": (Point.SHARED_ROW,),
    "promised": (Point.PROMISE_ROW, Point.EXTENSION_ROW),
    "fork": _of(faultpoints.FORK),
    "object": (Point.ERASE_OBJECT,),
}
_SCENARIO = {point: name for name, points in _SCENARIOS.items() for point in points}

# What is not done by station, receiver or a fork server's reader, but by a method of the dock.
COMMANDS = {
    **dict.fromkeys(_of(faultpoints.ENROLLED), "enrol"),
    **dict.fromkeys(_of(faultpoints.ACCEPTED), "accept_log"),
    Point.ERASE_OBJECT: "delete_object",
}

# What has to go wrong, once, before the point is reached.
BEFORE = {
    Point.SPOOL_PART: f"{Kind.ENOSPC}@{Point.SPOOL_DATA}",
    Point.ERASE_MARK: f"{Kind.EIO}@{Point.ERASE_ASIDE}",
    Point.ERASE_BACK: f"{Kind.LOST}@{Point.ERASE_ASIDE}",
    Point.ERASE_BACK_SYNC: f"{Kind.LOST}@{Point.ERASE_ASIDE}",
    Point.ERASE_END_ZEROS: f"{Kind.ENOSPC}@{Point.ERASE_ASIDE}",
    Point.ERASE_END_SYNC: f"{Kind.ENOSPC}@{Point.ERASE_ASIDE}",
    Point.ERASE_CUT: f"{Kind.ENOSPC}@{Point.ERASE_ASIDE}",
    Point.ERASE_CUT_SYNC: f"{Kind.ENOSPC}@{Point.ERASE_ASIDE}",
    Point.ERASE_CUT_NAME: f"{Kind.ENOSPC}@{Point.ERASE_ASIDE}",
    Point.ERASE_CUT_NAME_SYNC: f"{Kind.ENOSPC}@{Point.ERASE_ASIDE}",
}


def scenario_of(point: Point) -> str:
    """The name of the scenario whose way leads past the point."""
    return _SCENARIO.get(point, "whole")


def moment(point: Point, kind: Kind, count: int) -> int:
    """One of the times, but none of the last, which a run in another order might not reach."""
    return zlib.crc32(f"{point} {kind}".encode()) % max(1, count * 2 // 3) + 1


class Counting(faults.Faults):
    """Fails nowhere, and counts how often each point is passed."""

    def __init__(self):
        self.counts: dict[Point, int] = {}

    def act(self, point, call, *args, **kwargs):
        self.counts[point] = self.counts.get(point, 0) + 1
        return call(*args, **kwargs)

    def write(self, point, fd, block, offset=None):
        self.counts[point] = self.counts.get(point, 0) + 1
        return super().write(point, fd, block, offset)


def times_of(point: Point, counts: dict[Point, int]) -> int:
    """How often a run passes the point. Readers count in programs of their own: once at least, of either clip twice."""
    if point.side is Side.READER:
        return 3 if scenario_of(point) == "whole" and point not in BEFORE else 1
    return counts.get(point, 1)
