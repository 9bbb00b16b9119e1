"""Detect: turn what a device source reports into dockings that begin and end."""

from __future__ import annotations

from typing import Protocol

import structlog

from dockd.devices.port import DeviceSource, Plugged

_log = structlog.get_logger()


class Bays(Protocol):
    """Who owns the dockings. Neither call waits for a camera."""

    def begin(self, plugged: Plugged, source: DeviceSource) -> None:
        """Start a docking of what was plugged."""

    def end(self, device: str) -> None:
        """End the docking of that device, if there is one."""


async def detect(source: DeviceSource, bays: Bays) -> None:
    """Follow one source, event by event, in its order. Ends by cancellation, or with the source's own error."""
    async for event in source.events():
        if isinstance(event, Plugged):
            _log.info("device_plugged", bay=event.bay, device=event.device)
            bays.begin(event, source)
        else:
            _log.info("device_unplugged", bay=event.bay, device=event.device)
            bays.end(event.device)
