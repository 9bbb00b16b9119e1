"""The store's side: what it promises, restates and extends."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core import extensions, manifest, promises, retention
from dockd.core.canonical import digest
from dockd.core.promises import NoMore, Offered
from dockd.core.retention import Promise, Terms, Until
from dockd.model import Category

A = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NONE, EVIDENCE = Terms(), Terms(until=Until.ENDED)
POLICY = Offered(policy=digest(b"policy"), categories={"none": NONE, "evidence": EVIDENCE})
MENDED = Offered(policy=digest(b"mended"), categories={"none": Terms(recorded_days=60), "evidence": EVIDENCE})
SHORT = Offered(policy=digest(b"short"), categories={"none": Terms(recorded_days=20), "evidence": EVIDENCE})
DATED = Offered(policy=digest(b"dated"), categories={"none": NONE, "evidence": NONE})


@pytest.fixture
def plain(clip):
    return clip.manifest(category=Category.NONE)


@pytest.fixture
def flagged(clip):
    return clip.manifest(category=Category.EVIDENCE)


def receipt(clip, stated, offered):
    said = offered if not isinstance(offered, Offered) else offered.promise(stated, arrived=clip.now, now=clip.now)
    return promises.read_receipt(clip.sign_receipt(manifest.encode(stated), retention_until=said).payload)


def more(said, offered, stated, now):
    return promises.extended(said, offered, stated, arrived=said.at, now=now)


def test_a_store_reads_back_what_its_receipts_promise(clip, plain):
    said = receipt(clip, plain, POLICY)
    assert (said.at, said.kept_until) == (clip.now, plain.recorded_at + 30 * DAY)
    assert (said.rule.category, said.delete_by) == ("none", plain.recorded_at + 31 * DAY)
    old = receipt(clip, plain, clip.now + 365 * DAY)
    assert (old.at, old.kept_until, old.rule, old.delete_by) == (clip.now, clip.now + 365 * DAY, None, None)


def test_a_store_reads_back_its_extensions(clip, plain):
    content = manifest.encode(plain)
    given = clip.sign_receipt(content, retention_until=POLICY.promise(plain, arrived=clip.now, now=clip.now))
    longer = MENDED.promise(plain, arrived=clip.now, now=clip.now)
    payload = extensions.build_extension(receipt=given.payload, previous=None, at=clip.now, promise=longer)
    said = promises.read_extension(payload)
    assert (said.kept_until, said.rule.policy) == (longer.keep_until, MENDED.policy)


def test_a_mended_policy_extends_what_was_promised_and_no_further(clip, plain):
    now = clip.now + DAY
    said = receipt(clip, plain, SHORT)
    longer = more(said, POLICY, plain, now)
    assert longer == POLICY.promise(plain, arrived=clip.now, now=now)
    assert longer.keep_until == plain.recorded_at + 30 * DAY
    assert more(receipt(clip, plain, POLICY), POLICY, plain, now) is NoMore.NOT_LONGER
    assert more(receipt(clip, plain, MENDED), POLICY, plain, now) is NoMore.NOT_LONGER


def test_p01_a_promise_that_is_over_or_a_clip_in_the_trash_is_not_extended(clip, plain):
    said = receipt(clip, plain, SHORT)
    trash = said.kept_until - 7 * DAY
    assert isinstance(more(said, MENDED, plain, trash - timedelta(seconds=1)), Promise)
    assert more(said, MENDED, plain, trash) is NoMore.OVER
    assert more(said, MENDED, plain, said.kept_until + DAY) is NoMore.OVER


def test_what_an_old_receipt_promises_is_extended_until_that_is_over(clip, plain):
    said = receipt(clip, plain, clip.now + 20 * DAY)
    assert isinstance(more(said, POLICY, plain, said.kept_until - timedelta(seconds=1)), Promise)
    assert more(said, POLICY, plain, said.kept_until) is NoMore.OVER
    assert more(receipt(clip, plain, clip.now + 365 * DAY), POLICY, plain, clip.now) is NoMore.NOT_LONGER


def test_what_a_person_ends_moves_on_and_is_never_over(clip, flagged):
    said = receipt(clip, flagged, POLICY)
    much_later = clip.now + 400 * DAY
    held = promises.restated(said, POLICY, flagged, arrived=clip.now, now=much_later)
    assert (held.kept_until, held.delete_by) == (much_later + 14 * DAY, None)
    assert more(said, POLICY, flagged, much_later).keep_until == much_later + 14 * DAY


def test_what_was_promised_until_a_person_ends_it_stays_so_under_another_policy(clip, flagged):
    said = receipt(clip, flagged, POLICY)
    later = clip.now + 400 * DAY
    held = promises.restated(said, DATED, flagged, arrived=clip.now, now=later)
    assert (held.kept_until, held.is_endless) == (later + 14 * DAY, True)
    assert more(said, DATED, flagged, later) is NoMore.NOT_LONGER


def test_a_date_becomes_what_a_person_ends_by_an_extension_alone(clip, flagged):
    said = receipt(clip, flagged, DATED)
    assert promises.restated(said, POLICY, flagged, arrived=clip.now, now=clip.now + DAY) == said
    longer = more(said, POLICY, flagged, clip.now)
    assert (longer.keep_until, longer.delete_by) == (said.kept_until, None)


def test_an_old_receipt_for_evidence_says_a_date_that_moves_on(clip, flagged, plain):
    said = receipt(clip, flagged, clip.now + 32 * DAY)
    held = promises.restated(said, POLICY, flagged, arrived=clip.now, now=clip.now + 100 * DAY)
    assert (held.kept_until, held.rule) == (clip.now + 114 * DAY, None)
    other = receipt(clip, plain, clip.now + 32 * DAY)
    assert promises.restated(other, POLICY, plain, arrived=clip.now, now=clip.now + 100 * DAY) == other
    assert promises.restated(said, None, flagged, arrived=clip.now, now=clip.now + 100 * DAY) == said


def test_an_older_station_is_told_the_date_alone(clip, plain):
    said = receipt(clip, plain, POLICY)
    assert promises.as_signed(said, ruled=False) == said.kept_until
    assert promises.as_signed(said, ruled=True) == POLICY.promise(plain, arrived=clip.now, now=clip.now)


_TERMS = st.builds(
    Terms,
    until=st.sampled_from(Until),
    recorded_days=st.integers(0, 60),
    review_days=st.integers(0, 20),
    undo_days=st.integers(0, 20),
)


class Stated(Offered):
    """A policy of one category, for a clip of which only the start of recording counts."""

    def promise(self, stated, *, arrived, now):
        (terms,) = self.categories.values()
        return retention.promise(
            policy=self.policy, category="none", terms=terms, stated=stated, arrived=arrived, now=now
        )

    def terms(self, stated):
        del stated
        return self.categories["none"]


@given(was=_TERMS, says=_TERMS, days=st.integers(0, 200), came=st.integers(0, 120))
def test_p01_no_extension_promises_less_or_more_than_the_policy_of_now(was, says, days, came):
    stated, now = A - came * DAY, A + days * DAY
    before, after = (Stated(policy=POLICY.policy, categories={"none": terms}) for terms in (was, says))
    first = before.promise(stated, arrived=A, now=A)
    said = promises.Said(at=A, kept_until=first.keep_until, rule=first.rule, delete_by=first.delete_by)
    found = promises.extended(said, after, stated, arrived=A, now=now)
    if isinstance(found, Promise):
        assert found == after.promise(stated, arrived=A, now=now)
        assert found.keep_until >= said.kept_until
        assert not said.is_endless or found.rule.until is Until.ENDED
        assert said.is_endless or now < said.kept_until
    elif found is NoMore.OVER:
        assert now >= said.kept_until - says.undo_days * DAY
