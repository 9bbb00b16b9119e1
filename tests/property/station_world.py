"""What the small world of the state machine is made of: files on cameras, objects in a store, dockings in memory."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import timedelta

from manifests import stated

from dockd.core import canonical, receipts
from dockd.core.manifest import Manifest
from dockd.model import Acquisition, CameraIdentity, FoundFile, Sealed, SignedBytes

STATION = str(uuid.UUID(int=1))


@dataclass
class File:
    """A file on a camera. `content` stands for its bytes; `damaged` is what a structure check would say."""

    content: int
    size: int
    mtime: int
    inode: int
    damaged: bool = False


@dataclass
class Camera:
    """A camera, docked or not."""

    identity: CameraIdentity
    files: dict[bytes, File] = field(default_factory=dict)
    bay: int | None = None


@dataclass
class Kept:
    """An object in the store: how much of it arrived, and what it is."""

    manifest: bytes
    content: int
    whole: bool = False
    receipt: SignedBytes | None = None
    other: int | None = None  # which of another station's objects stands for it


@dataclass
class Lodged:
    """What another station brought: its signed manifest, and what its object really is."""

    signed: SignedBytes
    content: int
    whole: bool = True


@dataclass
class Store:
    """What the store has on its disk."""

    kept: dict[str, Kept] = field(default_factory=dict)
    last: str = receipts.NO_PREVIOUS
    seq: int = 0
    retention: timedelta = timedelta(days=365)


@dataclass
class Stay:
    """A docking, as the daemon and its reader have it in memory: gone with a power cut or an undocking."""

    docking: str
    epoch: int
    camera: Camera
    listed: bool = False
    evidence: dict[str, tuple[FoundFile, int]] = field(default_factory=dict)  # what this very reader read again


def digest(*parts: object) -> str:
    return canonical.digest(repr(parts).encode())


def as_found(path: bytes, file: File) -> FoundFile:
    return FoundFile(path=path, size_bytes=file.size, mtime_ns=file.mtime, inode=file.inode)


def make_manifest(row: Acquisition, sealed: Sealed, stay: Stay, seq: int) -> Manifest:
    nonce = canonical.digest(row.acquisition.encode()).encode()[-32:]
    return replace(stated(STATION, row, sealed, seq, nonce), docking=stay.docking)
