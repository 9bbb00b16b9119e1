"""The daemon's handle on one running fork server: requests out, readers in, and the word on how each ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from dockd import faults
from dockd.core import canonical
from dockd.errors import ReaderNotStarted, VerificationFailed
from dockd.reader.messages import MAX_MESSAGE_BYTES

STOP_S = 2.0  # that the program is given to end by itself
_WORDS_S = 0.5  # that the word on a reader's end may come after the end itself
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A reader that was forked. The pidfd stays the program's, and is good until `ended` is done."""

    pid: int
    pidfd: int
    ended: asyncio.Future[str]  # of how it ended, in words


class ForkServerProgram:
    """One run of the program. Owns its socket, its pidfd and those of its readers; all on the event loop's thread."""

    def __init__(self, python: str | None, rules: str | None) -> None:
        self.alive = True
        self._loop = asyncio.get_running_loop()
        self._pending: deque[asyncio.Future[Started]] = deque()
        self._readers: dict[int, tuple[int, asyncio.Future[str]]] = {}  # pid to pidfd and end
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)  # noqa: FBT003  the name says it
        with theirs:
            try:
                self._popen = _start(python or sys.executable, theirs, _environment(rules))
            except BaseException:
                self._control.close()
                raise
        self.pid = self._popen.pid
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            self._popen.kill()
            self._popen.wait()
            self._control.close()
            raise
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._on_end)
        self._loop.add_reader(self._control.fileno(), self._on_message)

    async def fork(self, start: bytes, descriptors: tuple[int, ...]) -> Started:
        """Ask for a reader. Raises ReaderNotStarted.

        After cancellation the reader, if it comes to be, is killed.
        """
        try:
            socket.send_fds(self._control, [start], list(descriptors))
        except OSError as error:
            raise not_started(error) from error
        started: asyncio.Future[Started] = self._loop.create_future()
        self._pending.append(started)
        return await started

    async def aclose(self) -> None:
        """End it and its readers. Waits for the program itself, which never touches a camera, and for no reader."""
        self._close_control()
        try:
            await asyncio.wait({self._ended}, timeout=STOP_S)
        finally:
            if not self._ended.done():
                self._popen.kill()
                await asyncio.wait({self._ended}, timeout=STOP_S)
            for pid in list(self._readers):
                self._forget(pid, "was ended with its server", kill=True)

    # --- what the loop calls

    def _on_message(self) -> None:
        while self.alive:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            if not message:
                self._lost("it is gone")
                return
            try:
                self._take(canonical.decode(message, type_="forkserver"), descriptors)
            except (VerificationFailed, KeyError) as error:
                self._lost(str(error))

    def _take(self, fields: dict[str, int | str], descriptors: list[int]) -> None:
        match fields["kind"]:
            case "started" if descriptors:
                self._started(int(fields["pid"]), descriptors[0])
            case "started":  # it ends by itself: the other end of its socket is closed
                self._not_started("there was no descriptor free to hold it by")
            case "failed":
                self._not_started(str(fields["message"]))
            case "ended":
                self._forget(int(fields["pid"]), _how(int(fields["signal"]), int(fields["status"])))

    def _not_started(self, why: str) -> None:
        started = self._pending.popleft()
        if not started.done():
            started.set_exception(ReaderNotStarted(f"no reader could be started: {why}"))

    def _started(self, pid: int, pidfd: int) -> None:
        ended: asyncio.Future[str] = self._loop.create_future()
        self._readers[pid] = (pidfd, ended)
        self._loop.add_reader(pidfd, self._on_reader_end, pid)
        started = self._pending.popleft()
        if started.done():  # its caller was cancelled
            _kill(pidfd)
        else:
            started.set_result(Started(pid=pid, pidfd=pidfd, ended=ended))

    def _on_reader_end(self, pid: int) -> None:
        """It is gone; how, the server says in a moment, if it lives."""
        pidfd, _ = self._readers[pid]
        self._loop.remove_reader(pidfd)
        self._loop.call_later(_WORDS_S if self.alive else 0, self._forget, pid, "ended")

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._popen.wait()  # reaps at once: the pidfd said that it is gone
        self._lost("it ended")
        if not self._ended.done():
            self._ended.set_result(None)

    # --- ends

    def _forget(self, pid: int, how: str, *, kill: bool = False) -> None:
        if pid not in self._readers:
            return
        pidfd, ended = self._readers.pop(pid)
        self._loop.remove_reader(pidfd)
        if kill:
            _kill(pidfd)
        os.close(pidfd)
        if not ended.done():
            ended.set_result(how)

    def _lost(self, why: str) -> None:
        """The program cannot be used any more; its readers end with it."""
        self._close_control()
        while self._pending:
            started = self._pending.popleft()
            if not started.done():
                started.set_exception(ReaderNotStarted(f"no reader could be started: the fork server: {why}"))

    def _close_control(self) -> None:
        if self.alive:
            self.alive = False
            self._loop.remove_reader(self._control.fileno())
            self._control.close()


def not_started(error: OSError) -> ReaderNotStarted:
    """Of an error of the machine."""
    return ReaderNotStarted(f"no reader could be started: {error.strerror or error}")


def _start(python: str, control: socket.socket, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Not on a thread of a pool: the program ends with the thread that starts it (PDEATHSIG)."""
    return subprocess.Popen(  # noqa: S603  our own module, by our own interpreter
        [python, "-I", "-X", "utf8", *_as_strict(), "-m", "dockd.reader.forkserver", str(control.fileno())],
        pass_fds=(control.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    )


def _as_strict() -> list[str]:
    """Python's development mode, and what becomes of warnings, as in this program."""
    return [*(["-X", "dev"] if sys.flags.dev_mode else []), *(f"-W{action}" for action in sys.warnoptions)]


def _environment(rules: str | None) -> dict[str, str]:
    """Next to nothing of the daemon's own."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    asked = os.environ.get(faults.VARIABLE, "") if rules is None else rules
    return kept | ({faults.VARIABLE: asked} if asked else {})


def _kill(pidfd: int) -> None:
    with suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _how(signal_number: int, status: int) -> str:
    if signal_number:
        try:
            return f"was killed by {signal.Signals(signal_number).name}"
        except ValueError:
            return f"was killed by signal {signal_number}"
    return f"ended with status {status}"
