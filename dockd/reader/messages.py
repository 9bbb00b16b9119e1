"""What the daemon and a reader say to each other: canonical JSON, one datagram each, never longer than 64 KiB.

Every message carries the epoch of its docking. Bytes travel as percent-encoded text, and 64-bit numbers of a file
system, which JSON's integers cannot all hold, as decimal text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from dockd import errors
from dockd.core import canonical
from dockd.core.clip_names import ClipNames
from dockd.core.profile import Evidence, FileRules, Pattern
from dockd.errors import DockdError, ReaderDied, VerificationFailed
from dockd.model import (
    AcquisitionId,
    CacheState,
    CameraIdentity,
    Category,
    DockingId,
    Epoch,
    Erasure,
    FileKind,
    FoundFile,
    ListedFile,
    Reread,
    Sealed,
    Verdict,
    VerdictStatus,
)
from dockd.reader.rules import ClipRules

if TYPE_CHECKING:
    from datetime import datetime

MAX_MESSAGE_BYTES = 64 * 1024
MAX_TEXT = 400  # characters of a reason or an error: what a hostile clip makes a parser say stays short
MAX_REASONS = 16

_ERRORS: dict[str, type[DockdError]] = {
    kind.__name__: kind
    for kind in (
        errors.CameraGone,
        errors.CameraNotReady,
        errors.CameraRefused,
        errors.ClipChanged,
        errors.ClipBusy,
        errors.ClipGone,
        errors.ClipRefused,
        errors.SpoolFull,
        errors.EraseFailed,
        errors.ReaderNotStarted,
    )
}


def pack(epoch: Epoch, kind: str, **fields: Any) -> bytes:
    """One message. Raises ValueError where it would be too long."""
    message = canonical.encode({"type": "reader", "v": 1, "epoch": epoch, "kind": kind, **fields})
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(message)} bytes")
    return message


def unpack(message: bytes, epoch: Epoch | None) -> dict[str, Any]:
    """The fields of a message of this very epoch (None: the first message, which names it).

    Raises ReaderDied for anything else: the protocol is broken.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise ReaderDied("the reader broke its protocol: a message longer than allowed")
    try:
        fields = canonical.decode(message, type_="reader")
    except VerificationFailed as error:
        raise ReaderDied(f"the reader broke its protocol: {error}") from error
    if epoch is not None and fields.get("epoch") != epoch:
        raise ReaderDied(f"a message of epoch {fields.get('epoch')} was refused, this is epoch {epoch}")
    text(fields, "kind")
    return fields


def text(fields: dict[str, Any], key: str) -> str:
    """A text field. Raises ReaderDied, as all of these, where it is missing or of another type."""
    value = fields.get(key)
    return value if isinstance(value, str) else _broken(key)


def integer(fields: dict[str, Any], key: str) -> int:
    """An integer field."""
    value = fields.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else _broken(key)


def table(fields: dict[str, Any], key: str) -> dict[str, Any]:
    """An object field."""
    value = fields.get(key)
    return value if isinstance(value, dict) else _broken(key)


def texts(fields: dict[str, Any], key: str) -> tuple[str, ...]:
    """A field that is a list of texts."""
    value = fields.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _broken(key)
    return tuple(value)


def _broken(key: str) -> NoReturn:
    raise ReaderDied(f"the reader broke its protocol: field {key!r} is missing or of another type")


def _big(fields: dict[str, Any], key: str) -> int:
    digits = text(fields, key)
    if not digits.lstrip("-").isascii() or not digits.lstrip("-").isdecimal() or len(digits) > 20:  # noqa: PLR2004  2^64
        _broken(key)
    return int(digits)


def short(words: str) -> str:
    """Words of any origin as a text that every message can carry."""
    kept = words if len(words) <= MAX_TEXT else words[: MAX_TEXT - 3] + "..."
    return kept.encode(errors="backslashreplace").decode()


# --- records


def file_to_wire(file: FoundFile) -> dict[str, Any]:
    """A file as it is named in requests and answers."""
    return {
        "path": canonical.encode_path(file.path),
        "size_bytes": str(file.size_bytes),
        "mtime_ns": str(file.mtime_ns),
        "inode": str(file.inode),
        "links": str(file.links),
    }


def file_from_wire(fields: dict[str, Any]) -> FoundFile:
    """The inverse. Raises ReaderDied."""
    return FoundFile(
        path=_path(fields, "path"),
        size_bytes=_big(fields, "size_bytes"),
        mtime_ns=_big(fields, "mtime_ns"),
        inode=_big(fields, "inode"),
        links=_big(fields, "links"),
    )


def _path(fields: dict[str, Any], key: str) -> bytes:
    try:
        return canonical.decode_path(fields.get(key))
    except VerificationFailed:
        _broken(key)


def listed_to_wire(listed: ListedFile) -> dict[str, Any]:
    """One entry of a listing."""
    return {
        "file": file_to_wire(listed.file),
        "kind": listed.kind.value,
        "category": listed.category.value,
        "reason": short(listed.reason),
    }


def listed_from_wire(fields: dict[str, Any]) -> ListedFile:
    """The inverse. Raises ReaderDied."""
    try:
        kind, category = FileKind(text(fields, "kind")), Category(text(fields, "category"))
    except ValueError:
        _broken("kind")
    file = file_from_wire(table(fields, "file"))
    return ListedFile(file=file, kind=kind, category=category, reason=text(fields, "reason"))


def sealed_to_wire(sealed: Sealed) -> dict[str, Any]:
    """What an acquisition left behind. Of more reasons than fit, the first are kept."""
    verdict = sealed.verdict
    recorded = verdict.recorded_at
    return {
        "file": file_to_wire(sealed.file),
        "plaintext": sealed.plaintext_digest,
        "plaintext_size_bytes": str(sealed.plaintext_size_bytes),
        "sealed": sealed.sealed_digest,
        "sealed_size_bytes": str(sealed.sealed_size_bytes),
        "verdict": verdict.status.value,
        "container": short(verdict.container),
        "reasons": [short(reason) for reason in verdict.reasons[:MAX_REASONS]],
        "duration_ms": None if verdict.duration_ms is None else str(verdict.duration_ms),
        "recorded_at": None if recorded is None else canonical.format_time(recorded),
        "recipients": list(sealed.recipients),
    }


def sealed_from_wire(fields: dict[str, Any]) -> Sealed:
    """The inverse. Raises ReaderDied."""
    try:
        verdict = Verdict(
            status=VerdictStatus(text(fields, "verdict")),
            container=text(fields, "container"),
            reasons=texts(fields, "reasons"),
            duration_ms=None if fields.get("duration_ms") is None else _big(fields, "duration_ms"),
            recorded_at=_time(fields, "recorded_at"),
        )
        return Sealed(
            file=file_from_wire(table(fields, "file")),
            plaintext_digest=canonical.parse_digest(fields.get("plaintext")),
            plaintext_size_bytes=_big(fields, "plaintext_size_bytes"),
            sealed_digest=canonical.parse_digest(fields.get("sealed")),
            sealed_size_bytes=_big(fields, "sealed_size_bytes"),
            verdict=verdict,
            recipients=texts(fields, "recipients"),
        )
    except (ValueError, VerificationFailed) as error:
        raise ReaderDied(f"the reader broke its protocol: {error}") from error


def _time(fields: dict[str, Any], key: str) -> datetime | None:
    return None if fields.get(key) is None else canonical.parse_time(fields[key])


def reread_to_wire(reread: Reread) -> dict[str, Any]:
    """What a second read found."""
    return {
        "docking": reread.docking,
        "file": file_to_wire(reread.file),
        "plaintext": reread.plaintext_digest,
        "cache": reread.cache.value,
    }


def reread_from_wire(fields: dict[str, Any], docking: DockingId) -> Reread:
    """The inverse; of another docking it is refused. Raises ReaderDied."""
    if fields.get("docking") != docking:
        _broken("docking")
    try:
        return Reread(
            docking=docking,
            file=file_from_wire(table(fields, "file")),
            plaintext_digest=canonical.parse_digest(fields.get("plaintext")),
            cache=CacheState(text(fields, "cache")),
        )
    except (ValueError, VerificationFailed) as error:
        raise ReaderDied(f"the reader broke its protocol: {error}") from error


def erasure_to_wire(erasure: Erasure) -> dict[str, Any]:
    """What an erasure did and saw."""
    return {
        "acquisition": erasure.acquisition,
        "method": erasure.method,
        "overwritten_bytes": str(erasure.overwritten_bytes),
        "checked": short(erasure.checked),
    }


def erasure_from_wire(fields: dict[str, Any]) -> Erasure:
    """The inverse. Raises ReaderDied."""
    return Erasure(
        acquisition=AcquisitionId(text(fields, "acquisition")),
        method=text(fields, "method"),
        overwritten_bytes=_big(fields, "overwritten_bytes"),
        checked=text(fields, "checked"),
    )


def identity_to_wire(camera: CameraIdentity) -> dict[str, Any]:
    """Who the camera is."""
    return {
        "serial": camera.serial,
        "model": camera.model,
        "volume_id": camera.volume_id,
        "vendor": camera.vendor,
        "product": camera.product,
    }


def identity_from_wire(fields: dict[str, Any]) -> CameraIdentity:
    """The inverse. Raises ReaderDied."""
    keys = ("serial", "model", "volume_id", "vendor", "product")
    return CameraIdentity(**{key: text(fields, key) for key in keys})


def rules_to_wire(rules: ClipRules) -> dict[str, Any]:
    """The rules of a docking. They fit into a message, since the files that they come from are short."""
    evidence = rules.files.evidence
    return {
        "suffixes": list(rules.suffixes),
        "evidence_directories": list(rules.evidence_directories),
        "max_depth": rules.max_depth,
        "max_files": rules.max_files,
        "block_bytes": rules.block_bytes,
        "files": {name: _pattern_to_wire(getattr(rules.files, name)) for name in _PATTERNS},
        "evidence": {
            "directories": list(evidence.directories),
            "name_flags": list(evidence.name_flags),
            "categories": list(evidence.categories),
            "read_only": int(evidence.read_only),
        },
        "templates": list(rules.names.templates),
        "time_zone": rules.names.time_zone,
    }


def rules_from_wire(fields: dict[str, Any]) -> ClipRules:
    """The inverse. Raises ReaderDied."""
    files, evidence = table(fields, "files"), table(fields, "evidence")
    return ClipRules(
        suffixes=texts(fields, "suffixes"),
        evidence_directories=texts(fields, "evidence_directories"),
        max_depth=integer(fields, "max_depth"),
        max_files=integer(fields, "max_files"),
        block_bytes=integer(fields, "block_bytes"),
        files=FileRules(
            **{name: _pattern_from_wire(table(files, name)) for name in _PATTERNS},
            evidence=Evidence(
                directories=texts(evidence, "directories"),
                name_flags=texts(evidence, "name_flags"),
                categories=texts(evidence, "categories"),
                read_only=bool(integer(evidence, "read_only")),
            ),
        ),
        names=ClipNames(templates=texts(fields, "templates"), time_zone=text(fields, "time_zone")),
    )


_PATTERNS = ("clips", "sidecars", "noise")


def _pattern_to_wire(pattern: Pattern) -> dict[str, Any]:
    return {
        "directories": list(pattern.directories),
        "suffixes": list(pattern.suffixes),
        "names": list(pattern.names),
    }


def _pattern_from_wire(fields: dict[str, Any]) -> Pattern:
    return Pattern(**{key: texts(fields, key) for key in ("directories", "suffixes", "names")})


# --- errors


def error_to_wire(error: DockdError) -> dict[str, Any]:
    """An error that the other side raises again."""
    return {"error": type(error).__name__, "message": short(str(error))}


def error_from_wire(fields: dict[str, Any]) -> DockdError:
    """The error that a reader reports; one of an unknown kind is its end."""
    kind = _ERRORS.get(text(fields, "error"), ReaderDied)
    return kind(text(fields, "message"))
