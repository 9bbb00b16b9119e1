"""The arithmetic of multipart uploads."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.stores.s3_parts import (
    DEFAULT_PART_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PARTS,
    MIB,
    MIN_PART_BYTES,
    Cut,
    Part,
    composite,
    cut,
)

sizes = st.integers(1, MAX_OBJECT_BYTES)
preferences = st.integers(MIN_PART_BYTES, 64 * MIB)
small_cuts = st.builds(lambda count, part, rest: Cut(size_bytes=(count - 1) * part + rest % part + 1, part_bytes=part),
                       st.integers(1, 40), st.integers(1, 1000), st.integers(0, 10**6))  # fmt: skip


@given(size=sizes, preferred=preferences)
def test_a_cut_is_one_that_s3_takes(size, preferred):
    made = cut(size, preferred)
    assert 1 <= made.count <= MAX_PARTS
    assert made.part_bytes >= preferred >= MIN_PART_BYTES
    assert made.part_bytes * (made.count - 1) < size <= made.part_bytes * made.count
    assert made == cut(size, preferred)


@given(size=sizes)
def test_parts_are_larger_than_wanted_only_where_they_would_be_too_many(size):
    made = cut(size)
    assert made.part_bytes == DEFAULT_PART_BYTES or size > DEFAULT_PART_BYTES * MAX_PARTS


@given(small_cuts)
def test_the_parts_follow_each_other_to_the_end(made):
    offset = 0
    for number in range(1, made.count + 1):
        assert made.number_at(offset) == number
        assert made.stretch(offset) == made.length(number) > 0
        offset += made.length(number)
    assert offset == made.size_bytes
    assert made.number_at(offset) is None
    assert made.stretch(offset) == 0


@given(small_cuts, st.integers(-5, 50_000))
def test_a_stretch_ends_where_a_part_ends(made, offset):
    if 0 <= offset < made.size_bytes:
        end = offset + made.stretch(offset)
        assert offset < end
        assert end == made.size_bytes or end % made.part_bytes == 0
        assert (made.number_at(offset) is None) == (offset % made.part_bytes != 0)
    else:
        assert made.number_at(offset) is None


def _part(made, number, **changes):
    fields = {
        "number": number,
        "size_bytes": made.length(number),
        "etag": f'"{number}"',
        "sha256": bytes([number] * 32),
    }
    return Part(**(fields | changes))


@given(small_cuts, st.data())
def test_only_parts_without_a_gap_count(made, draw):
    there = draw.draw(st.sets(st.integers(1, made.count)))
    whole = made.whole({number: _part(made, number) for number in there}, {})
    first_missing = min(set(range(1, made.count + 2)) - there)
    assert len(whole) == first_missing - 1
    assert made.offset_behind(whole) == sum(made.length(number) for number in range(1, first_missing))


@pytest.mark.parametrize(
    ("listed", "counts"),
    [
        ({}, True),
        ({"size_bytes": 9}, False),
        ({"sha256": bytes(32)}, False),
        ({"sha256": None}, True),  # then the ETag decides
        ({"sha256": None, "etag": '"other"'}, False),
        ({"etag": '"other"'}, True),  # the stronger checksum has decided
    ],
)
def test_a_part_that_is_not_what_was_sent_does_not_count(listed, counts):
    made = Cut(size_bytes=25, part_bytes=10)
    sent = {2: _part(made, 2)}
    whole = made.whole({1: _part(made, 1), 2: _part(made, 2, **listed), 3: _part(made, 3)}, sent)
    assert len(whole) == (3 if counts else 1)
    if counts:
        assert whole[1].sha256 == sent[2].sha256  # known here, even where the store does not list it


def test_parts_beyond_the_end_do_not_count():
    made = Cut(size_bytes=25, part_bytes=10)
    listed = {number: Part(number=number, size_bytes=10, etag="e", sha256=None) for number in range(1, 9)}
    assert len(made.whole(listed, {})) == 2  # the third is 5 bytes long


@pytest.mark.parametrize(("size", "preferred"), [(0, MIN_PART_BYTES), (MAX_OBJECT_BYTES + 1, 64 * MIB), (5, MIB)])
def test_what_s3_does_not_take_is_refused(size, preferred):
    with pytest.raises(ValueError, match="S3"):
        cut(size, preferred)


def test_there_is_no_part_outside_the_cut():
    made = Cut(size_bytes=25, part_bytes=10)
    for number in (0, 4):
        with pytest.raises(ValueError, match="no part"):
            made.length(number)


def test_the_composite_is_the_digest_of_the_digests():
    digests = [hashlib.sha256(bytes([one])).digest() for one in range(3)]
    assert composite(digests) == hashlib.sha256(b"".join(digests)).digest()
