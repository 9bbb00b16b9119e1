"""Walk the objects of an MTP camera: each is named once, with what the rules make of it. No answer is passed over."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dockd.model import FileKind, FoundFile, ListedFile
from dockd.reader.listing import MAX_FILE_BYTES, MAX_PATH_BYTES
from dockd.reader.mtp.ptp import SPECIAL_HANDLES
from dockd.reader.mtp.session import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.reader.mtp.ptp import ObjectInfo
    from dockd.reader.mtp.session import Session
    from dockd.reader.rules import ClipRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An object, and the one it says that it lies in. A handle is good for one session; most cameras keep them."""

    handle: int
    parent: int


class Places:
    """Where files were found: a few bytes for each, however long its path."""

    def __init__(self) -> None:
        self._places: dict[bytes, Place | None] = {}

    def clear(self) -> None:
        """Forget all."""
        self._places.clear()

    def put(self, path: bytes, place: Place | None) -> None:
        """It was found there. None: several were found, so that it has to be looked up each time."""
        self._places[_key(path)] = place

    def get(self, path: bytes) -> Place | None:
        """Where it was found last, if it was only there."""
        return self._places.get(_key(path))


class _Full(Exception):
    """The camera has more entries than one listing takes."""


def walk(session: Session, rules: ClipRules, places: Places) -> Iterator[ListedFile]:
    """Every object but the folders that were looked into; fills `places`. Raises OSError."""
    storages = session.storages()
    if not storages:
        yield _refused(b"", "the camera shows no memory: unlock it, or have it share its files")
    seen: set[int] = set()
    for storage in storages:
        prefix = storage_name(storage) if len(storages) > 1 else b""
        walker = _Walker(session, rules, storage=storage, prefix=prefix, places=places, seen=seen)
        try:
            yield from walker.folder(0, walker.path, 0)
        except _Full:
            reason = f"more than {rules.max_files} entries on this camera: the rest was not looked at"
            yield _refused(walker.path, reason)
            return


def look_up(session: Session, path: bytes) -> list[Place]:
    """Every object of this path, by a new listing of the folders above it. Raises OSError, Refusal."""
    storages = session.storages()
    names = path.split(b"/")
    if len(storages) > 1:
        storages = tuple(one for one in storages if storage_name(one) == names[0])
        names = names[1:]
    found = []
    for storage in storages:
        places = [Place(handle=0, parent=0)]
        for name in names:
            places = [
                Place(handle=handle, parent=info.parent)
                for place in places
                for handle in session.children(storage, place.handle)
                if handle not in SPECIAL_HANDLES
                for info in _infos(session, handle)
                if component(info.name) == name
            ]
        found += places
    return found


def found(session: Session, path: bytes, handle: int, info: ObjectInfo) -> FoundFile:
    """An object as the record in use everywhere. Raises OSError where its size is not known."""
    size = info.size_bytes if info.size_bytes is not None else session.long_size(handle)
    if size is None:
        raise OSError(errno.EIO, "the camera does not state its size")
    return FoundFile(path=path, size_bytes=size, mtime_ns=info.mtime_ns, inode=0)


def component(name: str) -> bytes:
    """An object's name as part of a path."""
    return name.encode("utf-8", "surrogatepass")


def storage_name(storage: int) -> bytes:
    """Stands before the paths of a storage where there are several."""
    return f"store{storage:08x}".encode()


def _infos(session: Session, handle: int) -> tuple[ObjectInfo, ...]:
    """None of an object that the camera does not describe: the walk has named it."""
    try:
        return (session.info(handle),)
    except Refusal:
        return ()


class _Walker:
    """Lists one storage. The rules are asked about paths in it."""

    def __init__(
        self, session: Session, rules: ClipRules, *, storage: int, prefix: bytes, places: Places, seen: set[int]
    ) -> None:
        self.path = prefix  # the folder that is being listed
        self._session = session
        self._rules = rules
        self._storage = storage
        self._places = places
        self._skip = len(prefix) + 1 if prefix else 0
        self._seen = seen  # handles, of all storages

    def folder(self, parent: int, path: bytes, depth: int) -> Iterator[ListedFile]:
        """Everything in and below one folder (0: the root)."""
        try:
            handles = self._session.children(self._storage, parent)
        except Refusal as refusal:
            yield _refused(path, f"cannot be listed: {refusal}")
            return
        names: set[bytes] = set()
        for handle in handles:
            self.path = path
            if len(self._seen) >= self._rules.max_files:
                raise _Full
            yield from self._entry(handle, path, depth, names)

    def _entry(self, handle: int, path: bytes, depth: int, names: set[bytes]) -> Iterator[ListedFile]:
        number = b"object-%08x" % handle
        unnamed = path + b"/" + number if path else number
        if handle in SPECIAL_HANDLES or handle in self._seen:
            yield _refused(unnamed, "the camera lists one object twice, or one that cannot be")
            return
        self._seen.add(handle)
        try:
            info = self._session.info(handle)
        except Refusal as refusal:
            yield _refused(unnamed, f"cannot be looked at: {refusal}")
            return
        name = component(info.name)
        if name in (b"", b".", b"..") or b"/" in name:
            yield _refused(unnamed, "its name is none that a file can have")
            return
        place, whole = Place(handle=handle, parent=info.parent), path + b"/" + name if path else name
        if name in names:
            reason = f"the camera has several objects of the name {name.decode(errors='backslashreplace')}"
            self._places.put(whole, None)
            yield _refused(unnamed, reason)
        elif info.folder:
            yield from self._below(handle, whole, depth)
        else:
            yield self._file(whole, place, info)
        names.add(name)

    def _below(self, handle: int, path: bytes, depth: int) -> Iterator[ListedFile]:
        if depth >= self._rules.max_depth:
            yield _refused(path, f"deeper than {self._rules.max_depth} folders: not looked into")
        elif len(path) > MAX_PATH_BYTES:
            yield _refused(path, f"a path of more than {MAX_PATH_BYTES} bytes: not looked into")
        else:
            yield from self.folder(handle, path, depth + 1)

    def _file(self, path: bytes, place: Place, info: ObjectInfo) -> ListedFile:
        try:
            file = found(self._session, path, place.handle, info)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return _refused(path, str(error.strerror))
        self._places.put(path, place)
        inner = path[self._skip :]
        if file.size_bytes > MAX_FILE_BYTES:
            return _refused(path, f"it states a size of {file.size_bytes} bytes, more than any camera holds")
        judged = self._rules.judge(file, inner, read_only=info.protected)
        wanted = judged.kind is not FileKind.OTHER
        if wanted and file.size_bytes and not self._session.reads_at(file.size_bytes - 1):
            reason = "the camera gives no part of a file from there: it cannot be read in pieces to its end"
            return ListedFile(file=file, kind=FileKind.REFUSED, reason=reason)
        return judged


def _refused(path: bytes, reason: str) -> ListedFile:
    nothing = FoundFile(path=path, size_bytes=0, mtime_ns=0, inode=0)
    return ListedFile(file=nothing, kind=FileKind.REFUSED, reason=reason)


def _key(path: bytes) -> bytes:
    return hashlib.sha256(path).digest()[:16]
