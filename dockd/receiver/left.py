"""Uploads that are unfinished, and those that expired: what people at the store look at (`dockd receiver uploads`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dockd.core.canonical import format_time
from dockd.errors import ConfigError
from dockd.model import AcquisitionId, StationId
from dockd.receiver import rows

_BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """An upload that did not come to its end. `ends_at`: when it expires, or did."""

    station: StationId
    acquisition: AcquisitionId
    is_expired: bool
    since: datetime | None  # None: it was announced to a version that did not keep that
    durable_bytes: int
    size_bytes: int
    ends_at: datetime

    def to_json(self) -> dict[str, object]:
        """The stable JSON form (docs/receiver.md)."""
        return {
            "type": "upload",
            "v": 1,
            "state": "expired" if self.is_expired else "unfinished",
            "station": self.station,
            "acquisition": self.acquisition,
            "since": self.since and format_time(self.since),
            "durable_bytes": self.durable_bytes,
            "size_bytes": self.size_bytes,
            "expired" if self.is_expired else "expires": format_time(self.ends_at),
        }

    def sentence(self) -> str:
        """For people."""
        state, ends = ("expired", "expired") if self.is_expired else ("unfinished", "expires")
        since = "an older version" if self.since is None else format_time(self.since)
        return (
            f"{state:<10}  {self.acquisition}  station {self.station}  since {since}"
            f"  {self.durable_bytes} of {self.size_bytes} bytes  {ends} {format_time(self.ends_at)}"
        )


def uploads_left(directory: Path) -> Iterator[Left]:
    """What is unfinished, then what expired, each the oldest first. Raises as `open_beside` does."""
    with open_beside(directory) as db:
        yield from (_left(row, is_expired=False) for row in db.execute(_UNFINISHED))
        yield from (_left(row, is_expired=True) for row in db.execute(_EXPIRED))


@contextmanager
def open_beside(directory: Path) -> Iterator[sqlite3.Connection]:
    """The catalogue, to be read only, also beside a running receiver; changes nothing.

    Raises ConfigError where there is none that can be read.
    """
    path = directory / "catalogue.sqlite"
    # Of a receiver that was stopped everything is in this one file. SQLite would make others beside it, which are then
    # those of whoever asks, and the receiver could not open them.
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, timeout=_BUSY_TIMEOUT_S)) as db:
            db.row_factory = sqlite3.Row
            yield db
    except sqlite3.Error as error:
        said = f"{path} cannot be read: {error}"
        raise ConfigError("no catalogue of a receiver, or one of another version", problems=(said,)) from error


_UNFINISHED = (
    "SELECT station, acquisition, announced_us, durable_bytes, size_bytes, expires_us AS ends_us FROM acquisition"
    " WHERE state = 'open' ORDER BY announced_us, acquisition"
)
_EXPIRED = (
    "SELECT station, acquisition, announced_us, durable_bytes, size_bytes, expired_us AS ends_us FROM expired"
    " ORDER BY expired_us, acquisition"
)


def _left(row: sqlite3.Row, *, is_expired: bool) -> Left:
    return Left(
        station=StationId(row["station"]),
        acquisition=AcquisitionId(row["acquisition"]),
        is_expired=is_expired,
        since=None if row["announced_us"] is None else rows.from_us(row["announced_us"]),
        durable_bytes=row["durable_bytes"],
        size_bytes=row["size_bytes"],
        ends_at=rows.from_us(row["ends_us"]),
    )
