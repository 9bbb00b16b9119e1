"""What a store that does not sign says of an acquisition's objects, and the checksums to compare it with.

An acquisition is three objects: the sealed clip, its manifest, and the manifest's signature. All three have to be
confirmed, since a clip without its manifest proves little.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Piece(StrEnum):
    """Which of an acquisition's objects."""

    SEALED = "sealed"
    MANIFEST = "manifest"
    SIGNATURE = "signature"


class Algorithm(StrEnum):
    """A checksum that is worth something against more than noise: no others are believed."""

    SHA256 = "sha256"  # of the whole object
    SHA256_OF_PARTS = "sha256-of-parts"  # of the parts' digests, one after the other (S3's composite checksum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """What the store computed of the bytes that it has, by its own word."""

    algorithm: Algorithm
    digest: bytes  # 32 bytes
    part_bytes: int = 0  # SHA256_OF_PARTS only: the length of every part but the last


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectState:
    """One object, as the store described it in the answer to one new request."""

    size_bytes: int
    version: str  # a version id, an ETag or the like: another one means another object, the same one proves nothing
    checksum: Checksum | None  # None: the store states none that can be believed, so the object has to be read back
    retention_until: datetime | None  # until then the store lets nobody delete it; None: it promises nothing
    legal_hold: bool = False
