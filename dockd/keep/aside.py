"""Setting a broken journal aside, and putting the one that was made in its stead into its place.

    journal.sqlite.corrupt-<time>    the broken journal (its -wal and -shm likewise), never touched again
    custody-<generation>/            the custody log of that journal, as it was
    rebuilding/                      a new journal being made: of no worth
    rebuilt/                         a new journal that is whole, on its way into its place

Every step is a rename, and what is there tells which step is next: a start after a power cut goes on with it.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from dockd import faults as no
from dockd.core.custody import MAX_LINE_BYTES
from dockd.core.merkle import Frontier
from dockd.faultpoints import Point
from dockd.keep.durable import fsync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from dockd.faults import Faults

JOURNAL, CUSTODY, LOG = "journal.sqlite", "custody", "custody.jsonl"
REBUILDING, REBUILT = "rebuilding", "rebuilt"
_SIDES = ("", "-wal", "-shm")
_FORMER = re.compile(rf"{CUSTODY}-([1-9][0-9]*)")


def is_gone(directory: Path) -> bool:
    """Whether a journal is missing although there is a custody log: it was lost, or set aside and not yet rebuilt."""
    journal, log = directory / JOURNAL, directory / CUSTODY / LOG
    empty = not journal.exists() or journal.stat().st_size == 0
    return empty and log.exists() and log.stat().st_size > 0


def set_aside(directory: Path, at: datetime, faults: Faults = no.NONE) -> str:
    """Rename the broken journal; returns its new name, or that of an earlier start, or "" where there is none."""
    stamp = at.strftime("%Y%m%dT%H%M%S.%fZ")
    name = f"{JOURNAL}.corrupt-{stamp}"
    if (directory / JOURNAL).exists():
        for side in reversed(_SIDES):  # the database itself last: while it is there, all of it is to be set aside
            path = directory / (JOURNAL + side)
            if path.exists():
                faults.act(Point.ASIDE_NAME, path.rename, directory / (name + side))
        faults.act(Point.ASIDE_SYNC, fsync_directory, directory)
    known = sorted(path.name for path in directory.glob(f"{JOURNAL}.corrupt-*") if path.suffix.endswith("Z"))
    return known[-1] if known else ""


def next_generation(directory: Path, newest: int) -> int:
    """A generation that no log here ever was."""
    return max([newest, *former_generations(directory)], default=0) + 1


def former_generations(directory: Path) -> list[int]:
    """The generations whose logs were set aside here."""
    names = (_FORMER.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match[1]) for match in names if match)


def finish(directory: Path, generation: int | None = None, faults: Faults = no.NONE) -> bool:
    """Put a rebuilt journal into its place; False where there is none. Idempotent; cut short, it is done again.

    `generation` is that of the log that makes room. Left out, it is the newest one that is free.
    """
    made = directory / REBUILT
    if not made.is_dir():
        return False
    if (made / CUSTODY).is_dir():
        if (directory / CUSTODY).exists():
            number = next_generation(directory, 0) if generation is None else generation
            faults.act(Point.REBUILT_FORMER, (directory / CUSTODY).rename, directory / f"{CUSTODY}-{number}")
        faults.act(Point.REBUILT_LOG, (made / CUSTODY).rename, directory / CUSTODY)
        faults.act(Point.REBUILT_LOG_SYNC, fsync_directory, directory)
    for side in reversed(_SIDES):
        if (made / (JOURNAL + side)).exists():
            faults.act(Point.REBUILT_JOURNAL, (made / (JOURNAL + side)).rename, directory / (JOURNAL + side))
    faults.act(Point.REBUILT_JOURNAL_SYNC, fsync_directory, directory)
    faults.act(Point.REBUILT_GONE, shutil.rmtree, made)
    faults.act(Point.REBUILT_GONE_SYNC, fsync_directory, directory)
    return True


def lines_of(log: Path) -> Iterator[bytes]:
    """The lines of a custody log with their LF; one that is longer than an entry may be is cut. Raises OSError."""
    with log.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            whole = line.endswith(b"\n") or len(line) <= MAX_LINE_BYTES
            yield line
            while not whole and (rest := file.readline(MAX_LINE_BYTES + 1)):
                whole = rest.endswith(b"\n")


def was_former(directory: Path, size: int, root: bytes) -> bool:
    """Whether a log that was set aside here had this root at this size. Blocking; raises OSError."""
    return any(_root_at(directory / f"{CUSTODY}-{one}" / LOG, size) == root for one in former_generations(directory))


def _root_at(log: Path, size: int) -> bytes | None:
    frontier = Frontier()
    for line in lines_of(log):
        if frontier.size == size:
            break
        frontier.append(line.removesuffix(b"\n"))
    return frontier.root() if frontier.size == size else None
