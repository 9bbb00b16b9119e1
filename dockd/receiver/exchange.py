"""What every handler needs of a request: its token, its small JSON body, and answers in canonical JSON."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dockd.core import canonical, sshsig
from dockd.core.fields import Fields
from dockd.errors import VerificationFailed
from dockd.model import SignedBytes
from dockd.receiver.problems import Kind, Problem

MAX_BODY_BYTES = 64 * 1024
_BODY_S = 30.0  # a small body that takes longer is not coming


async def read_json(request: Request, type_: str) -> Fields:
    """The body as a record of `type_`, to be taken apart. Raises Problem MALFORMED, TOO_LARGE or STALLED."""
    try:
        return Fields(canonical.decode(await _read_body(request), type_=type_), type_)
    except VerificationFailed as error:
        raise malformed(error) from error


async def read_record(request: Request) -> dict[str, Any]:
    """The body as a record: a signed envelope, or what a session begins with."""
    body = await _read_body(request)
    try:
        return canonical.decode(body, type_="signed")
    except VerificationFailed as error:
        try:
            return canonical.decode(body, type_="session-request")
        except VerificationFailed:
            raise malformed(error) from error


async def read_signed(request: Request) -> SignedBytes:
    """The body as a signed envelope; nothing is verified yet."""
    return to_signed(await read_record(request))


def to_signed(record: dict[str, Any]) -> SignedBytes:
    """A record as a signed envelope. Raises Problem MALFORMED."""
    try:
        return sshsig.signed_from_json(record)
    except VerificationFailed as error:
        raise malformed(error) from error


def malformed(error: VerificationFailed) -> Problem:
    """What is said of a body that cannot be read."""
    return Problem(Kind.MALFORMED, f"{error}: docs/receiver.md says what belongs here")


def answer(record: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in canonical JSON."""
    said = {"Cache-Control": "no-store"} | (headers or {})
    return Response(canonical.encode(record), status_code=status, headers=said, media_type="application/json")


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise Problem(Kind.TOO_LARGE, f"no more than {MAX_BODY_BYTES} bytes of JSON are read")
    except TimeoutError as error:
        raise Problem(Kind.STALLED, "the body did not arrive in time: send it again") from error
    except ClientDisconnect as error:
        raise Problem(Kind.MALFORMED, "the connection was lost before the body was whole") from error
    return bytes(body)
