"""The rig: real USB cameras, real file systems and a real systemd, in a guest that QEMU emulates. Needs root."""

from __future__ import annotations

import os
import shutil

import pytest
from rig.guest.dock import Dock
from rig.guest.machine import Hardware
from rig.guest.setup import fresh

_TOOLS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "mkfs.vfat", "mcopy", "mkfs.exfat", "cpio")


@pytest.fixture(scope="session", autouse=True)
def _the_tools_are_here():
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (.ci/packages.txt)")
    if os.geteuid() != 0:
        pytest.skip("needs root, to unpack a Debian with its owners")


@pytest.fixture
def dock(tmp_path):
    """A dock of its own, with the daemon running and eight bays, all empty."""
    made = fresh(tmp_path / "dock")
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_dock(tmp_path_factory):
    """A dock that the tests of one module share, each with bays of its own."""
    made = fresh(tmp_path_factory.mktemp("rig") / "dock")
    yield made
    made.close()


@pytest.fixture
def docks():
    """Makes docks in a directory and on hardware of the test's choice."""
    made: list[Dock] = []

    def make(directory, *, hardware: Hardware | None = None) -> Dock:
        made.append(fresh(directory, hardware=hardware))
        return made[-1]

    yield make
    for dock in made:
        dock.close()
