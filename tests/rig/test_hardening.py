"""What the units are held to, by systemd's own judgement and by a program that tries what dockd does not need."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cards
import pytest

from dockd.reader.confine import ITEMS

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]

SECURE_ENOUGH = 2.0
UNITS = ("dockd.service", "dockd-blocker.socket", "dockd-blocker@.service")  # the receiver's is another machine's
PROBE = r"""
import ctypes, errno, json, os, socket

libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)

def opens(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))

def in_child(attempt):
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, "in a child")

def family(number, kind=socket.SOCK_DGRAM):
    socket.socket(number, kind).close()

tried = {
    "packet socket": lambda: family(socket.AF_PACKET, socket.SOCK_RAW),
    "vsock": lambda: family(40, socket.SOCK_STREAM),
    "crypto socket": lambda: family(38, socket.SOCK_SEQPACKET),
    "the root disk": lambda: opens("/dev/vda"),
    "memory": lambda: opens("/dev/mem"),
    "a terminal": lambda: opens("/dev/ttyS0"),
    "the kernel's log": lambda: opens("/dev/kmsg"),
    "root's home": lambda: os.listdir("/root"),
    "the boot directory": lambda: os.listdir("/boot"),
    "the logs": lambda: os.listdir("/var/log"),
    "writing to /etc": lambda: opens("/etc/dockd/dockd.toml", os.O_WRONLY),
    "writing to /usr": lambda: opens("/usr/share/rig-probe", os.O_WRONLY | os.O_CREAT),
    "mounting": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "a user namespace": lambda: in_child(lambda: call("unshare", 0x10000000)),
    "a mount namespace": lambda: in_child(lambda: call("unshare", 0x00020000)),
    "tracing": lambda: in_child(lambda: call("ptrace", 0, 0, 0, 0)),
    "the host's name": lambda: call("sethostname", b"rig", 3),
    "locking a block device": lambda: opens("/dev/sda"),
}
needed = {
    "the network": lambda: family(socket.AF_INET, socket.SOCK_STREAM),
    "udev's events": lambda: family(socket.AF_NETLINK, socket.SOCK_RAW),
    "the state directory": lambda: os.listdir("/var/lib/dockd"),
    "the configuration": lambda: opens("/etc/dockd/dockd.toml"),
    "the write blocker": lambda: os.stat("/run/dockd-blocker.sock"),
}

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"

told = {name: outcome(attempt) for name, attempt in {**tried, **needed}.items()}
print("PROBE " + json.dumps({"tried": [told[name] for name in tried], "names": list(tried),
                             "needed": {name: told[name] for name in needed}}), flush=True)
"""


def as_service(machine, name, *arguments):
    """What /opt/dockd/NAME.py prints as PROBE, run under all of dockd.service's settings."""
    words = " ".join([f"/opt/dockd/bin/python -I /opt/dockd/{name}.py", *arguments])
    unit = machine.read("/etc/systemd/system/dockd.service").decode()
    unit, replaced = re.subn(r"(?m)^ExecStart=.*$", lambda _: f"ExecStart={words}", unit)
    assert replaced == 1
    unit = re.sub(r"(?m)^(WatchdogSec|Restart|NotifyAccess|ExecReload|RuntimeDirectory\w*)=.*\n", "", unit)
    machine.write(f"/run/systemd/system/{name}.service", unit.replace("Type=notify", "Type=oneshot").encode())
    machine.run(f"systemctl daemon-reload && systemctl start {name}.service", check=True)
    return machine.run(f"journalctl -o cat --no-pager -u {name} | grep '^PROBE '", check=True).out


CONFINEMENT = Path(__file__).parents[1] / "confinement_probe.py"
STATE, KEYS = "/var/lib/dockd", "/etc/dockd/keys"
REFUSED_BY_THE_UNIT = {
    *("starting a program", "a user namespace", "tracing the daemon", "the daemon's memory, by a call"),
    *("io_uring", "BPF", "userfaultfd", "performance counters", "the daemon's limits"),
}
"""What dockd.service keeps the daemon itself from."""
HIDDEN = {"the daemon's memory, in /proc", "the daemon's environment", "the daemon's descriptors"}
ASKS = r"""
import asyncio, sys
from pathlib import Path
from dockd.blocker.sysfs import place
from dockd.devices.blocker import Blocker, VolumeAddress
from dockd.errors import DockdError

async def ask(device):
    found = place(device)
    names = {"device": device, "diskseq": found.diskseq, "port": found.port, "serial": found.serial}
    address = VolumeAddress(filesystem="vfat", **names)
    async with Blocker(Path("/run/dockd-blocker.sock")) as blocker:
        try:
            await blocker.read(address)
        except DockdError as refusal:
            print(refusal)

asyncio.run(ask(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def probe(module_dock):
    """What the probe found, under all of dockd.service's settings, and as root without any."""
    machine = module_dock.machine
    machine.write("/opt/dockd/dockd-probe.py", PROBE.encode())
    confined = as_service(machine, "dockd-probe")
    free = machine.run("/opt/dockd/bin/python -I /opt/dockd/dockd-probe.py; umount /tmp", check=True).out
    return json.loads(confined[6:].splitlines()[0]), json.loads(free[6:].splitlines()[0])


def test_systemd_finds_nothing_amiss_in_the_units(module_dock):
    for unit in UNITS:
        ran = module_dock.machine.run(f"systemd-analyze verify --man=no /etc/systemd/system/{unit}", check=True)
        assert ran.err.strip() == "", ran.err


def test_the_service_is_confined_well_enough_for_systemd(module_dock):
    told = module_dock.machine.run("systemd-analyze security --no-pager dockd.service", check=True).out
    exposure = float(re.search(r"Overall exposure level for dockd.service: ([\d.]+)", told).group(1))
    assert exposure <= SECURE_ENOUGH, told


def test_the_running_service_has_the_settings_that_are_probed(module_dock):
    machine = module_dock.machine
    pid = machine.run("systemctl show -P MainPID dockd", check=True).out.strip()
    status = machine.read(f"/proc/{pid}/status").decode()
    assert re.search(r"(?m)^NoNewPrivs:\s+1$", status)
    assert re.search(r"(?m)^Seccomp:\s+2$", status)
    capabilities = int(re.search(r"(?m)^CapBnd:\s+(\w+)$", status).group(1), 16)
    assert capabilities & (1 << 21) == 0, "CAP_SYS_ADMIN"
    assert capabilities & ~(1 << 28) == 0, f"more than CAP_LEASE: {capabilities:x}"
    assert re.search(r"(?m)^Uid:\s+(?!0\s)\d+", status)


def test_what_dockd_does_not_need_is_refused_and_what_it_needs_is_not(probe):
    confined, free = probe
    for name, inside, outside in zip(confined["names"], confined["tried"], free["tried"], strict=True):
        assert inside != "done", f"{name} is open to the service"
        if name not in ("vsock", "crypto socket", "locking a block device"):  # this guest may not have them at all
            assert outside == "done", f"{name}: the probe itself cannot do it ({outside}), so it shows nothing"
    assert set(confined["needed"].values()) == {"done"}, confined["needed"]


@pytest.fixture(scope="module")
def reader(module_dock):
    """What a reader can reach under the unit, and what its own daemon can."""
    machine = module_dock.machine
    machine.write("/opt/dockd/dockd-reader-probe.py", CONFINEMENT.read_bytes())
    files = {"key": f"{KEYS}/manifest.key", "journal": f"{STATE}/journal.sqlite", "config": "/etc/dockd/dockd.toml"}
    sockets = {"control": "/run/dockd/control.sock", "blocker": "/run/dockd-blocker.sock"}
    plan = json.dumps({"state": f"{STATE}/probe", "files": files, "sockets": sockets}).replace('"', '\\"')
    told = as_service(machine, "dockd-reader-probe", f'"{plan}"')
    return json.loads(told.removeprefix("PROBE "))


def test_a_reader_under_the_unit_reaches_nothing_that_the_threat_model_excludes(reader):
    told, free = reader["reader"]["told"], reader["free"]
    assert reader["reader"]["unmet"] == {}
    open_to_it = {name: how for name, how in told.items() if how not in ("EACCES", "EPERM")}
    # ProtectProc=invisible hides the daemon from whoever may not trace it: to a reader it is not there.
    assert open_to_it == dict.fromkeys(open_to_it, "ENOENT")
    assert set(open_to_it) <= HIDDEN
    assert set(reader["reader"]["needed"].values()) == {"done"}, reader["reader"]["needed"]
    refused_to_all = {name for name, how in free.items() if how not in ("done", "ENOENT")}
    assert refused_to_all <= REFUSED_BY_THE_UNIT, "the daemon cannot do these either, so they show nothing"


def test_the_daemon_says_that_its_readers_are_kept_from_all_of_it(module_dock):
    assert module_dock.status()["confinement"] == dict.fromkeys(ITEMS, "holds")
    told = module_dock.machine.run("dockd doctor --json").out.splitlines()
    assert json.loads(told[0])["wrong"] == []
    assert module_dock.logged("readers_not_confined") == module_dock.logged("reader_not_confined") == []


def test_p08_the_write_blocker_touches_no_device_at_a_port_of_no_bay_nor_one_that_is_ignored(
    module_dock, tmp_path, mp4
):
    dock, machine = module_dock, module_dock.machine
    made = [tmp_path / f"card{number}.img" for number in (1, 2)]
    for image in made:
        cards.make_card(image, cards.Part(files={"DCIM/A.MP4": mp4(300_000, 1)}))
    dock.enrol("STRAY", "STICK")
    before = machine.read("/etc/dockd/dockd.toml")
    rule = 'SUBSYSTEM=="block", ENV{ID_SERIAL_SHORT}=="STICK", ENV{DOCKD_IGNORE}="1"\n'
    machine.write("/etc/udev/rules.d/61-local-stick.rules", rule.encode())
    machine.run("udevadm control --reload", check=True)
    machine.write("/etc/dockd/dockd.toml", re.sub(rb"(?m)^1 = .*\n", b"", before))  # the daemon wants a restart for it
    try:
        stray = dock.bays.plug("1", "STRAY", made[0])
        told = dock.wait(
            "it is refused", lambda: machine.run("journalctl -o cat -u 'dockd-blocker@*' | grep STRAY").out
        )
        assert "is no bay's in /etc/dockd/dockd.toml" in told
        dock.bays.pull(stray)
        stick = dock.bays.plug("2", "STICK", made[1])
        ask = "lsblk -nro NAME,SERIAL | awk '$2 == \"STICK\" {print $1}'"
        dock.wait("the stick is there", lambda: machine.run(ask).out)
        disk = machine.run(ask, check=True).out.strip()
        machine.run("udevadm settle", check=True)
        machine.write("/opt/dockd/asks.py", ASKS.encode())
        told = machine.run(f"/opt/dockd/bin/python -I /opt/dockd/asks.py {disk}1", check=True).out
        assert "DOCKD_IGNORE" in told, told
        dock.bays.pull(stick)
    finally:
        machine.write("/etc/dockd/dockd.toml", before)
        machine.run("rm /etc/udev/rules.d/61-local-stick.rules && udevadm control --reload", check=True)
