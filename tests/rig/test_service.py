"""dockd under systemd, set up from its wheel as docs/operations.md says."""

from __future__ import annotations

import json

import pytest
from rig.guest.setup import BAYS

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]


def test_the_installed_dock_runs_under_systemd(module_dock):
    dock = module_dock
    shown = json.loads(dock.machine.run("dockd status --json", check=True).out)
    assert shown["stores"][0]["state"] == "reachable"
    assert {bay["bay"]: bay["state"] for bay in shown["bays"]} == dict.fromkeys(range(1, BAYS + 1), "empty")
    asked = "-p ActiveState -p SubState -p Type -p User -p NRestarts"
    told = dict(line.split("=") for line in dock.machine.run(f"systemctl show {asked} dockd", check=True).out.split())
    wanted = {"ActiveState": "active", "SubState": "running", "Type": "notify", "User": "dockd", "NRestarts": "0"}
    assert told == wanted
    assert dock.machine.run("systemctl is-active dockd-blocker.socket", check=True).out.strip() == "active"
