"""Put what a dock needs besides Python into the system: units, users, directories, udev rules, camera profiles.

Everything comes from the wheel's shared files, or from the checkout of an editable install. Units, sysusers.d,
tmpfiles.d and udev rules are dockd's, and follow its version; local changes to them belong in drop-ins and in files
of other names. What is below /etc/dockd is the station's: a file that differs there is kept.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import dockd
from dockd.blocker.allowed import writable_by_others
from dockd.errors import ConfigError
from dockd.keep.durable import write_file

UNITS = Path("etc/systemd/system")
CONFIGURATION = Path("etc/dockd")
_SHIPPED_PYTHON = "/opt/dockd/bin/python"
_MODE = 0o644
# Directory in the shared files, pattern, where its files go, and whether they are the station's own from then on.
_PLACES = (
    ("systemd", "*.service", UNITS, False),
    ("systemd", "*.socket", UNITS, False),
    ("config/sysusers.d", "*.conf", Path("etc/sysusers.d"), False),
    ("config/tmpfiles.d", "*.conf", Path("etc/tmpfiles.d"), False),
    ("config/udev", "*.rules", Path("etc/udev/rules.d"), False),
    ("config/udev", "*.example", Path("etc/udev/rules.d"), False),
    ("config/cameras.d", "*.toml", CONFIGURATION / "cameras.d", True),
)
_EXAMPLES = ("dockd.toml", "receiver.toml")
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - what the units do not see is named here


class Outcome(StrEnum):
    """What came of one file."""

    MADE = "made"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    KEPT = "kept"  # it is the station's, and differs from the one shipped, which stands beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One file, where the running system will see it."""

    path: Path
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    path: Path
    content: bytes
    own: bool


def install_system(root: Path, *, dry_run: bool) -> tuple[Installed, ...]:
    """Write every file below `root`, or say what would be written. Idempotent.

    Raises ConfigError where the shared files are not to be found, OSError where one cannot be written: those before it
    stand, and the next run goes on.
    """
    return tuple(_install(root, wanted, dry_run=dry_run) for wanted in _wanted(_shared(), sys.executable))


def doubts(python: Path) -> tuple[str, ...]:
    """Why this interpreter is a bad one for services, in sentences: hidden from them, or not root's alone."""
    places = (python, Path(dockd.__file__).parent)
    hidden = [place for place in places if any(place.is_relative_to(one) for one in _HIDDEN)]
    loose = [place for place in places if writable_by_others(place)]
    return (
        *(f"{place} is hidden from the units (ProtectHome, PrivateTmp): install dockd below /opt" for place in hidden),
        *(
            f"{place} may be changed by others than root, and the write blocker runs from there as root: "
            "give it, and the directories above it, to root alone"
            for place in loose
        ),
    )


def shipped_cameras() -> Path:
    """The directory of the camera profiles that come with dockd. Raises ConfigError."""
    return _shared() / "config" / "cameras.d"


def _shared() -> Path:
    """Where the wheel's shared files are: `share/dockd` of the installation, else the checkout."""
    for directory in (Path(sysconfig.get_path("data")) / "share" / "dockd", Path(dockd.__file__).parents[1]):
        if (directory / "systemd" / "dockd.service").is_file():
            return directory
    raise ConfigError("dockd's shared files are not where its wheel puts them: install the wheel again")


def _wanted(shared: Path, python: str) -> Iterator[_Wanted]:
    for directory, pattern, place, own in _PLACES:
        for source in sorted((shared / directory).glob(pattern)):
            content = source.read_bytes()
            if place == UNITS:
                content = content.replace(_SHIPPED_PYTHON.encode(), _quoted(python).encode())
            yield _Wanted(path=place / source.name, content=content, own=own)
    for name in _EXAMPLES:
        content = (shared / "config" / name).read_bytes()
        yield _Wanted(path=CONFIGURATION / f"{name}.example", content=content, own=False)


def _quoted(python: str) -> str:
    """A path as systemd.service(5) reads it in ExecStart: no specifier, no word break in it."""
    escaped = python.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if any(character in python for character in " \t\"'\\") else escaped


def _install(root: Path, wanted: _Wanted, *, dry_run: bool) -> Installed:
    target = root / wanted.path
    shown = Path("/") / wanted.path
    try:
        there = target.read_bytes()
    except FileNotFoundError:
        outcome = Outcome.MADE
    else:
        if there == wanted.content:
            return Installed(path=shown, outcome=Outcome.UNCHANGED)
        outcome = Outcome.KEPT if wanted.own else Outcome.UPDATED
    if not dry_run:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if outcome is Outcome.KEPT:
            target = target.with_name(f"{target.name}.new")
        write_file(target, wanted.content, mode=_MODE)
    return Installed(path=shown, outcome=outcome)
