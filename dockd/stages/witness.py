"""Witness: show the custody log's newest checkpoint to the store, which cosigns it, and keep what it signed."""

from __future__ import annotations

import asyncio

import structlog

from dockd import faultpoints
from dockd.core import canonical, merkle
from dockd.core import checkpoint as notes
from dockd.errors import OffsetConflict, StoreError, StoreUntrusted, VerificationFailed
from dockd.keep import durable
from dockd.keep.journal import Journal
from dockd.keep.rebuild import UNACCEPTED
from dockd.keep.transaction import Tx
from dockd.model import StoreId
from dockd.stores.port import SigningStore

_log = structlog.get_logger()
WITNESSED = "checkpoint.witnessed"
_NOTE = "witnessed"  # the file of the main witness; those of others have the store's id behind it
_SHOWINGS = 64  # entries that are looked at for whether they are worth another showing


async def witnessed_size(journal: Journal, store: StoreId) -> int:
    """Entries under the newest checkpoint that the store cosigned, as the journal knows it; 0 where there is none."""
    return await journal.read(lambda tx: _size(tx, store))


def forget_witnessed(tx: Tx, store: StoreId) -> None:
    """The store forgot what it cosigned, and an operator accepted that: it is shown the log anew."""
    tx.put(_size_key(store), "")


async def show_checkpoint(journal: Journal, store: SigningStore, *, main: bool = True) -> int:
    """Have the newest checkpoint cosigned; returns the number of entries now under a cosigned one.

    Does nothing where the log has grown by nothing but the entries that showings wrote. The cosigned note is kept as
    `custody/witnessed`, of any store but the `main` one as `custody/witnessed-STORE`. Raises StoreUntrusted where store
    and station do not have the same log, the store's other errors, and OSError where the note cannot be kept.
    Idempotent; after cancellation the store may have cosigned what is not kept here yet.
    """
    of = store.store
    if await journal.read(lambda tx: _nothing_new(tx, of)):
        return await witnessed_size(journal, of)
    note = await journal.checkpoint()
    size = _size_of(note)
    for last_try in (False, True):
        try:
            cosigned = await _show(journal, store, note, size)
            break
        except OffsetConflict:  # another submission came between: ask anew where the store stands, once
            if last_try:
                raise
    _verify(cosigned, note, store)
    await asyncio.to_thread(
        durable.write_file,
        journal.custody_directory / (_NOTE if main else f"{_NOTE}-{of}"),
        cosigned,
        points=faultpoints.WITNESSED,
        faults=journal.faults,
    )

    def keep(tx: Tx) -> None:
        tx.record(WITNESSED, details={"store": of, "size": size})
        if why := tx.get(UNACCEPTED):
            tx.put(_accepted_key(of), why)
        tx.put(_size_key(of), str(size))

    await journal.write(keep)
    _log.info("checkpoint_witnessed", size=size)
    return size


async def unaccepted(journal: Journal, store: StoreId) -> str:
    """Why nothing may be erased until the store witnessed this log; empty where it did, or where none was before."""

    def ask(tx: Tx) -> str:
        why = tx.get(UNACCEPTED) or ""
        return "" if tx.get(_accepted_key(store)) == why else why

    return await journal.read(ask)


def _nothing_new(tx: Tx, store: StoreId) -> bool:
    """Whether showings have written all entries since: else several witnesses would keep each other busy for ever."""
    size = _size(tx, store)
    if tx.size == 0 or tx.size - size > _SHOWINGS:
        return tx.size == 0
    events = [canonical.decode(line, type_="custody")["event"] for line in tx.lines(size, _SHOWINGS)]
    return size > 0 and all(event == WITNESSED for event in events)


def _size(tx: Tx, store: StoreId) -> int:
    return int(tx.get(_size_key(store)) or 0)


def _size_key(store: StoreId) -> str:
    return f"witnessed_size/{store}"


def _accepted_key(store: StoreId) -> str:
    return f"log_accepted/{store}"


async def _show(journal: Journal, store: SigningStore, note: bytes, size: int) -> bytes:
    old_size = await store.witnessed_size()
    why = await unaccepted(journal, store.store)
    if old_size > size:
        raise StoreUntrusted(
            why
            or f"the store has cosigned {old_size} custody entries of this station, which has only {size}: one of the "
            "two was rolled back; compare custody/witnessed with the store's checkpoint"
        )
    known = await witnessed_size(journal, store.store)
    if old_size < known:
        raise StoreUntrusted(
            f"the store has cosigned {known} custody entries of this station, and now knows of {old_size} only: it was "
            "rolled back; nothing may be erased until its operators have explained it"
        )
    proof: tuple[bytes, ...] = ()
    if 0 < old_size < size:
        proof = tuple(await journal.read(lambda tx: merkle.consistency_proof(tx, old_size, size)))
    try:
        return (await store.witness(note, old_size, proof)).note
    except OffsetConflict:
        raise
    except StoreError as error:
        if why and old_size:  # it still knows the log from before; or it accepted this one, and its answer was lost
            raise StoreUntrusted(why) from error
        raise


def _verify(cosigned: bytes, note: bytes, store: SigningStore) -> None:
    """The store may add signature lines to our note, and change nothing."""
    if not cosigned.startswith(note):
        raise StoreUntrusted("the store cosigned another checkpoint than it was shown")
    try:
        notes.verify_cosignature(cosigned, f"dockd-store/{store.store}", store.key)
    except VerificationFailed as error:
        raise StoreUntrusted(f"the store's cosignature cannot be trusted: {error}") from error


def _size_of(note: bytes) -> int:
    """The second line of a checkpoint (C2SP tlog-checkpoint); it is the station's own, signed a moment ago."""
    return int(note.split(b"\n", 2)[1])
