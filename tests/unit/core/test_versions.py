import pytest

from dockd.core import versions
from dockd.errors import VerificationFailed


def test_the_highest_version_that_both_know_counts():
    assert versions.choose(versions.KNOWN) == {"receipt": 3, "holding": 3, "policy": 1, "extension": 1}
    assert versions.choose({"receipt": (1, 2), "holding": (9,), "letter": (1,)}) == {"receipt": 2}
    assert versions.choose({}) == {}


def test_what_a_later_peer_knows_beyond_this_one_is_no_fault():
    said = versions.record() | {"receipt": [3, 4], "letter": [1]}
    assert versions.choose(versions.take(said))["receipt"] == 3


@pytest.mark.parametrize(
    "said", [None, [], {"receipt": 3}, {"receipt": []}, {"receipt": [0]}, {"receipt": [True]}, {"receipt": ["1"]}]
)
def test_what_is_no_list_of_versions_is_refused(said):
    with pytest.raises(VerificationFailed):
        versions.take(said)


def test_a_peer_cannot_name_kinds_without_end():
    with pytest.raises(VerificationFailed):
        versions.take({str(kind): [1] for kind in range(33)})
    with pytest.raises(VerificationFailed):
        versions.take({"receipt": list(range(1, 34))})


@pytest.mark.parametrize("said", [None, {"receipt": 4}, {"receipt": True}, {"letter": 1}])
def test_a_store_cannot_choose_what_was_not_accepted(said):
    with pytest.raises(VerificationFailed):
        versions.take_chosen(said)
    assert versions.take_chosen({"receipt": 3}) == {"receipt": 3}
