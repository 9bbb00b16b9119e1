"""Refusals as RFC 9457 problem records. docs/receiver.md lists the types; a test compares it with `Kind`."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from starlette.responses import Response

PREFIX = "urn:dockd:problem:"
MEDIA_TYPE = "application/problem+json"


class Kind(Enum):
    """Every kind of refusal: status and title. Its `type` is PREFIX and the name in lower case with hyphens."""

    MALFORMED = (400, "The request cannot be read")
    CHECKSUM_UNKNOWN = (400, "No such checksum algorithm")
    NO_TOKEN = (401, "A session token is needed")
    UNKNOWN_STATION = (403, "The station is not enrolled")
    SESSION_REFUSED = (403, "The session statement does not verify")
    SIGNATURE_REFUSED = (403, "The signature does not verify")
    OTHER_STATION = (403, "The manifest is another station's")
    RECIPIENT_REFUSED = (403, "The clip is not sealed to the right recipients")
    NOT_ANNOUNCED = (403, "The acquisition was not announced")
    OTHER_MANIFEST = (403, "Another manifest was announced")
    FINISHED = (403, "The upload is finished and cannot be changed")
    OTHER_LOG = (403, "The checkpoint is of another log, or not signed by its station")
    NOT_FOUND = (404, "There is nothing here")
    METHOD_NOT_ALLOWED = (405, "The method has no meaning here")
    STALLED = (408, "No byte arrived for too long")
    CONFLICT = (409, "The same acquisition or clip was announced differently")
    OFFSET_MISMATCH = (409, "The upload stands at another offset")
    INCOMPLETE = (409, "Bytes are still missing")
    CHECKPOINT_SIZE = (409, "Another checkpoint is the newest")
    PROMISE_OVER = (409, "The promise is over")
    NOT_LONGER = (409, "No more is promised")
    CHALLENGE_UNKNOWN = (410, "The challenge was used, is too old or was never given")
    OBJECT_LOST = (410, "The object is no longer as it was signed for")
    TUS_VERSION = (412, "Tus-Resumable: 1.0.0 is needed")
    TOO_LARGE = (413, "Too many bytes")
    CONTENT_TYPE = (415, "Another content type is needed")
    MANIFEST_MISMATCH = (422, "The manifest contradicts the request or itself")
    LENGTH_MISMATCH = (422, "The length is not the manifest's")
    DIGEST_MISMATCH = (422, "The bytes are not the manifest's")
    HEADER_REFUSED = (422, "The sealed clip's header does not fit its manifest")
    LOG_FORKED = (422, "The custody log was forked or rolled back")
    LOCKED = (423, "Another request writes to this upload")
    TOO_MANY = (429, "Too many requests of one kind")
    CHECKSUM_MISMATCH = (460, "The checksum does not match")
    INTERNAL = (500, "The receiver failed")
    STOPPING = (503, "The receiver is being stopped")
    DISK_FULL = (507, "The disk is full")
    STATION_SHARE = (507, "The station has too much unfinished here")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[0]

    @property
    def title(self) -> str:
        """The title."""
        return self.value[1]

    @property
    def type(self) -> str:
        """The problem type's URI."""
        return PREFIX + self.name.lower().replace("_", "-")


class Problem(Exception):
    """Ends a request with a problem record. `detail` is for a person and says what to do."""

    def __init__(
        self, kind: Kind, detail: str, *, headers: dict[str, str] | None = None, **members: str | int | None
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.members = {key: value for key, value in members.items() if value is not None}

    def response(self) -> Response:
        """The answer."""
        record: dict[str, Any] = self.members | {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        body = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        headers = {"Cache-Control": "no-store"} | self.headers
        return Response(body, status_code=self.kind.status, headers=headers, media_type=MEDIA_TYPE)
