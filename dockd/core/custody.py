"""The custody log's entries: how a line is made, and how it is read. custody_check checks a whole log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dockd.core.canonical import decode, encode, format_time
from dockd.core.fields import Fields
from dockd.errors import VerificationFailed
from dockd.model import AcquisitionId, BayNumber, DockingId, StationId

TYPE = "custody"
FIRST_PREVIOUS = "0" * 64
MAX_LINE_BYTES = 65_535
_HASH_BYTES = 32


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
        "type": TYPE,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One custody entry, taken from its line. What was not known is None."""

    seq: int
    prev: str  # 64 lower-case hex digits
    at: datetime
    event: str
    station: StationId
    details: Mapping[str, Any]
    bay: BayNumber | None = None
    docking: DockingId | None = None
    acquisition: AcquisitionId | None = None
    camera: str | None = None  # the serial


def parse_entry(line: bytes) -> Entry:
    """The entry of a line without its LF. Raises VerificationFailed for what is none, or not in canonical form."""
    if len(line) > MAX_LINE_BYTES:
        raise VerificationFailed(f"it is longer than the {MAX_LINE_BYTES} bytes that an entry may have")
    record = decode(line, type_=TYPE)
    try:
        canonical = encode(record) == line
    except ValueError:  # what no UTF-8 can say, such as half a surrogate pair
        canonical = False
    if not canonical:
        raise VerificationFailed("it is not canonical JSON: one line, sorted keys, no spaces")
    fields = Fields(record, TYPE)
    entry = Entry(
        seq=fields.count("seq"),
        prev=fields.hex("prev", _HASH_BYTES).hex(),
        at=fields.time("at"),
        event=fields.text("event"),
        station=StationId(fields.uuid("station")),
        details=fields.mapping("details"),
        bay=BayNumber(fields.count("bay", least=1)) if "bay" in record else None,
        docking=DockingId(fields.uuid("docking")) if "docking" in record else None,
        acquisition=AcquisitionId(fields.uuid("acquisition")) if "acquisition" in record else None,
        camera=fields.text("camera") if "camera" in record else None,
    )
    fields.end()
    return entry
