"""The catalogue's rows about policies, promises and extensions. Called on its thread, within a transaction."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from dockd.core.retention import RecordedFrom, Until
from dockd.model import Digest, SignedBytes
from dockd.receiver.rows import Announced, to_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """What was promised of an acquisition by its receipt."""

    category: str
    until: Until
    recorded_from: RecordedFrom
    recorded_at: datetime
    arrived_at: datetime
    keep_until: datetime
    is_late: bool


def newest_policy(db: sqlite3.Connection) -> tuple[int, SignedBytes] | None:
    """The policy statement of now, with its number."""
    row = db.execute("SELECT * FROM policy ORDER BY policy_seq DESC LIMIT 1").fetchone()
    return (row["policy_seq"], SignedBytes(payload=row["payload"], signature=row["signature"])) if row else None


def add_policy(db: sqlite3.Connection, policy_seq: int, signed: SignedBytes, digest: Digest) -> None:
    """Keep the next one; each station hears of it with its next session, and all of them open one."""
    db.execute("INSERT INTO policy VALUES (?, ?, ?, ?)", (policy_seq, signed.payload, signed.signature, digest))
    db.execute("DELETE FROM session")


def add_promise(db: sqlite3.Connection, one: Announced, promised: Promised) -> None:
    """Keep what a receipt promises, with it."""
    db.execute(
        "INSERT INTO promise VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            one.station,
            one.acquisition,
            promised.category,
            promised.until.value,
            promised.recorded_from.value,
            to_us(promised.recorded_at),
            to_us(promised.arrived_at),
            to_us(promised.keep_until),
            promised.is_late,
        ),
    )


def is_promised(db: sqlite3.Connection, one: Announced, until: datetime) -> bool:
    """Whether it is kept until then, by what is kept of its promise."""
    wanted = one.station, one.acquisition, to_us(until)
    found = db.execute("SELECT 1 FROM promise WHERE station = ? AND acquisition = ? AND keep_until_us >= ?", wanted)
    return found.fetchone() is not None


def keep_longer(db: sqlite3.Connection, one: Announced, until: datetime) -> None:
    """A later moment was stated. One that was stated before never moves back."""
    db.execute(
        "UPDATE promise SET keep_until_us = max(keep_until_us, ?) WHERE station = ? AND acquisition = ?",
        (to_us(until), one.station, one.acquisition),
    )


def extensions(db: sqlite3.Connection, one: Announced) -> tuple[SignedBytes, ...]:
    """The extensions of its receipt, in their order."""
    found = db.execute(
        "SELECT payload, signature FROM extension WHERE station = ? AND acquisition = ? ORDER BY n",
        (one.station, one.acquisition),
    )
    return tuple(SignedBytes(payload=row["payload"], signature=row["signature"]) for row in found)


def add_extension(
    db: sqlite3.Connection, one: Announced, n: int, signed: SignedBytes, promised: tuple[str, Until, datetime]
) -> None:
    """Keep the next extension, and what it promises: category, what ends it, and until when."""
    db.execute(
        "INSERT INTO extension VALUES (?, ?, ?, ?, ?)",
        (one.station, one.acquisition, n, signed.payload, signed.signature),
    )
    category, until, kept = promised
    db.execute(
        "UPDATE promise SET category = ?, until = ? WHERE station = ? AND acquisition = ?",
        (category, until.value, one.station, one.acquisition),
    )
    keep_longer(db, one, kept)
