"""The spool: sealed clips on the dock's disk, until their store policy is satisfied.

    <directory>/incoming/<docking>/<acquisition>.part, .age    a reader's own corner, gone with its docking
    <directory>/<acquisition>.age                              finished: whole, durable, adopted
    <directory>/<acquisition>.manifest.json, .manifest.json.sig

All functions block; callers on the event loop go through a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING

import structlog

from dockd import faultpoints
from dockd import faults as no
from dockd.faultpoints import Point
from dockd.keep.durable import fsync_directory, is_temporary, write_file
from dockd.model import AcquisitionId, DockingId, SignedBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dockd.faults import Faults

_log = structlog.get_logger()

_SEALED = ".age"
_MANIFEST = ".manifest.json"
_SIGNATURE = ".manifest.json.sig"
_NAME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # an id as a file name: nothing else may become one
_OURS = re.compile(rf"({_NAME.pattern})(?:\.age|\.manifest\.json(?:\.sig)?)")


class Spool:
    """One spool directory. Any number of threads may use it: what they share is the file system alone."""

    def __init__(self, directory: Path, *, reserve_bytes: int, max_bytes: int, faults: Faults = no.NONE) -> None:
        """Make the directory if it is missing. `reserve_bytes` of the disk stay free; `max_bytes` 0 sets no limit."""
        self._directory = directory
        self._incoming = directory / "incoming"
        self._reserve_bytes = reserve_bytes
        self._max_bytes = max_bytes
        self._faults = faults
        for place in (directory, self._incoming):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.chmod(0o700)
        faults.act(Point.SPOOL_PLACES, fsync_directory, directory)

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self._directory

    # --- a docking's corner

    def open_incoming(self, docking: DockingId) -> int:
        """Make the docking's own directory and return a descriptor of it, which is the caller's to close."""
        place = self._incoming / _name(docking)
        place.mkdir(mode=0o700, exist_ok=True)
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def drop_incoming(self, docking: DockingId) -> None:
        """Throw away what the docking's reader left unadopted. Idempotent.

        A reader that wakes up later finds its directory gone, and can make no file in it any more.
        """
        self._drop(self._incoming / _name(docking))

    def adopt(self, docking: DockingId, acquisition: AcquisitionId) -> None:
        """Move a finished sealed file out of its docking's corner; on return its name is durable. Idempotent.

        Raises FileNotFoundError where it is neither there nor here.
        """
        name = _name(acquisition) + _SEALED
        corner = self._incoming / _name(docking)
        try:
            self._faults.act(Point.ADOPT, (corner / name).rename, self._directory / name)
        except FileNotFoundError:
            if not _is_file(self._directory / name):
                raise
        self._faults.act(Point.ADOPT_SYNC, fsync_directory, self._directory)
        with contextlib.suppress(FileNotFoundError):  # the corner was dropped after an earlier adoption
            self._faults.act(Point.ADOPT_SYNC, fsync_directory, corner)

    # --- finished clips

    def path(self, acquisition: AcquisitionId) -> Path:
        """Where the sealed file of an acquisition is once it was adopted."""
        return self._directory / (_name(acquisition) + _SEALED)

    def put_manifest(self, acquisition: AcquisitionId, manifest: SignedBytes) -> None:
        """Lay the signed manifest beside its sealed file, durably. Idempotent."""
        name = _name(acquisition)
        for suffix, content in ((_MANIFEST, manifest.payload), (_SIGNATURE, manifest.signature.encode())):
            write_file(self._directory / (name + suffix), content, points=faultpoints.MANIFEST, faults=self._faults)

    def has_manifest(self, acquisition: AcquisitionId) -> bool:
        """Whether the signed manifest lies beside its sealed file: whole, since it only ever appears so."""
        name = _name(acquisition)
        return all(_is_file(self._directory / (name + suffix)) for suffix in (_MANIFEST, _SIGNATURE))

    def manifest(self, acquisition: AcquisitionId) -> SignedBytes:
        """The signed manifest beside a sealed file. Raises OSError, UnicodeDecodeError."""
        name = _name(acquisition)
        signature = (self._directory / (name + _SIGNATURE)).read_bytes().decode("ascii")
        return SignedBytes(payload=(self._directory / (name + _MANIFEST)).read_bytes(), signature=signature)

    def set_aside(self, acquisition: AcquisitionId) -> None:
        """Move an acquisition's files to `set-aside`, where nothing touches them any more. Idempotent."""
        place = self._directory / "set-aside"
        place.mkdir(mode=0o700, exist_ok=True)
        for suffix in (_SIGNATURE, _MANIFEST, _SEALED):  # as long as that one is here, this is done again
            name = _name(acquisition) + suffix
            with contextlib.suppress(FileNotFoundError):
                self._faults.act(Point.SPOOL_ASIDE, (self._directory / name).rename, place / name)
        for directory in (self._directory, place):
            self._faults.act(Point.SPOOL_ASIDE_SYNC, fsync_directory, directory)

    def discard(self, acquisition: AcquisitionId) -> None:
        """Remove an acquisition's files. Idempotent; durable on return."""
        name = _name(acquisition)
        for suffix in (_SEALED, _MANIFEST, _SIGNATURE):
            self._faults.act(Point.DISCARD, (self._directory / (name + suffix)).unlink, missing_ok=True)
        self._faults.act(Point.DISCARD_SYNC, fsync_directory, self._directory)

    def present(self) -> list[AcquisitionId]:
        """The acquisitions whose sealed file is here, oldest first."""
        names = (entry.name for entry in _files(self._directory))
        return sorted(
            AcquisitionId(name.removesuffix(_SEALED))
            for name in names
            if name.endswith(_SEALED) and _NAME.fullmatch(name.removesuffix(_SEALED))
        )

    # --- room

    def usage(self) -> tuple[int, int]:
        """The number of finished sealed files, and the bytes of all files of the spool, unfinished ones included."""
        count, size_bytes = 0, 0
        for place in (self._directory, *_directories(self._incoming)):
            for entry in _files(place):
                with contextlib.suppress(FileNotFoundError):  # it went while we looked
                    size_bytes += entry.stat(follow_symlinks=False).st_size
                    count += place == self._directory and entry.name.endswith(_SEALED)
        return count, size_bytes

    def free_bytes(self) -> int:
        """How many bytes new sealed clips may still take: within the disk less its reserve, and within the limit."""
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize - self._reserve_bytes
        if self._max_bytes:
            free = min(free, self._max_bytes - self.usage()[1])
        return max(free, 0)

    def shortage(self, size_bytes: int) -> str:
        """Why a file of this size does not fit now; empty where it does. The disk may still be full."""
        free = self.free_bytes()
        if size_bytes <= free:
            return ""
        return (
            f"the spool has no room for {size_bytes} bytes, {free} are free within spool.max_bytes and what"
            " spool.reserve_bytes leaves of its disk"
        )

    def never_fits(self, size_bytes: int) -> str:
        """Why a file of this size would not even fit into the empty spool; empty where it would."""
        disk = os.statvfs(self._directory)
        most = disk.f_blocks * disk.f_frsize - self._reserve_bytes
        if size_bytes > most:
            return (
                f"it needs {size_bytes} bytes of the spool, whose disk has {max(most, 0)} without spool.reserve_bytes:"
                " give the spool a larger disk"
            )
        if 0 < self._max_bytes < size_bytes:
            return f"it needs {size_bytes} bytes of the spool, and spool.max_bytes is {self._max_bytes}: raise it"
        return ""

    # --- at start

    def sweep(self, keep: Callable[[AcquisitionId], bool]) -> list[str]:
        """Remove what no run owns any more; returns the names of what went. Only while no reader runs.

        That is every corner of a docking, every half-made file, and the files of each acquisition that `keep` denies:
        sealed, but not journalled, so read again. Anything else is left alone, and a warning names it.
        """
        gone = []
        for corner in _directories(self._incoming):
            gone += [f"incoming/{corner.name}/{entry.name}" for entry in _files(corner)]
            self._drop(corner)
        for entry in _files(self._directory):
            ours = _OURS.fullmatch(entry.name)
            if is_temporary(entry.name) or (ours and not keep(AcquisitionId(ours[1]))):
                self._faults.act(Point.SWEEP, (self._directory / entry.name).unlink, missing_ok=True)
                gone.append(entry.name)
            elif not ours:
                _log.warning("spool_has_a_stranger", name=entry.name)
        for directory in (self._incoming, self._directory):
            self._faults.act(Point.SWEEP_SYNC, fsync_directory, directory)
        return sorted(gone)

    def _drop(self, corner: Path) -> None:
        for _ in range(3):  # a reader not yet dead may add a file while we clear
            for entry in _files(corner):
                self._faults.act(Point.SWEEP, (corner / entry.name).unlink, missing_ok=True)
            try:
                self._faults.act(Point.SWEEP, corner.rmdir)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return
        _log.warning("spool_corner_left", docking=corner.name)  # the next start sweeps it


def _name(identifier: str) -> str:
    if not _NAME.fullmatch(identifier):
        raise ValueError(f"not an id: {identifier!r}")
    return identifier


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _files(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _directories(place: Path) -> Iterator[Path]:
    with os.scandir(place) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return (place / name for name in names)
