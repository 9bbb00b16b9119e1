"""The journal's inside, all in its one thread: the database, the custody tree, the mirror and the signed checkpoint.

Stage, commit, mirror, checkpoint. Changes are staged in one transaction, each undone alone if it fails; the COMMIT
makes them all true at once; then their custody lines are appended to the mirror and synced; only then is anybody told.
If committing or mirroring fails, nobody can say what is durable: the ledger writes nothing more, and a restart
reconciles.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog

from dockd import faultpoints
from dockd.core import checkpoint as notes
from dockd.core import merkle
from dockd.errors import JournalCorrupt, JournalError, VerificationFailed
from dockd.faultpoints import Point
from dockd.keep import aside, custody_file, database, durable
from dockd.keep.chain import Chain
from dockd.keep.custody_file import Mirror
from dockd.keep.queries import Queries
from dockd.keep.transaction import Tx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dockd.core.sshsig import SigningKey
    from dockd.faults import Faults
    from dockd.model import Clock, StationId

_log = structlog.get_logger()
T = TypeVar("T")

# What SQLite says of a change that asks for the impossible; all else that it says is about the disk.
_MISTAKES = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """What became of one change: its value, or the error that undid it."""

    value: T | None = None
    error: BaseException | None = None


class Ledger:
    """See the module. Not thread-safe: it belongs to the thread that opened it."""

    def __init__(
        self,
        directory: Path,
        *,
        station: StationId,
        clock: Clock,
        checkpoint_key: SigningKey,
        faults: Faults,
        generation: int = 1,
    ) -> None:
        """Open or make the journal in `directory`, and make the mirror equal to it.

        A new one begins the custody log's `generation`. Raises JournalCorrupt where it is damaged, or gone while its
        custody log is there; JournalError where it is in use, unusable, another station's, or contradicts its mirror or
        checkpoint; OSError where its directory cannot be used.
        """
        self._directory = directory
        self._station = station
        self._clock = clock
        self._key = checkpoint_key
        self._faults = faults
        self._failure: str | None = None
        self.custody = directory / "custody"
        _own(directory)
        self._lock = database.lock(directory)
        self._mirror: Mirror | None = None
        self._connection: sqlite3.Connection | None = None
        try:
            aside.finish(directory, faults=faults)  # before anything is made
            _own(self.custody)
            if aside.is_gone(directory):
                raise JournalCorrupt(  # noqa: TRY301  the lock is let go below
                    f"{directory / aside.JOURNAL} is gone, but its custody log is there"
                )
            self._sweep()
            self._connection = database.connect(directory / aside.JOURNAL, faults)
            database.check(self._connection, directory / aside.JOURNAL)
            self._source = Queries(self._connection)
            self.generation = self._claim(self._connection, generation)
            self.origin = f"dockd/{station}/{self.generation}"
            self.signed_size = self._check_checkpoint()
            self._mirror = Mirror(self.custody / "custody.jsonl", faults)
            cut_at = custody_file.reconcile(self._mirror, self._source, mirrored=int(self._source.get("mirrored") or 0))
            self.mended = self._what_was_mended(cut_at)
            self._chain = Chain(self._connection)
            self._publish_keys()
            for place in (self.custody, directory):
                faults.act(Point.JOURNAL_PLACES, durable.fsync_directory, place)
        except sqlite3.Error as error:
            self.close()
            kind = JournalCorrupt if _is_broken(error) else JournalError
            raise kind(f"{directory / aside.JOURNAL} cannot be used: {_explained(error)}") from error
        except BaseException:
            self.close()
            raise
        self.durable_size = self._chain.size

    # --- changing

    def commit(self, changes: Sequence[Callable[[Tx], Any]]) -> list[Outcome[Any]]:
        """Make changes, each on top of those before it; on return, those without an error are durable in both.

        A change that raises is undone alone. JournalError for all where the journal or its mirror failed: then some,
        all or none may turn out to have happened, once the journal is opened again.
        """
        if self._failure is not None:
            return [self._refusal() for _ in changes]
        try:
            return self._commit(changes)
        except (sqlite3.Error, OSError, JournalError) as error:
            self._failure = _explained(error)
            _log.critical("journal_failed", error=self._failure)
            self._rollback()
            return [self._refusal(error) for _ in changes]

    def _commit(self, changes: Sequence[Callable[[Tx], Any]]) -> list[Outcome[Any]]:
        connection, mirror = self._opened()
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [self._stage(change) for change in changes]
        if self._chain.staged:
            # So that the next opening knows which mirror lines were durable before this transaction.
            connection.execute(
                "INSERT INTO setting VALUES ('mirrored', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (str(self.durable_size),),
            )
        # The commit point: from here on the changes are true, whatever happens to the mirror.
        self._faults.act(Point.JOURNAL_COMMIT, connection.execute, "COMMIT")
        if self._chain.staged:
            mirror.append(self._chain.staged)
            self._chain.staged.clear()
            self.durable_size = self._chain.size
        return outcomes

    def _stage(self, change: Callable[[Tx], Any]) -> Outcome[Any]:
        connection, _ = self._opened()
        staged = len(self._chain.staged)
        tx = Tx(connection, chain=self._chain, clock=self._clock, station=self._station, writable=True)
        connection.execute("SAVEPOINT change")
        try:
            value = change(tx)
        except BaseException as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, _MISTAKES):
                raise  # the disk, not the change
            connection.execute("ROLLBACK TO change")
            self._chain.reload(staged)
            return Outcome(error=_presentable(error))
        finally:
            tx.end()
            if connection.in_transaction:
                connection.execute("RELEASE change")
        return Outcome(value=value)

    # --- asking

    def ask(self, query: Callable[[Tx], T]) -> Outcome[T]:
        """Run a query on one consistent state of the journal. Its error is in the outcome."""
        connection, _ = self._opened()
        tx = Tx(connection, chain=self._chain, clock=self._clock, station=self._station, writable=False)
        try:
            return Outcome(value=query(tx))
        except BaseException as error:  # noqa: BLE001  it belongs to whoever asked
            return Outcome(error=_presentable(error))

    # --- signing

    def checkpoint(self) -> bytes:
        """Sign the log as it stands and write the note. Raises JournalError; the log is as good without it."""
        if self._failure is not None:
            raise JournalError(self._refusal_text())
        head = notes.Checkpoint(origin=self.origin, size=self._chain.size, root=self._chain.root())
        note = notes.sign(head, self._key)
        try:
            durable.write_file(self.custody / "checkpoint", note, points=faultpoints.CHECKPOINT, faults=self._faults)
        except OSError as error:
            raise JournalError(f"cannot write {self.custody / 'checkpoint'}: {error}") from error
        self.signed_size = head.size
        return note

    def is_signed(self) -> bool:
        """Whether there is nothing to sign: the checkpoint on disk covers all, or the ledger failed."""
        if self._failure is not None:
            return True
        return self.signed_size == self.durable_size and (self.custody / "checkpoint").exists()

    def close(self) -> None:
        """Close everything; the lock goes last. Idempotent. Nothing durable is lost if it never comes to this."""
        if self._connection is not None:
            try:
                self._connection.close()
            except sqlite3.Error as error:
                _log.error("journal_close_failed", error=str(error))
            self._connection = None
        if self._mirror is not None:
            self._mirror.close()
            self._mirror = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # --- how

    def _opened(self) -> tuple[sqlite3.Connection, Mirror]:
        if self._connection is None or self._mirror is None:
            raise JournalError("the journal is closed")
        return self._connection, self._mirror

    def _sweep(self) -> None:
        """Remove the files that a kill left half-made. Raises OSError."""
        for stray in [path for path in self.custody.iterdir() if durable.is_temporary(path.name)]:
            self._faults.act(Point.CUSTODY_SWEEP, stray.unlink)

    def _claim(self, connection: sqlite3.Connection, generation: int) -> int:
        """Write into a new journal whose it is; check an old one. Returns the log's generation."""
        connection.execute("BEGIN IMMEDIATE")
        for key, value in (("station", self._station), ("generation", str(generation))):
            connection.execute("INSERT INTO setting VALUES (?, ?) ON CONFLICT DO NOTHING", (key, value))
        self._faults.act(Point.JOURNAL_CLAIM, connection.execute, "COMMIT")
        owner = self._source.get("station")
        if owner != self._station:
            raise JournalError(f"the journal belongs to station {owner}, the configuration says {self._station}")
        return int(self._source.get("generation") or 1)

    def _check_checkpoint(self) -> int:
        """Compare the journal with the newest checkpoint on disk; returns the checkpoint's size."""
        path = self.custody / "checkpoint"
        try:
            note = path.read_bytes()
        except FileNotFoundError:
            return 0
        try:
            signed = notes.parse_and_verify(note, self.origin, self._key.public)
        except VerificationFailed as error:
            raise JournalError(
                f"{path} is not signed by this station's checkpoint key for {self.origin}: {error}"
            ) from error
        size = self._source.size
        if signed.size > size:
            raise JournalError(
                f"{path} was signed over {signed.size} entries, the journal has {size}: it was rolled back (restored"
                " from a backup, perhaps); keep everything as it is, erase no camera, and let the evidence side look"
            )
        if merkle.root_at(self._source, signed.size) != signed.root:
            raise JournalError(
                f"{path} was signed over other entries than the journal has: one of the two was edited; keep everything"
                " as it is, erase no camera, and let the evidence side look"
            )
        return signed.size

    def _what_was_mended(self, cut_at: int | None) -> tuple[str, ...]:
        """What was missing and stands again, although no crash takes it away: somebody has to know."""
        found = []
        if cut_at is not None:
            found.append(f"custody.jsonl lacked lines that it had, from line {cut_at} on; they were written again")
        # The first checkpoint is signed before the first entry is made.
        if self._source.size and not (self.custody / "checkpoint").exists():
            found.append("custody/checkpoint was gone; it was signed again, with nothing to compare it to")
        return tuple(found)

    def _publish_keys(self) -> None:
        """What an outsider needs to check the checkpoint: the verifier key, and the same for openssl."""
        public = self._key.public
        for name, content in (
            ("checkpoint.vkey", notes.vkey(self.origin, public)),
            ("checkpoint.pem", notes.public_pem(public)),
        ):
            path = self.custody / name
            wanted = content if isinstance(content, bytes) else f"{content.rstrip()}\n".encode()
            if not path.exists() or path.read_bytes() != wanted:
                durable.write_file(path, wanted, points=faultpoints.KEYS, faults=self._faults)

    def _rollback(self) -> None:
        connection, _ = self._opened()
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                _log.error("journal_rollback_failed", error=str(error))

    def _refusal(self, cause: BaseException | None = None) -> Outcome[Any]:
        error = JournalError(self._refusal_text())
        error.__cause__ = cause
        return Outcome(error=error)

    def _refusal_text(self) -> str:
        return (
            f"the journal in {self._directory} failed and takes no more changes until dockd is started again:"
            f" {self._failure}"
        )


def _own(place: Path) -> None:
    """Make a directory that is ours alone, where it is missing. Raises OSError."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.chmod(0o700)


def _is_broken(error: Exception) -> bool:
    """Whether SQLite found its file damaged."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _BROKEN


def _explained(error: Exception) -> str:
    """What failed, and what to do, for a person."""
    code = getattr(error, "sqlite_errorcode", None)
    full = code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
    if full:
        return "the disk is full: make room on it, and dockd goes on where it stopped"
    if _is_broken(error):
        return f"{error}; the next start sets it aside and rebuilds what can be proven"
    return str(error)


def _presentable(error: BaseException) -> BaseException:
    """An error as a future can carry it to the one who asked."""
    if isinstance(error, StopIteration):  # a future refuses it
        wrapped: BaseException = RuntimeError("StopIteration in a journal function")
    elif isinstance(error, sqlite3.Error):
        wrapped = JournalError(f"the journal does not allow it: {error}")
    else:
        return error
    wrapped.__cause__ = error
    return wrapped
