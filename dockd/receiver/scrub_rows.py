"""The catalogue's rows about looking again at what is stored: what is due, what was found. Within a transaction.

Nothing of the schedule is kept but when things happened: what is due follows from that, the settings and the time now,
so that new settings hold at once. A time that lies ahead was written before the clock was set back: then it is due.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from dockd.core.canonical import format_time
from dockd.model import AcquisitionId, SignedBytes, StationId
from dockd.receiver.rows import Announced, announced, from_us, receipt, share, to_us

AGAIN_FIRST, AGAIN_MOST = timedelta(minutes=1), timedelta(hours=6)
_CLOCK_SLACK = timedelta(seconds=5)  # by which clocks are set back without anything being amiss


class What(StrEnum):
    """What a look proved of a clip."""

    MISSING = "missing"
    LENGTH = "length"
    CHANGED = "changed"
    PAPERS = "papers"  # manifest, receipt or a signature beside it: the catalogue has them too, so they are mended


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often is looked. `first_within` of the receipt, then once in `every`."""

    every: timedelta
    first_within: timedelta

    @property
    def first_after(self) -> timedelta:
        """When a first look begins to be due: early enough, and not while all of it is in memory still."""
        return self.first_within / 4

    @property
    def next_after(self) -> timedelta:
        """When the next look begins to be due."""
        return self.every * 0.9

    @property
    def again_first(self) -> timedelta:
        """How soon what is suspected is looked at again."""
        return min(AGAIN_FIRST, self.first_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is to be looked at now. `held`: whose object the clip is. `proof`: what the look before this one saw."""

    one: Announced
    held: Announced
    receipt: SignedBytes
    since_us: int
    proof: What | None
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """One acquisition that was found lost. It is kept when it is healed."""

    station: StationId
    acquisition: AcquisitionId
    what: What
    detail: str
    found_at: datetime
    healed_at: datetime | None
    healed_by: str | None

    def to_json(self) -> dict[str, Any]:
        """The stable JSON form (docs/receiver.md)."""
        return {
            "type": "loss",
            "v": 1,
            "station": self.station,
            "acquisition": self.acquisition,
            "what": self.what,
            "detail": self.detail,
            "found": format_time(self.found_at),
            "healed": self.healed_at and format_time(self.healed_at),
            "healed_by": self.healed_by,
        }

    def sentence(self) -> str:
        """For people."""
        healed = f"  healed {format_time(self.healed_at)} ({self.healed_by})" if self.healed_at else ""
        return (
            f"{self.what:<8}  {self.acquisition}  station {self.station}  found {format_time(self.found_at)}{healed}"
            f"  {self.detail}"
        )


_STANDS = (
    "EXISTS (SELECT 1 FROM acquisition AS one JOIN receipt USING (station, acquisition)"
    " WHERE one.station = look.station AND one.acquisition = look.acquisition AND one.state = 'stored')"
)
_ORDER = (
    # First looks that can still be in time, before all that is late anyway.
    "looked_us IS NULL AND again_us IS NULL AND since_us > :late AND since_us <= :first ORDER BY since_us",
    "again_us IS NOT NULL AND (again_us <= :now OR again_us > :again_most) ORDER BY again_us",
    "looked_us IS NULL AND again_us IS NULL AND since_us <= :late ORDER BY since_us",
    "looked_us IS NOT NULL AND again_us IS NULL AND looked_us <= :next ORDER BY looked_us",
    "looked_us IS NOT NULL AND again_us IS NULL AND looked_us > :ahead ORDER BY looked_us",
    "looked_us IS NULL AND again_us IS NULL AND since_us > :ahead ORDER BY since_us",
)


def next_due(db: sqlite3.Connection, pace: Pace, now: datetime) -> Due | None:
    """The acquisition to look at now; None where nothing is due."""
    times = {
        "now": to_us(now),
        "first": to_us(now - pace.first_after),
        "late": to_us(now - pace.first_within),
        "next": to_us(now - pace.next_after),
        "ahead": to_us(now + _CLOCK_SLACK),
        "again_most": to_us(now + AGAIN_MOST + _CLOCK_SLACK),
    }
    for condition in _ORDER:
        row = db.execute(
            f"SELECT look.* FROM look WHERE {_STANDS} AND {condition} LIMIT 1",  # noqa: S608  constants
            {key: value for key, value in times.items() if f":{key}" in condition},
        ).fetchone()
        if row is not None:
            return _due(db, row)
    return None


def _due(db: sqlite3.Connection, row: sqlite3.Row) -> Due | None:
    one = announced(db, StationId(row["station"]), row["acquisition"])
    given = receipt(db, one.station, one.acquisition) if one else None
    if one is None or given is None:
        return None
    shared = share(db, one)
    return Due(
        one=one,
        held=shared.holder if shared else one,
        receipt=given.signed,
        since_us=row["since_us"],
        proof=What(row["proof"]) if row["proof"] else None,
        tries=row["tries"],
    )


def stands(db: sqlite3.Connection, due: Due) -> bool:
    """Whether it is still stored as it was when it came up: neither opened again nor sent again since."""
    row = db.execute(
        f"SELECT 1 FROM look WHERE station = ? AND acquisition = ? AND since_us = ? AND {_STANDS}",  # noqa: S608  a constant
        (due.one.station, due.one.acquisition, due.since_us),
    ).fetchone()
    return row is not None


# --- what was found


def note_well(db: sqlite3.Connection, one: Announced, now: datetime) -> bool:
    """It is as it was signed for. Returns whether it was lost before."""
    _settle(db, one, now, again=None)
    return heal(db, one.station, one.acquisition, now, "found-well")


def note_suspected(  # noqa: PLR0917  what there is to say of it
    db: sqlite3.Connection, due: Due, pace: Pace, now: datetime, suspicion: str, proof: What | None
) -> None:
    """It cannot be read, or was found gone for the first time: look again soon, later each time."""
    again = min(pace.again_first * 2 ** min(due.tries, 20), AGAIN_MOST)
    db.execute(
        "UPDATE look SET suspected_us = coalesce(suspected_us, ?), suspicion = ?, proof = ?, tries = tries + 1,"
        " again_us = ? WHERE station = ? AND acquisition = ?",
        (to_us(now), suspicion, proof, to_us(now + again), due.one.station, due.one.acquisition),
    )
    _count(db, "suspected")


def note_lost(db: sqlite3.Connection, one: Announced, now: datetime, what: What, detail: str) -> bool:
    """It is proven that it is not as it was signed for. Returns whether that is new."""
    _settle(db, one, now, again=AGAIN_MOST)
    if is_lost(db, one.station, one.acquisition):
        return False
    _add_loss(db, one, now, what, detail)
    return True


def note_mended(db: sqlite3.Connection, one: Announced, now: datetime, detail: str) -> None:
    """What is kept beside a clip was gone or changed, and was written again from the catalogue. Part of the history."""
    _add_loss(db, one, now, What.PAPERS, detail, healed_by="mended")


def begin_again(db: sqlite3.Connection, station: StationId, acquisition: AcquisitionId, now: datetime) -> None:
    """It was signed for just now, or sent again under its receipt: its first look is due."""
    db.execute(
        "INSERT OR REPLACE INTO look (station, acquisition, since_us) VALUES (?, ?, ?)",
        (station, acquisition, to_us(now)),
    )
    heal(db, station, acquisition, now, "sent-again")


def heal(db: sqlite3.Connection, station: StationId, acquisition: AcquisitionId, now: datetime, how: str) -> bool:
    """End a loss; it stays in the history. Returns whether there was one."""
    return (
        db.execute(
            "UPDATE loss SET healed_us = ?, healed_by = ? WHERE station = ? AND acquisition = ? AND healed_us IS NULL",
            (to_us(now), how, station, acquisition),
        ).rowcount
        > 0
    )


def is_lost(db: sqlite3.Connection, station: StationId, acquisition: AcquisitionId) -> bool:
    """Whether a look proved it lost, and nothing healed that since."""
    row = db.execute(
        "SELECT 1 FROM loss WHERE station = ? AND acquisition = ? AND healed_us IS NULL", (station, acquisition)
    ).fetchone()
    return row is not None


def count_read(db: sqlite3.Connection, size_bytes: int) -> None:
    """So many bytes were read for a look."""
    _count(db, "bytes_read", size_bytes)


def _settle(db: sqlite3.Connection, one: Announced, now: datetime, again: timedelta | None) -> None:
    db.execute(
        "UPDATE look SET looked_us = ?, suspected_us = NULL, suspicion = NULL, proof = NULL, tries = 0, again_us = ?"
        " WHERE station = ? AND acquisition = ?",
        (to_us(now), to_us(now + again) if again else None, one.station, one.acquisition),
    )
    _count(db, "looks")


def _add_loss(  # noqa: PLR0917  as above
    db: sqlite3.Connection, one: Announced, now: datetime, what: What, detail: str, healed_by: str | None = None
) -> None:
    healed = to_us(now) if healed_by else None
    db.execute(
        "INSERT INTO loss (station, acquisition, what, detail, found_us, healed_us, healed_by)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (one.station, one.acquisition, what, detail, to_us(now), healed, healed_by),
    )
    _count(db, "mended" if healed_by else "losses")


def _count(db: sqlite3.Connection, name: str, by: int = 1) -> None:
    db.execute(
        "INSERT INTO scrub VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET count = count + excluded.count", (name, by)
    )


# --- what can be said


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """How much of what was signed for was looked at, of one station or all. Where nothing was, that is said, too."""

    objects: int  # with a receipt
    size_bytes: int
    looked: int  # of these, within the last `every`
    oldest: datetime | None  # the earliest of these looks: all of them were well, or listed, at or after this moment
    never: int  # since they were signed for, or sent again
    late: int  # first looks and others that should have been by now
    unread: int  # suspected: they cannot be read at this time, or were found gone once
    losses: int  # at this time

    @property
    def is_whole(self) -> bool:
        """Whether all was looked at in time, and is well."""
        return not (self.late or self.unread or self.losses)

    def to_json(self) -> dict[str, Any]:
        """As logs and commands show it."""
        return {
            "objects": self.objects,
            "size_bytes": self.size_bytes,
            "looked": self.looked,
            "oldest": self.oldest and format_time(self.oldest),
            "never": self.never,
            "late": self.late,
            "unread": self.unread,
            "losses": self.losses,
        }


def looked(db: sqlite3.Connection, pace: Pace, now: datetime, station: StationId | None = None) -> Looked:
    """Of one station's acquisitions, or of all. An object of another station was looked at where that station's was."""
    row = db.execute(_LOOKED, _times(pace, now) | {"station": station}).fetchone()
    (losses,) = db.execute(f"SELECT count(*) FROM ({_LOSSES})", {"station": station, "after": ""}).fetchone()  # noqa: S608  a constant
    return Looked(
        objects=row["objects"],
        size_bytes=row["size_bytes"] or 0,
        looked=row["looked"] or 0,
        oldest=None if row["oldest"] is None else from_us(row["oldest"]),
        never=row["never"] or 0,
        late=row["late"] or 0,
        unread=row["unread"] or 0,
        losses=losses,
    )


def _times(pace: Pace, now: datetime) -> dict[str, int]:
    return {
        "ahead": to_us(now + _CLOCK_SLACK),
        "begun": to_us(now - pace.every),
        "late": to_us(now - pace.first_within),
    }


_EACH = (
    "SELECT look.since_us AS since_us, CASE WHEN share.held IS NULL THEN look.looked_us"
    " ELSE min(look.looked_us, theirs.looked_us) END AS last_us,"
    " look.suspected_us IS NOT NULL OR theirs.suspected_us IS NOT NULL AS unread,"
    " CASE WHEN share.held IS NULL THEN acquisition.size_bytes ELSE 0 END AS size_bytes"
    " FROM look JOIN acquisition USING (station, acquisition)"
    " LEFT JOIN share ON share.station = look.station AND share.acquisition = look.acquisition"
    " LEFT JOIN look AS theirs ON theirs.station = share.holder AND theirs.acquisition = share.held"
    " WHERE :station IS NULL OR look.station = :station"
)
_FRESH = "last_us > :begun AND last_us <= :ahead"
_LOOKED = (
    "SELECT count(*) AS objects, sum(size_bytes) AS size_bytes,"  # noqa: S608  constants
    f" sum(last_us IS NOT NULL AND {_FRESH}) AS looked, min(CASE WHEN {_FRESH} THEN last_us END) AS oldest,"
    " sum(last_us IS NULL) AS never, sum(unread) AS unread,"
    f" sum(CASE WHEN last_us IS NULL THEN since_us <= :late OR since_us > :ahead ELSE NOT ({_FRESH}) END) AS late"
    f" FROM ({_EACH})"
)

# Of an acquisition that rests on another's object, that one's loss is its own.
_LOSSES = (
    "SELECT look.station, look.acquisition, loss.what, loss.detail, loss.found_us, loss.healed_us, loss.healed_by"
    " FROM loss JOIN look USING (station, acquisition) WHERE loss.healed_us IS NULL"
    " AND (:station IS NULL OR look.station = :station) AND look.acquisition > :after"
    " UNION ALL"
    " SELECT share.station, share.acquisition, loss.what, loss.detail, loss.found_us, loss.healed_us, loss.healed_by"
    " FROM share JOIN loss ON loss.station = share.holder AND loss.acquisition = share.held"
    " WHERE loss.healed_us IS NULL AND (:station IS NULL OR share.station = :station)"
    " AND share.acquisition > :after AND NOT EXISTS (SELECT 1 FROM loss AS own WHERE own.healed_us IS NULL"
    " AND own.station = share.station AND own.acquisition = share.acquisition)"
)


def losses(db: sqlite3.Connection, station: StationId | None, after: str, limit: int) -> list[Loss]:
    """What is lost at this time, of one station or all, in the order of acquisitions."""
    found = db.execute(f"{_LOSSES} ORDER BY 2, 1 LIMIT :limit", {"station": station, "after": after, "limit": limit})
    return [_loss(row) for row in found]


def history(db: sqlite3.Connection) -> list[Loss]:
    """All that was ever found lost and is well again, the oldest first."""
    return [_loss(row) for row in db.execute("SELECT * FROM loss WHERE healed_us IS NOT NULL ORDER BY n")]


def counts(db: sqlite3.Connection) -> dict[str, int]:
    """What was counted since the catalogue had this format."""
    found = {row["name"]: row["count"] for row in db.execute("SELECT * FROM scrub")}
    return {name: found.get(name, 0) for name in ("looks", "bytes_read", "suspected", "losses", "mended")}


def _loss(row: sqlite3.Row) -> Loss:
    return Loss(
        station=StationId(row["station"]),
        acquisition=AcquisitionId(row["acquisition"]),
        what=What(row["what"]),
        detail=row["detail"],
        found_at=from_us(row["found_us"]),
        healed_at=None if row["healed_us"] is None else from_us(row["healed_us"]),
        healed_by=row["healed_by"],
    )
