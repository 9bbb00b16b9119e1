"""Failures on demand, for tests of a real reader: `DOCKD_READER_FAULTS` in the fork server's environment.

Rules stand one after the other, parted by spaces: `action@point`, `action@point:name` or
`action@point:name:first-end`, with `name` percent-encoded and looked for in the clip's path, and a range of offsets.
Without the variable every point is passed. They can harm a reader, and nothing but a reader: what a clip's parser
could do to it anyway.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

VARIABLE = "DOCKD_READER_FAULTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    action: str  # "kill", "raise", "hang", or the name of an errno: "eio", "enospc", "einval"
    point: str
    name: bytes
    first: int
    end: int


class Faults:
    """The rules of one reader."""

    def __init__(self, specification: str) -> None:
        self._rules = tuple(_rule(word) for word in specification.split())

    def at(self, point: str, path: bytes = b"", first: int = 0, end: int = 1) -> None:
        """A point of the work was reached, for a read with the range of it: do here what the rules say."""
        for rule in self._rules:
            if rule.point == point and rule.name in path and rule.first < end and first < rule.end:
                _act(rule.action)


def _rule(word: str) -> _Rule:
    action, _, rest = word.partition("@")
    point, _, rest = rest.partition(":")
    name, _, span = rest.partition(":")
    first, _, end = span.partition("-")
    return _Rule(
        action=action, point=point, name=unquote_to_bytes(name), first=int(first or 0), end=int(end or 1 << 63)
    )


def _act(action: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            while True:
                signal.pause()
        case "raise":
            raise RuntimeError("a fault was asked for")
        case "eio" | "enospc" | "einval":
            number = getattr(errno, action.upper())
            raise OSError(number, os.strerror(number))
