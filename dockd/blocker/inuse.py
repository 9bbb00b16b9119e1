"""Whether this machine uses a disk itself: as a mount that has a path, as swap, or as part of another device."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from dockd.blocker.messages import BlockerError
from dockd.blocker.sysfs import Place, family, major_minor

_SYSTEM = ("/", "/boot", "/efi", "/etc", "/home", "/opt", "/srv", "/usr", "/var")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def check_unused(found: Place, proc: Path) -> None:
    """Refuse a disk that this machine runs from or has taken into use; any partition of it counts.

    Raises BlockerError: "busy" for a mount that may go away again, "refused" for what will not.
    """
    members = {major_minor(one) for one in family(found)}
    for number, place in _mounted(proc):
        if number not in members:
            continue
        if any(place == one or place.startswith(f"{one.rstrip('/')}/") for one in _SYSTEM[1:]) or place == "/":
            raise BlockerError("refused", f"{found.disk} is a disk of this machine: {place} is on it")
        raise BlockerError("busy", f"{found.disk} is mounted at {place}; unmount it, and keep automounters off")
    if any(number in members for number in _swaps(proc)):
        raise BlockerError("refused", f"{found.disk} is a disk of this machine: it swaps to it")
    for one in family(found):
        holders = sorted(holder.name for holder in one.glob("holders/*"))
        if holders:
            raise BlockerError("refused", f"{one.name} is part of {holders[0]}")


def _mounted(proc: Path) -> Iterator[tuple[tuple[int, int], str]]:
    """Device number and path of each mount, as proc(5) has them; btrfs states its device as a source only."""
    for line in (proc / "self" / "mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.split(" ")
        major, _, minor = words[2].partition(":")
        place, source = _plain(words[4]), _plain(words[words.index("-") + 2])
        yield (int(major), int(minor)), place
        number = _node(source)
        if number:
            yield number, place


def _swaps(proc: Path) -> Iterator[tuple[int, int]]:
    for line in (proc / "swaps").read_text(errors="surrogateescape").splitlines()[1:]:
        number = _node(_plain(line.split(" ")[0].split("\t")[0]))
        if number:
            yield number


def _node(path: str) -> tuple[int, int] | None:
    """The number of the block device with this name, or on which this file lies."""
    try:
        found = os.stat(path) if path.startswith("/") else None  # noqa: PTH116 - a name may be no text
    except OSError:
        return None
    if found is None:
        return None
    device = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    return os.major(device), os.minor(device)


def _plain(text: str) -> str:
    """Undo the octal escapes of spaces and the like."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
