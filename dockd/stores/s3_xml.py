"""S3's answers in XML: no DTD, no entities, figures within bounds; otherwise taken as boto3 takes them.

A root of another name and no namespace are no fault, nor is an element that nothing is needed of. Where something that
is needed is missing from the store's own record, StoreLacks names it; what is no such record is no answer of S3.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from dockd.errors import ConfigError, StoreLacks, StoreUnreachable
from dockd.stores.s3_parts import MAX_PARTS, Part

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element  # for the type alone

_SHA256_BYTES = 32
_MAX_TEXT = 4096
_DIGITS = 16
_EPOCH_DIGITS = (9, 10)  # fewer or more would be a date without its dashes
_NOT_ALL = ("Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan")  # in a rule's filter: it is not about every clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error record. `region` where it names the one that the bucket is in."""

    code: str
    message: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsPage:
    """A page of ListParts. `marker`, the number of its last part, asks for the next one; None at the end."""

    parts: tuple[Part, ...]
    marker: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """One multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    initiated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadsPage:
    """A page of ListMultipartUploads. `marker` is the key and the upload id to go on behind; None at the end."""

    uploads: tuple[Unfinished, ...]
    marker: tuple[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """GetObjectRetention's answer."""

    mode: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """A lifecycle rule: of what keys, and after how many days it deletes; 0: not at all."""

    prefix: str
    days: int
    version_days: int  # of versions that are no longer the newest


def refusal(body: bytes) -> Refusal | None:
    """The error record that an answer's body is; None where it is none, be it another record or no XML at all."""
    if not body.lstrip().startswith(b"<"):
        return None
    try:
        root = _root(body)
    except StoreUnreachable:
        return None
    if _name(root) in ("ErrorResponse", "Response"):  # STS wraps it, and others do so twice
        root = next((one for level in (root, *root) for one in _children(level, "Error")), root)
    if _name(root) != "Error":
        return None
    return Refusal(code=_text(root, "Code"), message=_text(root, "Message"), region=_text(root, "Region"))


def is_page(body: bytes) -> bool:
    """Whether it is HTML: of a portal, or of a proxy."""
    begin = body.lstrip()[:16].lower()
    return begin.startswith((b"<html", b"<!doctype html"))


def lifecycle(body: bytes) -> tuple[Expiry, ...]:
    """GetBucketLifecycleConfiguration's answer: rules in force, without those for some objects by tag or size."""
    root = _record(body, "LifecycleConfiguration", ("Rule",))
    found = []
    for rule in _children(root, "Rule"):
        chosen = next(_children(rule, "Filter"), rule)
        chosen = next(_children(chosen, "And"), chosen)
        by_more = any(_name(one) in _NOT_ALL for one in chosen)
        if _text(rule, "Status") != "Enabled" or by_more:
            continue
        expires, versions = (
            next(_children(rule, name), rule) for name in ("Expiration", "NoncurrentVersionExpiration")
        )
        found.append(
            Expiry(
                prefix=_text(chosen, "Prefix") or _text(rule, "Prefix"),
                days=_number(expires, "Days") if _text(expires, "Days") else 0,
                version_days=_number(versions, "NoncurrentDays") if _text(versions, "NoncurrentDays") else 0,
            )
        )
    return tuple(found)


def upload_id(body: bytes) -> str:
    """CreateMultipartUpload's answer."""
    return _needed(_record(body, "InitiateMultipartUpload", ("UploadId",)), "UploadId")


def parts_page(body: bytes) -> PartsPage:
    """ListParts' answer."""
    root = _record(body, "ListParts", ("UploadId", "Part", "MaxParts", "IsTruncated"))
    parts = tuple(map(_part, _children(root, "Part")))
    marker = None
    if _truncated(root):
        said = _text(root, "NextPartNumberMarker") or not parts
        marker = _number(root, "NextPartNumberMarker") if said else parts[-1].number
    return PartsPage(parts=parts, marker=marker)


def uploads_page(body: bytes) -> UploadsPage:
    """ListMultipartUploads' answer."""
    root = _record(body, "ListMultipartUploads", ("Upload", "MaxUploads", "IsTruncated"))
    uploads = tuple(
        Unfinished(key=_needed(one, "Key"), upload_id=_needed(one, "UploadId"), initiated_at=_begun(one))
        for one in _children(root, "Upload")
    )
    marker = None
    if _truncated(root):
        marker = (_text(root, "NextKeyMarker"), _text(root, "NextUploadIdMarker"))
        if not marker[0] and uploads:
            marker = (uploads[-1].key, uploads[-1].upload_id)
        if not marker[0]:
            raise StoreLacks("NextKeyMarker in its answer")
    return UploadsPage(uploads=uploads, marker=marker)


def retention(body: bytes) -> Retention | None:
    """GetObjectRetention's answer. None where there is none."""
    root = _lock(body, "Retention")
    if not _text(root, "Mode"):
        return None
    return Retention(mode=_text(root, "Mode").upper(), until=_time(_needed(root, "RetainUntilDate")))


def legal_hold(body: bytes) -> bool:
    """GetObjectLegalHold's answer."""
    return _text(_lock(body, "LegalHold"), "Status").upper() == "ON"


def session(body: bytes) -> tuple[str, str, str, datetime]:
    """AssumeRoleWithWebIdentity's answer: access key, secret key, session token, and when they end."""
    root = _record(body, "AssumeRoleWithWebIdentity", ("AssumeRoleWithWebIdentityResult", "Credentials"))
    # Not by `iter`, which goes into itself for each level that there is.
    found = next((one for level in (root, *root) for one in _children(level, "Credentials")), root)
    keys = [_needed(found, name) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    return keys[0], keys[1], keys[2], _time(_needed(found, "Expiration"))


def sha256_of(text: str) -> bytes | None:
    """A digest in base64; None where it is none, for instance of another length."""
    try:
        digest = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == _SHA256_BYTES else None


def completion(parts: tuple[Part, ...]) -> bytes:
    """The body of CompleteMultipartUpload."""
    lines = ['<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">']
    for part in parts:
        checksum = ""
        if part.sha256 is not None:
            checksum = f"<ChecksumSHA256>{binascii.b2a_base64(part.sha256, newline=False).decode()}</ChecksumSHA256>"
        etag = _escaped(part.etag)
        lines.append(f"<Part><PartNumber>{part.number}</PartNumber><ETag>{etag}</ETag>{checksum}</Part>")
    return "".join([*lines, "</CompleteMultipartUpload>"]).encode()


def retain(mode: str, until: datetime) -> bytes:
    """The body of PutObjectRetention."""
    stamp = stamp_of(until)
    return f"<Retention><Mode>{mode}</Mode><RetainUntilDate>{stamp}</RetainUntilDate></Retention>".encode()


def hold(*, on: bool) -> bytes:
    """The body of PutObjectLegalHold."""
    return f"<LegalHold><Status>{'ON' if on else 'OFF'}</Status></LegalHold>".encode()


def stamp_of(moment: datetime) -> str:
    """A time as S3 writes it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- parsing


def _root(body: bytes) -> Element:
    try:
        from defusedxml.common import DefusedXmlException  # noqa: PLC0415  only who pushes to S3 has it
        from defusedxml.ElementTree import ParseError, fromstring  # noqa: PLC0415  same
    except ImportError as error:
        problem = 'a store of kind "s3" needs the extra s3: pip install "dockd[s3]"'
        raise ConfigError("S3 answers cannot be read", problems=(problem,)) from error
    try:
        root: Element = fromstring(body.strip(), forbid_dtd=True, forbid_entities=True, forbid_external=True)
    except (ParseError, DefusedXmlException, LookupError, ValueError, RecursionError) as error:
        raise StoreUnreachable("the store's answer is no XML that can be read") from error
    return root


def _record(body: bytes, operation: str, known: tuple[str, ...]) -> Element:
    """The root of an operation's answer: called after the operation, or with a child that is `known` of it."""
    root = _root(body)
    if not _name(root).startswith(operation) and not any(_name(child) in known for child in root):
        raise StoreUnreachable(f"the store's answer is none to {operation}; is something else at its address?")
    return root


def _lock(body: bytes, name: str) -> Element:
    """A lock's record. Raises StoreUnreachable for a page of something before the store, StoreLacks for all else.

    A store that does not know the question takes it for GET of the object, and gives that. It would also take the
    setting of a lock for PUT of the object, and overwrite the clip: nothing is set where this raises.
    """
    if is_page(body):
        raise StoreUnreachable("the store's answer is a page; is something else at its address?")
    with suppress(StoreUnreachable):
        root = _root(body)
        if _name(root).endswith(name):
            return root
    raise StoreLacks(f"a record called {name} (the store does not know what was asked)")


def _begun(upload: Element) -> datetime:
    """When an upload began; long ago where it is not said, since it only orders those of one key."""
    text = _text(upload, "Initiated")
    return _time(text) if text else datetime.fromtimestamp(0, UTC)


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]  # whatever the namespace: not all stores write it


def _children(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if _name(child) == name)


def _text(element: Element, name: str) -> str:
    child = next(_children(element, name), None)
    text = (child.text or "").strip() if child is not None else ""
    if len(text) > _MAX_TEXT:
        raise StoreUnreachable(f"the store's answer has a {name} that is far too long")
    return text


def _needed(element: Element, name: str) -> str:
    if not (text := _text(element, name)):
        raise StoreLacks(f"{name} in its answer")
    return text


def _truncated(element: Element) -> bool:
    return _text(element, "IsTruncated").lower() == "true"


def _number(element: Element, name: str) -> int:
    text = _needed(element, name)
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise StoreLacks(f"a usable {name} in its answer")
    return int(text)


def _time(text: str) -> datetime:
    """A time in UTC: ISO 8601 in any of its forms, an HTTP date, or seconds since 1970, as botocore takes them."""
    try:
        if text.replace(".", "", 1).isdigit() and len(text.partition(".")[0]) in _EPOCH_DIGITS:
            return datetime.fromtimestamp(float(text), UTC)
        moment = parsedate_to_datetime(text) if text[:1].isalpha() else datetime.fromisoformat(text)
        # In UTC from here on: what lies beyond the years 1 to 9999 there would fail wherever it is first compared.
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise StoreLacks("a time that can be read in its answer") from error


def _part(element: Element) -> Part:
    number = _number(element, "PartNumber")
    if not 1 <= number <= MAX_PARTS:
        raise StoreUnreachable(f"the store lists a part {number}")
    return Part(
        number=number,
        size_bytes=_number(element, "Size"),
        etag=_text(element, "ETag"),
        sha256=sha256_of(_text(element, "ChecksumSHA256")),
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
