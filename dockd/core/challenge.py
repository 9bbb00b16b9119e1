"""The range challenge: a store that signed for a clip has to show, piece by piece, that it has the bytes.

A receipt names a digest that the station itself had told the store, so that signing it takes no bytes. What is asked
here can be answered only by whoever can read the object: digests of ranges that nobody could foresee, each under a
nonce that was never used before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dockd.model import Entropy

NONCE_BYTES = 32
MAX_RANGES = 64
RANGE_BYTES = 4096
MAX_TOTAL_BYTES = MAX_RANGES * RANGE_BYTES  # in all ranges of one question together
_OFFSET_BYTES = 16  # so many random bytes make an offset: the remainder then favours none that could be noticed


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """`length` bytes of a sealed file from `offset` on."""

    offset: int
    length: int


def choose_ranges(size_bytes: int, random: Entropy) -> tuple[Range, ...]:
    """What to ask of a sealed file of this size: all of a small one, else 64 ranges of 4 KiB.

    Of the 64, the first begins the file and the last ends it; the others lie anywhere. A store that lacks a tenth of
    a clip is found out in 998 of 1,000 cases, one that lacks a twentieth in 95 of 100.
    """
    if size_bytes <= MAX_TOTAL_BYTES:
        return (Range(offset=0, length=size_bytes),)
    last = size_bytes - RANGE_BYTES
    anywhere = (int.from_bytes(random(_OFFSET_BYTES), "big") % (last + 1) for _ in range(MAX_RANGES - 2))
    return tuple(Range(offset=offset, length=RANGE_BYTES) for offset in (0, *anywhere, last))


def range_digest(nonce: bytes, piece: bytes) -> bytes:
    """The one right answer for a range: SHA-256 of the nonce and the range's bytes, one after the other."""
    return hashlib.sha256(nonce + piece).digest()
