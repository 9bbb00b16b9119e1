"""Challenges that nobody has to remember: who asks for them without a key costs the receiver nothing.

A challenge is 32 bytes, as it was when they were kept: 12 random ones, its end in seconds (4), and 16 of an HMAC-SHA256
over store, station and those (RFC 2104; truncated as its section 5 allows). The key is made at the start, so a restart
ends them all. Remembered are only those that a station's signature used up, until they would have ended anyway.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, OrderedDict
from datetime import timedelta

from dockd.model import Clock, Entropy, StationId, StoreId

LIFE = timedelta(minutes=5)
_NONCE_BYTES, _END_BYTES, _TAG_BYTES = 12, 4, 16
_LIFE_S = int(LIFE.total_seconds())
_KEY_BYTES = 32
_MOST_USED = 256  # of one station within LIFE; it needs one an hour, and one for each time somebody looks by hand


class TooManyUsed(Exception):
    """A station opens session after session; it has to wait until the first of its challenges has ended."""


class Challenges:
    """Gives challenges and takes each once. Time is the monotonic clock's: no clock that is set gives one back."""

    def __init__(self, *, store: StoreId, clock: Clock, random: Entropy) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._key = random(_KEY_BYTES)
        self._began_s = clock.monotonic_s()
        self._used: OrderedDict[bytes, tuple[StationId, int]] = OrderedDict()  # by the time of use
        self._counts: Counter[StationId] = Counter()

    def give(self, station: StationId) -> bytes:
        """A fresh challenge, good for this station for LIFE and at most a second more."""
        body = self._random(_NONCE_BYTES) + (self._now_s() + 1 + _LIFE_S).to_bytes(_END_BYTES)
        return body + self._tag(station, body)

    def use(self, station: StationId, challenge: bytes) -> bool:
        """Take a challenge, once; False where it is not this station's, has ended or was taken before.

        To be called only after the station's signature over it was verified. Raises TooManyUsed.
        """
        body, tag = challenge[:-_TAG_BYTES], challenge[-_TAG_BYTES:]
        if len(body) != _NONCE_BYTES + _END_BYTES or not hmac.compare_digest(tag, self._tag(station, body)):
            return False
        now_s = self._now_s()
        self._forget(now_s)
        if int.from_bytes(body[_NONCE_BYTES:]) <= now_s or challenge in self._used:
            return False
        if self._counts[station] >= _MOST_USED:
            raise TooManyUsed
        self._used[challenge] = station, now_s + 1 + _LIFE_S  # no earlier than it ends, and in order
        self._counts[station] += 1
        return True

    def _forget(self, now_s: int) -> None:
        while self._used:
            station, end_s = next(iter(self._used.values()))
            if end_s > now_s:
                return
            self._used.popitem(last=False)
            self._counts[station] -= 1
            if not self._counts[station]:
                del self._counts[station]

    def _tag(self, station: StationId, body: bytes) -> bytes:
        # Both ids are UUIDs of one length, so no two triples give the same bytes.
        said = f"{self._store}{station}".encode() + body
        return hmac.digest(self._key, said, hashlib.sha256)[:_TAG_BYTES]

    def _now_s(self) -> int:
        return int(self._clock.monotonic_s() - self._began_s)
