"""AVI files: a walk over RIFF chunks, OpenDML's further RIFF forms included, as the bytes come by.

Checked: that chunks follow each other up to the end of the file, that the stream headers and the media (movi) are
there, that every entry of the old index (idx1) lies inside the media and every entry of OpenDML's super-indexes (indx)
inside the file, and that no media ends in zeros. Not checked: the chunks inside the media, and OpenDML's inner indexes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dockd.media.avi_index import OldIndex, super_index_end
from dockd.media.findings import Findings
from dockd.media.zeros import ZeroTail
from dockd.model import Verdict

MAX_CHUNKS = 100_000  # outside the media; a recording has some dozens
_LEAF_BYTES = 1024 * 1024
_HEADER_BYTES, _LIST_HEADER_BYTES = 8, 12
_LISTS = (b"RIFF", b"LIST")
_NEVER_WRITTEN = (0, 0xFFFFFFFF)  # lengths of a recorder that did not come to its end
_TO_THE_END = 1 << 64
_PRINTABLE = range(0x20, 0x7F)
_HAS_INDEX = 0x10  # AVIF_HASINDEX
_AVIH_BYTES = 20  # of which the last four are looked at
_OPENED: Mapping[bytes, tuple[bytes, ...]] = {
    b"": (b"AVI ", b"AVIX"),
    b"AVI ": (b"hdrl",),
    b"hdrl": (b"strl", b"odml"),
}
_LEAVES: Mapping[bytes, tuple[bytes, ...]] = {
    b"hdrl": (b"avih",),
    b"odml": (b"dmlh",),
    b"strl": (b"strh", b"strf", b"indx"),
}
_STRH_BYTES = 36  # up to the length
_PLAIN_PICTURES = (0, 0x20424752, 0x20424944)  # BI_RGB, "RGB ", "DIB ": not coded
_PLAIN_SOUND = (1, 3, 6, 7, 0xFFFE)  # PCM, float, A-law, mu-law, extensible: silence may be zeros
_MOST_STREAMS = 100  # that chunks can name, by two digits
_MOST_NULS = 65536  # skipped one header after the other; more of them are judged as one stretch
_SLACK_BYTES = 64  # so far a form's length may be off, with all its parts there


def is_avi(head: bytes) -> bool:
    """The first bytes are those of an AVI file."""
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


@dataclass(slots=True)
class _Chunk:
    kind: bytes  # of a list or a form: its type
    start: int  # of its header
    end: int  # of its payload, and of the byte that pads it

    @property
    def name(self) -> str:
        return self.kind.decode("ascii").strip()


@dataclass(slots=True)
class _Seen:
    """What the headers said, and which parts there were."""

    headers: bool = False
    media: tuple[int, int] | None = None  # of the first movi: where that word stands, and its end
    has_index: bool = False
    wants_index: bool = False
    frames: int = 0
    frame_us: int = 0
    furthest: int = 0  # where the last chunk that a super-index names ends
    zeros: tuple[int, int] | None = None  # that the first movi ends with, where there are many
    streams: int = 0  # strh chunks
    stream_type: bytes = b""  # of the last of them
    coded: set[int] = field(default_factory=set)  # numbers of streams whose chunks are never zeros
    picture_us: int = 0  # duration of the first picture stream, by its own header
    judged: bool = False  # idx1 was there, and knew of the zeros


class AviParser:
    """Push parser of one file, of which `max_chunks` outside the media are walked."""

    def __init__(self, *, max_chunks: int = MAX_CHUNKS) -> None:
        self._max_chunks = max_chunks
        self._findings = Findings()
        self._seen = _Seen()
        self._at = 0  # bytes consumed
        self._chunks = 0
        self._header = bytearray()
        self._open: list[_Chunk] = []  # forms and lists around here, outermost first
        self._chunk: _Chunk | None = None  # whose payload is coming by
        self._collected: bytearray | None = None  # of that payload
        self._index: OldIndex | None = None  # that payload is
        self._zeros: ZeroTail | None = None  # over that payload
        self._unwalked = False  # too many chunks
        self._nuls = 0  # between chunks

    def feed(self, offset: int, block: memoryview) -> None:  # noqa: ARG002  blocks follow each other
        """Take the next bytes. Costs a few steps for each chunk outside the media."""
        position, size = 0, len(block)
        while position < size:
            if self._chunk is not None:
                count = min(size - position, self._chunk.end - self._at)
                self._payload(block[position : position + count])
            else:
                need = _LIST_HEADER_BYTES if self._header[:4] in _LISTS else _HEADER_BYTES
                count = min(size - position, need - len(self._header), self._limit() - self._at)
                self._header += block[position : position + count]
            self._at += count
            position += count
            self._settle()

    # --- one step

    def _limit(self) -> int:
        return self._open[-1].end if self._open else _TO_THE_END

    def _settle(self) -> None:
        """After some bytes: end what ends here, begin what begins here."""
        if self._chunk is not None and self._at >= self._chunk.end:
            self._end_chunk(self._chunk)
        elif self._chunk is None and len(self._header) >= _HEADER_BYTES:
            self._begin_chunk()
        while self._chunk is None and self._open and self._at >= self._open[-1].end:
            if any(self._header):
                self._findings.damage(f"{len(self._header)} bytes before byte {self._at} are no chunk")
            self._header.clear()
            self._open.pop()

    def _payload(self, piece: memoryview) -> None:
        if self._collected is not None:
            self._collected += piece
        elif self._index is not None:
            self._index.feed(piece)
        elif self._zeros is not None:
            self._zeros.feed(piece)

    def _begin_chunk(self) -> None:
        kind, length = bytes(self._header[:4]), len(self._header)
        is_list = kind in _LISTS
        if is_list and length < _LIST_HEADER_BYTES:
            return
        start, parent = self._at - length, self._open[-1].kind if self._open else b""
        kind = bytes(self._header[8:12]) if is_list else kind
        if self._header[0] == 0 and len(self._open) == 1 and self._nuls < _MOST_NULS:
            self._skip_nuls()
            return
        printable = all(byte in _PRINTABLE for byte in kind)
        if not printable or (not parent and not (is_list and kind in _OPENED[b""])):
            self._stray(start)
            return
        if self._nuls:
            self._findings.note("there are NULs between its chunks")
        size = int.from_bytes(self._header[4:8], "little")
        self._header.clear()
        self._chunks += 1
        if self._chunks > self._max_chunks:
            self._findings.note(f"not checked: what follows the first {self._max_chunks} chunks, from byte {start}")
            self._unwalked, self._chunk = True, _Chunk(b"", start, _TO_THE_END)
            return
        chunk = _Chunk(kind, start, 0)
        chunk.end = self._end_of(chunk, size, is_list=is_list)
        self._enter(chunk, parent, is_list=is_list)

    def _skip_nuls(self) -> None:
        """Some recorders put a few between the parts of a form: the next part begins behind them."""
        rest = self._header.lstrip(b"\0")
        self._nuls += len(self._header) - len(rest)
        self._header[:] = rest

    def _end_of(self, chunk: _Chunk, size: int, *, is_list: bool) -> int:
        if is_list and size in _NEVER_WRITTEN:
            self._findings.damage(f"the recording was cut: the length of {chunk.name} was never written")
            return self._limit()
        end = chunk.start + _HEADER_BYTES + (max(size, 4) if is_list else size)
        if len(self._open) == 1 and self._limit() < end <= self._limit() + _SLACK_BYTES:
            form = self._open[0]
            self._findings.note(f"the length of {form.name} is {end - form.end} bytes too small for its last part")
            form.end = end
        if end > self._limit():
            self._findings.damage(f"the {chunk.name} chunk at byte {chunk.start} runs past the end of its list")
        # a chunk of odd length is followed by one byte that pads it, unless its list ends first
        return min(end + (size & 1 if self._open else 0), self._limit())

    def _enter(self, chunk: _Chunk, parent: bytes, *, is_list: bool) -> None:
        if is_list and chunk.kind in _OPENED.get(parent, ()):
            self._seen.headers = self._seen.headers or chunk.kind == b"hdrl"
            self._open.append(chunk)
            return
        if is_list and chunk.kind == b"movi":
            self._zeros = ZeroTail()
            self._seen.media = self._seen.media or (chunk.start + _HEADER_BYTES, chunk.end)
        elif not is_list and chunk.kind in _LEAVES.get(parent, ()) and chunk.end - self._at <= _LEAF_BYTES:
            self._collected = bytearray()
        elif not is_list and chunk.kind == b"idx1" and parent == b"AVI ":
            self._index = OldIndex(self._seen.media, self._seen.zeros, frozenset(self._seen.coded))
            self._seen.has_index = self._seen.judged = True
        self._chunk = chunk
        if self._at >= chunk.end:
            self._end_chunk(chunk)

    def _end_chunk(self, chunk: _Chunk) -> None:
        if self._collected is not None:
            self._leaf(chunk.kind, self._collected)
        elif self._index is not None:
            self._index.report(self._findings)
        elif self._zeros is not None:
            self._zero_tail(chunk, self._zeros)
        self._chunk = self._collected = self._index = self._zeros = None

    def _leaf(self, kind: bytes, payload: bytearray) -> None:
        seen = self._seen
        if kind == b"avih" and len(payload) >= _AVIH_BYTES:
            seen.frame_us = int.from_bytes(payload[0:4], "little")
            seen.wants_index = bool(int.from_bytes(payload[12:16], "little") & _HAS_INDEX)
            seen.frames = max(seen.frames, int.from_bytes(payload[16:20], "little"))
        elif kind == b"dmlh":
            seen.frames = max(seen.frames, int.from_bytes(payload[0:4], "little"))
        elif kind == b"strh" and len(payload) >= _STRH_BYTES:
            self._stream_header(payload)
        elif kind == b"strf":
            self._stream_format(payload)
        elif kind == b"indx":
            end = super_index_end(payload)
            seen.has_index = seen.has_index or end is not None
            seen.furthest = max(seen.furthest, end or 0)

    def _stream_header(self, payload: bytearray) -> None:
        seen = self._seen
        seen.stream_type = bytes(payload[0:4])
        seen.streams += 1
        scale, rate, _, length = (int.from_bytes(payload[at : at + 4], "little") for at in (20, 24, 28, 32))
        if seen.stream_type == b"vids" and rate and not seen.picture_us:
            seen.picture_us = length * scale * 1_000_000 // rate

    def _stream_format(self, payload: bytearray) -> None:
        seen = self._seen
        plain = (
            int.from_bytes(payload[16:20], "little") in _PLAIN_PICTURES
            if seen.stream_type == b"vids"
            else int.from_bytes(payload[0:2], "little") in _PLAIN_SOUND
        )
        if seen.stream_type in (b"vids", b"auds") and not plain and seen.streams <= _MOST_STREAMS:
            seen.coded.add(seen.streams - 1)

    def _stray(self, start: int) -> None:
        """No chunk begins here: what follows, up to the end of the list or of the file, is judged as one stretch."""
        self._chunk, self._zeros = _Chunk(b"", start, self._limit()), ZeroTail()
        self._zeros.feed(memoryview(bytes(self._header)))
        self._header.clear()
        if self._at >= self._chunk.end:
            self._end_chunk(self._chunk)

    def _zero_tail(self, chunk: _Chunk, zeros: ZeroTail) -> None:
        seen = self._seen
        if chunk.kind and zeros.notable and seen.media is not None and seen.media[0] == chunk.start + _HEADER_BYTES:
            seen.zeros = self._at - zeros.run_bytes, self._at  # the index behind it tells what they are
        elif chunk.kind and zeros.notable:
            self._findings.damage(f"the last {zeros.run_bytes} bytes of the media at byte {chunk.start} are zeros")
        elif not chunk.kind and zeros.notable:
            self._say(f"the last {zeros.run_bytes} bytes from byte {chunk.start} on, no chunks, are zeros")
        if not chunk.kind and not zeros.only_zeros:
            self._say(f"{zeros.seen_bytes} bytes from byte {chunk.start} on are no chunks")

    def _say(self, what: str) -> None:
        """Behind media and its index nothing of the recording can follow, but for further forms (OpenDML)."""
        if self._seen.judged and not self._seen.furthest:
            self._findings.note(what)
        else:
            self._findings.damage(what)

    # --- the end

    def finish(self, size: int) -> Verdict:
        """The verdict. `size` is the number of bytes that were fed."""
        findings, seen = self._findings, self._seen
        chunks = [*self._open, self._chunk] if self._chunk is not None else self._open
        cut = next((chunk for chunk in chunks if chunk.kind and size < chunk.end < _TO_THE_END), None)
        if cut is not None and self._only_off(cut, size):
            findings.note(
                f"the length of {cut.name} is {cut.end - size} bytes more than there are; all its parts are there"
            )
        elif cut is not None:
            findings.damage(
                f"the recording was cut: {cut.name} at byte {cut.start} should end at byte {cut.end}, "
                f"{cut.end - size} bytes past the end of the file"
            )
        if self._chunk is not None and self._zeros is not None:
            self._zero_tail(self._chunk, self._zeros)
        if any(self._header):
            findings.damage(f"{len(self._header)} bytes at the end of the file are no chunk")
        if not self._unwalked:
            self._missing(size)
        return findings.verdict("avi", duration_ms=(seen.picture_us or seen.frames * seen.frame_us) // 1000)

    def _only_off(self, cut: _Chunk, size: int) -> bool:
        """The form itself states a wrong length: its last part has ended, and its media and index are there."""
        last = self._chunk is None and not self._header and self._open == [cut]
        return last and self._seen.judged and cut.end - size <= _SLACK_BYTES

    def _missing(self, size: int) -> None:
        if not self._seen.headers:
            self._findings.damage("it has no stream headers (hdrl)")
        if self._seen.media is None:
            self._findings.damage("it has no media (movi)")
        elif self._seen.wants_index and not self._seen.has_index:
            self._findings.damage("the recording was cut: its headers promise an index that is not there")
        if self._seen.zeros is not None and not self._seen.judged:
            start, end = self._seen.zeros
            self._findings.damage(f"the last {end - start} bytes of the media, from byte {start} on, are zeros")
        if self._seen.furthest > size:
            self._findings.damage(
                f"the recording was cut: its index names bytes up to byte {self._seen.furthest}, "
                f"the file ends at byte {size}"
            )
