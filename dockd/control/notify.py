"""Tell systemd how the daemon is, by sd_notify(3): ready, alive, stopping, and a line for `systemctl status`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from dockd.model import Clock

_log = structlog.get_logger()
_STATUS_S = 10.0  # between two looks at the status line, where systemd keeps no watch
_PINGS = 2  # in each watchdog interval, as sd_watchdog_enabled(3) has it


class ServiceManager(Protocol):
    """Who started the daemon and watches it."""

    @property
    def watchdog_s(self) -> float:
        """How often it wants to hear that the daemon is alive, at the least. 0: not at all."""

    def tell(self, *lines: str) -> None:
        """Say `NAME=value` lines. Never blocks, never raises: that nobody listens is no reason to stop."""


class Nobody:
    """Started by hand."""

    @property
    def watchdog_s(self) -> float:
        """Nobody wants to hear."""
        return 0.0

    def tell(self, *lines: str) -> None:
        """Nobody listens."""


class Systemd:
    """systemd, at the datagram socket that it names."""

    def __init__(self, address: str, *, watchdog_s: float) -> None:
        self._address = address
        self._watchdog_s = watchdog_s

    @property
    def watchdog_s(self) -> float:
        """WatchdogSec of the unit."""
        return self._watchdog_s

    def tell(self, *lines: str) -> None:
        """One datagram. A socket whose queue is full misses it: the next ping comes in time."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.settimeout(0)
                connection.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("service_manager_not_told", reason=error.strerror)


def service_manager(environment: Mapping[str, str], *, pid: int) -> ServiceManager:
    """Who the environment says is listening. A watchdog that is meant for another program is not ours to feed."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@") or len(address) == 1:
        return Nobody()
    if address.startswith("@"):
        address = "\0" + address[1:]
    interval = environment.get("WATCHDOG_USEC", "")
    ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    return Systemd(address, watchdog_s=int(interval) / 1e6 if ours and interval.isascii() and interval.isdigit() else 0)


async def keep_told(manager: ServiceManager, status: Callable[[], str], clock: Clock) -> None:
    """Say that the daemon is ready, then that it is alive, until cancelled; then that it stops.

    It runs in the event loop, so a loop that stands still is one that systemd no longer hears of.
    """
    shown = status()
    manager.tell("READY=1", f"STATUS={shown}")
    pause_s = manager.watchdog_s / _PINGS or _STATUS_S
    try:
        while True:
            await clock.sleep(min(pause_s, _STATUS_S))
            now = status()
            lines = ["WATCHDOG=1"] if manager.watchdog_s else []
            if now != shown:
                lines.append(f"STATUS={now}")
                shown = now
            if lines:
                manager.tell(*lines)
    except asyncio.CancelledError:
        manager.tell("STOPPING=1", "STATUS=stopping")
        raise
