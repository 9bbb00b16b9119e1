"""The daemon's side: start readers, ask them, and end them without ever waiting for one that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableSequence
from contextlib import suppress
from typing import Any

import structlog

from dockd.core.warrant import EraseWarrant, to_wire
from dockd.errors import CameraGone, ReaderDied
from dockd.model import (
    AcquisitionId,
    BayNumber,
    CameraIdentity,
    DockingId,
    Epoch,
    Erasure,
    FoundFile,
    ListedFile,
    Medium,
    Reread,
    Sealed,
)
from dockd.reader import messages
from dockd.reader.handover import descriptors, medium_to_wire
from dockd.reader.plan import ErasePlan, batches, words_from_wire
from dockd.reader.rules import ClipRules
from dockd.reader.server import ForkServerProgram, Started, not_started

__all__ = ["ClipRules", "ErasePlan", "ForkServer", "OnProgress", "Reader"]

_log = structlog.get_logger()

END_WORDS_S = 1.0  # that an error waits for the word on how a reader ended
CLOSE_S = 2.0  # that `aclose` gives a reader before it is killed

OnProgress = Callable[[AcquisitionId, str, int, int], None]


class ForkServer:
    """Starts readers. The program behind it is started anew, for the next request, when it has died."""

    def __init__(self, python: str | None, faults: str | None) -> None:
        self._python = python
        self._faults = faults
        self._program: ForkServerProgram | None = None
        self.unmet: Mapping[str, str] | None = None  # of the newest reader: what does not hold of its confinement

    @classmethod
    async def start(cls, *, python: str | None = None, faults: str | None = None) -> ForkServer:
        """Start the program. Raises ReaderNotStarted.

        To be called on the main thread: readers die with the thread that started it.

        `faults`, for tests alone, replaces what the environment says (dockd.faults).
        """
        server = cls(python, faults)
        server._living()
        return server

    @property
    def pid(self) -> int | None:
        """Of the program, while it lives."""
        return self._program.pid if self._program and self._program.alive else None

    async def reader(
        self,
        *,
        docking: DockingId,
        epoch: Epoch,
        bay: BayNumber,
        medium: Medium,
        incoming_fd: int,
        identity: CameraIdentity,
        recipients: tuple[str, ...],
        rules: ClipRules,
        on_progress: OnProgress,
    ) -> Reader:
        """A new reader for one docking. All descriptors stay the caller's, who closes `incoming_fd` after the reader.

        Raises ReaderNotStarted, ReaderDied, CameraGone. After cancellation no reader is left, or one that was already
        sent SIGKILL.
        """
        start = {
            "docking": docking,
            "bay": bay,
            "camera": messages.identity_to_wire(identity),
            "recipients": list(recipients),
            "rules": messages.rules_to_wire(rules),
        }

        async def begin(medium: Medium, *carried: int) -> Reader:
            mark = "yes" if carried else "no"
            message = messages.pack(epoch, "start", **start, medium=medium_to_wire(medium), carried=mark)
            fds = (incoming_fd, *descriptors(medium), *carried)
            reader = await self._start(message, fds, docking=docking, epoch=epoch, on_progress=on_progress)
            reader.again = begin
            _log.debug("reader_started", bay=bay, docking=docking, pid=reader.pid)
            return reader

        return await begin(medium)

    async def measure(self) -> Mapping[str, str]:
        """What of a reader's confinement does not hold on this machine, and why; {} where all of it does.

        A reader without a camera tries it. Raises ReaderNotStarted, ReaderDied.
        """
        message, epoch = messages.pack(Epoch(0), "measure"), Epoch(0)
        nothing = os.eventfd(0)  # stands for the incoming directory: there is none
        try:
            reader = await self._start(
                message, (nothing,), docking=DockingId(""), epoch=epoch, on_progress=lambda *_: None
            )
        finally:
            os.close(nothing)
        await reader.aclose()
        return self.unmet or {}

    async def _start(
        self, message: bytes, fds: tuple[int, ...], *, docking: DockingId, epoch: Epoch, on_progress: OnProgress
    ) -> Reader:
        """A reader that is ready. The first descriptor is its incoming directory."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise not_started(error) from error
        reader: Reader | None = None
        try:
            with theirs:
                started = await self._living().fork(message, (fds[0], theirs.fileno(), *fds[1:]))
            reader = Reader(ours, started, docking=docking, epoch=epoch, on_progress=on_progress)
            self.unmet = unmet = await reader.wait_ready()
            if unmet:
                _log.error("reader_not_confined", pid=reader.pid, unmet=unmet)
        except BaseException:
            if reader is not None:
                await reader.kill()
            ours.close()
            raise
        return reader

    async def aclose(self) -> None:
        """End the program and, with it, every reader. Idempotent; a hung one is killed, not waited for."""
        program, self._program = self._program, None
        if program is not None:
            await program.aclose()

    def _living(self) -> ForkServerProgram:
        if self._program is None or not self._program.alive:
            if self._program is not None:
                _log.error("fork_server_died", pid=self._program.pid)
            try:
                self._program = ForkServerProgram(self._python, self._faults)
            except OSError as error:
                raise not_started(error) from error
        return self._program


class Reader:
    """One reader. One call at a time; after a cancelled one and after ReaderDied only `kill` and `aclose` are left."""

    def __init__(
        self,
        channel: socket.socket,
        started: Started,
        *,
        docking: DockingId,
        epoch: Epoch,
        on_progress: OnProgress,
    ) -> None:
        self.pid = started.pid
        self.ended = started.ended  # of how it ended, in words; never has an exception
        self._channel = channel
        self._pidfd = started.pidfd
        self._docking = docking
        self._epoch = epoch
        self._on_progress = on_progress
        self.again: Callable[..., Awaitable[Reader]] | None = None  # a reader of the same docking, with what one left
        self._came: list[int] = []  # the descriptor that came with the last message, if one did
        self._carried: list[int] = []  # that of what this one left, once it let go of its camera
        self._unusable = ""  # why no call may be made
        self._waiting: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        channel.setblocking(False)  # noqa: FBT003  the name says it

    async def wait_ready(self) -> dict[str, str]:
        """Until the reader took on its camera; what of its confinement does not hold. Raises CameraGone, ReaderDied."""
        return words_from_wire(await self._answer("ready"), "unmet")

    async def list(self) -> AsyncIterator[list[ListedFile]]:
        """Everything on the camera, in batches as the reader finds them. Raises CameraGone, ReaderDied.

        Left early, the reader cannot be used any more.
        """
        await self._ask("list")
        while (fields := await self._message())["kind"] == "entries":
            entries = fields.get("entries")
            if not isinstance(entries, list):
                raise await self._broken("a batch that is none")
            yield [messages.listed_from_wire(entry) for entry in entries]
        self._settle(fields, "done")

    async def acquire(self, acquisition: AcquisitionId, file: FoundFile, *, sidecar: bool = False) -> Sealed:
        """Read a clip, or a sidecar, once into `<acquisition>.age` in the incoming directory, durable on return.

        Raises CameraGone, ClipGone, ClipBusy, ClipChanged, ClipRefused, SpoolFull or ReaderDied; the clip is as it
        was, and the incoming directory holds nothing but files of this docking.
        """
        await self._ask("acquire", acquisition=acquisition, file=messages.file_to_wire(file), sidecar=int(sidecar))
        fields = await self._answer("sealed", acquisition)
        sealed = messages.sealed_from_wire(messages.table(fields, "sealed"))
        self._on_progress(acquisition, "acquire", file.size_bytes, file.size_bytes)
        return sealed

    async def reread(self, acquisition: AcquisitionId, file: FoundFile) -> Reread:
        """Read a clip a second time, from the medium where possible. Raises as `acquire`, but for SpoolFull."""
        await self._ask("reread", acquisition=acquisition, file=messages.file_to_wire(file))
        fields = await self._answer("reread", acquisition)
        again = messages.reread_from_wire(messages.table(fields, "reread"), self._docking)
        self._on_progress(acquisition, "reread", file.size_bytes, file.size_bytes)
        return again

    async def check(self, warrant: EraseWarrant) -> None:
        """See whether `erase` would begin, for the time being; nothing is touched. Raises as that does."""
        await self._ask("check", warrant=to_wire(warrant))
        await self._answer("checked", warrant.acquisition)

    async def erase(self, warrant: EraseWarrant, file: FoundFile) -> Erasure:
        """Erase the file of a warrant, which this reader must itself have read a second time, or its remnant.

        Raises EraseFailed, ClipBusy, ClipChanged, ClipGone, ClipRefused or CameraGone with the clip untouched under its
        name; ReaderDied where that is not known, or where a remnant was left.
        """
        if file != warrant.file:
            raise ValueError("the warrant is for another file")
        await self._ask("erase", warrant=to_wire(warrant))
        fields = await self._answer("erased", warrant.acquisition)
        erasure = messages.erasure_from_wire(messages.table(fields, "erasure"))
        self._on_progress(warrant.acquisition, "erase", file.size_bytes, file.size_bytes)
        return erasure

    # --- erasing from volumes: together, and looked at anew

    async def plan_erasing(self, files: Mapping[AcquisitionId, FoundFile]) -> ErasePlan:
        """Remember, on the read-only volumes, where these files lie; say what that leaves unaccounted for.

        A new plan takes the place of the one before. Raises EraseFailed where nothing may be erased from these
        volumes, as files of them share blocks; CameraGone, ReaderDied.
        """
        unclear: dict[AcquisitionId, str] = {}
        await self._ask("plan")
        await self._answer("planned")
        for batch in batches(files):
            await self._ask("plan_files", files=batch)
            told = words_from_wire(await self._answer("planned"), "unclear")
            unclear |= {AcquisitionId(name): words for name, words in told.items()}
        await self._ask("account")
        fields = await self._answer("accounted")
        return ErasePlan(unaccounted=messages.text(fields, "unaccounted"), unclear=unclear)

    async def let_go(self) -> None:
        """Close every descriptor of the camera; what was written is on the medium then.

        Raises EraseFailed where the medium did not take it, CameraGone, ReaderDied; the descriptors are closed even so.
        Only `take`, `kill` and `aclose` are left.
        """
        await self._ask("let_go")
        await self._answer("let_go")
        if not self._came:
            raise await self._broken("it let go, and left nothing for the next one")
        self._drop_descriptors(self._carried)
        self._carried, self._came = self._came, []

    async def take(self, medium: Medium) -> None:
        """Go on with new descriptors of the same volumes; they stay the caller's.

        A reader is sealed off to the mounts that it was started with: it is another one that goes on, with what the one
        before found out. Raises CameraGone where these are other volumes, or do not answer; ReaderNotStarted: it can be
        tried again then. ReaderDied.
        """
        if self._unusable:
            raise ReaderDied(f"the reader cannot be asked: {self._unusable}")
        if not self._carried or self.again is None:
            raise CameraGone("these are not the volumes that the reader let go of: it let go of none")
        successor: Reader = await self.again(medium, *self._carried)
        if self._unusable:  # `kill` was called meanwhile
            await successor.kill()
            raise ReaderDied(f"the reader cannot be asked: {self._unusable}")
        await self.kill()
        self.pid, self.ended, self._pidfd = successor.pid, successor.ended, successor._pidfd
        self._channel, self._unusable = successor._channel, ""

    async def verify_erased(self, acquisitions: Iterable[AcquisitionId]) -> dict[AcquisitionId, str]:
        """Look anew, on volumes taken read-only since, for what this reader erased; what was established, in words.

        Reads every old place from the block device. Raises EraseFailed, naming the first clip of which anything is
        left; CameraGone, ReaderDied.
        """
        checked: dict[AcquisitionId, str] = {}
        for acquisition in acquisitions:
            await self._ask("verify", acquisition=acquisition)
            fields = await self._answer("verified", acquisition)
            checked[acquisition] = messages.text(fields, "checked")
        return checked

    async def verify_empty(self, method: str) -> str:
        """After `clear` or `discard`, on the fresh volumes: nothing is on them, nor in the clips' old places.

        What was established, in words. Raises EraseFailed, CameraGone, ReaderDied.
        """
        await self._ask("verify_empty", method=method)
        return messages.text(await self._answer("empty"), "checked")

    async def kill(self) -> None:
        """SIGKILL. Returns at once, also where the reader hangs in a device and stays. Idempotent."""
        self._unusable = "it was ended"
        if not self.ended.done():
            with suppress(ProcessLookupError, OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._close()

    async def aclose(self) -> None:
        """Let the reader end by itself, for a moment; then kill it. Idempotent."""
        self._unusable = "it was closed"
        self._close()
        try:
            await asyncio.wait({self.ended}, timeout=CLOSE_S)
        finally:
            await self.kill()

    # --- messages

    async def _ask(self, kind: str, fds: tuple[int, ...] = (), **fields: Any) -> None:
        if self._unusable:
            raise ReaderDied(f"the reader cannot be asked: {self._unusable}")
        self._unusable = "an earlier call to it was cut short"  # until that call has its answer
        try:
            message = messages.pack(self._epoch, kind, **fields)
            if fds:  # the socket is empty, as its last request was answered: this does not have to wait
                socket.send_fds(self._channel, [message], list(fds))
            else:
                await self._loop.sock_sendall(self._channel, message)
        except OSError as error:
            raise await self._died() from error

    async def _answer(self, kind: str, acquisition: AcquisitionId | None = None) -> dict[str, Any]:
        fields = await self._message()
        if acquisition is not None and fields.get("acquisition") != acquisition and fields["kind"] != "error":
            raise await self._broken("an answer about another acquisition")
        self._settle(fields, kind)
        return fields

    def _settle(self, fields: dict[str, Any], kind: str) -> None:
        """The call has its answer: the one wanted, or an error, which is raised."""
        if fields["kind"] == "error":
            error = messages.error_from_wire(fields)
            if not isinstance(error, ReaderDied):
                self._unusable = ""
            raise error
        if fields["kind"] != kind:
            raise ReaderDied(f"the reader broke its protocol: {fields['kind']!r} is no answer")
        self._unusable = ""

    async def _message(self) -> dict[str, Any]:
        """The next message that is no progress. One of another epoch, or malformed, ends the reader."""
        while True:
            message = await self._receive()
            if not message:
                raise await self._died()
            try:
                fields = messages.unpack(message, self._epoch)
                if fields["kind"] != "progress":
                    return fields
                self._progress(fields)
            except ReaderDied:
                await self.kill()
                raise

    def _progress(self, fields: dict[str, Any]) -> None:
        done, size = messages.text(fields, "done"), messages.text(fields, "size")
        if done.isascii() and done.isdecimal() and size.isascii() and size.isdecimal():
            acquisition = AcquisitionId(messages.text(fields, "acquisition"))
            self._on_progress(acquisition, messages.text(fields, "phase"), int(done), int(size))

    async def _receive(self) -> bytes:
        """One datagram; empty where there will be no more. `kill` ends the wait at once."""
        while True:
            try:
                message, came, _, _ = socket.recv_fds(self._channel, messages.MAX_MESSAGE_BYTES + 1, 1)
            except BlockingIOError:
                await self._readable()
            except OSError:
                return b""
            else:
                self._drop_descriptors(self._came)  # that nobody asked for
                self._came = came
                return message

    async def _readable(self) -> None:
        waiting = self._loop.create_future()
        descriptor = self._channel.fileno()
        self._waiting = waiting
        self._loop.add_reader(descriptor, _wake, waiting)
        try:
            await waiting
        finally:
            if self._waiting is waiting:  # else `kill` took it, and closed the socket
                self._waiting = None
                self._loop.remove_reader(descriptor)

    async def _died(self) -> ReaderDied:
        """The error to raise for a reader that is gone, with how it went, if that is known in time."""
        await asyncio.wait({self.ended}, timeout=END_WORDS_S)
        how = self.ended.result() if self.ended.done() else "broke off"
        return ReaderDied(f"the reader {how}")

    async def _broken(self, what: str) -> ReaderDied:
        await self.kill()
        return ReaderDied(f"the reader broke its protocol: {what}")

    @staticmethod
    def _drop_descriptors(fds: MutableSequence[int]) -> None:
        while fds:
            os.close(fds.pop())

    def _close(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._loop.remove_reader(self._channel.fileno())
            _wake(waiting)
        self._channel.close()
        self._drop_descriptors(self._came)
        self._drop_descriptors(self._carried)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
