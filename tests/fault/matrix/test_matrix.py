"""Every durable write, failing in every way: the same end as if nothing had happened.

Where it is neither station nor receiver that dies, both live in one process (a worker of the crew); what is to be
killed is forked from a program that has everything imported already. The scenarios are in fault.matrix.scenarios, what
has to be true in the end in fault.matrix.truth.
"""

from __future__ import annotations

import pytest
from fault.matrix.dock import Dock
from fault.matrix.points import BEFORE, scenario_of
from fault.matrix.scenarios import SCENARIOS
from fault.matrix.truth import check_now, lost_bytes

from dockd.faultpoints import IMPOSSIBLE, Act, Kind, Point, kinds


def pairs_of(point):
    return [(point, kind, 0) for kind in kinds(point)]


@pytest.mark.timeout(600)  # the first waits for what all scenarios begin with
@pytest.mark.parametrize("point", list(Point), ids=str)
def test_p02_nothing_is_lost_however_a_durable_write_fails(crew, point):
    problems = {kind: crew.tried(point, kind) for kind in kinds(point)}
    assert not any(problems.values()), "\n\n".join(f"{kind}: {text}" for kind, text in problems.items() if text)


def test_every_point_is_tried_in_every_way_that_is_not_ruled_out():
    pairs = {(point, kind) for point in Point for kind in Kind}
    tried = {(point, kind) for point in Point for _, kind, _ in pairs_of(point)}
    assert {(point.act, kind) for point, kind in pairs - tried} == set(IMPOSSIBLE)
    assert all(IMPOSSIBLE.values())
    assert all(kind in kinds(point) for point in Point for kind in Kind if point.act is Act.WRITE)
    assert {scenario_of(point) for point in Point} == set(SCENARIOS)
    assert set(BEFORE) <= set(Point)


def test_a_clip_that_is_nowhere_is_noticed(tmp_path):
    dock = Dock.make(tmp_path / "dock")
    camera = dock.camera({"A.mp4": b"content", "B.mp4": b"more content"})
    check_now(dock)
    assert lost_bytes(dock) == 0
    (camera / "A.mp4").write_bytes(b"conten")
    assert lost_bytes(dock) == 7
    with pytest.raises(AssertionError, match=r"touched without a warrant: \{'A.mp4'\}"):
        check_now(dock)
