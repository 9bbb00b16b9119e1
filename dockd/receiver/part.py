"""An upload's file: written, hashed and made durable. Blocking; every method runs off the event loop."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dockd import faults as no
from dockd.core.age_header import HEADER_LIMIT_BYTES, X25519, parse_header
from dockd.core.challenge import Range, range_digest
from dockd.errors import VerificationFailed
from dockd.faultpoints import Point
from dockd.faults import Faults

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_READ_BYTES = 1 << 20


class HeaderWrong(VerificationFailed):
    """The sealed clip's header is not what its manifest makes one expect."""


def check_header(prefix: bytes, stanzas: int) -> bool:
    """Whether the header is there and has exactly so many X25519 stanzas; False where more bytes are needed.

    The stanzas name nobody: that they are for the recipients of the manifest is the station's word.
    """
    try:
        header = parse_header(prefix)
    except VerificationFailed as error:
        raise HeaderWrong(str(error)) from error
    if header is None:
        return False
    kinds = [stanza.type for stanza in header.stanzas]
    if kinds != [X25519] * stanzas:
        found = ", ".join(kinds[:8])
        raise HeaderWrong(f"the manifest names {stanzas} X25519 recipients, the clip's header has: {found}")
    return True


class Part:
    """One writer's hold on an upload's file. `position` bytes are in it, and in `hash`; `synced` of them durable."""

    def __init__(self, descriptor: int, position: int, hash_: Hash, *, stanzas: int, faults: Faults) -> None:
        self._descriptor = descriptor
        self._faults = faults
        self._stanzas = stanzas
        self._guard = threading.Lock()  # a cancelled writer may leave a write behind: close waits for it
        self._closed = False
        self.position = position
        self.synced = position
        self.hash = hash_
        self.header_known = False

    @classmethod
    def open(
        cls, path: Path, durable_bytes: int, hash_: Hash | None, *, stanzas: int, faults: Faults = no.NONE
    ) -> Self:
        """Open at the durable offset; what stands beyond it was never reported, and goes.

        `hash_` is of exactly the durable bytes; without one they are read again. Raises OSError.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            faults.act(Point.PART_CUT, os.ftruncate, descriptor, durable_bytes)
            hash_ = hash_digest(descriptor, durable_bytes) if hash_ is None else hash_.copy()
            part = cls(descriptor, durable_bytes, hash_, stanzas=stanzas, faults=faults)
            part.look_at_header()
        except BaseException:
            os.close(descriptor)
            raise
        return part

    def write(self, blocks: Sequence[bytes]) -> None:
        """Append. Raises OSError, and HeaderWrong as soon as the header is known to be wrong."""
        with self._guard:
            if self._closed:
                return  # its PATCH is over, and nobody waits for these bytes
            for block in blocks:
                self._write_all(block)
                self.hash.update(block)
            if not self.header_known:
                self.look_at_header()

    def sync(self) -> None:
        """Make all that was written durable. Raises OSError."""
        with self._guard:
            if not self._closed:
                self._faults.act(Point.PART_SYNC, os.fsync, self._descriptor)
                self.synced = self.position

    def close(self) -> None:
        """Let go of the file, after a write that is still under way."""
        with self._guard:
            if not self._closed:
                self._closed = True
                os.close(self._descriptor)

    def look_at_header(self) -> None:
        """Check the header as far as it is there. Raises HeaderWrong."""
        if self.position and not self.header_known:
            prefix = os.pread(self._descriptor, min(self.position, HEADER_LIMIT_BYTES + 1), 0)
            self.header_known = check_header(prefix, self._stanzas)

    def _write_all(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            written = self._faults.write(Point.PART_DATA, self._descriptor, view, self.position)
            if written == 0:
                raise OSError(errno.EIO, "nothing was written")
            self.position += written
            view = view[written:]


def hash_digest(descriptor: int, size_bytes: int) -> Hash:
    """SHA-256 over the first bytes of a file. Raises OSError, also where it has fewer."""
    hash_ = hashlib.sha256()
    for block in _blocks(descriptor, size_bytes):
        hash_.update(block)
    return hash_


def hash_file(path: Path, size_bytes: int) -> Hash:
    """SHA-256 over the first bytes of the file at `path`. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return hash_digest(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def hash_shown(path: Path, size_bytes: int, nonce: bytes) -> tuple[bytes, bytes]:
    """SHA-256 over the first bytes of a file, and the same with `nonce` before them, in one pass. Raises OSError."""
    plain, shown = hashlib.sha256(), hashlib.sha256(nonce)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for block in _blocks(descriptor, size_bytes):
            plain.update(block)
            shown.update(block)
    finally:
        os.close(descriptor)
    return plain.digest(), shown.digest()


def _blocks(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    position = 0
    while position < size_bytes:
        block = os.pread(descriptor, min(_READ_BYTES, size_bytes - position), position)
        if not block:
            raise OSError(errno.EIO, f"the file ends at {position}, not at {size_bytes}")
        yield block
        position += len(block)


def hash_ranges(path: Path, nonce: bytes, wanted: Sequence[Range]) -> tuple[bytes, ...]:
    """The answers to a range challenge, read from the file now. Raises OSError, also where it ends before a range."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = []
        for one in wanted:
            piece = bytearray()
            while len(piece) < one.length:
                more = os.pread(descriptor, one.length - len(piece), one.offset + len(piece))
                if not more:
                    raise OSError(errno.EIO, f"the file ends at {one.offset + len(piece)}")
                piece += more
            found.append(range_digest(nonce, bytes(piece)))
        return tuple(found)
    finally:
        os.close(descriptor)


def read_prefix(path: Path) -> bytes:
    """As much of a file as its header may take. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, HEADER_LIMIT_BYTES + 1, 0)
    finally:
        os.close(descriptor)
