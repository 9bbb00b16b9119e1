"""uvicorn's HTTP/1.1 protocol with a limit on how long a connection may sit idle or take over its request's head."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD_S = 20.0


class PatientProtocol(HttpToolsProtocol):
    """uvicorn waits for ever for a request's head; this closes the connection after a while."""

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection: its first request's head is due."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it to Transport
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request: the rest of its head is due."""
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        """The head is there; bodies are timed where they are read."""
        self._disarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bytes of a body; once it was answered they only have to go on coming."""
        super().on_body(body)
        if self.cycle.response_complete:
            self._arm()

    def on_message_complete(self) -> None:
        """A body that nobody read any more, since it was answered before its end: the next head is due."""
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        self._closing = asyncio.get_running_loop().call_later(_HEAD_S, self._too_late)

    def _disarm(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _too_late(self) -> None:
        transport: Any = self.transport
        if transport is not None and not transport.is_closing():
            transport.close()
