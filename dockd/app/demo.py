"""The demonstration: a receiver and a station on loopback, cameras full of clips, and the real commands for it all.

What runs here is what runs in a station: `init`, `camera make`, `receiver` and `run` are child programs, and what is
shown is the station's own status. Only the cameras are made up: folders, docked by renaming them into their bays.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

from dockd.control.client import ask
from dockd.errors import DaemonUnreachable, DockdError
from dockd.media.padding import pad

CAMERA_BYTES = 64 * 1024 * 1024  # what the demo's own clips are padded to, a camera
START_S = 30.0
SETTLED = ("ready", "attention", "refused")
_POLL_S = 0.2
_STOP_S = 6.0
_COPY_BYTES = 1024 * 1024


class DemoFailed(DockdError):
    """A part of the demonstration did not do its work; the sentence names its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """What `--out` holds."""

    out: Path

    @property
    def station_config(self) -> Path:
        """For `dockd run` and every command that asks it."""
        return self.out / "dockd.toml"

    @property
    def receiver_config(self) -> Path:
        """For `dockd receiver`."""
        return self.out / "receiver.toml"

    @property
    def socket(self) -> Path:
        """The station's control socket."""
        return self.out / "station" / "control.sock"

    @property
    def custody(self) -> Path:
        """The custody log."""
        return self.out / "station" / "custody"


class Demo:
    """One demonstration. `close` ends the children, whatever happened before."""

    def __init__(self, out: Path, bays: int) -> None:
        self.paths = Paths(out=out)
        self._bays = bays
        self._children: list[tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []

    # --- before

    def set_up(self) -> None:
        """`dockd init`, on a port that is free now, and as many bays as are asked for."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.command("init", str(self.paths.out), "--listen", f"127.0.0.1:{port}")
        for bay in range(1, self._bays + 1):
            (self.paths.out / "bays" / str(bay)).mkdir(exist_ok=True)

    def make_cameras(self, clips: Sequence[Path]) -> list[Path]:
        """Cameras beside the bays, not docked yet: with copies of `clips`, spread over them, or with the demo's own."""
        cameras = []
        for number in range(1, self._bays + 1):
            camera = self.paths.out / "cameras" / f"BWC-{number:04d}"
            self.command("camera", "make", str(camera), "--serial", f"BWC-{number:04d}", "--model", "Demo Camera")
            (camera / "DCIM" / "100DEMO").mkdir(parents=True)
            cameras.append(camera)
        if clips:
            for index, clip in enumerate(clips):
                place = cameras[index % len(cameras)] / "DCIM" / "100DEMO"
                copy_clip(clip, _free_place(place, clip.name))
        else:
            for number, camera in enumerate(cameras):
                _fill(camera / "DCIM" / "100DEMO", with_cut_clip=number == 0)
        return cameras

    # --- during

    def start(self) -> None:
        """Start the receiver, then the station, and wait until the station answers."""
        self._spawn("receiver", "receiver", "--config", str(self.paths.receiver_config))
        self._spawn("station", "run", "--config", str(self.paths.station_config))
        deadline = time.monotonic() + START_S
        while True:
            self._check_children()
            with suppress(DaemonUnreachable):
                if all(one["state"] == "reachable" for one in self.snapshot()["stores"]):
                    return
            if time.monotonic() > deadline:
                raise DemoFailed(f"the station did not reach its receiver within {START_S:.0f} s: see {self._logs()}")
            time.sleep(_POLL_S)

    def dock(self, cameras: Sequence[Path]) -> None:
        """Dock each camera, by renaming its folder into its bay."""
        for bay, camera in enumerate(cameras, 1):
            camera.rename(self.paths.out / "bays" / str(bay) / camera.name)
        (self.paths.out / "cameras").rmdir()

    def watch(self) -> Iterator[dict[str, Any]]:
        """Snapshots, until every docked camera is settled and the store has witnessed the log."""
        while True:
            self._check_children()
            snapshot = self.snapshot()
            yield snapshot
            docked = [bay for bay in snapshot["bays"] if bay["state"] != "empty"]
            if len(docked) == self._bays and all(bay["state"] in SETTLED for bay in docked):
                return
            time.sleep(_POLL_S)

    def snapshot(self) -> dict[str, Any]:
        """The station's status now."""
        return next(iter(ask(self.paths.socket, "status")))

    # --- after

    def stop(self) -> None:
        """End the station, then the receiver, as an operator would. Raises DemoFailed where one does not end well."""
        for name, child, _ in reversed(self._children):
            child.send_signal(signal.SIGTERM)
            try:
                code = child.wait(_STOP_S)
            except subprocess.TimeoutExpired as error:
                raise DemoFailed(f"the {name} did not stop within {_STOP_S:.0f} s: see {self._logs()}") from error
            if code:
                raise DemoFailed(f"the {name} ended with exit code {code}: see {self._logs()}")
        self.close()

    def verify_custody(self) -> str:
        """`dockd custody verify`; its output."""
        return self.command("custody", "verify", str(self.paths.custody))

    def close(self) -> None:
        """End what still runs. Idempotent."""
        for _, child, _ in self._children:
            if child.poll() is None:
                child.kill()
        for _, child, log in self._children:
            child.wait()
            log.close()
        self._children.clear()

    def command(self, *words: str) -> str:
        """Run one dockd command to its end; its output. Raises DemoFailed with what it said."""
        done = subprocess.run(  # noqa: S603  this very program
            [sys.executable, "-m", "dockd", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DemoFailed(f"dockd {' '.join(words)} ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def _spawn(self, name: str, *words: str) -> None:
        log = (self.paths.out / f"{name}.log").open("wb")
        child = subprocess.Popen(  # noqa: S603  this very program
            [sys.executable, "-m", "dockd", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is the demo's to pass on
        )
        self._children.append((name, child, log))

    def _check_children(self) -> None:
        for name, child, _ in self._children:
            if child.poll() is not None:
                raise DemoFailed(f"the {name} ended with exit code {child.returncode}: see {self._logs()}")

    def _logs(self) -> str:
        return f"{self.paths.out / 'station.log'} and {self.paths.out / 'receiver.log'}"


def copy_clip(source: Path, target: Path) -> None:
    """Copy the bytes of a clip; the original is opened for reading only, and never linked."""
    with source.open("rb") as original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy, _COPY_BYTES)


def _free_place(place: Path, name: str) -> Path:
    """A path that is not taken: two of the user's clips may be called the same. The name stays, however long it is."""
    target, number = place / name, 2
    while target.exists():
        target = place / str(number) / name
        target.parent.mkdir(exist_ok=True)
        number += 1
    return target


def _fill(place: Path, *, with_cut_clip: bool) -> None:
    """The demo's own clips: padded with `free` boxes, so that there is something to see."""
    shipped = sorted(
        (item for item in resources.files("dockd.cli").joinpath("demo_clips").iterdir() if item.name.endswith(".mp4")),
        key=lambda item: item.name,
    )
    whole = [item for item in shipped if "cut" not in item.name]
    for item in whole:
        _place(item.read_bytes(), place / item.name, CAMERA_BYTES // len(whole))
    for item in shipped if with_cut_clip else ():
        if "cut" in item.name:
            _place(item.read_bytes(), place / item.name, 0)


def _place(clip: bytes, target: Path, size_bytes: int) -> None:
    with target.open("xb") as file:
        file.write(clip)
        if size_bytes > len(clip):
            for block in pad(size_bytes - len(clip)):
                file.write(block)
