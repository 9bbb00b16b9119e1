"""What stands at a USB port, and what that makes it: records of one look at udev and sysfs, and the rules. Pure.

Default deny: a device is a camera only if every part of it is known. What is refused is refused before any of it is
mounted or read, with a sentence for the operator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from dockd.errors import CameraBlank, CameraRefused
from dockd.model import MediumKind

FILESYSTEMS = ("vfat", "exfat", "ext4")

_STORAGE, _IMAGE, _HUB = "08", "06", "09"  # interface classes: mass storage, still image (MTP, PTP), hub
_CLASSES = {
    "01": "audio",
    "02": "a modem or network",
    "03": "a keyboard or mouse",
    "07": "a printer",
    "09": "a hub",
    "0a": "a modem or network",
    "0b": "a smart card reader",
    "0e": "video",
    "e0": "a radio",
    "fe": "an updater",
    "ff": "something only its vendor knows",
}
_INTERFACE_DESCRIPTOR, _INTERFACE_BYTES = 4, 9  # USB 3.2, table 9-24
_DISK_TYPES = (0, 14)  # SCSI peripheral device types: disk, simplified disk
_OPTICAL = 5
EXTENDED = ("0x5", "0xf", "0x85")  # types of a DOS partition that only holds others
_SERIAL = re.compile(r"[A-Za-z0-9](?:[ -~]{0,124}[!-~])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A disk or a partition, as udev knows it."""

    name: str  # the kernel's: "sda1"
    partition: int  # 0 for the whole disk
    size_bytes: int
    seen: bool  # udev has looked into it
    filesystem: str = ""  # ID_FS_TYPE; "" where udev found none
    volume_id: str = ""  # ID_FS_UUID
    label: str = ""
    container: bool = False  # a DOS extended partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One logical unit of USB mass storage."""

    lun: int
    scsi_type: int
    disk: Block | None = None  # None until the kernel made it
    diskseq: int = 0
    partitions: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbNode:
    """One USB device, with all that is below it but other USB devices. Two equal records say that nothing changed."""

    path: str  # in sysfs
    port: str  # as dockd.blocker.sysfs.port_of gives it
    bus: int
    device: int
    vendor_id: str
    product_id: str
    vendor: str
    product: str
    serial: str  # as udev spells it; "" where the device states none
    interfaces: tuple[str, ...]  # class, subclass and protocol in hex of all that it can ever be: "080650"
    seen: bool  # udev has looked at it
    authorised: bool = True
    units: tuple[Unit, ...] = ()

    @property
    def key(self) -> str:
        """Names one arrival: a device that comes again has another number on its bus."""
        return f"usb:{self.port}:{self.bus}.{self.device}"

    @property
    def label(self) -> str:
        """What a person would call it."""
        return printable(" ".join(filter(None, (self.product or self.vendor or "a USB device", self.serial))))

    @property
    def disks(self) -> tuple[tuple[int, int], ...]:
        """Which disks it has: LUN and diskseq, which another card in a reader changes too."""
        return tuple((unit.lun, unit.diskseq) for unit in self.units if unit.disk is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One volume of a camera, and where it is."""

    name: str  # "" where it is the only one; else "lun0", "lun1p2"
    device: str  # "sda1"
    diskseq: int
    size_bytes: int
    filesystem: str
    volume_id: str
    label: str


def interfaces(descriptors: bytes) -> tuple[str, ...]:
    """Class, subclass and protocol of every interface in every configuration and setting, each once, in order."""
    found: list[str] = []
    offset = 0
    while offset + 1 < len(descriptors):
        length = descriptors[offset]
        if length < 2:  # noqa: PLR2004 - length and type are two bytes: USB 3.2, 9.5
            break
        if descriptors[offset + 1] == _INTERFACE_DESCRIPTOR and length >= _INTERFACE_BYTES:
            triple = descriptors[offset + 5 : offset + 8].hex()
            if triple not in found:
                found.append(triple)
        offset += length
    return tuple(found)


def waits_for(node: UsbNode) -> str:
    """Why it cannot be judged yet, in words; "" where all of it is there. Something always changes after this."""
    if not node.seen:
        return "udev has not looked at it yet"
    if not node.authorised or _foreign(node) or not _of_class(node, _STORAGE):
        return ""
    if not node.units:
        return "its disks have not appeared yet"
    for unit in node.units:
        if unit.disk is None:
            if unit.scsi_type in _DISK_TYPES:
                return f"the disk of LUN {unit.lun} has not appeared yet"
            continue
        for block in (unit.disk, *unit.partitions):
            if not block.seen:
                return f"udev has not looked into {block.name} yet"
    return ""


def judge(node: UsbNode) -> MediumKind:
    """What kind of camera it may be, by its interfaces alone. Raises CameraRefused for all that is none."""
    what = f"the device at port {node.port} ({node.label})"
    if not node.authorised:
        raise CameraRefused(f"{what} was not let in: the kernel was told so (authorized=0); nothing on it was read")
    if _of_class(node, _HUB):
        raise CameraRefused(f"{what} is a hub: give the ports behind it in [bays.ports]")
    foreign = _foreign(node)
    if foreign:
        known = dict.fromkeys(_CLASSES.get(one[:2], f"an interface of class {one[:2]}") for one in foreign)
        raise CameraRefused(f"{what} is no camera, or not only that: it is also {', '.join(known)}; nothing was read")
    kinds = {kind for kind, name in ((MediumKind.VOLUMES, _STORAGE), (MediumKind.MTP, _IMAGE)) if _of_class(node, name)}
    if not kinds:
        raise CameraRefused(f"{what} names no interface: it is no camera")
    if len(kinds) > 1:
        raise CameraRefused(f"{what} is both a disk and an MTP device: set the camera to one of the two")
    return kinds.pop()


def sound_serial(node: UsbNode, serial: str) -> str:
    """The serial, if a camera can be known by it. Raises CameraRefused."""
    if not serial:
        raise CameraRefused(
            f"the device at port {node.port} ({node.label}) states no serial number: it cannot be told from others"
        )
    if not _SERIAL.fullmatch(serial):
        raise CameraRefused(
            f"the device at port {node.port} states a serial number that cannot be used: {printable(serial)[:80]!r}"
        )
    return serial


def parts(node: UsbNode, serial: str) -> tuple[Part, ...]:
    """The volumes of a mass storage camera, by LUN and partition.

    Raises CameraRefused unless each disk and partition with a medium is one: nothing on a camera is skipped. Raises
    CameraBlank where one has nothing on it that udev knows.
    """
    with_medium = [unit for unit in node.units if _medium(unit)]
    if not with_medium:
        raise CameraRefused(f"there is no card in {node.label}: put one in")
    return _named([_part(unit, block, serial) for unit in with_medium for block in _blocks(unit)])


def blanks(node: UsbNode) -> tuple[Part, ...]:
    """The volumes, those with no file system too, which have "" as theirs. Raises CameraRefused."""
    return _named([_as_part(unit, block) for unit in node.units if _medium(unit) for block in _blocks(unit)])


def printable(text: str) -> str:
    """Text of a device, made safe to show."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _medium(unit: Unit) -> bool:
    if unit.scsi_type == _OPTICAL:
        raise CameraRefused(f"its LUN {unit.lun} is a CD drive: it is no camera, or not only that; nothing was read")
    return unit.disk is not None and unit.disk.size_bytes > 0


def _blocks(unit: Unit) -> tuple[Block, ...]:
    """The disk, or its partitions."""
    disk = unit.disk
    if disk is None:
        return ()
    if unit.partitions and disk.filesystem:
        raise CameraRefused(f"{disk.name} has partitions and is a file system too: have it examined")
    return tuple(one for one in unit.partitions if not one.container) or (disk,)


def _part(unit: Unit, block: Block, serial: str) -> Part:
    where = f"LUN {unit.lun}" + (f", partition {block.partition}" if block.partition else "")
    if not block.filesystem:
        raise CameraBlank(
            f"camera {serial} has no file system that can be told on {where} ({block.name}): it is blank or damaged; "
            "nothing on it was read",
            serial=serial,
        )
    if block.filesystem not in FILESYSTEMS:
        raise CameraRefused(
            f"camera {serial} has {printable(block.filesystem)} on {where}, of which nothing can be read; known are "
            f"{', '.join(FILESYSTEMS)}"
        )
    if not block.volume_id:
        raise CameraRefused(f"the {block.filesystem} of camera {serial} on {where} has no volume id: format it anew")
    return _as_part(unit, block)


def _as_part(unit: Unit, block: Block) -> Part:
    return Part(
        name=f"lun{unit.lun}" + (f"p{block.partition}" if block.partition else ""),
        device=block.name,
        diskseq=unit.diskseq,
        size_bytes=block.size_bytes,
        filesystem=block.filesystem,
        volume_id=block.volume_id,
        label=block.label,
    )


def _named(found: list[Part]) -> tuple[Part, ...]:
    """The only one of a camera needs no name."""
    return (replace(found[0], name=""),) if len(found) == 1 else tuple(found)


def _of_class(node: UsbNode, name: str) -> bool:
    return any(one.startswith(name) for one in node.interfaces)


def _foreign(node: UsbNode) -> list[str]:
    return [one for one in node.interfaces if one[:2] not in (_STORAGE, _IMAGE)]
