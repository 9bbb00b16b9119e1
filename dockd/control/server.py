"""The control socket: one JSON line asks, JSON lines answer, the last of them says so. docs/status.md has it all.

Only members of the socket's group reach it (mode 0660); the kernel's peer credentials name the operator.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import structlog

from dockd.core.backoff import DESCRIPTORS
from dockd.errors import DockdError

_log = structlog.get_logger()
_REQUEST_LIMIT = 64 * 1024
_REQUEST_TIMEOUT_S = 10.0
_CONNECTIONS = 32


class ControlApi(Protocol):
    """What the socket serves. Each yields JSON objects; DockdError becomes an answer, anything else ends the daemon."""

    def answer(self, operation: str, arguments: dict[str, Any], operator: str) -> AsyncIterator[dict[str, Any]]:
        """The objects that answer one request. Raises LookupError for an operation that does not exist."""


def bind(path: Path) -> socket.socket:
    """Bind a fresh listening socket at `path`, replacing a dead one. The caller holds the journal's lock.

    It binds through a descriptor of the directory: a socket address holds 107 bytes, a state directory's path more.
    """
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=directory)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            before = os.umask(0o117)
            try:
                listener.bind(f"/proc/self/fd/{directory}/{path.name}")
            finally:
                os.umask(before)
            listener.listen(_CONNECTIONS)
            listener.setblocking(False)  # noqa: FBT003  the name says it
        except BaseException:
            listener.close()
            raise
        return listener
    finally:
        os.close(directory)


async def serve(listener: socket.socket, api: ControlApi) -> None:
    """Answer until cancelled; then the listener is closed and every answer under way is cut short."""
    slots = asyncio.Semaphore(_CONNECTIONS)
    loop = asyncio.get_running_loop()
    with listener:
        async with asyncio.TaskGroup() as group:
            while True:
                await slots.acquire()
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    slots.release()
                    _log.warning("control_connection_not_taken", reason=error.strerror)
                    await asyncio.sleep(DESCRIPTORS.cap_s)
                    continue
                task = group.create_task(_serve_one(connection, api))
                task.add_done_callback(lambda _: slots.release())


async def _serve_one(connection: socket.socket, api: ControlApi) -> None:
    try:
        operator = await asyncio.to_thread(_operator, connection)  # the account's name may come over a network
        reader, writer = await asyncio.open_connection(sock=connection, limit=_REQUEST_LIMIT)
    except BaseException as error:
        connection.close()
        if not isinstance(error, OSError):
            raise
        _log.warning("control_connection_not_taken", reason=error.strerror)
        return
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            line = await _request(reader)
        async for answer in _answers(line, api, operator):
            writer.write(json.dumps(answer, separators=(",", ":"), sort_keys=True).encode() + b"\n")
            await writer.drain()
    except (OSError, TimeoutError, ValueError):
        _log.info("control_connection_lost", operator=operator)  # the asker's trouble, not the station's
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> bytes:
    """The first line; one that is too long is cut, and no request any more."""
    try:
        return await reader.readline()
    except ValueError:
        return b""


async def _answers(line: bytes, api: ControlApi, operator: str) -> AsyncIterator[dict[str, Any]]:
    try:
        request = json.loads(line)
        json.dumps(request, ensure_ascii=False).encode()  # an escape may say half a character: no text of ours
        operation, arguments = str(request.pop("op")), dict(request)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        yield _error("usage", f"a request is a line of JSON in Unicode with an 'op', of {_REQUEST_LIMIT} bytes at most")
        return
    try:
        async for answer in api.answer(operation, arguments, operator):
            yield answer
        yield {"type": "end", "v": 1}
    except LookupError as error:
        yield _error("usage", str(error.args[0]) if error.args else "not found")
    except DockdError as error:
        yield _error(error.disposition.value, str(error))


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "v": 1, "kind": kind, "message": message}


def _operator(connection: socket.socket) -> str:
    """The peer's name, from the kernel; its number where the account has no name here."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
