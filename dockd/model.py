"""The records that every part shares. Frozen; units stand in the names; times are aware UTC datetimes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType, Protocol

StationId = NewType("StationId", str)  # a UUID in lower-case text
StoreId = NewType("StoreId", str)  # a UUID in lower-case text
AcquisitionId = NewType("AcquisitionId", str)  # a UUIDv7 in lower-case text
DockingId = NewType("DockingId", str)  # a UUIDv7 in lower-case text
BayNumber = NewType("BayNumber", int)  # the number people use, from 1
Epoch = NewType("Epoch", int)  # numbers the dockings of a station; a message of an old epoch is refused
Digest = NewType("Digest", str)  # "sha256:" and 64 lower-case hex digits


class Clock(Protocol):
    """Time, injected: the composition root passes the machine's, tests pass one that they turn by hand."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start, never going back."""

    async def sleep(self, delay_s: float) -> None:
        """Wait. Cancellation ends the wait at once."""


class Entropy(Protocol):
    """Randomness, injected. `secrets.token_bytes` is one."""

    def __call__(self, count: int, /) -> bytes:
        """`count` fresh random bytes."""


class VerdictStatus(StrEnum):
    """What the structure check says of a clip. All three are preserved."""

    INTACT = "intact"
    DAMAGED = "damaged"
    UNRECOGNISED = "unrecognised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The structure check's finding. `reasons` are short sentences; empty only where intact."""

    status: VerdictStatus
    container: str  # "mp4", "fragmented-mp4", "avi", "mpeg-ts", "unknown"
    reasons: tuple[str, ...] = ()
    duration_ms: int | None = None  # as the container states it
    recorded_at: datetime | None = None  # start of the recording, as the container states it


class Category(StrEnum):
    """Whether a clip was flagged as evidence."""

    EVIDENCE = "evidence"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraIdentity:
    """Who a camera says it is. Two equal records are taken for the same camera and the same file system."""

    serial: str
    model: str
    volume_id: str  # the file system's UUID; of a folder camera, the one in dockd-camera.toml
    vendor: str = ""
    product: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """One file as a listing saw it. `path` is relative to the camera's root: bytes, as the file system has them."""

    path: bytes
    size_bytes: int
    mtime_ns: int
    inode: int
    links: int = 1


class FileKind(StrEnum):
    """What a listing makes of a directory entry."""

    CLIP = "clip"
    OTHER = "other"  # a regular file that is no clip: stays, and is listed
    REFUSED = "refused"  # not a regular file, or unreadable, or beyond a cap: `reason` says which


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A directory entry with what the rules make of it."""

    file: FoundFile
    kind: FileKind
    category: Category = Category.NONE
    reason: str = ""  # why it is refused, or why it is flagged as evidence


class CacheState(StrEnum):
    """Where a second read came from."""

    DIRECT = "direct"  # O_DIRECT: from the medium
    DROPPED = "dropped"  # buffered, after the page cache was dropped and mincore said so
    CACHED = "cached"  # the file system would not drop it: the record says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What one read pass over a clip left behind: digests and lengths of both sides, and the structure verdict."""

    file: FoundFile  # as it was during this very read
    plaintext_digest: Digest
    plaintext_size_bytes: int
    sealed_digest: Digest
    sealed_size_bytes: int
    verdict: Verdict
    recipients: tuple[str, ...]  # fingerprints (core.sealing.fingerprint) in stanza order


@dataclass(frozen=True, slots=True, kw_only=True)
class Reread:
    """A second, independent read of a clip within one docking."""

    docking: DockingId
    file: FoundFile
    plaintext_digest: Digest
    cache: CacheState


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What was done to one clip on the camera, and what was then seen."""

    acquisition: AcquisitionId
    method: str  # "delete": overwrite, truncate, unlink, fsync of the directory
    overwritten_bytes: int
    checked: str  # what the look afterwards established, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBytes:
    """Exact bytes and the armoured SSHSIG over them. Never re-serialised."""

    payload: bytes
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """One reading of one clip, as the journal has it. None where the step that sets it has not come yet."""

    acquisition: AcquisitionId
    state: str  # a core.lifecycle.AcquisitionState
    docking: DockingId  # the newest docking in which the clip was seen
    bay: BayNumber
    camera: CameraIdentity
    file: FoundFile
    category: Category
    category_reason: str
    found_at: datetime
    attempts: int = 0  # reads started
    readers_ended: int = 0  # reads that ended a reader: two make a quarantine
    contested: bool = False  # a second read disagreed: uploaded, but never grounds for erasing
    sealed: Sealed | None = None
    manifest_digest: Digest | None = None
    custody_seq: int | None = None  # of the entry that says it was sealed
    upload_url: str | None = None
    reread: Reread | None = None  # the newest one that agreed
    released_by: str | None = None  # the operator who let a damaged clip be erased
    quarantine_reason: str | None = None
