"""Places for connections: shared by peer among strangers, kept for stations, and given back."""

import random
from collections import Counter
from ipaddress import ip_network

import pytest

from dockd.receiver.connections import Connections
from dockd.receiver.settings import Limits

ONE, OTHER = "0190a5c0-0000-4000-8000-000000000001", "0190a5c0-0000-4000-8000-000000000002"
ROOMY = {"peer_burst": 1e9, "peer_per_s": 1.0}


class TurnedClock:
    def __init__(self):
        self.at_s = 5.0

    def monotonic_s(self):
        return self.at_s


@pytest.fixture
def clock():
    return TurnedClock()


class Doors:
    """Connections with a list of those that were ended from inside."""

    def __init__(self, clock, **limits):
        self.places = Connections(Limits(**(ROOMY | limits)), clock)
        self.ended = []

    def admit(self, address):
        place = self.places.admit(address)
        if place is not None:
            place.end = lambda: self.ended.append(place)
        return place


def test_strangers_of_one_peer_give_way_to_each_other_and_to_nobody_else(clock):
    doors = Doors(clock, connections=100, strangers=50, per_peer=3)
    other = doors.admit("10.0.0.2")
    mine = [doors.admit("10.0.0.1") for _ in range(5)]
    assert doors.ended == mine[:2]
    assert not other.is_released
    assert doors.places.open == 4


def test_one_peer_gets_in_however_many_others_hold_all_places(clock):
    doors = Doors(clock, connections=100, strangers=20, per_peer=10)
    crowd = [doors.admit(f"10.0.0.{1 + number % 4}") for number in range(40)]
    assert doors.places.open == 20
    late = doors.admit("10.9.9.9")
    assert late is not None
    assert doors.places.open == 20
    again = [doors.admit(f"10.0.0.{1 + number % 4}") for number in range(100)]
    assert not late.is_released  # whoever has one gives way to nobody who has more
    assert all(place in crowd + again for place in doors.ended)


def test_a_peer_that_has_as_many_as_any_other_takes_its_own_oldest_place(clock):
    doors = Doors(clock, connections=100, strangers=4, per_peer=3)
    for _ in range(2):
        doors.admit("10.0.0.1")
    mine = [doors.admit("10.0.0.2") for _ in range(3)]
    assert doors.ended == mine[:1]


def test_where_every_peer_has_one_a_new_one_takes_the_oldests(clock):
    doors = Doors(clock, connections=100, strangers=4, per_peer=2)
    held = [doors.admit(f"10.0.0.{number}") for number in range(4)]
    assert doors.admit("10.0.1.1") is not None
    assert doors.ended == held[:1]


def test_a_station_that_showed_its_token_never_gives_way(clock):
    doors = Doors(clock, connections=10, strangers=4, per_peer=2)
    mine = doors.admit("10.0.0.1")
    assert doors.places.belongs_to(mine, ONE)
    for number in range(200):
        doors.admit(f"10.0.{number % 3}.{number % 50}")
    assert not mine.is_released


def test_peers_of_stations_have_places_that_strangers_cannot_take(clock):
    doors = Doors(clock, connections=6, strangers=4, per_peer=3, known_s=60)
    known = doors.admit("10.0.0.1")
    doors.places.belongs_to(known, ONE)
    doors.places.release(known)
    crowd = [doors.admit(f"10.1.0.{number}") for number in range(4)]  # as many peers as places
    assert doors.admit("10.0.0.1") is not None
    assert not doors.ended
    assert doors.admit("10.0.0.1") is not None
    assert not doors.ended
    clock.at_s += 61  # by then it is a stranger like all others
    doors.places.release(crowd[3])
    assert doors.admit("10.0.0.1") is not None
    assert doors.places.open == 6


def test_a_station_has_so_many_connections_and_others_are_not_touched(clock):
    doors = Doors(clock, connections=100, strangers=50, per_peer=10, per_station=3)
    mine = [doors.admit("10.0.0.1") for _ in range(4)]
    assert [doors.places.belongs_to(one, ONE) for one in mine] == [True, True, True, False]
    assert doors.places.belongs_to(mine[0], ONE)  # it is its already
    assert doors.places.belongs_to(mine[3], OTHER)
    doors.places.release(mine[1])
    assert doors.places.belongs_to(doors.admit("10.0.0.1"), ONE)


def test_stations_have_no_more_than_all_places(clock):
    doors = Doors(clock, connections=3, strangers=2, per_peer=10, per_station=10)
    first, second = doors.admit("10.0.0.1"), doors.admit("10.0.0.2")
    assert doors.places.belongs_to(first, ONE)
    assert not doors.places.belongs_to(second, OTHER)
    assert doors.admit("10.0.0.1") is None  # a known peer, but no place is left for those
    assert not doors.places.belongs_to(second, OTHER)
    doors.places.release(first)
    assert doors.places.belongs_to(second, OTHER)


def test_a_released_place_belongs_to_nobody(clock):
    doors = Doors(clock)
    gone = doors.admit("10.0.0.1")
    doors.places.release(gone)
    doors.places.release(gone)
    assert not doors.places.belongs_to(gone, ONE)
    assert doors.places.open == 0


def test_what_a_peer_may_ask_without_a_token_comes_back_with_time(clock):
    doors = Doors(clock, peer_burst=5, peer_per_s=2)
    assert [doors.places.may_ask("10.0.0.1") for _ in range(6)] == [True] * 5 + [False]
    assert doors.admit("10.0.0.1") is None
    assert doors.admit("10.0.0.2") is not None
    clock.at_s += 1
    assert [doors.places.may_ask("10.0.0.1") for _ in range(3)] == [True, True, False]
    clock.at_s += 1000
    assert [doors.places.may_ask("10.0.0.1") for _ in range(6)] == [True] * 5 + [False]


def test_a_peer_of_a_station_may_ask_more(clock):
    doors = Doors(clock, peer_burst=5, peer_per_s=2, known_factor=3)
    doors.places.belongs_to(doors.admit("10.0.0.1"), ONE)
    clock.at_s += 1000
    for address, most in (("10.0.0.1", 15), ("10.0.0.2", 5)):
        assert [doors.places.may_ask(address) for _ in range(20)] == [True] * most + [False] * (20 - most)
    clock.at_s += 1
    assert [doors.places.may_ask("10.0.0.1") for _ in range(7)] == [True] * 6 + [False]


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::7", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("192.0.2.7", None),
        ("::ffff:192.0.2.7", None),
    ],
)
def test_who_counts_as_one_peer(clock, address, peer):
    places = Connections(Limits(proxies=(ip_network("192.0.2.0/24"),)), clock)
    assert places.peer(address) == peer


def test_a_trusted_proxy_is_no_peer_and_its_connections_serve_many_stations(clock):
    limits = {"connections": 30, "strangers": 10, "per_peer": 2, "per_station": 2, "peer_burst": 1}
    doors = Doors(clock, proxies=(ip_network("192.0.2.7/32"),), **limits)
    held = [doors.admit("192.0.2.7") for _ in range(20)]
    assert None not in held
    assert doors.admit("192.0.2.7") is None  # what is left is for strangers
    for place in held:
        assert doors.places.belongs_to(place, ONE) == (place in held[:2])
    assert doors.places.belongs_to(held[0], OTHER)
    assert doors.places.belongs_to(held[5], ONE)


def test_tables_of_peers_have_bounds(clock):
    doors = Doors(clock, connections=10_000, strangers=2, per_peer=2, per_station=10_000)
    for number in range(5000):
        place = doors.admit(f"10.0.{number // 256}.{number % 256}")
        doors.places.belongs_to(place, ONE)
        doors.places.release(place)
    assert len(doors.places._budgets) == len(doors.places._known) == 4096
    assert not doors.places._unnamed
    assert not doors.places._stations


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_the_counts_are_those_of_the_places_that_are_open(clock, seed):
    chance = random.Random(seed)
    limits = {"connections": 12, "strangers": 5, "per_peer": 3, "per_station": 3, "known_s": 20}
    doors = Doors(clock, proxies=(ip_network("10.0.0.9/32"),), **limits)
    places, held = doors.places, []
    for _ in range(400):
        clock.at_s += chance.random() * 5
        match chance.randrange(3):
            case 0:
                place = doors.admit(f"10.0.0.{chance.randrange(4, 10)}")
                held += [place] if place is not None else []
            case 1 if held:
                places.belongs_to(chance.choice(held), chance.choice([ONE, OTHER]))
            case 2 if held:
                places.release(held.pop(chance.randrange(len(held))))
        held = [place for place in held if not place.is_released]
        assert places._strangers == sum(not place.is_inside for place in held) <= limits["strangers"]
        assert places._inside == sum(place.is_inside for place in held) <= limits["connections"] - limits["strangers"]
        assert places._stations == Counter(place.station for place in held if place.station is not None)
        assert max(places._stations.values(), default=0) <= limits["per_station"]
        unnamed = [place for place in held if place.station is None and place.peer is not None]
        assert sorted(map(id, unnamed)) == sorted(id(place) for of in places._unnamed.values() for place in of)
        assert all(len(of) <= limits["per_peer"] for of in places._unnamed.values())
