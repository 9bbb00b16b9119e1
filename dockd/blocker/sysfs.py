"""Where a block device stands, read from sysfs: which USB device it is of, and at which port that is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_USB_DEVICE = re.compile(r"\d+-\d+(?:\.\d+)*")
_USB_INTERFACE = re.compile(r"\d+-\d+(?:\.\d+)*:\d+\.\d+")
_USB_BUS = re.compile(r"usb\d+")
_SECTOR = 512  # what sysfs counts in, whatever the device's own sectors are
DRIVERS = ("usb-storage", "uas")


class NoPlace(Exception):
    """The device is not there any more, or is none of USB mass storage. The sentence says which."""

    def __init__(self, message: str, *, gone: bool) -> None:
        super().__init__(message)
        self.gone = gone


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbPlace:
    """One USB device, whatever it is: what stands in its directory in sysfs."""

    path: str  # the real path of its directory
    port: str  # "<controller>/<devpath>": "0000:00:09.0/3", behind a hub "0000:00:09.0/8.2"
    bus: int
    device: int
    vendor_id: str  # four hex digits
    product_id: str
    serial: str  # "" where it states none
    vendor: str
    product: str
    interfaces: tuple[str, ...]  # class, subclass and protocol in hex, of each interface: "080650"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One block device of USB mass storage: a disk or a partition."""

    device: str  # "sda1", or "sda" for the whole disk
    disk: str  # "sda"
    partition: int  # 0 for the whole disk
    lun: int
    number: tuple[int, int]  # major and minor
    disk_number: tuple[int, int]
    diskseq: int  # of the disk: names one arrival of it, never used twice until the next boot
    size_bytes: int
    disk_path: str  # the real path of the disk's directory in sysfs
    driver: str  # one of DRIVERS
    usb: UsbPlace

    @property
    def port(self) -> str:
        """The port that it stands at."""
        return self.usb.port

    @property
    def serial(self) -> str:
        """What the USB device states as its serial number."""
        return self.usb.serial


def port_of(sysfs_path: str) -> str:
    """The port of the USB device that a path in sysfs belongs to, the nearest one; "" where it is none of USB.

    It is the same for both speeds of a port where both buses of its controller number it alike.
    """
    names = sysfs_path.split("/")
    device = next((name for name in reversed(names) if _USB_DEVICE.fullmatch(name)), "")
    bus = next((at for at, name in enumerate(names) if _USB_BUS.fullmatch(name)), 0)
    return f"{names[bus - 1]}/{device.partition('-')[2]}" if device and bus else ""


def usb_place(directory: Path) -> UsbPlace:
    """The USB device whose directory, or a directory below it, this is. Raises NoPlace."""
    path = directory.resolve()
    while not _USB_DEVICE.fullmatch(path.name):
        if path.parent == path:
            raise NoPlace(f"{directory.name} is no USB device", gone=False)
        path = path.parent
    return UsbPlace(
        path=str(path),
        port=port_of(str(path)),
        bus=_number(path / "busnum"),
        device=_number(path / "devnum"),
        vendor_id=_text(path / "idVendor"),
        product_id=_text(path / "idProduct"),
        serial=_text(path / "serial", optional=True),
        vendor=_text(path / "manufacturer", optional=True),
        product=_text(path / "product", optional=True),
        interfaces=_interfaces(path),
    )


def place(device: str, root: Path = Path("/sys")) -> Place:
    """Where the block device of this name stands. Raises NoPlace where it left, or is no USB mass storage."""
    try:
        path = (root / "class" / "block" / device).resolve(strict=True)
    except OSError as error:
        raise NoPlace(f"{device} is gone", gone=True) from error
    partition = _number(path / "partition") if (path / "partition").exists() else 0
    disk = path.parent if partition else path
    interface = next((one for one in path.parents if _USB_INTERFACE.fullmatch(one.name)), None)
    if interface is None:
        raise NoPlace(f"{device} is no USB device", gone=False)
    driver = (interface / "driver").resolve().name
    if driver not in DRIVERS:
        raise NoPlace(f"{device} is no USB mass storage", gone=False)
    return Place(
        device=device,
        disk=disk.name,
        partition=partition,
        lun=_lun(disk),
        number=_major_minor(path / "dev"),
        disk_number=_major_minor(disk / "dev"),
        diskseq=_number(disk / "diskseq"),
        size_bytes=_number(path / "size") * _SECTOR,
        disk_path=str(disk),
        driver=driver,
        usb=usb_place(interface),
    )


def family(found: Place) -> tuple[Path, ...]:
    """The directories of the disk and of all its partitions."""
    disk = Path(found.disk_path)
    return (disk, *sorted(one.parent for one in disk.glob("*/partition")))


def major_minor(directory: Path) -> tuple[int, int]:
    """The device number of a block device's directory. Raises NoPlace."""
    return _major_minor(directory / "dev")


def _interfaces(device: Path) -> tuple[str, ...]:
    """All of them, those that no driver took included."""
    names = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    try:
        found = sorted(one for one in device.iterdir() if _USB_INTERFACE.fullmatch(one.name))
    except OSError as error:
        raise NoPlace(f"{device.name} is gone", gone=True) from error
    return tuple("".join(_text(one / name) for name in names) for one in found)


def _lun(disk: Path) -> int:
    """The last number of the SCSI address `host:channel:target:lun` that the disk is below."""
    address = next((one.name for one in disk.parents if one.name.count(":") == 3), "0")  # noqa: PLR2004 - four numbers
    number = address.rpartition(":")[2]
    return int(number) if number.isdigit() else 0


def _text(path: Path, *, optional: bool = False) -> str:
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except FileNotFoundError as error:
        if optional and path.parent.is_dir():
            return ""
        raise NoPlace(f"{path.parent.name} is gone", gone=True) from error
    except OSError as error:
        raise NoPlace(f"{path.parent.name} is gone", gone=True) from error


def _number(path: Path) -> int:
    text = _text(path)
    if not text.isdigit():
        raise NoPlace(f"{path.parent.name} states no {path.name}", gone=False)
    return int(text)


def _major_minor(path: Path) -> tuple[int, int]:
    major, _, minor = _text(path).partition(":")
    if not (major.isdigit() and minor.isdigit()):
        raise NoPlace(f"{path.parent.name} states no number", gone=False)
    return int(major), int(minor)
