from datetime import UTC, datetime

import pytest

from dockd.core.ids import uuid7
from dockd.core.remnants import remnant_name, remnant_of
from dockd.station.postponed import Postponed
from dockd.station.progress import Progress


class HandClock:
    now_s = 100.0

    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, delay_s):
        self.now_s += delay_s


def test_what_is_postponed_comes_back_later_each_time():
    clock = HandClock()
    postponed = Postponed(clock)
    waits = []
    for _ in range(8):
        postponed.later("A", "busy")
        assert "A" in postponed
        assert postponed.why("A") == "busy"
        waits.append(postponed.next_due_s() - clock.now_s)
        clock.now_s = postponed.next_due_s()
        assert "A" not in postponed
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_what_is_set_aside_stays_aside_until_it_is_forgotten():
    clock = HandClock()
    postponed = Postponed(clock)
    assert [postponed.strike("A"), postponed.strike("A")] == [1, 2]
    postponed.aside("A", "it ended two readers")
    clock.now_s += 1e6
    assert "A" in postponed
    assert postponed.next_due_s() is None
    postponed.later("B", "no room")
    assert postponed.reasons() == {"A": "it ended two readers", "B": "no room"}
    assert postponed.set_aside() == {"A": "it ended two readers"}
    postponed.forget("A")
    assert "A" not in postponed
    assert postponed.strike("A") == 1


def test_progress_counts_bytes_over_the_last_seconds():
    progress = Progress()
    for step in range(11):
        progress.report("A", "acquire", step * 1000, 10 + step * 0.5)
    assert progress.rate_bytes_s(15.0) == 2000
    assert progress.acquiring_bytes() == 10_000
    progress.report("A", "reread", 500, 15.0)
    assert progress.acquiring_bytes() == 0
    assert progress.rate_bytes_s(100.0) == 0


def test_a_remnant_says_whose_it_is():
    name = "01890000-0000-7000-8000-000000000001"
    assert remnant_of(b"DCIM/100/" + remnant_name(name)) == name
    for other in (b"DCIM/CLIP.mp4", b".dockd-erasing-", remnant_name(name) + b".mp4", remnant_name("x" * 36)):
        assert remnant_of(other) is None


def test_ids_sort_by_their_time_and_are_version_7():
    early = uuid7(datetime(2026, 1, 1, tzinfo=UTC), b"\xff" * 10)
    late = uuid7(datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), b"\0" * 10)
    assert early < late
    assert early[14] == "7"
    assert early[19] in "89ab"
    with pytest.raises(ValueError, match="ten"):
        uuid7(datetime.now(UTC), b"")
