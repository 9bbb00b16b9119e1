"""Which camera may be docked: default deny, decided from records alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dockd.errors import CameraNotEnrolled, CameraRefused, CameraTwice
from dockd.model import BayNumber, CameraIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """Why a camera may be docked at all, and what is known of it."""

    profile: str | None  # enrolled with all cameras of this profile; None: by its own serial, or by its marker
    volume_seen: str | None  # the volume id that it had in its last docking since it was enrolled


def admit(
    camera: CameraIdentity, enrolment: Enrolment | None, docked: Iterable[tuple[BayNumber, CameraIdentity]]
) -> None:
    """Raise CameraRefused, with a sentence for the operator, unless `camera` may be read beside those `docked`.

    Two cameras with one serial are never read together: one of them is a clone or was given the wrong name, and
    custody could not tell their clips apart. A camera whose file system is another one than last time was formatted,
    or is another camera: a person has to say which.
    """
    if not camera.serial or not camera.volume_id:
        raise CameraRefused("the camera names no serial or no volume id; nothing on it was read")
    if enrolment is None:
        raise CameraNotEnrolled(
            f"camera {camera.serial} is not enrolled; nothing on it was read: `dockd camera enrol {camera.serial}` "
            "admits it"
        )
    if enrolment.volume_seen not in (None, camera.volume_id):
        raise CameraNotEnrolled(
            f"camera {camera.serial} had the file system {enrolment.volume_seen} when it was here last, and has "
            f"{camera.volume_id} now: it was formatted, or is another camera; nothing on it was read: "
            f"`dockd camera enrol {camera.serial}` admits it as it is now"
        )
    for bay, other in docked:
        if other.serial == camera.serial:
            raise CameraTwice(
                f"a camera with serial {camera.serial} is already docked in bay {bay}: take one of the two out; "
                "nothing on this one was read"
            )
