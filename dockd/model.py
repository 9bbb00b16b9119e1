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


class Role(StrEnum):
    """What an acquisition is of."""

    CLIP = "clip"
    SIDECAR = "sidecar"  # a file that belongs to a clip: a thumbnail, a track


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What the name of a file says, by the profile of its camera. Empty and None where it says nothing."""

    started_at: datetime | None = None  # the time in the name, in UTC
    local: str = ""  # the same as it is written: "2026-02-01T07:30:00"
    time_zone: str = ""  # by which it was read: "utc", "station", or a name of the time zone database
    sequence: str = ""
    officer: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """One file as a listing saw it. `path` is relative to the camera's root: bytes, as the file system has them.

    On a camera with several volumes it begins with the volume's name and a slash.
    """

    path: bytes
    size_bytes: int
    mtime_ns: int
    inode: int  # 0 where the file system keeps no number for a file: FAT, exFAT, MTP
    links: int = 1


class MediumKind(StrEnum):
    """How a reader reaches a camera."""

    FOLDER = "folder"  # a directory of this machine
    VOLUMES = "volumes"  # mounts of its block devices, attached nowhere: their descriptors are all there is
    MTP = "mtp"  # over USB, by the reader itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One file system of a camera, reachable. The descriptors belong to whoever made the record."""

    name: str  # "" where the camera has only this one; else "lun0", "lun1p2"
    filesystem: str  # "folder", "vfat", "exfat", "ext4"
    volume_id: str  # its UUID as udev gives it; of a folder, the marker's
    root_fd: int  # a directory
    block_fd: int = -1  # the block device, read-only; -1 for a folder
    dirty: str = ""  # why it is not clean, in words; "" for a clean one


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """What a reader is handed of a camera: volumes, or the address of an MTP device."""

    kind: MediumKind
    volumes: tuple[Volume, ...] = ()
    usb_bus: int = 0  # of an MTP device
    usb_device: int = 0


class FileKind(StrEnum):
    """What a listing makes of a directory entry."""

    CLIP = "clip"
    SIDECAR = "sidecar"  # belongs to a clip, and is read, kept and erased like one
    OTHER = "other"  # a regular file that is no clip: stays, and is listed
    REFUSED = "refused"  # not a regular file, or unreadable, or beyond a cap: `reason` says which


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A directory entry with what the rules make of it."""

    file: FoundFile
    kind: FileKind
    category: Category = Category.NONE
    reason: str = ""  # why it is refused, is flagged as evidence, or is noise


class CacheState(StrEnum):
    """Where a second read came from."""

    DIRECT = "direct"  # O_DIRECT: from the medium
    DROPPED = "dropped"  # buffered, after the page cache was dropped and mincore said so
    CACHED = "cached"  # the file system would not drop it: the record says so
    DEVICE = "device"  # asked of the camera anew over MTP: what it read to answer, it alone knows


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
    reread: Reread | None = None  # the newest one that agreed
    role: Role = Role.CLIP
    of: AcquisitionId | None = None  # of a sidecar: the clip that it belongs to
    profile: str = ""  # that it was found by; empty for a folder
    profile_version: int = 0
    named: Named | None = None
    released_by: str | None = None  # the operator who let a damaged clip be erased, the newest one
    released_for: tuple[str, ...] = ()  # what had been seen of it by then (core.releases); it covers nothing else
    quarantine_reason: str | None = None
