"""Challenges that nobody remembers are good once, for one station at one store, for five minutes."""

import random

import pytest

from dockd.receiver.challenges import LIFE, Challenges, TooManyUsed

STORE, OTHER_STORE = "0190a5c0-0000-4000-8000-00000000000a", "0190a5c0-0000-4000-8000-00000000000b"
ONE, OTHER = "0190a5c0-0000-4000-8000-000000000001", "0190a5c0-0000-4000-8000-000000000002"
LIFE_S = LIFE.total_seconds()


class TurnedClock:
    def __init__(self, at_s=1000.25):
        self.at_s = at_s

    def monotonic_s(self):
        return self.at_s


def made(clock=None, *, store=STORE, seed=0):
    return Challenges(store=store, clock=clock or TurnedClock(), random=random.Random(seed).randbytes)


def test_a_challenge_is_32_bytes_and_good_once():
    challenges = made()
    challenge = challenges.give(ONE)
    assert len(challenge) == 32
    assert challenges.use(ONE, challenge)
    assert not challenges.use(ONE, challenge)


def test_however_many_are_asked_for_the_first_is_still_good_and_nothing_is_kept():
    challenges = made()
    first = challenges.give(ONE)
    assert len({challenges.give(ONE) for _ in range(5000)}) == 5000
    assert not challenges._used
    assert challenges.use(ONE, first)


def test_it_is_no_other_stations_and_no_other_stores():
    challenges, elsewhere = made(), made(store=OTHER_STORE)  # of one key, as the seeds are one
    challenge = challenges.give(ONE)
    assert not challenges.use(OTHER, challenge)
    assert not elsewhere.use(ONE, challenge)
    assert challenges.use(ONE, challenge)


def test_a_restart_ends_it():
    challenge = made(seed=1).give(ONE)
    assert not made(seed=2).use(ONE, challenge)


@pytest.mark.parametrize("started_s", [0.0, 0.999, 86_400.5])
def test_it_ends_after_five_minutes_and_at_most_a_second(started_s):
    clock = TurnedClock(started_s)
    challenges = made(clock)
    clock.at_s += 7.3
    early, late = challenges.give(ONE), challenges.give(ONE)
    clock.at_s += LIFE_S
    assert challenges.use(ONE, early)
    clock.at_s += 1
    assert not challenges.use(ONE, late)


def test_a_changed_bit_anywhere_or_another_length_makes_it_worthless():
    challenges = made()
    challenge = challenges.give(ONE)
    for bit in range(len(challenge) * 8):
        assert not challenges.use(ONE, (int.from_bytes(challenge) ^ 1 << bit).to_bytes(32))
    for wrong in (b"", challenge[:-1], challenge[1:], challenge + b"\0", b"\0" + challenge, challenge[:16]):
        assert not challenges.use(ONE, wrong)
    assert challenges.use(ONE, challenge)


def test_used_ones_are_remembered_until_they_end_and_no_longer():
    clock = TurnedClock()
    challenges = made(clock)
    for _ in range(10):
        given = challenges.give(ONE)
        assert challenges.use(ONE, given)
        for ahead_s in (LIFE_S - 1, 1, 0.5):
            clock.at_s += ahead_s
            assert not challenges.use(ONE, given)
        clock.at_s += 1
    assert challenges.use(OTHER, challenges.give(OTHER))
    assert len(challenges._used) == 1


def test_a_station_that_opens_session_after_session_is_told_to_wait_and_holds_up_nobody_else():
    clock = TurnedClock()
    challenges = made(clock)
    for _ in range(256):
        assert challenges.use(ONE, challenges.give(ONE))
    with pytest.raises(TooManyUsed):
        challenges.use(ONE, challenges.give(ONE))
    assert challenges.use(OTHER, challenges.give(OTHER))
    clock.at_s += LIFE_S + 1
    assert challenges.use(ONE, challenges.give(ONE))
    assert len(challenges._used) == 1
    assert dict(challenges._counts) == {ONE: 1}
