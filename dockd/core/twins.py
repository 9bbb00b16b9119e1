"""Twins: two acquisitions of one clip, by two stations. A store that has one may sign for it in the other's place.

The store cannot open a seal, so what is sealed in its object is the word of the station that sealed it. That word is
believed only where its signature verifies under a key that people gave this station for that one, and only where it
states what this station has found itself. Bytes in, verified object out: a VerifiedTwin is made here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass

from dockd.core import canonical
from dockd.core.fields import Fields
from dockd.core.manifest import Manifest, decode
from dockd.core.sshsig import MANIFEST, PublicKey, verify
from dockd.errors import VerificationFailed
from dockd.model import AcquisitionId, Digest, SignedBytes, StationId

_TOKEN = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Whose object a store's statement is about, where that is another station's."""

    station: StationId
    acquisition: AcquisitionId
    manifest_digest: Digest

    def record(self) -> dict[str, str]:
        """As statements and custody entries have it."""
        return {"station": self.station, "acquisition": self.acquisition, "manifest": self.manifest_digest}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTwin:
    """Another station's manifest of the very clip that `own` is of, under the key that this station has for it."""

    token: InitVar[object]  # not kept: dataclasses.replace cannot pass it on
    own: Manifest
    other: Manifest
    shared: Shared

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("made by its verifier alone")

    def is_meant(self, shared: Shared, sealed_digest: Digest, sealed_size_bytes: int) -> bool:
        """Whether a store's statement is about this very object."""
        meant = self.shared, self.other.sealed_digest, self.other.sealed_size_bytes
        return meant == (shared, sealed_digest, sealed_size_bytes)


def differences(own: Manifest, other: Manifest) -> tuple[str, ...]:
    """Why the other's sealed object cannot stand for this station's own; empty where it can."""
    found = {
        "it is this station's own": other.station == own.station,
        "it is of another camera": other.camera != own.camera,
        "it is of another plaintext": (other.plaintext_digest, other.plaintext_size_bytes)
        != (own.plaintext_digest, own.plaintext_size_bytes),
        "it is sealed to other recipients": sorted(other.recipients) != sorted(own.recipients),
        "it is of another role": other.role != own.role,
    }
    return tuple(reason for reason, is_so in found.items() if is_so)


def shared_of(manifest: Manifest, payload: bytes) -> Shared:
    """How statements name the object of this manifest, whose exact bytes are `payload`."""
    return Shared(station=manifest.station, acquisition=manifest.acquisition, manifest_digest=canonical.digest(payload))


def verify_twin(signed: SignedBytes, *, trusted: Mapping[StationId, PublicKey], own: Manifest) -> VerifiedTwin:
    """Another station's manifest, believed. Raises VerificationFailed, naming each reason why it is not.

    `trusted`: the stations whose word counts here, with the keys of their manifests.
    """
    signers = [station for station, key in trusted.items() if _is_signed(signed, key)]
    if not signers:
        raise VerificationFailed("the manifest is not signed by a station of trust_stations")
    other = decode(signed.payload)
    if other.station not in signers:
        raise VerificationFailed("the manifest is signed by another station than it names")
    reasons = differences(own, other)
    if reasons:
        raise VerificationFailed(f"the manifest of station {other.station} is of no use: {'; '.join(reasons)}")
    return VerifiedTwin(token=_TOKEN, own=own, other=other, shared=shared_of(other, signed.payload))


def take_shared(fields: Fields) -> Shared:
    """The keys of a `Shared` in a statement. Raises VerificationFailed."""
    return Shared(
        station=StationId(fields.uuid("station")),
        acquisition=AcquisitionId(fields.uuid("acquisition")),
        manifest_digest=fields.digest("manifest"),
    )


def _is_signed(signed: SignedBytes, key: PublicKey) -> bool:
    try:
        verify(key, MANIFEST, signed.payload, signed.signature)
    except VerificationFailed:
        return False
    return True
