"""The body of one PATCH as it comes in: its pieces, its checksum, its silence and its end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from starlette.types import Receive

from dockd.model import Clock
from dockd.receiver.problems import Kind, Problem

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

CHECKSUMS = ("sha256", "sha1")
_ENDINGS = {
    Kind.STALLED: "no byte arrived for too long; what had arrived is kept: ask for the offset and go on there",
    Kind.LOCKED: "another request took over; what had arrived is kept: ask for the offset and go on there",
    Kind.STOPPING: "the receiver is being stopped; what had arrived is kept: ask for the offset and go on there",
}


class Incoming:
    """One body. `commits_early` is whether part of it may be kept when the rest never comes."""

    def __init__(
        self, receive: Receive, *, length: int | None, clock: Clock, stall_s: float, checksum: tuple[str, bytes] | None
    ) -> None:
        self._receive = receive
        self._length = length  # as Content-Length has it; None: chunked
        self._clock = clock
        self._stall_s = stall_s
        self._checksum = checksum
        self._sum: Hash | None = hashlib.new(checksum[0], usedforsecurity=False) if checksum else None
        self._heard_s = clock.monotonic_s()
        self._waiting: asyncio.Timeout | None = None
        self._ending: Kind | None = None
        self._complete = False
        self._limit = 0
        self.commits_early = checksum is None
        self.ended = asyncio.Event()

    def silent_s(self) -> float:
        """Seconds since the last byte."""
        return self._clock.monotonic_s() - self._heard_s

    def abandon(self, why: Kind) -> None:
        """End it now, as if no more bytes came."""
        self._ending = self._ending or why
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def limit(self, most_bytes: int) -> None:
        """No more than so many. Raises Problem LENGTH_MISMATCH where more were announced."""
        self._limit = most_bytes
        if self._length is not None and self._length > most_bytes:
            self._refuse_excess()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """What arrives, until the end, the loss of the connection, a stall or `abandon`; `check_end` tells which."""
        arrived = 0
        while self._ending is None:
            try:
                async with asyncio.timeout(self._stall_s) as self._waiting:
                    message = await self._receive()
            except TimeoutError:
                self._ending = self._ending or Kind.STALLED
                return
            finally:
                self._waiting = None
            if message["type"] != "http.request":
                return
            self._heard_s = self._clock.monotonic_s()
            piece: bytes = message.get("body", b"")
            arrived += len(piece)
            if arrived > self._limit:
                self._refuse_excess()
            if piece:
                if self._sum is not None:
                    self._sum.update(piece)
                yield piece
            if not message.get("more_body", False):
                self._complete = True
                return

    def check_sum(self) -> None:
        """Raises Problem CHECKSUM_MISMATCH, also where a body with a checksum did not come whole."""
        if self._checksum is None or self._sum is None:
            return
        if not self._complete:
            raise Problem(
                self._ending or Kind.MALFORMED, "the body with a checksum was cut off: nothing of it was kept"
            )
        if self._sum.digest() != self._checksum[1]:
            raise Problem(
                Kind.CHECKSUM_MISMATCH, f"the body's {self._checksum[0]} is another: nothing was kept; send it again"
            )

    def check_end(self) -> None:
        """Raises Problem where the body did not come whole. What came was kept."""
        if self._complete:
            return
        if self._ending is None:
            raise Problem(Kind.MALFORMED, "the connection was lost; what had arrived is kept")
        raise Problem(self._ending, _ENDINGS[self._ending], headers={"Retry-After": "1", "Connection": "close"})

    def _refuse_excess(self) -> None:
        raise Problem(
            Kind.LENGTH_MISMATCH,
            f"at most {self._limit} more bytes belong to this upload: compare the sealed file with its manifest",
        )
