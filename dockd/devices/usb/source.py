"""USB cameras in bays: a device source on udev's events and looks at sysfs.

An arrival is told at once, and waited for when it is identified: until the kernel has made its disks and udev has
looked into them. What then changes ends its docking only where it matters: another card, another device. Of a device
that was refused, any change makes it another arrival.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from dockd.blocker.sysfs import NoPlace, UsbPlace, usb_place
from dockd.core.profile import Facts, Profile, VolumeFacts, asked_for, candidates, fits
from dockd.devices.port import Attachment, Candidate, Plugged, Unplugged
from dockd.devices.usb.aside import aside
from dockd.devices.usb.attachment import ANSWER_S, UsbAttachment, Where, read_blueprint
from dockd.devices.usb.look import look
from dockd.devices.usb.monitor import MAX_NOTED, Monitor, listening
from dockd.devices.usb.mtp import MtpAttachment
from dockd.devices.usb.tree import Part, UsbNode, blanks, judge, parts, printable, sound_serial, waits_for
from dockd.errors import CameraGone, CameraNotReady, CameraRefused
from dockd.model import BayNumber, CameraIdentity, MediumKind

_log = structlog.get_logger()

PATIENCE_S = 40.0  # for disks to appear: a card reader may take ten seconds, a device that hangs never does
MAX_PARTS = 16
_MTP_VOLUME = "mtp"  # stands for a volume id, of which MTP has none


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A device, as it was identified."""

    node: UsbNode
    identity: CameraIdentity
    serial: str
    parts: tuple[Part, ...]  # none of an MTP device

    @property
    def facts(self) -> Facts:
        """What profiles are chosen by."""
        return Facts(
            medium=MediumKind.VOLUMES if self.parts else MediumKind.MTP,
            vendor_id=self.node.vendor_id,
            product_id=self.node.product_id,
            volumes=tuple(VolumeFacts(filesystem=part.filesystem, label=part.label) for part in self.parts),
        )


class _Arrival:
    """One device in a bay, from its arrival on."""

    def __init__(self, bay: BayNumber, node: UsbNode) -> None:
        self.bay = bay
        self.node = node
        self.changed = asyncio.Event()
        self.relied_on: UsbNode | None = None  # as it was when it was identified
        self.refused_as: UsbNode | None = None  # as it was when it was refused
        self.stale: UsbNode | None = None  # as udev had it before a file system was made on it
        self.waits_for_bay = False

    def outdated_by(self, now: UsbNode) -> bool:
        """Whether a docking that began with this arrival has to end."""
        if self.refused_as is not None:
            return now != self.refused_as and not waits_for(now)
        return self.relied_on is not None and now.disks != self.relied_on.disks

    def update(self, now: UsbNode) -> None:
        if now != self.node:
            self.node = now
            self.changed.set()

    def waits_for(self) -> str:
        """What is still to come before it can be judged, in words; "" for nothing."""
        if self.node == self.stale:
            return "udev has not looked at its new file system yet"
        return waits_for(self.node)


class UsbSource:
    """A device source on USB ports. One reader of `events` at a time."""

    def __init__(
        self,
        ports: Mapping[str, BayNumber],
        *,
        blocker: Path,
        profiles: Callable[[], Sequence[Profile]],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._ports = ports
        self._blocker = blocker
        self._profiles = profiles
        self._patience_s = patience_s
        self._present: dict[str, _Arrival] = {}
        self._wake = asyncio.Event()

    async def events(self) -> AsyncIterator[Plugged | Unplugged]:
        """What stands at the ports now, then every change. Ends by cancellation only."""
        # Before the first look: nothing that comes later is missed.
        monitor = Monitor(self._wake, await aside(listening))
        try:
            while True:
                self._wake.clear()
                left = monitor.left()
                found = await aside(partial(look, self._ports))
                for event in self._changes(found, left):
                    yield event
                await self._wake.wait()
        finally:
            monitor.close()

    async def identify(self, plugged: Plugged) -> Candidate:
        """Who it says it is, once its disks are there. Nothing is mounted, and no file is read."""
        arrival = self._arrival(plugged)
        node = arrival.node
        try:
            self._check_bay(plugged, arrival)
            node = await self._settled(arrival)
            known = await self._known(node)
            fitting = self._candidates(known)
        except (CameraRefused, CameraNotReady):
            arrival.refused_as = node
            self._wake.set()  # what changed meanwhile makes it another arrival
            raise
        arrival.relied_on, arrival.refused_as = node, None
        return Candidate(identity=known.identity, profiles=fitting)

    async def attach(self, plugged: Plugged, candidate: Candidate) -> Attachment:
        """Mount an admitted camera read-only, and find the profile that fits."""
        arrival = self._arrival(plugged)
        try:
            known = await self._known(arrival.node)
            if known.identity != candidate.identity or arrival.node != known.node:
                raise CameraGone(f"{plugged.label} is another camera now, or has another card")
            arrival.relied_on, arrival.refused_as = known.node, None
            return await self._attached(known, candidate.profiles)
        except (CameraRefused, CameraNotReady):
            arrival.refused_as = arrival.node
            self._wake.set()
            raise

    async def attach_blank(self, plugged: Plugged, blueprint: str) -> Attachment:
        """A camera that was being made anew: the volumes that have no file system now are still to be made."""
        arrival = self._arrival(plugged)
        node = await self._settled(arrival)
        plan = read_blueprint(blueprint)
        judge(node)
        serial = await self._serial(node)
        profile = next((one for one in self._profiles() if one.name == plan.profile), None)
        now = {part.name: part for part in blanks(node)}
        if serial.serial != plan.identity.serial or profile is None or set(now) != {part.name for part in plan.parts}:
            raise CameraRefused(f"camera {plan.identity.serial} is not as it was when it was cleared: have it examined")
        here = []
        for part in plan.parts:
            found = now[part.name]
            same = (found.filesystem, found.volume_id) in ((part.filesystem, part.volume_id), ("", ""))
            if found.size_bytes != part.size_bytes or not same:
                raise CameraRefused(f"camera {serial.serial} has another file system by now: have it examined")
            here.append(replace(part, device=found.device, diskseq=found.diskseq))
        attachment = UsbAttachment(
            identity=plan.identity,
            profile=profile,
            where=Where(port=node.port, serial=serial.serial),
            parts=here,
            blocker=self._blocker,
        )

        def made() -> None:
            arrival.stale = node

        pending = [name for name, part in now.items() if not part.filesystem]
        await attachment.open_blank(plan.likes, pending, made)
        arrival.relied_on, arrival.refused_as = node, None
        return attachment

    # --- what is present

    def _changes(self, found: Sequence[UsbNode], left: set[str]) -> list[Plugged | Unplugged]:
        """Bring the bays up to date with a look. The first to come holds its bay; the others are refused."""
        here = {node.key: node for node in found}
        events: list[Plugged | Unplugged] = []
        for key, arrival in list(self._present.items()):
            now = here.get(key)
            if now is None or arrival.node.path in left or len(left) > MAX_NOTED:
                del self._present[key]
                events.append(Unplugged(bay=arrival.bay, device=key))
        for key, arrival in list(self._present.items()):
            now = here[key]
            freed = arrival.waits_for_bay and self._holder(arrival.bay) is arrival
            if freed or arrival.outdated_by(now):
                events.append(Unplugged(bay=arrival.bay, device=key))
                events.append(self._plugged(now, arrival.bay))
            else:
                arrival.update(now)
        events.extend(
            self._plugged(node, self._ports[node.port]) for key, node in here.items() if key not in self._present
        )
        return events

    def _plugged(self, node: UsbNode, bay: BayNumber) -> Plugged:
        self._present[node.key] = _Arrival(bay, node)
        return Plugged(bay=bay, device=node.key, label=node.label)

    def _holder(self, bay: BayNumber) -> _Arrival | None:
        return next((one for one in self._present.values() if one.bay == bay), None)

    def _arrival(self, plugged: Plugged) -> _Arrival:
        arrival = self._present.get(plugged.device)
        if arrival is None:
            raise CameraGone(f"{plugged.label} left bay {plugged.bay}")
        return arrival

    def _check_bay(self, plugged: Plugged, arrival: _Arrival) -> None:
        holder = self._holder(arrival.bay)
        arrival.waits_for_bay = holder is not arrival
        if holder is not None and holder is not arrival:
            raise CameraRefused(
                f"bay {arrival.bay} already holds {holder.node.label}: a bay takes one camera; "
                f"nothing on {plugged.label} was read"
            )

    # --- who it is

    async def _settled(self, arrival: _Arrival) -> UsbNode:
        """The device, once nothing of it is still to come. Raises CameraNotReady where that takes too long."""
        try:
            async with asyncio.timeout(self._patience_s):
                while arrival.waits_for():
                    arrival.changed.clear()
                    await arrival.changed.wait()
        except TimeoutError as error:
            raise CameraNotReady(
                f"{arrival.node.label} does not come up: {arrival.waits_for()}; if this stays, take it out and put it "
                "in again"
            ) from error
        return arrival.node

    async def _known(self, node: UsbNode) -> _Known:
        kind = judge(node)
        device = await self._serial(node)
        found: tuple[Part, ...] = ()
        if kind is MediumKind.VOLUMES:
            found = parts(node, device.serial)
            if len(found) > MAX_PARTS:
                raise CameraRefused(f"camera {device.serial} has {len(found)} volumes: no camera has that many")
        return _Known(
            node=node,
            serial=device.serial,
            parts=found,
            identity=CameraIdentity(
                serial=device.serial,
                model=printable(device.product or device.vendor or f"{device.vendor_id}:{device.product_id}")[:128],
                volume_id="+".join(part.volume_id for part in found) or _MTP_VOLUME,
                vendor=node.vendor_id,
                product=node.product_id,
            ),
        )

    async def _serial(self, node: UsbNode) -> UsbPlace:
        """What sysfs says of it, its own spelling of the serial number most of all."""
        try:
            async with asyncio.timeout(ANSWER_S):
                device = await aside(partial(usb_place, Path(node.path)))
        except (NoPlace, OSError) as error:  # TimeoutError is one
            raise CameraGone(f"{node.label} left, or does not answer: {error}") from error
        if (device.bus, device.device, device.port) != (node.bus, node.device, node.port):
            raise CameraGone(f"{node.label} was replaced")
        if node.serial and not device.serial:  # what leaves loses its attributes one by one
            raise CameraGone(f"{node.label} is leaving")
        sound_serial(node, device.serial)
        return device

    def _candidates(self, known: _Known) -> tuple[Profile, ...]:
        """The profiles that fit by all that can be told from outside. Raises CameraRefused where none does."""
        fitting = candidates(self._profiles(), known.facts)
        if not fitting:
            volumes = ", ".join(f"{part.filesystem} {printable(part.label)}".strip() for part in known.parts)
            raise CameraRefused(
                f"no camera profile fits {known.node.label} ({known.node.vendor_id}:{known.node.product_id}, "
                f"{volumes or 'MTP'}): put one into [cameras] directory (docs/cameras.md) and plug it in again; "
                "nothing on it was read"
            )
        return fitting

    async def _attached(self, known: _Known, profiles: Sequence[Profile]) -> Attachment:
        where = Where(port=known.node.port, serial=known.serial)
        if not known.parts:
            return MtpAttachment(identity=known.identity, profile=profiles[0], node=known.node, where=where)
        attachment = UsbAttachment(
            identity=known.identity, profile=profiles[0], where=where, parts=known.parts, blocker=self._blocker
        )
        await attachment.open()
        try:
            attachment.settle(await _fitting(attachment, known, profiles))
        except BaseException:
            await attachment.aclose()
            raise
        return attachment


async def _fitting(attachment: UsbAttachment, known: _Known, profiles: Sequence[Profile]) -> Profile:
    """The first profile whose files are there, too. Raises CameraRefused where none is."""
    missing: list[bytes] = []
    for profile in profiles:
        asked = asked_for(profile, known.facts)
        there = [path for path in asked if await attachment.exists(path)]
        if fits(profile, known.facts, there):
            return profile
        missing += asked
    paths = ", ".join(os.fsdecode(path) for path in dict.fromkeys(missing))
    names = ", ".join(one.name for one in profiles)
    raise CameraRefused(
        f"no camera profile fits {known.node.label}: {names} would, if it had {paths} on it (docs/cameras.md); nothing "
        "else on it was read"
    )
