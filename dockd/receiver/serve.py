"""Run a receiver inside the caller's event loop (docs/decisions.md says why on uvicorn)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

import structlog
import uvicorn
from starlette.types import ASGIApp

from dockd import faults as no
from dockd.errors import ConfigError
from dockd.faults import Faults
from dockd.model import Clock, Entropy
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.connections import Connections, Place
from dockd.receiver.door import Door
from dockd.receiver.entry import Entry, Paced
from dockd.receiver.layout import Layout
from dockd.receiver.promising import Policy, Promising, open_policy
from dockd.receiver.protocol import PatientProtocol
from dockd.receiver.scrub import Scrub
from dockd.receiver.sessions import Sessions
from dockd.receiver.settings import ReceiverSettings
from dockd.receiver.sharing import Sharing
from dockd.receiver.telling import Telling
from dockd.receiver.tus import Tus
from dockd.receiver.uploads import Uploads
from dockd.receiver.vault import Vault
from dockd.receiver.web import Calls, build
from dockd.receiver.witness import Witness

_log = structlog.get_logger()
_STOP_S = 2  # for requests under way; PATCHes are told to end at once
_SWEEP_S = 60.0
_BACKLOG = 1024  # connections that the kernel holds until they are looked at


async def serve(
    settings: ReceiverSettings,
    *,
    clock: Clock,
    random: Entropy,
    ready: Callable[[str], None],
    faults: Faults = no.NONE,
) -> None:
    """Receive until cancelled; `ready` is called once with the address when requests are taken.

    Stops within about three seconds after cancellation, then raises CancelledError. Raises ConfigError where the
    address, certificate or key cannot be used, CatalogueError where another receiver has the directory.
    """
    context = await asyncio.to_thread(_tls, settings)
    layout = Layout(root=settings.directory, faults=faults)
    await asyncio.to_thread(layout.make)
    is_new = not await asyncio.to_thread(_has_clips, layout)
    catalogue = await Catalogue.open(settings.directory, may_be_new=is_new, faults=faults)
    try:
        uploads = Uploads(catalogue=catalogue, layout=layout, settings=settings, clock=clock)
        await asyncio.to_thread(layout.sweep)
        await uploads.sweep()
        policy = await open_policy(catalogue, layout, settings, clock)
        connections = Connections(settings.limits, clock)
        app = _wire(settings, catalogue, layout, uploads, connections, policy=policy, clock=clock, random=random)
        with _listen(settings) as listening:
            server = _server(settings, app, context=context, listening=listening, connections=connections, ready=ready)
            async with asyncio.TaskGroup() as tasks:
                scrub = Scrub(catalogue=catalogue, layout=layout, settings=settings, uploads=uploads, clock=clock)
                beside = [tasks.create_task(_expire(uploads, clock)), tasks.create_task(scrub.run())]
                try:
                    await _run(server, uploads)
                finally:
                    for task in beside:
                        task.cancel()
    finally:
        await catalogue.aclose()


class _Server(uvicorn.Server):
    """uvicorn, but signals are the program's affair, connections come through a door, and somebody wants to know."""

    def __init__(
        self, config: uvicorn.Config, listening: socket.socket, door: Door, ready: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._door = door
        self._ready = ready
        self._entering: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._entering = asyncio.create_task(self._door.run())
        self._entering.add_done_callback(self._end)
        host, port = self._listening.getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        _log.info("receiver_listening", address=address)
        self._ready(address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; connections whose peers do not answer the end of TLS are cut."""
        if self._entering is not None:
            self._entering.cancel()
            await asyncio.wait([self._entering])
        self._listening.close()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()
        if self._entering is not None and not self._entering.cancelled():
            self._entering.result()  # an error that nobody foresaw ends the receiver

    async def run_on(self) -> None:
        """Serve until `should_exit`."""
        await self.serve(sockets=[])  # it is the door that listens

    def _end(self, entering: asyncio.Task[None]) -> None:
        """Whatever ends the door ends the receiver."""
        del entering
        self.should_exit = True


async def _run(server: _Server, uploads: Uploads) -> None:
    running = asyncio.ensure_future(server.run_on())
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        if running.done():
            raise
        _log.info("receiver_stopping")
        uploads.stop()
        server.should_exit = True
        await running
        raise


async def _expire(uploads: Uploads, clock: Clock) -> None:
    while True:
        try:
            await uploads.expire()
        except (OSError, sqlite3.Error) as error:
            _log.error("expiry_failed", error=str(error))
        await clock.sleep(_SWEEP_S)


def _server(
    settings: ReceiverSettings,
    app: ASGIApp,
    *,
    context: ssl.SSLContext,
    listening: socket.socket,
    connections: Connections,
    ready: Callable[[str], None],
) -> _Server:
    config, limits = _config(app, settings), settings.limits

    def make(place: Place) -> PatientProtocol:
        state = server.server_state
        return PatientProtocol(config=config, state=state, limits=limits, connections=connections, place=place)

    server = _Server(
        config, listening, Door(listening, context, limits=limits, connections=connections, make=make), ready
    )
    return server


def _wire(
    settings: ReceiverSettings,
    catalogue: Catalogue,
    layout: Layout,
    uploads: Uploads,
    connections: Connections,
    *,
    policy: Policy,
    clock: Clock,
    random: Entropy,
) -> ASGIApp:
    sessions = Sessions(
        catalogue=catalogue, layout=layout, settings=settings, policy=policy.signed, clock=clock, random=random
    )
    promising = Promising(catalogue=catalogue, settings=settings, policy=policy, clock=clock)
    vault = Vault(
        catalogue=catalogue,
        layout=layout,
        settings=settings,
        uploads=uploads,
        promising=promising,
        clock=clock,
        random=random,
    )
    sharing = Sharing(catalogue=catalogue, layout=layout, settings=settings, uploads=uploads)
    witness = Witness(catalogue=catalogue, layout=layout, settings=settings, clock=clock)
    entry = Entry(sessions, connections)
    tus = Tus(entry=entry, uploads=uploads, vault=vault, settings=settings, clock=clock)
    telling = Telling(catalogue=catalogue, settings=settings, clock=clock)
    calls = Calls(entry=entry, sessions=sessions, vault=vault, sharing=sharing, witness=witness, telling=telling)
    return Paced(build(calls, tus, clock), connections)


def _config(app: ASGIApp, settings: ReceiverSettings) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # at "warning" it has a line for each request that cannot be parsed, whoever sends them
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=ceil(settings.limits.idle_s),
        timeout_graceful_shutdown=_STOP_S,
    )
    config.load()
    return config


def _has_clips(layout: Layout) -> bool:
    return next(layout.acquisitions.glob("*/*"), None) is not None


def _tls(settings: ReceiverSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        problem = (
            f"receiver.tls_cert, receiver.tls_key: {settings.tls_cert} and {settings.tls_key} cannot be used: {error}"
        )
        raise ConfigError("the receiver's certificate or key cannot be used", problems=(problem,)) from error
    return context


@contextmanager
def _listen(settings: ReceiverSettings) -> Iterator[socket.socket]:
    host, port = settings.listen_host, settings.listen_port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Not inheritable, like every descriptor Python makes: no child could keep the port.
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        problem = f"receiver.listen: {host}:{port} cannot be listened on: {error.strerror or error}"
        raise ConfigError("the receiver cannot listen", problems=(problem,)) from error
    with contextlib.closing(listening):
        # Connections inherit it. asyncio sets it only where it knows the protocol, which create_server does not say;
        # without it the second half of an answer waits 40 ms for the acknowledgement of the first.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listening
