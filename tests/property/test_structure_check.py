"""The structure check against files that nobody made by hand: random, mutated, cut, nested."""

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dockd.media.check import StructureCheck
from dockd.media.zeros import THRESHOLD_BYTES, ZeroRuns, ZeroTail, trailing_zeros
from dockd.model import VerdictStatus

CLIPS = {path.name: path.read_bytes() for path in sorted((Path(__file__).parents[1] / "media").iterdir())}
WHOLE_FILES = [
    "faststart.mp4",
    "mjpeg.avi",
    "plain.avi",
    "plain.mkv",
    "plain.mov",
    "plain.mp4",
]  # no prefix of these is a recording
PACKETS = {"stream.ts": 188, "stream.m2ts": 192}
MEMORY_BYTES = 50 * 1024 * 1024
BLOCK_BYTES = 256 * 1024  # the least that a reader hands over at once


def check(content, sizes=()):
    structure, offset = StructureCheck(), 0
    view = memoryview(content)
    for size in (*sizes, len(content)):
        block = view[offset : offset + size]
        structure.feed(offset, block)
        offset += len(block)
    return structure.finish(len(content))


def boxes(content):
    """Start, end and type of the top-level boxes."""
    at = 0
    while at + 8 <= len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        yield at, at + size, content[at + 4 : at + 8]
        at += size


def box(kind, content):
    return struct.pack(">I", 8 + len(content)) + kind + content


KINDS = [
    *(b"ftyp moov moof mdat free mfra uuid trak mdia minf stbl mvex traf mvhd tkhd mdhd hdlr".split()),
    *(b"stsz stz2 stsc stco co64 mehd trex tfhd trun".split()),
]
# Fields of a few values each, so that tables often get past the first look.
TABLES = st.lists(
    st.sampled_from([0, 1, 2, 3, 8, 16, 0x201, 0x20001, 0x7FFFFFFF, 0xFFFFFFFF]) | st.integers(0, 300), max_size=12
).map(lambda words: struct.pack(f">{len(words)}I", *words))
LEAVES = st.builds(box, st.sampled_from(KINDS), TABLES | st.binary(max_size=60))


def lying(kind, content, size):
    return struct.pack(">I", size) + kind + content


TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(box, st.sampled_from(KINDS), st.lists(inner, max_size=5).map(b"".join))
        | st.builds(lying, st.sampled_from(KINDS), inner, st.integers(0, 0xFFFFFFFF) | st.integers(0, 64))
    ),
    max_leaves=40,
)
# The one way down to the sample tables, which a free tree seldom finds.
STBL = st.lists(st.builds(box, st.sampled_from(KINDS[17:22]), TABLES), max_size=6).map(b"".join)
DEEP = STBL.map(lambda tables: box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", tables))))))
TRAF = st.lists(st.builds(box, st.sampled_from(KINDS[24:]), TABLES), max_size=5).map(
    lambda runs: box(b"moof", box(b"traf", b"".join(runs)))
)
FILES = st.lists(TREES | DEEP | TRAF, max_size=6).map(lambda parts: box(b"ftyp", b"isom") + b"".join(parts))

CHUNK_KINDS = [b"JUNK", b"avih", b"dmlh", b"indx", b"idx1", b"strh", b"00dc"]
RIFF_LEAVES = st.builds(
    lambda kind, content, size: kind + struct.pack("<I", len(content) if size is None else size) + content,
    st.sampled_from(CHUNK_KINDS),
    TABLES | st.binary(max_size=80),
    st.none() | st.none() | st.integers(0, 0xFFFFFFFF),
)
RIFFS = st.recursive(
    RIFF_LEAVES,
    lambda inner: st.builds(
        lambda kind, parts: b"LIST" + struct.pack("<I", 4 + len(b"".join(parts))) + kind + b"".join(parts),
        st.sampled_from([b"hdrl", b"strl", b"odml", b"movi", b"INFO"]),
        st.lists(inner, max_size=5),
    ),
    max_leaves=25,
)
AVIS = (
    st.lists(RIFFS, max_size=5)
    .map(b"".join)
    .map(lambda content: b"RIFF" + struct.pack("<I", 4 + len(content)) + b"AVI " + content)
)


@st.composite
def mutated(draw):
    content = bytearray(CLIPS[draw(st.sampled_from(sorted(CLIPS)))])
    # aim at the first and last 3,000 bytes, where headers and indexes are
    place = st.integers(0, len(content) - 1) | st.integers(0, 3000) | st.integers(len(content) - 3000, len(content) - 1)
    for _ in range(draw(st.integers(1, 6))):
        at = min(draw(place), len(content) - 1)
        match draw(st.sampled_from(["flip", "word", "drop", "insert", "copy", "zero", "cut"])):
            case "flip":
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "word":
                content[at : at + 4] = struct.pack(">I", draw(st.integers(0, 0xFFFFFFFF)))
            case "drop":
                del content[at : at + draw(st.integers(1, 5000))]
            case "insert":
                content[at:at] = draw(st.binary(max_size=64))
            case "copy":
                source = draw(st.integers(0, len(content) - 1))
                content[at:at] = content[source : source + draw(st.integers(0, 2000))]
            case "zero":
                count = min(draw(st.integers(1, 9000)), len(content) - at)
                content[at : at + count] = bytes(count)
            case _:
                del content[max(at, 3200) :]
    return bytes(content)


EBML_IDS = [
    bytes.fromhex(text)
    for text in (
        *("18538067", "1F43B675", "114D9B74", "1549A966", "1654AE6B", "1C53BB6B", "EC", "BF", "E7", "A3"),
        *("2AD7B1", "4489", "4461", "4DBB", "53AC", "BB", "B7", "F1"),
    )
]
EBML_SIZES = st.sampled_from([b"\xff", b"\x01" + b"\xff" * 7, b"\x00", b"\x08" + bytes(4)]) | st.none()


def element(kind, content, size):
    return kind + (struct.pack(">Q", 1 << 56 | len(content)) if size is None else size) + content


EBML_TREES = st.recursive(
    st.builds(element, st.sampled_from(EBML_IDS), st.binary(max_size=40), EBML_SIZES),
    lambda inner: st.builds(element, st.sampled_from(EBML_IDS), st.lists(inner, max_size=5).map(b"".join), EBML_SIZES),
    max_leaves=30,
)
MATROSKA = st.lists(EBML_TREES, max_size=6).map(
    lambda parts: b"\x1a\x45\xdf\xa3\x80" + EBML_IDS[0] + b"\x01" + b"\xff" * 7 + b"".join(parts)
)
ANY_FILE = st.binary(max_size=3000) | FILES | AVIS | MATROSKA | mutated()
SPLITS = st.lists(st.integers(0, 9) | st.integers(0, 5000), max_size=60)


@settings(max_examples=400, deadline=None)
@given(ANY_FILE, SPLITS)
def test_p06_any_bytes_get_a_verdict_and_the_split_into_blocks_does_not_matter(content, sizes):
    whole = check(content)
    assert check(content, sizes) == whole
    assert whole.status is VerdictStatus.INTACT or whole.reasons
    assert all(reason.isprintable() and len(reason) < 300 for reason in whole.reasons)
    assert len(whole.reasons) < 20


@settings(max_examples=40, deadline=None)
@given(ANY_FILE)
def test_a_byte_at_a_time_gives_the_same_verdict(content):
    content = content[:4000]
    assert check(content, (1,) * len(content)) == check(content)


@pytest.mark.parametrize("name", WHOLE_FILES)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_p06_every_truncation_of_a_recording_is_damaged(name, data):
    content = CLIPS[name]
    end = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 40, len(content) - 1))
    assert check(content[:end]).status is VerdictStatus.DAMAGED


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_p06_truncations_near_the_edges_of_a_recording_are_damaged(name):
    content = CLIPS[name]
    ends = {*range(64), *range(len(content) - 64, len(content)), *range(0, len(content), 997)}
    assert {end for end in sorted(ends) if check(content[:end]).status is not VerdictStatus.DAMAGED} == set()


@pytest.mark.parametrize("name", [name for name in WHOLE_FILES if name.startswith(("plain.m", "fast"))])
@settings(max_examples=60, deadline=None)
@given(padding=st.lists(st.integers(0, 6000), max_size=3), data=st.data())
def test_p06_a_padded_clip_cut_by_more_than_its_padding_is_damaged(name, padding, data):
    content = CLIPS[name] + b"".join(box(b"free", bytes(size)) for size in padding)
    assert check(content).status is VerdictStatus.INTACT
    end = data.draw(st.integers(0, len(CLIPS[name]) - 1))
    assert check(content[:end]).status is VerdictStatus.DAMAGED


@pytest.mark.parametrize("name", ["fragmented.mp4", "fragmented-base-offset.mp4"])
def test_p06_a_fragmented_recording_is_damaged_by_every_cut_but_those_between_fragments(name):
    content = CLIPS[name]
    top = list(boxes(content))
    first = next(start for start, _, kind in top if kind == b"moof")
    # up to three zeros of the next box's length may still be there: they are no box, and no loss
    whole = {end + more for start, end, kind in top if kind == b"mdat" and start > first for more in range(4)}
    ends = {*range(0, len(content), 37), *(end + more for _, end, _ in top for more in range(-9, 20))}
    cut = {end for end in ends if 0 <= end < len(content) and end not in whole}
    assert {end for end in cut if check(content[:end]).status is not VerdictStatus.DAMAGED} == set()


@pytest.mark.parametrize(("name", "packet"), sorted(PACKETS.items()))
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_p06_a_transport_stream_is_damaged_by_every_cut_inside_a_packet(name, packet, data):
    end = data.draw(st.integers(0, len(CLIPS[name]) - 1).filter(lambda at: at % packet or not at))
    assert check(CLIPS[name][:end]).status is VerdictStatus.DAMAGED


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([1, 100, 4095, 4096, 4097, 9000, 70_000])), max_size=8),
    st.sampled_from([0, 1, 4095, 4096, 5000]),
    st.lists(st.sampled_from([1, 100, 4096, 30_000, 65_536]), max_size=6),
)
def test_zero_clusters_and_the_run_at_the_end_are_found_however_the_media_is_split(parts, offset, sizes):
    content = b"".join((b"\1" if solid else b"\0") * length for solid, length in parts)
    runs, at = ZeroRuns(), 0
    for size in (*sizes, len(content)):
        block = memoryview(content)[at : at + size]
        runs.feed(offset + at, block)
        at += len(block)
    end = offset + len(content)
    first = -offset % THRESHOLD_BYTES
    clusters = {
        offset + start
        for start in range(first, len(content) - THRESHOLD_BYTES + 1, THRESHOLD_BYTES)
        if not any(content[start : start + THRESHOLD_BYTES])
    }
    found = {at for start, stop in runs.clusters.stretches() for at in range(start, stop, THRESHOLD_BYTES)}
    zeros = len(content) - len(content.rstrip(b"\0"))
    assert found == clusters
    assert runs.finish(end) == (zeros if zeros >= THRESHOLD_BYTES else 0)


@given(st.lists(st.sampled_from([b"\0", b"\1"]) | st.integers(0, 200_000).map(bytes), max_size=12), SPLITS)
@example([b"\1", bytes(64)], [64])
@example([bytes(65_536 + 64)], [])
@example([b"\1", bytes(65_536 + 63)], [])
@settings(deadline=None)
def test_the_zero_run_is_counted_exactly(parts, sizes):
    content = b"".join(parts)
    expected = len(content) - len(content.rstrip(b"\0"))
    assert trailing_zeros(memoryview(content)) == expected
    tail, at = ZeroTail(), 0
    for size in (*sizes, len(content)):
        tail.feed(memoryview(content)[at : at + size])
        at += size
    assert (tail.run_bytes, tail.seen_bytes) == (expected, len(content))
    assert tail.only_zeros is (expected == len(content))


def hostile_tables():
    """Sample tables as large as are kept, a run as large as is opened, and many stretches that nothing joins."""
    count = 5_900_000
    head = struct.pack(">4xII", 0, count)
    yield box(b"ftyp", b"isom")
    tables = [(b"stsz", 12 + count * 4), (b"stsc", 20), (b"stco", 12)]
    size = sum(8 + length for _, length in tables)
    for depth, kind in enumerate((b"moov", b"trak", b"mdia", b"minf", b"stbl")):
        yield struct.pack(">I", size + 8 * (5 - depth)) + kind
    yield struct.pack(">I", 8 + 12 + count * 4) + b"stsz" + head
    for _ in range(count // 4096):
        yield b"\0\0\0\1" * 4096
    yield b"\0\0\0\1" * (count % 4096)
    yield box(b"stsc", struct.pack(">4xIIII", 1, 1, count, 1))
    yield box(b"stco", struct.pack(">4xII", 1, 30))
    run = box(b"trun", struct.pack(">II", 0x200, 1_000_000) + b"\0\0\0\1" * 1_000_000)
    yield box(b"moof", box(b"traf", box(b"tfhd", struct.pack(">II", 0x20000, 1)) + run))
    small = box(b"trun", struct.pack(">IIiI", 0x201, 1, 7, 1))
    yield box(b"moof", box(b"traf", box(b"tfhd", struct.pack(">II", 0x20000, 1)) + small * 60_000))
    yield box(b"mdat", b"1") * 60_000


def test_p10_memory_is_bounded_whatever_the_index_holds():
    structure, at = StructureCheck(), 0
    blocks = list(hostile_tables())
    tracemalloc.start()
    try:
        for block in blocks:
            structure.feed(at, block)
            at += len(block)
        verdict = structure.finish(at)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert verdict.status is VerdictStatus.DAMAGED
    assert peak < MEMORY_BYTES


@settings(max_examples=150, deadline=None)
@given(ANY_FILE)
def test_p09_no_file_keeps_the_check_busy_for_a_second(content):
    """Of this thread's own time: the machine's other work does not count."""
    begun_s = time.thread_time()
    check(content)
    assert time.thread_time() - begun_s < 1.0


def test_p09_no_block_of_a_hostile_index_keeps_the_check_busy_for_a_second():
    structure, at = StructureCheck(), 0
    for block in hostile_tables():
        for offset in range(0, len(block), BLOCK_BYTES):
            piece = memoryview(block)[offset : offset + BLOCK_BYTES]
            begun_s = time.thread_time()
            structure.feed(at, piece)
            assert time.thread_time() - begun_s < 1.0
            at += len(piece)
    begun_s = time.thread_time()
    structure.finish(at)
    assert time.thread_time() - begun_s < 1.0
