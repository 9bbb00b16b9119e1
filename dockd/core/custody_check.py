"""Check a whole custody log, line by line, in bounded memory, and say which line is wrong and how (docs/formats.md).

The links (`seq`, `prev`) tell where a log was changed; the Merkle root under a signature tells that it was, even where
every link after the change was made anew. Neither stands in for the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dockd.core import checkpoint as notes
from dockd.core.custody import FIRST_PREVIOUS, MAX_LINE_BYTES, Entry, parse_entry, previous_hash
from dockd.core.merkle import Frontier
from dockd.core.sshsig import PublicKey
from dockd.errors import VerificationFailed
from dockd.model import StationId

_GENERATION = re.compile(r"[1-9][0-9]*")
_CAP = 1000  # defects, gaps and strays that are kept; the rest is counted


class DefectKind(StrEnum):
    """What is wrong."""

    EDITED = "edited"  # a line is not as it was written, or is no entry at all
    DROPPED = "dropped"  # entries are missing before a line
    REORDERED = "reordered"  # an entry stands at another entry's place
    DUPLICATED = "duplicated"  # an entry stands in the log more than once
    TRUNCATED = "truncated"  # the log ends before what was signed or witnessed does
    ROOT = "root"  # the lines are not those that were signed or witnessed
    CHECKPOINT = "checkpoint"  # there is no checkpoint, or it does not verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One thing that is wrong. Lines are counted from 1, as editors do; in a whole log entry n stands in line n + 1."""

    kind: DefectKind
    line: int | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What somebody signed about the log earlier: at `size` entries its root was `root`. `name` is for people."""

    name: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check found. `whole`: nothing is wrong."""

    origin: str
    station: StationId
    lines: int
    checkpoint: notes.Checkpoint | None  # None where there is none that verifies
    defects: tuple[Defect, ...]
    more_defects: int  # beyond those listed
    notes: tuple[str, ...]  # what is no defect, and worth knowing

    @property
    def whole(self) -> bool:
        """Whether no defect was found."""
        return not self.defects

    @property
    def unsigned(self) -> int:
        """Lines past the checkpoint: not yet signed."""
        return max(0, self.lines - (self.checkpoint.size if self.checkpoint else 0))


def station_of(origin: str) -> StationId:
    """The station that a log's name names. Raises VerificationFailed."""
    parts = origin.split("/")
    if len(parts) != 3 or parts[0] != "dockd" or not _GENERATION.fullmatch(parts[2]):  # noqa: PLR2004
        raise VerificationFailed(f"not the name of a custody log: {origin!r} (expected dockd/<station>/<generation>)")
    return StationId(parts[1])


def verify_log(
    lines: Iterable[bytes], note: bytes | None, *, origin: str, public: PublicKey, anchors: Sequence[Anchor] = ()
) -> Report:
    """Check a log against its checkpoint and against what others witnessed of it.

    Read the checkpoint before the lines: the log of a running station only grows. `lines` come with their LF; one that
    is longer than an entry may come cut to MAX_LINE_BYTES + 1 bytes. Nothing of `lines` is kept. Raises
    VerificationFailed only where `origin` is no log's name; what is wrong with the log is in the report.
    """
    checkpoint, problem = _head(note, origin, public)
    known = list(anchors)
    if checkpoint is not None:
        known.insert(0, Anchor(name="the checkpoint", size=checkpoint.size, root=checkpoint.root))
    verifier = LogVerifier(station=station_of(origin), anchors=known)
    for line in lines:
        verifier.feed(line)
    return verifier.finish(origin=origin, checkpoint=checkpoint, problem=problem)


@dataclass(slots=True, kw_only=True)
class _Line:
    """One line, with what it says of itself."""

    number: int
    digest: str
    entry: Entry | None
    fault: str  # why it is no entry
    torn: bool
    seq: int = -1  # the place that it holds
    blamed: bool = False


class LogVerifier:
    """Takes one line after the other; `finish` gives the report. Looks one line ahead."""

    def __init__(self, *, station: StationId, anchors: Sequence[Anchor]) -> None:
        self._station = station
        self._anchors = sorted(anchors, key=lambda anchor: anchor.size)
        self._signed = max((anchor.size for anchor in anchors), default=0)
        self._frontier = Frontier()
        self._defects: list[Defect] = []
        self._more = 0
        self._notes: list[str] = []
        self._lines = 0
        self._expected = 0  # the entry whose turn it is
        self._held: _Line | None = None  # judged once the line after it is known
        self._last: _Line | None = None  # the newest line at its place
        self._suspects: tuple[_Line, _Line] | None = None  # one of the two was edited: the next line tells which
        self._gaps: list[tuple[int, int, int]] = []  # (line, first missing entry, last)
        self._strays: list[tuple[int, int]] = []  # (line, entry) that stand where another belongs
        self._differing: list[Anchor] = []
        self._agreed = 0  # lines at the front that someone's signature vouches for
        self._compare()

    def feed(self, raw: bytes) -> None:
        """The next line, with its LF if it has one."""
        content = raw.removesuffix(b"\n")
        self._lines += 1
        entry, fault = self._parse(content)
        line = _Line(
            number=self._lines,
            digest=previous_hash(content),
            entry=entry,
            fault=fault,
            torn=not raw.endswith(b"\n") and len(content) <= MAX_LINE_BYTES,
        )
        self._frontier.append(content)
        self._compare()
        held, self._held = self._held, line
        if held is not None:
            self._judge(held, line)

    def finish(self, *, origin: str, checkpoint: notes.Checkpoint | None, problem: str) -> Report:
        """The report, after the last line. `problem` says what is wrong with the checkpoint itself."""
        if self._held is not None:
            self._judge_last(self._held)
        self._settle_suspects()
        self._settle_places()
        self._settle_anchors()
        if problem:
            self._blame_at(DefectKind.CHECKPOINT, None, problem)
        return Report(
            origin=origin,
            station=self._station,
            lines=self._lines,
            checkpoint=checkpoint,
            defects=tuple(sorted(self._defects, key=lambda defect: (defect.line is None, defect.line or 0))),
            more_defects=self._more,
            notes=tuple(self._notes),
        )

    # --- one line

    def _parse(self, content: bytes) -> tuple[Entry | None, str]:
        try:
            entry = parse_entry(content)
        except VerificationFailed as error:
            return None, str(error)
        if entry.station != self._station:
            return entry, f"it names station {entry.station}, the log is that of {self._station}"
        return entry, ""

    def _judge_last(self, line: _Line) -> None:
        if not line.torn:
            self._judge(line, None)
        elif line.number > self._signed:
            self._lines -= 1
            self._notes.append(
                f"line {line.number} is cut off, as a power cut leaves it; it is not signed yet, and the station "
                "completes it when it starts"
            )
        else:
            line.seq = self._expected
            self._expected += 1
            self._blame(DefectKind.TRUNCATED, line, "it is cut off within what was signed")

    def _judge(self, line: _Line, following: _Line | None) -> None:
        """Find the place that `line` holds, then check it there."""
        if line.torn:
            line.fault = line.fault or "it has no line end"
        seq = self._place(line, following)
        if seq is None:
            return
        line.seq = seq
        if seq > self._expected:
            self._note_gap(line.number, self._expected, seq - 1)
        self._expected = seq + 1
        if line.fault:
            self._blame(DefectKind.EDITED, line, f"it was edited or damaged: {line.fault}")
        elif line.entry is not None and line.entry.seq != seq:
            self._blame(
                DefectKind.EDITED, line, f"it was edited: it says that it is entry {line.entry.seq}, where {seq} stood"
            )
        self._check_link(line)
        self._last = line

    def _place(self, line: _Line, following: _Line | None) -> int | None:
        """The entry whose place `line` holds; None where it stands between others, and belongs elsewhere."""
        expected = self._expected
        after = following.entry.seq if following is not None and following.entry is not None else None
        if line.entry is None:
            if after == expected and self._links_to_last(following):
                self._blame(DefectKind.EDITED, line, f"it does not belong here, and was put in: {line.fault}")
                return None
            return expected
        seq = line.entry.seq
        if seq == expected or self._links_to_last(line):
            return expected
        if seq < expected or after == expected:
            self._note_stray(line.number, seq)
            return None
        if after is None or after > seq or after < expected:
            return seq  # those in between are missing
        return expected  # the line after it goes on as if nothing were amiss

    def _links_to_last(self, line: _Line | None) -> bool:
        """Whether `line` was written right after the newest line at its place: whatever number it bears."""
        before = self._last.digest if self._last is not None else FIRST_PREVIOUS
        return line is not None and line.entry is not None and line.entry.prev == before

    def _check_link(self, line: _Line) -> None:
        before = self._last
        contiguous = before is not None and before.seq == line.seq - 1
        if line.seq == 0:
            if line.entry is not None and line.entry.prev != FIRST_PREVIOUS:
                self._blame(DefectKind.EDITED, line, "it was edited: as the first entry its prev has to be 64 zeros")
            return
        if before is None or not contiguous or line.entry is None:
            self._settle_suspects()
            return
        fits = line.entry.prev == before.digest
        if self._suspects is not None:
            # `before` is the later suspect, and this line tells how it read when it was written.
            earlier, later = self._suspects
            self._suspects = None
            if fits:
                self._blame(DefectKind.EDITED, earlier, f"it was edited: line {later.number} was written after another")
            else:
                self._blame(
                    DefectKind.EDITED, later, f"it was edited (and line {earlier.number} may have been edited, too)"
                )
        if not fits and not before.blamed and not line.blamed:
            self._suspects = (before, line)

    def _settle_suspects(self) -> None:
        """No line tells which of the two it was."""
        if self._suspects is None:
            return
        earlier, later = self._suspects
        self._suspects = None
        self._blame(
            DefectKind.EDITED,
            earlier,
            f"it is not the line that line {later.number} was written after: one of the two was edited",
        )

    # --- the whole

    def _compare(self) -> None:
        """Compare the root with what was signed of just this many lines."""
        while self._anchors and self._anchors[0].size <= self._frontier.size:
            anchor = self._anchors.pop(0)
            if self._frontier.root() != anchor.root:
                self._differing.append(anchor)
            elif not self._differing:
                self._agreed = anchor.size

    def _settle_places(self) -> None:
        """Tell what was moved from what stands twice, and from what is missing."""
        for kind, first_line, last_line, first, last in _runs(self._classified()):
            many = last > first
            lines = f"lines {first_line} to {last_line}" if many else "it"
            entries = f"entries {first} to {last}" if many else f"entry {first}"
            if kind is DefectKind.REORDERED:
                text = f"out of order: {lines} hold{'' if many else 's'} {entries}, which belong{'' if many else 's'}"
                text += " elsewhere"
            else:
                text = f"duplicated: {lines} claim{'' if many else 's'} to be {entries}, which another line is already"
            self._blame_at(kind, first_line, text)
        for line, first, last in self._gaps:
            entries = f"entries {first} to {last} are" if last > first else f"entry {first} is"
            self._blame_at(DefectKind.DROPPED, line, f"dropped: {entries} missing before it")

    def _classified(self) -> Iterator[tuple[DefectKind, int, int]]:
        for line, seq in self._strays:
            moved = seq >= self._expected
            for at, (gap_line, first, last) in enumerate(self._gaps):
                if first <= seq <= last:
                    rest = [(gap_line, first, seq - 1), (gap_line, seq + 1, last)]
                    self._gaps[at : at + 1] = [gap for gap in rest if gap[1] <= gap[2]]
                    moved = True
                    break
            yield (DefectKind.REORDERED if moved else DefectKind.DUPLICATED), line, seq

    def _settle_anchors(self) -> None:
        for anchor in self._differing:
            text = f"the first {anchor.size} lines are not those of {anchor.name}: their Merkle root is another"
            if any(defect.line is not None and defect.line <= anchor.size for defect in self._defects):
                self._blame_at(DefectKind.ROOT, None, text)
            else:
                text += (
                    f". As every link holds, line {anchor.size} itself was edited, or all lines from some line on (not "
                    f"before line {self._agreed + 1}) were written anew"
                )
                self._blame_at(DefectKind.ROOT, anchor.size, text)
        for anchor in self._anchors:
            size, lines = anchor.size, self._lines
            if self._expected < size:
                text = f"truncated: the log ends after line {lines}, {anchor.name} has {size} entries"
                self._blame_at(DefectKind.TRUNCATED, lines + 1, text)
            else:
                text = f"{anchor.name} has {size} entries, the log only {lines} lines: its root cannot be compared"
                self._blame_at(DefectKind.ROOT, None, text)

    # --- keeping

    def _note_gap(self, line: int, first: int, last: int) -> None:
        if len(self._gaps) < _CAP:
            self._gaps.append((line, first, last))
        else:
            self._more += 1

    def _note_stray(self, line: int, seq: int) -> None:
        if len(self._strays) < _CAP:
            self._strays.append((line, seq))
        else:
            self._more += 1

    def _blame(self, kind: DefectKind, line: _Line, text: str) -> None:
        """A line is blamed once: what follows from its fault is no second one."""
        if not line.blamed:
            line.blamed = True
            self._blame_at(kind, line.number, text)

    def _blame_at(self, kind: DefectKind, line: int | None, text: str) -> None:
        if len(self._defects) < _CAP:
            self._defects.append(Defect(kind=kind, line=line, text=text))
        else:
            self._more += 1


def _head(note: bytes | None, origin: str, public: PublicKey) -> tuple[notes.Checkpoint | None, str]:
    if note is None:
        return None, "there is no checkpoint beside the log: nothing of it is signed"
    try:
        return notes.parse_and_verify(note, origin, public), ""
    except VerificationFailed as error:
        return None, f"the checkpoint does not verify: {error}"


def _runs(
    strays: Iterable[tuple[DefectKind, int, int]],
) -> Iterator[tuple[DefectKind, int, int, int, int]]:
    """Neighbouring strays together, as (kind, first line, last line, first entry, last entry)."""
    run: list[tuple[DefectKind, int, int]] = []
    for stray in strays:
        if run and stray != (run[-1][0], run[-1][1] + 1, run[-1][2] + 1):
            yield run[0][0], run[0][1], run[-1][1], run[0][2], run[-1][2]
            run = []
        run.append(stray)
    if run:
        yield run[0][0], run[0][1], run[-1][1], run[0][2], run[-1][2]
