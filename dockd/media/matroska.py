"""Matroska and WebM files (RFC 8794 EBML, RFC 9559 Matroska): a walk over the elements, as the bytes come by.

Checked: that the elements of the segment follow each other up to its end, and that the file has all of it; that there
are tracks and clusters; that no cluster ends in zeros, unless something in it is uncoded; that what the seek head and
the cues name begins inside the file; that the last cluster is as late as the stated duration lets expect. Not checked:
the blocks inside clusters. A recording without a stated length that was cut exactly between two clusters cannot be told
from a shorter one, unless its cues or its duration say more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dockd.media.findings import Findings
from dockd.media.zeros import ZeroTail
from dockd.model import Verdict

MAX_ELEMENTS = 500_000  # walked; a recording of 12 hours in clusters of 1 s has 43,200
EBML_MAGIC = b"\x1a\x45\xdf\xa3"

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_SEEK_HEAD, _INFO, _TRACKS, _CUES = 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B
_CHAPTERS, _ATTACHMENTS, _TAGS = 0x1043A770, 0x1941A469, 0x1254C367
_VOID, _CRC32 = 0xEC, 0xBF
_TOP_LEVEL = frozenset((_CLUSTER, _SEEK_HEAD, _INFO, _TRACKS, _CUES, _CHAPTERS, _ATTACHMENTS, _TAGS, _VOID, _CRC32))
_IN_CLUSTER = frozenset((0xE7, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0x5854, _VOID, _CRC32))  # of a cluster without a length
_TIMESTAMP = 0xE7
_TIMESTAMP_SCALE, _DURATION, _DATE_UTC = 0x2AD7B1, 0x4489, 0x4461  # in Info
_SEEK, _SEEK_POSITION = 0x4DBB, 0x53AC
_CUE_POINT, _CUE_TRACK_POSITIONS, _CUE_CLUSTER_POSITION = 0xBB, 0xB7, 0xF1
_PARENTS = frozenset((_SEEK, _CUE_POINT, _CUE_TRACK_POSITIONS))
_COLLECTED = frozenset((_SEEK_HEAD, _INFO, _TRACKS, _CUES))
_MOST_BYTES = 8 * 1024 * 1024  # of one of these; cues of 12 hours have some 1.5 MiB
_HEADER_BYTES = 12  # the longest: an id of 4 bytes and a length of 8
_GLANCE_BYTES = 64  # of a cluster, for its time stamp
_TO_THE_END = 1 << 64
_EPOCH = datetime(2001, 1, 1, tzinfo=UTC)  # of DateUTC, in nanoseconds
_DEFAULT_SCALE_NS = 1_000_000
_UNCODED = (b"A_PCM/", b"V_UNCOMPRESSED")
_LATE_S, _LATE_SHARE = 30.0, 0.05  # by so much, or so much of it, the last cluster may begin before the stated end


def is_matroska(head: bytes) -> bool:
    """The first bytes are those of an EBML file."""
    return head[:4] == EBML_MAGIC


class _BadElement(Exception):
    """What is here is no element."""


@dataclass(frozen=True, slots=True)
class _Element:
    kind: int
    start: int  # of its header
    body: int
    end: int  # _TO_THE_END where it states no length


def _varint(data: bytes | bytearray, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """The number at `at` and where it ends; None where more bytes are needed (RFC 8794, section 4)."""
    if at >= len(data):
        return None
    length = 9 - data[at].bit_length()
    if length > (4 if keep_marker else 8):
        raise _BadElement
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), at + length


def _header(data: bytes | bytearray, at: int, base: int) -> _Element | None:
    """The element whose header is at `at`; `base` is where `data` begins. None where more bytes are needed."""
    kind = _varint(data, at, keep_marker=True)
    size = _varint(data, kind[1], keep_marker=False) if kind else None
    if kind is None or size is None:
        return None
    body = base + size[1]
    unknown = size[0] == (1 << 7 * (size[1] - kind[1])) - 1
    return _Element(kind[0], base + at, body, _TO_THE_END if unknown else body + size[0])


class MatroskaParser:
    """Push parser of one file, of which `max_elements` are walked."""

    def __init__(self, *, max_elements: int = MAX_ELEMENTS) -> None:
        self._max_elements = max_elements
        self._findings = Findings()
        self._at = 0  # bytes consumed
        self._pending = bytearray()  # of a header
        self._elements = 0
        self._segment: _Element | None = None
        self._element: _Element | None = None  # whose body is coming by
        self._collected: bytearray | None = None  # of that body
        self._glance: bytearray | None = None  # the beginning of a cluster
        self._zeros: ZeroTail | None = None  # over that body
        self._endings = 0  # clusters that end in zeros
        self._stray: ZeroTail | None = None  # what comes is no element
        self._in_cluster = False  # one without a length is open
        self._unwalked = False
        self._seen: set[int] = set()
        self._scale_ns, self._duration, self._date_ns = _DEFAULT_SCALE_NS, 0.0, 0
        self._last_stamp = 0
        self._furthest = 0  # where the last cluster or part that is named begins
        self._uncoded = False

    def feed(self, offset: int, block: memoryview) -> None:  # noqa: ARG002  blocks follow each other
        """Take the next bytes. Costs a few steps for each element of the segment, not for each byte."""
        position, size = 0, len(block)
        while position < size:
            if self._unwalked:
                return
            if self._stray is not None:
                self._stray.feed(block[position:])
                count = size - position
            elif self._element is not None:
                count = min(size - position, self._element.end - self._at)
                self._body(block[position : position + count])
            else:
                count = min(size - position, _HEADER_BYTES - len(self._pending))
                self._pending += block[position : position + count]
                count = self._begin(count)
            self._at += count
            position += count
            if self._element is not None and self._at >= self._element.end:
                self._end(self._element)

    def _begin(self, taken: int) -> int:
        """Begin the element whose header has come, if it has; returns how many of the bytes just taken belong to it."""
        base = self._at + taken - len(self._pending)
        try:
            element = _header(self._pending, 0, base)
        except _BadElement:
            element = _Element(0, base, base, base)
        if element is None:
            return taken
        known = element.kind in _TOP_LEVEL or (self._in_cluster and element.kind in _IN_CLUSTER)
        ended = self._segment is not None and element.start >= self._segment.end
        if element.kind == _SEGMENT and self._segment is None:
            self._segment = element
        elif self._segment is None and element.start == 0:
            self._element = element  # the EBML header
        elif self._segment is None or ended or not (known or element.kind >> 7):
            self._stray = ZeroTail()
            self._stray.feed(memoryview(bytes(self._pending)))
            self._pending.clear()
            return taken
        else:
            self._enter(element)
        back = len(self._pending) - (element.body - base)
        self._pending.clear()
        return taken - back

    def _enter(self, element: _Element) -> None:
        self._elements += 1
        if self._elements > self._max_elements:
            self._findings.note(f"not checked: what follows the first {self._max_elements} elements")
            self._unwalked = True
            return
        self._seen.add(element.kind)
        if element.kind in _TOP_LEVEL:
            self._in_cluster = False
        if element.kind == _CLUSTER and element.end == _TO_THE_END:
            self._in_cluster = True
            return
        if self._segment is not None and element.end > self._segment.end:
            self._findings.damage(f"the element at byte {element.start} runs past the end of its segment")
        self._element = element
        if element.kind in _COLLECTED and element.end - element.body <= _MOST_BYTES:
            self._collected = bytearray()
        elif element.kind == _CLUSTER:
            self._glance, self._zeros = bytearray(), ZeroTail()
        elif element.kind == _TIMESTAMP and element.end - element.body <= 8:  # noqa: PLR2004  the longest number
            self._collected = bytearray()

    def _body(self, piece: memoryview) -> None:
        if self._collected is not None:
            self._collected += piece
        if self._glance is not None and len(self._glance) < _GLANCE_BYTES:
            self._glance += piece[: _GLANCE_BYTES - len(self._glance)]
        if self._zeros is not None:
            self._zeros.feed(piece)

    def _end(self, element: _Element) -> None:
        if self._collected is not None:
            self._take(element.kind, self._collected)
        if self._glance is not None:
            for kind, body in _children(self._glance, deep=False):
                if kind == _TIMESTAMP:
                    self._last_stamp = max(self._last_stamp, int.from_bytes(body, "big"))
        self._count_zeros()
        self._element = self._collected = self._glance = self._zeros = None

    def _count_zeros(self) -> None:
        if self._zeros is not None and self._zeros.notable:
            self._endings += 1

    def _take(self, kind: int, body: bytearray) -> None:
        if kind == _TIMESTAMP:
            self._last_stamp = max(self._last_stamp, int.from_bytes(body, "big"))
        elif kind == _TRACKS:
            self._uncoded = any(codec in body for codec in _UNCODED)
        elif kind == _INFO:
            for child, value in _children(body, deep=False):
                self._info(child, value)
        else:
            start = self._segment.body if self._segment is not None else 0
            for child, value in _children(body, deep=True):
                if child in (_SEEK_POSITION, _CUE_CLUSTER_POSITION):
                    self._furthest = max(self._furthest, start + int.from_bytes(value, "big"))

    def _info(self, kind: int, value: bytes) -> None:
        if kind == _TIMESTAMP_SCALE:
            self._scale_ns = int.from_bytes(value, "big") or _DEFAULT_SCALE_NS
        elif kind == _DURATION and len(value) in (4, 8):
            (self._duration,) = struct.unpack(">f" if len(value) == 4 else ">d", value)  # noqa: PLR2004
        elif kind == _DATE_UTC and len(value) == 8:  # noqa: PLR2004  a signed number of nanoseconds
            self._date_ns = int.from_bytes(value, "big", signed=True)

    # --- the end

    def finish(self, size: int) -> Verdict:
        """The verdict. `size` is the number of bytes that were fed."""
        findings = self._findings
        cut = next((one for one in (self._segment, self._element) if one and size < one.end < _TO_THE_END), None)
        if cut is not None:
            findings.damage(
                f"the recording was cut: the element at byte {cut.start} should end at byte {cut.end}, "
                f"{cut.end - size} bytes past the end of the file"
            )
        if self._element is not None:
            self._count_zeros()
        if self._endings and not self._uncoded:
            findings.damage(f"{self._endings} clusters end in zeros")
        self._judge_stray(size)
        if not self._unwalked:
            self._missing(size)
        return findings.verdict("matroska", duration_ms=self._duration_ms(), recorded_at=self._recorded_at())

    def _judge_stray(self, size: int) -> None:
        if self._pending and any(self._pending):
            self._findings.damage(f"{len(self._pending)} bytes at the end of the file are no element")
        if self._stray is None:
            return
        start = size - self._stray.seen_bytes
        behind = self._segment is not None and self._segment.end <= start
        say = self._findings.note if behind else self._findings.damage
        say(f"{self._stray.seen_bytes} bytes from byte {start} on are no elements")

    def _missing(self, size: int) -> None:
        if _TRACKS not in self._seen:
            self._findings.damage("it has no tracks")
        if _CLUSTER not in self._seen:
            self._findings.damage("the recording was cut: it has no media (clusters)")
        if self._furthest >= size:
            self._findings.damage(
                f"the recording was cut: its index names byte {self._furthest}, the file ends at byte {size}"
            )
        stated_s, reached_s = self._seconds(self._duration), self._seconds(self._last_stamp)
        if (
            stated_s is not None
            and reached_s is not None
            and stated_s - reached_s > max(_LATE_S, stated_s * _LATE_SHARE)
        ):
            self._findings.damage(
                f"the recording was cut: it states {stated_s:.0f} s, and its last cluster begins at {reached_s:.0f} s"
            )

    def _seconds(self, ticks: float) -> float | None:
        seconds = ticks * self._scale_ns / 1e9 if ticks == ticks and abs(ticks) < _TO_THE_END else -1.0  # noqa: PLR0124
        return seconds if 0 <= seconds < 1e9 else None  # noqa: PLR2004  thirty years

    def _duration_ms(self) -> int | None:
        seconds = self._seconds(self._duration)
        return int(seconds * 1000) if seconds else None

    def _recorded_at(self) -> datetime | None:
        if not self._date_ns:
            return None
        try:
            return _EPOCH + timedelta(microseconds=self._date_ns // 1000)
        except OverflowError:
            return None


def _children(body: bytes | bytearray, *, deep: bool) -> Iterator[tuple[int, bytes]]:
    """The elements in `body`, as far as they are whole; with `deep` those inside the parents among them instead."""
    at = 0
    while at < len(body):
        try:
            element = _header(body, at, 0)
        except _BadElement:
            return
        if element is None or element.end > len(body):
            return
        if deep and element.kind in _PARENTS:
            at = element.body  # its children follow
            continue
        yield element.kind, bytes(body[element.body : element.end])
        at = element.end
