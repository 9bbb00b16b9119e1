"""One function says what the word of a store is worth; and by how much of an object it is shown to be there."""

import random
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise, product

import pytest

from dockd.core.findings import Answer, Finding, Question
from dockd.core.policy import PolicyStore
from dockd.core.proof import (
    CHUNK_BYTES,
    CHUNKS,
    SAMPLED,
    WHOLE_BYTES,
    Needs,
    believes_checksum,
    choose_chunks,
    is_whole,
    least_shown,
    weigh,
)

KEEPER = PolicyStore(store="k", name="keeper", place="s3 somewhere", min_retention=timedelta(days=31))
FREE = PolicyStore(store="f", name="free", place="tus somewhere")
WEIGHED = (Question.WRONG_CHECKSUM, Question.CHECKSUM_BACK, Question.READ_BACK, Question.LOCKED)
Y, N, U = Answer.YES, Answer.NO, Answer.UNKNOWN


def findings(answers):
    """None: the question was not even asked."""
    return tuple(
        Finding(question=question, answer=answer, claimed=None, detail="tried")
        for question, answer in answers.items()
        if answer is not None
    )


@pytest.mark.parametrize("answers", list(product([Y, N, U, None], repeat=4)))
@pytest.mark.parametrize("store", [KEEPER, FREE])
def test_p01_the_verdict_rests_on_what_was_shown_alone(store, answers):
    wrong, back, read, locked = answers
    verdict = weigh(store, findings(dict(zip(WEIGHED, answers, strict=True))), signs=False)
    assert verdict.needs is (Needs.CHECKSUM if (wrong, back) == (Y, Y) else Needs.BYTES)
    asks_lock = store is KEEPER
    assert len(verdict.cannot) == (read is N) + (asks_lock and locked is N)
    assert len(verdict.untried) == (asks_lock and locked in (U, None))
    assert bool(verdict.held) == (read is N or (asks_lock and locked is not Y))
    assert any("Not tried yet: whether it gives bytes back" in one for one in verdict.said) == (read in (U, None))


def test_p01_a_question_that_failed_later_leaves_what_was_known():
    known = findings(dict.fromkeys(WEIGHED, Y))
    assert weigh(KEEPER, (*known, *findings(dict.fromkeys(WEIGHED, U))), signs=False).held == ()
    assert believes_checksum((*known, *findings({Question.CHECKSUM_BACK: U})))
    assert not believes_checksum((*known, *findings({Question.CHECKSUM_BACK: N})))


def test_a_store_that_signs_is_judged_by_its_signatures():
    verdict = weigh(PolicyStore(store="a", name="archive", min_retention=timedelta(days=31)), (), signs=True)
    assert (verdict.needs, verdict.held) == (Needs.STATEMENT, ())


SIZES = [
    (size, needs)
    for needs, whole in ((Needs.BYTES, WHOLE_BYTES), (Needs.CHECKSUM, SAMPLED * CHUNK_BYTES))
    for size in (1, whole, whole + 1, whole + CHUNK_BYTES, whole + CHUNK_BYTES + 1, 4 << 30, (1 << 40) + 12345)
]


@pytest.mark.parametrize(("size", "needs"), SIZES)
def test_p01_one_chunk_of_each_stretch_is_read_back_with_the_ends(size, needs):
    chosen = choose_chunks(size, needs, random.Random(size).randbytes)
    assert sum(one.length for one in chosen) == least_shown(size, needs)
    assert chosen[0].offset == 0
    assert chosen[-1].offset + chosen[-1].length == size
    if is_whole(size, needs):
        assert len(chosen) == 1
        return
    assert len(chosen) == (CHUNKS if needs is Needs.BYTES else SAMPLED)
    assert all(one.offset % CHUNK_BYTES == 0 and one.length == CHUNK_BYTES for one in chosen[:-1])
    stretch = Fraction(size, len(chosen) - 2)
    # Damage as long as two stretches lies between no two that follow each other.
    assert all(0 < after.offset - before.offset <= 2 * stretch + CHUNK_BYTES for before, after in pairwise(chosen))
    other = choose_chunks(size, needs, random.Random(size + 1).randbytes)
    assert len(chosen) <= 16 or other != chosen


def test_p01_each_chunk_of_a_stretch_is_chosen_alike():
    size = WHOLE_BYTES + 2 * CHUNK_BYTES  # stretches of four chunks, and some of five
    seen = {0: 0}
    for seed in range(200):
        for one in choose_chunks(size, Needs.BYTES, random.Random(seed).randbytes):
            seen[one.offset // CHUNK_BYTES] = seen.get(one.offset // CHUNK_BYTES, 0) + 1
    assert sorted(seen) == list(range((size - 1) // CHUNK_BYTES + 1))
    inner = [count for chunk, count in seen.items() if 0 < chunk < (size - 1) // CHUNK_BYTES]
    assert min(inner) > 200 / 5 * 0.4
    assert max(inner) < 200 / 4 * 1.8


@pytest.mark.parametrize(("share", "missed"), [(0.01, 0.08), (0.02, 0.006), (0.05, 3e-6)])
def test_the_documents_say_what_damage_is_missed(share, missed):
    assert (1 - share) ** (CHUNKS - 2) < missed
