"""One connection: take requests, answer them, and lock the volume again when the peer leaves or the unit is stopped."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
from types import FrameType

from dockd.blocker.messages import Answer, BlockerError, Request, receive, send
from dockd.blocker.verbs import Guard, Machine, Peer, PeerLeft

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Stopped(BaseException):
    """SIGTERM or SIGINT came."""


def serve(connection: socket.socket, machine: Machine) -> None:
    """Until the peer leaves. What it had mounted is let go then, and locked."""
    guard = Guard(peer_of(connection), machine)
    try:
        while True:
            datagram, strangers = receive(connection)
            for fd in strangers:
                os.close(fd)
            if not datagram:
                return
            try:
                request = Request.decode(datagram)
            except BlockerError as error:
                send(connection, Answer(ok=False, error=error.kind, message=str(error)))
                continue
            answer, descriptors = guard.handle(request)
            try:
                send(connection, answer, descriptors)
            finally:
                for fd in descriptors:
                    os.close(fd)
            _note(request, answer)
    except (PeerLeft, ConnectionError):
        return
    finally:
        guard.release()


def peer_of(connection: socket.socket) -> Peer:
    """Who connected, as the kernel knows it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(raw)
    look = select.poll()
    look.register(connection, select.POLLRDHUP)

    def waits(seconds: float) -> bool:
        return not look.poll(seconds * 1000)

    return Peer(uid=uid, gid=gid, waits=waits)


def main(machine: Machine) -> int:
    """Serve the connection that systemd passed as standard input; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        with socket.socket(fileno=os.dup(0)) as connection:
            serve(connection, machine)
    except Stopped:
        pass
    return 0


def _stop(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # locking again is not to be cut short
    raise Stopped


def _note(request: Request, answer: Answer) -> None:
    """A line for systemd's journal. The serial number came from outside: no control character of it is printed."""
    outcome = answer.done or "done" if answer.ok else f"{answer.error}: {answer.message}"
    camera = f"{request.device} of {request.serial!r} at {request.port!r}"
    sys.stderr.write(f"{request.verb} {camera}: {outcome!r}\n")
    sys.stderr.flush()
