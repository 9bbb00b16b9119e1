"""A look at a stored object, of the kind that a statement about it is signed after. Blocking; off the event loop."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from dockd import faults as no
from dockd.faultpoints import Point
from dockd.faults import Faults
from dockd.receiver.layout import Stored
from dockd.receiver.part import hash_file, hash_shown
from dockd.receiver.rows import Announced


class Gone(OSError):
    """The clip itself is provably not there any more as it was signed for: absent, of another length, other bytes."""

    def __init__(self, sentence: str, *, what: Literal["missing", "length", "changed"]) -> None:
        super().__init__(sentence)
        self.what = what


def look(stored: Stored, one: Announced, *, rehash: bool) -> None:
    """Reopen the object. Raises OSError where it is not there as it was signed for, Gone where that is proven."""
    descriptor = open_clip(stored, one)
    try:
        os.pread(descriptor, 1, one.size_bytes - 1)
    finally:
        os.close(descriptor)
    if rehash:
        digest = hash_file(stored.clip, one.size_bytes).hexdigest()
        if "sha256:" + digest != one.sealed_digest:
            raise Gone(f"{stored.clip} has the digest {digest}", what="changed")
    look_at_manifest(stored, one)


def open_clip(stored: Stored, one: Announced) -> int:
    """A descriptor of the object. Raises OSError where it is not there, Gone where that, or its length, proves it lost.

    What a medium does not give, what may not be opened and what a link stands for may all come back by themselves. So
    may a whole disk that is not mounted: nothing is proven where not even the station's directory is there.
    """
    try:
        descriptor = os.open(stored.clip, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        if stored.directory.parent.is_dir():
            raise Gone(f"{stored.clip} is not there", what="missing") from error
        raise
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size == one.size_bytes:
        return descriptor
    os.close(descriptor)
    raise Gone(f"{stored.clip} has {found.st_size} bytes instead of {one.size_bytes}", what="length")


def look_at_manifest(stored: Stored, one: Announced) -> None:
    """Raises OSError where the manifest beside an object is not the one that was signed for."""
    if stored.manifest.read_bytes() != one.manifest.payload:
        raise OSError(f"{stored.manifest} is not the manifest that was signed for")


def look_whole(stored: Stored, one: Announced, nonce: bytes) -> bytes:
    """Read all of the object, now. Returns the digest of `nonce` and its bytes. Raises as `look` does."""
    look(stored, one, rehash=False)
    digest, shown = hash_shown(stored.clip, one.size_bytes, nonce)
    if "sha256:" + digest.hex() != one.sealed_digest:
        raise Gone(f"{stored.clip} has the digest {digest.hex()}", what="changed")
    return shown


def set_aside(path: Path, faults: Faults = no.NONE) -> None:
    """Make room under this name: what stands there is kept, for whoever asks what happened to it."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.set-aside-{number}")):
        number += 1
    faults.act(Point.STORED_ASIDE, path.rename, aside)
