"""What the journal can be asked. Every pick that a running station repeats is an index search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockd.core.lifecycle import AcquisitionState
from dockd.errors import JournalError
from dockd.keep.records import (
    Counts,
    DockingRecord,
    EnrolmentRecord,
    acquisition_of,
    counts_of,
    docking_of,
    enrolment_of,
    noted_of,
)
from dockd.model import (
    Acquisition,
    AcquisitionId,
    CameraIdentity,
    Category,
    Digest,
    DockingId,
    Epoch,
    FileKind,
    ListedFile,
    SignedBytes,
    StoreId,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

# INDEXED BY where an index was made for one pick: the planner, which knows no figures, may prefer a broader one and
# then walk through every clip of a docking.
_SENDABLE = "state IN ('spooled', 'uploading')"
# `other` is another file, and on the same camera now: the newest acquisition of its path in that docking.
_BESIDE = (
    "other.docking = own.docking AND other.acquisition <> own.acquisition"
    " AND other.state NOT IN ('erased', 'departed')"
    " AND NOT EXISTS (SELECT 1 FROM acquisition AS newer INDEXED BY acquisition_by_clip"
    " WHERE newer.serial = other.serial AND newer.volume_id = other.volume_id AND newer.path = other.path"
    " AND newer.acquisition > other.acquisition AND newer.docking = other.docking)"
)
# It belongs to `own`, and may not be erased yet: neither may then. The erasure of what is warranted was begun.
_HINDERS = (
    f"{_BESIDE} AND other.state <> 'warranted'"
    " AND NOT (other.state = 'stored' AND other.reread_docking IS other.docking AND other.contested = 0"
    " AND (other.verdict IS 'intact' OR other.released_by IS NOT NULL))"
)


class Queries:
    """Reads within one transaction. A core.merkle.NodeSource of the custody tree, too."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def _one(self, sql: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        return self._connection.execute(sql, values).fetchall()

    # --- custody

    @property
    def size(self) -> int:
        """The number of custody entries."""
        row = self._one("SELECT max(seq) + 1 FROM entry")
        return 0 if row is None or row[0] is None else int(row[0])

    def line(self, seq: int) -> bytes:
        """One custody line, without its LF. Raises JournalError where there is none."""
        row = self._one("SELECT line FROM entry WHERE seq = ?", seq)
        if row is None:
            raise JournalError(f"the journal has no custody entry {seq}")
        return bytes(row[0])

    def lines(self, first: int, count: int) -> list[bytes]:
        """Up to `count` custody lines from entry `first` on."""
        return [row[0] for row in self._all("SELECT line FROM entry WHERE seq >= ? ORDER BY seq LIMIT ?", first, count)]

    def node(self, level: int, index: int) -> bytes:
        """A complete node of the custody tree. Raises JournalError where there is none."""
        row = self._one("SELECT hash FROM node WHERE level = ? AND position = ?", level, index)
        if row is None:
            raise JournalError(f"the custody tree has no node {index} on level {level}")
        return bytes(row[0])

    def get(self, key: str) -> str | None:
        """A small setting."""
        row = self._one("SELECT value FROM setting WHERE key = ?", key)
        return None if row is None else str(row[0])

    def keys(self, prefix: str) -> list[str]:
        """The keys of all small settings that begin so, in order."""
        beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        rows = self._all("SELECT key FROM setting WHERE key >= ? AND key < ? ORDER BY key", prefix, beyond)
        return [str(row["key"]) for row in rows]

    # --- enrolments

    def enrolments(self) -> list[EnrolmentRecord]:
        """All of them, serials first."""
        return [enrolment_of(dict(row)) for row in self._all("SELECT * FROM enrolment ORDER BY kind DESC, name")]

    def enrolment(self, serial: str, profiles: Sequence[str]) -> EnrolmentRecord | None:
        """What admits a camera: its own enrolment, else that of the first of these profiles that has one."""
        for kind, name in (("serial", serial), *(("profile", profile) for profile in profiles)):
            row = self._one("SELECT * FROM enrolment WHERE kind = ? AND name = ?", kind, name)
            if row is not None:
                return enrolment_of(dict(row))
        return None

    def volume_seen(self, serial: str, after: Epoch) -> str | None:
        """The volume id that a camera had in its newest docking later than `after`."""
        row = self._one(
            "SELECT volume_id FROM docking WHERE serial = ? AND epoch > ? ORDER BY epoch DESC LIMIT 1", serial, after
        )
        return None if row is None else str(row[0])

    # --- dockings

    def docking(self, docking: DockingId) -> DockingRecord | None:
        """A docking."""
        row = self._one("SELECT * FROM docking WHERE docking = ?", docking)
        return None if row is None else docking_of(row)

    def docking_of_epoch(self, epoch: Epoch) -> DockingRecord | None:
        """The docking with this epoch."""
        row = self._one("SELECT * FROM docking WHERE epoch = ?", epoch)
        return None if row is None else docking_of(row)

    def open_dockings(self) -> list[DockingRecord]:
        """The dockings that have not ended, oldest first."""
        return [docking_of(row) for row in self._all("SELECT * FROM docking WHERE state <> 'ended' ORDER BY epoch")]

    def noted_files(self, docking: DockingId, *, limit: int = -1, after: bytes = b"") -> list[ListedFile]:
        """What the listing found that is no acquisition, by path, from the first path beyond `after` on."""
        rows = self._all(
            "SELECT * FROM noted_file WHERE docking = ? AND path > ? ORDER BY path LIMIT ?", docking, after, limit
        )
        return [noted_of(row) for row in rows]

    def count_noted(self, docking: DockingId) -> int:
        """How many files `noted_files` would give."""
        row = self._one("SELECT count(*) FROM noted_file WHERE docking = ?", docking)
        return 0 if row is None else int(row[0])

    def counts(self, docking: DockingId) -> Counts:
        """The docking's clips by state, with their bytes on the camera."""
        return counts_of(self._all("SELECT state, held, clips, size_bytes FROM tally WHERE docking = ?", docking))

    # --- acquisitions

    def acquisition(self, acquisition: AcquisitionId) -> Acquisition | None:
        """An acquisition."""
        row = self._one("SELECT * FROM acquisition WHERE acquisition = ?", acquisition)
        return None if row is None else acquisition_of(row)

    def acquisitions(
        self,
        *,
        state: AcquisitionState | None = None,
        docking: DockingId | None = None,
        serial: str | None = None,
        limit: int | None = None,
        after: AcquisitionId | None = None,
    ) -> list[Acquisition]:
        """Acquisitions in the order in which they were found, from the first beyond `after` on."""
        wanted = {
            "state = ?": None if state is None else AcquisitionState(state).value,
            "docking = ?": docking,
            "serial = ?": serial,
            "acquisition > ?": after,
        }
        chosen = {term: value for term, value in wanted.items() if value is not None}
        where = f" WHERE {' AND '.join(chosen)}" if chosen else ""
        return self._acquisitions(
            f"SELECT * FROM acquisition{where} ORDER BY acquisition LIMIT ?",  # noqa: S608  terms from above
            *chosen.values(),
            -1 if limit is None else limit,
        )

    def find_clip(self, serial: str, volume_id: str, path: bytes, size_bytes: int, mtime_ns: int) -> Acquisition | None:
        """The newest acquisition of this very clip that is neither erased, spoiled nor contested."""
        row = self._one(
            "SELECT * FROM acquisition WHERE serial = ? AND volume_id = ? AND path = ? AND size_bytes = ?"
            " AND mtime_ns = ? AND state NOT IN ('erased', 'spoiled') AND contested = 0"
            " ORDER BY acquisition DESC LIMIT 1",
            serial,
            volume_id,
            path,
            size_bytes,
            str(mtime_ns),
        )
        return None if row is None else acquisition_of(row)

    def find_path(self, serial: str, volume_id: str, path: bytes) -> list[Acquisition]:
        """The acquisitions of this path that were not read (found, needs_spool, acquiring, departed), oldest first."""
        return self._acquisitions(
            "SELECT * FROM acquisition WHERE serial = ? AND volume_id = ? AND path = ?"
            " AND state IN ('found', 'needs_spool', 'acquiring', 'departed') ORDER BY acquisition",
            serial,
            volume_id,
            path,
        )

    def spoiled(self, *, docking: DockingId | None = None, limit: int = -1) -> list[Acquisition]:
        """Those whose sealed file was lost, and whose clip was not even found anew since; oldest first."""
        where = "" if docking is None else " AND one.docking = ?"
        return self._acquisitions(
            f"SELECT * FROM acquisition AS one WHERE state = 'spoiled'{where} AND NOT EXISTS"  # noqa: S608  from above
            " (SELECT 1 FROM acquisition AS other WHERE other.serial = one.serial AND other.volume_id = one.volume_id"
            " AND other.path = one.path AND other.acquisition > one.acquisition AND other.size_bytes = one.size_bytes"
            " AND other.mtime_ns = one.mtime_ns AND other.state <> 'departed') ORDER BY acquisition LIMIT ?",
            *(() if docking is None else (docking,)),
            limit,
        )

    def replaced(self, spoiled: Acquisition) -> bool:
        """Whether the store confirmed a later acquisition of the same clip."""
        row = self._one(
            "SELECT 1 FROM acquisition WHERE serial = ? AND volume_id = ? AND path = ? AND acquisition > ?"
            " AND size_bytes = ? AND mtime_ns = ? AND state IN ('stored', 'warranted', 'erased')",
            spoiled.camera.serial,
            spoiled.camera.volume_id,
            spoiled.file.path,
            spoiled.acquisition,
            spoiled.file.size_bytes,
            str(spoiled.file.mtime_ns),
        )
        return row is not None

    def count_contested(self, camera: CameraIdentity, path: bytes) -> int:
        """How many acquisitions of this path a second read has disagreed with, whatever became of them."""
        row = self._one(
            "SELECT count(*) FROM acquisition WHERE serial = ? AND volume_id = ? AND path = ? AND contested = 1",
            camera.serial,
            camera.volume_id,
            path,
        )
        return 0 if row is None else int(row[0])

    def next_in(self, docking: DockingId, state: AcquisitionState, *, limit: int = 1) -> list[Acquisition]:
        """The docking's next acquisitions in this state: evidence first, then by path."""
        return self._acquisitions(
            "SELECT * FROM acquisition WHERE docking = ? AND state = ? ORDER BY category, path, acquisition LIMIT ?",
            docking,
            AcquisitionState(state).value,
            limit,
        )

    def next_to_reread(self, docking: DockingId, *, limit: int = 1) -> list[Acquisition]:
        """Those that were read but have no second read within this docking: evidence first, then by path."""
        return self._acquisitions(
            "SELECT * FROM acquisition INDEXED BY acquisition_to_reread"
            " WHERE docking = ? AND state IN ('spooled', 'uploading', 'stored')"
            " AND reread_docking IS NOT docking AND contested = 0 ORDER BY category, path, acquisition LIMIT ?",
            docking,
            limit,
        )

    def next_to_erase(self, docking: DockingId, *, limit: int = 1) -> list[Acquisition]:
        """Those for which only the holding statement and the warrant are missing: evidence first, then by path.

        A pick, not a permission: that is core.warrant's alone.
        """
        return self._acquisitions(
            "SELECT * FROM acquisition AS own INDEXED BY acquisition_to_erase"  # noqa: S608  constants
            " WHERE docking = ? AND state = 'stored' AND reread_docking = docking"
            " AND contested = 0 AND (verdict = 'intact' OR released_by IS NOT NULL)"
            f" AND NOT EXISTS (SELECT 1 FROM acquisition AS other WHERE other.acquisition = own.of AND {_HINDERS})"
            " AND NOT EXISTS (SELECT 1 FROM acquisition AS other INDEXED BY acquisition_of"
            f" WHERE other.of = coalesce(own.of, own.acquisition) AND {_HINDERS})"
            " ORDER BY category, path, acquisition LIMIT ?",
            docking,
            limit,
        )

    def companions(self, row: Acquisition) -> list[Acquisition]:
        """What is erased together with it: the clip and its other sidecars, as far as they are on the camera now."""
        return self._acquisitions(
            "SELECT other.* FROM acquisition AS own JOIN acquisition AS other ON other.acquisition = own.of"  # noqa: S608  constants
            f" WHERE own.acquisition = ? AND {_BESIDE} UNION"
            " SELECT other.* FROM acquisition AS own JOIN acquisition AS other INDEXED BY acquisition_of"
            f" ON other.of = coalesce(own.of, own.acquisition) WHERE own.acquisition = ? AND {_BESIDE}"
            " ORDER BY acquisition",
            row.acquisition,
            row.acquisition,
        )

    def refused_beside(self, row: Acquisition) -> ListedFile | None:
        """What the newest listing could not look into, with its name but for the suffix: it may belong to it."""
        stem = _stem(row.file.path)
        rows = self._all(
            "SELECT * FROM noted_file WHERE docking = ? AND path > ? AND path < ? AND kind = ? ORDER BY path",
            row.docking,
            stem + b".",
            stem + b"/",
            FileKind.REFUSED.value,
        )
        return next((noted_of(noted) for noted in rows if _stem(noted["path"]) == stem), None)

    def sidecars(self, docking: DockingId, *, limit: int, after: AcquisitionId | None = None) -> list[Acquisition]:
        """The docking's sidecars in the order in which they were found, from the first beyond `after` on."""
        return self._acquisitions(
            "SELECT * FROM acquisition INDEXED BY acquisition_sidecars"
            " WHERE docking = ? AND role = 'sidecar' AND acquisition > ? ORDER BY acquisition LIMIT ?",
            docking,
            after or "",
            limit,
        )

    def clip_beside(self, sidecar: Acquisition) -> Acquisition | None:
        """The clip beside it with the same name but for the suffix, in its docking; the longest of several."""
        stem = _stem(sidecar.file.path)
        rows = self._acquisitions(
            "SELECT * FROM acquisition WHERE serial = ? AND volume_id = ? AND path > ? AND path < ?"
            " AND docking = ? AND role = 'clip' AND contested = 0 AND state NOT IN ('erased', 'departed')"
            " ORDER BY acquisition",
            sidecar.camera.serial,
            sidecar.camera.volume_id,
            stem + b".",
            stem + b"/",
            sidecar.docking,
        )
        newest = {row.file.path: row for row in rows if _stem(row.file.path) == stem}
        return max(newest.values(), key=lambda row: (row.file.size_bytes, row.acquisition), default=None)

    def uplink_candidates(self, limit: int) -> list[Acquisition]:
        """What to send next: evidence first, then what frees a bay soonest, then oldest.

        A bay is freed the sooner, the fewer bytes of its open docking are still to be read or confirmed.
        """
        dockings = self._dockings_by_outstanding()
        found: list[Acquisition] = []
        for category in (Category.EVIDENCE, Category.NONE):
            for docking in dockings:
                found += self._acquisitions(
                    "SELECT * FROM acquisition INDEXED BY acquisition_to_send_of"  # noqa: S608  a constant
                    f" WHERE docking = ? AND category = ? AND {_SENDABLE}"
                    " ORDER BY found_at_us, acquisition LIMIT ?",
                    docking,
                    category.value,
                    limit - len(found),
                )
            # By now either nothing more is wanted, or the open dockings have fewer of this category than `limit`:
            # this search passes over no more than those.
            found += self._acquisitions(
                f"SELECT * FROM acquisition INDEXED BY acquisition_to_send WHERE category = ? AND {_SENDABLE}"  # noqa: S608  constants, and question marks
                f" AND docking NOT IN ({', '.join('?' * len(dockings))})"
                " ORDER BY found_at_us, acquisition LIMIT ?",
                category.value,
                *dockings,
                limit - len(found),
            )
        return found

    def uplink_firsts(self, limit: int) -> list[Acquisition]:
        """The first `limit` of each open docking that are to be sent: evidence first, then oldest."""
        return [
            row
            for docking in self._dockings_by_outstanding()
            for category in (Category.EVIDENCE, Category.NONE)
            for row in self._acquisitions(
                "SELECT * FROM acquisition INDEXED BY acquisition_to_send_of"  # noqa: S608  a constant
                f" WHERE docking = ? AND category = ? AND {_SENDABLE} ORDER BY found_at_us, acquisition LIMIT ?",
                docking,
                category.value,
                limit,
            )
        ]

    def held(self, *, limit: int) -> list[Acquisition]:
        """Stored ones that wait for an operator's release, oldest first."""
        return self._acquisitions(
            "SELECT * FROM acquisition INDEXED BY acquisition_held WHERE held = 1 ORDER BY acquisition LIMIT ?", limit
        )

    def sendable(self) -> tuple[int, int]:
        """How many acquisitions wait for the store's confirmation, and their sealed bytes."""
        row = self._one(
            f"SELECT count(*), coalesce(sum(sealed_size_bytes), 0) FROM acquisition WHERE {_SENDABLE}"  # noqa: S608  constant
        )
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def manifest(self, acquisition: AcquisitionId) -> SignedBytes:
        """The signed manifest's exact bytes. Raises JournalError where there is none."""
        row = self._one("SELECT payload, signature FROM manifest WHERE acquisition = ?", acquisition)
        if row is None:
            raise JournalError(f"the journal has no manifest of acquisition {acquisition}")
        return SignedBytes(payload=row["payload"], signature=row["signature"])

    def manifest_nonce(self, acquisition: AcquisitionId) -> bytes:
        """The 32 random bytes of the manifest. Raises JournalError where there is none."""
        row = self._one("SELECT nonce FROM manifest WHERE acquisition = ?", acquisition)
        if row is None:
            raise JournalError(f"the journal has no manifest of acquisition {acquisition}")
        return bytes(row["nonce"])

    def receipt(self, acquisition: AcquisitionId, store: StoreId) -> SignedBytes | None:
        """The store's receipt for an acquisition."""
        row = self._one(
            "SELECT payload, signature FROM receipt WHERE acquisition = ? AND store = ?", acquisition, store
        )
        return None if row is None else SignedBytes(payload=row["payload"], signature=row["signature"])

    def last_receipt(self, store: StoreId) -> tuple[SignedBytes, AcquisitionId] | None:
        """The store's receipt with the highest receipt_seq, and its acquisition."""
        row = self._one("SELECT * FROM receipt WHERE store = ? ORDER BY receipt_seq DESC LIMIT 1", store)
        if row is None:
            return None
        return SignedBytes(payload=row["payload"], signature=row["signature"]), AcquisitionId(row["acquisition"])

    def last_receipt_digest(self, store: StoreId) -> tuple[int, Digest] | None:
        """The highest receipt_seq of a store and the digest of that receipt."""
        row = self._one("SELECT * FROM receipt WHERE store = ? ORDER BY receipt_seq DESC LIMIT 1", store)
        return None if row is None else (int(row["receipt_seq"]), Digest(row["digest"]))

    def _acquisitions(self, sql: str, *values: object) -> list[Acquisition]:
        return [acquisition_of(row) for row in self._connection.execute(sql, values)]

    def _dockings_by_outstanding(self) -> list[DockingId]:
        rows: Iterable[sqlite3.Row] = self._all(
            "SELECT docking, (SELECT coalesce(sum(size_bytes), 0) FROM tally WHERE tally.docking = docking.docking"
            " AND tally.state IN ('found', 'acquiring', 'spooled', 'uploading')) AS outstanding_bytes"
            " FROM docking WHERE state <> 'ended' ORDER BY outstanding_bytes, epoch"
        )
        return [DockingId(row["docking"]) for row in rows]


def _stem(path: bytes) -> bytes:
    """A path without the suffix of its last component."""
    directory, slash, name = path.rpartition(b"/")
    return directory + slash + (name.rpartition(b".")[0] or name)
