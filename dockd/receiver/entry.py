"""Whose request it is, and what a peer may ask for before it has shown a token."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dockd.model import StationId
from dockd.receiver.connections import Connections, Place
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.protocol import CONNECTION
from dockd.receiver.sessions import Caller, Sessions

_CLOSE = {"Connection": "close"}


class Entry:
    """Knows a caller by its token, and makes its connection its station's."""

    def __init__(self, sessions: Sessions, connections: Connections) -> None:
        self._sessions = sessions
        self._connections = connections

    async def caller(self, request: Request) -> Caller:
        """Whose request this is. Raises Problem NO_TOKEN, UNKNOWN_STATION, or TOO_MANY connections of one station."""
        caller = await self._sessions.caller(request.headers.get("authorization"))
        self.let_in(request, caller.station)
        return caller

    def let_in(self, request: Request, station: StationId) -> None:
        """Make the connection this station's, which has shown who it is. Raises Problem TOO_MANY."""
        request.state.station = station
        if not self._connections.belongs_to(getattr(request.state, CONNECTION), station):
            raise Problem(
                Kind.TOO_MANY,
                "too many connections are open here, or too many of this station: close those that are not in use",
                headers=_CLOSE | {"Retry-After": "10"},
            )


class Paced:
    """Lets a peer ask only so much without a token. What is refused here leaves no line in the log of requests."""

    def __init__(self, inner: ASGIApp, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        place: Place = scope["state"][CONNECTION]
        if place.peer is None or place.station is not None or self._connections.may_ask(place.peer):
            await self._inner(scope, receive, send)
            return
        problem = Problem(
            Kind.TOO_MANY,
            "too many requests without a token from this address: come back later",
            headers=_CLOSE | {"Retry-After": "10"},
        )
        await problem.response()(scope, receive, send)
