"""Who may have how many connections: counted when they are accepted, before TLS costs anything.

A **stranger** is a connection on which nobody has shown a token yet. Strangers have places of their own, which they
share by peer: where all are taken, the oldest stranger of the peer that has most gives way, so a peer with one
connection gets in however many another one holds open. A connection that has shown a token belongs to its station,
counts with its station's, and never gives way; so do the places for those, and for peers from which a station has
opened a session lately. A peer is an IPv4 address, or the 64 bits of an IPv6 network.

Nothing here waits, and nothing grows with what peers do: each count, and each table of peers, has its bound.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address

import structlog

from dockd.model import Clock, StationId
from dockd.receiver.settings import Limits

_log = structlog.get_logger()
_KNOWN = 4096  # peers that are remembered for a session
_BUDGETS = 4096  # peers whose requests are counted
_SAY_EVERY_S = 60.0


class Place:
    """One connection's. `end` closes the connection; whoever owns it sets it, and releases the place afterwards."""

    __slots__ = ("end", "is_inside", "is_released", "peer", "station")

    def __init__(self, peer: str | None, *, is_inside: bool) -> None:
        self.peer = peer  # None: a trusted proxy, which stands for many
        self.is_inside = is_inside
        self.is_released = False
        self.station: StationId | None = None
        self.end: Callable[[], object] = _nothing


@dataclass(slots=True)
class _Budget:
    left: float
    at_s: float


class Connections:
    """The places of one receiver."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._strangers = 0
        self._inside = 0
        self._unnamed: dict[str, dict[Place, None]] = {}  # by peer, without a token yet, the oldest first
        self._stations: Counter[StationId] = Counter()
        self._known: OrderedDict[str, float] = OrderedDict()  # peers, and until when
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._turned_away = 0
        self._gave_way = 0
        self._said_s = -_SAY_EVERY_S

    @property
    def open(self) -> int:
        """How many places are taken."""
        return self._strangers + self._inside

    def admit(self, address: str) -> Place | None:
        """A place for a new connection from this address; None where it has to be closed at once.

        May end another connection in its favour.
        """
        peer = self.peer(address)
        if peer is not None and not self.may_ask(peer):
            self._turn_away()
            return None
        is_inside = peer is None or self._is_known(peer)
        if peer is not None and len(self._unnamed.get(peer, ())) >= self._limits.per_peer:
            self._give_way(next(iter(self._unnamed[peer])))
        if peer is None or is_inside:
            if not self._has_room_inside():
                self._turn_away()
                return None
            self._inside += 1
        else:
            self._make_room(peer)
            self._strangers += 1
        place = Place(peer, is_inside=is_inside)
        if peer is not None:
            self._unnamed.setdefault(peer, {})[place] = None
        return place

    def belongs_to(self, place: Place, station: StationId) -> bool:
        """A token of this station was shown on the connection; False where the station has too many already."""
        if place.is_released or place.station == station:
            return not place.is_released
        if self._stations[station] >= self._limits.per_station:
            return False
        if place.station is not None:  # a proxy's connection serves one station after the other
            self._leave(place.station)
        elif not place.is_inside:
            if not self._has_room_inside():
                return False
            self._strangers, self._inside = self._strangers - 1, self._inside + 1
            place.is_inside = True
        self._name(place)
        self._stations[station] += 1
        place.station = station
        if place.peer is not None:
            self._known[place.peer] = self._clock.monotonic_s() + self._limits.known_s
            self._known.move_to_end(place.peer)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return True

    def release(self, place: Place) -> None:
        """The connection is closed, or about to be. Idempotent."""
        if place.is_released:
            return
        place.is_released = True
        self._name(place)
        if place.station is not None:
            self._leave(place.station)
        if place.is_inside:
            self._inside -= 1
        else:
            self._strangers -= 1

    def may_ask(self, peer: str) -> bool:
        """Take one of a peer's connections or requests without a token from what it may have within a time."""
        now_s, factor = self._clock.monotonic_s(), self._limits.known_factor if self._is_known(peer) else 1.0
        most, per_s = self._limits.peer_burst * factor, self._limits.peer_per_s * factor
        budget = self._budgets.get(peer)
        if budget is None:
            budget = self._budgets[peer] = _Budget(most, now_s)
            while len(self._budgets) > _BUDGETS:
                self._budgets.popitem(last=False)
        budget.left = min(most, budget.left + (now_s - budget.at_s) * per_s)
        budget.at_s = now_s
        self._budgets.move_to_end(peer)
        if budget.left < 1:
            return False
        budget.left -= 1
        return True

    def peer(self, address: str) -> str | None:
        """Whose connections are counted together with this address's; None for a trusted proxy's."""
        one = ip_address(address.partition("%")[0])
        if isinstance(one, IPv6Address) and one.ipv4_mapped is not None:
            one = one.ipv4_mapped
        if any(one in network for network in self._limits.proxies):
            return None
        if isinstance(one, IPv6Address):
            return str(IPv6Network((one, 64), strict=False))
        return str(one)

    # --- how

    def _is_known(self, peer: str) -> bool:
        return self._known.get(peer, 0.0) > self._clock.monotonic_s()

    def _has_room_inside(self) -> bool:
        return self._inside < self._limits.connections - self._limits.strangers

    def _make_room(self, peer: str) -> None:
        """Where all is taken, end the oldest stranger of the peer that has most, or of `peer` where none has more."""
        if self._strangers < self._limits.strangers:
            return
        counts = Counter({one: sum(not place.is_inside for place in places) for one, places in self._unnamed.items()})
        most = max(counts, key=lambda one: counts[one])
        if counts[most] <= counts[peer]:
            most = peer
        self._give_way(next(place for place in self._unnamed[most] if not place.is_inside))

    def _give_way(self, place: Place) -> None:
        self._gave_way += 1
        self._say()
        self.release(place)
        place.end()

    def _turn_away(self) -> None:
        self._turned_away += 1
        self._say()

    def _name(self, place: Place) -> None:
        """Count it no more among its peer's that have shown no token."""
        if place.peer is not None and (places := self._unnamed.get(place.peer)) is not None:
            places.pop(place, None)
            if not places:
                del self._unnamed[place.peer]

    def _leave(self, station: StationId) -> None:
        self._stations[station] -= 1
        if not self._stations[station]:
            del self._stations[station]

    def _say(self) -> None:
        """Once a minute at most: who is kept out must not fill the log instead."""
        now_s = self._clock.monotonic_s()
        if now_s - self._said_s < _SAY_EVERY_S:
            return
        self._said_s = now_s
        _log.warning(
            "connections_refused",
            turned_away=self._turned_away,
            gave_way=self._gave_way,
            strangers=self._strangers,
            inside=self._inside,
            peers=len(self._unnamed),
        )


def _nothing() -> None:
    """There is nothing to end yet, or no more."""
