"""What the tasks of one reader share: the camera, the buffer, and the question whether it is still wanted."""

from __future__ import annotations

import errno
import mmap
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dockd.errors import CameraGone, ClipBusy, ClipChanged, ClipRefused
from dockd.reader import kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dockd.core.sealing import Recipient
    from dockd.faults import Faults
    from dockd.model import AcquisitionId, DockingId, Entropy, Epoch, FoundFile
    from dockd.reader.camera import Camera, Clip
    from dockd.reader.rules import ClipRules

PROGRESS_S = 0.2  # between two progress messages
MAX_UNREADABLE = 4096  # pieces of one clip that may be unreadable and still be preserved as zeros
MAX_UNREADABLE_RANGES = 8  # that the verdict names
_PIECE_BYTES = 4096


class Unwanted(Exception):
    """Nobody waits for this reader any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One reader's means. `wanted` raises Unwanted where the daemon is gone; `tell` sends a progress message."""

    docking: DockingId
    epoch: Epoch
    camera: Camera
    incoming_fd: int
    recipients: tuple[Recipient, ...]
    rules: ClipRules
    buffer: mmap.mmap
    random: Entropy
    faults: Faults
    wanted: Callable[[], None]
    tell: Callable[[AcquisitionId, str, int, int], None]


def shielded_buffer(size: int) -> mmap.mmap:
    """A page-aligned buffer that stays out of core dumps and, where the limits allow it, out of swap."""
    buffer = mmap.mmap(-1, size)
    kernel.shield_buffer(buffer)
    return buffer


class Pulse:
    """Between two blocks: go on only while the daemon, the camera and the lease are there; tell how far it is."""

    def __init__(self, work: Work, acquisition: AcquisitionId, phase: str, clip: Clip | None, size_bytes: int) -> None:
        self._work = work
        self._acquisition = acquisition
        self._phase = phase
        self._clip = clip
        self._size_bytes = size_bytes
        self._told_s = time.monotonic()

    def beat(self, done_bytes: int) -> None:
        """Between two blocks of a read. Raises also ClipBusy, where some program wants to write the clip."""
        if self._clip is not None and not self._clip.lease_holds():
            raise ClipBusy("some program opened the clip while it was read")
        self.tell(done_bytes)

    def tell(self, done_bytes: int) -> None:
        """Raises Unwanted where the daemon is gone, CameraGone where the camera left."""
        self._work.wanted()
        now_s = time.monotonic()
        if now_s - self._told_s >= PROGRESS_S:
            self._told_s = now_s
            self._work.camera.require_attached()
            self._work.tell(self._acquisition, self._phase, done_bytes, self._size_bytes)


@dataclass(slots=True, kw_only=True)
class ClipReader:
    """Reads a clip block by block into the one buffer. What the medium does not give stands as zeros, and is noted."""

    work: Work
    clip: Clip
    size_bytes: int
    unreadable: list[tuple[int, int]] = field(default_factory=list)  # ranges: first byte, byte after the last
    pieces: int = 0  # unreadable ones
    direct: bool = False  # the descriptor has O_DIRECT: it takes only whole pages at page boundaries

    def blocks(self) -> Iterator[tuple[int, memoryview, bool]]:
        """Offset, bytes (good until the next block) and whether it is the last. An empty clip has one empty block.

        Raises ClipChanged where the clip ends early, CameraGone, or ClipRefused where too much is unreadable.
        """
        view = memoryview(self.work.buffer)[: self.work.rules.block_bytes]
        offset = 0
        while True:
            want = min(len(view), self.size_bytes - offset)
            self._fill(view, want, offset)
            last = offset + want == self.size_bytes
            yield offset, view[:want], last
            if last:
                return
            offset += want

    def unreadable_reason(self) -> str | None:
        """In words, what could not be read."""
        if not self.unreadable:
            return None
        ranges = ", ".join(f"{first} to {end - 1}" for first, end in self.unreadable[:MAX_UNREADABLE_RANGES])
        more = " and more" if len(self.unreadable) > MAX_UNREADABLE_RANGES else ""
        total = sum(end - first for first, end in self.unreadable)
        return f"{total} bytes could not be read and stand as zeros: bytes {ranges}{more}"

    def _fill(self, view: memoryview, want: int, offset: int) -> None:
        got = 0
        while got < want:
            try:
                count = self._read(view, got, want, offset)
            except OSError as error:
                if error.errno == errno.EINVAL and self.direct:
                    self._leave_direct()
                    continue
                if error.errno != errno.EIO:
                    raise self.work.camera.translate(error, self.clip.path) from error
                got += self._skip(view, got, min(want, got + _PIECE_BYTES), offset)
                continue
            if count == 0:
                raise ClipChanged(f"the clip ended after {offset + got} of {self.size_bytes} bytes")
            got += count

    def _read(self, view: memoryview, start: int, end: int, offset: int) -> int:
        """Whole pages with O_DIRECT: the buffer has room for them, and a file's end makes the read short."""
        self.work.faults.at("read", self.clip.path, offset + start, offset + end)
        if self.direct:
            self.work.faults.at("read.direct", self.clip.path, offset + start, offset + end)
        room = -(-end // _PIECE_BYTES) * _PIECE_BYTES if self.direct else end
        return self.clip.read(view[start:room], offset + start)

    def _leave_direct(self) -> None:
        """The file system took O_DIRECT, but not for this read."""
        self.clip.leave_direct()
        self.direct = False

    def _skip(self, view: memoryview, start: int, end: int, offset: int) -> int:
        """Try one piece alone; where the medium still does not give it, zeros stand for it. Returns its length."""
        self.work.wanted()
        self.work.camera.require_attached()
        try:
            if self._read(view, start, end, offset) >= end - start:
                return end - start
        except OSError as error:
            if error.errno != errno.EIO:
                raise CameraGone(f"the camera left its bay: {error.strerror}") from error
        self.pieces += 1
        if self.pieces > MAX_UNREADABLE:
            raise ClipRefused("most of the clip cannot be read: have the camera's memory examined")
        view[start:end] = bytes(end - start)
        first, after = offset + start, offset + end
        if self.unreadable and self.unreadable[-1][1] == first:
            self.unreadable[-1] = (self.unreadable[-1][0], after)
        else:
            self.unreadable.append((first, after))
        return end - start


def require_unchanged(clip: Clip, file: FoundFile) -> None:
    """After the last block: the clip must be what it was before the first, and nobody may have begun to write it."""
    if not clip.lease_holds():
        raise ClipBusy("some program opened the clip while it was read")
    if clip.found() != file:
        raise ClipChanged("the clip changed while it was read")
