"""How large a PATCH gets behind proxies of every kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.patch_size import MIN_PATCH_BYTES, PatchSize

MIB = 1 << 20
LIMIT = 64 * MIB


def _push(patch, total, *, least, keeps):
    """Push `total` bytes past a proxy that takes up to `least` a PATCH; what goes out, and in how many PATCHes."""
    sent = patches = offset = 0
    while offset < total:
        length = min(patch.bytes, total - offset)
        patches += 1
        if length <= least:
            sent, offset = sent + length, offset + length
            patch.arrived(length)
        elif keeps:
            sent, offset = sent + least, offset + least
            patch.cut(length, least)
        else:
            sent += least
            patch.refused(length)
        assert min(LIMIT, MIN_PATCH_BYTES) <= patch.bytes <= LIMIT
    return sent, patches


@given(st.integers(MIN_PATCH_BYTES, 200 * MIB), st.booleans())
def test_whatever_a_proxy_lets_through_a_clip_arrives_and_little_is_sent_twice(least, keeps):
    patch = PatchSize(LIMIT)
    _push(patch, 256 * MIB, least=least, keeps=keeps)  # learns
    sent, patches = _push(patch, 4096 * MIB, least=least, keeps=keeps)
    assert sent <= 4096 * MIB * 1.15
    assert patches <= 4 * 4096 * MIB / min(least, LIMIT) + 8


@pytest.mark.parametrize(("least", "tries"), [(64 * MIB, 1), (MIB, 4), (MIN_PATCH_BYTES, 5)])
def test_a_limit_is_found_within_a_few_requests(least, tries):
    patch, made = PatchSize(LIMIT), 1
    while patch.bytes > least:
        made += 1
        assert patch.refused(patch.bytes)
    assert made == tries


@given(st.lists(st.one_of(st.none(), st.integers(0, LIMIT)), max_size=200), st.integers(1, LIMIT))
def test_the_size_stays_within_its_bounds_and_one_cause_shrinks_it_once(events, limit):
    patch = PatchSize(limit)
    for arrived in events:
        before = patch.bytes
        if arrived is None:
            patch.arrived(before)
            assert before <= patch.bytes <= min(limit, before * 2)
            continue
        smaller = patch.cut(before, arrived) if arrived else patch.refused(before)
        assert smaller == (patch.bytes < before)
        assert not (patch.cut(before, arrived) if arrived else patch.refused(before)), "another upload met the same"
        assert min(MIN_PATCH_BYTES, limit) <= patch.bytes <= before


def test_after_one_broken_connection_it_soon_is_as_large_as_before():
    patch = PatchSize(LIMIT)
    patch.cut(LIMIT, 100_000)
    assert patch.bytes == MIN_PATCH_BYTES
    made = 0
    while patch.bytes < LIMIT:
        patch.arrived(patch.bytes)
        made += 1
    assert made <= 20
    patch.arrived(MIB)  # the end of a clip
    assert patch.bytes == LIMIT


def test_the_more_often_it_failed_the_longer_it_waits_before_more_is_tried():
    patch, waits = PatchSize(LIMIT), []
    for _ in range(8):
        patch.refused(16 * MIB)
        made = 0
        while patch.bytes < 16 * MIB:
            patch.arrived(patch.bytes)
            made += 1
        waits.append(made)
    assert waits == sorted(waits)
    assert waits[-1] == 2 * 64


def test_a_patch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least"):
        PatchSize(0)
