"""A loop device that a made-up sysfs shows as a USB disk, and the write blocker started for each connection."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from dockd.blocker import devices
from dockd.blocker.messages import Request
from dockd.blocker.verbs import Guard, Machine, Peer

MIB = 1024 * 1024
PORT, SERIAL, UUID = "0000:00:09.0/8.2", "X012345", "11111111-2222-4333-8444-555555555555"
MARKER = b"DOCKD-MARKER-" * 40
NOBODY = 65534

# What the unit runs, but with another sysfs.
PROGRAM = """
import signal, socket, sys
from pathlib import Path
from dockd.blocker import serve
from dockd.blocker.verbs import Machine
found = Machine(sys=Path(sys.argv[1]), udev=Path(sys.argv[2]), config=Path(sys.argv[3]))
sys.exit(serve.main(found))
"""


def usb_tree(root: Path, device: str, number: str, diskseq: int, *, interfaces=("080650",), driver="usb-storage"):
    """A sysfs in which this block device is a disk of a USB device behind a hub."""
    usb = root / "devices/pci0000:00/0000:00:09.0/usb2/2-8/2-8.2"
    disk = usb / "2-8.2:1.0/host0/target0:0:0/0:0:0:1/block" / device
    disk.mkdir(parents=True)
    (root / "bus/usb/drivers" / driver).mkdir(parents=True)
    (usb / "2-8.2:1.0/driver").symlink_to(root / "bus/usb/drivers" / driver)
    for at, text in enumerate(interfaces):
        interface = usb / f"2-8.2:1.{at}"
        interface.mkdir(exist_ok=True)
        for name, value in zip(("Class", "SubClass", "Protocol"), (text[:2], text[2:4], text[4:]), strict=True):
            (interface / f"bInterface{name}").write_text(value + "\n")
    words = {
        "dev": "189:134",
        "busnum": 2,
        "devnum": 7,
        "idVendor": "46f4",
        "idProduct": "0001",
        "serial": SERIAL,
        "product": "CAM",
    }
    for name, value in words.items():
        (usb / name).write_text(f"{value}\n")
    for name, value in {"dev": number, "diskseq": diskseq, "size": 0}.items():
        (disk / name).write_text(f"{value}\n")
    (root / "class/block").mkdir(parents=True, exist_ok=True)
    (root / "class/block" / device).symlink_to(disk)
    return disk


class Card:
    """An ext4 camera on a loop device."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "card.img"
        self.sys = directory / "sys"
        self.udev = directory / "udev"
        self.config = directory / "etc" / "dockd.toml"
        tree = directory / "tree"
        (tree / "DCIM").mkdir(parents=True)
        (tree / "DCIM" / "A.MP4").write_bytes(MARKER)
        with self.image.open("wb") as file:
            file.truncate(16 * MIB)
        words = ["mke2fs", "-q", "-t", "ext4", "-L", "CAM", "-U", UUID, "-E", "root_owner=0:0", "-d", str(tree)]
        subprocess.run([*words, str(self.image)], check=True)
        done = subprocess.run(["losetup", "-f", "--show", str(self.image)], check=True, capture_output=True, text=True)
        self.node = done.stdout.strip()
        self.device = Path(self.node).name
        fd = os.open(self.node, os.O_RDONLY)
        seen = os.fstat(fd)
        self.diskseq = devices.disk_sequence(fd)
        os.close(fd)
        number = f"{os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}"
        self.disk = usb_tree(self.sys, self.device, number, self.diskseq)
        self.udev.mkdir()
        self.records = tuple(self.udev / name for name in (f"b{number}", "c189:134"))
        for record in self.records:
            record.write_text("I:1\nE:ID_FS_TYPE=ext4\n")
        self.config.parent.mkdir(mode=0o755)
        self.config.write_text(f'[bays.ports]\n1 = ["0000:00:09.0/1"]\n2 = ["0000:00:09.0/8.1", "{PORT}"]\n')
        self.config.chmod(0o644)

    def close(self) -> None:
        """Unlocked, for others who use loop devices."""
        fd = os.open(self.node, os.O_RDONLY)
        devices.set_read_only(fd, locked=False)
        os.close(fd)
        subprocess.run(["losetup", "-d", self.node], check=True)

    def digest(self) -> str:
        return hashlib.sha256(self.image.read_bytes()).hexdigest()

    @property
    def locked(self) -> bool:
        """Whether a write is refused: the opening is not."""
        fd = os.open(self.node, os.O_RDWR)
        try:
            os.pwrite(fd, os.pread(fd, 512, 0), 0)
        except PermissionError:
            return True
        finally:
            os.close(fd)
        return False

    def request(self, verb: str, **changed) -> Request:
        fields = {"device": self.device, "diskseq": self.diskseq, "port": PORT, "serial": SERIAL, "filesystem": "ext4"}
        return Request(verb=verb, **fields | changed)

    def guard(self, uid: int = NOBODY, waits=lambda _seconds: True) -> Guard:
        return Guard(Peer(uid=uid, gid=uid, waits=waits), self.machine)

    @property
    def machine(self) -> Machine:
        return Machine(sys=self.sys, udev=self.udev, config=self.config)


@pytest.fixture
def card(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices and mounts")
    made = Card(tmp_path)
    yield made
    made.close()


@pytest.fixture
def blocker(card):
    """The path of a socket at which each connection gets a write blocker of its own, and the list of those started."""
    directory = Path(tempfile.mkdtemp(prefix="blocker"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(directory / "socket"))
    listener.listen()
    started = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    words = [sys.executable, "-I", "-c", PROGRAM, str(card.sys), str(card.udev), str(card.config)]
                    started.append(subprocess.Popen(words, stdin=connection, stderr=subprocess.PIPE))

    thread = threading.Thread(target=accept)
    thread.start()
    yield directory / "socket", started
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for one in started:
        one.kill()
        one.communicate()
    shutil.rmtree(directory)


@pytest.fixture(name="usb_tree")
def usb_tree_fixture():
    return usb_tree
