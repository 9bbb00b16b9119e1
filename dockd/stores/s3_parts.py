"""How a clip is cut into the parts of an S3 multipart upload: from its length alone, so that any life cuts alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

MIB = 1024 * 1024
DEFAULT_PART_BYTES = 8 * MIB  # each upload under way holds one in memory
# Amazon S3 User Guide, "Amazon S3 multipart upload limits".
MIN_PART_BYTES = 5 * MIB  # of every part but the last
MAX_PARTS = 10_000
MAX_OBJECT_BYTES = 5 * 1024**4


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part as it was sent, or as the store lists it."""

    number: int  # from 1
    size_bytes: int
    etag: str  # as the store gave it, with quotes or without; empty where it lists none
    sha256: bytes | None  # None where the store states none


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Parts of `part_bytes` each, the last one shorter."""

    size_bytes: int
    part_bytes: int

    @property
    def count(self) -> int:
        """How many parts."""
        return -(-self.size_bytes // self.part_bytes)

    def length(self, number: int) -> int:
        """The length of a part, from 1 on."""
        if not 1 <= number <= self.count:
            raise ValueError(f"there is no part {number}")
        return min(self.part_bytes, self.size_bytes - (number - 1) * self.part_bytes)

    def number_at(self, offset: int) -> int | None:
        """The part that begins at this offset; None where none does."""
        if not 0 <= offset < self.size_bytes or offset % self.part_bytes:
            return None
        return offset // self.part_bytes + 1

    def stretch(self, offset: int) -> int:
        """How many bytes there are from `offset` to the end of the part that it lies in."""
        left = self.size_bytes - offset
        return max(0, min(self.part_bytes - offset % self.part_bytes, left))

    def whole(self, listed: Mapping[int, Part], sent: Mapping[int, Part]) -> tuple[Part, ...]:
        """The parts from the first on that are there as they should be, up to the first that is not.

        `listed` is what the store has. A part of another length, or one that is not what was `sent` as far as both
        sides can say, is not there: it is sent again, and takes the other's place.
        """
        found = []
        for number in range(1, self.count + 1):
            part = listed.get(number)
            own = sent.get(number)
            if part is None or part.size_bytes != self.length(number) or _differs(part, own):
                break
            if not part.etag and (own is None or own.sha256 != part.sha256):
                break  # nothing to name it by when the upload is completed, or nothing to know it by
            found.append(replace(part, sha256=own.sha256, etag=part.etag or own.etag) if own is not None else part)
        return tuple(found)

    def offset_behind(self, parts: tuple[Part, ...]) -> int:
        """How many bytes the first so many parts hold."""
        return min(len(parts) * self.part_bytes, self.size_bytes)


def _differs(listed: Part, sent: Part | None) -> bool:
    if sent is None:
        return False
    if listed.sha256 is not None and sent.sha256 is not None:
        return listed.sha256 != sent.sha256
    return bool(listed.etag) and bare(listed.etag) != bare(sent.etag)


def bare(etag: str) -> str:
    """An ETag for comparing: some stores quote it in one answer, and not in another (RFC 9110 section 8.8.3)."""
    return etag.removeprefix("W/").strip('"')


def cut(size_bytes: int, preferred_bytes: int = DEFAULT_PART_BYTES) -> Cut:
    """Cut a clip into parts of `preferred_bytes`, or of as many MiB as let MAX_PARTS suffice.

    Raises ValueError for what S3 cannot hold, and for a preference below its least.
    """
    if not 1 <= size_bytes <= MAX_OBJECT_BYTES:
        raise ValueError(f"an object of {size_bytes} bytes; S3 holds 1 to {MAX_OBJECT_BYTES} bytes")
    if preferred_bytes < MIN_PART_BYTES:
        raise ValueError(f"parts of {preferred_bytes} bytes; S3 takes {MIN_PART_BYTES} or more")
    least = -(-size_bytes // MAX_PARTS)
    return Cut(size_bytes=size_bytes, part_bytes=max(preferred_bytes, -(-least // MIB) * MIB))


def composite(digests: Iterable[bytes]) -> bytes:
    """S3's composite checksum: the SHA-256 of the parts' SHA-256 digests, one after the other."""
    return hashlib.sha256(b"".join(digests)).digest()
