"""The two conversations with a running guest, one JSON object a line: QEMU's monitor, and the agent inside."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self


class Refused(RuntimeError):
    """QEMU or the agent said no."""


class Gone(RuntimeError):
    """Nobody answers: the guest does not run, or does not run any longer."""


class Line:
    """One connection. The path of a socket may be longer than the kernel takes: it is reached by a descriptor."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            try:
                self._socket.connect(f"/proc/self/fd/{directory}/{path.name}")
            finally:
                os.close(directory)
        except OSError as error:
            self._socket.close()
            raise Gone(f"{path}: {error}") from error
        self._file = self._socket.makefile("rwb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()
        self._socket.close()

    def send(self, message: dict[str, Any], *, before: bytes = b"") -> None:
        try:
            self._file.write(before + json.dumps(message).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise Gone(str(error)) from error

    def receive(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except OSError as error:
            raise Gone(str(error)) from error
        if not line:
            raise Gone("the conversation ended")
        return json.loads(line.rpartition(b"\xff")[2])


def monitor(
    path: Path, command: str, /, *, until: Callable[[dict[str, Any]], bool] | None = None, **arguments: Any
) -> Any:
    """Give QEMU one order, and wait for the event that `until` knows, where there is one. Returns the answer."""
    with Line(path, 300) as line:
        line.receive()  # the greeting
        line.send({"execute": "qmp_capabilities"})
        line.receive()
        line.send({"execute": command, "arguments": arguments})
        answer, answered, seen = None, False, until is None
        while not (answered and seen):
            message = line.receive()
            if "error" in message:
                raise Refused(f"{command}: {message['error']['desc']}")
            if "return" in message:
                answer, answered = message["return"], True
            elif until is not None and until(message):
                seen = True
        return answer


class Agent:
    """qemu-guest-agent. One question at a time, whoever asks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._asked = 0

    def ask(self, command: str, *, timeout_s: float = 120, **arguments: Any) -> Any:
        with (self._directory / "agent.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with Line(self._directory / "agent.sock", timeout_s) as line:
                self._asked += 1
                token = os.getpid() << 20 | self._asked
                # An answer to a question of before may still be on its way.
                line.send({"execute": "guest-sync-delimited", "arguments": {"id": token}}, before=b"\xff")
                while line.receive().get("return") != token:
                    pass
                line.send({"execute": command, "arguments": arguments})
                message = line.receive()
        if "error" in message:
            raise Refused(f"{command}: {message['error']['desc']}")
        return message["return"]
