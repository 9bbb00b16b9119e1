"""The receiver's catalogue: SQLite, one connection on one thread, each call one durable transaction."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Self, TypeVar

from dockd import faults as no
from dockd.errors import DockdError
from dockd.faultpoints import Point
from dockd.faults import Faults

_APPLICATION_ID = 0x646F7263  # "dorc"
_BUSY_TIMEOUT_S = 10.0
_T = TypeVar("_T")


class CatalogueError(DockdError):
    """The receiver's directory cannot be used: another receiver has it, or it is not one of ours."""


class Catalogue:
    """Runs changes and queries on its thread, in the order in which they are asked for."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor, lock: int, faults: Faults) -> None:
        self._connection = connection
        self._thread = thread
        self._lock = lock
        self._faults = faults
        self._closed = False

    @classmethod
    async def open(cls, directory: Path, *, may_be_new: bool, faults: Faults = no.NONE) -> Self:
        """Make or migrate the catalogue in `directory` and lock it. Raises CatalogueError.

        Without `may_be_new` one has to be there.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="catalogue")
        try:
            connection, lock = await asyncio.get_running_loop().run_in_executor(
                thread, _open, directory, may_be_new, faults
            )
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(connection, thread, lock, faults)

    async def run(self, change: Callable[[sqlite3.Connection], _T], point: Point | None = None) -> _T:
        """Run `change` in one transaction: durable when this returns, undone when it raises.

        What changes anything names its fault point.
        After cancellation it may or may not have been committed.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, change, point)

    async def aclose(self) -> None:
        """Let the directory go, after all that was asked for before. Idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown(wait=False)

    def _transact(self, change: Callable[[sqlite3.Connection], _T], point: Point | None) -> _T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            found = change(self._connection)
            # The commit point: an fsync of the write-ahead log.
            if point is None:
                self._connection.execute("COMMIT")
            else:
                self._faults.act(point, self._connection.execute, "COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, "the disk of the catalogue is full") from error
            raise
        return found

    def _close(self) -> None:
        self._connection.close()
        os.close(self._lock)


def _open(directory: Path, may_be_new: bool, faults: Faults) -> tuple[sqlite3.Connection, int]:
    lock = os.open(directory / "catalogue.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path = directory / "catalogue.sqlite"
        if not may_be_new and not path.exists():
            raise CatalogueError(  # noqa: TRY301  the lock is let go below
                f"{path} is missing, but clips are stored beside it: restore it from a backup; a new one would number "
                "receipts from 1 again, and stations would rightly take that for a roll-back"
            )
        return _connect(path, faults), lock
    except BlockingIOError as error:
        os.close(lock)
        raise CatalogueError(f"{directory} is in use by another receiver: stop it first") from error
    except BaseException:
        os.close(lock)
        raise


def _connect(path: Path, faults: Faults) -> sqlite3.Connection:
    # Made by hand, for its mode: the -wal and -shm files take theirs from it.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise CatalogueError(  # noqa: TRY301  the connection is closed below, whatever went wrong
                f"SQLite gave journal mode {mode!r}, not WAL: is {path.parent} a network share?"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.row_factory = sqlite3.Row
        _migrate(connection, path, faults)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, faults: Faults) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application not in (0, _APPLICATION_ID) or (version and not application):
        raise CatalogueError(f"{path} is not a receiver's catalogue")
    scripts = sorted(
        (one for one in (resources.files("dockd.receiver") / "sql").iterdir() if one.name.endswith(".sql")),
        key=lambda one: one.name,
    )
    if version > len(scripts):
        raise CatalogueError(f"{path} has format {version}, made by a newer dockd: install that one again")
    for number, script in enumerate(scripts[version:], start=version + 1):
        # Both pragmas are part of the transaction: a migration cut short leaves no trace.
        faults.act(
            Point.CATALOGUE_MADE,
            connection.executescript,
            f"BEGIN IMMEDIATE;\n{script.read_text()}\n"
            f"PRAGMA application_id = {_APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;",
        )
