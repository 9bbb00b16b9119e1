"""dockd under systemd, set up from its wheel as docs/operations.md says."""

from __future__ import annotations

import json

import cards
import pytest
from rig.guest.bays import Reader
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


SLOW_STOP_S = 1.5  # that a plain stop takes: with some more to do, the daemon's own limit may then be reached


def stop(dock):
    """Stop the daemon. How long its main program took by the guest's clock, in seconds, and whether it was done then.

    Where it is not, as on a machine that is very slow, its own alarm ends it.
    """
    shown = "systemctl show dockd -p ExecMainCode -p ExecMainStatus -p ExecMainExitTimestampMonotonic"
    lines = dock.machine.run(f"cat /proc/uptime && systemctl stop dockd; {shown}", check=True).out.splitlines()
    told = dict(line.split("=") for line in lines[1:])
    by_itself, by_alarm = ("1", "0"), ("2", "14")
    ended = told["ExecMainCode"], told["ExecMainStatus"]
    assert ended in (by_itself, by_alarm), str(told)
    return int(told["ExecMainExitTimestampMonotonic"]) / 1e6 - float(lines[0].split()[0]), ended == by_itself


def start(dock):
    dock.machine.run("systemctl start dockd", check=True)
    dock.wait("the daemon answers", dock.status)


def test_p09_the_daemon_stops_beside_a_reader_that_hangs_in_its_device(dock, tmp_path, mp4):
    image = tmp_path / "card.img"
    made = cards.make_card(image, cards.Part(files={"DCIM/100BCAM/CLIP0001.MP4": mp4(6_000_000, 1)}))[0]
    dock.enrol("HUNG")
    plain_s, plain = stop(dock)
    start(dock)
    name = dock.bays.plug("1", "HUNG", image, reader=Reader(speed=2_000_000))
    dock.wait("it is read", lambda: dock.bay(1).get("bytes_acquired"))
    dock.bays.slow(name, 1)
    hangs = "ps -eo stat=,args= | grep -q '^D.*dockd.reader'"
    dock.wait("its reader hangs", lambda: dock.machine.run(hangs).code == 0)
    hung_s, done = stop(dock)
    print(f"stopped in {hung_s:.1f} s, where nothing hangs in {plain_s:.1f} s")  # noqa: T201  shown where it fails
    assert hung_s < 5 + plain_s
    assert done or not plain or plain_s > SLOW_STOP_S
    dock.bays.pull(name)
    start(dock)
    dock.wait_bay(1, "empty")
    dock.bays.plug("1", "HUNG", image)
    dock.settled(1, "ready")
    assert dock.stored("HUNG") == {path: [digest] for path, digest in made.digests.items()}
