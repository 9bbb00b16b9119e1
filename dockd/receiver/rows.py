"""The catalogue's rows and every statement over them. Called on the catalogue's thread, within a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dockd.core.manifest import Manifest
from dockd.model import AcquisitionId, Digest, SignedBytes, StationId

OPEN, VERIFIED, STORED = "open", "verified", "stored"
_TWINS = 3  # of one clip, in one answer
_EXPIRED_KEPT = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """An announced acquisition. `durable_bytes` of its `size_bytes` are on the disk for certain."""

    station: StationId
    acquisition: AcquisitionId
    upload: str
    state: str
    manifest: SignedBytes
    manifest_digest: Digest
    sealed_digest: Digest
    size_bytes: int
    stanzas: int
    durable_bytes: int
    expires_at: datetime
    announced_at: datetime | None = None  # None: by a version that did not keep it


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Whose object an acquisition's clip is. `shown`: SHA-256 of the acquisition's nonce and that whole object."""

    holder: Announced
    shown: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A receipt that was given. It never changes."""

    receipt_seq: int
    signed: SignedBytes
    digest: Digest
    retention_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """The newest checkpoint of a station's log that was cosigned."""

    origin: str
    size: int
    root: bytes
    note: bytes


def to_us(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime:
    """The inverse."""
    return _EPOCH + timedelta(microseconds=microseconds)


# --- sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Whose token it is, until when, and which versions of statements were chosen for it."""

    station: StationId
    expires_at: datetime
    versions: Mapping[str, int]


def add_session(db: sqlite3.Connection, token_hash: bytes, one: Session) -> None:
    """Keep a token's hash."""
    said = json.dumps(dict(one.versions))
    db.execute("INSERT INTO session VALUES (?, ?, ?, ?)", (token_hash, one.station, to_us(one.expires_at), said))


def session(db: sqlite3.Connection, token_hash: bytes) -> Session | None:
    """Whose token this is."""
    row = db.execute("SELECT * FROM session WHERE token_hash = ?", (token_hash,)).fetchone()
    if row is None:
        return None
    station, expires_at = StationId(row["station"]), from_us(row["expires_us"])
    return Session(station=station, expires_at=expires_at, versions=json.loads(row["versions"]))


def drop_sessions(db: sqlite3.Connection, now: datetime) -> None:
    """Forget the tokens that ended."""
    db.execute("DELETE FROM session WHERE expires_us <= ?", (to_us(now),))


# --- acquisitions


def add_announced(db: sqlite3.Connection, one: Announced, stated: Manifest) -> None:
    """Keep a new announcement with what its manifest says.

    Raises sqlite3.IntegrityError where id, upload or ciphertext is there already.
    """
    db.execute(
        "INSERT INTO acquisition (station, acquisition, upload, state, manifest, signature, manifest_digest,"
        " sealed_digest, size_bytes, stanzas, durable_bytes, expires_us, announced_us, plaintext_digest, camera_serial)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            one.station,
            one.acquisition,
            one.upload,
            one.state,
            one.manifest.payload,
            one.manifest.signature,
            one.manifest_digest,
            one.sealed_digest,
            one.size_bytes,
            one.stanzas,
            one.durable_bytes,
            to_us(one.expires_at),
            one.announced_at and to_us(one.announced_at),
            stated.plaintext_digest,
            stated.camera.serial,
        ),
    )
    db.execute("DELETE FROM expired WHERE station = ? AND acquisition = ?", (one.station, one.acquisition))


def announced(db: sqlite3.Connection, station: StationId, acquisition: str) -> Announced | None:
    """A station's acquisition."""
    row = db.execute(
        "SELECT * FROM acquisition WHERE station = ? AND acquisition = ?", (station, acquisition)
    ).fetchone()
    return _announced(row) if row else None


def announced_by_upload(db: sqlite3.Connection, upload: str) -> Announced | None:
    """The acquisition behind an upload address."""
    row = db.execute("SELECT * FROM acquisition WHERE upload = ?", (upload,)).fetchone()
    return _announced(row) if row else None


def has_ciphertext(db: sqlite3.Connection, sealed_digest: Digest) -> bool:
    """Whether any acquisition has this ciphertext."""
    return db.execute("SELECT 1 FROM acquisition WHERE sealed_digest = ?", (sealed_digest,)).fetchone() is not None


def outstanding_bytes(db: sqlite3.Connection) -> int:
    """What all open uploads together still want to bring."""
    row = db.execute("SELECT total(size_bytes - durable_bytes) FROM acquisition WHERE state = 'open'").fetchone()
    return int(row[0])


def unfinished(db: sqlite3.Connection, station: StationId) -> tuple[int, int]:
    """How many uploads of a station are open, and how many bytes they have and still want, together."""
    count, total = db.execute(
        "SELECT count(*), total(size_bytes) FROM acquisition WHERE state = 'open' AND station = ?", (station,)
    ).fetchone()
    return count, int(total)


def set_durable(db: sqlite3.Connection, upload: str, durable_bytes: int, expires_at: datetime) -> None:
    """Move an open upload's durable offset. The bytes were fsynced before."""
    changed = db.execute(
        "UPDATE acquisition SET durable_bytes = ?, expires_us = ? WHERE upload = ? AND state = 'open'",
        (durable_bytes, to_us(expires_at), upload),
    ).rowcount
    if changed != 1:
        raise LookupError(f"upload {upload} is not open")


def set_state(db: sqlite3.Connection, upload: str, state: str) -> None:
    """Move an acquisition on."""
    db.execute("UPDATE acquisition SET state = ? WHERE upload = ?", (state, upload))


def reopen(db: sqlite3.Connection, upload: str, expires_at: datetime) -> None:
    """Take the bytes of a stored acquisition anew, from the first."""
    db.execute(
        "UPDATE acquisition SET state = 'open', durable_bytes = 0, expires_us = ?"
        " WHERE upload = ? AND state = 'stored'",
        (to_us(expires_at), upload),
    )


def settle(db: sqlite3.Connection, upload: str) -> bool:
    """Call an acquisition stored again that was reopened, and is verified by now. Returns whether it was one."""
    cursor = db.execute("UPDATE acquisition SET state = 'stored' WHERE upload = ? AND state = 'verified'", (upload,))
    return cursor.rowcount > 0


def drop_announced(db: sqlite3.Connection, upload: str) -> bool:
    """Forget an open upload and its announcement; False where it is not open.

    What a receipt was given for is never forgotten: of that only the bytes are dropped that were sent again.
    """
    reopened = db.execute(
        "UPDATE acquisition SET state = 'stored', durable_bytes = size_bytes WHERE upload = ? AND state = 'open' AND"
        " EXISTS (SELECT 1 FROM receipt WHERE receipt.station = acquisition.station"
        " AND receipt.acquisition = acquisition.acquisition)",
        (upload,),
    ).rowcount
    if reopened:
        return True
    return db.execute("DELETE FROM acquisition WHERE upload = ? AND state = 'open'", (upload,)).rowcount == 1


def expired(db: sqlite3.Connection, now: datetime) -> list[str]:
    """Open uploads whose time is over."""
    rows = db.execute("SELECT upload FROM acquisition WHERE state = 'open' AND expires_us <= ?", (to_us(now),))
    return [row["upload"] for row in rows]


def note_expired(db: sqlite3.Connection, one: Announced, now: datetime) -> None:
    """Remember an upload that nobody came back for; only the newest of them are kept."""
    db.execute(
        "INSERT OR REPLACE INTO expired VALUES (?, ?, ?, ?, ?, ?)",
        (
            one.station,
            one.acquisition,
            one.size_bytes,
            one.durable_bytes,
            one.announced_at and to_us(one.announced_at),
            to_us(now),
        ),
    )
    db.execute(
        "DELETE FROM expired WHERE (station, acquisition) NOT IN"
        " (SELECT station, acquisition FROM expired ORDER BY expired_us DESC LIMIT ?)",
        (_EXPIRED_KEPT,),
    )


def uploads(db: sqlite3.Connection) -> set[str]:
    """Every upload whose file may still be in the upload space."""
    return {row["upload"] for row in db.execute("SELECT upload FROM acquisition WHERE state <> 'stored'")}


# --- clips that two stations brought


def twins(db: sqlite3.Connection, stated: Manifest, stations: Collection[StationId]) -> list[Announced]:
    """What these stations brought of the same camera and plaintext and was signed for; the newest first, few."""
    rows = db.execute(
        "SELECT * FROM acquisition AS one WHERE state = 'stored' AND plaintext_digest = ? AND camera_serial = ?"
        " AND station IN (SELECT value FROM json_each(?)) AND NOT EXISTS (SELECT 1 FROM share"
        " WHERE share.station = one.station AND share.acquisition = one.acquisition)"
        " ORDER BY acquisition DESC LIMIT ?",
        (stated.plaintext_digest, stated.camera.serial, json.dumps(sorted(stations)), _TWINS),
    )
    return [_announced(row) for row in rows]


def share(db: sqlite3.Connection, one: Announced) -> Share | None:
    """Whose object an acquisition's clip is; None where it has bytes of its own."""
    row = db.execute(
        "SELECT acquisition.*, shown FROM share JOIN acquisition"
        " ON acquisition.station = share.holder AND acquisition.acquisition = share.held"
        " WHERE share.station = ? AND share.acquisition = ?",
        (one.station, one.acquisition),
    ).fetchone()
    return Share(holder=_announced(row), shown=row["shown"]) if row else None


def add_share(db: sqlite3.Connection, one: Announced, share: Share) -> None:
    """Close an open upload: its clip is another's object from here on."""
    db.execute(
        "INSERT INTO share VALUES (?, ?, ?, ?, ?)",
        (one.station, one.acquisition, share.holder.station, share.holder.acquisition, share.shown),
    )
    db.execute(
        "UPDATE acquisition SET state = 'verified', durable_bytes = size_bytes WHERE upload = ? AND state = 'open'",
        (one.upload,),
    )


def drop_share(db: sqlite3.Connection, one: Announced, expires_at: datetime) -> None:
    """The other's object is no more: take this acquisition's own bytes, from the first. A receipt stands."""
    db.execute("DELETE FROM share WHERE station = ? AND acquisition = ?", (one.station, one.acquisition))
    db.execute(
        "UPDATE acquisition SET state = 'open', durable_bytes = 0, expires_us = ? WHERE upload = ?",
        (to_us(expires_at), one.upload),
    )


# --- receipts


def add_receipt(db: sqlite3.Connection, one: Announced, given: Given) -> None:
    """Keep a receipt and the state that it stands for."""
    db.execute(
        "INSERT INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            one.station,
            given.receipt_seq,
            one.acquisition,
            given.signed.payload,
            given.signed.signature,
            given.digest,
            to_us(given.retention_until),
        ),
    )
    set_state(db, one.upload, STORED)


def receipt(db: sqlite3.Connection, station: StationId, acquisition: AcquisitionId) -> Given | None:
    """The receipt for an acquisition."""
    row = db.execute("SELECT * FROM receipt WHERE station = ? AND acquisition = ?", (station, acquisition)).fetchone()
    return _given(row) if row else None


def last_receipt(db: sqlite3.Connection, station: StationId) -> Given | None:
    """The newest receipt to a station."""
    row = db.execute("SELECT * FROM receipt WHERE station = ? ORDER BY receipt_seq DESC LIMIT 1", (station,)).fetchone()
    return _given(row) if row else None


# --- checkpoints


def cosigned(db: sqlite3.Connection, station: StationId) -> Cosigned | None:
    """The newest cosigned checkpoint of a station's log."""
    row = db.execute("SELECT * FROM checkpoint WHERE station = ?", (station,)).fetchone()
    return Cosigned(origin=row["origin"], size=row["size"], root=row["root"], note=row["note"]) if row else None


def put_cosigned(db: sqlite3.Connection, station: StationId, one: Cosigned) -> None:
    """Put a newer one in its place."""
    db.execute(
        "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?)", (station, one.origin, one.size, one.root, one.note)
    )


def _announced(row: sqlite3.Row) -> Announced:
    return Announced(
        station=StationId(row["station"]),
        acquisition=AcquisitionId(row["acquisition"]),
        upload=row["upload"],
        state=row["state"],
        manifest=SignedBytes(payload=row["manifest"], signature=row["signature"]),
        manifest_digest=Digest(row["manifest_digest"]),
        sealed_digest=Digest(row["sealed_digest"]),
        size_bytes=row["size_bytes"],
        stanzas=row["stanzas"],
        durable_bytes=row["durable_bytes"],
        expires_at=from_us(row["expires_us"]),
        announced_at=None if row["announced_us"] is None else from_us(row["announced_us"]),
    )


def _given(row: sqlite3.Row) -> Given:
    return Given(
        receipt_seq=row["receipt_seq"],
        signed=SignedBytes(payload=row["payload"], signature=row["signature"]),
        digest=Digest(row["digest"]),
        retention_until=from_us(row["retention_until_us"]),
    )
