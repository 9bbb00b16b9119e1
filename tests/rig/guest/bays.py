"""What is in the USB ports of a guest: cameras that are disk images, and anything else that QEMU can plug in.

A port is named as the kernel does below a controller: "3", or "8.2" for the second port of a hub in port 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.guest.machine import Machine, deleted
from rig.guest.wire import Refused

CONTROLLER = "0000:00:09.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A medium that fails: every read or write, or those of one 512-byte sector."""

    on: str  # "read", "write" or "flush"
    sector: int = -1  # -1: any
    until_written: bool = False  # it ends with the first write to the medium, as that of a sector that is remapped


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How a camera shows its medium over USB."""

    transport: str = "bot"  # or "uas", which alone passes TRIM on
    vendor: str = "BODYCAM"
    model: str = "RIG CAMERA"
    read_only: bool = False
    removable: bool = True
    speed: int = 0  # bytes a second; 0: as fast as it goes
    faults: Sequence[Fault] = ()


class Bays:
    """The ports. A name that `plug` returns is good until `pull`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._nodes: dict[str, list[str]] = {}
        self._plugged = 0

    def plug(self, port: str, serial: str | None, *images: Path, reader: Reader | None = None) -> str:
        """Plug a camera in: one USB device with a disk for each image. None is a camera that states no serial."""
        how = reader or Reader()
        name = self._name("camera")
        usb: dict[str, Any] = {"driver": f"usb-{how.transport}", "id": name, "bus": "usb.0", "port": port}
        usb["serial"] = serial or ""
        self._nodes[name] = []
        try:
            backends = [self._backend(f"{name}-{number}", image, how) for number, image in enumerate(images)]
            self._machine.qmp("device_add", **usb)
            for number, backend in enumerate(backends):
                self._machine.qmp(
                    "device_add",
                    driver="scsi-hd",
                    id=f"{name}-lun{number}",
                    bus=f"{name}.0",
                    lun=number,
                    drive=backend,
                    removable=how.removable,
                    vendor=how.vendor,
                    product=how.model,
                    **{"scsi-id": 0},
                )
            # The device is made first and its disks after it; only now is it seen on its port.
            self.contact(name, made=True)
        except BaseException:
            self._drop(name)
            raise
        return name

    def plug_device(self, port: str, driver: str, **properties: Any) -> str:
        """Anything else: usb-kbd, usb-mtp, usb-serial."""
        name = self._name(driver)
        self._nodes[name] = []
        self._machine.qmp("device_add", driver=driver, id=name, bus="usb.0", port=port, **properties)
        return name

    def contact(self, name: str, *, made: bool) -> None:
        """A loose contact: the device drops off its port, or is there again. Its cable stays plugged."""
        self._machine.qmp("qom-set", path=f"/machine/peripheral/{name}", property="attached", value=made)

    def pull(self, name: str, *behind: str) -> None:
        """Pull the cable, whatever goes on at that moment; of a hub, what is `behind` it goes with it."""
        self._machine.qmp("device_del", until=deleted(name), id=name)
        for one in (name, *behind):
            self._drop(one)

    def slow(self, name: str, speed: int) -> None:
        """Change the speed, in bytes a second, of a camera that was plugged in with one."""
        for node in self._nodes[name]:
            if node.endswith("-speed"):
                limits = {"bps-total": speed}
                self._machine.qmp("qom-set", path=f"/objects/{node}", property="limits", value=limits)

    def _name(self, kind: str) -> str:
        self._plugged += 1
        return f"{kind}{self._plugged}"

    def _backend(self, name: str, image: Path, how: Reader) -> str:
        """The chain of block nodes of one disk. Returns its top."""
        lock = "off" if how.read_only else "auto"
        below: dict[str, Any] = {"driver": "file", "filename": str(image.absolute()), "locking": lock}
        chain = [{**below, "discard": "unmap", "read-only": how.read_only, "node-name": f"{name}-file"}]
        if how.faults:
            rules = [
                {"event": "none", "iotype": fault.on, "errno": 5, "once": False}
                | ({"sector": fault.sector} if fault.sector >= 0 else {})
                for fault in how.faults
            ]
            if any(fault.until_written for fault in how.faults):
                # A rule of this event takes the place of all others; it concerns what nobody asks of this medium.
                rules.append({"event": "write_aio", "iotype": "block-status", "errno": 5, "once": False})
            chain.append({"driver": "blkdebug", "image": f"{name}-file", "inject-error": rules})
        chain.append({"driver": "raw"})
        if how.speed:
            group = f"{name}-speed"
            self._machine.qmp("object-add", id=group, limits={"bps-total": how.speed}, **{"qom-type": "throttle-group"})
            self._nodes[name.rpartition("-")[0]].append(group)
            chain.append({"driver": "throttle", "throttle-group": group})
        for number, node in enumerate(chain):
            node.setdefault("node-name", f"{name}-{number}")
            node.setdefault("read-only", how.read_only)
            if node["driver"] in ("raw", "throttle"):
                node.setdefault("file", chain[number - 1]["node-name"])
            node.setdefault("discard", "unmap")
            self._machine.qmp("blockdev-add", **node)
            self._nodes[name.rpartition("-")[0]].append(node["node-name"])
        return str(chain[-1]["node-name"])

    def _drop(self, name: str) -> None:
        nodes = self._nodes.pop(name)
        for node in reversed(nodes):
            with suppress(Refused):
                if node.endswith("-speed"):
                    self._machine.qmp("object-del", id=node)
                else:
                    self._machine.qmp("blockdev-del", **{"node-name": node})
