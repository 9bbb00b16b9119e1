"""Ask the running daemon, from a command: synchronous, one request a connection."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dockd.errors import DaemonUnreachable, RequestRefused

_TIMEOUT_S = 30.0


def ask(path: Path, operation: str, *, patience_s: float = _TIMEOUT_S, **arguments: Any) -> Iterator[dict[str, Any]]:
    """The objects that answer one request, of which none takes longer than `patience_s`.

    Raises DaemonUnreachable where nobody listens or the answer breaks off, PermissionError where the socket is not for
    this user, RequestRefused where the daemon says no.
    """
    with _connect(path, patience_s) as connection, connection.makefile("rwb") as stream:
        try:
            stream.write(json.dumps({"op": operation, **arguments}).encode() + b"\n")
            stream.flush()
            for line in stream:
                answer: dict[str, Any] = json.loads(line)
                if answer.get("type") == "error":
                    raise RequestRefused(answer["message"], kind=answer["kind"])
                if answer.get("type") == "end":
                    return
                yield answer
        except (OSError, ValueError) as error:
            raise DaemonUnreachable(f"the daemon at {path} stopped answering: {error}; try again") from error
    raise DaemonUnreachable(f"the daemon at {path} ended before its answer did; try again")


def _connect(path: Path, patience_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(patience_s)
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
    except PermissionError as error:
        connection.close()
        raise PermissionError(
            f"{path} is not open to you: operators are members of the group dockd-operator"
        ) from error
    except OSError as error:
        connection.close()
        raise DaemonUnreachable(
            f"no daemon answers at {path}: is it running? (`dockd run`, or `systemctl status dockd`)"
        ) from error
    return connection
