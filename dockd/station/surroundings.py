"""What the course of a stay needs of its station."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dockd.stages.sanitise import Asking


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a course needs of its station. The calls do not wait."""

    asking: Asking
    recipients: int
    wake_uplink: Callable[[], None]
    witness: Callable[[], None]
    spool_short: Callable[[], None]
    alarms: Callable[[], tuple[str, ...]]  # while a store that counts contradicts itself, nothing is erased
