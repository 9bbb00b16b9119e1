"""UUIDv7 (RFC 9562, section 5.7): ids that sort by the time they were made."""

from __future__ import annotations

import uuid
from datetime import datetime

_RANDOM_BYTES = 10


def uuid7(now: datetime, random: bytes) -> str:
    """A UUIDv7 as lower-case text, from an aware time and ten random bytes."""
    if len(random) != _RANDOM_BYTES:
        raise ValueError("a UUIDv7 takes ten random bytes")
    milliseconds = int(now.timestamp() * 1000) & (2**48 - 1)
    value = milliseconds << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
