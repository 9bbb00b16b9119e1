"""What the uplinks share, and who may change it: the configuration at any time, an operator for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dockd.config.schema import StationConfig
from dockd.config.uplink import Uplink
from dockd.core import canonical
from dockd.core.bandwidth import Caps, Override, Window, parse_rate, parse_window
from dockd.core.places import Places
from dockd.errors import ConfigError
from dockd.keep.transaction import Tx
from dockd.model import Clock
from dockd.station.pacing import CapNow, Pacing

_CAP = "uplink_cap"  # the setting
_RECORD = "uplink-cap"
_NO_CAP = "none"
MAX_FOR_S = 31 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The pace of all bytes, and the places of all uploads."""

    pacing: Pacing
    places: Places

    def follow(self, uplink: Uplink) -> None:
        """Take over another table. Raises ConfigError, and then changes nothing."""
        self.pacing.follow(caps_of(uplink))
        self.places.adjust(uplink.max_in_flight)


def limits_of(config: StationConfig, clock: Clock) -> Limits:
    """As the configuration says. Raises ConfigError."""
    places = Places(most=config.uplink.max_in_flight)
    return Limits(pacing=Pacing(clock, caps_of(config.uplink)), places=places)


def caps_of(uplink: Uplink) -> Caps:
    """The windows of `[uplink.caps]`. Raises ConfigError with every one that is none."""
    windows: list[Window] = []
    problems: list[str] = []
    for when, rate in uplink.caps.items():
        try:
            windows.append(parse_window(when, rate))
        except ValueError as error:
            problems.append(f"uplink.caps: {error}")
    if problems:
        raise ConfigError("the caps cannot be used", problems=tuple(problems))
    return Caps(windows=tuple(windows), zone=uplink.zone)


def change_cap(tx: Tx, arguments: dict[str, Any], *, now: datetime, operator: str, reason: str) -> Override | None:
    """What an operator says, kept over restarts and entered. Raises LookupError where it makes no sense.

    Returns what holds in place of the windows now; None where these hold again.
    """
    rate, for_s = arguments.get("rate"), arguments.get("for_s")
    if rate is None:
        if for_s is not None:
            raise LookupError("a time needs a rate")
        tx.put(_CAP, "")
        tx.record("uplink.cap_cleared", details={"operator": operator, "reason": reason})
        return None
    if for_s is not None and not (isinstance(for_s, int) and 0 < for_s <= MAX_FOR_S):
        raise LookupError(f"a time is a whole number of seconds from 1 to {MAX_FOR_S}")
    override = Override(
        bytes_per_s=_rate(rate),
        operator=operator,
        until=None if for_s is None else now + timedelta(seconds=for_s),
    )
    said = _said(override)
    tx.put(_CAP, canonical.encode({"type": _RECORD, "v": 1, **said}).decode())
    tx.record("uplink.cap_set", details={**said, "reason": reason})
    return override


def kept_cap(tx: Tx) -> Override | None:
    """What an operator said in an earlier life of the program, and has not taken back."""
    text = tx.get(_CAP)
    if not text:
        return None
    said = canonical.decode(text.encode(), type_=_RECORD)
    until = said["until"]
    return Override(
        bytes_per_s=said["bytes_per_s"],
        operator=said["operator"],
        until=None if until is None else canonical.parse_time(until),
    )


def cap_to_json(cap: CapNow) -> dict[str, Any]:
    """The stable JSON form."""
    return {
        "cap_bytes_s": cap.bytes_per_s,
        "cap_by": cap.operator,
        "cap_changes_at": None if cap.changes_at is None else canonical.format_time(cap.changes_at),
        "cap_then_bytes_s": cap.then_bytes_per_s,
    }


def _said(override: Override) -> dict[str, Any]:
    return {
        "bytes_per_s": override.bytes_per_s,
        "operator": override.operator,
        "until": None if override.until is None else canonical.format_time(override.until),
    }


def _rate(text: object) -> int | None:
    if text == _NO_CAP:
        return None
    try:
        return parse_rate(str(text))
    except ValueError as error:
        raise LookupError(f"{error}; or none, for no cap at all") from error
