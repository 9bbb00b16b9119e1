"""One look at udev's database and sysfs: every USB device, and the disks that it has. Blocks; touches no device.

Attributes that the kernel guards by the lock of a device are not read: that lock is held while a device that hangs is
reset. `serial` and the other texts are therefore taken from udev.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

import pyudev

from dockd.blocker.sysfs import port_of
from dockd.devices.usb.tree import EXTENDED, Block, Unit, UsbNode, interfaces

_ADDRESS = re.compile(r"\d+:\d+:\d+:(\d+)")  # of SCSI: host, channel, target, logical unit
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")
_SECTOR_BYTES = 512  # what sysfs counts in


def look(ports: Container[str] | None = None) -> tuple[UsbNode, ...]:
    """The USB devices at these ports, or at all. What leaves while it is looked at is left out, or looks unfinished."""
    context = pyudev.Context()
    found = []
    for device in context.list_devices(subsystem="usb", DEVTYPE="usb_device"):
        port = port_of(device.sys_path)
        if port and (ports is None or port in ports):
            with suppress(OSError, ValueError, pyudev.DeviceNotFoundError):
                found.append(_node(context, device, port))
    return tuple(sorted(found, key=lambda node: (node.port, node.bus, node.device)))


def _node(context: pyudev.Context, device: pyudev.Device, port: str) -> UsbNode:
    path, properties = Path(device.sys_path), device.properties
    return UsbNode(
        path=str(path),
        port=port,
        bus=int(_text(path / "busnum")),
        device=int(_text(path / "devnum")),
        vendor_id=_text(path / "idVendor"),
        product_id=_text(path / "idProduct"),
        vendor=_decoded(properties.get("ID_VENDOR_ENC", "")),
        product=_decoded(properties.get("ID_MODEL_ENC", "")),
        serial=properties.get("ID_SERIAL_SHORT", ""),
        interfaces=interfaces((path / "descriptors").read_bytes()),
        seen="ID_BUS" in properties,  # of all that udev's own rules set; written with the rest, in one step
        authorised=_text(path / "authorized") != "0",
        units=tuple(_units(context, path)),
    )


def _units(context: pyudev.Context, path: Path) -> Iterator[Unit]:
    for address in sorted(path.glob(f"{path.name}:*/host*/target*/*")):
        match = _ADDRESS.fullmatch(address.name)
        if match is None:
            continue
        unit = Unit(lun=int(match[1]), scsi_type=int(_text(address / "type")))
        disk = next(iter(sorted(address.glob("block/*"))), None)
        if disk is None:
            yield unit
            continue
        yield Unit(
            lun=unit.lun,
            scsi_type=unit.scsi_type,
            disk=_block(context, disk, 0),
            diskseq=int(_text(disk / "diskseq")),
            partitions=tuple(
                sorted(
                    (_block(context, one.parent, int(_text(one))) for one in disk.glob("*/partition")),
                    key=lambda block: block.partition,
                )
            ),
        )


def _block(context: pyudev.Context, path: Path, partition: int) -> Block:
    properties = pyudev.Devices.from_sys_path(context, str(path)).properties
    return Block(
        name=path.name,
        partition=partition,
        size_bytes=int(_text(path / "size")) * _SECTOR_BYTES,
        seen="ID_BUS" in properties,
        filesystem=properties.get("ID_FS_TYPE", ""),
        volume_id=properties.get("ID_FS_UUID", ""),
        label=_decoded(properties.get("ID_FS_LABEL_ENC", "")),
        container=properties.get("ID_PART_ENTRY_TYPE", "") in EXTENDED,
    )


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace").strip()


def _decoded(text: str) -> str:
    r"""What udev wrote with \xNN for what it thinks unsafe."""
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode(errors="surrogateescape"))
    return raw.decode(errors="replace").strip()
