"""JSON as everything signed uses it (docs/formats.md): one line, sorted keys, no floats, duplicate keys refused."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dockd.errors import VerificationFailed
from dockd.model import Digest

MAX_INTEGER = 2**53 - 1
_MAX_SHOWN = 100  # characters of a foreign value in a sentence
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def encode(record: dict[str, Any]) -> bytes:
    """One line of canonical JSON, without the LF. Raises ValueError for what the format cannot say."""
    if "type" not in record or "v" not in record:
        raise ValueError("every object needs 'type' and 'v'")
    _check(record)
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def decode(line: bytes, *, type_: str, version: int = 1, newest: int = 1) -> dict[str, Any]:
    """Parse bytes that were verified before. Raises VerificationFailed unless they are strict JSON of `type_`.

    Its `v` is from `version` to `newest`.
    """
    try:
        record = json.loads(
            line.decode(), object_pairs_hook=_no_duplicates, parse_float=_refuse, parse_constant=_refuse
        )
        _check(record)
    except (ValueError, RecursionError) as error:
        raise VerificationFailed(f"not a {type_}: {error}") from error
    if not isinstance(record, dict):
        raise VerificationFailed(f"not a {type_}: not an object")
    versions = range(version, max(version, newest) + 1)
    if record.get("type") != type_ or record.get("v") not in versions or record["v"] is True:
        raise VerificationFailed(
            f"expected type {type_!r} version {version}, found {shown(record.get('type'))} version "
            f"{shown(record.get('v'))}"
        )
    return record


def digest(content: bytes) -> Digest:
    """SHA-256 in the one spelling used everywhere."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def parse_digest(text: object) -> Digest:
    """`text` if it is a digest in the one spelling. Raises VerificationFailed otherwise."""
    if isinstance(text, str) and _DIGEST.fullmatch(text):
        return Digest(text)
    raise VerificationFailed(f"not a digest: {shown(text)} (expected sha256: and 64 lower-case hex digits)")


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds (truncated) and Z. Raises ValueError for a naive time."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    # Not strftime: its %Y has fewer than four digits for years before 1000, which a camera's file system may state.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_time(text: object) -> datetime:
    """The inverse of format_time. Raises VerificationFailed."""
    if isinstance(text, str) and _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError as error:
            raise VerificationFailed(f"not a time: {shown(text)}") from error
    raise VerificationFailed(f"not a time: {shown(text)} (expected like 2026-01-31T23:59:59.999Z)")


def encode_path(path: bytes) -> str:
    """Percent-encode a path's bytes; `/` and RFC 3986's unreserved characters stand as they are."""
    return quote_from_bytes(path, safe="/")


def decode_path(text: object) -> bytes:
    """The inverse of encode_path. Raises VerificationFailed where the text is not in that one spelling."""
    if isinstance(text, str):
        path = unquote_to_bytes(text)
        if encode_path(path) == text:
            return path
    raise VerificationFailed(f"not a percent-encoded path: {shown(text)}")


def shown(value: object) -> str:
    """A value of somebody else's as far as it may enter a sentence, which may end in a log or a custody entry."""
    if isinstance(value, dict | list):
        return f"a {type(value).__name__}"  # which may be nested deeper than repr can follow
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _check(value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"key {key!r} is no text")  # noqa: TRY004  one error class for what cannot be said
            _check(inner)
            _check(key)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner)
    elif isinstance(value, str):
        value.encode()  # a lone surrogate, which JSON can escape, is no text: UnicodeEncodeError is a ValueError
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"integer {shown(value)} is beyond 2^53-1")
    else:
        raise ValueError(f"{type(value).__name__} has no place in canonical JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key stands twice")
    return record


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{shown(text)} has no place in canonical JSON")
