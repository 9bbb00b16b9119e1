"""Which way to a camera: by the kind of its medium."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockd.model import CameraIdentity, Medium, MediumKind
from dockd.reader.mounted import MountedCamera
from dockd.reader.mtp.camera import MtpCamera
from dockd.reader.mtp.usbfs import UsbPipe

if TYPE_CHECKING:
    from dockd.reader.camera import Camera


def open_camera(medium: Medium, identity: CameraIdentity) -> Camera:
    """The camera behind a medium, whose descriptors become its own.

    Raises CameraGone, CameraNotReady, CameraRefused.
    """
    match medium.kind:
        case MediumKind.FOLDER | MediumKind.VOLUMES:
            return MountedCamera(medium, identity)
        case MediumKind.MTP:
            return MtpCamera(UsbPipe.at(medium.usb_bus, medium.usb_device), identity)
