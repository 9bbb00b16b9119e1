"""How a store is treated, and whose upload begins next: what holds whatever comes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dockd.core.backoff import Backoff
from dockd.core.manners import BUSY_IS_OUT_S, Manners
from dockd.core.places import Places, Rank

AT = datetime(2026, 11, 21, tzinfo=UTC)
STORES = ("a", "b", "c")


def _rank(*, ordinary, outstanding=0.0, minutes=0):
    return Rank(ordinary=ordinary, outstanding_bytes=outstanding, found_at=AT + timedelta(minutes=minutes))


ranks = st.builds(
    _rank, ordinary=st.booleans(), outstanding=st.sampled_from([0.0, 10.0, float("inf")]), minutes=st.integers(0, 5)
)


class PlacesMachine(RuleBasedStateMachine):
    """Three uplinks that ask, change their minds and end, as told by what they hear."""

    def __init__(self):
        super().__init__()
        self.places = Places(most=3)
        self.wants = {}
        self.under_way = []  # ranks
        self.told = set()
        self.asked = {}  # what the places know of
        for store in STORES:
            self.places.subscribe(lambda store=store: self.told.add(store))

    @rule(store=st.sampled_from(STORES), rank=ranks)
    def wish(self, store, rank):
        self.wants[store] = rank
        self.told.add(store)  # its own queue changed

    @rule(store=st.sampled_from(STORES))
    def change_of_mind(self, store):
        self.wants.pop(store, None)
        self.told.add(store)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def end(self, data):
        self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.places.leave()

    @rule(most=st.integers(1, 5))
    def adjust(self, most):
        self.places.adjust(most)

    @rule(order=st.permutations(STORES))
    def everybody_looks(self, order):
        """Each that was told asks, or withdraws, until nobody is told any more: as the uplinks do."""
        while self.told:
            store = next(one for one in order if one in self.told)
            self.told.discard(store)
            rank = self.wants.get(store)
            self.asked.pop(store, None)
            if rank is None:
                self.places.withdraw(store)
                continue
            ahead = [one for one in self.asked.values() if one < rank]
            if not self.places.ask(store, rank):
                self.asked[store] = rank
            else:
                most = self.places.most
                assert len(self.under_way) + len(ahead) < most
                if rank.ordinary and most > 1:
                    assert len(self.under_way) < most - 1, "the last place is kept for evidence"
                self.under_way.append(rank)
                del self.wants[store]
                self.told.add(store)
        for rank in self.wants.values():
            assert not self._fits(rank), "a place is free, and nobody better wants it"

    def _fits(self, rank):
        kept = 1 if rank.ordinary and self.places.most > 1 else 0
        return len(self.under_way) < self.places.most - kept

    @invariant()
    def counts(self):
        assert self.places.taken == len(self.under_way)


PlacesMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPlaces = PlacesMachine.TestCase


def test_places_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Places(most=0)
    with pytest.raises(ValueError, match="no upload"):
        Places(most=1).leave()


def test_flagged_evidence_then_what_frees_a_bay_soonest_then_the_oldest():
    flagged = _rank(ordinary=False, outstanding=float("inf"), minutes=5)
    soon = _rank(ordinary=True, outstanding=1.0, minutes=5)
    late = _rank(ordinary=True, outstanding=2.0, minutes=0)
    gone_old = _rank(ordinary=True, outstanding=float("inf"), minutes=0)
    gone_new = _rank(ordinary=True, outstanding=float("inf"), minutes=1)
    assert sorted([gone_new, gone_old, late, soon, flagged]) == [flagged, soon, late, gone_old, gone_new]


# --- manners


def _manners(slots=4, drawn=0x80):
    return Manners(slots=slots, random=lambda count: bytes([drawn]) * count, backoff=Backoff())


class MannersMachine(RuleBasedStateMachine):
    """A store gets no more than it bears, gets the waits that it asks for, and is never forgotten."""

    def __init__(self):
        super().__init__()
        self.manners, self.now_s, self.begun, self.bidden_until_s = _manners(), 0.0, [], 0.0

    def left_s(self, *, flagged):
        return self.manners.left_s(self.now_s, under_way=len(self.begun), flagged=flagged)

    @rule(flagged=st.booleans())
    def begin(self, flagged):
        if self.left_s(flagged=flagged) == 0.0:
            assert self.now_s >= self.bidden_until_s, "a store that asked for a wait gets it"
            assert len(self.begun) <= self.manners.limit - (0 if flagged else 1)
            self.begun.append(self.manners.begin(self.now_s, again=False))
            assert sum(one.probe for one in self.begun) <= 1

    @rule(sent=st.booleans())
    def answered(self, sent):
        self.manners.answered(self.now_s)
        assert not self.manners.is_out
        if sent:
            self.manners.sent()
            self.bidden_until_s = 0.0

    @rule(by_upload=st.booleans())
    def failed(self, by_upload):
        """An upload ends with its failure; what is asked beside uploads may fail, too."""
        begun = self.begun.pop(0) if by_upload and self.begun else None
        self.manners.failed(self.now_s, begun=begun)
        if begun is not None:
            self.manners.ended(begun)

    @precondition(lambda self: self.begun)
    @rule(wait_s=st.one_of(st.none(), st.floats(0, 100)))
    def pushed_back(self, wait_s):
        before = self.manners.limit
        self.manners.pushed_back(self.now_s, begun=self.begun[0], retry_after_s=wait_s)
        assert self.manners.limit <= before
        self.bidden_until_s = max(self.bidden_until_s, self.now_s + (wait_s or 0.0))

    @precondition(lambda self: self.begun)
    @rule()
    def end(self):
        self.manners.ended(self.begun.pop(0))

    @rule()
    def hasten(self):
        self.manners.hasten()

    @rule(seconds=st.one_of(st.none(), st.floats(0, 100)))
    def wait(self, seconds):
        self.now_s += (self.left_s(flagged=True) or 0.0) if seconds is None else seconds

    @invariant()
    def bounds(self):
        assert 1 <= self.manners.limit <= 4
        evidence_s, other_s = self.left_s(flagged=True), self.left_s(flagged=False)
        if not self.begun:
            assert evidence_s is not None, "nothing is under way that could end"
            assert other_s is not None
        if other_s is not None:
            assert evidence_s is not None
            assert evidence_s <= other_s, "evidence never waits for longer"

    def teardown(self):
        while self.begun:
            self.end()
        for flagged in (True, False):
            left_s = self.left_s(flagged=flagged)
            then_s = self.manners.left_s(self.now_s + left_s + 1e-6, under_way=0, flagged=flagged)
            assert then_s == 0.0, "it can always be tried again"


MannersMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestManners = MannersMachine.TestCase


def test_a_busy_store_opens_no_breaker_and_costs_no_retry_but_gets_half():
    manners = _manners()
    begun = [manners.begin(0.0, again=False) for _ in range(4)]
    for one in begun:
        assert not manners.pushed_back(0.0, begun=one, retry_after_s=10.0)
        manners.ended(one)
    assert not manners.open
    assert not manners.is_out
    assert manners.limit == 2
    assert manners.retry_left_s(0.0) == 0.0
    assert manners.left_s(0.0, under_way=0, flagged=True) >= 10.0
    manners.hasten()
    assert manners.left_s(0.0, under_way=0, flagged=True) >= 10.0
    assert manners.left_s(90.0, under_way=0, flagged=False) == 0.0


def test_a_store_that_only_pushes_back_for_a_minute_is_out_of_reach():
    manners = _manners()
    assert not manners.pushed_back(0.0)
    assert not manners.pushed_back(BUSY_IS_OUT_S - 1)
    assert manners.pushed_back(BUSY_IS_OUT_S)
    assert manners.out_for_s(BUSY_IS_OUT_S + 5) == BUSY_IS_OUT_S + 5
    assert not manners.pushed_back(BUSY_IS_OUT_S + 6), "it is told once"
    assert manners.answered(BUSY_IS_OUT_S + 7)
    assert not manners.is_out


def test_after_an_outage_one_goes_at_a_time_until_the_spread_is_over_and_evidence_beside_it():
    manners = _manners()
    for at_s in (0.0, 1.0, 2.0):
        manners.failed(at_s)
    assert manners.is_out
    assert manners.answered(102.0)
    assert manners.spread_left_s(102.0) == pytest.approx(50.2, abs=0.1)  # evenly over as long as it lasted
    assert manners.limit == 1
    for _ in range(20):
        manners.sent()
    assert manners.limit == 4
    assert manners.left_s(103.0, under_way=0, flagged=False) == 0.0
    assert manners.left_s(103.0, under_way=1, flagged=False) == pytest.approx(49.2, abs=0.1)
    assert manners.left_s(103.0, under_way=1, flagged=True) == 0.0
    assert manners.left_s(153.0, under_way=1, flagged=False) == 0.0


def test_a_store_that_only_restarted_bears_what_it_bore():
    manners = _manners()
    for at_s in (0.0, 1.0, 2.0):
        manners.failed(at_s)
    assert manners.answered(6.0)
    assert manners.limit == 4
    assert manners.spread_left_s(6.0) == pytest.approx(2.0, abs=0.1)


def test_after_an_outage_of_the_station_nothing_but_evidence_goes_out_for_a_while():
    manners = _manners()
    manners.quiet_for(30.0, 1000.0)
    assert manners.left_s(1000.0, under_way=0, flagged=False) == 30.0
    assert manners.left_s(1000.0, under_way=0, flagged=True) == 0.0
    assert manners.left_s(1030.0, under_way=0, flagged=False) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["good", "bad"]), st.floats(0, 30)), max_size=300))
def test_retries_are_a_tenth_of_requests_beside_ten_to_begin_with_and_two_a_minute(events):
    manners, now_s, requests, retries = _manners(), 0.0, 0, 0
    for event, pause_s in events:
        now_s += pause_s
        if event == "good":
            manners.answered(now_s)
            requests += 1
        elif manners.retry_left_s(now_s) == 0.0:
            manners.ended(manners.begin(now_s, again=True))
            retries += 1
        assert retries <= 10 + requests / 10 + 1e-6 + now_s / 30.0 + 1
