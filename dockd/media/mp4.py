"""MP4 and QuickTime files (ISO/IEC 14496-12): a walk over the boxes, as the bytes come by.

Checked: that the boxes follow each other up to the end of the file; that there is an index (moov), wherever it is; that
every chunk of every track, and every run of samples of a fragmented file, lies inside an mdat that is there; that coded
media is not zeros. Damage is what the index names and the file does not have. Space that no sample uses, padding,
silence, and what a maker put behind the last box or into boxes of his own lose nothing, and are a note at most.

Not checked: what the coded pictures say, edit lists, user fields. A fragmented file that was cut exactly between two
fragments cannot be told from a shorter recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from dockd.media.extents import Extents
from dockd.media.findings import Findings
from dockd.media.mp4_index import CONTAINERS, TABLES_BYTES, Index
from dockd.media.zeros import ZeroRuns, ZeroTail
from dockd.model import Verdict

MAX_BOXES = 1_500_000  # walked; a recording of 12 hours in fragments of 0.5 s has 1,100,000
FIRST_BOXES = frozenset(
    (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"sidx", b"uuid")
)
# Boxes that may hold zeros at the end of a file, padding above all.
_KNOWN = FIRST_BOXES | {b"mfra", b"meta", b"udta", b"emsg", b"prft", b"pdin", b"ssix", b"junk", b"PICT", b"meco"}
_SHORT_HEADER, _LONG_HEADER = 8, 16
_HEADER = Struct(">I4s")
_TO_THE_END = 1 << 64  # where a box ends that has size 0
_PRINTABLE = range(0x20, 0x7F)
_COPYRIGHT = 0xA9  # in Mac Roman


@dataclass(slots=True)
class _Box:
    kind: bytes
    start: int  # of its header
    end: int  # of its payload

    @property
    def name(self) -> str:
        return "".join(chr(byte) if byte in _PRINTABLE else f"\\x{byte:02x}" for byte in self.kind)


class Mp4Parser:
    """Push parser of one file, of which `max_boxes` are walked and `tables_bytes` of sample tables kept."""

    def __init__(self, *, max_boxes: int = MAX_BOXES, tables_bytes: int = TABLES_BYTES) -> None:
        self._max_boxes = max_boxes
        self._findings = Findings()
        self._index = Index(self._findings, tables_bytes=tables_bytes)
        self._media = Extents()
        self._media_zeros = ZeroRuns()
        self._at = 0  # bytes consumed
        self._boxes = 0
        self._header = bytearray()
        self._open: list[_Box] = []  # containers around here, outermost first
        self._box: _Box | None = None  # whose payload is coming by
        self._collected: bytearray | None = None  # of that payload
        self._zeros: ZeroTail | None = None  # over that payload, or over what follows the last box
        self._unknown: ZeroTail | None = None  # over a box of unknown type, while nothing follows it
        self._strayed = False  # what comes is no box
        self._unwalked = False  # too many boxes

    def feed(self, offset: int, block: memoryview) -> None:  # noqa: ARG002  blocks follow each other
        """Take the next bytes. Costs a few steps for each box that begins or ends in them, not for each byte."""
        position, size = 0, len(block)
        while position < size:
            if self._box is not None:
                count = min(size - position, self._box.end - self._at)
                self._payload(block[position : position + count])
            elif self._strayed:
                count = size - position
                self._stray(block[position:])
            elif self._unwalked:
                return
            else:
                count = self._header_bytes(block, position)
            self._at += count
            position += count
            self._settle()

    # --- one step

    def _header_bytes(self, block: memoryview, position: int) -> int:
        """Take bytes of a header; how many."""
        left, limit = len(block) - position, self._limit() - self._at
        if left >= _SHORT_HEADER <= limit and not self._header:
            self._header += block[position : position + _SHORT_HEADER]
            return _SHORT_HEADER
        need = _LONG_HEADER if self._header[:4] == b"\0\0\0\1" else _SHORT_HEADER
        count = min(left, need - len(self._header), limit)
        self._header += block[position : position + count]
        return count

    def _settle(self) -> None:
        """After some bytes: end what ends here, begin what begins here."""
        if self._box is not None:
            if self._at >= self._box.end:
                self._end_box(self._box)
        elif len(self._header) >= _SHORT_HEADER:
            self._begin_box()
        while self._box is None and self._open and self._at >= self._open[-1].end:
            self._leave(self._open.pop())

    def _limit(self) -> int:
        return self._open[-1].end if self._open else _TO_THE_END

    def _leave(self, container: _Box) -> None:
        if self._header and any(self._header):
            self._findings.damage(f"the index is damaged: {container.name} at byte {container.start} ends amiss")
        self._header.clear()
        self._index.closed(container.kind)

    def _payload(self, piece: memoryview) -> None:
        if self._collected is not None:
            self._collected += piece
        elif self._in_media:
            self._media_zeros.feed(self._at, piece)
        elif self._zeros is not None:
            self._zeros.feed(piece)

    @property
    def _in_media(self) -> bool:
        return self._box is not None and self._box.kind == b"mdat" and not self._open

    def _stray(self, piece: memoryview) -> None:
        if self._zeros is not None:
            self._zeros.feed(piece)

    def _begin_box(self) -> None:
        size, kind = _HEADER.unpack_from(self._header)
        length = len(self._header)
        if size == 1:
            if length < _LONG_HEADER:
                return
            size = int.from_bytes(self._header[8:], "big")
        start, self._unknown = self._at - length, None
        parent = self._open[-1] if self._open else None
        if size == 0 and parent is not None:
            # QuickTime ends some lists of boxes with a zero; nothing that counts can follow
            self._header.clear()
            self._box = _Box(b"", start, parent.end)
            return
        limit = self._limit()
        end = min(start + size, _TO_THE_END - 1) if size else limit
        if (size and size < length) or not _is_kind(kind):
            self._no_box(start, parent)
            return
        self._header.clear()
        if end > limit and parent is not None:
            self._findings.damage(f"the {_Box(kind, 0, 0).name} box at byte {start} runs past the end of its parent")
            end = limit
        self._boxes += 1
        if self._boxes > self._max_boxes:
            self._findings.note(f"not checked: what follows the first {self._max_boxes} boxes, from byte {start}")
            self._unwalked = True
            return
        self._enter(_Box(kind, start, end), parent.kind if parent is not None else b"")

    def _enter(self, box: _Box, parent: bytes) -> None:
        if box.kind in CONTAINERS.get(parent, ()):
            self._index.opened(box.kind, box.start)
            self._open.append(box)
            return
        if parent:
            if self._index.wants(parent, box.kind, box.end - self._at):
                self._collected = bytearray()
        elif box.kind == b"mdat":
            self._media.add(self._at, min(box.end, _TO_THE_END >> 3))
        elif box.kind not in _KNOWN:
            self._zeros = ZeroTail()
        self._box = box
        if self._at >= box.end:
            self._end_box(box)

    def _end_box(self, box: _Box) -> None:
        if self._collected is not None:
            self._index.leaf(box.kind, self._collected)
        elif self._in_media:
            self._media_zeros.finish(self._at)
        else:
            self._unknown = self._zeros
        self._box = self._collected = self._zeros = None

    def _no_box(self, start: int, parent: _Box | None) -> None:
        header = memoryview(bytes(self._header))
        self._header.clear()
        if parent is not None:
            self._findings.damage(f"the index is damaged: there is no box at byte {start}, inside a {parent.name} box")
            self._box = _Box(b"", start, parent.end)
            return
        self._strayed, self._zeros = True, ZeroTail()
        self._zeros.feed(header)

    # --- the end

    def finish(self, size: int) -> Verdict:
        """The verdict. `size` is the number of bytes that were fed."""
        cut = self._cut_box(size)
        for box in self._open:
            if box.end == _TO_THE_END and cut is None:
                self._index.closed(box.kind)
        self._media.limit(size)
        if cut is not None:
            self._findings.damage(
                f"the recording was cut: the {cut.name} box at byte {cut.start} should end at byte {cut.end}, "
                f"{cut.end - size} bytes past the end of the file"
            )
        else:
            self._after_the_last_header()
        self._after_the_last_box()
        if not self._index.indexes and not self._unwalked:
            self._findings.damage("the recording was cut: it has no whole index (moov)")
        if not self._unwalked:
            self._index.compare(self._media, self._media_zeros)
        return self._findings.verdict(
            "fragmented-mp4" if self._index.fragmented else "mp4",
            duration_ms=self._index.duration_ms(),
            recorded_at=self._index.recorded_at(),
        )

    def _cut_box(self, size: int) -> _Box | None:
        """The outermost box that should go on beyond the end of the file."""
        boxes = [*self._open, self._box] if self._box is not None else self._open
        return next((box for box in boxes if size < box.end < _TO_THE_END), None)

    def _after_the_last_box(self) -> None:
        zeros = self._zeros
        if self._strayed and zeros is not None:
            self._judge_stray(zeros)
        elif self._in_media:
            self._media_zeros.finish(self._at)
        else:
            zeros = zeros or self._unknown
            if zeros is not None and zeros.notable:
                self._say(f"the last {zeros.run_bytes} bytes of the file are zeros, in an unknown box")

    def _after_the_last_header(self) -> None:
        """A few bytes too few for a header: the beginning of a box that was cut, unless they are zeros."""
        zeros = ZeroTail()
        zeros.feed(memoryview(bytes(self._header)))
        self._judge_stray(zeros)

    def _judge_stray(self, zeros: ZeroTail) -> None:
        start = self._at - zeros.seen_bytes
        if zeros.notable:
            self._say(f"the last {zeros.run_bytes} bytes of the file are zeros, outside any box")
        if not zeros.only_zeros:
            self._say(f"{zeros.seen_bytes} bytes from byte {start} on are no MP4 boxes")

    def _say(self, what: str) -> None:
        """Where the index is whole nothing of the recording can follow it; fragments may have followed."""
        if self._index.indexes and not self._index.fragmented:
            self._findings.note(what)
        else:
            self._findings.damage(what)


_USABLE_FIRST = bytes((*_PRINTABLE, _COPYRIGHT))
_USABLE = bytes(_PRINTABLE)


def _is_kind(kind: bytes) -> bool:
    """Types in use are printable; some of QuickTime's begin with a copyright sign."""
    return kind[0] in _USABLE_FIRST and not kind[1:].translate(None, _USABLE)
