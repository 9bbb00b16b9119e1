"""A proxy between a station and its store that misbehaves on request, one HTTP exchange at a time.

It speaks TLS on both sides, or plain HTTP where it is given no certificate or no authority to believe. It runs on an
event loop of its own in a thread, so that a test may block. What it did stands in `seen`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HEAD_LIMIT = 64 * 1024
PIECE = 64 * 1024
TURNS = 10  # of the loop, until what was aborted is closed: a handshake that was given up takes some


@dataclass
class Exchange:
    """One request as it came, and the ways to answer it."""

    method: str
    path: str
    head: bytes
    length: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    proxy: Proxy
    body: bytes = b""  # what was read and is held
    passed: int = 0  # what went on at once, held nowhere
    beyond: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def take(self, count: int | None = None) -> None:
        """Read so much of the body; all of it where nothing is said."""
        wanted = self.length if count is None else min(count, self.length)
        while len(self.body) < wanted:
            piece = await self.reader.read(min(PIECE, wanted - len(self.body)))
            if not piece:
                raise ConnectionError("the station went away")
            self.body += piece

    async def ask(self) -> bytes:
        """The store's whole answer to the whole request, over a connection of its own."""
        await self.take()
        reader, writer = await self._open()
        try:
            writer.write(self.body)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    async def pass_on(self, count: int | None = None) -> None:
        """Give so much of the body to the store as it comes, of all of it; what was taken before is not given."""
        wanted = self.length if count is None else min(count, self.length)
        if self.beyond is None:
            self.beyond = await self._open()
        while self.passed < wanted:
            piece = await self.reader.read(min(PIECE, wanted - self.passed))
            if not piece:
                raise ConnectionError("the station went away")
            self.beyond[1].write(piece)
            self.passed += len(piece)
            await self.beyond[1].drain()

    async def hand_back(self) -> None:
        """Give the store's answer to the station as it comes, to its end."""
        assert self.beyond
        while piece := await self.beyond[0].read(PIECE):
            await self.answer(piece)

    async def leave(self) -> None:
        """End the connection to the store, where one is open; what it was given arrives first."""
        if self.beyond is None:
            return
        writer = self.beyond[1]
        try:
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), 5)
        except (OSError, TimeoutError):
            pass
        finally:
            writer.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.proxy.target, ssl=self.proxy.upstream)
        self.proxy._opened.add(writer)
        head = re.sub(rb"(?im)^connection:.*\r\n", b"", self.head)
        writer.write(head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n")
        return reader, writer

    async def answer(self, content: bytes) -> None:
        """Send an answer as it is. The connection ends with it."""
        self.writer.write(content)
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection with RST."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Fault = Callable[[Exchange], Awaitable[None]]


@dataclass
class Rule:
    """The next `times` requests that fit are answered by `fault`."""

    fault: Fault
    method: str
    path: str
    times: int

    def fits(self, exchange: Exchange) -> bool:
        return self.times > 0 and exchange.method == self.method and bool(re.search(self.path, exchange.path))


@dataclass
class Proxy:
    """Listens at `port` once started. `order` sets what goes wrong next; everything else passes."""

    target: tuple[str, int]
    certificate: Path | None = None
    key: Path | None = None
    believes: Path | None = None  # the target's authority, where it is another than the certificate
    rules: list[Rule] = field(default_factory=list)
    seen: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, bytes of the body that came
    port: int = 0

    def start(self) -> None:
        self.upstream, self._context = None, None
        if authority := self.believes or self.certificate:
            self.upstream = ssl.create_default_context(cafile=str(authority))
            self.upstream.check_hostname = False
        if self.certificate and self.key:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(self.certificate, self.key)
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def order(self, fault: Fault, method: str, path: str, times: int = 1) -> Rule:
        self.rules[:] = [Rule(fault, method, path, times)]
        self.seen.clear()
        return self.rules[0]

    def show(self, certificate: Path, key: Path) -> None:
        """New connections meet this certificate."""
        assert self._context
        self._context.load_cert_chain(certificate, key)

    def count(self, method: str, path: str) -> int:
        return sum(one == method and bool(re.search(path, where)) for one, where, _ in list(self.seen))

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # broken connections are its trade
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._opened:
            writer.transport.abort()  # what is closing may still wait for the other side to end its TLS
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self._exchange(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        found = re.search(rb"(?im)^content-length: *(\d+)", head)
        exchange = Exchange(
            method=method,
            path=path,
            head=head,
            length=int(found.group(1)) if found else 0,
            reader=reader,
            writer=writer,
            proxy=self,
        )
        rule = next((rule for rule in self.rules if rule.fits(exchange)), None)
        try:
            if rule is None:
                await exchange.pass_on()
                await exchange.hand_back()
            else:
                rule.times -= 1
                await rule.fault(exchange)
        finally:
            self.seen.append((method, path, len(exchange.body) + exchange.passed))
            await exchange.leave()


def between(trial, store_settings: str) -> Proxy:
    """A proxy that was started, and that the station of a trial is set up to take for its store."""
    receiver, station = trial.directory / "receiver.toml", trial.directory / "dockd.toml"
    tls = trial.directory / "store" / "keys"
    port = int(re.search(r'listen = "127.0.0.1:(\d+)"', receiver.read_text()).group(1))
    proxy = Proxy(target=("127.0.0.1", port), certificate=tls / "tls.crt", key=tls / "tls.key")
    proxy.start()
    url = "https://127.0.0.1:{}"
    _replace(receiver, "public_hosts = [", f'public_hosts = ["127.0.0.1:{proxy.port}", ')
    _replace(station, f'url = "{url.format(port)}"', f'url = "{url.format(proxy.port)}"\n{store_settings}')
    return proxy


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
