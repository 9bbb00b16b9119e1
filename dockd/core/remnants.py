"""The name under which a clip is erased.

The reader renames a clip to this name before it overwrites the first byte. An erasure that a power cut stops half-way
so leaves a file that says whose remnant it is, and that nobody can take for a clip.
"""

from __future__ import annotations

import re

from dockd.model import AcquisitionId

_PREFIX = b".dockd-erasing-"
_BLOCKS = tuple(1 << bits for bits in range(9, 26))  # bytes of a block, or cluster: 512 to the 32 MiB of exFAT
_NAME = re.compile(rb"\.dockd-erasing-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def remnant_name(acquisition: AcquisitionId) -> bytes:
    """The file name, in the clip's own directory."""
    return _PREFIX + acquisition.encode()


def remnant_of(path: bytes) -> AcquisitionId | None:
    """The acquisition whose remnant `path` is by its name, or None."""
    match = _NAME.fullmatch(path.rpartition(b"/")[2])
    return AcquisitionId(match[1].decode()) if match else None


def without_last_block(size_bytes: int, block_bytes: int) -> int:
    """The size of a clip that gave up its last block, to make room for the name of its remnant on a full volume."""
    return max(0, size_bytes - 1) // block_bytes * block_bytes


def may_be_left(size_bytes: int, of_bytes: int) -> bool:
    """Whether a remnant of a clip of `of_bytes` may have this size: the clip's, none, or it gave up its last block."""
    return size_bytes in (0, of_bytes) or any(size_bytes == without_last_block(of_bytes, block) for block in _BLOCKS)
