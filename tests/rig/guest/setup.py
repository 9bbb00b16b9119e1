"""Set a dock up from the wheel as docs/operations.md says, once for each content of it; save it; copy it."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from rig.guest import luggage
from rig.guest.bays import CONTROLLER
from rig.guest.dock import Dock
from rig.guest.image import CACHE, alone, base, forget
from rig.guest.machine import ASKED_PORT, ROOT_PORTS, Hardware, Machine
from rig.guest.receiver import ADDRESS, Receiver

_DOCKD = "/opt/dockd/bin/dockd"
_CONFIG = "/etc/dockd/dockd.toml"
HUBS = (7, 8)  # root ports where a test may plug a hub of four ports in
BAYS = ROOT_PORTS + 4 * len(HUBS)
_ASKED = f"""\
printf '[Socket]\\nListenStream={ASKED_PORT}\\n[Install]\\nWantedBy=sockets.target\\n' \
    >/etc/systemd/system/rig-asked.socket
printf '[Service]\\nExecStart=/lib/systemd/systemd-socket-proxyd /run/dockd/control.sock\\n' \
    >/etc/systemd/system/rig-asked.service
systemctl daemon-reload
systemctl -q enable --now rig-asked.socket
"""
# The station's state has a disk of its own where a test gives it one: what a power cut leaves is looked at there.
_STATE_DISK = """\
cat >/etc/systemd/system/rig-state.service <<'UNIT'
[Unit]
Before=dockd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'test ! -b /dev/vdb || mount -t ext4 -o noatime /dev/vdb /var/lib/dockd'
[Install]
WantedBy=multi-user.target
UNIT
systemctl -q enable rig-state.service
"""


def fresh(directory: Path, *, hardware: Hardware | None = None) -> Dock:
    """A copy of the saved dock, running, its receiver too."""
    place = saved(hardware or Hardware())
    receiver = Receiver(place / "receiver").copy(directory / "receiver")
    machine = Machine(directory / "machine", base=base(), hardware=hardware)
    dock = Dock(machine, receiver)
    try:
        receiver.start()
        machine.resume(place / "root.qcow2")
        dock.lead_to_receiver()
        dock.wait("the daemon answers", dock.status)
    except BaseException:
        dock.close()
        raise
    return dock


def saved(hardware: Hardware) -> Path:
    """The directory with the saved dock (`root.qcow2`) and its receiver, made unless it is there."""
    digest = hashlib.sha256(f"{base()} {luggage.wheel_key()} {luggage.dependencies()} {hardware}".encode())
    digest.update(Path(__file__).read_bytes() + inspect.getsource(Machine._launch).encode())
    made = CACHE / f"dock-{digest.hexdigest()[:16]}"
    with alone(CACHE / "dock.lock"):
        if not (made / "done").exists():
            forget("dock-*")
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            _set_up(made, hardware)
            (made / "done").touch()
        os.utime(made)
    return made


def _set_up(directory: Path, hardware: Hardware) -> None:
    receiver = Receiver.make(directory / "receiver")
    wheel = luggage.build_wheel(directory)
    disk = directory / "luggage"
    luggage.pack(
        disk,
        {
            "opt/dockd/lib/python3.11/site-packages": luggage.dependencies(),
            f"root/{wheel.name}": wheel,
            "root/tls.crt": receiver.store / "keys" / "tls.crt",
            "root/store.pub": receiver.store / "keys" / "store.pub",
            "root/recipients.txt": receiver.directory / "authority" / "recipients.txt",
        },
    )
    machine = Machine(directory / "machine", base=base(), hardware=hardware)
    dock = Dock(machine, receiver)
    try:
        machine.start(before=lambda: machine.add_disk("luggage", disk, read_only=True))
        machine.wait("the system is up", lambda: machine.run("systemctl is-system-running").out.strip() == "running")
        for step in _steps(wheel.name):
            machine.run(step, check=True)
        machine.remove_disk("luggage")
        _configure(machine)
        receiver.enrol(machine.read("/etc/dockd/keys/station.pub"))
        receiver.start()
        dock.lead_to_receiver()
        machine.run("modprobe -a usb_storage uas vfat exfat nls_ascii nls_utf8", check=True)
        machine.run("systemctl -q enable --now dockd", check=True)
        machine.run(_STATE_DISK + _ASKED, check=True)
        dock.wait(
            "the store is reached", lambda: (dock.status() or {"stores": [{}]})["stores"][0].get("state") == "reachable"
        )
        machine.run("fstrim -a 2>/dev/null || true; echo 3 > /proc/sys/vm/drop_caches")
        machine.save(directory / "root.qcow2")
    finally:
        dock.close()
    for used in (disk, *directory.glob("*.whl")):
        used.unlink()
    shutil.rmtree(directory / "machine")


def _steps(wheel: str) -> Iterator[str]:
    """What an administrator does, in the order of docs/operations.md."""
    yield "python3 -m venv --without-pip /opt/dockd"
    yield "tar -x -C / -f /dev/disk/by-id/virtio-luggage"
    yield f"/opt/dockd/bin/python -m pip install --quiet --no-index --no-deps /root/{wheel}"
    yield f"{_DOCKD} install-system"
    yield "systemd-sysusers && systemd-tmpfiles --create dockd.conf && udevadm control --reload"
    yield "systemctl daemon-reload && systemctl -q enable --now dockd-blocker.socket"
    yield (
        f"cd /root && {_DOCKD} init station /etc/dockd --receiver https://{ADDRESS} --ca tls.crt"
        " --store-key store.pub --recipients recipients.txt --state /var/lib/dockd"
    )


def _configure(machine: Machine) -> None:
    """Bays 1 to 8 are the root ports, 9 to 12 those of a hub in port 7, 13 to 16 those of one in port 8."""
    ports = [*map(str, range(1, ROOT_PORTS + 1)), *(f"{hub}.{port}" for hub in HUBS for port in range(1, 5))]
    table = "\n".join(f'{number} = ["{CONTROLLER}/{port}"]' for number, port in enumerate(ports, 1))
    text = machine.read(_CONFIG).decode()
    text, replaced = re.subn(r"(?m)^\[bays\]\nfolder_root = .*$", f"[bays.ports]\n{table}", text)
    assert replaced == 1, text
    machine.write(_CONFIG, text.encode())
    machine.run("chown -R dockd: /etc/dockd/keys /var/lib/dockd", check=True)
    machine.run(f"{_DOCKD} check-config {_CONFIG}", check=True)
