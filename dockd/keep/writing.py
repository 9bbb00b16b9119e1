"""What every kind of change to the journal shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dockd.keep.queries import Queries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from datetime import datetime

    from dockd.keep.chain import Chain
    from dockd.model import Acquisition, AcquisitionId, BayNumber, Clock, DockingId, StationId


class Writing(Queries):
    """One transaction that may change something, and its custody entries."""

    def __init__(
        self, connection: sqlite3.Connection, *, chain: Chain, clock: Clock, station: StationId, writable: bool
    ) -> None:
        super().__init__(connection)
        self._chain = chain
        self._clock = clock
        self._station = station
        self._writable = writable

    def end(self) -> None:
        """Called when the function returned: a Tx that leaked out of it writes nothing."""
        self._writable = False

    # --- custody

    def record(
        self,
        event: str,
        *,
        bay: BayNumber | None = None,
        docking: DockingId | None = None,
        acquisition: AcquisitionId | None = None,
        camera: str | None = None,
        details: Mapping[str, Any],
    ) -> int:
        """Write a custody entry; returns its number. Raises ValueError for what an entry cannot say or hold."""
        self._check_writable()
        return self._chain.append(
            at=self._clock.now(),
            event=event,
            station=self._station,
            bay=bay,
            docking=docking,
            acquisition=acquisition,
            camera=camera,
            details=dict(details),
        )

    def record_about(self, row: Acquisition, event: str, details: Mapping[str, Any]) -> int:
        """Write a custody entry about an acquisition, where its clip was last seen; returns its number."""
        return self.record(
            event,
            bay=row.bay,
            docking=row.docking,
            acquisition=row.acquisition,
            camera=row.camera.serial,
            details=details,
        )

    def next_seq(self) -> int:
        """The number that the next entry will have, provided that this transaction writes it."""
        return self._chain.size

    def now(self) -> datetime:
        """The time that entries get."""
        return self._clock.now()

    def put(self, key: str, value: str) -> None:
        """Set a small setting."""
        self._check_writable()
        self._connection.execute(
            "INSERT INTO setting VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value)
        )

    def drop(self, key: str) -> None:
        """Forget a small setting, if it is there."""
        self._check_writable()
        self._connection.execute("DELETE FROM setting WHERE key = ?", (key,))

    def _check_writable(self) -> None:
        if not self._writable:
            raise RuntimeError("this transaction only reads, or is over")

    def _insert(self, table: str, columns: Mapping[str, Any], *, replace: bool = False) -> None:
        self._check_writable()
        verb = "REPLACE" if replace else "INSERT"
        self._connection.execute(
            f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            tuple(columns.values()),
        )
