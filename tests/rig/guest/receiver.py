"""A receiver on the host: the real program, at a port of its own. The guest reaches it at one address, always."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "10.0.2.2:8443"  # as the guest dials it; a rule in the guest leads it to the receiver's real port


class Receiver:
    """One receiver. `directory` has its configuration, its store, and the authority's keys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self._program: subprocess.Popen[bytes] | None = None

    @staticmethod
    def make(directory: Path) -> Receiver:
        """A new one, of a new authority."""
        directory.mkdir(parents=True)
        dockd("init", "authority", str(directory / "authority"))
        dockd(
            *("init", "receiver", str(directory / "receiver"), "--listen", "127.0.0.1:1", "--public-host", ADDRESS),
            *("--recipients", str(directory / "authority" / "recipients.txt")),
        )
        return Receiver(directory)

    def copy(self, directory: Path) -> Receiver:
        """Another with the same keys, stations and clips. This one must not run."""
        shutil.copytree(self.directory, directory)
        return Receiver(directory)

    @property
    def config(self) -> Path:
        return self.directory / "receiver" / "receiver.toml"

    @property
    def store(self) -> Path:
        return self.directory / "receiver" / "store"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def enrol(self, station: bytes) -> None:
        given = self.directory / "station.pub"
        given.write_bytes(station)
        dockd("receiver", "enrol", str(given), "--config", str(self.config))

    def start(self) -> None:
        """Run it at a free port; at the same one when it is started again."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        listen = f'listen = "127.0.0.1:{self.port}"'
        self.config.write_text(re.sub(r"(?m)^listen = .*$", listen, self.config.read_text()))
        with (self.directory / "log").open("ab") as log:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "dockd", "receiver", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        if self._program is not None:
            self._program.terminate()
            try:
                self._program.wait(20)
            except subprocess.TimeoutExpired:
                self._program.kill()
                self._program.wait()
            self._program = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """It does not run for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()


def dockd(*words: str, code: int = 0) -> str:
    """A command of dockd on the host."""
    done = subprocess.run([sys.executable, "-m", "dockd", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, f"dockd {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
