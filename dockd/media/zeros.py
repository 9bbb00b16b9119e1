"""The run of zeros that a stretch of bytes ends with, found without looking at every byte.

What a card or a file system loses comes in whole clusters and is read back as zeros: 4 KiB is the smallest cluster in
use and a page of memory, while what coders and boxes legitimately end with are some dozens of zeros. So a shorter run
is no finding.
"""

from __future__ import annotations

THRESHOLD_BYTES = 4096
_ZEROS = bytes(65536)
_GLANCE_BYTES = 64


class ZeroTail:
    """Push it a stretch of bytes in order; `run_bytes` is then the number of zeros at its end."""

    __slots__ = ("run_bytes", "seen_bytes")

    def __init__(self) -> None:
        self.run_bytes = 0
        self.seen_bytes = 0

    def feed(self, block: memoryview) -> None:
        """Take the next bytes. A block with a non-zero end costs a look at its last 64 bytes."""
        self.seen_bytes += len(block)
        run = trailing_zeros(block)
        self.run_bytes = self.run_bytes + run if run == len(block) else run

    @property
    def only_zeros(self) -> bool:
        """Nothing but zeros was pushed (also where nothing was)."""
        return self.run_bytes == self.seen_bytes

    @property
    def notable(self) -> bool:
        """The run is long enough to be a loss."""
        return self.run_bytes >= THRESHOLD_BYTES


def trailing_zeros(block: memoryview) -> int:
    """How many zeros `block` ends with."""
    end, piece, largest = len(block), _GLANCE_BYTES, len(_ZEROS)
    while end:
        view = block[max(0, end - piece) : end]
        # startswith compares with a constant by memcmp, and copies nothing; rstrip would go byte by byte
        if _ZEROS.startswith(view):
            end -= len(view)
            piece = largest
        elif len(view) <= _GLANCE_BYTES:
            return len(block) - end + len(view) - len(bytes(view).rstrip(b"\0"))
        else:
            piece = largest = max(_GLANCE_BYTES, len(view) >> 4)
    return len(block)
