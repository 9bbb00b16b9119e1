"""Which camera may be docked: default deny, decided from records alone."""

from __future__ import annotations

from collections.abc import Iterable

from dockd.errors import CameraRefused, CameraTwice
from dockd.model import BayNumber, CameraIdentity


def admit(camera: CameraIdentity, docked: Iterable[tuple[BayNumber, CameraIdentity]]) -> None:
    """Raise CameraRefused, with a sentence for the operator, unless `camera` may be read beside those `docked`.

    Two cameras with one serial are never read together: one of them is a clone or was given the wrong name, and
    custody could not tell their clips apart.
    """
    if not camera.serial or not camera.volume_id:
        raise CameraRefused("the camera names no serial or no volume id; nothing on it was read")
    for bay, other in docked:
        if other.serial == camera.serial:
            raise CameraTwice(
                f"a camera with serial {camera.serial} is already docked in bay {bay}: take one of the two out; "
                "nothing on this one was read"
            )
