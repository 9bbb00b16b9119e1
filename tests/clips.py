"""Made-up clips: small, valid MP4 files of random media."""

from __future__ import annotations

import random
import struct
from pathlib import Path

MIB = 1024 * 1024


def mp4(size_bytes: int, seed: int) -> bytes:
    """A small, valid MP4 of one video track whose only chunk is `size_bytes` of random media."""
    media = random.Random(seed).randbytes(size_bytes)
    start = _ftyp() + struct.pack(">I4s", 8 + size_bytes, b"mdat")
    return start + media + _moov(len(start), [size_bytes])


def sparse_mp4(path: Path, size_bytes: int, seed: int, *, every_bytes: int = 64 * MIB) -> None:
    """Write a valid MP4 with `size_bytes` of media that is a hole, but for a random block now and then and at its end.

    The box is of 64-bit size; the index stands behind it. The pictures are uncoded: in coded ones a hole is damage.
    """
    chance = random.Random(seed)
    start = _ftyp() + struct.pack(">I4sQ", 1, b"mdat", 16 + size_bytes)
    chunks = [min(1 << 30, size_bytes - at) for at in range(0, size_bytes, 1 << 30)]
    with path.open("wb") as file:
        file.write(start)
        for at in (*range(0, size_bytes - MIB, every_bytes), size_bytes - MIB):
            file.seek(len(start) + at)
            file.write(chance.randbytes(MIB))
        file.write(_moov(len(start), chunks, coding=b"raw "))


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def _full(kind: bytes, *parts: bytes) -> bytes:
    return _box(kind, bytes(4), *parts)


def _ftyp() -> bytes:
    return _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomavc1")


def _moov(offset: int, chunks: list[int], coding: bytes = b"avc1") -> bytes:
    """The index of one video track, of one sample a chunk; the chunks follow each other from `offset` on."""
    count = len(chunks)
    starts = [offset + sum(chunks[:number]) for number in range(count)]
    mvhd = _full(b"mvhd", struct.pack(">IIII", 0, 0, 1000, 1000 * count), bytes(80))
    stbl = _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), _box(coding, bytes(78))),
        _full(b"stts", struct.pack(">III", 1, count, 1000)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, 1, 1)),
        _full(b"stsz", struct.pack(">II", 0, count), struct.pack(f">{count}I", *chunks)),
        _full(b"co64", struct.pack(">I", count), struct.pack(f">{count}Q", *starts))
        if starts[-1] >> 32
        else _full(b"stco", struct.pack(">I", count), struct.pack(f">{count}I", *starts)),
    )
    hdlr = _full(b"hdlr", bytes(4), b"vide", bytes(12), b"video\0")
    mdhd = _full(b"mdhd", struct.pack(">IIII", 0, 0, 1000, 1000 * count), bytes(4))
    tkhd = _full(b"tkhd", bytes(80))
    return _box(b"moov", mvhd, _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, _box(b"minf", stbl))))
