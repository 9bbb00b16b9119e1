"""Deliveries: one acquisition on its way to one store. What the journal can be asked about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dockd.core.lifecycle import DeliveryState
from dockd.keep.reading import Reading
from dockd.keep.records import acquisition_of, microseconds, moment
from dockd.model import Acquisition, AcquisitionId, Category, Digest, DockingId, SignedBytes, StoreId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from datetime import datetime

_OPEN = "state IN ('waiting', 'registered', 'finished')"
# As the partial indexes have it, word for word. What needs a person is not sent.
_SENDABLE = f"{_OPEN} AND clip IN ('spooled', 'uploading', 'stored', 'warranted', 'erased')"
_OUTSTANDING = "tally.state IN ('found', 'acquiring', 'spooled', 'uploading')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One acquisition on its way to one store, as the journal has it."""

    acquisition: AcquisitionId
    store: StoreId
    state: DeliveryState
    changed_at: datetime
    upload_url: str | None = None
    objects: str | None = None  # what names the three objects at a store that does not sign
    confirmation: bytes | None = None  # core.confirmation's own bytes, of a store that does not sign
    confirmation_digest: Digest | None = None  # of these, or of the receipt
    reason: str | None = None  # why it was given up


def delivery_columns(record: Delivery) -> dict[str, Any]:
    """The columns of a delivery that change."""
    return {
        "state": record.state.value,
        "upload_url": record.upload_url,
        "objects": record.objects,
        "confirmation": record.confirmation,
        "confirmation_digest": record.confirmation_digest,
        "reason": record.reason,
        "changed_at_us": microseconds(record.changed_at),
    }


def delivery_of(row: sqlite3.Row) -> Delivery:
    """The delivery of a row."""
    return Delivery(
        acquisition=AcquisitionId(row["acquisition"]),
        store=StoreId(row["store"]),
        state=DeliveryState(row["state"]),
        changed_at=moment(row["changed_at_us"]),
        upload_url=row["upload_url"],
        objects=row["objects"],
        confirmation=row["confirmation"],
        confirmation_digest=row["confirmation_digest"],
        reason=row["reason"],
    )


class DeliveryQueries(Reading):
    """Reads about deliveries and what stores said."""

    def outlets(self) -> list[StoreId]:
        """The stores that are to get every clip now."""
        return [StoreId(row["store"]) for row in self._all("SELECT store FROM outlet ORDER BY store")]

    def delivery(self, acquisition: AcquisitionId, store: StoreId) -> Delivery | None:
        """An acquisition's delivery to a store; None where it is to get none."""
        row = self._one("SELECT * FROM delivery WHERE acquisition = ? AND store = ?", acquisition, store)
        return None if row is None else delivery_of(row)

    def deliveries(self, acquisition: AcquisitionId) -> list[Delivery]:
        """All of an acquisition's deliveries, by store."""
        rows = self._all("SELECT * FROM delivery WHERE acquisition = ? ORDER BY store", acquisition)
        return [delivery_of(row) for row in rows]

    def lacking(self, acquisition: AcquisitionId) -> list[StoreId]:
        """The stores that are to get it, and have not confirmed it yet."""
        rows = self._all(
            f"SELECT store FROM delivery JOIN outlet USING (store) WHERE acquisition = ? AND {_OPEN} ORDER BY store",  # noqa: S608  constants
            acquisition,
        )
        return [StoreId(row["store"]) for row in rows]

    def uplink_candidates(self, store: StoreId, limit: int) -> list[Acquisition]:
        """What to send to a store next: evidence first, then what frees a bay soonest, then oldest.

        A bay is freed the sooner, the fewer bytes of its open docking are still to be read or confirmed.
        """
        dockings = self._dockings_by_outstanding()
        found: list[AcquisitionId] = []
        for category in (Category.EVIDENCE, Category.NONE):
            for docking in dockings:
                found += self._picked(
                    "SELECT acquisition FROM delivery INDEXED BY delivery_to_send_of"  # noqa: S608  a constant
                    f" WHERE store = ? AND docking = ? AND category = ? AND {_SENDABLE}"
                    " ORDER BY found_at_us, acquisition LIMIT ?",
                    store,
                    docking,
                    category.value,
                    limit - len(found),
                )
            # By now either nothing more is wanted, or the open dockings have fewer of this category than `limit`:
            # this search passes over no more than those.
            found += self._picked(
                "SELECT acquisition FROM delivery INDEXED BY delivery_to_send WHERE store = ? AND category = ?"  # noqa: S608  constants, and question marks
                f" AND {_SENDABLE} AND docking NOT IN ({', '.join('?' * len(dockings))})"
                " ORDER BY found_at_us, acquisition LIMIT ?",
                store,
                category.value,
                *dockings,
                limit - len(found),
            )
        return self._rows(found)

    def uplink_firsts(self, store: StoreId, limit: int) -> list[Acquisition]:
        """The first `limit` of each open docking that are to be sent to a store: evidence first, then oldest."""
        found = [
            name
            for docking in self._dockings_by_outstanding()
            for category in (Category.EVIDENCE, Category.NONE)
            for name in self._picked(
                "SELECT acquisition FROM delivery INDEXED BY delivery_to_send_of"  # noqa: S608  a constant
                f" WHERE store = ? AND docking = ? AND category = ? AND {_SENDABLE}"
                " ORDER BY found_at_us, acquisition LIMIT ?",
                store,
                docking,
                category.value,
                limit,
            )
        ]
        return self._rows(found)

    def outstanding_bytes(self, docking: DockingId) -> int | None:
        """Bytes of an open docking that are still to be read or confirmed; None where its camera has left."""
        row = self._one(
            "SELECT (SELECT coalesce(sum(size_bytes), 0) FROM tally WHERE tally.docking = docking.docking"  # noqa: S608  a constant
            f" AND {_OUTSTANDING}) FROM docking WHERE docking = ? AND state <> 'ended'",
            docking,
        )
        return None if row is None else int(row[0])

    def waiting(self, store: StoreId) -> tuple[int, int]:
        """How many acquisitions wait for a store's confirmation, and their sealed bytes."""
        row = self._one(
            f"SELECT count(*), coalesce(sum(size_bytes), 0) FROM delivery WHERE store = ? AND {_SENDABLE}",  # noqa: S608  constants
            store,
        )
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def given_up(self, store: StoreId) -> int:
        """How many acquisitions a store will not get."""
        row = self._one(
            "SELECT count(*) FROM delivery INDEXED BY delivery_given_up WHERE store = ? AND state = 'given_up'", store
        )
        return 0 if row is None else int(row[0])

    def leftovers(self, store: StoreId, limit: int) -> list[Delivery]:
        """Uploads at a store that nobody will go on with: given up, or of a sealed file that is gone."""
        rows = self._all(
            "SELECT * FROM delivery WHERE store = ? AND upload_url IS NOT NULL AND confirmation_digest IS NULL"
            " AND (state = 'given_up' OR (state = 'registered' AND clip = 'spoiled')) LIMIT ?",
            store,
            limit,
        )
        return [delivery_of(row) for row in rows]

    def twin(self, acquisition: AcquisitionId, store: StoreId) -> SignedBytes | None:
        """Another station's manifest of the same clip, whose object the store may sign for; not verified here."""
        row = self._one("SELECT payload, signature FROM twin WHERE acquisition = ? AND store = ?", acquisition, store)
        return None if row is None else SignedBytes(payload=row["payload"], signature=row["signature"])

    def receipt(self, acquisition: AcquisitionId, store: StoreId) -> SignedBytes | None:
        """The store's receipt for an acquisition."""
        row = self._one(
            "SELECT payload, signature FROM receipt WHERE acquisition = ? AND store = ?", acquisition, store
        )
        return None if row is None else SignedBytes(payload=row["payload"], signature=row["signature"])

    def extensions(self, acquisition: AcquisitionId, store: StoreId) -> list[SignedBytes]:
        """The extensions of the store's receipt for an acquisition, in their order."""
        rows = self._all(
            "SELECT payload, signature FROM extension WHERE acquisition = ? AND store = ? ORDER BY n",
            acquisition,
            store,
        )
        return [SignedBytes(payload=row["payload"], signature=row["signature"]) for row in rows]

    def last_receipt(self, store: StoreId) -> tuple[SignedBytes, AcquisitionId] | None:
        """The store's receipt with the highest receipt_seq, and its acquisition."""
        row = self._one("SELECT * FROM receipt WHERE store = ? ORDER BY receipt_seq DESC LIMIT 1", store)
        if row is None:
            return None
        return SignedBytes(payload=row["payload"], signature=row["signature"]), AcquisitionId(row["acquisition"])

    def receipt_seq(self, acquisition: AcquisitionId, store: StoreId) -> int:
        """The number of the store's receipt for an acquisition; 0 where there is none."""
        row = self._one("SELECT receipt_seq FROM receipt WHERE acquisition = ? AND store = ?", acquisition, store)
        return 0 if row is None else int(row["receipt_seq"])

    def _rows(self, names: Iterable[AcquisitionId]) -> list[Acquisition]:
        rows = (self._one("SELECT * FROM acquisition WHERE acquisition = ?", name) for name in names)
        return [acquisition_of(row) for row in rows if row is not None]

    def _picked(self, sql: str, *values: object) -> list[AcquisitionId]:
        return [AcquisitionId(row["acquisition"]) for row in self._all(sql, *values)]

    def _dockings_by_outstanding(self) -> list[DockingId]:
        rows: Iterable[sqlite3.Row] = self._all(
            "SELECT docking, (SELECT coalesce(sum(size_bytes), 0) FROM tally WHERE tally.docking = docking.docking"  # noqa: S608  a constant
            f" AND {_OUTSTANDING}) AS outstanding_bytes"
            " FROM docking WHERE state <> 'ended' ORDER BY outstanding_bytes, epoch"
        )
        return [DockingId(row["docking"]) for row in rows]
