import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core import retention, sshsig
from dockd.core.canonical import digest
from dockd.core.retention import RecordedFrom, Terms, Until, VerifiedPolicy
from dockd.errors import VerificationFailed
from dockd.model import Category, Named, SignedBytes

A = datetime(2026, 3, 1, 12, tzinfo=UTC)
NONE, EVIDENCE = Terms(), Terms(until=Until.ENDED)
CATEGORIES = {"none": NONE, "evidence": EVIDENCE, "Training": Terms(recorded_days=10)}


def promised(docked_after, *, terms=NONE, arrived=A, now=A, stated=True):
    return retention.promise(
        policy=digest(b"policy"),
        category="none",
        terms=terms,
        stated=arrived - docked_after if stated else None,
        arrived=arrived,
        now=now,
    )


@pytest.mark.parametrize(
    ("days", "kept", "late"),
    [(0, 30, False), (10, 20, False), (16, 14, False), (17, 14, True), (20, 14, True), (90, 14, True)],
)
def test_what_is_docked_within_16_days_is_gone_within_31_days_of_its_recording(days, kept, late):
    found = promised(timedelta(days=days))
    assert found.keep_until == A + timedelta(days=kept)
    assert found.delete_by == found.keep_until + timedelta(days=1)
    assert found.rule.recorded_from is RecordedFrom.MANIFEST
    assert retention.is_late(NONE, stated=A - timedelta(days=days), arrived=A) is late
    if not late:
        assert found.delete_by - found.rule.recorded_at <= timedelta(days=31)
    assert retention.trash_from(NONE, found.keep_until) == found.keep_until - timedelta(days=7)


@pytest.mark.parametrize(
    "docked_after", [timedelta(days=90, seconds=1), timedelta(days=100), timedelta(days=16_000), -timedelta(hours=2)]
)
def test_a_start_of_recording_that_cannot_be_is_counted_as_the_arrival(docked_after):
    found = promised(docked_after)
    assert (found.rule.recorded_from, found.rule.recorded_at) == (RecordedFrom.ARRIVAL, A)
    assert found.keep_until == A + timedelta(days=30)
    assert promised(docked_after, stated=False) == found


@pytest.mark.parametrize("docked_after", [timedelta(days=90), -timedelta(hours=1)])
def test_the_ends_of_what_is_believed_belong_to_it(docked_after):
    assert promised(docked_after).rule.recorded_from is RecordedFrom.MANIFEST


def test_what_a_person_ends_has_a_floor_that_moves_with_now_and_no_date():
    found = promised(timedelta(days=1), terms=EVIDENCE)
    assert (found.keep_until, found.delete_by) == (A + timedelta(days=29), None)
    later = promised(timedelta(days=1), terms=EVIDENCE, now=A + timedelta(days=400))
    assert (later.keep_until, later.delete_by) == (A + timedelta(days=414), None)
    assert retention.trash_from(EVIDENCE, later.keep_until) is None


def test_a_category_is_the_name_s_own_only_where_the_clip_is_no_evidence_and_the_policy_knows_it(clip):
    named = Named(started_at=None, local="", time_zone="", sequence="", officer="", category="Training")
    of = retention.category_of
    assert of(clip.manifest(category=Category.EVIDENCE, named=named), CATEGORIES) == "evidence"
    assert of(clip.manifest(category=Category.NONE, named=named), CATEGORIES) == "Training"
    assert (
        of(clip.manifest(category=Category.NONE, named=dataclasses.replace(named, category="?")), CATEGORIES) == "none"
    )
    assert of(clip.manifest(category=Category.NONE, named=None), CATEGORIES) == "none"


_DAYS = st.integers(0, 120)
_TERMS = st.builds(
    Terms, until=st.sampled_from(Until), recorded_days=_DAYS, review_days=st.integers(0, 60), undo_days=_DAYS
)
_MINUTES = st.integers(-60, 90 * 24 * 60)


@given(policy=_TERMS, minimum=_TERMS, docked_after=_MINUTES)
def test_a_policy_that_is_long_enough_keeps_every_clip_as_long_as_the_minimum_asks(policy, minimum, docked_after):
    def kept(terms, minutes):
        at = A - timedelta(minutes=minutes)
        return retention.keep_until(terms, recorded_at=at, arrived=A, now=A)

    if retention.is_enough(policy, minimum):
        assert minimum.until is Until.DATE or policy.until is Until.ENDED
        assert kept(policy, docked_after) >= kept(minimum, docked_after)
    elif minimum.until is Until.DATE or policy.until is Until.ENDED:
        # at one end of what is believed, or the other, the minimum asks for more
        worst = [
            max(terms.after_recording - gap, terms.after_arrival) for terms in (policy, minimum) for gap in _ends()
        ]
        assert worst[0] < worst[2] or worst[1] < worst[3]


def _ends():
    return retention.OLDEST, -retention.NEWEST


def test_a_policy_is_compared_as_the_rule_counts_and_not_number_by_number():
    assert retention.is_enough(Terms(recorded_days=20, review_days=24), NONE)  # A + 31 covers R + 30
    assert not retention.is_enough(Terms(recorded_days=20), NONE)
    assert not retention.is_enough(Terms(recorded_days=200, review_days=0, undo_days=0), Terms(review_days=150))
    assert not retention.is_enough(Terms(recorded_days=3000), EVIDENCE)
    assert retention.is_enough(EVIDENCE, NONE)


def sign_policy(clip, categories=CATEGORIES, **changes):
    wanted = {"store": clip.store, "policy_seq": 3, "at": A}
    payload = retention.build_policy(categories=categories, **(wanted | changes))
    return SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, sshsig.POLICY, payload))


def check(clip, signed):
    return retention.verify_policy(signed, store_key=clip.store_key.public, store=clip.store)


def test_a_policy_says_by_category_how_long_clips_are_kept(clip):
    signed = sign_policy(clip)
    found = check(clip, signed)
    assert (found.policy_seq, found.at, found.categories) == (3, A, CATEGORIES)
    assert found.payload_digest == digest(signed.payload)
    assert found.terms("evidence") == EVIDENCE
    assert found.terms("unheard of") == NONE
    minima = {"none": NONE, "evidence": EVIDENCE, "Training": NONE}
    (short,) = retention.too_short(found, minima)
    assert short.category == "Training"
    assert "10 days from recording" in short.sentence()


def test_p01_a_verified_policy_cannot_be_made(clip):
    with pytest.raises(TypeError):
        VerifiedPolicy(token=object(), store="", policy_seq=1, at=A, categories={}, payload_digest="")
    with pytest.raises((TypeError, ValueError), match="token"):
        dataclasses.replace(check(clip, sign_policy(clip)), policy_seq=9)


@pytest.mark.parametrize("key", [sshsig.RECEIPT, sshsig.HOLDING, sshsig.EXTENSION])
def test_a_policy_is_signed_in_its_own_namespace(clip, key):
    payload = sign_policy(clip).payload
    with pytest.raises(VerificationFailed, match="is for"):
        check(clip, SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, key, payload)))


_ONE = {"until": "date", "recorded_days": 30, "review_days": 7, "undo_days": 7}


@pytest.mark.parametrize(
    "change",
    [
        {"store": "6f1e2d3c-0000-4000-8000-00000000000f"},
        {"policy_seq": 0},
        {"more": 1},
        {"categories": {"none": _ONE}},
        {"categories": {"none": _ONE, "evidence": 1}},
        {"categories": {"none": _ONE, "evidence": _ONE | {"undo_days": 36_501}}},
        {"categories": {"none": _ONE, "evidence": _ONE | {"undo_days": 2**53 - 1}}},
        {"categories": {"none": _ONE, "evidence": _ONE | {"undo_days": -1}}},
        {"categories": {"none": _ONE, "evidence": _ONE | {"until": "never"}}},
        {"categories": {"none": _ONE, "evidence": _ONE | {"more": 1}}},
        {"categories": {"none": _ONE, "evidence": _ONE, "": _ONE}},
        {"categories": {"none": _ONE, "evidence": _ONE, "a\nb": _ONE}},
        {"categories": {"none": _ONE, "evidence": _ONE} | {str(number): _ONE for number in range(256)}},
    ],
)
def test_a_policy_that_cannot_be_is_refused(clip, change):
    payload = json.dumps(json.loads(sign_policy(clip).payload) | change).encode()
    with pytest.raises(VerificationFailed):
        check(clip, SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, sshsig.POLICY, payload)))


def test_a_policy_without_a_rule_for_evidence_is_never_signed(clip):
    with pytest.raises(ValueError, match="evidence"):
        sign_policy(clip, {"none": NONE})
