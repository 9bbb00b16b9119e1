"""What one reader of a docking hands to the next, in a file that is memory alone.

A reader is sealed off to the mounts that it was started with (dockd.reader.confine), and none can be added: where the
volumes are mounted anew, another reader takes over. It gets what the one before found out, and nothing else: a line of
JSON, and after it all stretches of all planned clips, as 64-bit numbers. Both are of the same camera and docking, and
neither is trusted more than the other.
"""

from __future__ import annotations

import json
import os
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dockd.core.canonical import decode_path, encode_path
from dockd.errors import ReaderDied, VerificationFailed
from dockd.model import AcquisitionId
from dockd.reader.messages import integer, table, text

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BYTES = 64 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class PlannedClip:
    """A clip that is to be erased, and where it lies on its volume."""

    root: bytes  # the name of its volume
    path: bytes  # in that volume
    shown: str
    extents: array[int]  # offset, length, offset, length
    generation: int  # of the camera's descriptors when it was planned, or erased
    erased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The state of a reader between two mounts."""

    volumes: tuple[tuple[str, str, str], ...]  # of the camera: name, file system, id
    generation: int  # of its descriptors
    reread: Mapping[bytes, int]  # what was read a second time (dockd.reader.child), and its change time then
    clips: Mapping[AcquisitionId, PlannedClip]


def pack(carried: Carried) -> int:
    """Write it down; returns the descriptor, which is the caller's. OSErrors pass through."""
    head = {
        "volumes": [list(one) for one in carried.volumes],
        "generation": carried.generation,
        "reread": {key.hex(): str(changed_ns) for key, changed_ns in carried.reread.items()},
        "clips": {
            name: {
                "root": encode_path(clip.root),
                "path": encode_path(clip.path),
                "shown": clip.shown,
                "numbers": len(clip.extents),
                "generation": clip.generation,
                "erased": "yes" if clip.erased else "no",
            }
            for name, clip in carried.clips.items()
        },
    }
    fd = os.memfd_create("dockd-reader", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(head).encode() + b"\n")
        for clip in carried.clips.values():
            clip.extents.tofile(file)
    return fd


def unpack(fd: int) -> Carried:
    """The inverse; the descriptor is closed. Raises ReaderDied for what no reader of ours wrote."""
    with open(fd, "rb") as file:
        file.seek(0)
        line, numbers = file.readline(MAX_BYTES), file.read(MAX_BYTES)
    try:
        head = json.loads(line)
        if not isinstance(head, dict):
            raise ReaderDied("what the last reader left is no table")
        given = array("Q")
        given.frombytes(numbers)
        at, clips = 0, {}
        for name, one in table(head, "clips").items():
            count = integer(one, "numbers")
            clips[AcquisitionId(name)] = _clip(one, given[at : at + count])
            at += count
        if at != len(given):
            raise ReaderDied("what the last reader left has another length than it says")
        return Carried(
            volumes=tuple((str(one), str(two), str(three)) for one, two, three in head["volumes"]),
            generation=integer(head, "generation"),
            reread={bytes.fromhex(key): int(value) for key, value in table(head, "reread").items()},
            clips=clips,
        )
    except (ValueError, TypeError, KeyError, VerificationFailed) as error:
        raise ReaderDied("what the last reader left cannot be read") from error


def _clip(fields: dict[str, Any], extents: array[int]) -> PlannedClip:
    return PlannedClip(
        root=decode_path(text(fields, "root")),
        path=decode_path(text(fields, "path")),
        shown=text(fields, "shown"),
        extents=extents,
        generation=integer(fields, "generation"),
        erased=text(fields, "erased") == "yes",
    )
