"""A transport of httpx that lets go of a connection whose TLS handshake is cut short, and takes no cookies.

httpcore closes the socket where the handshake fails, but not where it is cancelled: then the socket lives on, and the
store waits at its other end, until the garbage collector comes by. httpx keeps every cookie that it is given for as
long as its client lives, and sends them all back: a store could fill memory by that.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import anyio
import httpcore
import httpx


class Transport(httpx.AsyncHTTPTransport):
    """As its base, and every connection is closed however it ends. No answer sets a cookie."""

    def __init__(self, *, verify: ssl.SSLContext, limits: httpx.Limits, proxy_url: str | None) -> None:
        """HTTP/1.1 only, nothing taken from the environment. Raises ValueError, httpx.InvalidURL for the proxy's."""
        super().__init__(verify=verify, http1=True, http2=False, trust_env=False, limits=limits, proxy=proxy_url)
        # httpx has no way to name a backend of its own; a test says when this one is not used any more.
        self._pool._network_backend = _Backend(self._pool._network_backend)  # noqa: SLF001

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As the base's."""
        response = await super().handle_async_request(request)
        response.headers.pop("set-cookie", None)
        return response


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  httpcore's
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  httpcore's
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._inner.aclose()
            raise
