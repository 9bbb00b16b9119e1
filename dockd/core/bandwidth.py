"""How much may be sent when: caps by time of day, the bucket that holds them, and manners towards a tired store.

Pure: the caller brings the time and the randomness. Nothing here waits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from itertools import pairwise

from dockd.model import Entropy

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_LOOK_AHEAD_DAYS = 9  # a week, and the days on which it begins and ends
_TIMES = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(bit|kbit|Mbit|Gbit|B|kB|MB|GB|KiB|MiB|GiB)/s")
_BITS = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_FRACTION_BYTES = 6  # 48 bits: exact in a float
_LEAST_WAIT_S = 0.001  # a shorter one may not show on a clock at all, and the caller would turn in a circle
_ROUNDING_S = 1e-6  # so that a wait that was computed is not a hair too short
LEAST_BYTES_PER_S = 8000  # 64 kbit/s: below that a clip takes weeks, and connections end in time-outs


# --- caps


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A cap for a time of the week, by the clocks on the wall. One that ends before it begins reaches past midnight.

    It belongs to the days on which it begins. In the hour that a clock shows twice it counts both times.
    """

    days: frozenset[int]  # 0 is Monday
    begins_min: int  # minutes after midnight
    ends_min: int  # up to 1440; not included
    bytes_per_s: int

    def covers(self, local: datetime) -> bool:
        """Whether the wall clock's time lies inside."""
        minute = local.hour * 60 + local.minute
        today, yesterday = local.weekday(), (local.weekday() - 1) % 7
        if self.begins_min < self.ends_min:
            return today in self.days and self.begins_min <= minute < self.ends_min
        return (today in self.days and minute >= self.begins_min) or (yesterday in self.days and minute < self.ends_min)


@dataclass(frozen=True, slots=True)
class Caps:
    """Windows of one time zone. Outside of all there is no cap; where several hold, the tightest counts."""

    windows: tuple[Window, ...] = ()
    zone: tzinfo | None = None  # None: the machine's

    def bytes_per_s(self, now: datetime) -> int | None:
        """The cap at an aware time; None where there is none."""
        if not self.windows:
            return None
        local = now.astimezone(self.zone)
        return min((one.bytes_per_s for one in self.windows if one.covers(local)), default=None)

    def next_change(self, now: datetime) -> datetime | None:
        """When it will be another cap, in UTC; None where it stays for a week."""
        found = self.bytes_per_s(now)
        edges = sorted({*self._edges(now), *self._jumps(now)})
        return next((at for at in edges if at > now and self.bytes_per_s(at) != found), None)

    def _edges(self, now: datetime) -> Iterator[datetime]:
        """When windows begin and end by the clock on the wall, which may show that time twice."""
        midnight = datetime.combine(now.astimezone(self.zone).date(), time())
        for minute in {edge for one in self.windows for edge in (one.begins_min, one.ends_min)}:
            for day in range(-1, _LOOK_AHEAD_DAYS):
                local = midnight + timedelta(days=day, minutes=minute)
                for fold in (0, 1):
                    yield local.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)

    def _jumps(self, now: datetime) -> Iterator[datetime]:
        """When that clock is put forward or back."""
        if not self.windows:
            return
        begin = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        hours = [begin + timedelta(hours=hour) for hour in range(24 * _LOOK_AHEAD_DAYS)]
        for before, after in pairwise(hours):
            if self._offset(before) != self._offset(after):
                minutes = (before + timedelta(minutes=minute) for minute in range(1, 61))
                yield next(at for at in minutes if self._offset(at) == self._offset(after))

    def _offset(self, at: datetime) -> timedelta | None:
        return at.astimezone(self.zone).utcoffset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What an operator says in place of the windows."""

    bytes_per_s: int | None  # None: no cap at all
    operator: str
    until: datetime | None = None  # None: until somebody says otherwise


def parse_caps(table: Mapping[str, str], zone: tzinfo | None = None) -> Caps:
    """Caps out of configuration: `mon-fri 07:00-19:00` = `20 Mbit/s`. Raises ValueError naming what is wrong."""
    return Caps(windows=tuple(parse_window(when, rate) for when, rate in table.items()), zone=zone)


def parse_window(when: str, rate: str) -> Window:
    """One line of the caps. Days may be left out (`07:00-19:00`: every day). Raises ValueError."""
    days, _, times = when.strip().rpartition(" ")
    match = _TIMES.fullmatch(times)
    if match is None:
        raise ValueError(f"{when!r}: no times; allowed: DAYS HH:MM-HH:MM, as in mon-fri 07:00-19:00")
    begins, ends = (_minute(when, *match.group(at, at + 1)) for at in (1, 3))
    if begins in (ends, _DAY_MINUTES):
        raise ValueError(f"{when!r}: begins when it ends; a whole day is 00:00-24:00")
    return Window(days=_parse_days(when, days), begins_min=begins, ends_min=ends, bytes_per_s=parse_rate(rate))


def parse_rate(text: str) -> int:
    """Bytes a second out of `20 Mbit/s` or `2.5 MB/s`. Raises ValueError."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r}: no rate; allowed: a number with kbit/s, Mbit/s, Gbit/s, kB/s, MB/s or MiB/s")
    number, unit = match.groups()
    whole, _, part = number.partition(".")
    thousandths = int(whole) * 1000 + int(part.ljust(3, "0"))
    found = thousandths * _BITS[unit] // 8000 if unit in _BITS else thousandths * _BYTES[unit] // 1000
    if found < LEAST_BYTES_PER_S:
        raise ValueError(f"{text!r}: less than 64 kbit/s, at which no clip arrives")
    return found


def _minute(when: str, hours: str, minutes: str) -> int:
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > _DAY_MINUTES:  # noqa: PLR2004  minutes of an hour
        raise ValueError(f"{when!r}: {hours}:{minutes} is no time of day")
    return found


def _parse_days(when: str, text: str) -> frozenset[int]:
    if not text.strip():
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (one.strip().lower() for one in part.partition("-"))
        if first not in _DAYS or (dash and last not in _DAYS):
            allowed = f"allowed: {' '.join(_DAYS)}, as mon-fri or sat,sun"
            raise ValueError(f"{when!r}: {part.strip()!r} is no day; {allowed}")
        begin = _DAYS.index(first)
        count = (_DAYS.index(last) - begin) % 7 if dash else 0
        found |= {(begin + step) % 7 for step in range(count + 1)}
    return frozenset(found)


# --- the bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What may be sent now; where that is nothing, when to ask again."""

    granted_bytes: int
    wait_s: float = 0.0


class Bucket:
    """Holds one cap over everybody who takes from it. What is not taken is lost but for `burst_s` of the rate.

    In any span of s seconds at most s + burst_s seconds' worth is granted: over a minute 1.7 % beyond the cap.
    """

    def __init__(self, *, burst_s: float = 1.0) -> None:
        if not 0 < burst_s <= 60:  # noqa: PLR2004  a burst of minutes is no cap
            raise ValueError("a burst is more than nothing, and a minute at most")
        self._burst_s = burst_s
        self._rate: int | None = None
        self._tokens = 0.0
        self._at_s: float | None = None

    def take(self, wanted_bytes: int, *, bytes_per_s: int | None, now_s: float) -> Grant:
        """Take up to `wanted_bytes` (one at least) at the cap that holds now; `now_s` is of a monotonic clock.

        A smaller grant than a fiftieth of a second's worth is not made: the caller waits instead. Where the cap
        changes, what was saved under the old one is cut to the new one's burst.
        """
        if wanted_bytes < 1:
            raise ValueError("at least a byte is wanted")
        if bytes_per_s is None:
            self._rate, self._at_s, self._tokens = None, now_s, 0.0
            return Grant(granted_bytes=wanted_bytes)
        self._fill(bytes_per_s, now_s)
        least = min(wanted_bytes, max(1, math.ceil(min(bytes_per_s / 50, bytes_per_s * self._burst_s))))
        if self._tokens < least:
            wait_s = (least - self._tokens) / bytes_per_s + _ROUNDING_S
            return Grant(granted_bytes=0, wait_s=max(_LEAST_WAIT_S, wait_s))
        granted = min(wanted_bytes, int(self._tokens))
        self._tokens -= granted
        return Grant(granted_bytes=granted)

    def give_back(self, unused_bytes: int) -> None:
        """What was granted and then not sent after all. Never fills beyond the burst."""
        if self._rate is not None:
            self._tokens = min(self._tokens + unused_bytes, self._most(self._rate))

    def spend(self, sent_bytes: int) -> None:
        """What is sent whatever is left: later takers wait for it."""
        if self._rate is not None:
            self._tokens -= sent_bytes

    def _fill(self, rate: int, now_s: float) -> None:
        if self._at_s is not None and self._rate is not None:
            # At the lower of the two rates: when in between the cap changed is not known.
            self._tokens += max(0.0, now_s - self._at_s) * min(rate, self._rate)
        self._tokens = min(self._tokens, self._most(rate))
        self._rate, self._at_s = rate, now_s

    def _most(self, rate: int) -> float:
        return max(1.0, rate * self._burst_s)


# --- manners


class Concurrency:
    """How many uploads may be under way at once: one more after a round of successes, half after a push-back (AIMD).

    `begin` gives a number that comes back with the answer: of all the uploads that met the same full store, only the
    first halves the limit.
    """

    def __init__(self, *, most: int) -> None:
        if most < 1:
            raise ValueError("at least one upload is under way at once")
        self._most = most
        self._limit = float(most)
        self._round = 0

    @property
    def limit(self) -> int:
        """How many now."""
        return int(self._limit)

    def begin(self) -> int:
        """The round that a request begins in."""
        return self._round

    def succeeded(self) -> None:
        """A request was answered well."""
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def pushed_back(self, begun: int) -> None:
        """A request that began in round `begun` was answered 429 or 503."""
        if begun == self._round:
            self._round += 1
            self._limit = max(1.0, self._limit / 2)

    def restart(self) -> None:
        """Begin with one again: what the store bore before it was away says nothing."""
        self._limit = 1.0

    def adjust(self, most: int) -> None:
        """Another limit from configuration."""
        if most < 1:
            raise ValueError("at least one upload is under way at once")
        self._most = most
        self._limit = min(self._limit, float(most))


def spread_s(outage: timedelta, random: Entropy, *, longest_s: float = 300.0) -> float:
    """How long to wait before the first request after an outage: evenly over as long as it lasted, `longest_s` at most.

    A store that was away for seconds is not kept waiting for minutes.
    """
    fraction: float = int.from_bytes(random(_FRACTION_BYTES), "big") / 2 ** (8 * _FRACTION_BYTES)
    return fraction * min(max(0.0, outage.total_seconds()), longest_s)
