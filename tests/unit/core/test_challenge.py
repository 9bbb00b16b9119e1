"""What a store is asked to show: enough to find out one that lacks bytes, and never more than a receiver answers."""

import hashlib
import random

import pytest

from dockd.core.challenge import MAX_RANGES, MAX_TOTAL_BYTES, RANGE_BYTES, choose_ranges, range_digest


def _random(seed):
    return random.Random(seed).randbytes  # a test wants the same ranges each time


@pytest.mark.parametrize("size", [1, 200, RANGE_BYTES, MAX_TOTAL_BYTES - 1, MAX_TOTAL_BYTES])
def test_all_of_a_small_clip_is_asked_for(size):
    (only,) = choose_ranges(size, _random(1))
    assert (only.offset, only.length) == (0, size)


@pytest.mark.parametrize("size", [MAX_TOTAL_BYTES + 1, 10**6, 10**9, 2**42])
def test_of_a_large_one_the_ends_and_what_lies_anywhere(size):
    found = choose_ranges(size, _random(2))
    assert len(found) == MAX_RANGES
    assert {one.length for one in found} == {RANGE_BYTES}
    assert found[0].offset == 0
    assert found[-1].offset == size - RANGE_BYTES
    assert all(0 <= one.offset <= size - RANGE_BYTES for one in found)
    assert choose_ranges(size, _random(3)) != found


def test_p01_a_store_that_lacks_a_tenth_is_found_out():
    size = 10**8
    lacking = size // 2, size // 2 + size // 10
    caught = sum(
        any(one.offset + one.length > lacking[0] and one.offset < lacking[1] for one in choose_ranges(size, _random(n)))
        for n in range(1000)
    )
    assert caught >= 990


def test_the_answer_is_a_digest_of_nonce_and_bytes():
    assert range_digest(b"n" * 32, b"bytes") == hashlib.sha256(b"n" * 32 + b"bytes").digest()
