"""The two indexes of AVI files: idx1 at the end of the first RIFF form, and OpenDML's super-indexes in the headers."""

from __future__ import annotations

import sys
from array import array
from operator import add

from dockd.media.findings import Findings

_ENTRY_BYTES = 16
_CHUNK_HEADER_BYTES = 8
_BATCH_BYTES = 4096 * _ENTRY_BYTES
_SUPER_HEAD_BYTES = 24
_MOST_ZEROS_BYTES = 16384  # at the end of a chunk: cameras fill up pictures of Motion JPEG
_ZERO = ord("0")


class OldIndex:
    """idx1: 16 bytes a chunk (type, flags, offset, size), checked in batches as they come by.

    Offsets count from the word `movi`, or, as some recorders write them, from the start of the file: the first entry
    tells which.
    """

    def __init__(self, media: tuple[int, int] | None, zeros: tuple[int, int] | None, coded: frozenset[int]) -> None:
        """`zeros`: the stretch of zeros that the media ends with; `coded`: the streams whose chunks are never zeros."""
        self._media = media
        self._zeros = zeros
        self._coded = coded
        self._base: int | None = None
        self._pending = bytearray()
        self.entries = 0
        self.outside = 0
        self.zeroed = 0

    def feed(self, piece: memoryview) -> None:
        """Take the next bytes of its payload."""
        for at in range(0, len(piece), _BATCH_BYTES):
            self._pending += piece[at : at + _BATCH_BYTES]
            whole = len(self._pending) // _ENTRY_BYTES * _ENTRY_BYTES
            if whole:
                self._batch(self._pending[:whole])
                del self._pending[:whole]

    def report(self, findings: Findings) -> None:
        """Say what was found, once the chunk ended whole."""
        if self._pending:
            findings.damage("the index (idx1) ends within an entry")
        if self.entries and self._media is None:
            findings.damage("the index (idx1) comes before any media")
        elif self.outside:
            findings.damage(f"{self.outside} of the {self.entries} chunks in the index (idx1) lie not inside the media")
        if self.zeroed:
            findings.damage(
                f"{self.zeroed} of the {self.entries} chunks in the index (idx1) hold zeros where media should be"
            )

    def _batch(self, entries: bytearray) -> None:
        words = array("I")
        words.frombytes(entries)
        if sys.byteorder == "big":
            words.byteswap()
        offsets, sizes = words[2::4], words[3::4]
        self.entries += len(offsets)
        if self._media is None:
            return
        start, end = self._media
        if self._base is None:
            self._base = 0 if offsets[0] >= start else start
        if self._zeros is not None and max(map(add, offsets, sizes)) + self._base > self._zeros[0]:
            self._count_zeroed(words)
        first, last = start - self._base, end - self._base - _CHUNK_HEADER_BYTES
        if min(offsets) >= first and max(map(add, offsets, sizes)) <= last:
            return
        self.outside += sum(offset < first or offset + size > last for offset, size in zip(offsets, sizes, strict=True))

    def _count_zeroed(self, words: array[int]) -> None:
        """Coded chunks whose content, behind its header of 8 bytes, begins inside the zeros or has many of them."""
        start, end = self._zeros or (0, 0)
        base = self._base or 0
        for kind, offset, size in zip(words[0::4], words[2::4], words[3::4], strict=True):
            content = base + offset + _CHUNK_HEADER_BYTES
            lost = min(end, content + size) - max(start, content)
            if lost >= min(size, _MOST_ZEROS_BYTES) > 0 and _stream(kind) in self._coded:
                self.zeroed += 1


def _stream(kind: int) -> int:
    """The stream's number: the first two characters of a chunk's type, like `01` of `01wb`. -1 where it is none."""
    tens, ones = (kind & 0xFF) - _ZERO, (kind >> 8 & 0xFF) - _ZERO
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -1  # noqa: PLR2004  digits


def super_index_end(payload: bytearray) -> int | None:
    """Where the last inner index that an indx chunk names ends in the file. None where it is no super-index."""
    if len(payload) < _SUPER_HEAD_BYTES or payload[3] != 0:
        return None
    used = int.from_bytes(payload[4:8], "little")
    stop = min(len(payload), _SUPER_HEAD_BYTES + used * _ENTRY_BYTES) - _ENTRY_BYTES + 1
    return max(
        (
            int.from_bytes(payload[at : at + 8], "little") + int.from_bytes(payload[at + 8 : at + 12], "little")
            for at in range(_SUPER_HEAD_BYTES, stop, _ENTRY_BYTES)
        ),
        default=0,
    )
