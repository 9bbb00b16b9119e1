"""What the structure check says of whole, cut and damaged recordings. Boxes made here are the smallest that say it."""

import struct
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest

from dockd.media.avi import AviParser
from dockd.media.check import StructureCheck
from dockd.media.mp4 import Mp4Parser
from dockd.media.padding import pad
from dockd.media.zeros import THRESHOLD_BYTES
from dockd.model import Verdict, VerdictStatus

CLIPS = Path(__file__).parents[2] / "media"
INTACT, DAMAGED, UNRECOGNISED = VerdictStatus.INTACT, VerdictStatus.DAMAGED, VerdictStatus.UNRECOGNISED
MEDIA = bytes(range(1, 201)) * 50  # 10,000 bytes without a zero


def check(content: bytes, block_bytes: int = 1 << 20) -> Verdict:
    structure = StructureCheck()
    for offset in range(0, len(content), block_bytes):
        structure.feed(offset, memoryview(content)[offset : offset + block_bytes])
    return structure.finish(len(content))


def parsed(parser, content: bytes) -> Verdict:
    parser.feed(0, memoryview(content))
    return parser.finish(len(content))


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def long_box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


def full(kind: bytes, *words: int, rest: bytes = b"") -> bytes:
    return box(kind, bytes(4), struct.pack(f">{len(words)}I", *words), rest)


def table(*, stco: bytes, stsz: bytes, stsc: bytes | None = None) -> bytes:
    return box(b"stbl", stsz, stsc or full(b"stsc", 1, 1, 1, 1), stco)


def trak(stbl: bytes, handler: bytes = b"vide") -> bytes:
    hdlr = box(b"hdlr", bytes(8), handler, bytes(13))
    return box(b"trak", box(b"mdia", hdlr, box(b"minf", stbl)))


def moov(*traks: bytes, mvhd: bytes = b"") -> bytes:
    return box(b"moov", mvhd, *traks)


FTYP = box(b"ftyp", b"isom", bytes(4), b"isom")
START = len(FTYP) + 8  # of the media where mdat follows ftyp


def clip(media: bytes = MEDIA, *, chunk: int = START, size: int | None = None, mvhd: bytes = b"") -> bytes:
    size = len(media) if size is None else size
    stbl = table(stco=full(b"stco", 1, chunk), stsz=full(b"stsz", size, 1))
    return FTYP + box(b"mdat", media) + moov(trak(stbl), mvhd=mvhd)


def says(verdict: Verdict, words: str) -> bool:
    return any(words in reason for reason in verdict.reasons)


# --- real files


@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("plain.mp4", "mp4"),
        ("faststart.mp4", "mp4"),
        ("plain.mov", "mp4"),
        ("fragmented.mp4", "fragmented-mp4"),
        ("fragmented-base-offset.mp4", "fragmented-mp4"),
        ("plain.avi", "avi"),
        ("mjpeg.avi", "avi"),
        ("plain.mkv", "matroska"),
        ("live.webm", "matroska"),
        ("stream.ts", "mpeg-ts"),
        ("stream.m2ts", "mpeg-ts"),
    ],
)
def test_recordings_of_every_container_are_intact(name, container):
    verdict = check((CLIPS / name).read_bytes())
    assert (verdict.status, verdict.container, verdict.reasons) == (INTACT, container, ())


def test_duration_and_start_are_as_the_container_states_them():
    plain = check((CLIPS / "plain.mp4").read_bytes())
    assert plain.duration_ms == 4000
    assert plain.recorded_at == datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
    assert check((CLIPS / "fragmented.mp4").read_bytes()).duration_ms == 4200  # summed up from its fragments
    assert check((CLIPS / "plain.mov").read_bytes()).recorded_at is None  # not set there
    assert check((CLIPS / "mjpeg.avi").read_bytes()).duration_ms == 4000


def test_the_demo_ships_whole_clips_and_a_cut_one():
    clips = {item.name: check(item.read_bytes()) for item in (resources.files("dockd.cli") / "demo_clips").iterdir()}
    damaged = {name for name, verdict in clips.items() if verdict.status is DAMAGED}
    assert damaged == {"patrol-04-cut.mp4"}
    assert says(clips["patrol-04-cut.mp4"], "the recording was cut: it has no whole index (moov)")
    assert len(clips) == 5
    assert all(verdict.recorded_at for name, verdict in clips.items() if name not in damaged)


# --- files that are no recording


def test_an_empty_file_is_damaged():
    verdict = check(b"")
    assert (verdict.status, verdict.reasons) == (DAMAGED, ("the file is empty",))


@pytest.mark.parametrize("content", [b"\0", b"RIFF", FTYP[:11], b"G" * 11])
def test_less_than_any_header_is_a_cut_recording(content):
    assert check(content).status is DAMAGED


def test_other_formats_are_unrecognised_not_damaged():
    verdict = check(b"\x30\x26\xb2\x75" + MEDIA)
    assert (verdict.status, verdict.container) == (UNRECOGNISED, "unknown")
    assert verdict.reasons


def test_zeros_damage_files_of_any_container():
    assert check(bytes(20)).reasons == ("all 20 bytes of the file are zeros",)
    verdict = check(b"\x30\x26\xb2\x75" + bytes(5000))
    assert (verdict.status, verdict.reasons) == (DAMAGED, ("the last 5000 bytes of the file are zeros",))


def test_blocks_out_of_order_are_refused():
    structure = StructureCheck()
    structure.feed(0, FTYP)
    with pytest.raises(ValueError, match=f"where byte {len(FTYP)} was due"):
        structure.feed(0, FTYP)


def test_bytes_that_were_never_fed_are_missed():
    structure = StructureCheck()
    content = clip()
    structure.feed(0, content)
    verdict = structure.finish(len(content) + 5)
    assert verdict.status is DAMAGED
    assert says(verdict, f"only {len(content)} of its {len(content) + 5} bytes were read")


# --- MP4: boxes


def test_a_made_clip_is_intact():
    assert check(clip()).reasons == ()


def test_lengths_of_64_bits_and_to_the_end():
    index = moov(trak(table(stco=full(b"stco", 1, 5000), stsz=full(b"stsz", 200, 1))))
    assert check(FTYP + index + long_box(b"mdat", MEDIA)).status is INTACT
    assert check(FTYP + index + struct.pack(">I4s", 0, b"mdat") + MEDIA).status is INTACT
    assert check(FTYP + box(b"mdat", MEDIA) + struct.pack(">I4s", 0, b"moov") + index[8:]).status is INTACT


def test_chunk_offsets_of_64_bits():
    co64 = full(b"co64", 1, 0, START)
    assert check(FTYP + box(b"mdat", MEDIA) + moov(trak(table(stco=co64, stsz=full(b"stsz", 9, 1))))).status is INTACT


def test_media_past_the_end_is_a_cut_and_says_by_how_much():
    verdict = check(
        FTYP + moov(trak(table(stco=full(b"stco", 0), stsz=full(b"stsz", 0, 0)))) + box(b"mdat", MEDIA)[:-7]
    )
    assert verdict.status is DAMAGED
    assert says(verdict, "7 bytes past the end of the file")


def test_a_missing_index_is_a_cut():
    verdict = check(FTYP + box(b"mdat", MEDIA))
    assert verdict.reasons == ("the recording was cut: it has no whole index (moov)",)


@pytest.mark.parametrize(
    ("trailer", "note"),
    [
        (bytes(8), None),
        (bytes(THRESHOLD_BYTES - 1), None),
        (bytes(6000), "the last 6000 bytes of the file are zeros, outside any box"),
        (b"\xde\xad\xbe\xef" * 4, "16 bytes from byte"),
        (b"\xff", "1 bytes from byte"),
        (b"\1" * 4000 + b"8db42d694ccc418790edff439fe026bf", "4032 bytes from byte"),
        (box(b"gps0", bytes(9000)), "9000 bytes of the file are zeros, in an unknown box"),
        (box(b"gps0", bytes(9000)) + box(b"free", b"1"), None),
    ],
)
def test_p06_what_follows_a_whole_recording_is_at_most_a_note(trailer, note):
    verdict = check(clip() + trailer)
    assert verdict.status is INTACT
    assert bool(verdict.reasons) == (note is not None)
    assert note is None or says(verdict, note)


@pytest.mark.parametrize("trailer", [bytes(6000), b"\xff", b"\xde\xad\xbe\xef" * 4, box(b"gps0", bytes(9000))])
def test_what_follows_a_recording_without_an_index_or_of_fragments_is_damage(trailer):
    assert check(FTYP + box(b"mdat", MEDIA) + trailer).status is DAMAGED
    assert check((CLIPS / "fragmented.mp4").read_bytes() + trailer).status is DAMAGED


@pytest.mark.parametrize("kind", [b"free", b"skip"])
def test_padding_of_zeros_is_legitimate(kind):
    assert check(clip() + box(kind, bytes(100_000))).reasons == ()


def coded(coding: bytes, media: bytes, *, handler: bytes = b"vide", size: int | None = None, front: bool = False):
    """A clip of one chunk, whose samples are of a kind; with `size` only so much of the media is in the index."""
    stsd = full(b"stsd", 1, rest=box(coding, bytes(20)))
    sizes = full(b"stsz", len(media) if size is None else size, 1)

    def index(chunk):
        tables = stsd, full(b"stsc", 1, 1, 1, 1), sizes, full(b"stco", 1, chunk)
        return moov(trak(box(b"stbl", *tables), handler))

    if front:
        return FTYP + index(START + len(index(0))) + box(b"mdat", media)
    return FTYP + box(b"mdat", media) + index(START)


ZEROED = {
    "at its end": MEDIA + bytes(THRESHOLD_BYTES),
    "in the midst": MEDIA + bytes(3 * THRESHOLD_BYTES) + MEDIA,
    "all of it": bytes(2 * THRESHOLD_BYTES),
}


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("where", ZEROED)
@pytest.mark.parametrize(("coding", "handler"), [(b"avc1", b"vide"), (b"hvc1", b"vide"), (b"mp4a", b"soun")])
def test_p06_zeros_in_coded_samples_are_damage(coding, handler, where, front):
    verdict = check(coded(coding, ZEROED[where], handler=handler, front=front))
    assert verdict.status is DAMAGED
    assert says(verdict, "1 of the 1 chunks of")
    assert says(verdict, "hold zeros where media should be, the first at byte")


@pytest.mark.parametrize("coding", [b"sowt", b"twos", b"lpcm", b"in24", b"ipcm"])
@pytest.mark.parametrize("where", ZEROED)
def test_p06_silence_is_no_damage(coding, where):
    assert check(coded(coding, ZEROED[where], handler=b"soun")).reasons == ()


def test_pictures_of_motion_jpeg_may_be_filled_up_but_not_lost():
    assert check(coded(b"jpeg", MEDIA + bytes(THRESHOLD_BYTES))).reasons == ()
    assert check(coded(b"jpeg", MEDIA + bytes(20_000))).status is DAMAGED
    assert check(coded(b"jpeg", bytes(5000))).status is DAMAGED


def test_p06_space_that_no_sample_uses_is_no_damage():
    verdict = check(coded(b"avc1", MEDIA + bytes(65536), size=len(MEDIA)))
    assert (verdict.status, verdict.reasons) == (
        INTACT,
        ("65536 of the 75536 bytes of media are in no sample that the index names",),
    )


def test_p06_an_index_that_names_little_of_the_media_is_said():
    verdict = check(coded(b"avc1", MEDIA * 300, size=5000))
    assert verdict.status is INTACT
    assert says(verdict, "2995000 of the 3000000 bytes of media are in no sample")


def test_zeros_at_the_end_of_open_ended_media_are_found():
    index = moov(trak(table(stco=full(b"stco", 1, 1000), stsz=full(b"stsz", len(MEDIA) + 5000, 1))))
    open_ended = FTYP + index + struct.pack(">I4s", 0, b"mdat") + bytes(900) + MEDIA + bytes(THRESHOLD_BYTES + 100)
    assert says(check(open_ended), "hold zeros where media should be")
    assert check(clip(MEDIA + bytes(1000))).status is INTACT


def test_more_boxes_than_are_walked():
    verdict = parsed(Mp4Parser(max_boxes=3), FTYP + box(b"free") * 4 + clip()[len(FTYP) :])
    assert (verdict.status, verdict.reasons) == (INTACT, ("not checked: what follows the first 3 boxes, from byte 36",))


def test_hostile_lengths_cost_nothing():
    for size in (1 << 63, (1 << 64) - 1):
        hostile = FTYP + struct.pack(">I4sQ", 1, b"moov", size) + struct.pack(">I4s", 0xFFFFFFFF, b"trak")
        assert check(hostile).status is DAMAGED
    assert check(FTYP + struct.pack(">I4s", 7, b"mdat")).status is DAMAGED
    assert check(FTYP + struct.pack(">I4sQ", 1, b"mdat", 15)).status is DAMAGED


def test_boxes_nested_deeper_than_any_reader_goes():
    nested = b""
    for _ in range(3000):
        nested = box(b"trak", nested)
    verdict = check(FTYP + box(b"mdat", MEDIA) + box(b"moov", nested))
    assert says(verdict, "the index of track 1 is damaged")


# --- MP4: the index


@pytest.mark.parametrize(
    ("chunk", "size"), [(START - 1, 10), (START + len(MEDIA) - 9, 10), (0, 1), (0xFFFFFFF0, 4), (START, len(MEDIA) + 1)]
)
def test_a_chunk_outside_the_media_is_found(chunk, size):
    verdict = check(clip(chunk=chunk, size=size))
    assert verdict.status is DAMAGED
    assert says(verdict, f"1 of the 1 chunks of video track 1 lie not inside the media, the first at byte {chunk}")


def test_a_chunk_may_not_reach_from_one_mdat_into_the_next():
    two = FTYP + box(b"mdat", MEDIA) + box(b"mdat", MEDIA)
    second = START + len(MEDIA) + 8

    def index(chunk, size):
        return moov(trak(table(stco=full(b"stco", 2, START, chunk), stsz=full(b"stsz", size, 2))))

    assert check(two + index(second, 100)).status is INTACT
    assert says(check(two + index(second - 50, 100)), "1 of the 2 chunks")


def test_every_track_is_checked():
    good = trak(table(stco=full(b"stco", 1, START), stsz=full(b"stsz", 5, 1)))
    bad = trak(table(stco=full(b"stco", 1, 3), stsz=full(b"stsz", 5, 1)), b"soun")
    verdict = check(FTYP + box(b"mdat", MEDIA) + moov(good, bad))
    assert says(verdict, "chunks of sound track 2")
    assert not says(verdict, "chunks of video track")


def sized(stsz: bytes, chunks: tuple[int, ...], runs: tuple[int, ...]) -> Verdict:
    stsc = full(b"stsc", len(runs) // 3, *runs)
    index = moov(trak(table(stco=full(b"stco", len(chunks), *chunks), stsz=stsz, stsc=stsc)))
    return check(FTYP + box(b"mdat", MEDIA) + index)


def test_chunks_are_as_long_as_their_samples():
    last = START + len(MEDIA)
    sizes = full(b"stsz", 0, 6, 10, 20, 30, 40, 50, 60)
    assert sized(sizes, (START, START + 60, last - 60), (1, 3, 1, 2, 2, 1, 3, 1, 1)).status is INTACT
    assert says(sized(sizes, (START, last - 89, last - 60), (1, 3, 1, 2, 2, 1, 3, 1, 1)), "1 of the 3 chunks")
    assert sized(sizes, (START, last - 210), (1, 0, 1, 2, 6, 1)).status is INTACT
    assert says(sized(sizes, (START, last - 209), (1, 0, 1, 2, 6, 1)), "1 of the 2 chunks")


@pytest.mark.parametrize(("bits", "packed"), [(4, b"\x12\x30"), (8, b"\1\2\3"), (16, b"\0\1\0\2\0\3")])
def test_compact_sample_sizes(bits, packed):
    stz2 = full(b"stz2", bits, 3, rest=packed)
    end = START + len(MEDIA)
    assert sized(stz2, (end - 3, end - 3), (1, 2, 1, 2, 1, 1)).status is INTACT
    assert says(sized(stz2, (end - 3, end - 2), (1, 2, 1, 2, 1, 1)), "1 of the 2 chunks")


@pytest.mark.parametrize(
    ("stsz", "chunks", "runs", "words"),
    [
        (full(b"stsz", 0, 3, 1, 2), (START,), (1, 3, 1), "fewer entries than it says"),
        (full(b"stsz", 0, 2, 1, 2), (START,), (1, 3, 1), "more samples than it has sizes"),
        (full(b"stsz", 0, 0xFFFFFFFF), (START,), (1, 0xFFFFFFFF, 1), "fewer entries than it says"),
        (full(b"stsz", 7, 4), (START,), (1, 3, 1), "1 of its 4 samples are in no chunk"),
        (full(b"stsz", 7, 4), (START, START), (1, 2, 1, 1, 2, 1), "runs of chunks are out of order"),
        (full(b"stsz", 7, 4), (START,), (), "its first chunk holds no samples"),
        (full(b"stsz", 7, 4), (START,), (2, 1, 1), "its first chunk holds no samples"),
        (full(b"stsz", 7, 4), (), (1, 1, 1), "4 of its 4 samples are in no chunk"),
        (full(b"stz2", 5, 4), (START,), (1, 4, 1), "claim to have 5 bits"),
        (b"", (START,), (1, 4, 1), "it has no sample sizes"),
    ],
)
def test_tables_that_contradict_each_other(stsz, chunks, runs, words):
    verdict = sized(stsz, chunks, runs)
    assert verdict.status is DAMAGED
    assert says(verdict, words)


def test_tables_of_many_chunks_are_checked_to_the_last():
    count = 40_000
    chunks = [START] * (count - 1)
    stsz = full(b"stsz", 0, count, *[1] * count)
    assert sized(stsz, (*chunks, START), (1, 1, 1)).status is INTACT
    assert says(sized(stsz, (*chunks, START + len(MEDIA)), (1, 1, 1)), f"1 of the {count} chunks")
    assert sized(full(b"stsz", 0, count, *[0] * count), (START,), (1, count, 1)).status is INTACT
    runs = [word for first in range(1, count + 1) for word in (first, 1, 1)]
    assert says(sized(stsz, (*chunks, START + len(MEDIA)), tuple(runs)), f"1 of the {count} chunks")


def test_an_index_without_tracks_or_samples():
    assert says(check(FTYP + box(b"mdat", MEDIA) + moov()), "lists no track")
    empty = trak(table(stco=full(b"stco", 0), stsz=full(b"stsz", 0, 0), stsc=full(b"stsc", 0)))
    assert says(check(FTYP + box(b"mdat", MEDIA) + moov(empty)), "lists no samples")


def test_tables_larger_than_the_budget_are_named_as_unchecked():
    verdict = parsed(Mp4Parser(tables_bytes=40), clip())
    assert verdict.status is INTACT
    assert says(verdict, "not checked: where the samples of video track 1 lie")


def test_children_that_run_past_their_parent():
    index = bytearray(moov(trak(table(stco=full(b"stco", 1, START), stsz=full(b"stsz", 1, 1)))))
    index[8:12] = struct.pack(">I", len(index))  # trak is 8 bytes shorter in truth
    assert says(check(FTYP + box(b"mdat", MEDIA) + bytes(index)), "runs past the end of its parent")


@pytest.mark.parametrize(
    ("mvhd", "recorded_at", "duration_ms"),
    [
        (full(b"mvhd", 0, 0, 1000, 0, rest=bytes(80)), None, None),
        (full(b"mvhd", 1, 0, 1000, 0xFFFFFFFF, rest=bytes(80)), None, None),
        (full(b"mvhd", 1_790_000_000, 0, 1000, 0, rest=bytes(80)), datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC), None),
        (full(b"mvhd", 0, 0, 0, 5, rest=bytes(80)), None, None),
        (box(b"mvhd", b"\1\0\0\0", struct.pack(">QQIQ", 1 << 62, 0, 600, 900)), None, 1500),
        (box(b"mvhd", b"\1\0\0\0", struct.pack(">QQIQ", 0, 0, 1, (1 << 64) - 2)), None, None),
    ],
)
def test_times_that_are_not_set_or_absurd(mvhd, recorded_at, duration_ms):
    verdict = check(clip(mvhd=mvhd))
    assert (verdict.status, verdict.recorded_at, verdict.duration_ms) == (INTACT, recorded_at, duration_ms)


@pytest.mark.parametrize(
    ("created", "note"),
    [
        (1_790_000_000, "its date counts from 1970, not from 1904 as the standard has it"),
        (1, "its date is in 1904, before there were such cameras, and was not taken"),
        (600_000_000, "its date is in 1923, before there were such cameras, and was not taken"),
        (3_872_000_000, None),
    ],
)
def test_a_date_before_there_were_cameras_is_of_another_epoch_or_none(created, note):
    verdict = check(clip(mvhd=full(b"mvhd", created, 0, 1000, 0, rest=bytes(80))))
    assert (verdict.status, verdict.reasons) == (INTACT, (note,) if note else ())


# --- MP4: fragments


def test_a_fragmented_recording_without_its_closing_index_is_intact():
    content = (CLIPS / "fragmented.mp4").read_bytes()
    assert check(content[: content.rindex(b"mfra") - 4]).status is INTACT


def test_a_fragmented_recording_cut_inside_a_fragment_is_damaged():
    content = (CLIPS / "fragmented.mp4").read_bytes()
    verdict = check(content[: content.rindex(b"moof") + 2000])
    assert verdict.status is DAMAGED
    assert says(verdict, "the recording was cut: the mdat box")
    assert says(verdict, "stretches of samples in fragments lie not inside the media")


def test_a_fragmented_recording_without_a_fragment_is_cut():
    content = (CLIPS / "fragmented.mp4").read_bytes()
    verdict = check(content[: content.index(b"moof") - 4])
    assert says(verdict, "the index lists no samples, and no fragment follows it")


def fragment(*trafs: bytes) -> bytes:
    base = moov(trak(table(stco=full(b"stco", 0), stsz=full(b"stsz", 0, 0), stsc=full(b"stsc", 0))), mvhd=b"")
    moof = box(b"moof", *trafs)
    return FTYP + base + moof + box(b"mdat", MEDIA)


def traf(*, base_is_moof: bool = True, size: int = 10, runs: tuple[bytes, ...]) -> bytes:
    return box(b"traf", box(b"tfhd", struct.pack(">III", 0x20010 if base_is_moof else 0x10, 1, size)), *runs)


def run(count: int, offset: int | None, *sizes: int) -> bytes:
    flags = (0x200 if sizes else 0) | (0 if offset is None else 1)
    at = b"" if offset is None else struct.pack(">i", offset)
    return box(b"trun", struct.pack(">II", flags, count), at, struct.pack(f">{len(sizes)}I", *sizes))


def test_runs_without_an_offset_follow_each_other():
    moof_bytes = len(box(b"moof", traf(runs=(run(1, 0), run(2, None, 5, 5)))))
    at = moof_bytes + 8
    assert check(fragment(traf(runs=(run(1, at), run(2, None, 5, 5))))).status is INTACT
    late = at + len(MEDIA) - 10
    assert says(check(fragment(traf(runs=(run(1, late), run(2, None, 5, 5))))), "lie not inside the media")
    two = len(box(b"moof", *[traf(base_is_moof=False, runs=(run(1, 0),))] * 2))
    follows = (
        traf(base_is_moof=False, runs=(run(1, two + 8),)),
        traf(base_is_moof=False, runs=(run(1, 0),)),
    )
    assert check(fragment(*follows)).status is INTACT


def test_runs_that_claim_too_much():
    assert says(check(fragment(traf(runs=(run(1000, 8, 1),)))), "a run has fewer samples than it says")
    assert says(check(fragment(traf(runs=(run(1, -(1 << 31)),)))), "lies where no file can reach")
    assert says(check(fragment(box(b"traf", run(1, 8)))), "comes before the head of its fragment")
    many = traf(size=0xFFFFFFFF, runs=tuple(run(0xFFFFFFFF, None) for _ in range(3)))
    assert check(fragment(many)).status is DAMAGED


# --- MPEG-TS


def test_a_transport_stream_must_end_with_a_packet():
    stream = (CLIPS / "stream.ts").read_bytes()
    assert says(check(stream[:-1]), "187 bytes of its last packet are there")
    assert check(stream[:-188]).status is INTACT  # nothing can tell this from a shorter recording


def test_lost_packets_are_counted_and_the_first_is_named():
    for name, packet, sync in (("stream.ts", 188, 0), ("stream.m2ts", 192, 4)):
        stream = bytearray((CLIPS / name).read_bytes())
        for number in (50, 60):
            stream[number * packet + sync] ^= 0xFF
        verdict = check(bytes(stream), 1000)
        total = len(stream) // packet
        assert says(verdict, f"2 of {total} packets do not begin as packets do, the first at byte {50 * packet + sync}")


def test_a_transport_stream_with_a_zero_tail():
    stream = (CLIPS / "stream.ts").read_bytes()
    assert says(check(stream[:-9400] + bytes(9400)), "bytes of the file are zeros")


# --- AVI


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) & 1)


def riff_list(kind: bytes, *parts: bytes, outer: bytes = b"LIST") -> bytes:
    content = kind + b"".join(parts)
    return outer + struct.pack("<I", len(content)) + content


def avih(*, flags: int = 0, frames: int = 100) -> bytes:
    return chunk(b"avih", struct.pack("<5I", 40_000, 0, 0, flags, frames) + bytes(36))


def avi_file(*, headers: bytes = b"", media: bytes = MEDIA, index: bytes = b"", flags: int = 0) -> bytes:
    hdrl = riff_list(b"hdrl", avih(flags=flags), headers)
    return riff_list(b"AVI ", hdrl, riff_list(b"movi", media), index, outer=b"RIFF")


def idx1(*entries: tuple[int, int]) -> bytes:
    return chunk(b"idx1", b"".join(b"00dc" + struct.pack("<III", 16, offset, size) for offset, size in entries))


def indx(*entries: tuple[int, int]) -> bytes:
    head = struct.pack("<HBBI4s12x", 4, 0, 0, len(entries), b"00dc")
    return riff_list(b"strl", chunk(b"indx", head + b"".join(struct.pack("<QII", at, size, 1) for at, size in entries)))


def test_a_made_avi_is_intact():
    verdict = check(avi_file(index=idx1((4, 100), (4 + len(MEDIA) - 8, 0))))
    assert (verdict.status, verdict.duration_ms) == (INTACT, 4000)


def test_old_indexes_count_from_the_media_or_from_the_start():
    movi = avi_file().index(b"movi")
    assert check(avi_file(index=idx1((movi + 4, 10), (movi + 4 + len(MEDIA) - 18, 10)))).status is INTACT
    assert says(check(avi_file(index=idx1((4, 10), (4 + len(MEDIA) - 17, 10)))), "1 of the 2 chunks in the index")
    many = [(4, 10)] * 20_000
    assert says(check(avi_file(index=idx1(*many, (4, 0xFFFFFFFF)))), "1 of the 20001 chunks in the index")
    assert says(check(avi_file(index=chunk(b"idx1", bytes(17)))), "ends within an entry")


def test_further_riff_forms():
    second = riff_list(b"AVIX", riff_list(b"movi", MEDIA), outer=b"RIFF")
    first = avi_file(headers=indx((0, 0), (0, 0)))
    at = len(first) + 24
    assert check(avi_file(headers=indx((500, 100), (at, 100))) + second).status is INTACT
    verdict = check(avi_file(headers=indx((500, 100), (at, 100))))  # cut exactly between the forms
    assert says(verdict, f"its index names bytes up to byte {at + 100}")
    total = riff_list(b"odml", chunk(b"dmlh", struct.pack("<I", 250)))
    assert check(avi_file(headers=total) + second).duration_ms == 10_000


def test_a_promised_index_that_is_not_there():
    assert says(check(avi_file(flags=0x10)), "its headers promise an index")
    assert check(avi_file(flags=0x10, index=idx1((4, 1)))).status is INTACT


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_lengths_that_the_recorder_never_wrote(length):
    content = bytearray(avi_file())
    content[4:8] = struct.pack("<I", length)
    assert says(check(bytes(content)), "the length of AVI was never written")


def test_parts_that_are_missing():
    assert says(check(riff_list(b"AVI ", riff_list(b"movi", MEDIA), outer=b"RIFF")), "no stream headers")
    assert says(check(riff_list(b"AVI ", riff_list(b"hdrl", avih()), outer=b"RIFF")), "no media (movi)")


def test_what_follows_the_last_form():
    assert check(avi_file() + bytes(100)).status is INTACT
    assert says(check(avi_file() + bytes(5000)), "the last 5000 bytes from byte")
    assert says(check(avi_file() + b"what is this?"), "13 bytes from byte")
    assert says(check(avi_file() + b"RI"), "2 bytes at the end")


def test_zeros_in_an_avi():
    assert says(check(avi_file(media=MEDIA + bytes(5000))), "the last 5000 bytes of the media")
    assert check(avi_file(index=chunk(b"JUNK", bytes(50_000)))).status is INTACT


def streams(*kinds: tuple[bytes, int]) -> bytes:
    """A strl for each: its type, and its coding (of sound the format tag, of pictures the compression)."""
    lists = []
    for kind, coding in kinds:
        strh = chunk(b"strh", kind + bytes(16) + struct.pack("<4I", 1001, 30_000, 0, 300) + bytes(20))
        strf = struct.pack("<I", coding) if kind == b"auds" else bytes(16) + struct.pack("<I", coding) + bytes(20)
        lists.append(riff_list(b"strl", strh, chunk(b"strf", strf)))
    return b"".join(lists)


MJPG = int.from_bytes(b"MJPG", "little")
SILENT = MEDIA + bytes(40_000)


def tail_index(kind: bytes) -> bytes:
    """Two chunks: one that is all of MEDIA, and one of nothing but the zeros behind it."""
    rows = ((b"00dc", 4, len(MEDIA) - 8), (kind, 4 + len(MEDIA), 40_000 - 8))
    return chunk(b"idx1", b"".join(name + struct.pack("<III", 16, at, size) for name, at, size in rows))


@pytest.mark.parametrize(
    ("second", "kind", "status"),
    [
        ((b"auds", 1), b"01wb", INTACT),
        ((b"auds", 0x55), b"01wb", DAMAGED),
        ((b"vids", 0), b"01db", INTACT),
        ((b"vids", MJPG), b"01dc", DAMAGED),
    ],
)
def test_p06_zeros_at_the_end_of_an_avi_are_damage_where_they_are_coded(second, kind, status):
    headers = streams((b"vids", MJPG), second)
    verdict = check(avi_file(headers=headers, media=SILENT, index=tail_index(kind)))
    assert verdict.status is status
    assert says(verdict, "hold zeros where media should be") == (status is DAMAGED)


def test_zeros_that_no_chunk_of_an_avi_uses_are_no_damage_but_without_an_index_they_are():
    headers = streams((b"vids", MJPG))
    assert check(avi_file(headers=headers, media=SILENT, index=idx1((4, len(MEDIA) - 8)))).status is INTACT
    assert check(avi_file(headers=headers, media=SILENT)).status is DAMAGED


def whole_avi(between: bytes = b"") -> bytes:
    headers = streams((b"vids", MJPG))
    return avi_file(headers=headers, media=MEDIA, index=between + idx1((4, len(MEDIA) - 8)))


@pytest.mark.parametrize("off", [-16, -8, -1, 1, 8, 60])
def test_p06_a_form_whose_length_is_off_by_a_little_is_no_damage(off):
    content = bytearray(whole_avi())
    content[4:8] = struct.pack("<I", len(content) - 8 + off)
    verdict = check(bytes(content))
    assert verdict.status is INTACT
    assert says(verdict, "the length of AVI is")


@pytest.mark.parametrize("off", [-1000, 1000])
def test_a_form_whose_length_is_off_by_much_is_damaged(off):
    content = bytearray(whole_avi())
    content[4:8] = struct.pack("<I", len(content) - 8 + off)
    assert check(bytes(content)).status is DAMAGED


@pytest.mark.parametrize("count", [1, 3, 7, 8, 13, 1000])
def test_p06_nuls_between_chunks_are_a_note(count):
    verdict = check(whole_avi(bytes(count)))
    assert (verdict.status, verdict.reasons) == (INTACT, ("there are NULs between its chunks",))


def test_p06_padding_behind_a_whole_avi_is_a_note():
    verdict = check(whole_avi() + bytes(20_000))
    assert verdict.status is INTACT
    assert says(verdict, "are zeros")
    assert check(whole_avi()[:-200] + bytes(20_000)).status is DAMAGED


def test_an_avi_is_as_long_as_its_picture_stream_says():
    assert check(whole_avi()).duration_ms == 10_010


def test_more_chunks_than_are_walked():
    verdict = parsed(AviParser(max_chunks=10), avi_file(headers=chunk(b"JUNK", b"") * 20))
    assert verdict.status is INTACT
    assert says(verdict, "not checked: what follows the first 10 chunks")


# --- padding


# --- Matroska


MKV = (CLIPS / "plain.mkv").read_bytes()
LIVE = (CLIPS / "live.webm").read_bytes()  # no lengths, no cues
CLUSTER = bytes.fromhex("1f43b675")


def test_a_matroska_file_states_its_duration_and_start():
    verdict = check(MKV)
    assert verdict.duration_ms == 3023
    assert verdict.recorded_at == datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
    assert check(LIVE).duration_ms is None


def test_a_cut_matroska_file_says_what_is_missing():
    cut = check(MKV[: MKV.rindex(CLUSTER) + 100])
    assert cut.status is DAMAGED
    assert says(cut, "the recording was cut: the element at byte")
    assert says(cut, "the recording was cut: its index names byte")
    assert says(check(LIVE[: LIVE.index(CLUSTER)]), "it has no media (clusters)")
    assert check(LIVE[:-5]).status is DAMAGED


def test_zeros_and_garbage_in_matroska_files():
    cues = MKV.rindex(bytes.fromhex("1c53bb6b"))
    long = MKV[:cues] + bytes(5000) + MKV[cues:]
    assert check(long).status is DAMAGED
    cluster = CLUSTER + struct.pack(">Q", 1 << 56 | 9000) + b"\xe7\x81\x05" + b"\1" * 3997 + bytes(5000)
    assert says(check(LIVE + cluster), "1 clusters end in zeros")
    assert check(LIVE + bytes(5000)).status is DAMAGED
    behind = check(MKV + b"\xde\xad" * 20)
    assert behind.status is INTACT
    assert says(behind, "40 bytes from byte")


def test_a_matroska_file_that_ends_long_before_its_stated_duration_is_cut():
    duration = MKV.index(bytes.fromhex("4489")) + 3
    late = bytearray(MKV)
    late[duration : duration + 8] = struct.pack(">d", 600_000.0)
    assert says(check(bytes(late)), "it states 600 s, and its last cluster begins at")


@pytest.mark.parametrize("size", [0, 8, 9, 65_536, 65_545, 3_000_001])
def test_padding_keeps_a_clip_intact_and_has_the_length_asked_for(size):
    blocks = list(pad(size))
    content = (CLIPS / "plain.mp4").read_bytes() + b"".join(blocks)
    assert len(content) == (CLIPS / "plain.mp4").stat().st_size + size
    assert all(len(block) <= 65_536 for block in blocks)
    assert check(content).reasons == ()


@pytest.mark.parametrize("size", [-1, 1, 7])
def test_no_box_is_that_short(size):
    with pytest.raises(ValueError, match="no padding"):
        pad(size)


def test_long_padding_is_made_of_several_boxes():
    size = 2 * (1 << 30) + 3
    boxes, left, at = [], 0, 0
    for block in pad(size):
        if not left:
            assert block[4:] == b"free"
            left = struct.unpack(">I", block[:4])[0]
            boxes.append(left)
        left -= len(block)
        at += len(block)
    assert (at, left, sum(boxes)) == (size, 0, size)
    assert len(boxes) == 2


@pytest.mark.parametrize(
    ("content", "status", "container"),
    [
        (b"N 50.1 E 8.7\n" * 20, VerdictStatus.INTACT, "sidecar"),
        (b"7", VerdictStatus.INTACT, "sidecar"),
        (b"", VerdictStatus.DAMAGED, "unknown"),
        (bytes(8192), VerdictStatus.DAMAGED, "unknown"),
        (b"x" + bytes(1 << 20), VerdictStatus.DAMAGED, "unknown"),
        (b"\0\0\0\x20ftypisom" + b"\0" * 4 + b"isomiso2avc1mp41" + b"\0\0\xff\xffmoov", VerdictStatus.DAMAGED, "mp4"),
    ],
)
def test_p06_a_sidecar_may_be_of_any_format_but_not_of_zeros(content, status, container):
    structure = StructureCheck(sidecar=True)
    structure.feed(0, content)
    verdict = structure.finish(len(content))
    assert (verdict.status, verdict.container) == (status, container)
    assert bool(verdict.reasons) == (status is not VerdictStatus.INTACT)
