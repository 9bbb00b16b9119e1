"""Witness: show the custody log's newest checkpoint to the store, which cosigns it, and keep what it signed."""

from __future__ import annotations

import asyncio

import structlog

from dockd import faultpoints
from dockd.core import checkpoint as notes
from dockd.core import merkle
from dockd.errors import OffsetConflict, StoreError, StoreUntrusted, VerificationFailed
from dockd.keep import durable
from dockd.keep.journal import Journal
from dockd.keep.rebuild import UNACCEPTED
from dockd.keep.transaction import Tx
from dockd.stores.port import SigningStore

_log = structlog.get_logger()
_SIZE = "witnessed_size"  # entries under the newest cosigned checkpoint
_OWN = "witnessed_entry"  # the entry that says so
_BY = "witnessed_by"  # the store that cosigned it


async def witnessed_size(journal: Journal) -> int:
    """Entries under the newest checkpoint that the store cosigned, as the journal knows it; 0 where there is none."""
    return int(await journal.read(lambda tx: tx.get(_SIZE)) or 0)


def forget_witnessed(tx: Tx) -> None:
    """The store forgot what it cosigned, and an operator accepted that: it is shown the log anew."""
    for key in (_SIZE, _OWN, _BY):
        tx.put(key, "")


async def show_checkpoint(journal: Journal, store: SigningStore) -> int:
    """Have the newest checkpoint cosigned; returns the number of entries now under a cosigned one.

    Does nothing where the log has grown by nothing but the entry that the last showing wrote. The cosigned note is
    kept as `custody/witnessed`. Raises StoreUntrusted where store and station do not have the same log, the store's
    other errors, and OSError where the note cannot be kept. Idempotent; after cancellation the store may have
    cosigned what is not kept here yet.
    """
    if await journal.read(_nothing_new):
        return await witnessed_size(journal)
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
        journal.custody_directory / "witnessed",
        cosigned,
        points=faultpoints.WITNESSED,
        faults=journal.faults,
    )

    def keep(tx: Tx) -> None:
        seq = tx.record("checkpoint.witnessed", details={"store": store.store, "size": size})
        if tx.get(UNACCEPTED):
            tx.put(UNACCEPTED, "")
        tx.put(_SIZE, str(size))
        tx.put(_OWN, str(seq))
        tx.put(_BY, store.store)

    await journal.write(keep)
    _log.info("checkpoint_witnessed", size=size)
    return size


async def unaccepted(journal: Journal) -> str:
    """Why nothing may be erased until the store witnessed this log; empty where it did, or where none was before."""
    return await journal.read(lambda tx: tx.get(UNACCEPTED)) or ""


def _nothing_new(tx: Tx) -> bool:
    size, own = int(tx.get(_SIZE) or 0), int(tx.get(_OWN) or -1)
    return tx.size == 0 or (size == own and tx.size == own + 1)


async def _show(journal: Journal, store: SigningStore, note: bytes, size: int) -> bytes:
    old_size = await store.witnessed_size()
    why = await unaccepted(journal)
    if old_size > size:
        raise StoreUntrusted(
            why
            or f"the store has cosigned {old_size} custody entries of this station, which has only {size}: one of the "
            "two was rolled back; compare custody/witnessed with the store's checkpoint"
        )
    known, by = await journal.read(lambda tx: (int(tx.get(_SIZE) or 0), tx.get(_BY)))
    if by == store.store and old_size < known:
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
