"""Takes connections in: a place first, then a first byte, and only then TLS, which costs memory and time.

uvicorn would accept every connection into TLS before anything of ours sees it. What it is given here are connections
whose handshake is done, by asyncio's own `connect_accepted_socket`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

import structlog

from dockd.receiver.connections import Connections, Place
from dockd.receiver.settings import Limits

_log = structlog.get_logger()
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BROKEN = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})
_WAIT_S = 0.5  # until descriptors or memory may be free again


class Door:
    """Accepts on one listening socket until it is cancelled."""

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        *,
        limits: Limits,
        connections: Connections,
        make: Callable[[Place], asyncio.Protocol],
    ) -> None:
        self._listening = listening
        self._context = context
        self._limits = limits
        self._connections = connections
        self._make = make

    async def run(self) -> None:
        """Accept. After cancellation nothing is accepted any more; connections whose TLS is open go on."""
        loop = asyncio.get_running_loop()
        self._listening.settimeout(0)
        async with asyncio.TaskGroup() as entering:
            while True:
                try:
                    accepted, address = await loop.sock_accept(self._listening)
                except OSError as error:
                    if error.errno in _BROKEN:
                        raise
                    if error.errno in _NO_ROOM:
                        _log.error("accept_failed", error=str(error))
                    # The others are the peer's, which has gone before it was its turn.
                    await asyncio.sleep(_WAIT_S if error.errno in _NO_ROOM else 0)
                    continue
                place = self._connections.admit(address[0])
                if place is None:
                    accepted.close()
                else:
                    entry = entering.create_task(self._enter(accepted, place))
                    place.end = entry.cancel
                await asyncio.sleep(0)  # a full backlog must not keep the loop from all else

    async def _enter(self, accepted: socket.socket, place: Place) -> None:
        """See a connection through its handshake. The protocol releases the place from then on."""
        loop = asyncio.get_running_loop()
        made: list[asyncio.Protocol] = []

        def make() -> asyncio.Protocol:
            made.append(self._make(place))
            return made[0]

        try:
            try:
                async with asyncio.timeout(self._limits.first_byte_s):
                    await _readable(accepted)
            except BaseException:
                accepted.close()
                raise
            # From here on the transport owns the socket, whatever becomes of it.
            await loop.connect_accepted_socket(
                make,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=self._limits.close_s,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            self._connections.release(place)
            _log.debug("connection_not_opened", error=str(error) or type(error).__name__)
        except asyncio.CancelledError:
            self._connections.release(place)
            raise
        except Exception:  # noqa: BLE001  one connection's failure ends no other
            self._connections.release(place)
            _log.exception("connection_failed")


async def _readable(accepted: socket.socket) -> None:
    """Until the peer has sent something, or gone."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(accepted, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(accepted)
