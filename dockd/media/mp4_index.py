"""What an MP4's index says (ISO/IEC 14496-12, 8.2 to 8.8): its tracks, its times and its fragments.

The walker in mp4.py hands over the payloads of the few boxes named in `CONTAINERS` and `LEAVES`; this module keeps
what it needs of them, within a budget, and compares it with the media once all of the file was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

from dockd.media.extents import Extents
from dockd.media.findings import Findings
from dockd.media.mp4_tables import BadTable, SampleTables, numbers, u32
from dockd.media.zeros import ZeroRuns

TABLES_BYTES = 24 * 1024 * 1024  # all sample tables together; 12 hours at 60 frames/s with sound need some 19 MiB
LEAF_BYTES = 4 * 1024 * 1024  # any other box
MAX_TRACKS = 128
_EPOCH = datetime(1904, 1, 1, tzinfo=UTC)  # of the times in mvhd and mdhd
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # of those times in files by some makers
_FIRST_CAMERAS = datetime(1995, 1, 1, tzinfo=UTC)  # before it nothing was recorded as MP4, QuickTime apart
_SAMPLE_ENTRY_BYTES = 16  # of an stsd box, up to the end of its first entry's type
# Coded pictures and sound, which no coder makes zeros of. Samples of any other kind may be zeros: silence, for one.
_CODED = frozenset(b"avc1 avc2 avc3 avc4 hvc1 hev1 mp4v s263 vp08 vp09 av01 mp4a ac-3 ec-3 samr sawb Opus .mp3".split())
_PADDED = frozenset((b"jpeg", b"mjpa", b"mjpb"))  # coded, but some cameras fill each picture up with zeros
_MOST_ZEROS_BYTES, _MOST_PADDING_BYTES = 1024, 16384  # in a chunk of these, beside space that was never used
_SPARE_BYTES, _SPARE_SHARE = 1024 * 1024, 10  # media in no sample is worth a word from here on, or from 1 part in 10
_MOST_STRETCHES = 10_000  # of zeros, looked at in a file of fragments

# The boxes that are opened, under the box that they are looked for in. What is not here is skipped whole, so that no
# file can nest deeper than this.
CONTAINERS: Mapping[bytes, frozenset[bytes]] = {
    b"": frozenset((b"moov", b"moof")),
    b"moov": frozenset((b"trak", b"mvex")),
    b"trak": frozenset((b"mdia",)),
    b"mdia": frozenset((b"minf",)),
    b"minf": frozenset((b"stbl",)),
    b"moof": frozenset((b"traf",)),
}
LEAVES: Mapping[bytes, frozenset[bytes]] = {
    b"moov": frozenset((b"mvhd",)),
    b"trak": frozenset((b"tkhd",)),
    b"mdia": frozenset((b"mdhd", b"hdlr")),
    b"stbl": SampleTables.KINDS | {b"stsd"},
    b"mvex": frozenset((b"mehd", b"trex")),
    b"traf": frozenset((b"tfhd", b"trun")),
}


_VIDEO = "video track"


@dataclass(slots=True, kw_only=True)
class _Track:
    """A trak box, and for fragments the defaults of its trex box."""

    number: int
    name: str = "track"
    track_id: int = 0
    timescale: int = 0  # ticks a second
    ticks: int = 0  # duration in fragments, summed up
    stated_ticks: int = 0
    coding: bytes = b""  # the type of its first sample entry
    unchecked: bool = False
    tables: SampleTables = field(default_factory=SampleTables)

    @property
    def label(self) -> str:
        return f"{self.name} {self.number}"

    @property
    def most_zeros_bytes(self) -> int:
        """From how many zeros on a chunk has lost something; 0: never. Pictures of an unknown kind count as coded."""
        if self.coding in _PADDED:
            return _MOST_PADDING_BYTES
        return _MOST_ZEROS_BYTES if self.coding in _CODED or (self.name == _VIDEO and not self.coding) else 0


@dataclass(slots=True, kw_only=True)
class _Fragment:
    """The traf box that is being read. `base` is None until a tfhd came."""

    base: int | None
    track_id: int = 0
    default_size: int = 0
    default_ticks: int = 0
    following: int = 0  # where a run without an offset of its own begins


class Index:
    """Collects the index of one file."""

    def __init__(self, findings: Findings, *, tables_bytes: int = TABLES_BYTES) -> None:
        self._findings = findings
        self._tables_bytes = self._budget = tables_bytes
        self._tracks: list[_Track] = []
        self._track: _Track | None = None
        self._defaults: dict[int, tuple[int, int]] = {}  # by track id: sample ticks, sample size
        self._runs = Extents()
        self._quiet = Extents()  # those of the runs that may be zeros
        self._moof_start = 0
        self._fragment: _Fragment | None = None
        self._after_fragment: int | None = None
        self._timescale = 0
        self._ticks = 0
        self._created = 0
        self.fragmented = False
        self.fragments = 0
        self.indexes = 0  # moov boxes seen whole

    # --- what the walker calls

    def opened(self, kind: bytes, start: int) -> None:
        """A container begins. `start` is where its header begins."""
        if kind == b"moof":
            self.fragmented = True
            self._moof_start, self._after_fragment = start, None
        elif kind == b"mvex":
            self.fragmented = True
        elif kind == b"traf":
            self._fragment = _Fragment(base=None)
        elif kind == b"trak":
            self._open_track()

    def closed(self, kind: bytes) -> None:
        """A container came to its end, whole."""
        if kind == b"moov":
            self.indexes += 1
        elif kind == b"moof":
            self.fragments += 1
        elif kind == b"traf":
            self._after_fragment = self._fragment.following if self._fragment else None
            self._fragment = None
        elif kind == b"trak":
            self._track = None

    def wants(self, parent: bytes, kind: bytes, size: int) -> bool:
        """Whether the payload of this box, `size` bytes by its own word, is to be collected."""
        if kind not in LEAVES.get(parent, ()) or (parent in (b"mdia", b"stbl") and self._track is None):
            return False
        if kind == b"stsd" or parent != b"stbl":
            if size > LEAF_BYTES:
                self._findings.note(f"not checked: a {kind.decode()} box of {size} bytes, larger than any in use")
            return size <= LEAF_BYTES
        if size > self._budget:
            if self._track is not None:
                self._track.unchecked = True
            return False
        self._budget -= size
        return True

    def leaf(self, kind: bytes, payload: bytearray) -> None:
        """A box that was asked for, whole."""
        try:
            if kind in SampleTables.KINDS:
                if self._track is not None:
                    self._track.tables.by_kind[kind] = payload
            elif kind == b"stsd":
                if self._track is not None:
                    self._track.coding = bytes(payload[_SAMPLE_ENTRY_BYTES - 4 : _SAMPLE_ENTRY_BYTES])
            elif kind == b"trun":
                self._run(payload)
            else:
                self._small(kind, payload)
        except BadTable as error:
            self._findings.damage(f"the index is damaged: in a {kind.decode()} box, {error}")

    # --- the boxes

    def _open_track(self) -> None:
        self._track = None
        if len(self._tracks) >= MAX_TRACKS:
            self._findings.note(f"not checked: tracks after the first {MAX_TRACKS}")
            return
        self._track = _Track(number=len(self._tracks) + 1)
        self._tracks.append(self._track)

    def _small(self, kind: bytes, payload: bytearray) -> None:
        track = self._track
        if kind == b"mvhd":
            self._created, self._timescale, self._ticks = _times(payload)
        elif kind == b"mehd":
            self._ticks = max(self._ticks, _wide(payload, 4) if payload[:1] == b"\1" else u32(payload, 4))
        elif kind == b"trex":
            if len(self._defaults) < MAX_TRACKS:
                self._defaults[u32(payload, 4)] = u32(payload, 12), u32(payload, 16)
        elif kind == b"tfhd":
            self._open_fragment(payload)
        elif track is None:
            return
        elif kind == b"tkhd":
            track.track_id = u32(payload, 20 if payload[:1] == b"\1" else 12)
        elif kind == b"mdhd":
            created, track.timescale, track.stated_ticks = _times(payload)
            self._created = self._created or created
        elif kind == b"hdlr":
            names = {b"vide": _VIDEO, b"soun": "sound track"}
            track.name = names.get(bytes(payload[8:12]), "track")

    def _open_fragment(self, payload: bytearray) -> None:
        """tfhd, 8.8.7: which track, and where data offsets count from."""
        flags, track_id, at = u32(payload, 0) & 0xFFFFFF, u32(payload, 4), 8
        ticks, size = self._defaults.get(track_id, (0, 0))
        base = self._moof_start
        if flags & 0x1:
            base, at = _wide(payload, at), at + 8
        elif not flags & 0x20000 and self._after_fragment is not None:
            base = self._after_fragment
        at += 4 if flags & 0x2 else 0
        if flags & 0x8:
            ticks, at = u32(payload, at), at + 4
        if flags & 0x10:
            size = u32(payload, at)
        self._fragment = _Fragment(base=base, following=base, track_id=track_id, default_size=size, default_ticks=ticks)

    def _run(self, payload: bytearray) -> None:
        """trun, 8.8.8: one stretch of samples."""
        fragment = self._fragment
        if fragment is None or fragment.base is None:
            raise BadTable("a run of samples comes before the head of its fragment")
        flags, count, at = u32(payload, 0) & 0xFFFFFF, u32(payload, 4), 8
        start = fragment.following
        if flags & 0x1:
            offset, at = u32(payload, at), at + 4
            start = fragment.base + (offset - (1 << 32) if offset >> 31 else offset)
        at += 4 if flags & 0x4 else 0
        has_ticks, has_size = bool(flags & 0x100), bool(flags & 0x200)
        width = sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
        if at + count * width * 4 > len(payload):
            raise BadTable("a run has fewer samples than it says")
        fields = numbers(payload, at, count * width, 32)
        size = sum(fields[int(has_ticks) :: width]) if has_size else count * fragment.default_size
        ticks = sum(fields[0::width]) if has_ticks else count * fragment.default_ticks
        if not self._runs.add(start, start + size):
            raise BadTable("a run of samples lies where no file can reach")
        fragment.following = start + size
        for track in self._tracks:
            if track.track_id == fragment.track_id:
                track.ticks += ticks
                if not track.most_zeros_bytes:
                    self._quiet.add(start, start + size)

    # --- the judgement

    def compare(self, media: Extents, zeros: ZeroRuns) -> None:
        """Look whether every chunk and every run of samples lies inside `media`, and whether `zeros` are in its place.

        The tables are dropped.
        """
        samples = sum(track.tables.samples() for track in self._tracks)
        unchecked = any(track.unchecked for track in self._tracks)
        if self.indexes and not self._tracks:
            self._findings.damage("the index (moov) lists no track")
        elif self.indexes and not samples and not unchecked and not self.fragments:
            self._findings.damage("the recording was cut: the index lists no samples, and no fragment follows it")
        if media.left_out:
            self._findings.note(f"not checked: where samples lie; there are {media.left_out} media boxes too many")
            self._zero_tails(zeros)
            return
        if unchecked or not self.indexes:
            self._zero_tails(zeros)
        used = sum([self._compare_track(track, media, zeros) for track in self._tracks])
        outside, first = self._runs.first_outside(media)
        if outside:
            self._findings.damage(
                f"{outside} of {len(self._runs)} stretches of samples in fragments lie not inside the media, "
                f"the first at byte {first}"
            )
        if self._runs.left_out:
            self._findings.note(
                f"not checked: {self._runs.left_out} stretches of samples after the first {len(self._runs)}"
            )
        self._zeros_in_fragments(zeros)
        if self.indexes and not self.fragmented and not unchecked:
            self._note_spare(media.total(), used)

    def _note_spare(self, all_bytes: int, used_bytes: int) -> None:
        spare_bytes = all_bytes - used_bytes
        if spare_bytes > min(_SPARE_BYTES, all_bytes // _SPARE_SHARE):
            self._findings.note(
                f"{spare_bytes} of the {all_bytes} bytes of media are in no sample that the index names"
            )

    def _zero_tails(self, zeros: ZeroRuns) -> None:
        """Without an index that tells what they are, zeros that media ends with count as a loss."""
        for start, end in islice(zeros.tails.stretches(), 1):
            self._findings.damage(f"{end - start} bytes of the media, from byte {start} on, are zeros")

    def _zeros_in_fragments(self, zeros: ZeroRuns) -> None:
        for one in (zeros.clusters, zeros.tails):
            for start, end in islice(one.stretches(), _MOST_STRETCHES):
                length = end - start
                lost = self._runs.shared(start, end, length) - self._quiet.shared(start, end, length)
                if lost >= _MOST_ZEROS_BYTES:
                    self._findings.damage(f"samples in fragments are zeros, from byte {start} on")
                    return

    def _compare_track(self, track: _Track, media: Extents, zeros: ZeroRuns) -> int:
        """Returns how many bytes of media its samples have together."""
        tables, track.tables = track.tables, SampleTables()
        if track.unchecked:
            self._findings.note(
                f"not checked: where the samples of {track.label} lie; the sample tables are larger than "
                f"{self._tables_bytes} bytes"
            )
            return 0
        try:
            found = tables.check(media, zeros, track.most_zeros_bytes)
        except BadTable as error:
            self._findings.damage(f"the index of {track.label} is damaged: {error}")
            return 0
        if found.outside:
            self._findings.damage(
                f"{found.outside} of the {found.chunks} chunks of {track.label} lie not inside the media, "
                f"the first at byte {found.first_outside}"
            )
        if found.zeroed:
            self._findings.damage(
                f"{found.zeroed} of the {found.chunks} chunks of {track.label} hold zeros where media should be, "
                f"the first at byte {found.first_zeroed}"
            )
        return found.media_bytes

    def duration_ms(self) -> int | None:
        """As mvhd or mehd state it; else the longest track by its own word or by its fragments. None where unknown."""
        longest = _milliseconds(self._ticks, self._timescale)
        if longest:
            return longest
        by_track = [_milliseconds(track.stated_ticks or track.ticks, track.timescale) for track in self._tracks]
        return max(by_track, default=0) or None

    def recorded_at(self) -> datetime | None:
        """Creation time in mvhd, else in the first mdhd that has one. None where not set, or where it cannot be.

        Some makers count from 1970: what would be a date before there were cameras is taken so, with a note.
        """
        if not self._created:
            return None
        at = _since(_EPOCH, self._created)
        if at is None or at >= _FIRST_CAMERAS:
            return at
        other = _since(_UNIX_EPOCH, self._created)
        if other is not None and other >= _FIRST_CAMERAS:
            self._findings.note("its date counts from 1970, not from 1904 as the standard has it")
            return other
        self._findings.note(f"its date is in {at.year}, before there were such cameras, and was not taken")
        return None


def _since(epoch: datetime, seconds: int) -> datetime | None:
    try:
        return epoch + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _times(payload: bytearray) -> tuple[int, int, int]:
    """Creation time, ticks a second and duration in ticks; mvhd (8.2.2) and mdhd (8.4.2) begin alike."""
    if payload[:1] == b"\1":
        created, timescale, ticks, unknown = _wide(payload, 4), u32(payload, 20), _wide(payload, 24), (1 << 64) - 1
    else:
        created, timescale, ticks, unknown = u32(payload, 4), u32(payload, 12), u32(payload, 16), (1 << 32) - 1
    return created, timescale, 0 if ticks == unknown else ticks


def _wide(payload: bytearray, at: int) -> int:
    return u32(payload, at) << 32 | u32(payload, at + 4)


def _milliseconds(ticks: int, timescale: int) -> int:
    return ticks * 1000 // timescale if timescale else 0
