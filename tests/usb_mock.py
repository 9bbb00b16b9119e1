"""USB devices that libudev sees, made by umockdev: run under `umockdev-wrapper`, which shows its /sys for the real one.

Devices are described here, as a kernel and udev of Debian 12 showed like ones.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

CONTROLLER = "/devices/pci0000:00/0000:00:09.0"
STORAGE, UAS, MTP, KEYBOARD, HUB = "080650", "080662", "060101", "030101", "090000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fs:
    """What udev found on a disk or partition."""

    kind: str = "vfat"
    uuid: str = "1234-ABCD"
    label: str = "BODYCAM"
    size_bytes: int = 66060288

    def properties(self) -> dict[str, str]:
        if not self.kind:
            return {}
        return {
            "ID_FS_USAGE": "filesystem",
            "ID_FS_TYPE": self.kind,
            "ID_FS_UUID": self.uuid,
            "ID_FS_LABEL_ENC": self.label.replace(" ", "\\x20"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Lun:
    """A disk: with partitions, or bare."""

    name: str = "sda"
    diskseq: int = 18
    partitions: Sequence[Fs] = (Fs(),)
    bare: Fs = field(default_factory=lambda: Fs(kind=""))
    size_bytes: int = 67108864
    scsi_type: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A USB device at a port of the mocked controller."""

    port: str = "3"
    bus: int = 2
    device: int = 2
    serial: str = "X012345"
    interfaces: Sequence[str] = (STORAGE,)
    luns: Sequence[Lun] = (Lun(),)
    authorised: bool = True
    product: str = "RIG CAMERA"

    @property
    def path(self) -> str:
        name, above = f"{self.bus}-{self.port}", f"{CONTROLLER}/usb{self.bus}"
        hubs = self.port.split(".")[:-1]
        for depth in range(len(hubs)):
            above += f"/{self.bus}-{'.'.join(hubs[: depth + 1])}"
        return f"{above}/{name}"

    def blocks(self) -> list[str]:
        """Its description, parents first: of the device, its interface, and of each disk and partition."""
        found = [
            _block(
                self.path,
                {
                    "SUBSYSTEM": "usb",
                    "DEVTYPE": "usb_device",
                    "DEVNAME": f"/dev/bus/usb/{self.bus:03}/{self.device:03}",
                    "ID_BUS": "usb",
                    "ID_VENDOR_ENC": "BODYCAM",
                    "ID_MODEL_ENC": self.product.replace(" ", "\\x20"),
                    **({"ID_SERIAL_SHORT": self.serial} if self.serial else {}),
                },
                {
                    "busnum": str(self.bus),
                    "devnum": str(self.device),
                    "idVendor": "46f4",
                    "idProduct": "0001",
                    "authorized": str(int(self.authorised)),
                    "manufacturer": "BODYCAM",
                    "product": self.product,
                    **({"serial": self.serial} if self.serial else {}),
                },
                binary={"descriptors": _descriptors(self.interfaces)},
                node=f"bus/usb/{self.bus:03}/{self.device:03}",
            )
        ]
        name = self.path.rpartition("/")[2]
        for number, triple in enumerate(self.interfaces):
            found.append(
                _block(
                    f"{self.path}/{name}:1.{number}",
                    {"SUBSYSTEM": "usb", "DEVTYPE": "usb_interface"},
                    {
                        "bInterfaceClass": triple[:2],
                        "bInterfaceSubClass": triple[2:4],
                        "bInterfaceProtocol": triple[4:],
                    },
                    links={"driver": "../../../../../../../bus/usb/drivers/usb-storage"} if triple == STORAGE else {},
                )
            )
        for number, lun in enumerate(self.luns):
            found += self._lun(number, lun)
        return found

    def _lun(self, number: int, lun: Lun) -> list[str]:
        name = self.path.rpartition("/")[2]
        host = self.device  # of SCSI: numbers are used once in all of /sys
        unit = f"{self.path}/{name}:1.0/host{host}/target{host}:0:0/{host}:0:0:{number}"
        found = [_block(unit, {"SUBSYSTEM": "scsi", "DEVTYPE": "scsi_device"}, {"type": str(lun.scsi_type)})]
        if not lun.name:
            return found
        disk, minor = f"{unit}/block/{lun.name}", 16 * (ord(lun.name[-1]) - ord("a"))
        common = {"SUBSYSTEM": "block", "ID_BUS": "usb", "DISKSEQ": str(lun.diskseq)}
        found.append(
            _block(
                disk,
                common | {"DEVTYPE": "disk", "DEVNAME": f"/dev/{lun.name}"} | lun.bare.properties(),
                {"dev": f"8:{minor}", "size": str(lun.size_bytes // 512), "diskseq": str(lun.diskseq)},
                node=lun.name,
            )
        )
        for index, part in enumerate(lun.partitions, start=1):
            found.append(
                _block(
                    f"{disk}/{lun.name}{index}",
                    common | {"DEVTYPE": "partition", "DEVNAME": f"/dev/{lun.name}{index}"} | part.properties(),
                    {
                        "dev": f"8:{minor + index}",
                        "size": str(part.size_bytes // 512),
                        "partition": str(index),
                    },
                    node=f"{lun.name}{index}",
                )
            )
        return found


class Bed:
    """The mocked /sys of this process."""

    def __init__(self) -> None:
        if "umockdev" not in os.environ.get("LD_PRELOAD", ""):
            raise RuntimeError("run this under umockdev-wrapper")
        self._library = library = ctypes.CDLL("libumockdev.so.0")
        library.umockdev_testbed_new.restype = ctypes.c_void_p
        library.umockdev_testbed_add_from_string.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        library.umockdev_testbed_uevent.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
        library.umockdev_testbed_remove_device.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.umockdev_testbed_set_property.argtypes = [ctypes.c_void_p] + 3 * [ctypes.c_char_p]
        library.umockdev_testbed_set_attribute.argtypes = [ctypes.c_void_p] + 3 * [ctypes.c_char_p]
        self._bed = library.umockdev_testbed_new()
        for bus in (1, 2):
            self.add(
                _block(
                    f"{CONTROLLER}/usb{bus}",
                    {"SUBSYSTEM": "usb", "DEVTYPE": "usb_device", "ID_BUS": "usb"},
                    {"busnum": str(bus), "devnum": "1", "idVendor": "1d6b", "idProduct": "0003", "authorized": "1"},
                    binary={"descriptors": _descriptors((HUB,))},
                )
            )

    def add(self, *blocks: str) -> None:
        """Add devices; each sends its "add" event."""
        for block in blocks:
            if not self._library.umockdev_testbed_add_from_string(self._bed, block.encode(), None):
                raise ValueError(block)

    def plug(self, device: Device) -> None:
        self.add(*device.blocks())

    def unplug(self, device: Device) -> None:
        """Children first, each with its event."""
        for path in sorted((_path(block) for block in device.blocks()), key=lambda path: -path.count("/")):
            self.event(path, "remove")
            self._library.umockdev_testbed_remove_device(self._bed, f"/sys{path}".encode())

    def event(self, path: str, action: str) -> None:
        self._library.umockdev_testbed_uevent(self._bed, f"/sys{path}".encode(), action.encode())

    def property(self, path: str, name: str, value: str) -> None:
        self._library.umockdev_testbed_set_property(self._bed, f"/sys{path}".encode(), name.encode(), value.encode())

    def attribute(self, path: str, name: str, value: str) -> None:
        self._library.umockdev_testbed_set_attribute(self._bed, f"/sys{path}".encode(), name.encode(), value.encode())


def _path(block: str) -> str:
    return block.partition("\n")[0].removeprefix("P: ")


def _block(
    path: str,
    properties: dict[str, str],
    attributes: dict[str, str],
    *,
    binary: dict[str, str] | None = None,
    links: dict[str, str] | None = None,
    node: str = "",
) -> str:
    lines = [f"P: {path}"]
    lines += [f"N: {node}"] if node else []
    lines += [f"E: {name}={value}" for name, value in properties.items()]
    lines += [f"A: {name}={value}\\n" for name, value in attributes.items()]
    lines += [f"H: {name}={value}" for name, value in (binary or {}).items()]
    lines += [f"L: {name}={value}" for name, value in (links or {}).items()]
    return "\n".join(lines) + "\n\n"


def _descriptors(interfaces: Sequence[str]) -> str:
    """A device and one configuration, as sysfs gives them, in hex: USB 3.2, 9.6."""
    body = b"".join(
        bytes([9, 4, number, 0, 0]) + bytes.fromhex(triple) + b"\0" for number, triple in enumerate(interfaces)
    )
    device = bytes([18, 1, 0, 3, 0, 0, 0, 9]) + bytes(10)
    head = bytes([9, 2]) + (9 + len(body)).to_bytes(2, "little") + bytes([len(interfaces), 1, 0, 0x80, 50])
    return (device + head + body).hex().upper()
