"""custody.jsonl: the journal's custody lines once more, in a plain file that an outsider can read and check.

The journal commits first, then the lines are appended here and synced. So after a crash the file may lack lines, or
end in a torn one; it never rightly has a line that the journal has not.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import structlog

from dockd import faults as no
from dockd.errors import JournalError
from dockd.faultpoints import Point

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dockd.faults import Faults
    from dockd.keep.queries import Queries

_log = structlog.get_logger()

_BLOCK_LINES = 1000
_LINE_CAP = 65_535 + 1  # an entry at most, and its LF


class Mirror:
    """The open custody file. Not usable after a method raised."""

    def __init__(self, path: Path, faults: Faults = no.NONE) -> None:
        self._path = path
        self._faults = faults
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size_bytes = os.fstat(self._fd).st_size

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self._size_bytes

    def append(self, lines: Sequence[bytes]) -> None:
        """Append lines, each with an LF, and sync. On return they are durable. Raises OSError or JournalError."""
        block = memoryview(b"".join(line + b"\n" for line in lines))
        self._size_bytes += len(block)
        while block:
            block = block[self._faults.write(Point.MIRROR_DATA, self._fd, block) :]
        self.sync()

    def sync(self) -> None:
        """Make everything so far durable. Raises JournalError where the file is no longer the one that was opened."""
        self._faults.act(Point.MIRROR_SYNC, os.fsync, self._fd)
        ours = os.fstat(self._fd)
        try:
            there = self._path.lstat()
        except FileNotFoundError as error:
            raise JournalError(f"{self._path} was removed while dockd was running; {_STOP}") from error
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or ours.st_size != self._size_bytes:
            raise JournalError(
                f"{self._path} was replaced or changed by another program while dockd was running; {_STOP}"
            )

    def read(self, position: int, length: int) -> bytes:
        """Bytes from a position; fewer only at the end."""
        parts = []
        while length and (part := os.pread(self._fd, length, position)):
            parts.append(part)
            position += len(part)
            length -= len(part)
        return b"".join(parts)

    def cut(self, size_bytes: int) -> None:
        """Drop a torn end."""
        self._faults.act(Point.MIRROR_CUT, os.ftruncate, self._fd, size_bytes)
        self._size_bytes = size_bytes

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_STOP = "start dockd again: it compares the file with the journal and says what differs"
KEEP = (
    "keep copies of the journal and of the custody directory as they are, erase no camera, and let the evidence side"
    " compare both with the newest checkpoint that the store witnessed"
)


def reconcile(mirror: Mirror, journal: Queries, *, mirrored: int) -> int | None:
    """Make the mirror equal to the journal after whatever ended the last run; then all of it is durable.

    The first `mirrored` entries were durable in the mirror before; only lines after them can be torn. Missing lines are
    appended anew; returns the number of the first of them where it was durable before, so that no crash explains it.
    Idempotent. Raises JournalError where the mirror has a whole line that the journal has not, or
    another one: then the journal was rolled back, or one of them was edited.
    """
    size = journal.size
    position, seq = 0, 0
    cut_at: int | None = None
    while seq < size:
        lines = journal.lines(seq, _BLOCK_LINES)
        expected = b"".join(line + b"\n" for line in lines)
        actual = mirror.read(position, len(expected))
        if actual != expected:
            equal = _equal_lines(lines, actual)
            position += sum(len(line) + 1 for line in lines[:equal])
            _repair(mirror, journal, first=seq + equal, position=position, mirrored=mirrored)
            cut_at = seq + equal + 1 if seq + equal < mirrored else None
            break
        position += len(expected)
        seq += len(lines)
    else:
        if mirror.size_bytes > position:
            raise JournalError(
                f"{mirror.path} goes on after line {size}, the last that the journal knows: the journal was rolled back"
                f" (restored from a backup, perhaps); {KEEP}"
            )
    mirror.sync()
    return cut_at


def _equal_lines(lines: Sequence[bytes], actual: bytes) -> int:
    position = 0
    for number, line in enumerate(lines):
        if actual[position : position + len(line) + 1] != line + b"\n":
            return number
        position += len(line) + 1
    return len(lines)


def _repair(mirror: Mirror, journal: Queries, *, first: int, position: int, mirrored: int) -> None:
    """Append the lines from `first` on, which should begin at `position`; what is there is cut off if it is torn."""
    line = journal.line(first) + b"\n"
    there = mirror.read(position, len(line))
    if not line.startswith(there) and (first < mirrored or _has_whole_line(mirror, position)):
        raise JournalError(f"{mirror.path}: line {first + 1} is not the one that the journal has; {KEEP}")
    if first < mirrored:
        _log.error("custody_file_was_cut", line=first + 1, lines_known_durable=mirrored)
    else:
        _log.warning("custody_file_completed", line=first + 1, torn_bytes=mirror.size_bytes - position)
    mirror.cut(position)
    seq = first
    while lines := journal.lines(seq, _BLOCK_LINES):
        mirror.append(lines)
        seq += len(lines)


def _has_whole_line(mirror: Mirror, position: int) -> bool:
    """Whether an entry stands after `position`, as opposed to what a power cut leaves of one."""
    while piece := mirror.read(position, _LINE_CAP):
        end = piece.find(b"\n")
        if end >= 0 and _is_entry(piece[:end]):
            return True
        position += len(piece) if end < 0 else end + 1
    return False


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
