"""The fork server: a fresh program without the daemon's memory, that forks a reader for each request.

Started as `python -I -m dockd.reader.forkserver FD`. A request is one datagram, passed on unread, with its
descriptors: incoming directory, the reader's socket, those of the camera's medium, and what the reader before left. It
has one thread, and ends with its socket.
"""

from __future__ import annotations

import codecs
import gc
import os
import secrets
import select
import signal
import socket
import sys

from dockd.core import canonical, sealing
from dockd.reader import child
from dockd.reader.confine import confine_server
from dockd.reader.handover import MAX_DESCRIPTORS
from dockd.reader.messages import MAX_MESSAGE_BYTES

_CODECS = ("ascii", "latin-1", "utf-8", "utf-16-le", "cp437", "cp850")  # of names and labels
_DESCRIPTORS = 2  # besides the camera's: incoming directory, and the reader's socket
_CARRIED = 1  # and what the reader before it left


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._readers: dict[int, int] = {}  # pidfd to pid

    def serve(self) -> None:
        """Until the daemon closes its end."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._reap(fd)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        """One request. False: there will be no more."""
        try:
            request, descriptors, flags, _ = socket.recv_fds(
                self._control, MAX_MESSAGE_BYTES + 1, _DESCRIPTORS + MAX_DESCRIPTORS + _CARRIED
            )
        except OSError:  # it was reset: the daemon left with an answer unread
            return False
        if not request:
            return False
        try:
            if flags & socket.MSG_CTRUNC or len(descriptors) < _DESCRIPTORS:
                self._say("failed", message="the fork server has no descriptors left")
            else:
                self._start(request, descriptors[0], descriptors[1], tuple(descriptors[2:]))
        finally:
            for fd in descriptors:
                os.close(fd)
        return True

    def _start(self, request: bytes, incoming_fd: int, socket_fd: int, camera_fds: tuple[int, ...]) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._say("failed", message=error.strerror or str(error))
            return
        if pid == 0:
            status = os.EX_SOFTWARE
            try:
                status = child.run(request, incoming_fd, socket_fd, camera_fds, server)
            finally:
                os._exit(status)  # nothing of the server's own may run in the child
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # it is ours and was not waited for: the number is its own
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._say("failed", message=error.strerror or str(error))
            return
        self._readers[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        self._say("started", descriptors=(pidfd,), pid=pid)

    def _reap(self, pidfd: int) -> None:
        pid = self._readers.pop(pidfd)
        self._poll.unregister(pidfd)
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        status = 0 if ended is None else ended.si_status
        killed = ended is not None and ended.si_code != os.CLD_EXITED
        self._say("ended", pid=pid, signal=status if killed else 0, status=0 if killed else status)

    def _say(self, kind: str, descriptors: tuple[int, ...] = (), **fields: int | str) -> None:
        message = canonical.encode({"type": "forkserver", "v": 1, "kind": kind, **fields})
        try:
            socket.send_fds(self._control, [message], list(descriptors))
        except OSError:  # the daemon is gone
            sys.exit(os.EX_OK)


def _warm_up() -> None:
    """Do once what every reader would do first, then leave all of it alone, so that its pages stay shared."""
    recipient = sealing.Identity.generate(secrets.token_bytes).recipient
    sealer = sealing.Sealer((recipient,), secrets.token_bytes)
    sealer.header()
    sealer.seal(b"", final=True)
    for name in _CODECS:
        codecs.lookup(name)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Serve on the descriptor named on the command line."""
    confine_server()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        os.set_inheritable(control.fileno(), False)  # noqa: FBT003  the name says it
        _warm_up()
        _Server(control).serve()


if __name__ == "__main__":
    main()
