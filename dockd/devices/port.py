"""The device port: where cameras come from. A source knows bays and attachments; it never reads a clip.

A source may be folders, USB mass storage or MTP. What it hands to the reader is a `Medium`: for anything with a file
system, the directory descriptors of its mounts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from dockd.core.profile import Profile
from dockd.model import BayNumber, CameraIdentity, Medium


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a device says it is, learnt without mounting it or reading any file but a folder's marker."""

    identity: CameraIdentity
    profiles: tuple[Profile, ...]  # those that fit by all that can be told from outside, the most specific first
    enrolled: bool = False  # it carries its own enrolment: the marker that `dockd camera make` wrote


class Attachment(Protocol):
    """A camera made reachable for one docking. One call at a time."""

    @property
    def identity(self) -> CameraIdentity:
        """Who the camera said it is when it was attached."""

    @property
    def profile(self) -> Profile:
        """The profile that it is read by."""

    @property
    def medium(self) -> Medium:
        """What the reader is handed now. The descriptors belong to the attachment; pass duplicates on."""

    @property
    def blueprint(self) -> str:
        """What a later docking needs to finish a `make_anew` that is cut short: journal it before. JSON; "" for none.

        Raises CameraGone after `aclose`.
        """

    async def identify_again(self) -> CameraIdentity:
        """Ask the machine anew who stands at this port. Raises CameraGone where the camera left its bay."""

    async def open_to_write(self) -> None:
        """Let go of the volumes and mount them anew, writable: `medium` is another one then.

        Only after the reader let go of the old one. Nothing to do for a folder and for MTP. Raises CameraGone, or
        EraseFailed where it cannot be done; the volumes are read-only then, or not mounted.
        """

    async def open_to_read(self) -> None:
        """The way back: what was written is on the medium, the volumes are read-only again and mounted anew.

        Raises CameraGone, or EraseFailed where the medium did not take what was written.
        """

    async def make_anew(self, method: str) -> str:
        """Zero (`clear`) or discard (`discard`) the volumes and make fresh, empty file systems like those before.

        Only after the reader let go. Returns what was done, in words; the volumes are not mounted then: go on with
        `open_to_read`. Raises CameraGone, EraseFailed.
        """

    async def aclose(self) -> None:
        """Let go of the camera. Idempotent; never waits for a hung device."""


class DeviceSource(Protocol):
    """One kind of cameras."""

    def events(self) -> AsyncIterator[Plugged | Unplugged]:
        """What is present now, as Plugged, then every change, in order. Ends by cancellation only."""

    async def identify(self, plugged: Plugged) -> Candidate:
        """Who it says it is. Nothing is mounted, and no file is read but a folder's marker.

        Raises CameraRefused, with a sentence for the operator, for what is no camera; CameraNotReady where that cannot
        be told yet; CameraGone where it left.
        """

    async def attach(self, plugged: Plugged, candidate: Candidate) -> Attachment:
        """Make an admitted camera reachable: read-only, and of its files only the names that a profile asks for.

        Raises CameraRefused where none of the candidate's profiles fits after all; CameraNotReady where it cannot be
        reached now; CameraGone where it left.
        After cancellation nothing stays attached.
        """

    async def attach_blank(self, plugged: Plugged, blueprint: str) -> Attachment:
        """A camera that `identify` found blank, as it was before: nothing is mounted; go on with its `make_anew`.

        Only with the blueprint that was journalled for the serial of that CameraBlank. Raises CameraRefused where it
        is another camera, or has other volumes; CameraGone where it left. After cancellation nothing stays attached.
        """
