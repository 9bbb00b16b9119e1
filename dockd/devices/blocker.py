"""Talk to the write blocker: one connection is one volume of one camera, which it locks again when the connection ends.

The descriptors that come back belong to the caller. Nothing here waits in the event loop for a device.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from dockd.blocker.messages import Answer, BlockerError, Request, receive
from dockd.core.backoff import QUEUE
from dockd.errors import CameraGone, CameraNotReady, CameraRefused, DockdError, EraseFailed

_CONNECT_S = 5.0
_DESCRIPTORS = 2  # the root of the mount, and the device


class DiscardUnsupported(EraseFailed):
    """The device does not take a discard. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAddress:
    """One volume, named in every way that the write blocker checks anew. From `dockd.blocker.sysfs.place`."""

    device: str  # the kernel's name: "sda1"
    diskseq: int
    port: str
    serial: str  # `Place.serial`: as the device states it, not as udev rewrites it for names
    filesystem: str  # "vfat", "exfat" or "ext4"


class Blocker:
    """One connection to the write blocker, for one volume. One call at a time.

    A call that is cancelled ends the connection: the volume is let go and locked, and no descriptor is left over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None
        self._wrote = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Connect. Raises CameraNotReady, with what to do, where none answers. Nothing is left open then."""
        if self._connection is not None:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(0)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._connect(connection)
        except OSError as error:  # TimeoutError is one
            connection.close()
            raise CameraNotReady(
                f"no write blocker answers at {self._path} ({error.strerror or 'it is too busy'}): "
                "see `systemctl status dockd-blocker.socket`"
            ) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    async def read(self, volume: VolumeAddress) -> tuple[int, int]:
        """Lock the volume, check that, and mount it read-only: descriptors of its root (O_PATH) and of its device.

        After `write`, what was written is on the medium first. The old descriptors must be closed. Raises CameraGone;
        CameraRefused or CameraNotReady, or EraseFailed once this connection wrote.
        """
        root, block = await self._mounted(_request("read", volume))
        self._wrote = False
        return root, block

    async def write(self, volume: VolumeAddress) -> tuple[int, int]:
        """Lift the lock and mount the volume writable. The old descriptors must be closed.

        Raises CameraGone, EraseFailed; the volume is locked and not mounted then.
        """
        self._wrote = True
        return await self._mounted(_request("write", volume))

    async def make(
        self, volume: VolumeAddress, *, method: str, like: Mapping[str, str | int], blank: bool = False
    ) -> str:
        """Zero (`clear`) or discard (`discard`) the volume, and make a file system like `Superblock.like`, empty.

        With `blank`, only if it begins with zeros: nobody can have recorded on it since a clearing was cut short.
        Returns what was done, in words; the volume is locked and not mounted then. The old descriptors must be closed.
        Raises CameraGone, DiscardUnsupported, EraseFailed. After cancellation the volume may have no file system.
        """
        self._wrote = True
        answer, descriptors = await self._ask(_request("make", volume, method=method, like=like, blank=blank))
        _close(descriptors)
        self._check(answer)
        return answer.done

    async def aclose(self) -> None:
        """Let go: the write blocker unmounts and locks. Idempotent, and never waits."""
        self._drop()

    # --- the exchange

    async def _connect(self, connection: socket.socket) -> None:
        """Through the directory's descriptor: the path of a socket may be no longer than 107 bytes."""
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for times in count(1):
                try:
                    connection.connect(f"/proc/self/fd/{directory}/{self._path.name}")
                except BlockingIOError:  # its queue is full, and nothing tells when it no longer is
                    await asyncio.sleep(QUEUE.delay_s(times, bytes))
                else:
                    return
        finally:
            os.close(directory)

    async def _mounted(self, request: Request) -> tuple[int, int]:
        answer, descriptors = await self._ask(request)
        if answer.ok and len(descriptors) == _DESCRIPTORS and answer.read_only == (request.verb == "read"):
            return descriptors[0], descriptors[1]
        _close(descriptors)
        self._check(answer)
        raise self._failed(f"the write blocker did not do what it was asked for: {request.verb}")

    async def _ask(self, request: Request) -> tuple[Answer, tuple[int, ...]]:
        connection = self._connection
        if connection is None:
            raise self._failed("the write blocker is not connected")
        try:
            connection.send(request.encode())
            await _readable(connection)
            datagram, descriptors = receive(connection)
        except OSError as error:
            self._drop()
            raise self._failed(f"the write blocker went away: {error.strerror}", CameraNotReady) from error
        except BaseException:  # an answer that nobody waits for must not be taken for the next one's
            self._drop()
            raise
        if not datagram:
            self._drop()
            words = "the write blocker went away; its part of systemd's journal says why"
            raise self._failed(words, CameraNotReady)
        try:
            return Answer.decode(datagram), descriptors
        except BlockerError as error:
            _close(descriptors)
            self._drop()
            raise self._failed(str(error)) from error

    def _check(self, answer: Answer) -> None:
        if answer.ok:
            return
        if answer.error == "gone":
            raise CameraGone(answer.message)
        if answer.error == "discard_unsupported":
            raise DiscardUnsupported(answer.message)
        raise self._failed(answer.message, CameraNotReady if answer.error == "busy" else CameraRefused)

    def _failed(self, message: str, otherwise: type[DockdError] = CameraRefused) -> DockdError:
        """An erasing that failed, once this connection wrote; else `otherwise`."""
        return EraseFailed(message) if self._wrote else otherwise(message)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _request(
    verb: str,
    volume: VolumeAddress,
    *,
    method: str = "",
    like: Mapping[str, str | int] | None = None,
    blank: bool = False,
) -> Request:
    return Request(
        verb=verb,
        device=volume.device,
        diskseq=volume.diskseq,
        port=volume.port,
        serial=volume.serial,
        filesystem=volume.filesystem,
        method=method,
        like=dict(like or {}),
        blank=blank,
    )


async def _readable(connection: socket.socket) -> None:
    """Until there is something to receive, or the other end is gone."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _close(descriptors: tuple[int, ...]) -> None:
    for fd in descriptors:
        with suppress(OSError):
            os.close(fd)
