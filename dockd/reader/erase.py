"""Erase: one file, under a warrant, by overwriting, truncating and unlinking it; then look again.

A clip is renamed to its remnant name before its first byte changes. Until then everything can be taken back; after
it, an error leaves a remnant that says whose it is, and the reader ends, so that the row stays warranted.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dockd.core.remnants import remnant_name
from dockd.errors import CameraRefused, ClipBusy, ClipChanged, DockdError, EraseFailed
from dockd.model import Erasure
from dockd.reader import kernel
from dockd.reader.work import Pulse, Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.core.warrant import EraseWarrant
    from dockd.reader.camera import OpenClip

_ZEROS = bytes(1024 * 1024)


class LeftHalfway(Exception):
    """An erasure failed after its first byte: the remnant is on the camera, and its row has to stay warranted."""


def erase(work: Work, warrant: EraseWarrant, changed_ns: int | None) -> Erasure:
    """Erase the warrant's file and nothing else. The caller has compared the warrant with its own second read.

    `changed_ns` is the file's change time at that read; a remnant has none.

    Raises EraseFailed, CameraGone, ClipGone, ClipBusy, ClipChanged or ClipRefused with the clip untouched under its
    name, LeftHalfway otherwise. A remnant that resists is EraseFailed: it stays a remnant.
    """
    camera, file = work.camera, warrant.file
    try:
        if camera.identify() != warrant.camera:
            raise EraseFailed("another camera answers in its place")
    except CameraRefused as refusal:
        raise EraseFailed(f"the camera cannot say who it is: {refusal}") from refusal
    with camera.clip(file, to_erase=True) as clip:
        camera.require_attached()
        work.wanted()
        name = remnant_name(warrant.acquisition)
        if not warrant.remnant:
            if os.fstat(clip.fd).st_ctime_ns != changed_ns:
                raise ClipChanged("the clip was touched after its second read")
            work.faults.at("erase.checked", file.path)
            _set_aside(work, clip, warrant, name)
        with _past_return(remnant=warrant.remnant):
            work.faults.at("erase.renamed", file.path)
            overwritten = _overwrite(work, clip, warrant)
            work.faults.at("erase.overwritten", file.path)
            os.ftruncate(clip.fd, 0)
            os.fsync(clip.fd)
            work.faults.at("erase.truncated", file.path)
            os.unlink(name, dir_fd=clip.directory_fd)
            os.fsync(clip.directory_fd)
            work.faults.at("erase.unlinked", file.path)
            checked = _look_again(work, clip, name)
    return Erasure(acquisition=warrant.acquisition, method="delete", overwritten_bytes=overwritten, checked=checked)


def _set_aside(work: Work, clip: OpenClip, warrant: EraseWarrant, name: bytes) -> None:
    """Give the clip its remnant's name, durably, and see that it was the clip that got it; else take it back."""
    try:
        kernel.rename_to_new(clip.name, name, clip.directory_fd)
    except OSError as error:
        raise EraseFailed(f"the clip could not be set aside: {error.strerror}") from error
    try:
        _check_aside(work, clip, warrant, name)
    except DockdError:
        _take_back(clip, name)
        raise
    except OSError as error:
        _take_back(clip, name)
        raise EraseFailed(f"the clip could not be set aside: {error.strerror}") from error


def _check_aside(work: Work, clip: OpenClip, warrant: EraseWarrant, name: bytes) -> None:
    work.faults.at("erase.aside", clip.path)
    aside = os.stat(name, dir_fd=clip.directory_fd, follow_symlinks=False)
    if aside.st_ino != warrant.file.inode or clip.found() != warrant.file:
        raise ClipChanged("another file took the clip's name at the last moment")
    if not clip.lease_holds():
        raise ClipBusy("some program opened the clip at the last moment")
    os.fsync(clip.directory_fd)
    work.camera.require_attached()


def _take_back(clip: OpenClip, name: bytes) -> None:
    try:
        kernel.rename_to_new(name, clip.name, clip.directory_fd)
        os.fsync(clip.directory_fd)
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
            count = os.pwrite(clip.fd, memoryview(_ZEROS)[: end - position], position)
            position += count
            total += count
            pulse.tell(position)
    os.fsync(clip.fd)
    return total


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


def _look_again(work: Work, clip: OpenClip, name: bytes) -> str:
    """List the directory anew, from the root. Raises EraseFailed where anything of the clip is still there."""
    if os.fstat(clip.fd).st_nlink:
        raise EraseFailed("the clip still has a link after it was unlinked")
    directory_fd = work.camera.open_directory(clip.path.rpartition(b"/")[0])
    try:
        with os.scandir(directory_fd) as entries:
            names = sum(os.fsencode(entry.name) in (clip.name, name) for entry in entries)
    finally:
        os.close(directory_fd)
    work.camera.require_attached()
    if names:
        raise EraseFailed("the clip's name is still in its directory")
    return "a fresh listing of its directory shows neither the clip nor its remnant, and the file has no link left"
