"""Releases: what only a person may judge of a clip before it is erased, and which of that was seen when they did."""

from __future__ import annotations

from collections.abc import Collection

from dockd.model import VerdictStatus

EMPTY, UNCLEAN = "empty", "unclean: "


def grounds(verdict: VerdictStatus, size_bytes: int, unclean: str) -> tuple[str, ...]:
    """What of this waits for a person: a verdict, `empty`, and why its camera's file systems were not clean.

    A file system that is found unclean for another reason later is another ground.
    """
    found = () if verdict is VerdictStatus.INTACT else (verdict.value,)
    return found + ((EMPTY,) if size_bytes == 0 else ()) + ((UNCLEAN + unclean,) if unclean else ())


def uncovered(needed: Collection[str], released_for: Collection[str]) -> tuple[str, ...]:
    """Those that no release covers."""
    return tuple(one for one in needed if one not in released_for)


def sentence(ground: str) -> str:
    """Why a clip waits for a release."""
    if ground.startswith(UNCLEAN):
        return f"its camera's file system was not clean ({ground.removeprefix(UNCLEAN)}), and nobody released it"
    return f"it is {ground}, and nobody released it"
