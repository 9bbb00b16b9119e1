"""What the kernel tells about running programs."""

from __future__ import annotations

import re
from pathlib import Path


def family(pid: int) -> list[int]:
    """A program and all that it started, their own included."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:  # that thread has just ended
                continue
    return found


def pss_kib(pid: int) -> int:
    """Proportional set size, 0 where the program has just ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
    return int(found[1]) if found else 0


def descriptors(pid: int) -> int:
    """How many files, sockets and so on a program has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """How many threads a program has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
