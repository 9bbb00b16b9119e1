"""The manifest: what the station states about one acquisition, and signs (docs/formats.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dockd.core import canonical
from dockd.core.fields import Fields
from dockd.errors import VerificationFailed
from dockd.model import (
    AcquisitionId,
    BayNumber,
    CameraIdentity,
    Category,
    Digest,
    DockingId,
    Named,
    StationId,
    VerdictStatus,
)

TYPE = "manifest"
NONCE_BYTES = 32
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One acquisition, as it is stated for ever. `role` and `of` tie a sidecar to its clip."""

    acquisition: AcquisitionId
    station: StationId
    bay: BayNumber
    docking: DockingId
    camera: CameraIdentity
    path: bytes
    size_bytes: int
    mtime_ns: int
    recorded_at: datetime | None  # as the container states it
    duration_ms: int | None
    clock_offset_ms: int | None  # camera minus station, where it could be asked
    category: Category
    category_reason: str
    verdict: VerdictStatus
    reasons: tuple[str, ...]
    container: str
    plaintext_digest: Digest
    plaintext_size_bytes: int
    sealed_digest: Digest
    sealed_size_bytes: int
    recipients: tuple[str, ...]  # fingerprints
    dockd: str
    custody_seq: int
    nonce: bytes
    role: str = "clip"
    of: AcquisitionId | None = None
    profile: str = ""  # that the camera was read by; empty for a folder, whose manifest is of version 1
    profile_version: int = 0
    named: Named | None = None  # what the file's name says


def encode(manifest: Manifest) -> bytes:
    """The bytes to sign. Raises ValueError for what the format cannot say."""
    camera = manifest.camera
    recorded_at, source = recorded(manifest)
    more: dict[str, Any] = {"v": 1}
    if manifest.profile:
        more = {
            "v": 2,
            "profile": {"name": manifest.profile, "version": manifest.profile_version},
            "named": None if manifest.named is None else _named_record(manifest.named),
        }
    return canonical.encode(
        {
            "type": TYPE,
            **more,
            "acquisition": manifest.acquisition,
            "station": manifest.station,
            "bay": manifest.bay,
            "docking": manifest.docking,
            "camera": {
                "vendor": camera.vendor,
                "product": camera.product,
                "serial": camera.serial,
                "model": camera.model,
                "volume_id": camera.volume_id,
            },
            "path": canonical.encode_path(manifest.path),
            "size_bytes": manifest.size_bytes,
            "mtime": _readable(manifest.mtime_ns),
            "mtime_ns": str(manifest.mtime_ns),
            "recorded_at": canonical.format_time(recorded_at) if recorded_at else None,
            "recorded_at_source": source,
            "duration_ms": manifest.duration_ms,
            "clock_offset_ms": manifest.clock_offset_ms,
            "category": manifest.category.value,
            "category_reason": manifest.category_reason,
            "verdict": manifest.verdict.value,
            "reasons": list(manifest.reasons),
            "container": manifest.container,
            "plaintext": {"digest": manifest.plaintext_digest, "size_bytes": manifest.plaintext_size_bytes},
            "sealed": {"digest": manifest.sealed_digest, "size_bytes": manifest.sealed_size_bytes},
            "recipients": list(manifest.recipients),
            "dockd": manifest.dockd,
            "custody_seq": manifest.custody_seq,
            "nonce": manifest.nonce.hex(),
            "role": manifest.role,
            "of": manifest.of,
        }
    )


def recorded(manifest: Manifest) -> tuple[datetime | None, str]:
    """The start of the recording, and where that comes from: the container, else the name, else nothing."""
    if manifest.recorded_at is not None:
        return manifest.recorded_at, "container"
    if manifest.profile and manifest.named is not None and manifest.named.started_at is not None:
        return manifest.named.started_at, "name"
    return None, "none"


def decode(payload: bytes) -> Manifest:
    """Parse bytes whose signature was verified. Raises VerificationFailed; unknown keys are refused."""
    record = canonical.decode(payload, type_=TYPE, newest=2)
    fields = Fields(record, TYPE)
    camera, plaintext, sealed = fields.inner("camera"), fields.inner("plaintext"), fields.inner("sealed")
    inner = [camera, plaintext, sealed]
    try:
        mtime_ns = _integer(fields.text("mtime_ns"))
        category, verdict = Category(fields.text("category")), VerdictStatus(fields.text("verdict"))
    except ValueError as error:
        raise VerificationFailed(f"{TYPE}: {error}") from error
    stated_at = None if fields.null("recorded_at") else fields.time("recorded_at")
    stated_source = fields.text("recorded_at_source")
    profile, version, named = "", 0, None
    if record["v"] > 1:
        said = fields.inner("profile")
        profile, version = said.text("name"), said.count("version", least=1)
        if not profile:
            raise VerificationFailed(f"{TYPE}: a profile without a name")
        inner.append(said)
        if not fields.null("named"):
            words = fields.inner("named")
            named = _named_of(words)
            inner.append(words)
    manifest = Manifest(
        acquisition=AcquisitionId(fields.uuid("acquisition")),
        station=StationId(fields.uuid("station")),
        bay=BayNumber(fields.count("bay", least=1)),
        docking=DockingId(fields.uuid("docking")),
        camera=CameraIdentity(
            **{key: camera.text(key) for key in ("vendor", "product", "serial", "model", "volume_id")}
        ),
        path=canonical.decode_path(fields.text("path")),
        size_bytes=fields.count("size_bytes"),
        mtime_ns=mtime_ns,
        recorded_at=stated_at if stated_source == "container" else None,
        duration_ms=_optional(fields, "duration_ms"),
        clock_offset_ms=None if fields.null("clock_offset_ms") else fields.integer("clock_offset_ms"),
        category=category,
        category_reason=fields.text("category_reason"),
        verdict=verdict,
        reasons=fields.texts("reasons"),
        container=fields.text("container"),
        plaintext_digest=plaintext.digest("digest"),
        plaintext_size_bytes=plaintext.count("size_bytes"),
        sealed_digest=sealed.digest("digest"),
        sealed_size_bytes=sealed.count("size_bytes"),
        recipients=fields.texts("recipients"),
        dockd=fields.text("dockd"),
        custody_seq=fields.count("custody_seq"),
        nonce=fields.hex("nonce", NONCE_BYTES),
        role=fields.text("role"),
        of=None if fields.null("of") else AcquisitionId(fields.uuid("of")),
        profile=profile,
        profile_version=version,
        named=named,
    )
    if (None if fields.null("mtime") else fields.text("mtime")) != _readable(mtime_ns):
        raise VerificationFailed(f"{TYPE}: mtime contradicts another field")
    if recorded(manifest) != (stated_at, stated_source):
        raise VerificationFailed(f"{TYPE}: recorded_at_source contradicts another field")
    for part in (*inner, fields):
        part.end()
    return manifest


def _named_record(named: Named) -> dict[str, Any]:
    return {
        "started_at": None if named.started_at is None else canonical.format_time(named.started_at),
        "local": named.local,
        "time_zone": named.time_zone,
        "sequence": named.sequence,
        "officer": named.officer,
        "category": named.category,
    }


def _named_of(fields: Fields) -> Named:
    return Named(
        started_at=None if fields.null("started_at") else fields.time("started_at"),
        **{key: fields.text(key) for key in ("local", "time_zone", "sequence", "officer", "category")},
    )


def _integer(text: str) -> int:
    """A decimal integer in its one spelling. Raises ValueError. As text, since nanoseconds go beyond 2^53."""
    value = int(text)
    if str(value) != text:
        raise ValueError(f"mtime_ns is {text!r}, not a plain decimal number")
    return value


def _optional(fields: Fields, key: str) -> int | None:
    return None if fields.null(key) else fields.count(key)


def _readable(mtime_ns: int) -> str | None:
    """The modification time for people; None where a file system states one that no calendar has."""
    try:
        return canonical.format_time(
            datetime.fromtimestamp(mtime_ns // _NS, UTC).replace(microsecond=mtime_ns % _NS // 1000)
        )
    except (ValueError, OverflowError, OSError):
        return None
