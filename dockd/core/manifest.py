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


def encode(manifest: Manifest) -> bytes:
    """The bytes to sign. Raises ValueError for what the format cannot say."""
    camera = manifest.camera
    return canonical.encode(
        {
            "type": TYPE,
            "v": 1,
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
            "recorded_at": canonical.format_time(manifest.recorded_at) if manifest.recorded_at else None,
            "recorded_at_source": "container" if manifest.recorded_at else "none",
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


def decode(payload: bytes) -> Manifest:
    """Parse bytes whose signature was verified. Raises VerificationFailed; unknown keys are refused."""
    fields = Fields(canonical.decode(payload, type_=TYPE), TYPE)
    camera, plaintext, sealed = fields.inner("camera"), fields.inner("plaintext"), fields.inner("sealed")
    try:
        mtime_ns = _integer(fields.text("mtime_ns"))
        category, verdict = Category(fields.text("category")), VerdictStatus(fields.text("verdict"))
    except ValueError as error:
        raise VerificationFailed(f"{TYPE}: {error}") from error
    recorded_at = None if fields.null("recorded_at") else fields.time("recorded_at")
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
        recorded_at=recorded_at,
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
    )
    derived: dict[str, Any] = {
        "mtime": _readable(mtime_ns),
        "recorded_at_source": "container" if recorded_at else "none",
    }
    for key, value in derived.items():
        if (None if fields.null(key) else fields.text(key)) != value:
            raise VerificationFailed(f"{TYPE}: {key} contradicts another field")
    for part in (camera, plaintext, sealed, fields):
        part.end()
    return manifest


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
