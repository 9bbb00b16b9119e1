"""Which devices are dockd's at all, whoever asks: by root's own configuration, and by root's rules for udev.

The daemon reads the same configuration, but what it says of a port counts for nothing here.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

from dockd.blocker.messages import BlockerError
from dockd.blocker.sysfs import NoPlace, Place, major_minor

CONFIG = Path("/etc/dockd/dockd.toml")
IGNORED = "E:DOCKD_IGNORE=1"
_MAX_BYTES = 1024 * 1024


def check_port(found: Place, config: Path) -> None:
    """Refuse a device that stands at no port of the configuration's `[bays.ports]`.

    Raises BlockerError, also where the configuration is not root's alone: then it would say what somebody else says.
    """
    if found.port not in _ports(config):
        raise BlockerError("refused", f"{found.device} stands at {found.port}, which is no bay's in {config}")


def check_not_ignored(found: Place, udev: Path) -> None:
    """Refuse a device that a rule marks with DOCKD_IGNORE, as a whole or in part; "busy" where udev is not done yet.

    `udev` is the directory of its records. Raises BlockerError.
    """
    for record in _records(found, udev):
        try:
            lines = record.read_text(errors="surrogateescape").splitlines()
        except OSError as error:
            raise BlockerError("busy", f"udev has no record of {found.device} yet: {record.name}") from error
        if IGNORED in lines:
            raise BlockerError(
                "refused", f"{found.device} is marked as ignored by a rule of this machine: DOCKD_IGNORE"
            )


def writable_by_others(place: Path) -> bool:
    """Whether anybody but root may change this file, or swap a directory on the way to it for another."""
    for one in (place.resolve(), *place.resolve().parents):
        try:
            seen = os.stat(one)  # noqa: PTH116 - one call for owner and mode
        except OSError:
            return True
        sticky = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX
        if seen.st_uid != 0 or (seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky):
            return True
    return False


def _records(found: Place, udev: Path) -> Iterator[Path]:
    """Of the volume, of its disk, and of the USB device."""
    for major, minor in {found.number, found.disk_number}:
        yield udev / f"b{major}:{minor}"
    try:
        major, minor = major_minor(Path(found.usb.path))
    except NoPlace as error:
        raise BlockerError("gone", f"{found.device} is gone") from error
    yield udev / f"c{major}:{minor}"


def _ports(config: Path) -> set[str]:
    try:
        if writable_by_others(config):
            words = "give it, and the directories above it, to root alone"
            raise BlockerError("refused", f"{config} may be changed by others than root: {words}")
        with config.open("rb") as file:
            tables = tomllib.loads(file.read(_MAX_BYTES).decode())
        return {port for ports in tables["bays"]["ports"].values() for port in ports}
    except OSError as error:
        raise BlockerError("refused", f"the bays' ports cannot be read from {config}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BlockerError("refused", f"{config} names no ports of bays ([bays.ports])") from error
