"""What a custody log still tells after its journal was lost: what a new journal may take over from it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dockd.core import checkpoint as notes
from dockd.core.custody import Entry, parse_entry
from dockd.core.custody_check import Anchor, verify_log
from dockd.core.receipts import NO_PREVIOUS
from dockd.errors import VerificationFailed
from dockd.keep import aside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dockd.core.sshsig import PublicKey
    from dockd.model import StationId


@dataclass(slots=True, kw_only=True)
class Former:
    """A custody log as it was found. Without `proven` its lines are hints, and no more."""

    generation: int = 0  # 0 where nothing tells
    lines: int = 0
    proven: bool = False  # every link holds, and it is what was signed and witnessed
    problem: str = ""  # why it is not proven
    signed: notes.Checkpoint | None = None  # by this station
    witnessed: notes.Checkpoint | None = None  # by the store, too, as the note beside the log says
    epoch: int = 0  # the newest
    dockings: dict[str, Entry] = field(default_factory=dict)
    enrolments: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)  # to operator and reason
    receipts: dict[str, tuple[int, str]] = field(default_factory=dict)  # of each store the last one: number and digest


def read_former(custody: Path, station: StationId, key: PublicKey) -> Former:
    """Read a custody directory. Raises OSError where a file cannot be read; what is wrong is in the result."""
    former = Former()
    note, witnessed = _optional(custody / "checkpoint"), _optional(custody / "witnessed")
    former.signed, former.witnessed = _head(note, station, key), _head(witnessed, station, key)
    head = former.signed or former.witnessed
    if head is not None:
        former.generation = int(head.origin.rpartition("/")[2])
    if not (custody / aside.LOG).is_file():
        former.problem = "there is no custody.jsonl"
        return former
    anchors = [former.witnessed] if former.witnessed else []
    report = verify_log(
        _noting(former, custody / aside.LOG),
        note,
        origin=notes.origin_of(station, former.generation or 1),
        public=key,
        anchors=[Anchor(name="custody/witnessed", size=one.size, root=one.root) for one in anchors],
    )
    former.lines = report.lines
    former.proven = report.whole
    former.problem = "" if report.whole else report.defects[0].text
    return former


def _head(note: bytes | None, station: StationId, key: PublicKey) -> notes.Checkpoint | None:
    """The checkpoint of a note by this station; None where it is none."""
    origin = (note or b"").split(b"\n", 1)[0].decode(errors="replace")
    named, _, generation = origin.removeprefix("dockd/").partition("/")
    if note is None or named != station or not (generation.isascii() and generation.isdecimal()):
        return None
    try:
        return notes.parse_and_verify(note, origin, key)
    except VerificationFailed:
        return None


def _noting(former: Former, log: Path) -> Iterator[bytes]:
    """Pass the lines on, and note what they tell."""
    for line in aside.lines_of(log):
        # What is wrong with a line, the check of the whole log says.
        with contextlib.suppress(VerificationFailed, ValueError, KeyError, TypeError):
            _note(former, parse_entry(line.removesuffix(b"\n")))
        yield line


def _note(former: Former, entry: Entry) -> None:
    details = entry.details
    former.epoch = max(former.epoch, _number(details, "epoch"))
    match entry.event:
        case "docking.admitted" if entry.docking is not None:
            former.dockings[entry.docking] = entry
        case "camera.enrolled":
            former.enrolments[_enrolled(entry)] = (str(details["operator"]), str(details["reason"]))
        case "camera.forgotten":
            former.enrolments.pop(_enrolled(entry), None)
        case "acquisition.stored" if "receipt_seq" in details:  # as it was written when there was one store
            known = former.receipts.get(str(details["store"]), (0, NO_PREVIOUS))
            said = _number(details, "receipt_seq"), str(details["receipt"])
            former.receipts[str(details["store"])] = max(known, said)
        case "delivery.confirmed" if "receipt_seq" in details:
            known = former.receipts.get(str(details["store"]), (0, NO_PREVIOUS))
            said = _number(details, "receipt_seq"), str(details["confirmation"])
            former.receipts[str(details["store"])] = max(known, said)
        case "log.rebuilt":  # this log, too, was begun anew: what it took over then
            for store, (seq, digest) in dict(details.get("receipts", {})).items():
                former.receipts[store] = (int(seq), str(digest))


def _number(details: Any, key: str) -> int:
    value = details.get(key)
    return value if isinstance(value, int) else 0


def _enrolled(entry: Entry) -> tuple[str, str]:
    return ("serial", entry.camera) if entry.camera is not None else ("profile", str(entry.details["profile"]))


def _optional(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
