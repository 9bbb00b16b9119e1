"""The receiver's HTTP side: routes, JSON calls, refusals and the access log."""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dockd.core import canonical, sshsig, versions
from dockd.core.challenge import MAX_RANGES, MAX_TOTAL_BYTES, NONCE_BYTES, Range
from dockd.core.fields import Fields
from dockd.errors import VerificationFailed
from dockd.model import Clock, StationId
from dockd.receiver.entry import Entry
from dockd.receiver.exchange import answer, malformed, read_json, read_record, read_signed, to_signed
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.sessions import Sessions
from dockd.receiver.sharing import Sharing
from dockd.receiver.telling import Telling
from dockd.receiver.tus import Tus
from dockd.receiver.uploads import disk_full
from dockd.receiver.vault import Vault
from dockd.receiver.witness import Witness

_log = structlog.get_logger()
_OFFSET = re.compile(rb"[0-9]{1,15}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NODE = re.compile(r"[0-9a-f]{64}")
_MAX_STATIONS = 64  # in one look-up
_MAX_PROOF = 128  # nodes; a log of 2^53 entries needs fewer
_Handler = Callable[[Request], Awaitable[Response]]


class Calls:
    """The JSON calls."""

    def __init__(
        self,
        *,
        entry: Entry,
        sessions: Sessions,
        vault: Vault,
        sharing: Sharing,
        witness: Witness,
        telling: Telling,
    ) -> None:
        self._entry = entry
        self._sessions = sessions
        self._vault = vault
        self._sharing = sharing
        self._witness = witness
        self._telling = telling

    async def health(self, request: Request) -> Response:
        """GET /health: the receiver takes requests."""
        del request
        return answer({"type": "health", "v": 1})

    async def session(self, request: Request) -> Response:
        """POST /session: a challenge for a station's name, a token for a signed challenge."""
        record = await read_record(request)
        if record["type"] == "session-request":
            fields = Fields(record, "session-request")
            chooses = "accepts" in record  # what it accepts counts as it is signed, below

            def take() -> str:
                if chooses:
                    versions.take(fields.mapping("accepts"))
                return fields.uuid("station")

            return answer(await self._sessions.challenge(_taken(take, fields), chooses=chooses))
        signed = to_signed(record)
        opened = await self._sessions.open(signed)
        # What it says was believed just now: from here on the connection is no stranger's.
        self._entry.let_in(request, canonical.decode(signed.payload, type_="session", newest=2)["station"])
        return answer(opened, status=201)

    async def announce(self, request: Request) -> Response:
        """PUT /acquisitions/{acquisition}: a signed manifest."""
        caller = await self._entry.caller(request)
        signed = await read_signed(request)
        one, is_new = await self._vault.announce(caller, _id(request), signed)
        location = f"/uploads/{one.upload}"
        record = {
            "type": "upload",
            "v": 1,
            "upload": location,
            "offset": one.durable_bytes,
            "stored": one.state == "stored",
        }
        return answer(record, status=201 if is_new else 200, headers={"Location": location})

    async def receipt(self, request: Request) -> Response:
        """POST /acquisitions/{acquisition}/receipt."""
        caller = await self._entry.caller(request)
        fields = await read_json(request, "receipt-request")
        digest = _taken(lambda: fields.digest("manifest"), fields)
        return answer(sshsig.signed_to_json(await self._vault.receipt(caller, _id(request), digest)))

    async def extension(self, request: Request) -> Response:
        """POST /acquisitions/{acquisition}/extension: what its receipt promises is to reach further."""
        caller = await self._entry.caller(request)
        fields = await read_json(request, "extension-request")
        digest, after = _taken(lambda: (fields.digest("receipt"), fields.count("after")), fields)
        signed = await self._vault.extension(caller.station, _id(request), digest, after)
        return answer(sshsig.signed_to_json(signed))

    async def twins(self, request: Request) -> Response:
        """POST /acquisitions/{acquisition}/twins: what other stations brought of the same clip."""
        caller = await self._entry.caller(request)
        fields = await read_json(request, "twins-request")
        stations = _taken(lambda: fields.texts("stations"), fields)
        if len(stations) > _MAX_STATIONS:
            raise Problem(Kind.MALFORMED, f"at most {_MAX_STATIONS} stations: ask several times")
        found = await self._sharing.twins(caller.station, _id(request), {StationId(one) for one in stations})
        return answer({"type": "twins", "v": 1, "manifests": [sshsig.signed_to_json(one) for one in found]})

    async def share(self, request: Request) -> Response:
        """POST /acquisitions/{acquisition}/share: another's object is to stand for this clip."""
        caller = await self._entry.caller(request)
        fields = await read_json(request, "share-request")
        digest = _taken(lambda: fields.digest("manifest"), fields)
        held = await self._sharing.share(caller.station, _id(request), digest)
        sealed = {"digest": held.sealed_digest, "size_bytes": held.size_bytes}
        return answer({"type": "shared", "v": 1, "sealed": sealed})

    async def ranges(self, request: Request) -> Response:
        """POST /acquisitions/{acquisition}/ranges."""
        caller = await self._entry.caller(request)
        fields = await read_json(request, "ranges-request")
        nonce, pairs = _taken(lambda: (fields.hex("nonce", NONCE_BYTES), fields.pairs("ranges")), fields)
        if len(pairs) > MAX_RANGES or sum(length for _, length in pairs) > MAX_TOTAL_BYTES:
            raise Problem(
                Kind.MALFORMED, f"at most {MAX_RANGES} ranges, of {MAX_TOTAL_BYTES} bytes together: ask several times"
            )
        wanted = tuple(Range(offset=offset, length=length) for offset, length in pairs)
        found = await self._vault.ranges(caller.station, _id(request), nonce, wanted)
        return answer({"type": "ranges", "v": 1, "digests": [one.hex() for one in found]})

    async def holding(self, request: Request) -> Response:
        """POST /acquisitions/{acquisition}/holding."""
        caller = await self._entry.caller(request)
        fields = await read_json(request, "holding-request")
        nonce = _taken(lambda: fields.hex("nonce", NONCE_BYTES), fields)
        return answer(sshsig.signed_to_json(await self._vault.holding(caller, _id(request), nonce)))

    async def checkpoints(self, request: Request) -> Response:
        """GET /checkpoints: the newest one's size. POST /checkpoints: have one cosigned."""
        caller = await self._entry.caller(request)
        if request.method in ("GET", "HEAD"):
            return answer({"type": "checkpoint-size", "v": 1, "size": await self._witness.size(caller)})
        fields = await read_json(request, "checkpoint-submission")

        def take() -> tuple[int, list[str], str]:
            return fields.count("old_size"), list(fields.texts("proof")), fields.text("note")

        old_size, proof, note = _taken(take, fields)
        if len(proof) > _MAX_PROOF or not all(_NODE.fullmatch(node) for node in proof):
            raise Problem(Kind.MALFORMED, "'proof' has to be a list of hashes in lower-case hex")
        nodes = [bytes.fromhex(node) for node in proof]
        cosigned = await self._witness.cosign(caller, note.encode(), old_size, nodes)
        return answer({"type": "cosigned", "v": 1, "note": cosigned.decode()})

    async def losses(self, request: Request) -> Response:
        """POST /losses: what was looked at again of the station's acquisitions, and what of that is lost."""
        caller = await self._entry.caller(request)
        fields = await read_json(request, "losses-request")
        nonce, after = _taken(lambda: (fields.hex("nonce", NONCE_BYTES), fields.text("after")), fields)
        if after and not _UUID.fullmatch(after):
            raise Problem(Kind.MALFORMED, "'after' has to be empty, or the id of an acquisition")
        return answer(sshsig.signed_to_json(await self._telling.losses(caller.station, nonce, after)))


def build(calls: Calls, tus: Tus, clock: Clock) -> ASGIApp:
    """The application."""
    every = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
    routes = [
        Route("/health", calls.health, methods=["GET"]),
        Route("/session", calls.session, methods=["POST"]),
        Route("/acquisitions/{acquisition}", calls.announce, methods=["PUT"]),
        Route("/acquisitions/{acquisition}/receipt", calls.receipt, methods=["POST"]),
        Route("/acquisitions/{acquisition}/extension", calls.extension, methods=["POST"]),
        Route("/acquisitions/{acquisition}/twins", calls.twins, methods=["POST"]),
        Route("/acquisitions/{acquisition}/share", calls.share, methods=["POST"]),
        Route("/acquisitions/{acquisition}/ranges", calls.ranges, methods=["POST"]),
        Route("/acquisitions/{acquisition}/holding", calls.holding, methods=["POST"]),
        Route("/losses", calls.losses, methods=["POST"]),
        Route("/checkpoints", calls.checkpoints, methods=["GET", "POST"]),
        Route("/uploads", tus.collection, methods=every),
        Route("/uploads/", tus.collection, methods=every),
        Route("/uploads/{upload}", tus.upload, methods=every),
    ]
    handlers: dict[Any, Any] = {Problem: _refused, HTTPException: _http_refused, Exception: _failed}
    inner = Starlette(routes=routes, exception_handlers=handlers)
    inner.router.redirect_slashes = False
    return AccessLog(inner, clock)


class AccessLog:
    """Logs each request without its query, headers and body, and whatever nobody foresaw."""

    def __init__(self, inner: ASGIApp, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        scope.setdefault("state", {})
        begun_s = self._clock.monotonic_s()
        status, durable = 0, None

        async def watched(message: Message) -> None:
            nonlocal status, durable
            if message["type"] == "http.response.start":
                status, durable = message["status"], _upload_offset(message.get("headers", ()))
            await send(message)

        try:
            await self._inner(scope, receive, watched)
        except Exception:  # noqa: BLE001  one request's failure is logged whole, and ends no other
            # Starlette has answered by `_failed` and raised it again, so that it is seen here.
            _log.exception("request_failed", method=scope["method"], path=scope["path"])
        finally:
            _log.info(
                "request_answered",
                method=scope["method"],
                path=scope["path"],
                status=status,
                offset=_upload_offset(scope["headers"]),
                durable=durable,
                duration_ms=round((self._clock.monotonic_s() - begun_s) * 1000),
                station=scope["state"].get("station"),
                client=(scope.get("client") or ("",))[0],
            )


async def _failed(request: Request, error: Exception) -> Response:
    """What nobody foresaw."""
    del request
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full("the store's disk is full").response()
    return Problem(Kind.INTERNAL, "the receiver failed at this request: its operators find why in its log").response()


def _upload_offset(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    value = dict(headers).get(b"upload-offset", b"")
    return int(value) if _OFFSET.fullmatch(value) else None


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise TypeError("not a problem")
    if error.kind.status in (403, 409, 422, 460):  # what an operator may have to explain
        _log.warning(
            "request_refused",
            kind=error.kind.name.lower(),
            detail=error.detail,
            path=request.url.path,
            station=getattr(request.state, "station", None),
        )
    return error.response()


async def _http_refused(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such route, no such method."""
    del request
    if not isinstance(error, HTTPException):
        raise TypeError("not a refusal")
    if error.status_code == Kind.METHOD_NOT_ALLOWED.status:
        allowed = (error.headers or {}).get("Allow", "")
        return Problem(
            Kind.METHOD_NOT_ALLOWED, f"here only these have a meaning: {allowed}", headers={"Allow": allowed}
        ).response()
    return Problem(Kind.NOT_FOUND, "no such address: docs/receiver.md lists them").response()


def _id(request: Request) -> str:
    return str(request.path_params["acquisition"])


def _taken(take: Callable[[], Any], fields: Fields) -> Any:
    """What `take` takes out of a body, and nothing else in it."""
    try:
        taken = take()
        fields.end()
    except VerificationFailed as error:
        raise malformed(error) from error
    return taken
