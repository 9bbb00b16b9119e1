"""When a station begins to erase: clip by clip at once, volumes when the last clip arrived or takes too long."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from dockd.core.lifecycle import AcquisitionState
from dockd.core.profile import EraseMethod, Profile
from dockd.errors import WarrantRefused
from dockd.model import FoundFile, Medium, MediumKind, Role
from dockd.stages.listing import Remnant
from dockd.stages.sanitise import Permit, commit
from dockd.station.erasing import PATIENCE_S, SPARE, Erasing, standing
from dockd.station.postponed import Postponed


class Clock:
    passed_s = 0.0

    def monotonic_s(self):
        return self.passed_s


class Rows:
    """A journal with these rows to erase."""

    def __init__(self, *rows):
        self.rows = list(rows)

    async def read(self, query):
        return query(self)

    def next_to_erase(self, docking, *, limit):
        assert docking == "D"
        return [row for row in self.rows if row.state == AcquisitionState.STORED][:limit]

    def companions(self, _row):
        return []

    def acquisition(self, name):
        return next((row for row in self.rows if row.acquisition == name), None)


def row(name, state=AcquisitionState.STORED):
    return SimpleNamespace(acquisition=name, state=state, role=Role.CLIP)


def remnant(name):
    return Remnant(acquisition=name, file=FoundFile(path=b"x", size_bytes=0, mtime_ns=0, inode=0))


@pytest.fixture
def make():
    def build(*rows, kind=MediumKind.VOLUMES, erase=EraseMethod.DELETE, forbidden="", alarms=()):
        clock = Clock()
        attachment = SimpleNamespace(medium=Medium(kind=kind), profile=Profile(name="p", version=1, erase=erase))
        stay = SimpleNamespace(clock=clock, journal=Rows(*rows), attachment=attachment, docking="D")
        around = SimpleNamespace(alarms=lambda: alarms)
        return Erasing(stay, around, Postponed(clock), forbidden), stay

    return build


@pytest.mark.parametrize("kind", [MediumKind.FOLDER, MediumKind.MTP])
async def test_clip_by_clip_there_is_nothing_to_wait_for(make, kind):
    erasing, _ = make(row("a"), kind=kind)
    assert await erasing.wanted(travelling=3)


async def test_a_batch_begins_when_nothing_travels_any_more(make):
    erasing, _ = make(row("a"))
    assert not await erasing.wanted(travelling=1)
    assert await erasing.wanted(travelling=0)
    assert erasing.due_s is None


async def test_a_stuck_upload_does_not_hold_the_rest_for_ever(make):
    erasing, stay = make(row("a"))
    assert not await erasing.wanted(travelling=1)
    assert erasing.due_s == PATIENCE_S
    stay.clock.passed_s = PATIENCE_S - 1
    assert not await erasing.wanted(travelling=1)
    stay.clock.passed_s = PATIENCE_S
    assert await erasing.wanted(travelling=1)
    assert not await erasing.wanted(travelling=1), "the next batch has its own patience"
    assert erasing.due_s == 2 * PATIENCE_S


async def test_a_clip_that_is_tried_again_soon_is_waited_for(make):
    erasing, stay = make(row("a"), row("b"))
    erasing._postponed.later("b", "busy")
    assert not await erasing.wanted(travelling=0)
    stay.clock.passed_s = 30
    assert await erasing.wanted(travelling=0)


async def test_nothing_is_waited_for_where_nothing_may_be_erased(make):
    erasing, stay = make(row("a"))
    assert not await erasing.wanted(travelling=1)
    stay.journal.rows.clear()
    assert not await erasing.wanted(travelling=1)
    assert erasing.due_s is None


@pytest.mark.parametrize(
    "why", [{"erase": EraseMethod.NONE}, {"forbidden": "have it examined"}, {"alarms": ("it was rolled back",)}]
)
async def test_p01_nothing_is_picked_where_nothing_is_to_be_erased(make, why):
    erasing, _ = make(row("a"), row("r", AcquisitionState.WARRANTED), **why)
    erasing.remnants = (remnant("r"),)
    assert await erasing.next() is None
    assert not await erasing.wanted(travelling=0)


async def test_what_an_interruption_left_comes_first(make):
    erasing, _ = make(row("a"), row("r", AcquisitionState.WARRANTED), row("gone", AcquisitionState.ERASED))
    erasing.remnants = (remnant("gone"), remnant("r"))
    found = await erasing._candidates(10)
    assert [(one.acquisition, file is not None) for one, file in found] == [("r", True), ("a", False)]
    assert [one.acquisition for one, _ in await erasing._candidates(1)] == ["r"]


class Writing:
    """A journal whose transaction begins when its turn has come."""

    async def write(self, change):
        return change(None)


@pytest.mark.parametrize(
    "moved", [timedelta(seconds=-1), timedelta(seconds=1)], ids=["a clock that was set back", "too late"]
)
async def test_p01_a_warrant_that_does_not_stand_when_its_batch_commits_is_not_recorded(moved):
    now = datetime(2026, 11, 21, tzinfo=UTC)
    stay = SimpleNamespace(clock=SimpleNamespace(now=lambda: now), journal=Writing())
    good = Permit(row=row("a"), warrant=SimpleNamespace(since=now, until=now), remnant=None)
    other = Permit(row=row("b"), warrant=SimpleNamespace(since=now - moved, until=now - moved), remnant=None)
    with pytest.raises(WarrantRefused, match="not of right now"):
        await commit(stay, (good, other))


def test_a_store_that_is_read_for_long_holds_no_batch_for_ever():
    """What the first clips rest on has grown old by the time the last one was read: the last one goes at least."""
    now = datetime(2026, 12, 1, tzinfo=UTC)
    permits = {
        name: Permit(row=row(name), warrant=SimpleNamespace(until=now + left), remnant=None)
        for name, left in (("old", -SPARE), ("soon", SPARE), ("sidecar", SPARE / 2), ("new", 2 * SPARE))
    }
    groups = [[permits["old"]], [permits["soon"]], [permits["new"], permits["sidecar"]], [], [permits["new"]]]
    assert standing(groups, now) == [permits["new"]]
