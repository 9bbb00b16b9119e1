"""One configured store, as the station works with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from dockd.core.backoff import RetryBudget
from dockd.core.findings import Findings
from dockd.core.places import Places
from dockd.core.policy import StorePolicy
from dockd.core.sshsig import PublicKey
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import Acquisition, Clock, Entropy, StationId, StoreId
from dockd.stages.confirm import Confirmer
from dockd.stages.confirm_objects import ObjectConfirmer, Throttle
from dockd.stages.confirming import Confirming
from dockd.stages.sharing import Sharing
from dockd.station.pacing import Pacing
from dockd.stores.port import EvidenceStore, ObjectStore, SigningStore
from dockd.stores.probing import Probing


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """By its signature: a store that signs for what it holds."""

    port: SigningStore
    trusted: Mapping[StationId, PublicKey] = field(default_factory=dict)  # whose objects may stand for this one's own

    def sharing(self, parts: Parts) -> Sharing | None:
        """What looks for clips that other stations have brought; None where none is trusted."""
        if not self.trusted:
            return None
        return Sharing(
            journal=parts.journal, store=self.port, trusted=self.trusted, policy=parts.policy, clock=parts.clock
        )

    def confirmer(self, parts: Parts, tried: Callable[[], Awaitable[Findings]], budget: RetryBudget) -> Confirming:
        """What confirms its deliveries. No trial of such a store counts: its signatures do. It asks nothing again."""
        del tried, budget
        return Confirmer(
            journal=parts.journal,
            spool=parts.spool,
            store=self.port,
            station=parts.station,
            policy=parts.policy,
            clock=parts.clock,
            random=parts.random,
            on_changed=parts.on_changed,
            trusted=self.trusted,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """By looking at what it has: a store that keeps objects and does not sign."""

    port: ObjectStore
    read_back_bytes_s: int = 0  # of objects that have to be read back to be confirmed; 0: no limit
    probing: Probing | None = None  # None: it is never tried, so nothing is believed of it but its bytes

    def sharing(self, parts: Parts) -> Sharing | None:
        """None: such a store signs for nothing, so it cannot say that another station's object stands for a clip."""
        del parts
        return None

    def confirmer(self, parts: Parts, tried: Callable[[], Awaitable[Findings]], budget: RetryBudget) -> Confirming:
        """What confirms its deliveries; `tried`: what is known of the store. It asks again within `budget`."""
        return ObjectConfirmer(
            journal=parts.journal,
            spool=parts.spool,
            store=self.port,
            station=parts.station,
            policy=parts.policy,
            clock=parts.clock,
            random=parts.random,
            on_changed=parts.on_changed,
            throttle=Throttle(parts.clock, self.read_back_bytes_s),
            tried=tried,
            budget=budget,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """An open store, by which way it confirms, and how much of the network it may have."""

    way: Signing | Keeping
    slots: int = 3
    patch_bytes: int = 64 * 1024 * 1024
    failover_after_s: float = 900.0  # of a fallback: how long its primary has to be out of reach
    looked_at: Callable[[], Awaitable[Findings]] | None = None  # for `dockd doctor`: the way there, and who answers

    @property
    def port(self) -> EvidenceStore:
        """What clips are sent through."""
        return self.way.port

    @property
    def store(self) -> StoreId:
        """The store's id."""
        return self.port.store

    @property
    def signing(self) -> SigningStore | None:
        """The store, where it signs: only such a one can be shown the custody log."""
        return self.way.port if isinstance(self.way, Signing) else None

    @property
    def keeping(self) -> Keeping | None:
        """The same of one that keeps objects."""
        return self.way if isinstance(self.way, Keeping) else None


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
    pacing: Pacing
    places: Places
