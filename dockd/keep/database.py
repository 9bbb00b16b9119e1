"""The journal's SQLite file: made, migrated and opened the one way in which a commit is durable."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from importlib import resources
from typing import TYPE_CHECKING

from dockd.errors import JournalCorrupt, JournalError
from dockd.faultpoints import Point

if TYPE_CHECKING:
    from pathlib import Path

    from dockd.faults import Faults

_APPLICATION_ID = 0x646F636B  # "dock"
_BUSY_TIMEOUT_S = 10.0  # another program may look into the file; nobody else writes
_WAL_PAGES = 1000  # 4 MiB: checkpointed into the database beyond this
_WAL_LIMIT_BYTES = 8 * 1024 * 1024  # a write-ahead log that grew larger is cut back to this after its checkpoint


def lock(directory: Path) -> int:
    """Take the directory for this program; the descriptor holds the lock. Raises JournalError where another has it."""
    fd = os.open(directory / "journal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise JournalError(f"{directory} is in use by another dockd: stop it first") from error
    return fd


def connect(path: Path, faults: Faults) -> sqlite3.Connection:
    """Open the database, making or migrating it. Transactions are begun by hand. Raises sqlite3.Error, JournalError."""
    # Made by hand, for its mode: the -wal and -shm files take theirs from it.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        _settle(connection)
        _migrate(connection, path, faults)
    except BaseException:
        connection.close()
        raise
    return connection


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Look through the whole file for damage. Raises JournalCorrupt, sqlite3.Error."""
    (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if said != "ok":
        raise JournalCorrupt(f"{path} is damaged: {said}")


def _settle(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise JournalError(
            f"SQLite gave journal mode {mode!r} instead of WAL: is the state directory on a network share?"
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")


def _migrate(connection: sqlite3.Connection, path: Path, faults: Faults) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application not in (0, _APPLICATION_ID) or (version and not application):
        raise JournalError(f"{path} is not a journal of dockd")
    scripts = sorted(
        (script for script in (resources.files("dockd.keep") / "sql").iterdir() if script.name.endswith(".sql")),
        key=lambda script: script.name,
    )
    if version > len(scripts):
        raise JournalError(f"{path} has format {version}, made by a newer dockd: install that one again")
    for number, script in enumerate(scripts[version:], start=version + 1):
        # Both pragmas are part of the transaction: a migration cut short leaves no trace.
        faults.act(
            Point.JOURNAL_MADE,
            connection.executescript,
            f"BEGIN IMMEDIATE;\n{script.read_text()}\n"
            f"PRAGMA application_id = {_APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;",
        )
