"""A docking station in QEMU: started, saved, resumed, cut from power, and told what to do.

The processor is emulated: nothing of the host is needed but QEMU. Whatever a machine makes is in its directory.
"""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.guest.wire import Agent, Gone, Refused, monitor

ROOT_PORTS = 8
_COMMAND_LINE = (
    "console=ttyS0 root=/dev/vda rw quiet mitigations=off net.ifnames=0 nokaslr audit=0 random.trust_cpu=on panic=-1"
)
_ENVIRONMENT = ["PATH=/opt/dockd/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
_ENVIRONMENT += ["LANG=C.UTF-8"]
SAVED = "dock"  # the name of the saved state inside the root disk
PATIENCE_S = 300.0  # with what does come to pass, on a slow machine that has much else to do
ASKED_PORT = 7001  # of the guest, where it answers for its control socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a machine is made of. A saved one can only be resumed on the same."""

    memory_mib: int = 768
    processors: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A command that ended in the guest."""

    code: int
    out: str
    err: str


class CommandFailed(AssertionError):
    """A command in the guest that had to succeed did not."""


class Machine:
    """One guest. Every method but `start` and `resume` wants it running."""

    def __init__(self, directory: Path, *, base: Path, hardware: Hardware | None = None) -> None:
        self.directory = directory
        self.hardware = hardware or Hardware()
        self._base = base
        self.asked_at = 0  # the host's port that leads to the guest's ASKED_PORT
        self._program: subprocess.Popen[bytes] | None = None
        self._agent = Agent(directory)
        directory.mkdir(parents=True, exist_ok=True)

    # --- its life

    def start(
        self, *, root: Path | None = None, state: Path | None = None, before: Callable[[], None] | None = None
    ) -> None:
        """Switch it on, and wait until it answers. `root`: a saved root disk to boot from, rather than the base.

        `state`: the disk of the station's state. `before`: what is done before the first instruction, such as
        plugging cameras in.
        """
        disk = self.directory / "root.qcow2"
        if root is not None:
            _copy(root, disk)
        else:
            _execute("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self._base / "root.ext4", disk)
        self._launch()
        self._continue(state, before)

    def resume(self, root: Path, *, state: Path | None = None, before: Callable[[], None] | None = None) -> None:
        """Go on where a machine was saved, with a copy of its root disk. Its clock is set right."""
        _copy(root, self.directory / "root.qcow2")
        self._launch("-loadvm", SAVED)
        self._continue(state, before)
        self.run(f"date -s @{time.time():.3f}", check=True)

    def save(self, root: Path) -> None:
        """Keep this very moment: `root` becomes a root disk that `resume` and `start` take. It goes on running."""
        self.run("sync", check=True)
        with self.stopped():
            self._human(f"savevm {SAVED}")
            _copy(self.directory / "root.qcow2", root)
            self._human(f"delvm {SAVED}")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """No time passes in it for a while: whatever is done meanwhile has happened at one instant."""
        self.qmp("stop")
        try:
            yield
        finally:
            self.qmp("cont")

    def cut_power(self) -> None:
        """Gone within the instant: what was not flushed to a disk is lost. Also the way to be rid of a machine."""
        if self._program is not None:
            self._program.kill()
            self._program.wait()
            self._program = None

    @property
    def runs(self) -> bool:
        return self._program is not None and self._program.poll() is None

    def _launch(self, *more: str) -> None:
        assert not self.runs
        for name in ("monitor.sock", "agent.sock"):
            (self.directory / name).unlink(missing_ok=True)
        hardware = self.hardware
        words: list[object] = ["qemu-system-x86_64", "-S", "-nodefaults", "-no-reboot", "-display", "none"]
        words += ["-accel", "tcg,thread=multi,tb-size=512", "-machine", "pc", "-cpu", "max"]
        words += ["-smp", hardware.processors, "-m", hardware.memory_mib]
        words += ["-kernel", self._base / "vmlinuz", "-initrd", self._base / "initrd", "-append", _COMMAND_LINE]
        words += ["-qmp", "unix:monitor.sock,server=on,wait=off", "-serial", "file:console.log"]
        words += ["-drive", "if=none,id=root,file=root.qcow2,format=qcow2,cache=unsafe"]
        words += ["-device", "virtio-blk-pci,drive=root,addr=4"]
        words += [
            "-device",
            "virtio-serial-pci,addr=5",
            "-chardev",
            "socket,id=agent,path=agent.sock,server=on,wait=off",
        ]
        words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        words += ["-device", "virtio-rng-pci,addr=6"]
        self.asked_at = _free_port()
        words += ["-netdev", f"user,id=wire,hostfwd=tcp:127.0.0.1:{self.asked_at}-10.0.2.15:{ASKED_PORT}"]
        words += ["-device", "virtio-net-pci,netdev=wire,romfile=,addr=7"]
        words += ["-device", f"qemu-xhci,id=usb,p2={ROOT_PORTS},p3={ROOT_PORTS},addr=9"]
        words += more
        with (self.directory / "qemu.log").open("ab") as log:
            self._program = subprocess.Popen(
                [str(word) for word in words],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _continue(self, state: Path | None, before: Callable[[], None] | None) -> None:
        try:
            self.wait("the monitor", self._listens)
            if state is not None:
                self.add_disk("state", state)
            if before is not None:
                before()
            self.qmp("cont")
            self.wait("the guest's agent", self.answers)
        except BaseException:
            self.cut_power()
            raise

    def _listens(self) -> bool:
        try:
            return bool(self.qmp("query-status"))
        except Gone:
            return False

    def answers(self) -> bool:
        """Whether the agent inside does."""
        try:
            self._agent.ask("guest-ping", timeout_s=5)
        except Gone:
            return False
        return True

    def wait(
        self, what: str, condition: Callable[[], Any], *, timeout_s: float = PATIENCE_S, every_s: float = 0.1
    ) -> Any:
        """Until `condition()` is true, as long as the machine runs. Returns its value."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert self.runs, f"the guest ended: {self.log('qemu.log')}"
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
            time.sleep(every_s)
        return value

    def log(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    # --- orders to QEMU

    def qmp(self, command: str, /, *, until: Callable[[dict[str, Any]], bool] | None = None, **arguments: Any) -> Any:
        return monitor(self.directory / "monitor.sock", command, until=until, **arguments)

    def _human(self, order: str) -> None:
        said = str(self.qmp("human-monitor-command", **{"command-line": order}))
        if said.strip():
            raise Refused(f"{order}: {said.strip()}")

    def add_disk(self, name: str, image: Path, *, read_only: bool = False) -> None:
        """A virtio disk, "state" or "luggage"; in the guest `/dev/disk/by-id/virtio-<name>`."""
        self.qmp(
            "blockdev-add",
            **{
                "driver": "raw",
                "node-name": name,
                "read-only": read_only,
                "file": {"driver": "file", "filename": str(image.absolute()), "read-only": read_only},
            },
        )
        # Behind the root disk, which has to stay the first that the guest finds.
        slot = {"state": "0xa", "luggage": "0xb"}[name]
        self.qmp("device_add", driver="virtio-blk-pci", id=f"{name}-disk", drive=name, serial=name, addr=slot)

    def remove_disk(self, name: str) -> None:
        self.qmp("device_del", until=_deleted(f"{name}-disk"), id=f"{name}-disk")
        self.qmp("blockdev-del", **{"node-name": name})

    # --- orders to the guest

    def begin(self, command: str, *, stdin: bytes = b"") -> int:
        """Start a shell command as root; its pid is for `ended`."""
        arguments: dict[str, Any] = {"path": "/bin/sh", "arg": ["-c", command], "env": _ENVIRONMENT}
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        return self._agent.ask("guest-exec", **arguments, **{"capture-output": True})["pid"]

    def ended(self, pid: int) -> Ran | None:
        """What became of it; None while it runs. Asked once more after that, the guest knows it no longer."""
        said = self._agent.ask("guest-exec-status", pid=pid)
        if not said["exited"]:
            return None
        out, err = (base64.b64decode(said.get(key, "")).decode(errors="replace") for key in ("out-data", "err-data"))
        return Ran(code=said.get("exitcode", 128 + said.get("signal", 0)), out=out, err=err)

    def run(self, command: str, *, check: bool = False, stdin: bytes = b"", timeout_s: float = PATIENCE_S) -> Ran:
        """A shell command as root, to its end."""
        pid, nap_s, deadline = self.begin(command, stdin=stdin), 0.01, time.monotonic() + timeout_s
        while (ran := self.ended(pid)) is None:
            if time.monotonic() > deadline:
                raise CommandFailed(f"{command!r} takes longer than {timeout_s:.0f} s")
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, 0.2)
        if check and ran.code:
            raise CommandFailed(f"{command!r}: {ran.code}\n{ran.out[-3000:]}{ran.err[-3000:]}")
        return ran

    def write(self, path: str, content: bytes) -> None:
        self.run(f"cat > {shlex.quote(path)}", stdin=content, check=True)

    def read(self, path: str) -> bytes:
        return base64.b64decode(self.run(f"base64 {shlex.quote(path)}", check=True).out)


def _deleted(device: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message.get("event") == "DEVICE_DELETED" and message["data"].get("device") == device


deleted = _deleted


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    _execute("cp", "--reflink=auto", "--sparse=always", source, target)


def _execute(*words: str | os.PathLike[str]) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def have_qemu() -> bool:
    return shutil.which("qemu-system-x86_64") is not None
