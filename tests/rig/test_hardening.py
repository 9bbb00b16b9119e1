"""What the units are held to, by systemd's own judgement and by a program that tries what dockd does not need."""

from __future__ import annotations

import json
import re

import pytest

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


@pytest.fixture(scope="module")
def probe(module_dock):
    """What the probe found, under all of dockd.service's settings, and as root without any."""
    machine = module_dock.machine
    machine.write("/opt/dockd/probe.py", PROBE.encode())
    unit = machine.read("/etc/systemd/system/dockd.service").decode()
    unit, replaced = re.subn(r"(?m)^ExecStart=.*$", "ExecStart=/opt/dockd/bin/python -I /opt/dockd/probe.py", unit)
    assert replaced == 1
    unit = re.sub(r"(?m)^(WatchdogSec|Restart|NotifyAccess|ExecReload|RuntimeDirectory\w*)=.*\n", "", unit)
    machine.write("/run/systemd/system/dockd-probe.service", unit.replace("Type=notify", "Type=oneshot").encode())
    machine.run("systemctl daemon-reload", check=True)
    machine.run("systemctl start dockd-probe.service", check=True)
    confined = machine.run("journalctl -o cat --no-pager -u dockd-probe | grep '^PROBE '", check=True).out
    free = machine.run("/opt/dockd/bin/python -I /opt/dockd/probe.py; umount /tmp", check=True).out
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
