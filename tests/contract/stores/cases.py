"""What the suite knows of one store: how to reach it, and how to make it, or the way to it, fail.

A kind of store adds a module with a `Kind`, and its name to `KINDS` in kinds.py. Its `open` is an asynchronous
context manager that gives a `Case`; what does not apply to the kind stands in exclusions.py, with the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
from contract.evidence import Clip
from fault.network import faults
from fault.network.proxy import Exchange, Proxy
from servers.nginx import Doors

from dockd.core.objects import Piece
from dockd.core.transfer import Call


class Way(StrEnum):
    """What lies between the station and the server."""

    DIRECT = "direct"
    BUFFERING = "nginx-buffering"
    PASSING = "nginx-passing"


class Faults(Protocol):
    """What can be ordered of a store, or of the way to it. Each order is for the next such call, once."""

    def cut(self, kept_bytes: int) -> None:
        """The next append breaks when the server was given so many bytes of it."""

    def hang(self, kept_bytes: int) -> threading.Event:
        """The next append hangs when the server was given so many bytes of it, and stays open there.

        The event is set when it does.
        """

    def lose(self, call: Call) -> None:
        """The next call of this kind is done, and its answer is lost."""

    def answer(self, call: Call, status: int, *headers: str, early: bool = False, times: int = 1) -> None:
        """The next calls of this kind are answered so, by no store. `early`: before their bodies are read."""


@dataclass(kw_only=True)
class Case:
    """One store, running. `connect` makes a new adapter of it, as another life of the program does."""

    connect: Callable[[], object]
    connect_wrongly: Callable[[], object]  # with credentials that it does not take
    clip: Callable[..., Clip]  # `size` in bytes of plaintext
    faults: Faults
    # Of stores of objects; what the operator of the server can do:
    remove: Callable[[str, Piece], Awaitable[None]] | None = None  # one object, by what `finish` returned
    occupy: Callable[[object, Clip], Awaitable[None]] | None = None  # put another object where the clip's is to stand
    expire: Callable[[str], Awaitable[None]] | None = None  # an upload's time passes
    # The server's disk is full meanwhile; or a quota is used up, which is what that looks like to one of many tenants.
    fill: Callable[[], AbstractAsyncContextManager[None]] | None = None
    piece_bytes: int = 64 * 1024  # how much the suite appends at once, where the store has no opinion
    # Where an nginx stands before the server: its doors, and an adapter for an address, with an authority to believe.
    nginx: Doors | None = None
    at: Callable[[str, Path], object] | None = None
    connected: list[object] = field(default_factory=list)

    def adapter(self, make: Callable[[], object] | None = None) -> object:
        """A new adapter, closed when the test ends."""
        made = (make or self.connect)()
        self.connected.append(made)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of store. `open(request, way)` starts what it needs, or uses what runs."""

    name: str
    title: str = ""  # of a real server, as docs/stores.md names it
    open: Callable[[pytest.FixtureRequest, Way], AbstractAsyncContextManager[Case]]
    ways: tuple[Way, ...] = tuple(Way)
    servers: bool = True  # whether it starts servers that are installed from packages
    keeps_objects: bool = True


class ProxyFaults:
    """Faults made by a proxy before the server. `calls`: method and a pattern of the path, for each call."""

    def __init__(self, proxy: Proxy, calls: Mapping[Call, tuple[str, str]]) -> None:
        self._proxy = proxy
        self._calls = calls

    def cut(self, kept_bytes: int) -> None:
        """As the protocol says."""
        self._proxy.order(faults.cut_after(kept_bytes), *self._calls[Call.APPEND])

    def hang(self, kept_bytes: int) -> threading.Event:
        """As the protocol says."""
        hangs = threading.Event()
        self._proxy.order(faults.hang_after(kept_bytes, hangs), *self._calls[Call.APPEND])
        return hangs

    def lose(self, call: Call) -> None:
        """As the protocol says."""
        self._proxy.order(_pass_and_lose, *self._calls[call])

    def answer(self, call: Call, status: int, *headers: str, early: bool = False, times: int = 1) -> None:
        """As the protocol says."""
        fault = faults.status(status, *headers, early=early, content_type="text/html")  # as proxies speak
        self._proxy.order(fault, *self._calls[call], times=times)


async def _pass_and_lose(exchange: Exchange) -> None:
    await exchange.pass_on()
    assert exchange.beyond
    assert await exchange.beyond[0].read(1), "the store ended without an answer"
    await exchange.beyond[0].read()
    exchange.reset()


def proxy_before(url: str, **settings: object) -> tuple[Proxy, str]:
    """A started proxy before a server, and the address by which the server is reached through it."""
    parts = urlsplit(url)
    proxy = Proxy(target=(parts.hostname, parts.port), **settings)
    proxy.start()
    scheme = "https" if proxy.certificate else "http"
    return proxy, f"{scheme}://127.0.0.1:{proxy.port}{parts.path}"
