"""Have a camera delete one object, under a warrant; then look again, in another session.

What its memory holds afterwards is unknown: nothing of it can be overwritten or read past the camera. So the method is
called `logical-delete`, and no more is claimed.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dockd.errors import CameraRefused, ClipChanged, DockdError, EraseFailed
from dockd.faultpoints import Point
from dockd.model import Erasure
from dockd.reader.erase import LeftHalfway
from dockd.reader.mtp import listing
from dockd.reader.mtp.ptp import Operation
from dockd.reader.mtp.session import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.core.warrant import EraseWarrant
    from dockd.model import FoundFile
    from dockd.reader.mtp.camera import MtpCamera
    from dockd.reader.work import Work

METHOD = "logical-delete"
_LOOK_BYTES = 4096


def erase(camera: MtpCamera, work: Work, warrant: EraseWarrant) -> Erasure:
    """Delete the warrant's object and nothing else. The caller has compared the warrant with its own second read.

    Raises EraseFailed, CameraGone, ClipGone, ClipChanged or ClipRefused with the clip untouched under its name,
    LeftHalfway where it is not known whether the camera deleted it.
    """
    file = warrant.file
    if warrant.remnant:
        raise EraseFailed("over MTP nothing is left half erased: this file is no remnant of dockd's")
    try:
        if camera.identify() != warrant.camera:
            raise EraseFailed("another camera answers in its place")
    except CameraRefused as refusal:
        raise EraseFailed(f"the camera cannot say who it is: {refusal}") from refusal
    with camera.clip(file) as clip:
        if not camera.was_read_again(file.path):
            raise ClipChanged("another object has the clip's name than the one that was read a second time")
        if not camera.session.supports(Operation.DELETE_OBJECT):
            raise EraseFailed("the camera does not delete over MTP: have its own software do it")
        camera.require_attached()
        work.wanted()
        work.faults.at("erase.checked", file.path)
        with _past_return():
            objection = work.faults.act(Point.ERASE_OBJECT, _delete, camera, clip.handle)
            work.faults.at("erase.unlinked", file.path)
            camera.session.renew()
            checked, still = _look_again(camera, file, clip.handle)
    if still:
        raise EraseFailed(f"the camera {objection or 'said that it deleted the clip'}, and has it still")
    return Erasure(acquisition=warrant.acquisition, method=METHOD, overwritten_bytes=0, checked=checked)


@contextmanager
def _past_return() -> Iterator[None]:
    """Once it was asked to delete, an error must leave the row warranted: the next listing tells what became of it."""
    try:
        yield
    except (OSError, Refusal, DockdError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise LeftHalfway(f"it is not known whether the camera deleted the clip: {words}") from error


def _delete(camera: MtpCamera, handle: int) -> str:
    """Ask for it. What the camera says against it, in words."""
    try:
        camera.session.delete(handle)
    except Refusal as refusal:
        return f"did not delete the clip ({refusal})"
    return ""


def _look_again(camera: MtpCamera, file: FoundFile, handle: int) -> tuple[str, bool]:
    """In a new session: what was seen, and whether the clip is still there, as it was.

    Raises LeftHalfway where something else is to be seen than that it is there or gone.
    """
    handles = [place.handle for place in listing.look_up(camera.session, file.path)]
    if handles == [handle] and camera.found(file.path, handle) == file:
        return "", True
    if handles:
        raise LeftHalfway("after the camera was asked to delete the clip, a file of its name is there, but another one")
    gone = "in a new session, a new listing of its folder does not show it"
    try:
        info = camera.session.info(handle)
    except Refusal:
        pass
    else:
        if listing.component(info.name) == file.path.rpartition(b"/")[2]:
            raise LeftHalfway("the camera does not list the clip any more, but still describes it")
        return f"{gone}; its handle is another object's now", False
    try:
        camera.session.read(handle, 0, memoryview(bytearray(_LOOK_BYTES)))
    except Refusal as refusal:
        return f"{gone}, and to read it is refused ({refusal}); what the camera's memory holds is not known", False
    raise LeftHalfway("the camera does not list the clip any more, but still gives its content")
