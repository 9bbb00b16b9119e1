"""After `clear` or `discard`: whether the fresh volumes are empty, and hold nothing where the clips lay."""

from __future__ import annotations

import sys
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from dockd.core.canonical import encode_path
from dockd.core.profile import EraseMethod
from dockd.errors import EraseFailed, FilesystemUnclear
from dockd.filesystems import probe
from dockd.reader.batch import Batch
from dockd.reader.places import free_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dockd.filesystems import Extent
    from dockd.model import Entropy
    from dockd.reader.roots import VolumeRoot

SAMPLES = 256
SAMPLE_BYTES = 64 * 1024
_ONES = b"\xff"


def verify_empty(batch: Batch, method: str) -> str:
    """Look anew at volumes that were made anew. What was established, in words.

    Every old place of the plan's clips is read, and samples of the free space. Both must be zeros; after `discard`,
    which promises no value, ones will do. Blocks that the fresh file system took for itself are left out. Raises
    EraseFailed, CameraGone.
    """
    batch.require_fresh()
    camera, work = batch.camera, batch.work
    for listed in camera.walk(work.rules):
        raise EraseFailed(f"the fresh file system is not empty: {encode_path(listed.file.path)}")
    old = sampled = 0
    for root in batch.volumes():
        with batch.unclear_is_failure("what may be left"):
            superblock = probe(root.device.read)
            if superblock is None or superblock.dirty:
                raise FilesystemUnclear(superblock.dirty if superblock else "no file system that is known")
            places = batch.at(root)
            reason = places.unaccounted(())
            if reason:
                raise EraseFailed(f"the fresh file system is not empty: {reason}")
            free = free_of(places)
            old += _look(batch, root, _within(free, batch.old_places(root.name)), method)
            sampled += _look(batch, root, _samples(free, work.random), method)
    return (
        f"mounted anew and read-only, the fresh file system is empty; {old} bytes where clips lay and {sampled} bytes "
        f"sampled from the rest of the block device are {_expected(method)}"
    )


def _look(batch: Batch, root: VolumeRoot, stretches: Iterator[Extent], method: str) -> int:
    total = 0
    for offset, length in stretches:
        batch.work.wanted()
        for at, size in root.device.other_than_zero(offset, length):
            content = root.device.read(at, size)
            if method != EraseMethod.DISCARD or content.strip(_ONES):
                raise EraseFailed(f"the medium still holds something at byte {at} of the block device")
        total += length
    return total


def _within(free: Sequence[Extent], old: Iterable[Extent]) -> Iterator[Extent]:
    """What of the old places is free in the fresh file system."""
    for offset, length in sorted(old):
        at = max(0, bisect_right(free, (offset, sys.maxsize)) - 1)
        while at < len(free) and free[at][0] < offset + length:
            begin, size = free[at]
            first, after = max(offset, begin), min(offset + length, begin + size)
            if first < after:
                yield first, after - first
            at += 1


def _samples(free: Sequence[Extent], random: Entropy) -> Iterator[Extent]:
    """Stretches of the free space, drawn at random."""
    ends = list(accumulate(length for _, length in free))
    for _ in range(SAMPLES if ends else 0):
        position = int.from_bytes(random(8), "big") % ends[-1]
        at = bisect_right(ends, position)
        offset, length = free[at]
        position -= ends[at] - length
        yield offset + position, min(SAMPLE_BYTES, length - position)


def _expected(method: str) -> str:
    return "zeros or ones" if method == EraseMethod.DISCARD else "zeros"
