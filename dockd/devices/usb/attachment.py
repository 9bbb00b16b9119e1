"""A camera on a USB port, made reachable through the write blocker: one connection of it for each volume."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from dockd.blocker.sysfs import NoPlace, place
from dockd.core.profile import Profile
from dockd.devices.blocker import Blocker, VolumeAddress
from dockd.devices.usb.aside import aside, close_all, close_aside
from dockd.devices.usb.tree import Part
from dockd.errors import CameraGone, CameraRefused, DockdError, EraseFailed
from dockd.filesystems import Superblock, probe
from dockd.model import CameraIdentity, Medium, MediumKind, Volume

_log = structlog.get_logger()

ANSWER_S = 10.0  # what sysfs may take: the kernel holds its answer back while it resets a device
_BLUEPRINT_VERSION = 1
_GONE = (errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ESHUTDOWN)
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The port that a camera stands at, and the serial number as its device states it."""

    port: str
    serial: str
    root: Path = Path("/sys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What `UsbAttachment.blueprint` says. The parts know no device: that is another one each time."""

    identity: CameraIdentity
    profile: str
    parts: tuple[Part, ...]
    likes: dict[str, dict[str, str | int]]  # by the name of the part


class _Seat:
    """One volume: its connection, and what is mounted through it."""

    def __init__(self, part: Part, blocker: Blocker) -> None:
        self.part = part
        self.blocker = blocker
        self.volume: Volume | None = None
        self.superblock: Superblock | None = None  # as it was when it was mounted read-only last

    def take(self, root: int, block: int, dirty: str) -> None:
        self.volume = Volume(
            name=self.part.name,
            filesystem=self.part.filesystem,
            volume_id=self.part.volume_id,
            root_fd=root,
            block_fd=block,
            dirty=dirty,
        )

    def drop(self) -> tuple[int, ...]:
        """The descriptors, which are the caller's to close."""
        volume, self.volume = self.volume, None
        return (volume.root_fd, volume.block_fd) if volume else ()


class UsbAttachment:
    """A mass storage camera, attached. Its volumes are mounted nowhere: their descriptors are all there is."""

    def __init__(
        self, *, identity: CameraIdentity, profile: Profile, where: Where, parts: Sequence[Part], blocker: Path
    ) -> None:
        self._identity = identity
        self._profile = profile
        self._where = where
        self._seats = tuple(_Seat(part, Blocker(blocker)) for part in parts)
        self._likes: dict[str, dict[str, str | int]] = {}  # by volume, from a blueprint
        self._pending: frozenset[str] | None = None  # None: all volumes are made anew
        self._made: Callable[[], None] | None = None
        self._closed = False

    @property
    def identity(self) -> CameraIdentity:
        """What its device and udev said when it was attached."""
        return self._identity

    @property
    def profile(self) -> Profile:
        """The one that fits."""
        return self._profile

    @property
    def medium(self) -> Medium:
        """The volumes as they are mounted now. Raises CameraGone while they are not."""
        volumes = tuple(seat.volume for seat in self._seats if seat.volume is not None)
        if self._closed or len(volumes) != len(self._seats):
            raise CameraGone("the camera was let go")
        return Medium(kind=MediumKind.VOLUMES, volumes=volumes)

    @property
    def blueprint(self) -> str:
        """Everything needed to make its file systems anew, as JSON."""
        if self._closed:
            raise CameraGone("the camera was let go")
        return json.dumps(
            {
                "v": _BLUEPRINT_VERSION,
                "profile": self._profile.name,
                "camera": {
                    "serial": self._identity.serial,
                    "model": self._identity.model,
                    "volume_id": self._identity.volume_id,
                    "vendor": self._identity.vendor,
                    "product": self._identity.product,
                },
                "volumes": [
                    {
                        "name": seat.part.name,
                        "size_bytes": seat.part.size_bytes,
                        "filesystem": seat.part.filesystem,
                        "volume_id": seat.part.volume_id,
                        "label": seat.part.label,
                        "like": self._like(seat),
                    }
                    for seat in self._seats
                ],
            },
            sort_keys=True,
        )

    # --- attaching

    async def open(self) -> None:
        """Mount every volume read-only. Raises CameraRefused, CameraGone; nothing is attached then."""
        try:
            for seat in self._seats:
                await seat.blocker.open()
                await self._mount_to_read(seat, CameraRefused)
        except BaseException:
            await self.aclose()
            raise

    async def open_blank(
        self, likes: dict[str, dict[str, str | int]], pending: Iterable[str], made: Callable[[], None]
    ) -> None:
        """Connect, and mount nothing: `make_anew` makes the volumes named in `pending`, as `likes` says.

        `made` is called when it did: what udev knows of the camera is old then.
        Raises CameraRefused; nothing is attached then.
        """
        self._likes, self._pending, self._made = likes, frozenset(pending), made
        try:
            for seat in self._seats:
                await seat.blocker.open()
        except BaseException:
            await self.aclose()
            raise

    async def exists(self, path: bytes) -> bool:
        """Whether one of its volumes has something of this name, without following a link. Raises CameraGone."""
        roots = [os.dup(volume.root_fd) for volume in self.medium.volumes]

        def look() -> bool:
            try:
                return any(_exists(root, path) for root in roots)
            finally:
                close_all(roots)

        try:
            return await aside(look)
        except OSError as error:
            raise CameraGone(f"the camera could not be read: {error.strerror}") from error

    def settle(self, profile: Profile) -> None:
        """Read it by this profile."""
        self._profile = profile

    # --- the port

    async def identify_again(self) -> CameraIdentity:
        """Ask sysfs who stands at this port. Raises CameraGone."""
        if self._closed:
            raise CameraGone("the camera was let go")
        try:
            async with asyncio.timeout(ANSWER_S):
                await aside(partial(_same, self._where, tuple(seat.part for seat in self._seats)))
        except TimeoutError as error:
            raise CameraGone("the kernel does not answer for this camera: it may be resetting it") from error
        return self._identity

    async def open_to_write(self) -> None:
        """Mount every volume anew, writable."""
        try:
            await self.identify_again()
            for seat in self._seats:
                dirty = seat.volume.dirty if seat.volume else ""
                await aside(partial(close_all, seat.drop()))
                await seat.blocker.open()
                root, block = await seat.blocker.write(self._address(seat))
                seat.take(root, block, dirty)
        except BaseException as error:
            await self._let_go(error)
            raise

    async def open_to_read(self) -> None:
        """Let what was written reach the medium, lock the volumes and mount them anew, read-only."""
        try:
            await self.identify_again()
            for seat in self._seats:
                await aside(partial(close_all, seat.drop()))
                await seat.blocker.open()  # anew, where all was let go of
                await self._mount_to_read(seat, EraseFailed)
        except BaseException as error:
            await self._let_go(error)
            raise

    async def make_anew(self, method: str) -> str:
        """Zero or discard the volumes, and make their file systems anew, by the write blocker."""
        try:
            await self.identify_again()
            likes = [self._like(seat) for seat in self._seats]
            for seat in self._seats:
                await aside(partial(close_all, seat.drop()))
            done = [
                f"{seat.part.name or seat.part.filesystem}: "
                + await seat.blocker.make(
                    self._address(seat), method=method, like=like, blank=self._pending is not None
                )
                for seat, like in zip(self._seats, likes, strict=True)
                if self._pending is None or seat.part.name in self._pending
            ]
        except BaseException as error:
            await self._let_go(error)
            raise
        self._pending = None
        if self._made is not None:
            self._made()
        return "; ".join(done)

    async def aclose(self) -> None:
        """Let go: the write blocker unmounts and locks what is still there."""
        self._closed = True
        await self._disconnect()

    # --- how

    async def _mount_to_read(self, seat: _Seat, failure: type[DockdError]) -> None:
        root, block = await seat.blocker.read(self._address(seat))
        seat.take(root, block, "")
        part = seat.part
        try:
            seat.superblock = found = await _probe(block)
        except OSError as error:
            if error.errno in _GONE:
                raise CameraGone(f"{part.device} left: {error.strerror}") from error
            raise failure(f"the first sectors of {part.device} cannot be read: {error.strerror}") from error
        if found is None or (found.kind, found.volume_id) != (part.filesystem, part.volume_id):
            seen = f"{found.kind} {found.volume_id}" if found else "nothing that is known"
            raise failure(f"{part.device} should be {part.filesystem} {part.volume_id}, but its medium holds {seen}")
        seat.take(root, block, found.dirty)

    async def _let_go(self, error: BaseException) -> None:
        """Some of the volumes are of no use, and a writable one must not stay: let go of all, and have them locked."""
        _log.warning("camera_let_go", camera=self._identity.serial, reason=str(error) or type(error).__name__)
        await self._disconnect()

    async def _disconnect(self) -> None:
        for seat in self._seats:
            close_aside(seat.drop())
            await seat.blocker.aclose()

    def _like(self, seat: _Seat) -> dict[str, str | int]:
        if seat.part.name in self._likes:
            return self._likes[seat.part.name]
        return dict(seat.superblock.like) if seat.superblock else {}

    def _address(self, seat: _Seat) -> VolumeAddress:
        return VolumeAddress(
            device=seat.part.device,
            diskseq=seat.part.diskseq,
            port=self._where.port,
            serial=self._where.serial,
            filesystem=seat.part.filesystem,
        )


async def _probe(block: int) -> Superblock | None:
    """What the medium holds. The descriptor is duplicated first: a read that hangs keeps its own."""
    own = os.dup(block)

    def look() -> Superblock | None:
        try:
            return probe(lambda offset, size: os.pread(own, size, offset))
        finally:
            close_all((own,))

    return await aside(look)


def _same(where: Where, parts: Sequence[Part]) -> None:
    """Blocks. Raises CameraGone where another device, or another disk, stands there now."""
    try:
        found = [place(part.device, where.root) for part in parts]
    except (NoPlace, OSError) as error:  # it may leave between any two of the files that are read
        raise CameraGone(str(error)) from error
    for part, now in zip(parts, found, strict=True):
        if (now.port, now.serial, now.diskseq) != (where.port, where.serial, part.diskseq):
            raise CameraGone(f"{part.device} is another device, or another disk, than the one that was attached")


def _exists(root: int, path: bytes) -> bool:
    """Step by step: a link on a camera leads nowhere."""
    *above, last = [name for name in path.split(b"/") if name] or [b"."]
    opened: list[int] = []
    try:
        for name in above:
            opened.append(os.open(name, _STEP, dir_fd=opened[-1] if opened else root))
        seen = os.stat(last, dir_fd=opened[-1] if opened else root, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    finally:
        close_all(opened)
    return stat.S_ISDIR(seen.st_mode) or stat.S_ISREG(seen.st_mode)


def read_blueprint(blueprint: str) -> Blueprint:
    """The blueprint of an attachment, from the journal. Raises CameraRefused where it is none."""
    try:
        fields: dict[str, Any] = json.loads(blueprint)
        if fields["v"] != _BLUEPRINT_VERSION:
            raise CameraRefused("the journal's note of how the camera was made is of another version")
        return Blueprint(
            identity=CameraIdentity(**fields["camera"]),
            profile=fields["profile"],
            parts=tuple(
                Part(device="", diskseq=0, **{key: value for key, value in one.items() if key != "like"})
                for one in fields["volumes"]
            ),
            likes={one["name"]: one["like"] for one in fields["volumes"]},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CameraRefused("the journal's note of how the camera was made cannot be read") from error
