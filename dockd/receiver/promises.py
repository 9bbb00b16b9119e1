"""Every promise of a store, with what the bytes of each are kept for: for people (`dockd receiver promises`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dockd.core.canonical import format_time
from dockd.core.retention import Until
from dockd.model import AcquisitionId, StationId
from dockd.receiver import rows
from dockd.receiver.left import open_beside

# Of each object: how many promises rest on it, and the latest; what a person ends comes after every date.
_PROMISES = """
    WITH resting AS (
        SELECT promise.*, coalesce(share.holder, promise.station) AS holder,
            coalesce(share.held, promise.acquisition) AS held,
            (CASE until WHEN 'ended' THEN 9223372036854775807 ELSE keep_until_us END) AS ends_us
        FROM promise LEFT JOIN share
            ON share.station = promise.station AND share.acquisition = promise.acquisition
    )
    SELECT *, EXISTS (
        SELECT 1 FROM resting AS other WHERE other.holder = one.holder AND other.held = one.held
        AND (other.station, other.acquisition) <> (one.station, one.acquisition) AND other.ends_us > one.ends_us
    ) AS stays_for_another
    FROM resting AS one ORDER BY ends_us, keep_until_us, acquisition
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One promise, as it is now."""

    station: StationId
    acquisition: AcquisitionId
    category: str | None  # None: given before there was a policy
    until: Until
    recorded_from: str | None
    recorded_at: datetime | None
    arrived_at: datetime | None
    keep_until: datetime
    is_late: bool
    held: tuple[StationId, AcquisitionId]  # whose bytes they are
    stays_for_another: bool  # another acquisition keeps the same bytes longer

    def to_json(self) -> dict[str, object]:
        """The stable JSON form (docs/receiver.md)."""
        return {
            "type": "promise",
            "v": 1,
            "station": self.station,
            "acquisition": self.acquisition,
            "category": self.category,
            "until": self.until.value,
            "recorded_from": self.recorded_from,
            "recorded": self.recorded_at and format_time(self.recorded_at),
            "arrived": self.arrived_at and format_time(self.arrived_at),
            "keep_until": format_time(self.keep_until),
            "late": self.is_late,
            "object": {"station": self.held[0], "acquisition": self.held[1]},
            "stays_for_another": self.stays_for_another,
        }

    def sentence(self) -> str:
        """For people."""
        notes = [
            *(["given before there was a policy"] if self.category is None else []),
            *(["late"] if self.is_late else []),
            *(["the bytes stay for another"] if self.stays_for_another else []),
        ]
        ends = "until a person ends it, at least" if self.until is Until.ENDED else "until"
        return (
            f"{self.acquisition}  station {self.station}  {self.category or '-'}  {ends} {format_time(self.keep_until)}"
            f"{''.join(f'  ({note})' for note in notes)}"
        )


def promises_kept(directory: Path) -> Iterator[Kept]:
    """Every promise, the one that ends first at the top. Beside a running receiver, too; changes nothing.

    Raises ConfigError where there is no catalogue that can be read.
    """
    with open_beside(directory) as db:
        yield from map(_kept, db.execute(_PROMISES))


def _kept(row: sqlite3.Row) -> Kept:
    return Kept(
        station=StationId(row["station"]),
        acquisition=AcquisitionId(row["acquisition"]),
        category=row["category"],
        until=Until(row["until"]),
        recorded_from=row["recorded_from"],
        recorded_at=None if row["recorded_us"] is None else rows.from_us(row["recorded_us"]),
        arrived_at=None if row["arrived_us"] is None else rows.from_us(row["arrived_us"]),
        keep_until=rows.from_us(row["keep_until_us"]),
        is_late=bool(row["is_late"]),
        held=(StationId(row["holder"]), AcquisitionId(row["held"])),
        stays_for_another=bool(row["stays_for_another"]),
    )
