"""An MTP camera: what a reader needs to reach it over USB. Nothing is mounted, and nothing is opened here."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from dockd.blocker.sysfs import NoPlace, usb_place
from dockd.core.profile import Profile
from dockd.devices.usb.aside import aside
from dockd.devices.usb.attachment import ANSWER_S, Where
from dockd.devices.usb.tree import UsbNode
from dockd.errors import CameraGone, EraseFailed
from dockd.model import CameraIdentity, Medium, MediumKind


class MtpAttachment:
    """An admitted MTP camera."""

    def __init__(self, *, identity: CameraIdentity, profile: Profile, node: UsbNode, where: Where) -> None:
        self._identity = identity
        self._profile = profile
        self._node = node
        self._where = where
        self._closed = False

    @property
    def identity(self) -> CameraIdentity:
        """What its device said when it was attached."""
        return self._identity

    @property
    def profile(self) -> Profile:
        """The one that fits."""
        return self._profile

    @property
    def medium(self) -> Medium:
        """Its address on the bus. Raises CameraGone after `aclose`."""
        if self._closed:
            raise CameraGone("the camera was let go")
        return Medium(kind=MediumKind.MTP, usb_bus=self._node.bus, usb_device=self._node.device)

    @property
    def blueprint(self) -> str:
        """None: it is never made anew."""
        return ""

    async def identify_again(self) -> CameraIdentity:
        """Ask sysfs who stands at this port. Raises CameraGone."""
        if self._closed:
            raise CameraGone("the camera was let go")
        try:
            async with asyncio.timeout(ANSWER_S):
                now = await aside(partial(usb_place, Path(self._node.path)))
        except (NoPlace, OSError) as error:  # TimeoutError is one
            raise CameraGone(f"the camera left, or does not answer: {error}") from error
        wanted = (self._where.port, self._where.serial, self._node.bus, self._node.device)
        if (now.port, now.serial, now.bus, now.device) != wanted:
            raise CameraGone("another device stands at the camera's port")
        return self._identity

    async def open_to_write(self) -> None:
        """Nothing to do: the camera itself writes."""

    async def open_to_read(self) -> None:
        """Nothing to do: nothing is mounted."""

    async def make_anew(self, method: str) -> str:
        """Raise EraseFailed: over MTP nobody reaches the medium."""
        raise EraseFailed(f"a camera cannot be erased by {method} over MTP")

    async def aclose(self) -> None:
        """Let go of it. Idempotent."""
        self._closed = True
