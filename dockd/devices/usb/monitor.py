"""udev's own events on the event loop. They say when to look, and what left; a look says what is there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import pyudev
import structlog

_log = structlog.get_logger()

_BUFFER_BYTES = 16 * 1024 * 1024  # a hub with its cameras sends hundreds of events within a second
_MOST_AT_ONCE = 1024  # events taken in one turn of the loop
MAX_NOTED = 1024  # paths that left, between two looks; with more, every device counts as having left


class Netlink(Protocol):
    """What is used of pyudev.Monitor."""

    def fileno(self) -> int:
        """Readable when there are events."""

    def poll(self, timeout: float) -> Any:
        """The next event, None where there is none. Raises OSError, ENOBUFS where the kernel dropped some."""


class Monitor:
    """Listens for events of USB devices and block devices since `netlink` was opened."""

    def __init__(self, wake: asyncio.Event, netlink: Netlink) -> None:
        self._wake = wake
        self._left: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._netlink = netlink
        self._fileno = self._netlink.fileno()
        self._loop.add_reader(self._fileno, self._readable)

    def left(self) -> set[str]:
        """The paths in sysfs that left since the last call."""
        left, self._left = self._left, set()
        return left

    def close(self) -> None:
        """Listen no more."""
        self._loop.remove_reader(self._fileno)

    def _readable(self) -> None:
        self._wake.set()
        for _ in range(_MOST_AT_ONCE):
            try:
                device = self._netlink.poll(timeout=0)
            except OSError as error:  # ENOBUFS: the kernel dropped some; the look that follows finds what they said
                _log.warning("udev_events_lost", reason=error.strerror)
                return
            if device is None:
                return
            if device.action == "remove" and len(self._left) <= MAX_NOTED:
                self._left.add(device.sys_path)


def listening() -> Netlink:
    """A socket that hears of USB devices and block devices from now on. Blocks: libudev is looked for and loaded."""
    netlink = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
    netlink.filter_by("usb", "usb_device")
    netlink.filter_by("block")
    with suppress(OSError):  # more than this user may have: the kernel's default is used then
        netlink.set_receive_buffer_size(_BUFFER_BYTES)
    netlink.start()
    heard: Netlink = netlink
    return heard
