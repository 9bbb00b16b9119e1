"""What a store says that it lost: pages of a list that comes to an end, and counts that agree with each other."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dockd.core import canonical, sshsig
from dockd.core.losses import PAGE, Looking, ToldLoss, build_losses, verify_losses
from dockd.errors import VerificationFailed
from dockd.model import SignedBytes

AT = datetime(2026, 11, 20, tzinfo=UTC)
KEY = sshsig.SigningKey.generate()
STORE, STATION = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
NONCE = bytes(32)
LOOKING = Looking(objects=300, looked=200, oldest=AT, never=50, late=10, unread=3, losses=2, every_s=86400)


def loss(number):
    return ToldLoss(acquisition=f"00000000-0000-7000-8000-{number:012d}", what="changed", found_at=AT)


def told(*numbers, after="", more=False, looking=LOOKING, changes=None):
    payload = build_losses(
        store=STORE,
        station=STATION,
        nonce=NONCE,
        at=AT,
        after=after,
        looking=looking,
        losses=[loss(number) for number in numbers],
        more=more,
    )
    if changes:
        payload = canonical.encode(canonical.decode(payload, type_="losses") | changes)
    signed = SignedBytes(payload=payload, signature=sshsig.sign(KEY, sshsig.LOSSES, payload))
    return verify_losses(signed, store_key=KEY.public, store=STORE, station=STATION, nonce=NONCE, after=after)


def test_what_was_built_is_what_is_read():
    found = told(1, 2, more=True)
    assert (found.at, found.looking, found.losses, found.more) == (AT, LOOKING, (loss(1), loss(2)), True)


@pytest.mark.parametrize(
    ("numbers", "after", "more"),
    [
        ((), "", True),
        ((2, 1), "", False),
        ((1, 1), "", False),
        ((1, 2), loss(1).acquisition, False),
        (tuple(range(PAGE + 1)), "", False),
    ],
    ids=["more, and none here", "backwards", "twice", "what was told before", "more than a page"],
)
def test_p10_a_list_that_does_not_get_on_is_refused(numbers, after, more):
    with pytest.raises(VerificationFailed, match="comes to an end"):
        told(*numbers, after=after, more=more)


@pytest.mark.parametrize(
    "looking",
    [
        replace(LOOKING, looked=251),
        replace(LOOKING, never=101),
        replace(LOOKING, oldest=None),
        replace(LOOKING, looked=0),
    ],
    ids=["more looked at than there is", "more never looked at", "looked at, but when", "when, but none looked at"],
)
def test_p11_counts_that_contradict_each_other_are_refused(looking):
    with pytest.raises(VerificationFailed, match="contradicts itself"):
        told(looking=looking)


@pytest.mark.parametrize("changes", [{"station": STORE}, {"store": STATION}, {"after": "x"}, {"nonce": "11" * 32}])
def test_p11_what_answers_another_question_is_refused(changes):
    with pytest.raises(VerificationFailed):
        told(changes=changes)
