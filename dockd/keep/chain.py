"""The custody log within the journal's transaction: the next line, its link to the one before, and the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dockd.core import custody
from dockd.core.merkle import Frontier
from dockd.keep.queries import Queries

if TYPE_CHECKING:
    import sqlite3


class Chain:
    """Stages custody entries: rows in the open transaction, and their lines for the mirror.

    What it knows in memory follows the connection: `reload` after a rollback.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._source = Queries(connection)
        self._frontier = Frontier()
        self._last: bytes | None = None
        self.staged: list[bytes] = []
        self.reload(0)

    @property
    def size(self) -> int:
        """The number of entries, those staged included."""
        return self._frontier.size

    def root(self) -> bytes:
        """The tree's root over all entries, those staged included."""
        return self._frontier.root()

    def append(self, **entry: Any) -> int:
        """Stage one entry; `seq` and `prev` are filled in here. Raises ValueError for what an entry cannot say."""
        seq = self.size
        line = custody.entry_line(seq=seq, prev=custody.previous_hash(self._last), **entry)
        self._connection.execute("INSERT INTO entry VALUES (?, ?)", (seq, line))
        self._connection.executemany("INSERT INTO node VALUES (?, ?, ?)", self._frontier.append(line))
        self._last = line
        self.staged.append(line)
        return seq

    def reload(self, staged: int) -> None:
        """After a rollback: keep the first `staged` staged lines, and take the rest from the database."""
        size = self._source.size
        self._frontier = Frontier.rebuild(self._source, size)
        self._last = self._source.line(size - 1) if size else None
        del self.staged[staged:]
