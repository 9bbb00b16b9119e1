"""Erase: one file, under a warrant, by overwriting, truncating and unlinking it; then look again.

A clip is renamed to its remnant name before its first byte changes. Until then everything can be taken back; after
it, an error leaves a remnant that says whose it is, and the reader ends, so that the row stays warranted.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dockd.core.remnants import remnant_name, without_last_block
from dockd.errors import CameraRefused, ClipBusy, ClipChanged, DockdError, EraseFailed
from dockd.faultpoints import Point
from dockd.model import Erasure, MediumKind
from dockd.reader import kernel
from dockd.reader.block import is_zero
from dockd.reader.cache import set_buffered, set_direct
from dockd.reader.work import Pulse, Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.core.warrant import EraseWarrant
    from dockd.reader.mounted import MountedCamera, OpenClip

_ZEROS = bytes(1024 * 1024)


class _NoRoom(EraseFailed):
    """The volume is full, and the clip's directory has no room for another name."""


class LeftHalfway(Exception):
    """An erasure failed after its first byte: the remnant is on the camera, and its row has to stay warranted."""


def erase(camera: MountedCamera, work: Work, warrant: EraseWarrant, changed_ns: int | None) -> Erasure:
    """Erase the warrant's file and nothing else. The caller has compared the warrant with its own second read.

    `changed_ns` is the file's change time at that read; a remnant has none.

    Raises EraseFailed, CameraGone, ClipGone, ClipBusy, ClipChanged or ClipRefused with the clip untouched under its
    name, LeftHalfway otherwise. A remnant that resists is EraseFailed: it stays a remnant.
    """
    try:
        if camera.identify() != warrant.camera:
            raise EraseFailed("another camera answers in its place")
    except CameraRefused as refusal:
        raise EraseFailed(f"the camera cannot say who it is: {refusal}") from refusal
    if camera.kind is not MediumKind.VOLUMES:
        return _erase(camera, work, warrant, changed_ns)
    changed_ns, mode = _lift_read_only(camera, work, warrant, changed_ns)
    try:
        return _erase(camera, work, warrant, changed_ns)
    except DockdError:
        if mode:
            with suppress(OSError, DockdError), camera.clip(warrant.file) as clip:
                # The mark may be what flags it as evidence.
                work.faults.act(Point.ERASE_MARK, os.fchmod, clip.fd, mode)
        raise


def _erase(camera: MountedCamera, work: Work, warrant: EraseWarrant, changed_ns: int | None) -> Erasure:
    file = warrant.file
    with camera.clip(file, to_erase=True) as clip:
        camera.require_attached()
        work.wanted()
        name, overwritten = remnant_name(warrant.acquisition), 0
        if not warrant.remnant:
            if os.fstat(clip.fd).st_ctime_ns != changed_ns:
                raise ClipChanged("the clip was touched after its second read")
            work.faults.at("erase.checked", file.path)
            try:
                _set_aside(work, clip, warrant, name)
            except _NoRoom:
                if camera.kind is not MediumKind.VOLUMES:
                    raise
                overwritten = _cut_and_set_aside(work, clip, warrant, name)
        with _past_return(remnant=warrant.remnant):
            work.faults.at("erase.renamed", file.path)
            overwritten += _overwrite(work, clip, warrant)
            work.faults.at("erase.overwritten", file.path)
            if camera.kind is MediumKind.VOLUMES:
                _read_back(work, clip, warrant)
            work.faults.act(Point.ERASE_TRUNCATE, os.ftruncate, clip.fd, 0)
            work.faults.act(Point.ERASE_TRUNCATE_SYNC, os.fsync, clip.fd)
            work.faults.at("erase.truncated", file.path)
            work.faults.act(Point.ERASE_UNLINK, os.unlink, name, dir_fd=clip.directory_fd)
            work.faults.act(Point.ERASE_UNLINK_SYNC, os.fsync, clip.directory_fd)
            work.faults.at("erase.unlinked", file.path)
            checked = _look_again(camera, clip, name)
    return Erasure(acquisition=warrant.acquisition, method="delete", overwritten_bytes=overwritten, checked=checked)


def _lift_read_only(
    camera: MountedCamera, work: Work, warrant: EraseWarrant, changed_ns: int | None
) -> tuple[int | None, int]:
    """Make a clip writable that the camera marked read-only. Returns its time of change then, and its mode before.

    The mode is 0 where there was nothing to do.
    """
    with camera.clip(warrant.file) as clip:
        mode = stat.S_IMODE(os.fstat(clip.fd).st_mode)
        if mode & stat.S_IWUSR:
            return changed_ns, 0
        if not warrant.remnant and clip.changed_ns() != changed_ns:
            raise ClipChanged("the clip was touched after its second read")
        camera.require_attached()
        work.faults.at("erase.lift", clip.path)
        try:
            work.faults.act(Point.ERASE_LIFT, os.fchmod, clip.fd, mode | stat.S_IWUSR)
        except OSError as error:
            raise EraseFailed(f"the clip is marked read-only, and stays so: {error.strerror}") from error
        return (None if warrant.remnant else clip.changed_ns()), mode


def _set_aside(work: Work, clip: OpenClip, warrant: EraseWarrant, name: bytes) -> None:
    """Give the clip its remnant's name, durably, and see that it was the clip that got it; else take it back."""
    try:
        work.faults.at("erase.set_aside", clip.path)
        work.faults.act(Point.ERASE_ASIDE, kernel.rename_to_new, clip.name, name, clip.directory_fd)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _NoRoom(f"the clip could not be set aside: {error.strerror}") from error
        if _stands_at(clip, name):  # an error was all that came back of a rename that was made
            _take_back(work, clip, name)
        raise EraseFailed(f"the clip could not be set aside: {error.strerror}") from error
    try:
        _check_aside(work, clip, warrant, name)
    except DockdError:
        _take_back(work, clip, name)
        raise
    except OSError as error:
        _take_back(work, clip, name)
        raise EraseFailed(f"the clip could not be set aside: {error.strerror}") from error


def _cut_and_set_aside(work: Work, clip: OpenClip, warrant: EraseWarrant, name: bytes) -> int:
    """On a full volume whose directory has no room for one more name, the clip's own last block makes that room.

    It is overwritten before it is given up. From there on the clip is no longer whole, so an error leaves its row
    warranted; a power cut between the two steps leaves a shorter file under its name, which is then another clip.
    Returns how many bytes were overwritten.
    """
    status = os.fstat(clip.fd)
    if not clip.lease_holds() or clip.found() != warrant.file:
        raise ClipChanged("the clip was touched at the last moment")
    keep = without_last_block(status.st_size, status.st_blksize)
    if status.st_size == 0:
        raise EraseFailed("the clip could not be set aside: the volume is full")
    work.camera.require_attached()
    with _past_return(remnant=False):
        position = keep
        while position < status.st_size:
            zeros = memoryview(_ZEROS)[: status.st_size - position]
            position += work.faults.write(Point.ERASE_END_ZEROS, clip.fd, zeros, position)
        work.faults.act(Point.ERASE_END_SYNC, os.fsync, clip.fd)
        work.faults.act(Point.ERASE_CUT, os.ftruncate, clip.fd, keep)
        work.faults.act(Point.ERASE_CUT_SYNC, os.fsync, clip.fd)
        work.faults.at("erase.cut", clip.path)
        work.faults.act(Point.ERASE_CUT_NAME, kernel.rename_to_new, clip.name, name, clip.directory_fd)
        work.faults.act(Point.ERASE_CUT_NAME_SYNC, os.fsync, clip.directory_fd)
    return status.st_size - keep


def _check_aside(work: Work, clip: OpenClip, warrant: EraseWarrant, name: bytes) -> None:
    work.faults.at("erase.aside", clip.path)
    if not _stands_at(clip, name) or clip.found() != warrant.file:
        raise ClipChanged("another file took the clip's name at the last moment")
    if not clip.lease_holds():
        raise ClipBusy("some program opened the clip at the last moment")
    work.faults.act(Point.ERASE_ASIDE_SYNC, os.fsync, clip.directory_fd)
    work.camera.require_attached()


def _stands_at(clip: OpenClip, name: bytes) -> bool:
    """Whether the open clip is what stands under a name in its directory. Raises OSError."""
    try:
        there = os.stat(name, dir_fd=clip.directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(clip.fd))


def _take_back(work: Work, clip: OpenClip, name: bytes) -> None:
    try:
        work.faults.act(Point.ERASE_BACK, kernel.rename_to_new, name, clip.name, clip.directory_fd)
        work.faults.act(Point.ERASE_BACK_SYNC, os.fsync, clip.directory_fd)
    except OSError as error:
        raise LeftHalfway(f"the clip could not get its name back: {error.strerror}") from error


@contextmanager
def _past_return(*, remnant: bool) -> Iterator[None]:
    """From the first changed byte on, an error must leave the row warranted."""
    try:
        yield
    except (OSError, DockdError) as error:
        words = f"the erasure failed half-way: {error.strerror if isinstance(error, OSError) else error}"
        if remnant:
            raise EraseFailed(words) from error
        raise LeftHalfway(words) from error


def _overwrite(work: Work, clip: OpenClip, warrant: EraseWarrant) -> int:
    """Zeros over every byte that is stored, durably; holes hold nothing. Returns how many bytes that were."""
    size = os.fstat(clip.fd).st_size
    pulse = Pulse(work, warrant.acquisition, "erase", clip, size)
    total = 0
    for start, end in _stored(clip.fd, size):
        position = start
        while position < end:
            zeros = memoryview(_ZEROS)[: end - position]
            count = work.faults.write(Point.ERASE_ZEROS, clip.fd, zeros, position)
            position += count
            total += count
            pulse.tell(position)
    work.faults.act(Point.ERASE_ZEROS_SYNC, os.fsync, clip.fd)
    return total


def _read_back(work: Work, clip: OpenClip, warrant: EraseWarrant) -> None:
    """Read from the medium what was written over the clip, while its blocks are still its own.

    Raises EraseFailed where it is something else than zeros, OSError where the medium does not give it.
    """
    size = os.fstat(clip.fd).st_size
    if not set_direct(clip.fd):
        raise EraseFailed("what was written cannot be read back around the page cache")
    pulse = Pulse(work, warrant.acquisition, "read-back", clip, size)
    offset = 0
    while offset < size:
        work.faults.at("erase.read_back", clip.path, offset, size)
        count = clip.read(memoryview(work.buffer), offset)
        if count == 0 or not is_zero(memoryview(work.buffer)[: min(count, size - offset)]):
            raise EraseFailed(f"the medium does not hold the zeros that were written at byte {offset}")
        offset += count
        pulse.tell(min(offset, size))
    set_buffered(clip.fd)


def _stored(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that have blocks. A file system that does not know says: all of it."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, position


def _look_again(camera: MountedCamera, clip: OpenClip, name: bytes) -> str:
    """List the directory anew, from the root. Raises EraseFailed where anything of the clip is still there."""
    if os.fstat(clip.fd).st_nlink:
        raise EraseFailed("the clip still has a link after it was unlinked")
    directory_fd = camera.open_directory(clip.path.rpartition(b"/")[0])
    try:
        with os.scandir(directory_fd) as entries:
            names = sum(os.fsencode(entry.name) in (clip.name, name) for entry in entries)
    finally:
        os.close(directory_fd)
    camera.require_attached()
    if names:
        raise EraseFailed("the clip's name is still in its directory")
    return "a fresh listing of its directory shows neither the clip nor its remnant, and the file has no link left"
