"""What the structure check adds to the read pass, as a share of what SHA-256 costs on the same bytes."""

import hashlib
import random
import statistics
import struct
import time

import pytest

from dockd.media.check import StructureCheck
from dockd.model import VerdictStatus

pytestmark = pytest.mark.bench

BLOCK_BYTES = 1 << 20
CLIP_BYTES = 256 << 20
ROUNDS = 5
SHARE = 0.05


def box(kind, *parts):
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def full(kind, *parts):
    return box(kind, bytes(4), *parts)


def words(code, values):
    return struct.pack(f">{len(values)}{code}", *values)


def track(chunks, samples, size, start, step):
    stsz = full(b"stsz", struct.pack(">II", 0, chunks * samples), words("I", [size] * (chunks * samples)))
    stsc = full(b"stsc", struct.pack(">IIII", 1, 1, samples, 1))
    co64 = full(b"co64", struct.pack(">I", chunks), words("Q", [start + step * number for number in range(chunks)]))
    return box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", stsz, stsc, co64))))


FTYP = box(b"ftyp", b"isom", bytes(4))


def media_of(size, block):
    """Blocks of an mdat of `size` bytes; one megabyte of content again and again, so that no 256 MiB are held."""
    yield FTYP + struct.pack(">I4sQ", 1, b"mdat", 16 + size)
    for _ in range(size // len(block)):
        yield block


def check_s(blocks):
    structure, at, started = StructureCheck(), 0, time.perf_counter()
    for block in blocks:
        structure.feed(at, memoryview(block))
        at += len(block)
    verdict = structure.finish(at)
    return time.perf_counter() - started, verdict


def sha256_s(size, block):
    digest, started = hashlib.sha256(), time.perf_counter()
    for _ in range(size // len(block)):
        digest.update(block)
    return time.perf_counter() - started


def share(blocks, block):
    shares = [check_s(blocks)[0] / sha256_s(CLIP_BYTES, block) for _ in range(ROUNDS)]
    return statistics.median(shares)


def mp4_blocks(block):
    index = box(b"moov", track(256, 30, 100, len(FTYP) + 16, 1 << 19))
    return [*media_of(CLIP_BYTES, block), index]


CONTENTS = {
    "pictures": random.Random(7).randbytes(BLOCK_BYTES),
    "zeros": bytes(BLOCK_BYTES),  # the worst there is: every byte is looked at
    "ends in zeros": random.Random(7).randbytes(BLOCK_BYTES // 2) + bytes(BLOCK_BYTES // 2),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_checking_an_mp4_costs_less_than_a_twentieth_of_hashing_it_and_zeros_a_tenth(content):
    block = CONTENTS[content]
    found = share(mp4_blocks(block), block)
    print(f"\nmp4, {content}: {found:.2%} of SHA-256")  # noqa: T201  a measurement is for a person to see
    assert found < (2 * SHARE if content == "zeros" else SHARE)


def test_checking_a_transport_stream_costs_less_than_a_twentieth_of_hashing_it():
    packets = b"\x47" + random.Random(7).randbytes(187)
    block = packets * (BLOCK_BYTES // 188)
    found = share([block] * (CLIP_BYTES // len(block)), block)
    print(f"\nmpeg-ts: {found:.2%} of SHA-256")  # noqa: T201  a measurement is for a person to see
    assert found < SHARE


@pytest.mark.parametrize(("name", "chunks", "samples"), [("a second", 43_200, 60), ("a frame", 1_296_000, 1)])
def test_the_index_of_twelve_hours_costs_less_than_hashing_a_gigabyte(name, chunks, samples):
    block = CONTENTS["pictures"]
    size = 20 << 30
    video = track(chunks, samples, 60, len(FTYP) + 16, size // chunks)
    sound = track(43_200, 47, 60, len(FTYP) + 16, size // 43_200)
    structure = StructureCheck()
    head = FTYP + struct.pack(">I4sQ", 1, b"mdat", 16 + size)
    structure.feed(0, head)
    for at in range(0, size, len(block)):
        structure.feed(len(head) + at, block)
    index = memoryview(box(b"moov", video, sound))
    started = time.perf_counter()
    for at in range(0, len(index), BLOCK_BYTES):
        structure.feed(len(head) + size + at, index[at : at + BLOCK_BYTES])
    verdict = structure.finish(len(head) + size + len(index))
    spent = time.perf_counter() - started
    assert verdict.status is VerdictStatus.INTACT
    assert all("are in no sample" in reason for reason in verdict.reasons)  # the samples are made small, to have many
    gigabyte = 4 * sha256_s(CLIP_BYTES, block)
    spoken = f"12 hours, a chunk {name}, {len(index) >> 20} MiB: {spent:.3f} s"
    print(f"\n{spoken}, {spent / gigabyte:.0%} of a GiB's SHA-256")  # noqa: T201  as above
    assert spent < gigabyte
