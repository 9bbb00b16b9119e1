"""The store policy: which stores have to confirm a clip before it may be erased."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from dockd.core.retention import Terms
from dockd.model import StationId, StoreId

MARGIN = timedelta(days=3)  # in which a store may delete nothing on which an erasure rests


class EraseWhen(StrEnum):
    """How many of the stores that count."""

    ALL = "all"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOf:
    """So many of these stores, whichever they are."""

    count: int
    of: tuple[StoreId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStore:
    """One store, as the configuration has it."""

    store: StoreId
    name: str  # as people call it, in sentences
    final: bool = True  # its confirmation counts
    fallback_for: StoreId | None = None  # it gets clips only while that one is out of reach
    min_retention: timedelta = timedelta(0)  # from the confirmation: one for less is none
    minima: Mapping[str, Terms] = field(default_factory=dict)  # the same by category, counted as a store's rule is
    place: str = ""  # where it keeps objects, of a store that does not sign: its id is made of this
    trust_stations: frozenset[StationId] = frozenset()  # whose objects it may sign for in place of this station's own


class StorePolicy:
    """The stores and what of them is needed. Immutable.

    A fallback that is final stands for its primary: both together count once, so that "2 of 3" means two places.
    """

    def __init__(
        self,
        stores: Sequence[PolicyStore],
        erase_when: EraseWhen | CountOf = EraseWhen.ALL,
        margin: timedelta = MARGIN,
    ) -> None:
        """`margin`: how far from now a promise has to reach for a warrant.

        Raises ValueError, naming what is wrong, for a policy that nothing or too little could satisfy.
        """
        self.margin = margin
        self._stores: Mapping[StoreId, PolicyStore] = {one.store: one for one in stores}
        self._check_stores(stores)
        final = [one.store for one in stores if one.final and one.fallback_for is None]
        if not final:
            raise ValueError("no store is final: nothing could ever be erased")
        counted, needed = final, len(final)
        if isinstance(erase_when, CountOf):
            counted, needed = list(erase_when.of), erase_when.count
            self._check_count(erase_when, final)
        elif erase_when is EraseWhen.ANY:
            needed = 1
        self._counted, self._needed = frozenset(counted), needed

    @property
    def stores(self) -> tuple[PolicyStore, ...]:
        """All of them, in the order of the configuration."""
        return tuple(self._stores.values())

    @property
    def primaries(self) -> frozenset[StoreId]:
        """Those that are to get every clip: all but the fallbacks."""
        return frozenset(one.store for one in self.stores if one.fallback_for is None)

    @property
    def needed(self) -> int:
        """How many places have to confirm a clip."""
        return self._needed

    def store(self, store: StoreId) -> PolicyStore | None:
        """One of them."""
        return self._stores.get(store)

    def name(self, store: StoreId) -> str:
        """What people call a store; its id where it is not configured."""
        known = self._stores.get(store)
        return known.name if known else str(store)

    def counts(self, store: StoreId) -> bool:
        """Whether this store's confirmation counts towards erasing."""
        return self._place(store) is not None

    def satisfied(self, confirmed: Collection[StoreId]) -> bool:
        """Whether the confirmations of these stores are enough."""
        return len(self._places(confirmed)) >= self._needed

    def attainable(self, refused: Collection[StoreId]) -> bool:
        """Whether it can still be satisfied without these stores, which will never take the clip."""
        return self.satisfied(self._stores.keys() - set(refused))

    def missing(self, confirmed: Collection[StoreId]) -> tuple[str, ...]:
        """The names of the stores that count and have not confirmed; empty where the policy is satisfied."""
        if self.satisfied(confirmed):
            return ()
        lacking = self._counted - self._places(confirmed)
        return tuple(one.name for one in self.stores if one.store in lacking)

    def sentence(self) -> str:
        """For people and for the log, like `2 of archive, court, vault`."""
        names = ", ".join(one.name for one in self.stores if one.store in self._counted)
        return names if self._needed == len(self._counted) else f"{self._needed} of {names}"

    def described(self) -> dict[str, Any]:
        """For the custody log: what has to confirm a clip, and what each store is."""
        return {
            "policy": self.sentence(),
            "needed": self._needed,
            "counted": sorted(self._counted),
            "margin_days": self.margin.days,
            "stores": [
                {
                    "store": one.store,
                    "name": one.name,
                    "final": one.final,
                    "fallback_for": one.fallback_for,
                    "min_retention_days": one.min_retention.days,
                }
                | ({"place": one.place} if one.place else {})
                | ({"minimum": {name: terms.record() for name, terms in one.minima.items()}} if one.minima else {})
                | ({"trust_stations": sorted(one.trust_stations)} if one.trust_stations else {})
                for one in self.stores
            ],
        }

    def fingerprint(self) -> str:
        """Another one means that another policy is in force."""
        return json.dumps(self.described(), sort_keys=True)

    def _place(self, store: StoreId) -> StoreId | None:
        """What a store's confirmation counts for: itself, or the primary that it stands for; None for nothing."""
        one = self._stores.get(store)
        if one is None or not one.final:
            return None
        place = one.fallback_for or one.store
        return place if place in self._counted else None

    def _places(self, confirmed: Collection[StoreId]) -> frozenset[StoreId]:
        return frozenset(place for store in confirmed if (place := self._place(store)) is not None)

    def _check_stores(self, stores: Sequence[PolicyStore]) -> None:
        if len(self._stores) != len(stores) or len({one.name for one in stores}) != len(stores):
            raise ValueError("a store stands twice: each needs an id and a name of its own")
        for one in stores:
            if one.fallback_for is None:
                continue
            primary = self._stores.get(one.fallback_for)
            if primary is None or primary is one:
                raise ValueError(f"{one.name} is a fallback for {one.fallback_for}, which is no other store")
            if primary.fallback_for is not None:
                raise ValueError(f"{one.name} is a fallback for {primary.name}, which is a fallback itself")
            if one.final and not primary.final:
                raise ValueError(f"{one.name} is final, but {primary.name}, for which it stands, is not")

    def _check_count(self, wanted: CountOf, final: Sequence[StoreId]) -> None:
        for store in wanted.of:
            if store not in final:
                raise ValueError(
                    f"{self.name(store)} cannot count: it is no store, not final, or a fallback (which counts for its "
                    "primary)"
                )
        if len(set(wanted.of)) != len(wanted.of):
            raise ValueError("a store stands twice in the list of those that count")
        if not 1 <= wanted.count <= len(wanted.of):
            raise ValueError(f"{wanted.count} of {len(wanted.of)} stores can never be, or is nothing at all")
