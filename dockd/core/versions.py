"""Which versions of a statement two sides of a session both know: each says its own, and the highest common one counts.

A side that says nothing is of the time before there was anything to choose: it gets version 1 of everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dockd.errors import VerificationFailed

KNOWN: Mapping[str, tuple[int, ...]] = {"receipt": (1, 2, 3), "holding": (1, 2, 3), "policy": (1,), "extension": (1,)}
RULED = 3  # from this version on receipts and holding statements say which rule a clip falls under
_MOST = 32  # kinds, and versions of each, that a peer may name

Versions = Mapping[str, tuple[int, ...]]


def record(versions: Versions = KNOWN) -> dict[str, Any]:
    """As messages have them."""
    return {kind: list(known) for kind, known in versions.items()}


def take(said: object) -> dict[str, tuple[int, ...]]:
    """What a peer knows. A kind or version that is not known here is taken too. Raises VerificationFailed."""
    if not isinstance(said, dict) or len(said) > _MOST:
        raise VerificationFailed(f"versions are an object of at most {_MOST} kinds")
    for kind, known in said.items():
        if not isinstance(known, list) or not 0 < len(known) <= _MOST or not all(map(_is_version, known)):
            raise VerificationFailed(f"the versions of {kind!r:.40} are no list of 1 to {_MOST} numbers")
    return {kind: tuple(known) for kind, known in said.items()}


def choose(accepted: Versions, offered: Versions = KNOWN) -> dict[str, int]:
    """The highest version of each kind that both know; a kind without one is not there."""
    common = {kind: set(accepted[kind]) & set(offered[kind]) for kind in accepted.keys() & offered.keys()}
    return {kind: max(both) for kind, both in sorted(common.items()) if both}


def take_chosen(said: object, *, accepted: Versions = KNOWN) -> dict[str, int]:
    """What a store chose out of what it was told that this side accepts. Raises VerificationFailed."""
    if not isinstance(said, dict):
        raise VerificationFailed("the chosen versions are no object")
    for kind, version in said.items():
        if not _is_version(version) or version not in accepted.get(kind, ()):
            raise VerificationFailed(f"the store chose a version of {kind!r:.40} that was not accepted")
    return dict(said)


def _is_version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
