"""What a file's name says, with its time placed in UTC by the rule of the camera's profile."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dockd.core.clip_names import NOTHING, ClipNames, read_name
from dockd.model import Named

_STATION, _UTC = "station", "utc"


def named(names: ClipNames, path: bytes) -> Named | None:
    """What the name at the end of `path` says; None where it says nothing.

    In the hour that the end of summer time repeats, the first of the two times is taken.
    """
    found = read_name(names, path)
    if found == NOTHING:
        return None
    return Named(
        started_at=None if found.started_at is None else _placed(found.started_at, names.time_zone),
        local="" if found.started_at is None else found.started_at.isoformat(timespec="seconds"),
        time_zone="" if found.started_at is None else names.time_zone,
        sequence=found.sequence,
        officer=found.officer,
        category=found.category,
    )


def _placed(local: datetime, zone: str) -> datetime | None:
    """The time in UTC; None where the zone is not known any more, or no calendar reaches that far."""
    try:
        if zone == _STATION:
            return local.astimezone(UTC)
        return local.replace(tzinfo=UTC if zone == _UTC else ZoneInfo(zone)).astimezone(UTC)
    except (ZoneInfoNotFoundError, OverflowError, ValueError, OSError):
        return None
