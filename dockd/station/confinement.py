"""What is said of how readers are kept from everything but their camera: each part, as a reader itself tried it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dockd.errors import DockdError
from dockd.reader.client import ForkServer
from dockd.reader.confine import ITEMS

HOLDS = "holds"


async def measure(forkserver: ForkServer) -> Mapping[str, str]:
    """What does not hold, and why. Where no reader can be started to try it, nothing is known to hold."""
    try:
        return await forkserver.measure()
    except DockdError as error:
        return dict.fromkeys(ITEMS, f"it could not be tried: {error}")


def in_words(unmet: Mapping[str, str] | None) -> dict[str, str]:
    """Of each part that it holds, or why it does not. None: no reader tried it yet."""
    if unmet is None:
        return dict.fromkeys(ITEMS, "not tried yet")
    return {item: unmet.get(item, HOLDS) for item in ITEMS}


def alarm(unmet: Mapping[str, str]) -> str:
    """For IT; empty where all of it holds."""
    if not unmet:
        return ""
    parts = "; ".join(f"{item} ({why})" for item, why in unmet.items())
    return f"a hostile camera's reader is not kept from everything that it should be: {parts}; `dockd doctor` says more"


def to_json(unmet: Mapping[str, str]) -> dict[str, Any]:
    """As `dockd doctor --json` prints it (docs/status.md)."""
    return {
        "type": "confinement",
        "v": 1,
        "items": [
            {"item": item, "kept_from": ITEMS[item], "holds": why == HOLDS, "why": "" if why == HOLDS else why}
            for item, why in in_words(unmet).items()
        ],
        "wrong": [f"readers are not kept from {ITEMS[item]}: {why}" for item, why in unmet.items()],
        "out_of_reach": False,
    }
