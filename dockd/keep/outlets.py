"""Which stores are to get clips: the changes that the journal can make about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockd.keep.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Collection

    from dockd.model import StoreId


class OutletChanges(Writing):
    """Changes of the stores that get clips. That a store lacks a clip is no event: its custody entries come later."""

    def set_outlets(self, stores: Collection[StoreId]) -> None:
        """From now on these stores are to get every clip; those that the policy still asks about, too. Idempotent."""
        self._check_writable()
        self._connection.execute(
            f"DELETE FROM outlet WHERE store NOT IN ({', '.join('?' * len(stores))})",  # noqa: S608  question marks
            tuple(stores),
        )
        for store in stores:
            self.add_outlet(store)

    def add_outlet(self, store: StoreId) -> None:
        """From now on this store is to get every clip, with those that are on this dock and not erased. Idempotent."""
        self._check_writable()
        self._connection.execute("INSERT OR IGNORE INTO outlet VALUES (?)", (store,))
        self._connection.execute(
            "INSERT OR IGNORE INTO delivery SELECT acquisition, ?, 'waiting', NULL, NULL, NULL, NULL, NULL,"
            " found_at_us, docking, category, found_at_us, sealed_size_bytes, state FROM acquisition"
            " WHERE sealed_file IS NOT NULL"
            " AND state IN ('spooled', 'uploading', 'stored', 'warranted', 'quarantined')",
            (store,),
        )

    def stand_in(self, fallback: StoreId, primary: StoreId) -> None:
        """A fallback is to get what its primary still lacks, and every clip from now on. Idempotent."""
        self._check_writable()
        self._connection.execute("INSERT OR IGNORE INTO outlet VALUES (?)", (fallback,))
        self._connection.execute(
            "INSERT OR IGNORE INTO delivery SELECT acquisition, ?, 'waiting', NULL, NULL, NULL, NULL, NULL,"
            " changed_at_us, docking, category, found_at_us, size_bytes, clip FROM delivery WHERE store = ?"
            " AND state IN ('waiting', 'registered', 'finished') AND clip IN ('spooled', 'uploading')",
            (fallback, primary),
        )

    def stand_back(self, fallback: StoreId) -> None:
        """A fallback gets nothing more: what was begun is finished, what was not is forgotten. Idempotent."""
        self._check_writable()
        self._connection.execute("DELETE FROM outlet WHERE store = ?", (fallback,))
        self._connection.execute("DELETE FROM delivery WHERE store = ? AND state = 'waiting'", (fallback,))
