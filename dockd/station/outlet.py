"""One configured store, as the station works with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dockd.core.policy import StorePolicy
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import Acquisition, Clock, Entropy, StationId, StoreId
from dockd.stages.confirm import Confirmer
from dockd.stages.confirm_objects import ObjectConfirmer, Throttle
from dockd.stages.confirming import Confirming
from dockd.stores.port import EvidenceStore, ObjectStore, SigningStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """An open store, and how much of the network it may have. Exactly one of `signing` and `keeping` is there."""

    signing: SigningStore | None = None
    keeping: ObjectStore | None = None
    slots: int = 3
    patch_bytes: int = 64 * 1024 * 1024
    read_back_bytes_s: int = 0  # of objects that have to be read back to be confirmed; 0: no limit
    failover_after_s: float = 900.0  # of a fallback: how long its primary has to be out of reach

    def __post_init__(self) -> None:
        if (self.signing is None) == (self.keeping is None):
            raise ValueError("a store either signs or keeps objects")

    @property
    def port(self) -> EvidenceStore:
        """What clips are sent through."""
        if self.signing is not None:
            return self.signing
        if self.keeping is not None:
            return self.keeping
        raise ValueError("a store either signs or keeps objects")

    @property
    def store(self) -> StoreId:
        """The store's id."""
        return self.port.store

    def confirmer(self, parts: Parts) -> Confirming:
        """What confirms its deliveries."""
        if self.signing is not None:
            return Confirmer(
                journal=parts.journal,
                spool=parts.spool,
                store=self.signing,
                station=parts.station,
                policy=parts.policy,
                clock=parts.clock,
                random=parts.random,
                on_changed=parts.on_changed,
            )
        if self.keeping is None:
            raise ValueError("a store either signs or keeps objects")
        throttle: Callable[[int], Awaitable[None]] = Throttle(parts.clock, self.read_back_bytes_s)
        return ObjectConfirmer(
            journal=parts.journal,
            spool=parts.spool,
            store=self.keeping,
            station=parts.station,
            policy=parts.policy,
            clock=parts.clock,
            random=parts.random,
            on_changed=parts.on_changed,
            throttle=throttle,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all stores of a station work with. `on_changed` hears of every row that changed; it must not block."""

    journal: Journal
    spool: Spool
    station: StationId
    policy: StorePolicy
    clock: Clock
    random: Entropy
    on_changed: Callable[[Acquisition], None]
