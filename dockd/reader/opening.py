"""Which way to a camera: by the kind of its medium."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockd.model import CameraIdentity, Medium, MediumKind
from dockd.reader.mounted import MountedCamera
from dockd.reader.mtp.camera import MtpCamera
from dockd.reader.mtp.usbfs import UsbPipe

if TYPE_CHECKING:
    from dockd.reader.camera import Camera
    from dockd.reader.carry import Carried


def open_camera(medium: Medium, identity: CameraIdentity, carried: Carried | None) -> Camera:
    """The camera behind a medium, whose descriptors become its own.

    `carried` is from the reader before, if there was one. Raises CameraGone, CameraNotReady, CameraRefused.
    """
    match medium.kind:
        case MediumKind.FOLDER | MediumKind.VOLUMES:
            return MountedCamera(medium, identity, carried)
        case MediumKind.MTP:
            return MtpCamera(UsbPipe.at(medium.usb_bus, medium.usb_device), identity)
