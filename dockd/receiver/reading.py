"""Read a stored object again from its medium, in slices, out of everybody's way. Blocking; for a thread of its own."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dockd.model import Digest, SignedBytes
from dockd.receiver.layout import Stored, signature_of
from dockd.receiver.look import Gone, open_clip
from dockd.receiver.rows import Announced

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

SLICE_BYTES = 1 << 20
_NICEST = 19
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # <linux/ioprio.h>; glibc has no wrapper
_IOPRIO_WHO_PROCESS, _IOPRIO_IDLE = 1, 3 << 13
_libc = ctypes.CDLL(None, use_errno=True)  # the handle of a library, not state of ours


def be_idle() -> str:
    """Let the calling thread alone have what no other wants of CPU and disks. Returns what was refused, else ""."""
    thread = threading.get_native_id()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, _NICEST)  # Linux: of the thread, setpriority(2)
    except OSError as error:
        return f"nice: {error.strerror}"
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        return f"ioprio: its number is not known for {platform.machine()}"
    if _libc.syscall(number, _IOPRIO_WHO_PROCESS, thread, _IOPRIO_IDLE) != 0:
        return f"ioprio: {os.strerror(ctypes.get_errno())}"
    return ""


class Reading:
    """One object on its way through SHA-256. `done` bytes were read."""

    def __init__(self, descriptor: int, one: Announced, path: Path) -> None:
        self._descriptor = descriptor
        self._one = one
        self._path = path
        self._hash: Hash = hashlib.sha256()
        self.done = 0
        self._forget()  # what is in memory since it arrived says nothing of the medium

    @classmethod
    def open(cls, stored: Stored, one: Announced) -> Self:
        """Raises as `look.open_clip` does."""
        return cls(open_clip(stored, one), one, stored.clip)

    def step(self) -> int:
        """Read the next slice; returns its length, 0 at the end. Raises OSError where the medium does not give it."""
        block = os.pread(self._descriptor, min(SLICE_BYTES, self._one.size_bytes - self.done), self.done)
        if not block and self.done < self._one.size_bytes:
            raise Gone(f"{self._path} ends at {self.done}, not at {self._one.size_bytes}", what="length")
        self._hash.update(block)
        self.done += len(block)
        return len(block)

    @property
    def digest(self) -> Digest:
        """Of all that was read."""
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def close(self) -> None:
        """Let go of it, and of the memory that it took."""
        try:
            self._forget()
        finally:
            os.close(self._descriptor)

    def _forget(self) -> None:
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def wrong_papers(stored: Stored, one: Announced, receipt: SignedBytes) -> list[Path]:
    """Which of manifest, receipt and their signatures are not there as they were written. Raises OSError."""
    wanted = {
        stored.manifest: one.manifest.payload,
        signature_of(stored.manifest): one.manifest.signature.encode(),
        stored.receipt: receipt.payload,
        signature_of(stored.receipt): receipt.signature.encode(),
    }
    return [path for path, content in wanted.items() if not _is(path, content)]


def _is(path: Path, content: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(descriptor, len(content) + 1, 0) == content  # a regular file gives all that it has
    finally:
        os.close(descriptor)
