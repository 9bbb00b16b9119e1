"""The device port: where cameras come from. A source knows bays and attachments; it never reads a clip.

A source may be folders, USB mass storage or MTP. What it hands to the reader is an `Attachment`: for anything with a
file system, the directory descriptor of one mount.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from dockd.model import BayNumber, CameraIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugged:
    """Something arrived in a bay. `device` is the source's own name for it, unique among what is present."""

    bay: BayNumber
    device: str
    label: str  # what a person would call it, for status


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplugged:
    """It left. Also sent when a device was replaced in one step by another: Unplugged first, then Plugged."""

    bay: BayNumber
    device: str


class Attachment(Protocol):
    """A camera made reachable for one docking."""

    @property
    def identity(self) -> CameraIdentity:
        """Who the camera said it is when it was attached."""

    @property
    def root_fd(self) -> int:
        """A directory descriptor of the camera's root. It belongs to the attachment; pass duplicates on."""

    async def identify_again(self) -> CameraIdentity:
        """Ask the device anew who it is. Raises CameraGone where it left its bay."""

    async def aclose(self) -> None:
        """Let go of the camera. Idempotent; never waits for a hung device."""


class DeviceSource(Protocol):
    """One kind of cameras."""

    def events(self) -> AsyncIterator[Plugged | Unplugged]:
        """What is present now, as Plugged, then every change, in order. Ends by cancellation only."""

    async def attach(self, plugged: Plugged) -> Attachment:
        """Identify the camera and make it reachable, reading nothing but its identity.

        Raises CameraRefused, with a sentence for the operator, for what is no camera; CameraGone where it left.
        After cancellation nothing stays attached.
        """
