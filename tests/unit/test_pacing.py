"""One pace for all uploads, with a clock that stands while anybody works."""

import asyncio
import contextlib
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_clock import VirtualClock

from dockd.core.bandwidth import Override, parse_caps
from dockd.station.pacing import TRICKLE_BYTES, TRICKLE_EVERY_S, Pacing

RATE = 2_500_000
BLOCK = 1 << 20


class Uploads:
    """Senders with blocks of a MiB to send for ever, or so many bytes; `sent` is what each has sent, and when."""

    def __init__(self, pacing, clock):
        self.pacing, self.clock = pacing, clock
        self.sent = {}
        self.ended_s = {}
        self._tasks = []

    def begin(self, name, *, urgent=False, size=None, block=BLOCK):
        self.sent[name] = []
        self._tasks.append(asyncio.create_task(self._send(name, urgent, size, block)))
        return self._tasks[-1]

    async def _send(self, name, urgent, size, block):
        left = float("inf") if size is None else size
        with self.pacing.serving(urgent=urgent):
            while left > 0:
                granted = await self.pacing.take(int(min(block, left)))
                assert 0 < granted <= min(block, left)
                left -= granted
                self.sent[name].append((self.clock.passed_s, granted))
                await asyncio.sleep(0)
        self.ended_s[name] = self.clock.passed_s

    def between(self, first_s, last_s, names=None):
        chosen = self.sent if names is None else names
        return sum(size for name in chosen for at_s, size in self.sent[name] if first_s < at_s <= last_s)

    async def end(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def uploading(caps=None, began=None):
    clock = VirtualClock() if began is None else VirtualClock(began)
    pacing = Pacing(clock, parse_caps({"00:00-24:00": "20 Mbit/s"} if caps is None else caps, UTC))
    uploads = Uploads(pacing, clock)
    yield pacing, clock, uploads
    await uploads.end()


async def test_eight_bays_hold_a_cap_within_5_percent_over_a_minute_and_share_it():
    async with uploading() as (_, clock, uploads):
        for bay in range(8):
            uploads.begin(bay)
        await clock.run_until(70.0)
        assert 0.95 * 60 * RATE <= uploads.between(10.0, 70.0) <= 1.05 * 60 * RATE
        each = [uploads.between(10.0, 70.0, [bay]) for bay in range(8)]
        assert max(each) <= 1.1 * min(each)
        assert clock.woken <= 70 * 60, "nobody asks more often than sixty times a second"


async def test_a_flagged_clip_that_comes_last_ends_first():
    async with uploading() as (_, clock, uploads):
        for bay in range(7):
            uploads.begin(bay, size=16 << 20)
        await clock.run_until(5.0)
        uploads.begin("flagged", urgent=True, size=16 << 20)
        await clock.run_until(70.0)
        assert set(uploads.ended_s) == {*range(7), "flagged"}
        assert min(uploads.ended_s, key=uploads.ended_s.get) == "flagged"
        assert uploads.ended_s["flagged"] <= 5.0 + (16 << 20) / RATE * 1.05 + 0.1


async def test_who_waits_for_flagged_evidence_gets_enough_to_stay_connected():
    async with uploading() as (_, clock, uploads):
        for bay in range(3):
            uploads.begin(bay)
        await clock.run_until(5.0)
        uploads.begin("flagged", urgent=True)
        await clock.run_until(105.0)
        for bay in range(3):
            times = [at_s for at_s, _ in uploads.sent[bay] if at_s > 4.0]
            assert max(after - before for before, after in itertools.pairwise(times)) <= TRICKLE_EVERY_S + 1.0
            assert uploads.between(6.0, 105.0, [bay]) <= 11 * TRICKLE_BYTES
        assert uploads.between(5.0, 105.0) <= RATE * 101.1


async def test_without_a_cap_nobody_waits():
    async with uploading({}) as (pacing, clock, _):
        assert [await pacing.take(10**9) for _ in range(3)] == [10**9] * 3
        pacing.spend(10**9)
        assert await pacing.take(10**9) == 10**9
        assert clock.woken == 0
        assert pacing.cap().bytes_per_s is None
        assert pacing.cap().changes_at is None


async def test_a_cap_begins_and_ends_by_the_clock():
    began = datetime(2026, 11, 20, 6, 59, 50, tzinfo=UTC)
    async with uploading({"fri 07:00-07:01": "20 Mbit/s", "fri 07:01-08:00": "40 Mbit/s"}, began) as (
        pacing,
        clock,
        uploads,
    ):
        await clock.run_until(5.0)
        assert pacing.cap().bytes_per_s is None
        assert pacing.cap().changes_at == datetime(2026, 11, 20, 7, 0, tzinfo=UTC)
        assert pacing.cap().then_bytes_per_s == RATE
        await clock.run_until(11.0)
        uploads.begin("a")
        await clock.run_until(70.0)
        assert uploads.between(11.0, 70.0) == pytest.approx(59 * RATE, rel=0.02)
        await clock.run_until(100.0)
        assert uploads.between(71.0, 100.0) == pytest.approx(29 * 2 * RATE, rel=0.05)
        assert pacing.cap().changes_at == datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
        assert pacing.cap().then_bytes_per_s is None


async def test_an_operator_changes_the_cap_at_once_and_for_a_time():
    async with uploading() as (pacing, clock, uploads):
        uploads.begin("a")
        await clock.run_until(10.0)
        until = clock.now() + timedelta(seconds=20)
        pacing.override(Override(bytes_per_s=RATE // 10, operator="alice", until=until))
        now = pacing.cap()
        assert (now.bytes_per_s, now.operator, now.changes_at) == (RATE // 10, "alice", until)
        assert now.then_bytes_per_s == RATE
        await clock.run_until(30.0)
        assert uploads.between(10.0, 30.0) <= RATE // 10 * 21
        await clock.run_until(40.0)
        assert uploads.between(30.0, 40.0) >= RATE * 9
        assert pacing.cap().operator == ""
        pacing.override(Override(bytes_per_s=8000, operator="alice"))
        await clock.run_until(100.0)
        assert pacing.cap().changes_at is None
        pacing.override(None)
        await clock.run_until(110.0)
        assert uploads.between(100.0, 110.0) >= RATE * 9


async def test_a_lifted_cap_lets_those_go_who_wait_for_it():
    async with uploading({"00:00-24:00": "64 kbit/s"}) as (pacing, clock, uploads):
        sending = uploads.begin("a", size=4 << 20)
        await clock.run_until(10.0)
        assert not sending.done()
        pacing.follow(parse_caps({}, UTC))
        await clock.run_until(10.0)
        assert sending.done()


async def test_who_is_cancelled_leaves_the_queue_to_the_others():
    async with uploading() as (_, clock, uploads):
        tasks = [uploads.begin(bay) for bay in range(4)]
        await clock.run_until(5.0)
        for task in tasks[:3]:
            task.cancel()
        await clock.run_until(15.0)
        assert uploads.between(5.1, 15.0, [3]) >= RATE * 9
        tasks[3].cancel()
        await clock.run_until(20.0)
        uploads.begin("last")
        await clock.run_until(30.0)
        assert uploads.between(20.0, 30.0, ["last"]) >= RATE * 9


async def test_what_goes_out_without_waiting_is_waited_for_by_the_next():
    async with uploading() as (pacing, clock, uploads):
        uploads.begin("a")
        await clock.run_until(10.0)
        pacing.spend(RATE * 3)
        await clock.run_until(12.9)
        assert uploads.between(10.0, 12.9) == 0
        await clock.run_until(20.0)
        assert uploads.between(13.0, 20.0) == pytest.approx(RATE * 7, rel=0.02)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 4 << 20), st.sampled_from([1, 1000, 65536, BLOCK]), st.floats(0, 20)),
        min_size=1,
        max_size=8,
    ),
    st.integers(8000, 12_500_000),
)
async def test_whatever_comes_when_the_cap_holds_and_all_of_it_gets_through(sends, rate):
    clock = VirtualClock()
    pacing = Pacing(clock, parse_caps({"00:00-24:00": f"{rate} B/s"}, UTC))
    uploads = Uploads(pacing, clock)
    for name, (urgent, size, block, at_s) in enumerate(sorted(sends, key=lambda one: one[3])):
        await clock.run_until(at_s)
        uploads.begin(name, urgent=urgent, size=min(size, rate * 4, block * 500), block=block)
    total = sum(min(size, rate * 4, block * 500) for _, size, block, _ in sends)
    await clock.run_until(20.0 + total / rate + 5.0)
    assert set(uploads.ended_s) == set(range(len(sends)))
    grants = sorted(one for each in uploads.sent.values() for one in each)
    assert sum(size for _, size in grants) == total
    for first, last in itertools.combinations(range(0, len(grants), 1 + len(grants) // 40), 2):
        span_s = grants[last][0] - grants[first][0]
        slack = TRICKLE_BYTES * (2 + span_s / TRICKLE_EVERY_S) * len(sends)
        assert sum(size for _, size in grants[first : last + 1]) <= rate * (span_s + 1.0) + slack
    await uploads.end()
