"""Servers of others, started by tests from packages: on loopback, on free ports, in a directory that goes with them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

READY_S = 180.0  # a loaded machine takes its time
_END_S = 30.0
_POLL_S = 0.1


def program(name: str, package: str) -> str:
    """Where a server's program is: beside this Python or on the PATH. Where it is not, that is `lacking`."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        lacking(f"{name} is not installed ({package})")
    return found


def lacking(reason: str) -> NoReturn:
    """Skip the test for what this machine has not got; in continuous integration, where `.ci/run` saw to it, fail."""
    if os.environ.get("DOCKD_CI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at now, all different."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


class Servers:
    """Programs that share one temporary directory. `close` ends each by its pid and removes the directory."""

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"dockd-{name}."))
        self._programs: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, words: Sequence[str | Path], *, env: dict[str, str] | None = None) -> None:
        """Start a program in the directory; what it says goes into NAME.log there."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self._programs[name] = subprocess.Popen(
                [str(word) for word in words],
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *words: str | Path, env: dict[str, str] | None = None) -> str:
        """Run a command to its end; returns what it printed."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.directory,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=READY_S,
        )
        assert done.returncode == 0, f"{words[0]}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Until `condition` holds. An OSError of it means not yet; a program that ended meanwhile fails the test."""
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(OSError):
                if condition():
                    return
            for name, one in self._programs.items():
                if one.poll() is not None:
                    pytest.fail(f"{name} ended with {one.returncode}\n{self.log(name)}")
            if time.monotonic() > deadline:
                logs = "\n".join(f"-- {name}\n{text}" for name, text in self.logs())
                pytest.fail(f"{what} did not happen\n{logs}")
            time.sleep(_POLL_S)

    def log(self, name: str, characters: int = 6000) -> str:
        """The end of what a program said."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace")[-characters:] if path.exists() else ""

    def logs(self) -> list[tuple[str, str]]:
        """The end of what each said, by name."""
        return [(path.name, self.log(path.stem)) for path in sorted(self.directory.glob("*.log"))]

    def stop(self, name: str) -> None:
        """SIGTERM to the program and what it started, then SIGKILL where that does not end it."""
        one = self._programs.pop(name)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if one.poll() is not None:
                return
            with suppress(ProcessLookupError):
                os.killpg(one.pid, number)  # a session of its own, by `start`
            with suppress(subprocess.TimeoutExpired):
                one.wait(_END_S)

    def close(self) -> None:
        """As the class says. Idempotent. At once: what they hold goes too, and some take half a minute over it."""
        for one in self._programs.values():
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)  # a session of its own, by `start`
            one.wait()
        self._programs.clear()
        shutil.rmtree(self.directory, ignore_errors=True)


def answers(port: int) -> bool:
    """Whether something accepts connections at a port of 127.0.0.1."""
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the ends of the logs of the servers that it used (fixtures with a `servers` field)."""
    report = yield
    if report.failed:
        used = {id(found): found for value in getattr(item, "funcargs", {}).values() if (found := _servers(value))}
        for servers in used.values():
            report.sections.extend(servers.logs())
    return report


def _servers(fixture: object) -> Servers | None:
    found = getattr(fixture, "servers", None)
    return found if isinstance(found, Servers) else None
