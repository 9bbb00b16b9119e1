"""What the S3 adapter keeps in the journal, is told by configuration, and reads out of a HEAD's answer."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum

from dockd.core.fields import Fields
from dockd.core.objects import Algorithm, Checksum, ObjectState, Piece
from dockd.errors import StoreLacks, StoreUnreachable, UploadLost, VerificationFailed
from dockd.model import Category
from dockd.stores import s3_parts, s3_xml
from dockd.stores.s3_answers import own_words
from dockd.stores.wire import Answer

MARK = "x-amz-meta-dockd-manifest"  # the manifest's digest: by it an object is known as this acquisition's own
CHECKSUM = "x-amz-checksum-sha256"
NAMES: Mapping[Piece, str] = {
    Piece.SEALED: "clip.age",
    Piece.MANIFEST: "manifest.json",
    Piece.SIGNATURE: "manifest.json.sig",
}


class LockMode(StrEnum):
    """Object Lock's modes. A governance lock can be lifted by who has the permission for it."""

    GOVERNANCE = "GOVERNANCE"
    COMPLIANCE = "COMPLIANCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """How objects are locked. A category that `days` does not name is not retained."""

    mode: LockMode = LockMode.COMPLIANCE
    days: Mapping[Category, int]
    hold: frozenset[Category] = frozenset({Category.EVIDENCE})  # a legal hold, without an end

    def until(self, category: Category, now: datetime) -> datetime | None:
        """Until when an object stored now is retained: the end of a day (UTC), one to two days more than asked for.

        So the same object asked about again within hours is not said to be retained too shortly.
        """
        days = self.days.get(category, 0)
        if days <= 0:
            return None
        return datetime.combine(now.astimezone(UTC).date() + timedelta(days=days + 2), time(), UTC)

    def headers(self, category: Category, now: datetime) -> dict[str, str]:
        """What says so when an object is made."""
        until = self.until(category, now)
        said = retention_headers(self.mode, until) if until is not None else {}
        if category in self.hold:
            said["x-amz-object-lock-legal-hold"] = "ON"
        return said


def retention_headers(mode: LockMode, until: datetime) -> dict[str, str]:
    """What asks for a retention when an object is made."""
    return {
        "x-amz-object-lock-mode": mode.value,
        "x-amz-object-lock-retain-until-date": s3_xml.stamp_of(until),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """What a probe saw the store enforce. Nothing is believed that was not tried."""

    checksum: bool = False  # it refuses wrong SHA-256 checksums, and gives back the right ones
    parts_listed: bool = False  # ListParts says the parts' checksums
    put_if_absent: bool = False
    complete_if_absent: bool = False
    locks: bool = False  # a locked version cannot be deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload as the journal keeps it. Without an id it was finished when it was registered."""

    base: str  # the objects' keys before their names
    upload_id: str
    cut: s3_parts.Cut
    mark: str

    def text(self) -> str:
        """For the journal."""
        return json.dumps(
            {
                "base": self.base,
                "upload": self.upload_id,
                "size": self.cut.size_bytes,
                "part": self.cut.part_bytes,
                "mark": self.mark,
            }
        )

    def key(self, piece: Piece = Piece.SEALED) -> str:
        """An object's key."""
        return f"{self.base}/{NAMES[piece]}"


def parse_upload(text: str) -> Upload:
    """The reverse. Raises UploadLost for what is no upload at an S3 store: it has to be registered here."""
    fields = _fields(text)
    try:
        upload = Upload(
            base=fields.text("base"),
            upload_id=fields.text("upload"),
            cut=s3_parts.Cut(size_bytes=fields.count("size", least=1), part_bytes=fields.count("part", least=1)),
            mark=fields.text("mark"),
        )
        fields.end()
    except VerificationFailed as error:
        raise UploadLost("what the journal has of this upload names none at an S3 store") from error
    return upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The three finished objects, as the journal keeps them."""

    base: str
    part_bytes: int
    sizes: Mapping[Piece, int]

    def text(self) -> str:
        """For the journal."""
        return json.dumps({"base": self.base, "part": self.part_bytes, "sizes": dict(self.sizes)})

    def key(self, piece: Piece) -> str:
        """An object's key."""
        return f"{self.base}/{NAMES[piece]}"


def parse_objects(text: str) -> Objects:
    """The reverse. Raises UploadLost for what names no objects of an S3 store."""
    fields = _fields(text)
    try:
        sizes = fields.inner("sizes")
        objects = Objects(
            base=fields.text("base"),
            part_bytes=fields.count("part", least=1),
            sizes={piece: sizes.count(piece.value, least=1) for piece in Piece},
        )
        sizes.end()
        fields.end()
    except VerificationFailed as error:
        raise UploadLost("what the journal has of these objects names none at an S3 store") from error
    return objects


def _fields(text: str) -> Fields:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    return Fields(record if isinstance(record, dict) else {}, "upload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """An object as HEAD describes it."""

    size_bytes: int
    version_id: str  # empty where the bucket keeps no versions
    etag: str
    mark: str
    checksum: str = field(default="")  # as it stands in the header
    checksum_type: str = field(default="")

    def is_of(self, upload: Upload) -> bool:
        """Whether it is the sealed object of this upload, as far as length and mark tell."""
        return self.mark == upload.mark and self.size_bytes == upload.cut.size_bytes

    def state(
        self, *, part_bytes: int, believed: Believed, retained: s3_xml.Retention | None, held: bool
    ) -> ObjectState:
        """As the station compares it. `part_bytes` is 0 for an object that was not put together from parts."""
        return ObjectState(
            size_bytes=self.size_bytes,
            version=self.version_id or self.etag,
            checksum=self._checksum(part_bytes) if believed.checksum else None,
            retention_until=retained.until if retained is not None else None,
            legal_hold=held,
        )

    def _checksum(self, part_bytes: int) -> Checksum | None:
        text, dash, count = self.checksum.partition("-")
        digest = s3_xml.sha256_of(text)
        if digest is None:
            return None
        if part_bytes == 0:
            whole = not dash and self.checksum_type in ("", "FULL_OBJECT")
            return Checksum(algorithm=Algorithm.SHA256, digest=digest) if whole else None
        if count != str(s3_parts.Cut(size_bytes=self.size_bytes, part_bytes=part_bytes).count):
            return None
        return Checksum(algorithm=Algorithm.SHA256_OF_PARTS, digest=digest, part_bytes=part_bytes)


def head_of(answer: Answer) -> Head:
    """Read a HEAD's answer. An ETag may be missing where the store itself is seen to speak.

    Raises StoreUnreachable, StoreLacks where it speaks without a length.
    """
    etag, own = answer.word("etag"), own_words(answer)
    if not etag and not own:
        raise StoreUnreachable("the store's answer has no ETag; is something else at its address?")
    if own and "content-length" not in answer.headers:
        raise StoreLacks("the length of an object (Content-Length to HEAD)")
    version = answer.word("x-amz-version-id")
    return Head(
        size_bytes=answer.number("content-length"),
        version_id="" if version == "null" else version,
        etag=etag,
        mark=answer.headers.get(MARK, ""),
        checksum=answer.headers.get(CHECKSUM, ""),
        checksum_type=answer.headers.get("x-amz-checksum-type", ""),
    )


def checksum_header(sha256: bytes) -> dict[str, str]:
    """What makes the store compare the body with its digest."""
    return {CHECKSUM: b64encode(sha256).decode()}
