"""The two writes that everything rests on, failing at each of their times in the way of two clips."""

from __future__ import annotations

import pytest

from dockd.faultpoints import Kind, Point

pytestmark = pytest.mark.soak

TIMES = range(1, 28)  # a run has about forty transactions; how the last ones fall differs


def pairs_of(point, kind, number):
    return [(point, kind, number)]


@pytest.mark.parametrize("number", TIMES)
@pytest.mark.parametrize(
    ("point", "kind"),
    [(Point.JOURNAL_COMMIT, Kind.FAILED), (Point.JOURNAL_COMMIT, Kind.LOST), (Point.MIRROR_DATA, Kind.SHORT)],
)
def test_p02_p07_each_transaction_fails(crew, point, kind, number):
    problem = crew.tried(point, kind, number)
    assert not problem, problem
