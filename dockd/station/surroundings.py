"""What the course of a stay needs of its station."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dockd.core.policy import StorePolicy
from dockd.model import AcquisitionId
from dockd.stores.port import SigningStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a course needs of its station. The calls do not wait."""

    store: SigningStore
    policy: StorePolicy
    recipients: int
    wake_uplink: Callable[[], None]
    witness: Callable[[], None]
    spool_short: Callable[[], None]
    doubt: Callable[[AcquisitionId, str], None]  # the store does not hold what it signed for
    alarms: Callable[[], tuple[str, ...]]  # while the store contradicts itself, nothing is erased
