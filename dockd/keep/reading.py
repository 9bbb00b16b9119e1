"""What every kind of query shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockd.keep.records import acquisition_of

if TYPE_CHECKING:
    import sqlite3

    from dockd.model import Acquisition


class Reading:
    """One transaction's connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def _one(self, sql: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        return self._connection.execute(sql, values).fetchall()

    def _acquisitions(self, sql: str, *values: object) -> list[Acquisition]:
        return [acquisition_of(row) for row in self._connection.execute(sql, values)]
