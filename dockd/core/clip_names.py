"""What the name of a clip says: templates for names, and what one reads from a name. Pure.

A template is the name without its suffix, with fields in braces. It is no regular expression: names come from cameras,
and no name may keep a station busy. A field of any length therefore ends where the character after it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

_WORD = "[A-Za-z0-9]"
_FIELDS = {
    "year": "[0-9]{4}",
    "month": "[0-9]{2}",
    "day": "[0-9]{2}",
    "hour": "[0-9]{2}",
    "minute": "[0-9]{2}",
    "second": "[0-9]{2}",
    "sequence": "[0-9]{1,12}",
    "officer": _WORD + "{1,32}",
    "category": _WORD + "{1,32}",
    "camera": _WORD + "{1,32}",  # read over: the camera says who it is itself
}
_OPEN = ("sequence", "officer", "category", "camera")  # of any length
_NOT_AFTER = {"sequence": "[0-9]"}  # of the others: no letter and no digit
_MOMENT = ("year", "month", "day", "hour", "minute", "second")
_MOST_NAME = 255  # bytes: no file system of cameras has longer ones
_PIECE = re.compile(r"\{([a-z]*)\}|([^{}]+)|([{}])")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipNames:
    """How a camera names its clips."""

    templates: tuple[str, ...] = ()  # the first that fits counts
    time_zone: str = "station"  # of the times in them: "utc", "station", or a name of the IANA time zone database


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFacts:
    """What one name says. "" and None where it says nothing."""

    started_at: datetime | None = None  # naive: by the camera's own clock
    sequence: str = ""  # as it is written, leading zeros and all
    officer: str = ""
    category: str = ""


NOTHING = NameFacts()


def check_template(template: str) -> None:
    """Raise ValueError, with the reason, unless it is one that can be read."""
    _compiled(template)


def read_name(names: ClipNames, path: bytes) -> NameFacts:
    """What the name at the end of `path` says, by the first template that fits it; `NOTHING` where none does."""
    stem = path.rpartition(b"/")[2].rpartition(b".")[0] or path.rpartition(b"/")[2]
    if len(stem) > _MOST_NAME:
        return NOTHING
    text = stem.decode("latin-1")
    for template in names.templates:
        found = _compiled(template).fullmatch(text)
        if found is None:
            continue
        fields = found.groupdict()
        moment = _moment(fields)
        if moment is None and "year" in fields:
            continue  # digits that are no time: the name only looks like one of these
        return NameFacts(
            started_at=moment,
            sequence=fields.get("sequence") or "",
            officer=fields.get("officer") or "",
            category=fields.get("category") or "",
        )
    return NOTHING


def _moment(fields: dict[str, str]) -> datetime | None:
    if "year" not in fields:
        return None
    try:
        return datetime(*(int(fields.get(name, "0")) for name in _MOMENT))  # type: ignore[arg-type]  # noqa: DTZ001 - naive by purpose
    except ValueError:
        return None


def _compiled(template: str) -> re.Pattern[str]:
    """The template as an expression without ambiguity. Raises ValueError. `re` keeps those in use compiled."""
    parts: list[str] = []
    used: list[str] = []
    before = ""  # the open field that the next piece has to end
    for name, literal, brace in _PIECE.findall(template):
        if brace or (not literal and name not in _FIELDS):
            raise ValueError(f"{brace or '{' + name + '}'} is no field; there are {', '.join(_FIELDS)}")
        if before and (not literal or re.match(_NOT_AFTER.get(before, _WORD), literal)):
            raise ValueError(f"{{{before}}} must be followed by a character that cannot be part of it")
        before = ""
        if literal:
            parts.append(re.escape(literal))
            continue
        if name in used:
            raise ValueError(f"{{{name}}} stands twice")
        used.append(name)
        parts.append(f"(?P<{name}>{_FIELDS[name]})")
        before = name if name in _OPEN else ""
    moment = [name for name in _MOMENT if name in used]
    if moment and moment[:3] != ["year", "month", "day"]:
        raise ValueError("a time needs {year}, {month} and {day}")
    if tuple(moment) != _MOMENT[: len(moment)]:
        raise ValueError("a time has no gaps: {hour}, then {minute}, then {second}")
    if not used:
        raise ValueError("no field in it")
    return re.compile("".join(parts), re.IGNORECASE | re.ASCII)
