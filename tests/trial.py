"""A trial set on loopback, of the real programs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from dockd.control.client import ask
from dockd.errors import DaemonUnreachable

PATIENCE_S = 100.0
POLL_S = 0.1
SETTLED = ("ready", "attention", "refused")
STRICT = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}
_MODULE = ("-P", "-m", "dockd")  # of the interpreter's own environment, not of the directory that tests run in
CARELESS = re.compile(
    r"Exception ignored in|\b[A-Z]\w*Warning\b|never retrieved|never awaited|destroyed but it is pending"
)


def free_port() -> int:
    """A TCP port of loopback that nothing listened at a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Trial:
    """A trial set on loopback whose station and receiver are the real programs, to be started, killed and asked.

    They run in Python's development mode, with warnings as errors; one that left anything unclosed, or unawaited, fails
    the test. Every program that it starts is ended by `close`, by its pid.

    `made_by`: the interpreter of another version of the package, which makes the set. `versions`, by program, are those
    that run; by default each is the version under test. A set that is there already is taken as it is.
    """

    def __init__(self, directory: Path, *, made_by: Path | None = None) -> None:
        self.directory = directory
        self.mode = STRICT  # {} where figures are measured
        self.versions: dict[str, Path | None] = {}
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        if not directory.exists():
            self.command("init", str(directory), "--listen", f"127.0.0.1:{free_port()}", version=made_by)

    # --- programs

    def command(self, *words: str, code: int = 0, version: Path | None = None) -> str:
        done = subprocess.run(
            [version or sys.executable, *_MODULE, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"dockd {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self, name: str) -> subprocess.Popen[bytes]:
        words = {
            "receiver": ("receiver", "--config", str(self.directory / "receiver.toml")),
            "station": ("run", "--config", str(self.directory / "dockd.toml")),
        }[name]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._programs[name] = subprocess.Popen(
                [self.versions.get(name) or sys.executable, *_MODULE, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | self.mode,
            )
        return self._programs[name]

    def start_both(self) -> None:
        self.start("receiver")
        self.start("station")

    def kill(self, name: str) -> None:
        self._programs[name].kill()
        self._programs[name].wait()

    def stop(self, name: str) -> float:
        """SIGTERM; returns how many seconds it took."""
        began = time.monotonic()
        self._programs[name].send_signal(signal.SIGTERM)
        code = self._programs[name].wait(20)
        assert code == 0, f"the {name} ended with {code}: {self.log(name)[-3000:]}"
        return time.monotonic() - began

    def close(self) -> None:
        for program in self._programs.values():
            if program.poll() is None:
                program.kill()
                program.wait()
        for name in self._programs:
            careless = [line for line in self.log(name).splitlines() if CARELESS.search(line)]
            assert not careless, f"the {name} was careless: {careless}"

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    # --- cameras

    def camera(self, serial: str, clips: dict[str, bytes]) -> Path:
        """A camera beside the bays, not docked."""
        camera = self.directory / "cameras" / serial
        self.command("camera", "make", str(camera), "--serial", serial)
        for name, content in clips.items():
            path = camera / "DCIM" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return camera

    def dock(self, camera: Path, bay: int) -> Path:
        return camera.rename(self.directory / "bays" / str(bay) / camera.name)

    # --- asking

    def status(self) -> dict | None:
        with suppress(DaemonUnreachable, PermissionError):
            return next(iter(ask(self.directory / "station" / "control.sock", "status")))
        return None

    def bay(self, number: int) -> dict | None:
        status = self.status()
        return next((bay for bay in status["bays"] if bay["bay"] == number), None) if status else None

    def wait(self, what: str, condition, patience_s: float = PATIENCE_S, *, watched=("station", "receiver")) -> object:
        """Until `condition()` is true; the `watched` programs must live meanwhile."""
        deadline = time.monotonic() + patience_s
        while True:
            value = condition()
            if value:
                return value
            for name, program in self._programs.items():
                assert name not in watched or program.poll() is None, f"the {name} ended: {self.log(name)[-4000:]}"
            assert time.monotonic() < deadline, f"{what} did not happen: {self.status()}\n{self.log('station')[-6000:]}"
            time.sleep(POLL_S)

    def wait_settled(self, *bays: int, patience_s: float = PATIENCE_S) -> dict:
        def settled() -> dict | None:
            status = self.status()
            states = {bay["bay"]: bay["state"] for bay in status["bays"]} if status else {}
            return status if all(states.get(bay) in SETTLED for bay in bays) else None

        return self.wait(f"bays {bays} settled", settled, patience_s)

    def clips(self) -> list[dict]:
        return list(ask(self.directory / "station" / "control.sock", "clips"))

    def custody(self) -> list[dict]:
        lines = (self.directory / "station" / "custody" / "custody.jsonl").read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    def sealed(self) -> list[Path]:
        return sorted((self.directory / "store" / "acquisitions").glob("*/*/clip.age"))

    def opened(self, key: str = "working.key") -> dict[str, str]:
        """The SHA-256 of each stored clip, by the path its manifest states, opened with `dockd open`."""
        found = {}
        for sealed in self.sealed():
            manifest = json.loads((sealed.parent / "manifest.json").read_bytes())
            out = self.directory / "opened.tmp"
            self.command("open", str(sealed), "-i", str(self.directory / "authority" / key), "-o", str(out))
            place = f"{manifest['camera']['serial']}:{manifest['path']}"
            assert place not in found, f"{place} was registered twice"
            found[place] = _sha256(out)
            out.unlink()
        return found
