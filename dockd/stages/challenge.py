"""Challenge: let a store show that it has the bytes that it signed for, before its receipt is believed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from pathlib import Path

import structlog

from dockd.core.challenge import NONCE_BYTES, Range, choose_ranges, range_digest
from dockd.errors import StoreIncomplete, StoreUntrusted, UploadLost, VerificationFailed
from dockd.keep.spool import Spool
from dockd.model import Acquisition, Entropy, Sealed
from dockd.stores.port import SigningStore

_log = structlog.get_logger()


async def challenge(acquisition: Acquisition, *, spool: Spool, store: SigningStore, random: Entropy) -> int:
    """Compare ranges of the store's object with the sealed file; returns how many bytes were compared.

    Returns 0 where the station has nothing to compare with: its sealed file is gone, or is not what was sealed. Raises
    StoreUntrusted where the store does not have what it signed for, and its other errors. Changes nothing.
    """
    sealed = acquisition.sealed
    if sealed is None:
        raise VerificationFailed(f"acquisition {acquisition.acquisition} was never sealed")
    path, name = spool.path(acquisition.acquisition), acquisition.acquisition
    nonce, ranges = random(NONCE_BYTES), choose_ranges(sealed.sealed_size_bytes, random)
    expected = await asyncio.to_thread(_own_digests, path, nonce, ranges)
    if expected is None:
        _log.warning("challenge_impossible", acquisition=name, reason="the sealed file cannot be read")
        return 0
    try:
        answered = await store.ranges(name, nonce, ranges)
    except (StoreIncomplete, UploadLost) as error:
        raise StoreUntrusted(f"the store signed for {name} but does not hold it: {error}") from error
    if hmac.compare_digest(b"".join(answered), b"".join(expected)) and len(answered) == len(expected):
        return sum(one.length for one in ranges)
    if not await asyncio.to_thread(_is_sound, path, sealed):
        _log.warning("challenge_impossible", acquisition=name, reason="the sealed file is not what was sealed")
        return 0
    raise StoreUntrusted(
        f"the store signed for {name} but does not have its bytes: it could not show the ranges that it was asked for; "
        "nothing of it is erased"
    )


def _own_digests(path: Path, nonce: bytes, ranges: tuple[Range, ...]) -> tuple[bytes, ...] | None:
    """What the sealed file says; None where it does not give all of these bytes."""
    found = []
    try:
        with path.open("rb") as file:
            for one in ranges:
                file.seek(one.offset)
                piece = file.read(one.length)
                if len(piece) != one.length:
                    return None
                found.append(range_digest(nonce, piece))
    except OSError:
        return None
    return tuple(found)


def _is_sound(path: Path, sealed: Sealed) -> bool:
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == sealed.sealed_digest
    except OSError:
        return False
