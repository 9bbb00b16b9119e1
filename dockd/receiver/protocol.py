"""uvicorn's HTTP/1.1 protocol with limits: on how long a peer may take, and on what it may have kept in memory.

uvicorn waits for ever for a request's head, for the rest of a body that was answered, and for a peer that does not
read; llhttp, below it, keeps a header of any length. Bodies that somebody reads are timed where they are read.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from dockd.receiver.connections import Connections, Place
from dockd.receiver.settings import Limits

_UNREAD_BYTES = 64 * 1024

CONNECTION = "connection"
"""The name of a request's `Place` in its state."""


class _TooMuch(Exception):
    """Ends the parsing of what a peer sends; uvicorn answers 400 and closes the connection."""


class PatientProtocol(HttpToolsProtocol):
    """One connection. It releases its place when it is lost."""

    def __init__(
        self, *, config: uvicorn.Config, state: ServerState, limits: Limits, connections: Connections, place: Place
    ) -> None:
        super().__init__(config, state, {CONNECTION: place})
        self._limits = limits
        self._places = connections
        self._place = place
        self._closing: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # of this request's line and headers
        self._framing_bytes = 0  # that came since anything of a request was understood
        self._drained_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection whose handshake is done: its first request's head is due."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it to Transport
        self.transport.set_write_buffer_limits(high=_UNREAD_BYTES)  # asyncio keeps half a MiB over TLS
        self._place.end = self.transport.abort
        if self._place.is_released:  # it gave way in the moment between
            self.transport.abort()
        self._arm(self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._places.release(self._place)
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)
        # What was kept for requests goes now, and not when the garbage collector comes by.
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Bytes; those that no callback below has anything to do with are a head or a framing without end."""
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > self._limits.head_bytes and not self.transport.is_closing():
            self.send_400_response("Too long a head.")

    def on_message_begin(self) -> None:
        """The first byte of a request: the rest of its head is due."""
        super().on_message_begin()
        self._head_bytes = self._framing_bytes = 0
        self._arm(self._limits.head_s)

    def on_url(self, url: bytes) -> None:
        """A piece of the request's line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one of a chunked body's trailers."""
        self._count(len(name) + len(value))
        super().on_header(name, value)
        if len(self.headers) > self._limits.headers:
            raise _TooMuch

    def on_headers_complete(self) -> None:
        """The head is there; bodies are timed where they are read."""
        self._framing_bytes = 0
        self._disarm()
        super().on_headers_complete()
        if len(self.pipeline) > self._limits.pipelined:
            raise _TooMuch

    def on_body(self, body: bytes) -> None:
        """Bytes of a body; those that come after the answer are dropped, and are no reason to wait longer."""
        self._framing_bytes = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._drained_bytes += len(body)
            if self._drained_bytes > self._limits.drain_bytes:
                self.transport.close()

    def on_message_complete(self) -> None:
        """The end of a body. Where it was answered before, the next head is due."""
        self._framing_bytes = self._drained_bytes = 0
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._arm(self._limits.idle_s)

    def on_response_complete(self) -> None:
        """An answer is given: the rest of its request is due, or the next one."""
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._arm(self._limits.drain_s if self.cycle is not None and self.cycle.more_body else self._limits.idle_s)

    def pause_writing(self) -> None:
        """The peer does not read what it asked for."""
        super().pause_writing()
        if self._unread is None:
            self._unread = asyncio.get_running_loop().call_later(self._limits.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again, or never will."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _count(self, size: int) -> None:
        self._framing_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            raise _TooMuch

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._closing = asyncio.get_running_loop().call_later(delay_s, self._too_late)

    def _disarm(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _too_late(self) -> None:
        transport: Any = self.transport
        if transport is not None and not transport.is_closing():
            transport.close()
