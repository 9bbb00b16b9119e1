"""Failures on demand, for tests: at a durable write (dockd.faultpoints), or at an instant of a reader's work.

Off, which is without `DOCKD_FAULTS` in the environment, every call goes straight through. The variable holds rules,
parted by spaces:

    kind@point[#n]                           fail at a durable write; with #n at the n-th time only
    action@instant[:name[:first-end]]        at an instant of a reader's work: `kill`, `hang`, `raise`, or an errno;
                                             `name`, percent-encoded, is looked for in the clip's path
    /a/file                                  holds more rules; it is removed as the first of them acts, so that they
                                             act once, in whichever program it is

No rule can make anything count as durable that is not: a rule does what a failing disk, a full one, a power cut or a
hostile clip could do as well.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes

from dockd.faultpoints import Kind, Point

VARIABLE = "DOCKD_FAULTS"

_ERRNO = {Kind.FAILED: errno.ETIMEDOUT, Kind.LOST: errno.ETIMEDOUT, Kind.EIO: errno.EIO, Kind.ENOSPC: errno.ENOSPC}

_POINTS = frozenset(point.value for point in Point)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Faults:
    """None at all: what everybody is given but a test's program."""

    def act(self, point: Point, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a durable change by `call`. Raises what that raises, and OSError where a rule says so."""
        del point
        return call(*args, **kwargs)

    def write(self, point: Point, fd: int, block: bytes | memoryview, offset: int | None = None) -> int:
        """Write bytes, at an offset or where the descriptor stands; returns how many were. Raises OSError."""
        del point
        return os.write(fd, block) if offset is None else os.pwrite(fd, block, offset)

    def at(self, instant: str, path: bytes = b"", first: int = 0, end: int = 1) -> None:
        """An instant of a reader's work was reached, for a read with the range of it."""

    def tokens(self) -> tuple[Path, ...]:
        """The files that are removed as a rule acts."""
        return ()


NONE = Faults()


@dataclass(slots=True, kw_only=True)
class _Rule:
    action: str
    point: str
    name: bytes = b""
    first: int = 0
    end: int = 1 << 63
    number: int = 0  # which time it is; 0: every time
    token: Path | None = None  # a file that must still be there, and goes when the rule acts
    passed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # points are passed in several threads

    def acts(self) -> bool:
        """The point was reached: whether it is to fail now."""
        with self.lock:
            self.passed += 1
            if self.number not in (0, self.passed):
                return False
            if self.token is not None:
                try:
                    self.token.unlink()
                except FileNotFoundError:
                    return False
            return True


class Injected(Faults):
    """Faults by rules."""

    def __init__(self, specification: str) -> None:
        self._rules = tuple(_rules(specification))

    def act(self, point: Point, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """As the rules say."""
        kind = self._failing(point)
        if kind is not None:
            _before(kind)
        try:
            return call(*args, **kwargs)
        finally:  # also where it failed by itself: no rule goes unheeded
            if kind is not None:
                _after(kind)

    def write(self, point: Point, fd: int, block: bytes | memoryview, offset: int | None = None) -> int:
        """As the rules say."""
        kind = self._failing(point)
        if kind in (Kind.SHORT, Kind.KILL_WITHIN):
            block = memoryview(block)[: max(1, len(block) // 2)]
        elif kind is not None:
            _before(kind)
        count = super().write(point, fd, block, offset)
        if kind is not None:
            _after(kind)
        return count

    def at(self, instant: str, path: bytes = b"", first: int = 0, end: int = 1) -> None:
        """As the rules say."""
        for rule in self._rules:
            if rule.point == instant and rule.name in path and rule.first < end and first < rule.end and rule.acts():
                _act(rule.action)

    def tokens(self) -> tuple[Path, ...]:
        """Of all rules that have one."""
        return tuple({rule.token for rule in self._rules if rule.token is not None})

    def _failing(self, point: Point) -> Kind | None:
        return next((Kind(rule.action) for rule in self._rules if rule.point == point and rule.acts()), None)


def parse(specification: str) -> Faults:
    """The faults that rules ask for. Raises ValueError for a word that is none."""
    return Injected(specification) if specification.strip() else NONE


def from_environment() -> Faults:
    """Those that the environment asks for: none, outside of tests."""
    return parse(os.environ.get(VARIABLE, ""))


def _rules(specification: str) -> list[_Rule]:
    found: list[_Rule] = []
    for word in specification.split():
        if not word.startswith("/"):
            found.append(_rule(word))
            continue
        file = Path(word)
        with suppress(FileNotFoundError):  # one of them has acted
            for rule in _rules(file.read_text()):
                rule.token = file
                found.append(rule)
    return found


def _rule(word: str) -> _Rule:
    action, _, rest = word.partition("@")
    point, _, rest = rest.partition(":")
    name, _, span = rest.partition(":")
    first, _, end = span.partition("-")
    point, _, number = point.partition("#")
    if point in _POINTS:
        Kind(action)  # raises where there is none
    return _Rule(
        action=action,
        point=point,
        name=unquote_to_bytes(name),
        first=int(first or 0),
        end=int(end or 1 << 63),
        number=int(number or 0),
    )


def _before(kind: Kind) -> None:
    if kind is Kind.KILL_BEFORE:
        _die()
    if kind in _ERRNO and kind is not Kind.LOST:
        raise _error(_ERRNO[kind])


def _after(kind: Kind) -> None:
    if kind in (Kind.KILL_AFTER, Kind.KILL_WITHIN):
        _die()
    if kind is Kind.LOST:
        raise _error(_ERRNO[kind])


def _act(action: str) -> None:
    match action:
        case "kill":
            _die()
        case "hang":
            while True:
                signal.pause()
        case "raise":
            raise RuntimeError("a fault was asked for")
        case _:
            raise _error(getattr(errno, action.upper()))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
