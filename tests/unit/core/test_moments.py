"""P01: what a warrant rests on holds from one moment to another, and `now` is moved over all of them, both ways."""

import dataclasses
from datetime import timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.warrant import HOLDING_FRESH, issue, require_standing
from dockd.errors import WarrantRefused

DAY, SECOND, MS = timedelta(days=1), timedelta(seconds=1), timedelta(milliseconds=1)
MARGIN, LEAST = 5 * DAY, 30 * DAY
MOVES = st.one_of(
    st.integers(-800, 800).map(lambda days: days * DAY),
    st.integers(-700, 700).map(lambda seconds: seconds * SECOND),
    st.sampled_from([timedelta(0), MS, -MS, HOLDING_FRESH, HOLDING_FRESH + MS, HOLDING_FRESH - MS]),
)
PROMISES = st.one_of(
    st.integers(-500, 500).map(lambda days: days * DAY),
    st.sampled_from([MARGIN, MARGIN - MS, MARGIN + MS, MARGIN + HOLDING_FRESH, MARGIN + HOLDING_FRESH - MS]),
)
AGES = st.integers(0, 1000).map(lambda days: days * DAY)


def granted(act, *arguments, **named):
    try:
        act(*arguments, **named)
    except WarrantRefused:
        return False
    return True


def arguments(clip, confirmation, store, moved):
    policy = StorePolicy([PolicyStore(store=store, name="one", min_retention=LEAST)], margin=MARGIN)
    return clip.case() | {"confirmations": [confirmation], "policy": policy, "now": clip.now + moved}


def signing(clip, given_ago, kept, kept_now):
    receipt = clip.receipt(at=clip.now - given_ago, retention_until=clip.now + kept)
    return clip.signed(receipt=receipt, holding=clip.holding(retention_until=clip.now + kept_now)), clip.store


def keeping(clip, given_ago, kept, kept_now):
    """A lock that was made longer since; one that was made shorter is no presence at all."""
    objects = clip.objects(at=clip.now - given_ago, states=clip.states(retention_until=clip.now + kept))
    states = clip.states(retention_until=clip.now + max(kept, kept_now))
    return clip.looked_at(objects=objects, states=states), clip.objects_store


@given(st.sampled_from([signing, keeping]), st.tuples(AGES, PROMISES, PROMISES), MOVES)
@example(signing, (800 * DAY, -365 * DAY, 365 * DAY), SECOND)
@example(keeping, (500 * DAY, -1 * DAY, -1 * DAY), SECOND)
@example(signing, (DAY, 300 * DAY, 300 * DAY), -SECOND)
@example(keeping, (DAY, 300 * DAY, 300 * DAY), HOLDING_FRESH + MS)
def test_p01_a_warrant_is_a_matter_of_the_evidence_and_of_now(clip, kind, promise, moved):
    given_ago, kept, kept_now = promise
    confirmation, store = kind(clip, given_ago, kept, kept_now)
    until = min(kept, kept_now) if kind is signing else max(kept, kept_now)
    long_enough = until + given_ago >= LEAST
    fresh, reaches = timedelta(0) <= moved <= HOLDING_FRESH, until - moved >= MARGIN
    assert granted(issue, **arguments(clip, confirmation, store, moved)) == (long_enough and fresh and reaches)


@given(st.sampled_from([signing, keeping]), PROMISES, st.integers(0, 300), MOVES)
@example(signing, MARGIN + HOLDING_FRESH - MS, 0, HOLDING_FRESH)
@example(keeping, MARGIN + HOLDING_FRESH - MS, 0, HOLDING_FRESH)
@example(signing, 300 * DAY, 10, -SECOND)
@example(keeping, 300 * DAY, 10, HOLDING_FRESH + MS)
def test_p01_a_warrant_stands_at_the_moments_at_which_it_would_be_issued(clip, kind, kept, seconds, moved):
    confirmation, store = kind(clip, 900 * DAY, kept, kept)
    issued_at = arguments(clip, confirmation, store, seconds * SECOND)
    if not granted(issue, **issued_at):
        return
    warrant = issue(**issued_at)
    assert granted(require_standing, warrant, clip.now + moved) == granted(
        issue, **arguments(clip, confirmation, store, moved)
    )


def test_p01_of_several_grounds_the_first_to_lapse_counts(clip):
    early = dataclasses.replace(clip.looked_at(), asked_at=clip.now - 2 * SECOND)
    stores = [PolicyStore(store=clip.store, name="a"), PolicyStore(store=clip.objects_store, name="b")]
    warrant = issue(**clip.case() | {"confirmations": [clip.signed(), early], "policy": StorePolicy(stores)})
    assert (warrant.since, warrant.until) == (clip.now, clip.now - 2 * SECOND + HOLDING_FRESH)
