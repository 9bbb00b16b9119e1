"""Which USB ports there are, and what stands at them: for setting up a dock, with no daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from dockd.config.load import load_station
from dockd.devices.usb.aside import aside
from dockd.devices.usb.look import look
from dockd.devices.usb.monitor import Monitor, listening
from dockd.devices.usb.tree import UsbNode, judge, sound_serial, waits_for
from dockd.errors import CameraRefused
from dockd.model import BayNumber

_HUB = "09"  # an interface class


@dataclass(frozen=True, slots=True, kw_only=True)
class PortLine:
    """One port, and what stands at it."""

    port: str
    bay: BayNumber | None
    label: str  # "" where nothing does
    says: str  # why it is no camera, or what it waits for; "" where nothing speaks against it


def ports(config: Path | None) -> tuple[PortLine, ...]:
    """Every configured port, and every other port at which something stands, hubs left out. Raises ConfigError."""
    bays = load_station(config, files=False).bays.port_numbers() if config else {}
    nodes = [node for node in look() if node.port in bays or not _is_hub(node)]
    lines = [PortLine(port=node.port, bay=bays.get(node.port), label=node.label, says=_says(node)) for node in nodes]
    taken = {node.port for node in nodes}
    lines += [PortLine(port=port, bay=bay, label="", says="") for port, bay in bays.items() if port not in taken]
    return tuple(sorted(lines, key=lambda line: (line.bay is None, line.bay or 0, line.port)))


async def arrivals(ready: Callable[[], None]) -> AsyncGenerator[UsbNode, None]:
    """What is plugged after `ready` was called, hubs left out, each arrival once. Ends by cancellation only."""
    wake = asyncio.Event()
    monitor = Monitor(wake, await aside(listening))
    try:
        known = {node.key for node in await aside(look)}
        ready()
        while True:
            await wake.wait()
            wake.clear()
            monitor.left()
            found = await aside(look)
            known &= {node.key for node in found}
            for node in found:
                if node.seen and node.key not in known and not _is_hub(node):
                    known.add(node.key)
                    yield node
    finally:
        monitor.close()


def _is_hub(node: UsbNode) -> bool:
    return any(one.startswith(_HUB) for one in node.interfaces)


def _says(node: UsbNode) -> str:
    try:
        judge(node)
        sound_serial(node, node.serial)
    except CameraRefused as refusal:
        return str(refusal)
    return waits_for(node)
