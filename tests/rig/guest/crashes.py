"""Every state in which a power cut could have left a disk, from QEMU's log of its writes (driver blklogwrites).

The log begins with a superblock: magic, version, number of entries, size of a sector (little endian, 8+8+8+4 bytes).
Each entry is a sector that holds where it wrote, how many sectors, flags and the length of what follows (8 bytes
each), and then the bytes. A write before a flush is on the disk for sure; of those after the last flush, any may be.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAGIC = 0x6A736677736872
_FLUSH, _DISCARD, _MARK = 1, 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Write:
    at: int  # on the disk
    size: int
    source: int  # in the log; -1: zeros


def crash_states(before: Path, log: Path, out: Path, *, seed: int, each: int = 1) -> Iterator[tuple[str, Path]]:
    """Write one state after the other to `out`: what was durable at each flush, and `each` subsets of what came after.

    `before` is the disk as it was when the log began. It and the log stay as they are.
    """
    chance = random.Random(seed)
    durable = out.with_suffix(".durable")
    shutil.copyfile(before, durable)
    with log.open("rb") as source, durable.open("r+b") as disk:
        for number, writes in enumerate(_between_flushes(source)):
            for subset in range(each + 1):
                kept = [write for write in writes if subset and chance.random() < 0.5]
                disk.flush()
                _copy(durable, out)
                with out.open("r+b") as crashed:
                    for write in kept:
                        _apply(source, crashed, write)
                yield f"flush {number}, {len(kept)} of {len(writes)} writes after it", out
            for write in writes:
                _apply(source, disk, write)
        disk.flush()
        _copy(durable, out)
    yield "everything", out


def _copy(source: Path, target: Path) -> None:
    """With its holes: most of a disk is one."""
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


def _between_flushes(source: BinaryIO) -> Iterator[list[_Write]]:
    magic, version, entries, sector = struct.unpack("<QQQI", source.read(28))
    assert (magic, version) == (_MAGIC, 1), "not a log of writes"
    at, writes = sector, []
    for _ in range(entries):
        source.seek(at)
        where, sectors, flags, length = struct.unpack("<QQQQ", source.read(32))
        at += sector
        if flags & _FLUSH and writes:
            yield writes
            writes = []
        size = sectors * sector
        if flags & _MARK:
            at += -(-length // sector) * sector
        elif flags & _DISCARD:
            writes.append(_Write(at=where * sector, size=size, source=-1))
        elif size:
            writes.append(_Write(at=where * sector, size=size, source=at))
            at += size
    if writes:
        yield writes


def _apply(source: BinaryIO, disk: BinaryIO, write: _Write) -> None:
    disk.seek(write.at)
    if write.source < 0:
        disk.write(bytes(write.size))
        return
    source.seek(write.source)
    disk.write(source.read(write.size))
