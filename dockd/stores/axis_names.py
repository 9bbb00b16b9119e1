"""Names and metadata of a recording as the Axis content destination API has them (docs/stores-axis.md). Pure.

An acquisition is one recording with one clip. Whatever a camera, a profile or a file name says goes through `escaped`
before it becomes part of a name or a header, so that it can neither leave its place nor end a header.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from dockd.core.manifest import Manifest, recorded
from dockd.model import AcquisitionId, StationId

SEGMENTS = "dockd-segments"  # the container of the pieces that a large object is made of
TRANSFERRING, COMPLETE = "Transferring", "Complete"
STATUS, ACQUISITION, MANIFEST = "Status", "Dockd-Acquisition", "Dockd-Manifest"
MAX_VALUE_BYTES = 256  # Swift's own limit of a metadata value, after percent-encoding
_MAX_PART_BYTES = 72  # of a container's name, which ends at 256: a user, a serial, a time, and once an acquisition's id
_KEPT_CHARACTERS = 40
_USERS = uuid.UUID("a1d6c5ee-7d4f-5d0c-9a3e-1f0b6c2f9d41")  # the namespace of user ids made from officers' names
_NOBODY = "unassigned"
_TYPES = {"mp4": "mp4", "fragmented-mp4": "mp4", "avi": "avi", "mpeg-ts": "ts"}
_ESCAPE_CUT = re.compile(r"%[0-9A-F]?$")
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What one acquisition is called at the store."""

    containers: tuple[str, str]  # the API's name; and, where another acquisition stands there, one with the id added
    sealed: str
    manifest: str
    signature: str
    key: str
    device: str  # the serial as the API's names have it; an object in the container Devices
    user: str  # an object in the container Users
    officer: str  # as people call the user
    serial: str
    model: str
    container_metadata: Mapping[str, str]
    clip_metadata: Mapping[str, str]


def recording(manifest: Manifest, manifest_digest_hex: str, station: StationId, *, acquired_at: datetime) -> Recording:
    """What to call all of a manifest's acquisition. `acquired_at` stands in where no file or clip says a time."""
    started_at, source = _started(manifest, acquired_at)
    stopped_at = _after(started_at, manifest.duration_ms or 0)
    officer = "" if manifest.named is None else manifest.named.officer
    user = str(uuid.uuid5(_USERS, _safe(officer).decode()))
    device = escaped(manifest.camera.serial)
    basic = _iso(started_at).replace("-", "").replace(":", "")
    container = f"{user}_{device}_{basic}"
    stem = f"{basic.removesuffix('Z').replace('T', '_')}_{manifest.acquisition}"
    kind = _TYPES.get(manifest.container, "bin")
    clip = {
        **_times("Start", started_at),
        **_times("Stop", stopped_at),
        "ContainerType": kind,
        "Dockd-Seal": "age-encryption.org/v1",
        "Dockd-Digest": manifest.sealed_digest,
        ACQUISITION: manifest.acquisition,
    }
    about = {
        "BWCSerialNumber": device,
        "SCUSerialNumber": station,
        "UserID": user,
        "BWCModel": manifest.camera.model,
        "TriggerOn": "Unknown",
        "TriggerOff": "Unknown",
        **_times("TriggerOn", started_at),
        **_times("TriggerOff", stopped_at),
        **_times("Start", started_at),
        **_times("Stop", stopped_at),
        "TimeZone": "UTC",
        STATUS: TRANSFERRING,
        ACQUISITION: manifest.acquisition,
        MANIFEST: manifest_digest_hex,
        "Dockd-Time-Source": source,
        "Dockd-Category": manifest.category.value,
        "Dockd-Role": manifest.role,
        "Dockd-Of": manifest.of or "",
    }
    return Recording(
        containers=(container, f"{container}_{manifest.acquisition}"),
        sealed=f"{stem}.{kind}",
        manifest=f"{stem}.manifest.json",
        signature=f"{stem}.manifest.json.sig",
        key=f"{stem}.key",
        device=device,
        user=user,
        officer=officer or _NOBODY,
        serial=manifest.camera.serial,
        model=manifest.camera.model or manifest.camera.product,
        container_metadata=about,
        clip_metadata=clip,
    )


def escaped(text: str) -> str:
    """`text` as a part of a name: no slash, no control, never empty or made of dots, at most 72 bytes of ASCII.

    Two different texts have different names: what is too long is cut and ends in a part of its SHA-256.
    """
    encoded = quote(_safe(text), safe="").replace("~", "%7E")  # a bare one stands only before a digest
    if not encoded.strip("."):
        encoded = encoded.replace(".", "%2E") or "%-"
    if len(encoded) > _MAX_PART_BYTES:
        digest = hashlib.sha256(_safe(text)).hexdigest()[:24]
        encoded = f"{_ESCAPE_CUT.sub('', encoded[:_KEPT_CHARACTERS])}~{digest}"
    return encoded


def headers(kind: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata as headers of `kind` "Container" or "Object": values are percent-encoded UTF-8, empty ones left out.

    A value that is too long is cut at a whole character: metadata describe, the manifest alone states.
    """
    return {f"X-{kind}-Meta-{_titled(key)}": value for key, text in metadata.items() if (value := encoded_value(text))}


def encoded_value(text: str) -> str:
    """`text` percent-encoded, at most MAX_VALUE_BYTES of it."""
    found = ""
    for character in text:
        one = quote(_safe(character), safe="")
        if len(found) + len(one) > MAX_VALUE_BYTES:
            break
        found += one
    return found


def value(found: Mapping[str, str], kind: str, key: str) -> str:
    """One of an answer's metadata, decoded; empty where there is none."""
    return unquote(found.get(f"x-{kind}-meta-{key}".lower(), ""), errors="replace")


def path(*parts: str) -> str:
    """The path of a container or an object, below the account. Every part is one segment, whatever is in it."""
    return "".join(
        "/" + (quote(part, safe="") if part.strip(".") else quote(part).replace(".", "%2E")) for part in parts
    )


def prefix(acquisition: AcquisitionId) -> str:
    """What the names of an acquisition's segments begin with."""
    return f"{acquisition}."


def segment(acquisition: AcquisitionId, offset: int) -> str:
    """The name of the segment that begins at `offset`. Names sort by it."""
    return f"{prefix(acquisition)}{offset:016d}"


def _started(manifest: Manifest, acquired_at: datetime) -> tuple[datetime, str]:
    started_at, source = recorded(manifest)
    if started_at is not None:
        return started_at.astimezone(UTC), source
    try:
        return datetime.fromtimestamp(manifest.mtime_ns // _NS, UTC), "mtime"
    except (ValueError, OverflowError, OSError):
        return acquired_at.astimezone(UTC), "acquired"


def _times(key: str, moment: datetime) -> dict[str, str]:
    return {f"{key}Time": str(int(moment.timestamp())), f"{key}TimeISO": _iso(moment)}


def _iso(moment: datetime) -> str:
    # Not strftime: its %Y has fewer than four digits for years before 1000, which a container may state.
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _after(moment: datetime, duration_ms: int) -> datetime:
    try:
        return moment + timedelta(milliseconds=duration_ms)
    except OverflowError:
        return moment


def _titled(key: str) -> str:
    """As the API writes keys in headers: lower case but for the first letter and those after a hyphen."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in key.split("-"))


def _safe(text: str) -> bytes:
    """Lone surrogates, as a damaged name may hold them, become question marks."""
    return text.encode(errors="replace")
