"""Folders as cameras: a bay is a directory, a camera is a subdirectory that was renamed into it.

watchdog says when to look and what left; a look at the directory says what is there. Between two looks a directory
that left and came back has still left: its docking ends.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import structlog
from watchdog.events import DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from dockd.core.marker import MARKER_NAME
from dockd.core.profile import FOLDER, Profile
from dockd.devices.marker import read_marker
from dockd.devices.port import Candidate, Plugged, Unplugged
from dockd.errors import CameraGone, CameraRefused, EraseFailed
from dockd.model import Medium, MediumKind, Volume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from watchdog.observers.api import BaseObserver, ObservedWatch

    from dockd.model import BayNumber, CameraIdentity

_log = structlog.get_logger()

RELOOK_S = 1.0  # a look without being called: finds a bay directory that was made anew, and markers that came late
MAX_NOTED = 256  # names that left, between two looks, a bay; with more, all its devices count as having left

_EVENTS: list[type[FileSystemEvent]] = [DirCreatedEvent, DirDeletedEvent, DirMovedEvent]
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """A subdirectory of a bay, as one look found it. Another inode under its name is another device."""

    name: str
    device: int
    inode: int
    marked: bool  # whether it has a marker: one that comes later makes it a camera


class _Bay(FileSystemEventHandler):
    """One bay directory, its watch, and what left it since the last look."""

    def __init__(self, number: BayNumber, path: Path, source: FolderSource) -> None:
        self.number = number
        self.path = path
        self.present: dict[str, _Folder] = {}  # by device
        self.refused: dict[str, str] = {}  # device to the device that was there before it
        self.left: set[str] = set()  # names
        self.watched: tuple[int, int] | None = None  # device and inode that the watch is on
        self.watch: ObservedWatch | None = None
        self._source = source

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called on watchdog's thread."""
        left = None if isinstance(event, DirCreatedEvent) else Path(os.fsdecode(event.src_path)).name
        self._source.call(self, left)

    def note(self, left: str | None) -> None:
        """Called on the event loop."""
        if left is not None and len(self.left) <= MAX_NOTED:
            self.left.add(left)


class FolderSource:
    """A device source on directories. One reader of `events` at a time."""

    def __init__(self, bays: Mapping[BayNumber, Path], *, relook_s: float = RELOOK_S) -> None:
        self._bays = {number: _Bay(number, path, self) for number, path in bays.items()}
        self._relook_s = relook_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    async def events(self) -> AsyncIterator[Plugged | Unplugged]:
        """What is in the bays now, then every change. Ends by cancellation; the watches are then gone."""
        self._loop = asyncio.get_running_loop()
        observer = Observer()
        observer.start()
        try:
            while True:
                self._wake.clear()
                for bay in self._bays.values():
                    left, bay.left = bay.left, set()
                    found = await asyncio.to_thread(_look, bay, observer)
                    for event in _changes(bay, found, left):
                        yield event
                await self._called()
        finally:
            self._loop = None
            await asyncio.to_thread(_end, observer)

    async def identify(self, plugged: Plugged) -> Candidate:
        """Read its marker, and nothing else. Raises CameraRefused or CameraGone."""
        attachment = await self._open(plugged)
        await attachment.aclose()
        return Candidate(identity=attachment.identity, profiles=(FOLDER,), enrolled=True)

    async def attach(self, plugged: Plugged, candidate: Candidate) -> FolderAttachment:
        """Open the directory. Raises CameraRefused or CameraGone, also where its marker names another camera now."""
        attachment = await self._open(plugged)
        if attachment.identity != candidate.identity:
            await attachment.aclose()
            raise CameraGone(f"{plugged.label} was replaced")
        return attachment

    async def attach_blank(self, plugged: Plugged, blueprint: str) -> FolderAttachment:  # noqa: ARG002 - the port's
        """Raise CameraRefused: a folder is never blank."""
        raise CameraRefused(f"{plugged.label} is a folder, and is never made anew")

    async def _open(self, plugged: Plugged) -> FolderAttachment:
        bay = self._bays[plugged.bay]
        folder = bay.present.get(plugged.device)
        if folder is None:
            raise CameraGone(f"{plugged.label} left bay {plugged.bay}")
        if plugged.device in bay.refused:
            raise CameraRefused(
                f"bay {bay.number} already holds {bay.refused[plugged.device]}: a bay takes one camera; "
                f"nothing in {plugged.label} was touched"
            )
        opening = asyncio.get_running_loop().run_in_executor(None, _open, bay.path, folder)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_let_go)
            raise

    def call(self, bay: _Bay, left: str | None) -> None:
        """A watch saw something; from any thread."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._note, bay, left)
        except RuntimeError:  # the loop was closed since: nobody is listening any more
            self._loop = None

    def _note(self, bay: _Bay, left: str | None) -> None:
        bay.note(left)
        self._wake.set()

    async def _called(self) -> None:
        try:
            async with asyncio.timeout(self._relook_s):
                await self._wake.wait()
        except TimeoutError:
            return


class FolderAttachment:
    """A folder camera that was opened."""

    def __init__(self, bay: Path, folder: _Folder, root_fd: int, identity: CameraIdentity) -> None:
        self._bay = bay
        self._folder = folder
        self._root_fd = root_fd
        self._identity = identity

    @property
    def identity(self) -> CameraIdentity:
        """What its marker said when it was attached."""
        return self._identity

    @property
    def profile(self) -> Profile:
        """The one for folders."""
        return FOLDER

    @property
    def medium(self) -> Medium:
        """The directory, as the only volume. Raises CameraGone after `aclose`."""
        if self._root_fd < 0:
            raise CameraGone("the camera was let go")
        volume = Volume(name="", filesystem="folder", volume_id=self._identity.volume_id, root_fd=self._root_fd)
        return Medium(kind=MediumKind.FOLDER, volumes=(volume,))

    @property
    def blueprint(self) -> str:
        """None: it is never made anew."""
        return ""

    async def open_to_write(self) -> None:
        """Nothing to do: a folder is writable."""

    async def open_to_read(self) -> None:
        """Nothing to do: a folder has no mount of its own."""

    async def make_anew(self, method: str) -> str:
        """Raise EraseFailed: a folder is part of another file system."""
        raise EraseFailed(f"a folder cannot be erased by {method}")

    async def identify_again(self) -> CameraIdentity:
        """Read the marker anew, from the directory that is in the bay now. Raises CameraGone, CameraRefused."""
        if self._root_fd < 0:
            raise CameraGone("the camera was let go")
        reopened = await asyncio.to_thread(_open, self._bay, self._folder)
        await reopened.aclose()
        return reopened.identity

    async def aclose(self) -> None:
        """Let go of it. Idempotent."""
        fd, self._root_fd = self._root_fd, -1
        if fd >= 0:
            os.close(fd)


def _end(observer: BaseObserver) -> None:
    observer.stop()
    observer.join()


def _look(bay: _Bay, observer: BaseObserver) -> list[_Folder]:
    """Watch the bay if it is not watched yet, then list it: nothing that comes later is missed. Blocks."""
    try:
        status = bay.path.stat()
    except OSError:
        status = None
    now = (status.st_dev, status.st_ino) if status and stat.S_ISDIR(status.st_mode) else None
    if now != bay.watched:
        _watch(bay, observer, now)
    if now is None:
        return []
    try:
        with os.scandir(bay.path) as entries:
            found = [_folder(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        _log.warning("bay_unreadable", bay=bay.number, reason=error.strerror)
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # ours to want for: nobody has left for that
            return list(bay.present.values())
        return []
    return sorted((folder for folder in found if folder), key=lambda folder: folder.name)


def _watch(bay: _Bay, observer: BaseObserver, now: tuple[int, int] | None) -> None:
    if bay.watch is not None:
        observer.unschedule(bay.watch)
        bay.watch = None
    bay.watched = None
    if now is None:
        _log.warning("bay_directory_missing", bay=bay.number, path=str(bay.path))
        return
    try:
        bay.watch = observer.schedule(bay, str(bay.path), recursive=False, event_filter=_EVENTS)
    except OSError as error:  # no inotify watches left, for instance: the looks go on without being called
        _log.warning("bay_not_watched", bay=bay.number, reason=error.strerror)
        return
    bay.watched = now


def _folder(entry: os.DirEntry[str]) -> _Folder | None:
    try:
        status = entry.stat(follow_symlinks=False)
        marked = os.path.lexists(os.fsencode(entry.path) + b"/" + MARKER_NAME)
    except OSError:  # it left while it was looked at
        return None
    return _Folder(name=entry.name, device=status.st_dev, inode=status.st_ino, marked=marked)


def _changes(bay: _Bay, found: list[_Folder], left: set[str]) -> list[Plugged | Unplugged]:
    """Bring the bay up to date with a look at it. The first to come holds the bay; the others are refused."""
    here = {_device(bay.number, folder): folder for folder in found}
    events: list[Plugged | Unplugged] = []
    for device, folder in list(bay.present.items()):
        if device not in here or folder.name in left or len(left) > MAX_NOTED:
            del bay.present[device]
            events.append(Unplugged(bay=bay.number, device=device))
    arrived = [device for device in here if device not in bay.present]
    bay.present.update((device, here[device]) for device in arrived)
    holder = next(iter(bay.present), "")
    if holder in bay.refused and holder not in arrived:  # the bay became free for one that had to wait
        events.append(Unplugged(bay=bay.number, device=holder))
        arrived.insert(0, holder)
    bay.refused = {device: bay.present[holder].name for device in bay.present if device != holder}
    events.extend(Plugged(bay=bay.number, device=device, label=_printable(here[device].name)) for device in arrived)
    return events


def _device(bay: BayNumber, folder: _Folder) -> str:
    name = quote_from_bytes(os.fsencode(folder.name))
    return f"folder:{bay}/{name}:{folder.device}:{folder.inode}{'' if folder.marked else ':unmarked'}"


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def _open(bay: Path, folder: _Folder) -> FolderAttachment:
    """Blocks. Raises CameraGone where the bay no longer holds this very directory."""
    try:
        bay_fd = os.open(bay, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            root_fd = os.open(folder.name, _DIRECTORY, dir_fd=bay_fd)
        finally:
            os.close(bay_fd)
    except PermissionError as error:
        raise CameraRefused(f"{_printable(folder.name)} cannot be opened: {error.strerror}") from error
    except OSError as error:
        raise CameraGone(f"{_printable(folder.name)} left its bay: {error.strerror}") from error
    try:
        identity = _identify(bay / folder.name, folder, root_fd)
    except BaseException:
        os.close(root_fd)
        raise
    return FolderAttachment(bay, folder, root_fd, identity)


def _identify(path: Path, folder: _Folder, root_fd: int) -> CameraIdentity:
    shown = _printable(str(path))
    status = os.fstat(root_fd)
    if (status.st_dev, status.st_ino) != (folder.device, folder.inode):
        raise CameraGone(f"{shown} was replaced")
    try:
        return read_marker(root_fd)
    except CameraRefused as refusal:
        raise CameraRefused(
            f"{shown}: {refusal}: make it a camera with `dockd camera make {shown} --serial S`; "
            "nothing in it was touched"
        ) from refusal
    except OSError as error:
        raise CameraGone(f"{shown} could not be read: {error.strerror}") from error


def _let_go(opening: asyncio.Future[FolderAttachment]) -> None:
    """An attachment that nobody waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result().medium.volumes[0].root_fd)
