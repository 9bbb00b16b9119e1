"""tus 1.0 over the tus engine: core, creation, creation-with-upload, checksum, termination, expiration."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from email.utils import format_datetime

from starlette.requests import Request
from starlette.responses import Response

from dockd.model import Clock
from dockd.receiver import rows
from dockd.receiver.entry import Entry
from dockd.receiver.incoming import CHECKSUMS, Incoming
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.rows import Announced
from dockd.receiver.settings import ReceiverSettings
from dockd.receiver.uploads import Uploads
from dockd.receiver.vault import Vault

VERSION = "1.0.0"
_RESUMABLE = {"Tus-Resumable": VERSION}
_EXTENSIONS = "creation,creation-with-upload,checksum,termination,expiration"
_BODY_TYPE = "application/offset+octet-stream"
_NUMBER = re.compile(r"[0-9]{1,15}")


class Tus:
    """The handlers below /uploads."""

    def __init__(
        self, *, entry: Entry, uploads: Uploads, vault: Vault, settings: ReceiverSettings, clock: Clock
    ) -> None:
        self._entry = entry
        self._uploads = uploads
        self._vault = vault
        self._settings = settings
        self._clock = clock

    async def collection(self, request: Request) -> Response:
        """/uploads: OPTIONS and POST (creation)."""
        if request.method == "OPTIONS":
            return self._options()
        if _method(request) != "POST":
            raise _not_allowed("OPTIONS, POST")
        return await _spoken(request, self._create)

    async def upload(self, request: Request) -> Response:
        """/uploads/{upload}: OPTIONS, HEAD, PATCH and DELETE."""
        if request.method == "OPTIONS":
            return self._options()
        handler = {"HEAD": self._head, "PATCH": self._patch, "DELETE": self._delete}.get(_method(request))
        if handler is None:
            raise _not_allowed("OPTIONS, HEAD, PATCH, DELETE")
        return await _spoken(request, handler)

    def _options(self) -> Response:
        said = {
            "Tus-Version": VERSION,
            "Tus-Extension": _EXTENSIONS,
            "Tus-Max-Size": str(self._settings.max_clip_bytes),
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        }
        return Response(status_code=204, headers=_RESUMABLE | said)

    async def _create(self, request: Request) -> Response:
        caller = await self._entry.caller(request)
        acquisition = _metadata(request.headers.get("upload-metadata", "")).get("acquisition")
        if acquisition is None:
            raise Problem(
                Kind.NOT_ANNOUNCED,
                "Upload-Metadata names no 'acquisition': announce its manifest first (PUT /acquisitions/ID)",
            )
        try:
            one = await self._vault.find(caller.station, acquisition)
        except Problem as error:
            raise Problem(
                Kind.NOT_ANNOUNCED, "announce the acquisition's manifest first (PUT /acquisitions/ID)"
            ) from error
        if one.state != rows.OPEN:
            raise Problem(Kind.FINISHED, "the upload is finished: ask for its receipt")
        if (length := _number(request, "upload-length")) != one.size_bytes:
            raise Problem(
                Kind.LENGTH_MISMATCH, f"the manifest says {one.size_bytes} bytes, Upload-Length says {length}"
            )
        said = {"Location": f"/uploads/{one.upload}"}
        if _is_bytes(request) and one.durable_bytes == 0:
            one = await self._uploads.append(caller.station, one.upload, 0, self._incoming(request))
        if _is_bytes(request):
            said["Upload-Offset"] = str(one.durable_bytes)
        return Response(status_code=201, headers=_RESUMABLE | said | _expires(one))

    async def _head(self, request: Request) -> Response:
        caller = await self._entry.caller(request)
        one = await self._uploads.find_settled(caller.station, _id(request))
        said = {
            "Upload-Offset": str(one.durable_bytes),
            "Upload-Length": str(one.size_bytes),
            "Upload-Metadata": f"acquisition {base64.b64encode(one.acquisition.encode()).decode()}",
            "Cache-Control": "no-store",
        }
        return Response(status_code=200, headers=_RESUMABLE | said | _expires(one))

    async def _patch(self, request: Request) -> Response:
        caller = await self._entry.caller(request)
        if not _is_bytes(request):
            raise Problem(Kind.CONTENT_TYPE, f"send the bytes with 'Content-Type: {_BODY_TYPE}'")
        offset = _number(request, "upload-offset")
        one = await self._uploads.append(caller.station, _id(request), offset, self._incoming(request))
        said = {"Upload-Offset": str(one.durable_bytes)}
        return Response(status_code=204, headers=_RESUMABLE | said | _expires(one))

    async def _delete(self, request: Request) -> Response:
        caller = await self._entry.caller(request)
        await self._uploads.remove(caller.station, _id(request))
        return Response(status_code=204, headers=_RESUMABLE)

    def _incoming(self, request: Request) -> Incoming:
        length = request.headers.get("content-length")
        return Incoming(
            request.receive,
            length=_number(request, "content-length") if length is not None else None,
            clock=self._clock,
            stall_s=self._settings.stall.total_seconds(),
            checksum=_checksum(request.headers.get("upload-checksum")),
        )


async def _spoken(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
    """Call a handler where both sides speak the same tus; every answer then says so, a refusal too."""
    if request.headers.get("tus-resumable") != VERSION:
        raise Problem(
            Kind.TUS_VERSION, f"send 'Tus-Resumable: {VERSION}'", headers=_RESUMABLE | {"Tus-Version": VERSION}
        )
    try:
        return await handler(request)
    except Problem as problem:
        problem.headers.update(_RESUMABLE)
        raise


def _method(request: Request) -> str:
    """The method that is meant: some networks let only GET and POST through (tus, X-HTTP-Method-Override)."""
    return request.headers.get("x-http-method-override", request.method).upper()


def _id(request: Request) -> str:
    return str(request.path_params["upload"])


def _is_bytes(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == _BODY_TYPE


def _number(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not _NUMBER.fullmatch(text):
        raise Problem(Kind.MALFORMED, f"{header.title()} has to be a plain number, found {text[:40]!r}")
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, (one.strip() for one in text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Problem(
                Kind.MALFORMED, "Upload-Metadata has to be pairs of a key and Base64 (tus, creation)"
            ) from error
    return found


def _checksum(text: str | None) -> tuple[str, bytes] | None:
    if text is None:
        return None
    algorithm, _, value = text.strip().partition(" ")
    if algorithm not in CHECKSUMS:
        raise Problem(Kind.CHECKSUM_UNKNOWN, f"Upload-Checksum may use {' or '.join(CHECKSUMS)}")
    try:
        return algorithm, base64.b64decode(value.strip(), validate=True)
    except binascii.Error as error:
        raise Problem(Kind.MALFORMED, "Upload-Checksum has to be an algorithm and Base64") from error


def _expires(one: Announced) -> dict[str, str]:
    if one.state != rows.OPEN or one.durable_bytes == one.size_bytes:
        return {}
    return {"Upload-Expires": format_datetime(one.expires_at, usegmt=True)}


def _not_allowed(allowed: str) -> Problem:
    return Problem(Kind.METHOD_NOT_ALLOWED, f"here only these have a meaning: {allowed}", headers={"Allow": allowed})
