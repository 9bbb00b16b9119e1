"""Caps by the clock, the bucket that holds them, and manners towards a tired store."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core.backoff import RetryBudget
from dockd.core.bandwidth import (
    LEAST_BYTES_PER_S,
    Bucket,
    Caps,
    Concurrency,
    Window,
    parse_caps,
    parse_rate,
    parse_window,
    spread_s,
)

BERLIN = ZoneInfo("Europe/Berlin")
MBIT = 125_000


def _at(text, zone=BERLIN, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("20 Mbit/s", 2_500_000),
        ("1Gbit/s", 125_000_000),
        ("64 kbit/s", 8000),
        ("2.5 MB/s", 2_500_000),
        ("0.125 MiB/s", 131_072),
        ("8000 B/s", 8000),
        (" 1.001 kB/s ", None),
        ("20", None),
        ("20 Mbit", None),
        ("20 mbit/s", None),
        ("-20 Mbit/s", None),
        ("0 Mbit/s", None),
        ("63 kbit/s", None),
        ("1e3 Mbit/s", None),
        ("٢٠ Mbit/s", None),
        ("", None),
    ],
)
def test_rates(text, bytes_per_s):
    if bytes_per_s is None:
        with pytest.raises(ValueError, match=r"rate|64 kbit"):
            parse_rate(text)
    else:
        assert parse_rate(text) == bytes_per_s


@pytest.mark.parametrize(
    ("when", "days", "minutes"),
    [
        ("mon-fri 07:00-19:00", {0, 1, 2, 3, 4}, (420, 1140)),
        ("sat,sun 00:00-24:00", {5, 6}, (0, 1440)),
        ("fri-mon 22:00-06:00", {4, 5, 6, 0}, (1320, 360)),
        ("Mon, Wed-Thu 08:30-09:00", {0, 2, 3}, (510, 540)),
        ("12:00-13:00", set(range(7)), (720, 780)),
        ("sun-sun 12:00-13:00", {6}, (720, 780)),
    ],
)
def test_windows(when, days, minutes):
    found = parse_window(when, "1 MB/s")
    assert (set(found.days), (found.begins_min, found.ends_min)) == (days, minutes)


@pytest.mark.parametrize(
    "when",
    [
        "mon-fri",
        "mon-fri 7:00-19:00",
        "mon-fri 07:00-25:00",
        "mon-fri 07:60-08:00",
        "mon-fri 24:01-08:00",
        "mon-fri 24:00-08:00",
        "mon-fri 07:00-07:00",
        "monday 07:00-08:00",
        "mon-xyz 07:00-08:00",
        "mon- 07:00-08:00",
        ", 07:00-08:00",
        "",
    ],
)
def test_a_window_that_is_none_is_named(when):
    with pytest.raises(ValueError, match=r"allowed|no time|no day|whole day"):
        parse_window(when, "1 MB/s")


CAPS = parse_caps(
    {
        "mon-fri 07:00-19:00": "20 Mbit/s",
        "mon-fri 12:00-13:00": "5 Mbit/s",
        "fri-sat 22:00-06:00": "100 Mbit/s",
    },
    BERLIN,
)


@pytest.mark.parametrize(
    ("local", "cap"),
    [
        ("2026-11-20T06:59:59", None),  # a Friday
        ("2026-11-20T07:00:00", 20 * MBIT),
        ("2026-11-20T12:30:00", 5 * MBIT),  # two windows hold: the tightest
        ("2026-11-20T18:59:59", 20 * MBIT),
        ("2026-11-20T19:00:00", None),
        ("2026-11-20T22:00:00", 100 * MBIT),
        ("2026-11-21T05:59:59", 100 * MBIT),  # the night that began on Friday
        ("2026-11-21T06:00:00", None),
        ("2026-11-22T05:59:59", 100 * MBIT),
        ("2026-11-22T22:30:00", None),
        ("2026-11-20T05:59:59", None),  # Thursday's night is not one of them
    ],
)
def test_the_cap_by_the_clock_on_the_wall(local, cap):
    moment = _at(local)
    assert CAPS.bytes_per_s(moment) == cap
    assert CAPS.bytes_per_s(moment.astimezone(UTC)) == cap
    assert CAPS.bytes_per_s(moment.astimezone(ZoneInfo("Pacific/Auckland"))) == cap


def test_an_hour_that_clocks_show_twice_or_never():
    caps = parse_caps({"sun 02:00-03:00": "1 MB/s", "sun 03:00-04:00": "2 MB/s"}, BERLIN)
    autumn = [_at("2026-10-25T02:30:00", fold=fold) for fold in (0, 1)]
    assert [caps.bytes_per_s(one) for one in autumn] == [1_000_000, 1_000_000]
    assert autumn[1].astimezone(UTC) - autumn[0].astimezone(UTC) == timedelta(hours=1)
    begin = datetime(2026, 3, 29, 0, 59, tzinfo=UTC)  # 01:59; two minutes later it is 03:01
    assert [caps.bytes_per_s(begin + timedelta(minutes=at)) for at in (0, 2)] == [None, 2_000_000]


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Window,
            days=st.frozensets(st.integers(0, 6), min_size=1),
            begins_min=st.integers(0, 1439),
            ends_min=st.integers(0, 1440),
            bytes_per_s=st.integers(LEAST_BYTES_PER_S, 10**9),
        ).filter(lambda one: one.begins_min != one.ends_min),
        max_size=5,
    ),
    st.integers(1_577_000_000, 1_893_000_000),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
def test_the_tightest_window_counts_and_none_lasts_longer_than_it_says(windows, seconds, zone):
    caps, now = Caps(windows=tuple(windows), zone=ZoneInfo(zone)), datetime.fromtimestamp(seconds, UTC)
    alone = [Caps(windows=(one,), zone=caps.zone).bytes_per_s(now) for one in windows]
    assert caps.bytes_per_s(now) == min((one for one in alone if one is not None), default=None)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.frozensets(st.integers(0, 6), min_size=1), st.integers(0, 1439), st.integers(0, 1440)).filter(
            lambda one: one[1] != one[2]
        ),
        max_size=3,
    ),
    st.one_of(
        st.integers(1_577_000_000, 1_893_000_000),
        st.sampled_from([1_774_743_000, 1_792_887_000, 1_775_311_800, 1_791_038_400]),  # before clocks are put
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
def test_the_next_change_is_the_first(windows, seconds, zone):
    caps = Caps(
        windows=tuple(
            Window(days=days, begins_min=begins, ends_min=ends, bytes_per_s=8000 + at)
            for at, (days, begins, ends) in enumerate(windows)
        ),
        zone=ZoneInfo(zone),
    )
    now = datetime.fromtimestamp(seconds, UTC)
    minute = now.replace(second=0)
    after = (minute + timedelta(minutes=at) for at in range(1, 8 * 24 * 60))
    expected = next((at for at in after if caps.bytes_per_s(at) != caps.bytes_per_s(now)), None)
    found = caps.next_change(now)
    if expected is None:
        assert found is None or found > minute + timedelta(days=7)
    else:
        assert found == expected


def test_the_machine_s_time_zone_where_none_is_named():
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    here = now.astimezone()
    end = here + timedelta(hours=1)
    caps = parse_caps({f"{here:%H:%M}-{end:%H:%M}": "1 MB/s"})
    assert caps.bytes_per_s(now) == 1_000_000
    assert caps.next_change(now) == now + timedelta(hours=1)


def _drive(rate, *, wants, pauses, seconds):
    """Grants of a busy sender as (time, bytes), over so many seconds."""
    bucket, now_s, grants = Bucket(), 1000.0, []
    for wanted, pause_s in itertools.cycle(zip(wants, pauses, strict=True)):
        if now_s >= 1000.0 + seconds:
            return grants
        grant = bucket.take(wanted, bytes_per_s=rate, now_s=now_s)
        assert 0 <= grant.granted_bytes <= wanted
        assert (grant.granted_bytes == 0) == (grant.wait_s > 0)
        grants.append((now_s, grant.granted_bytes))
        now_s += grant.wait_s + (pause_s if grant.granted_bytes else 0.0)
    raise AssertionError


def _busiest_minute(grants):
    most, total, first = 0, 0, 0
    for moment, granted in grants:
        total += granted
        while moment - grants[first][0] >= 60.0:
            total -= grants[first][1]
            first += 1
        most = max(most, total)
    return most


@settings(max_examples=40, deadline=None)
@given(
    st.integers(LEAST_BYTES_PER_S, 125_000_000),
    st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 0.02)), min_size=1, max_size=20),
)
def test_a_cap_holds_within_5_percent_over_any_minute(rate, sends):
    wants, pauses = zip(*((max(one, rate // 40), pause) for one, pause in sends), strict=True)
    grants = _drive(rate, wants=wants, pauses=pauses, seconds=90)
    assert _busiest_minute(grants) <= rate * 60 * 1.05
    assert sum(granted for moment, granted in grants if moment >= 1030.0) >= rate * 60 * 0.95


@settings(max_examples=60, deadline=None)
@given(
    st.integers(LEAST_BYTES_PER_S, 10**8),
    st.lists(st.tuples(st.integers(1, 1 << 22), st.floats(0, 30)), min_size=1, max_size=200),
)
def test_no_burst_is_longer_than_a_second_whatever_the_pauses(rate, sends):
    bucket, now_s, granted = Bucket(), 0.0, []
    for wanted, pause_s in sends:
        now_s += pause_s
        granted.append((now_s, bucket.take(wanted, bytes_per_s=rate, now_s=now_s).granted_bytes))
    for first, last in itertools.combinations(range(0, len(granted), 7), 2):
        span_s = granted[last][0] - granted[first][0]
        assert sum(one for _, one in granted[first : last + 1]) <= rate * (span_s + 1.0) + 1


def test_a_cap_changes_while_it_holds():
    bucket = Bucket()
    assert bucket.take(10**9, bytes_per_s=None, now_s=0.0).granted_bytes == 10**9
    assert bucket.take(10**9, bytes_per_s=10**6, now_s=1.0).granted_bytes == 0  # nothing was saved while there was none
    assert bucket.take(10**9, bytes_per_s=10**6, now_s=2.0).granted_bytes == 10**6
    assert bucket.take(10**9, bytes_per_s=10**6, now_s=1.5).granted_bytes == 0  # a clock that went back gives nothing
    bucket.take(1, bytes_per_s=10**6, now_s=10.0)
    assert bucket.take(10**9, bytes_per_s=10**4, now_s=10.0).granted_bytes == 10**4
    assert bucket.take(10**9, bytes_per_s=10**9, now_s=10.5).granted_bytes == 0  # filled at the lower rate
    assert bucket.take(5000, bytes_per_s=10**9, now_s=10.6).granted_bytes == 5000


def test_what_was_not_sent_is_given_back_up_to_the_burst():
    bucket = Bucket()
    bucket.take(1, bytes_per_s=10**6, now_s=0.0)
    assert bucket.take(10**6, bytes_per_s=10**6, now_s=5.0).granted_bytes == 10**6
    bucket.give_back(10**9)
    assert bucket.take(10**9, bytes_per_s=10**6, now_s=5.0).granted_bytes == 10**6


@pytest.mark.parametrize(
    "call",
    [
        lambda: Bucket(burst_s=0),
        lambda: Bucket(burst_s=61),
        lambda: Concurrency(most=0),
        lambda: RetryBudget(share=0),
        lambda: Concurrency(most=2).adjust(0),
        lambda: Bucket().take(0, bytes_per_s=None, now_s=0.0),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError, match=r"at least|a burst|a share"):
        call()


def test_one_full_store_halves_once_however_many_uploads_met_it():
    uploads = Concurrency(most=8)
    begun = [uploads.begin() for _ in range(8)]
    for one in begun:
        uploads.pushed_back(one)
    assert uploads.limit == 4
    uploads.pushed_back(uploads.begin())
    assert uploads.limit == 2
    for _ in range(10):
        uploads.pushed_back(uploads.begin())
    assert uploads.limit == 1
    for _ in range(200):
        uploads.succeeded()
    assert uploads.limit == 8
    uploads.adjust(3)
    assert uploads.limit == 3


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=300), st.integers(1, 32))
def test_the_limit_stays_between_one_and_the_most(answers, most):
    uploads = Concurrency(most=most)
    for good in answers:
        before = uploads.limit
        uploads.succeeded() if good else uploads.pushed_back(uploads.begin())
        assert 1 <= uploads.limit <= most
        assert uploads.limit >= before if good else uploads.limit <= before
        assert uploads.limit - before <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=400))
def test_retries_are_a_tenth_of_requests_and_one_a_minute(events):
    budget, now_s, requests, retries = RetryBudget(), 0.0, 0, 0
    for is_request, pause_s in events:
        now_s += pause_s
        if is_request:
            budget.requested()
            requests += 1
            continue
        promised_s = budget.wait_s(now_s)
        allowed = budget.may_retry(now_s)
        assert allowed == (promised_s == 0.0)
        retries += allowed
        assert retries <= requests / 10 + 1e-6 + now_s / 60.0 + 1


def test_ten_requests_pay_for_one_retry():
    budget = RetryBudget()
    assert budget.may_retry(0.0)  # alone
    assert not budget.may_retry(59.0)
    assert budget.wait_s(59.0) == 1.0
    for _ in range(10):
        budget.requested()
    assert budget.may_retry(59.0)
    assert not budget.may_retry(59.5)
    assert budget.may_retry(60.0)


@settings(deadline=None)
@given(st.binary(min_size=6, max_size=6), st.floats(-10, 10**6))
def test_a_city_of_docks_returns_over_as_long_as_it_was_away(drawn, outage_s):
    waited = spread_s(timedelta(seconds=outage_s), lambda count: drawn[:count])
    assert 0.0 <= waited <= min(max(0.0, outage_s), 300.0)


def test_the_returns_are_even():
    waits = [
        spread_s(timedelta(hours=1), lambda _, one=one: one.to_bytes(6, "big")) for one in range(0, 1 << 48, 1 << 38)
    ]
    per_second = [sum(second <= one < second + 1 for one in waits) for second in range(300)]
    assert max(per_second) - min(per_second) <= 1
