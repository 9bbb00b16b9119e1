"""The custody log's entries: how a line is made, and how a whole log is checked, line by line, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dockd.core.canonical import encode, format_time
from dockd.model import AcquisitionId, BayNumber, DockingId, StationId

FIRST_PREVIOUS = "0" * 64
MAX_LINE_BYTES = 65_535


def entry_line(
    *,
    seq: int,
    prev: str,
    at: datetime,
    event: str,
    station: StationId,
    details: Mapping[str, Any],
    bay: BayNumber | None = None,
    docking: DockingId | None = None,
    acquisition: AcquisitionId | None = None,
    camera: str | None = None,
) -> bytes:
    """One line, without its LF. Raises ValueError for what an entry cannot say, or beyond its size."""
    record: dict[str, Any] = {
        "type": "custody",
        "v": 1,
        "seq": seq,
        "prev": prev,
        "at": format_time(at),
        "event": event,
        "station": station,
        "details": dict(details),
    }
    known = {"bay": bay, "docking": docking, "acquisition": acquisition, "camera": camera}
    line = encode(record | {key: value for key, value in known.items() if value is not None})
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a custody entry of {len(line)} bytes: at most {MAX_LINE_BYTES}")
    return line


def previous_hash(line: bytes | None) -> str:
    """What the next entry's `prev` is: the SHA-256 of `line`, in hex; of no line, 64 zeros."""
    return FIRST_PREVIOUS if line is None else hashlib.sha256(line).hexdigest()
