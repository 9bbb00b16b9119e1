"""What a reader asks of a camera, whatever reaches it: files below directory descriptors, or objects over MTP."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from dockd.core.warrant import EraseWarrant
    from dockd.errors import DockdError
    from dockd.model import CacheState, CameraIdentity, Erasure, FoundFile, ListedFile
    from dockd.reader.rules import ClipRules
    from dockd.reader.work import Work

GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ENOMEDIUM, errno.ESHUTDOWN})


class SecondRead(Protocol):
    """Where the bytes of one second read come from. Made before the first of them is read."""

    direct: bool  # they are read with O_DIRECT: only whole pages at page boundaries

    def look(self, offset: int, size: int, *, direct: bool) -> None:
        """A block was read, `direct` or not."""

    def state(self, *, direct: bool) -> CacheState:
        """What the record may say. `direct`: every block was read with O_DIRECT."""


class Clip(Protocol):
    """A clip that is open."""

    @property
    def path(self) -> bytes:
        """As in the listing."""

    def lease_holds(self) -> bool:
        """Whether nobody else can have changed it since it was opened."""

    def found(self) -> FoundFile:
        """The clip as it is now."""

    def changed_ns(self) -> int:
        """A time of change that no program can set back, to be compared with a later one; 0 where there is none."""

    def read(self, view: memoryview, offset: int) -> int:
        """Some bytes into `view`; 0 only at the end. OSErrors pass through: EIO for what the medium does not give."""

    def leave_direct(self) -> None:
        """O_DIRECT was accepted and then refused a read: go on without."""

    def second_read(self) -> SecondRead:
        """Prepare for reading it from the medium, not from a cache."""


class Camera(Protocol):
    """One camera, for one reader."""

    @property
    def identity(self) -> CameraIdentity:
        """Who it was when it was admitted."""

    def attached(self) -> bool:
        """Whether it is still there. Asked of the medium, never of a cache."""

    def require_attached(self) -> None:
        """Raise CameraGone unless it is attached."""

    def identify(self) -> CameraIdentity:
        """Who it is, read anew from the medium. Raises CameraRefused, CameraGone."""

    def walk(self, rules: ClipRules) -> Iterator[ListedFile]:
        """Every file, once, with what the rules make of it. Raises CameraGone; complete where it ends."""

    def clip(self, file: FoundFile) -> AbstractContextManager[Clip]:
        """Open a clip and see that it is the one listed.

        Raises CameraGone, ClipGone, ClipBusy, ClipChanged or ClipRefused.
        """

    def erase(self, work: Work, warrant: EraseWarrant, changed_ns: int | None) -> Erasure:
        """Erase the warrant's file and look again. `changed_ns` is from its second read; None for a remnant.

        Raises EraseFailed, CameraGone, ClipGone, ClipBusy, ClipChanged or ClipRefused with the clip untouched under its
        name, erase.LeftHalfway otherwise.
        """

    def translate(self, error: OSError, path: bytes) -> DockdError:
        """What an OSError on a clip means: mostly that the camera, or the clip, is gone."""


def differences(before: FoundFile, now: FoundFile) -> str:
    """In words, what is not the same."""
    words = []
    if before.size_bytes != now.size_bytes:
        words.append(f"{now.size_bytes} bytes instead of {before.size_bytes}")
    if before.mtime_ns != now.mtime_ns:
        words.append("another time of change")
    if before.inode != now.inode:
        words.append("another inode")
    if before.links != now.links:
        words.append(f"{now.links} links instead of {before.links}")
    return ", ".join(words) or "another name"
