"""A camera that is asked over MTP for its objects. It alone knows what it reads to answer.

There is no lease and no inode here. What stands for them: the interface is claimed, so no other program of this
machine reaches the camera while its reader lives; and an object is the same one while its handle, its name and those
above it, its size and its time stay the same. A camera that records while it is docked is not held off by either.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dockd.core.canonical import encode_path
from dockd.errors import CameraGone, CameraRefused, ClipChanged, ClipGone, ClipRefused, DockdError
from dockd.model import CacheState, CameraIdentity, FoundFile
from dockd.reader.camera import GONE, differences
from dockd.reader.mtp import listing
from dockd.reader.mtp.erase import erase
from dockd.reader.mtp.ptp import Code
from dockd.reader.mtp.session import Refusal, Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.core.warrant import EraseWarrant
    from dockd.model import Erasure, ListedFile
    from dockd.reader.mtp.listing import Place
    from dockd.reader.mtp.pipe import Pipe
    from dockd.reader.rules import ClipRules
    from dockd.reader.work import Work

_NOT_THERE = (Code.INVALID_OBJECT_HANDLE, Code.INVALID_PARENT_OBJECT)


class DeviceRead:
    """A second read, of which the camera alone knows where it comes from."""

    direct = False

    def look(self, offset: int, size: int, *, direct: bool) -> None:
        """Nothing can be seen from here."""

    def state(self, *, direct: bool) -> CacheState:  # noqa: ARG002  the protocol's
        """What the record may say."""
        return CacheState.DEVICE


class MtpClip:
    """An object, found by its path."""

    def __init__(self, camera: MtpCamera, path: bytes) -> None:
        self._camera = camera
        self.path = path
        self.handle = camera.handle(path)

    def lease_holds(self) -> bool:
        """There is none; the interface is claimed as long as this program lives."""
        return True

    def found(self) -> FoundFile:
        """The object as it is now."""
        return self._camera.found(self.path, self.handle)

    def changed_ns(self) -> int:
        """Cameras tell no such time."""
        return 0

    def read(self, view: memoryview, offset: int) -> int:
        """Some bytes of it. A refusal is EIO, or ENOENT where the object is gone."""
        with refused():
            return self._camera.session.read(self.handle, offset, view)

    def leave_direct(self) -> None:
        """It never is."""

    def second_read(self) -> DeviceRead:
        """Begin another session, and find it there."""
        self._camera.session.renew()
        self.handle = self._camera.handle(self.path)
        self._camera.read_again(self.path)
        return DeviceRead()


class MtpCamera:
    """One MTP camera, for one reader. Where it has several storages, the first component of a path names one."""

    def __init__(self, pipe: Pipe, identity: CameraIdentity) -> None:
        """Take over a pipe. Raises CameraGone, CameraRefused; it is closed then."""
        self.identity = identity
        self.session = Session(pipe)
        self._pipe = pipe
        self._places = listing.Places()  # of the last listing
        self._again = listing.Places()  # of what was read a second time
        try:
            self._mark = pipe.descriptor()
            self.identify()
            self.session.renew()
        except OSError as error:
            pipe.close()
            raise CameraGone(f"the camera left its bay, or does not answer: {error.strerror}") from error
        except BaseException:
            pipe.close()
            raise

    def attached(self) -> bool:
        """Whether the device still answers with its descriptor. Asked of the device itself, beside all transactions."""
        try:
            return self._pipe.descriptor() == self._mark
        except OSError:
            return False

    def require_attached(self) -> None:
        """Raise CameraGone unless it is attached."""
        if not self.attached():
            raise CameraGone("the camera left its bay")

    def identify(self) -> CameraIdentity:
        """The camera it was admitted as, if the device still states that serial number. Raises CameraRefused."""
        try:
            serial = self._pipe.serial()
        except OSError as error:
            raise CameraGone(f"the camera left its bay: {error.strerror}") from error
        if serial.strip() != self.identity.serial:
            raise CameraRefused(f"the device states another serial number than {self.identity.serial}")
        return self.identity

    def walk(self, rules: ClipRules) -> Iterator[ListedFile]:
        """Every object of every storage, in a new session. Raises CameraGone."""
        self._places.clear()
        try:
            self.session.renew()
            yield from listing.walk(self.session, rules, self._places)
        except OSError as error:
            raise CameraGone(f"the camera could not be listed: {error.strerror}") from error
        self.require_attached()

    @contextmanager
    def clip(self, file: FoundFile) -> Iterator[MtpClip]:
        """Find a clip, and see that it is the one that was listed."""
        try:
            clip = MtpClip(self, file.path)
            now = clip.found()
        except OSError as error:
            raise self.translate(error, file.path) from error
        if now != file:
            raise ClipChanged(f"{encode_path(file.path)} is not the file that was listed: {differences(file, now)}")
        yield clip

    def erase(self, work: Work, warrant: EraseWarrant, changed_ns: int | None) -> Erasure:  # noqa: ARG002  none here
        """Have the camera delete the warrant's object, and look again."""
        return erase(self, work, warrant)

    def translate(self, error: OSError, path: bytes) -> DockdError:
        """What an OSError on a clip means: mostly that the camera, or the clip, is gone."""
        if error.errno in GONE or not self.attached():
            return CameraGone(f"the camera left its bay: {error.strerror}")
        if error.errno == errno.ENOENT:
            return ClipGone(f"{encode_path(path)} is no longer on the camera")
        return ClipRefused(f"{encode_path(path)} cannot be read: {error.strerror}")

    # --- objects

    def found(self, path: bytes, handle: int) -> FoundFile:
        """An object, as the camera describes it now. Raises OSError."""
        with refused():
            info = self.session.info(handle)
        if listing.component(info.name) != path.rpartition(b"/")[2]:
            raise OSError(errno.ENOENT, "its object has another name now")
        return listing.found(self.session, path, handle, info)

    def handle(self, path: bytes) -> int:
        """The handle of a file, that still has this very path. Raises OSError, ClipRefused where there are several."""
        known = self._places.get(path)
        if known and self._stands(known, path):
            return known.handle
        with refused():
            candidates = listing.look_up(self.session, path)
        if len(candidates) > 1:
            raise ClipRefused(f"the camera has several files {encode_path(path)}: which of them is the clip?")
        if not candidates:
            raise OSError(errno.ENOENT, "it is in no listing of its folder")
        self._places.put(path, candidates[0])
        return candidates[0].handle

    def read_again(self, path: bytes) -> None:
        """The object that was just found is about to be read a second time."""
        self._again.put(path, self._places.get(path))

    def was_read_again(self, path: bytes) -> bool:
        """Whether the object that was just found is the very one that was read a second time."""
        place = self._places.get(path)
        return place is not None and self._again.get(path) == place

    def _stands(self, place: Place, path: bytes) -> bool:
        """Whether a handle still has this name, in the same folder."""
        try:
            info = self.session.info(place.handle)
        except Refusal:
            return False
        return listing.component(info.name) == path.rpartition(b"/")[2] and info.parent == place.parent


@contextmanager
def refused() -> Iterator[None]:
    """Of one object: what the device does not give is EIO, what is not there ENOENT, no medium ENODEV."""
    try:
        yield
    except Refusal as refusal:
        number = errno.ENOENT if refusal.code in _NOT_THERE else errno.EIO
        if refusal.code == Code.STORE_NOT_AVAILABLE:
            number = errno.ENODEV
        raise OSError(number, str(refusal)) from refusal
