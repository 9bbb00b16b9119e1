"""The confirmation of a store that does not sign: what it has was compared with what the station itself computed.

Records in, verified object out: VerifiedObjects and VerifiedPresence are made by the verifiers here and nowhere else.
An acquisition is confirmed where each of its three objects has the length that it should have, and either a checksum
of the store that equals the station's own, or bytes that the station read back and hashed. A length alone is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from dockd.core import canonical
from dockd.core import manifest as manifests
from dockd.core.fields import Fields
from dockd.core.objects import Algorithm, Checksum, ObjectState, Piece
from dockd.core.proof import Needs, Verdict, least_shown
from dockd.errors import VerificationFailed
from dockd.model import AcquisitionId, Digest, SignedBytes, StationId, StoreId

CONFIRMATION_TYPE, PRESENCE_TYPE = "objects", "presence"
_SHA256_BYTES = 32
_TOKEN = object()


class Kind(StrEnum):
    """What a confirmation rests on."""

    RECEIPT = "receipt"  # the store signed for it
    CHECKSUM = "checksum"  # the store's own checksums of all three objects
    READ_BACK = "read_back"  # at least one of the three was read back, for want of a checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSums:
    """What the station computed of bytes: of its own file, or of what it read back."""

    size_bytes: int
    digest: Digest  # SHA-256 of the whole
    part_bytes: int = 0  # where it is not 0, of parts of this length, but the last, as well:
    of_parts: bytes = b""  # SHA-256 of the parts' SHA-256, one after the other


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedObject:
    """One object, as it was when it was confirmed."""

    state: ObjectState
    digest: Digest  # of its bytes, as the station knows them
    read_back: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedObjects:
    """The store had all three objects, whole. Made by this module alone."""

    token: InitVar[object]  # not kept: dataclasses.replace cannot pass it on
    store: StoreId
    station: StationId
    acquisition: AcquisitionId
    manifest_digest: Digest
    sealed_digest: Digest
    sealed_size_bytes: int
    objects: Mapping[Piece, ConfirmedObject]
    kind: Kind
    at: datetime  # by the station's clock, when the store was asked
    kept_until: datetime | None  # the least of the three; None: the store promises nothing for one of them
    payload: bytes  # its canonical form, for the journal
    payload_digest: Digest

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("made by its verifier alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPresence:
    """The store still has what it had when it was confirmed. Made by this module alone."""

    token: InitVar[object]
    store: StoreId
    station: StationId
    acquisition: AcquisitionId
    confirmation: Digest  # of the VerifiedObjects that it is about
    needs: Needs  # by what it was judged
    at: datetime
    kept_until: datetime | None
    payload_digest: Digest

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("made by its verifier alone")


def to_read_back(states: Mapping[Piece, ObjectState]) -> tuple[Piece, ...]:
    """The objects of which the store states no checksum: they have to be read back."""
    return tuple(piece for piece in Piece if piece in states and states[piece].checksum is None)


def needs_of(confirmed: VerifiedObjects, piece: Piece, verdict: Verdict) -> Needs:
    """What shows that the store still has one of the objects: no version and no ETag does."""
    return Needs.BYTES if confirmed.objects[piece].state.checksum is None else verdict.needs


def verify_objects(
    states: Mapping[Piece, ObjectState],
    *,
    own: Mapping[Piece, OwnSums],
    read_back: Mapping[Piece, OwnSums],
    store: StoreId,
    station: StationId,
    manifest: SignedBytes,
    at: datetime,
) -> VerifiedObjects:
    """Compare what the store says, or gave back, with what the station has. Raises VerificationFailed.

    `own` is of the station's own bytes; those that were sealed and signed, which is checked here as well.
    """
    stated = manifests.decode(manifest.payload)
    if stated.station != station:
        raise VerificationFailed("the manifest is of another station")
    wanted = _wanted(manifest, stated)
    objects: dict[Piece, ConfirmedObject] = {}
    for piece, (size_bytes, digest) in wanted.items():
        mine, state = own.get(piece), states.get(piece)
        if mine is None or (mine.size_bytes, mine.digest) != (size_bytes, digest):
            raise VerificationFailed(f"the station's own {piece.value} is not what was sealed")
        if state is None:
            raise VerificationFailed(f"the store said nothing of the {piece.value}")
        objects[piece] = _confirmed(piece, state, mine, read_back.get(piece))
    return _made(objects, store, stated, manifest, at)


def parse_objects(payload: bytes, *, store: StoreId, station: StationId, manifest: SignedBytes) -> VerifiedObjects:
    """A confirmation as the journal keeps it, verified anew against the manifest. Raises VerificationFailed."""
    stated = manifests.decode(manifest.payload)
    fields = Fields(canonical.decode(payload, type_=CONFIRMATION_TYPE), CONFIRMATION_TYPE)
    named = fields.text("store"), fields.uuid("station"), fields.uuid("acquisition"), fields.digest("manifest_digest")
    if named != (store, station, stated.acquisition, canonical.digest(manifest.payload)) or stated.station != station:
        raise VerificationFailed("the confirmation is of another store, station or acquisition")
    at, inner = fields.time("at"), fields.inner("objects")
    objects: dict[Piece, ConfirmedObject] = {}
    for piece, (size_bytes, digest) in _wanted(manifest, stated).items():
        one = _object_of(inner.inner(piece.value))
        whole = one.state.checksum or None
        if one.state.size_bytes != size_bytes or one.digest != digest:
            raise VerificationFailed(f"the confirmation is for another {piece.value}")
        if whole is None and not one.read_back:
            raise VerificationFailed(f"the confirmation of the {piece.value} rests on nothing")
        if whole is not None and whole.algorithm is Algorithm.SHA256 and _spelled(whole.digest) != digest:
            raise VerificationFailed(f"the confirmation of the {piece.value} contradicts itself")
        objects[piece] = one
    inner.end()
    fields.end()
    made = _made(objects, store, stated, manifest, at)
    if made.payload != payload:
        raise VerificationFailed("the confirmation is not in its one spelling")
    return made


def still_there(
    confirmed: VerifiedObjects,
    states: Mapping[Piece, ObjectState],
    *,
    verdict: Verdict,
    shown: Mapping[Piece, int],
    at: datetime,
) -> VerifiedPresence:
    """The store still has these very objects, and may not delete them sooner than it said. Raises VerificationFailed.

    `shown`: how many bytes of each the store gave back right now, which were compared and the same. Another version or
    ETag than before is taken for another object; the same one shows nothing.
    """
    for piece in Piece:
        was, now = confirmed.objects[piece].state, states.get(piece)
        if now is None:
            raise VerificationFailed(f"the store says nothing of the {piece.value} any more")
        changed = {
            "length": now.size_bytes != was.size_bytes,
            "version": now.version != was.version,
            "checksum": needs_of(confirmed, piece, verdict) is Needs.CHECKSUM and now.checksum != was.checksum,
            "retention, which is shorter": _sooner(now.retention_until, was.retention_until),
        }
        for what, is_other in changed.items():
            if is_other:
                raise VerificationFailed(f"the {piece.value} has another {what} than when it was confirmed")
        if shown.get(piece, 0) < least_shown(was.size_bytes, needs_of(confirmed, piece, verdict)):
            raise VerificationFailed(f"nothing but its bytes would tell whether the {piece.value} is the same")
    kept_until = _least([states[piece].retention_until for piece in Piece])
    record = {
        "type": PRESENCE_TYPE,
        "v": 2,
        "store": confirmed.store,
        "confirmation": confirmed.payload_digest,
        "at": canonical.format_time(at),
        "objects": {piece.value: _state_record(states[piece]) for piece in Piece},
        "needs": verdict.needs.value,
        "shown": {piece.value: shown[piece] for piece in Piece},
    }
    return VerifiedPresence(
        token=_TOKEN,
        store=confirmed.store,
        station=confirmed.station,
        acquisition=confirmed.acquisition,
        confirmation=confirmed.payload_digest,
        needs=verdict.needs,
        at=at,
        kept_until=kept_until,
        payload_digest=canonical.digest(canonical.encode(record)),
    )


# --- how


def _wanted(manifest: SignedBytes, stated: manifests.Manifest) -> dict[Piece, tuple[int, Digest]]:
    """Length and digest of each object, from the manifest itself."""
    signature = manifest.signature.encode()
    return {
        Piece.SEALED: (stated.sealed_size_bytes, stated.sealed_digest),
        Piece.MANIFEST: (len(manifest.payload), canonical.digest(manifest.payload)),
        Piece.SIGNATURE: (len(signature), canonical.digest(signature)),
    }


def _confirmed(piece: Piece, state: ObjectState, mine: OwnSums, back: OwnSums | None) -> ConfirmedObject:
    if state.size_bytes != mine.size_bytes:
        raise VerificationFailed(
            f"the store has {state.size_bytes} bytes of the {piece.value}, which has {mine.size_bytes}"
        )
    checksum = state.checksum
    if checksum is not None and not _agrees(checksum, mine):
        raise VerificationFailed(f"the store computed another checksum of the {piece.value}")
    if back is not None and (back.size_bytes, back.digest) != (mine.size_bytes, mine.digest):
        raise VerificationFailed(f"the store gave back other bytes of the {piece.value}")
    if checksum is None and back is None:
        raise VerificationFailed(f"the store states no checksum of the {piece.value}, and it was not read back")
    return ConfirmedObject(state=state, digest=mine.digest, read_back=back is not None)


def _agrees(checksum: Checksum, mine: OwnSums) -> bool:
    if checksum.algorithm is Algorithm.SHA256:
        return _spelled(checksum.digest) == mine.digest
    return (
        checksum.part_bytes > 0
        and checksum.part_bytes == mine.part_bytes
        and len(checksum.digest) == _SHA256_BYTES
        and checksum.digest == mine.of_parts
    )


def _made(
    objects: Mapping[Piece, ConfirmedObject],
    store: StoreId,
    stated: manifests.Manifest,
    manifest: SignedBytes,
    at: datetime,
) -> VerifiedObjects:
    manifest_digest = canonical.digest(manifest.payload)
    payload = canonical.encode(
        {
            "type": CONFIRMATION_TYPE,
            "v": 1,
            "store": store,
            "station": stated.station,
            "acquisition": stated.acquisition,
            "manifest_digest": manifest_digest,
            "at": canonical.format_time(at),
            "objects": {
                piece.value: _state_record(one.state) | {"digest": one.digest, "read_back": one.read_back}
                for piece, one in objects.items()
            },
        }
    )
    return VerifiedObjects(
        token=_TOKEN,
        store=store,
        station=stated.station,
        acquisition=stated.acquisition,
        manifest_digest=manifest_digest,
        sealed_digest=stated.sealed_digest,
        sealed_size_bytes=stated.sealed_size_bytes,
        objects=objects,
        kind=Kind.READ_BACK if any(one.state.checksum is None for one in objects.values()) else Kind.CHECKSUM,
        at=at,
        kept_until=_least([one.state.retention_until for one in objects.values()]),
        payload=payload,
        payload_digest=canonical.digest(payload),
    )


def _state_record(state: ObjectState) -> dict[str, Any]:
    checksum, until = state.checksum, state.retention_until
    return {
        "size_bytes": state.size_bytes,
        "version": state.version,
        "checksum": checksum
        and {
            "algorithm": checksum.algorithm.value,
            "digest": checksum.digest.hex(),
            "part_bytes": checksum.part_bytes,
        },
        "retention_until": until and canonical.format_time(until),
        "legal_hold": state.legal_hold,
    }


def _object_of(fields: Fields) -> ConfirmedObject:
    checksum = None
    if not fields.null("checksum"):
        inner = fields.inner("checksum")
        try:
            algorithm = Algorithm(inner.text("algorithm"))
        except ValueError as error:
            raise VerificationFailed(str(error)) from error
        checksum = Checksum(
            algorithm=algorithm, digest=inner.hex("digest", _SHA256_BYTES), part_bytes=inner.count("part_bytes")
        )
        inner.end()
    one = ConfirmedObject(
        state=ObjectState(
            size_bytes=fields.count("size_bytes"),
            version=fields.text("version"),
            checksum=checksum,
            retention_until=None if fields.null("retention_until") else fields.time("retention_until"),
            legal_hold=fields.flag("legal_hold"),
        ),
        digest=fields.digest("digest"),
        read_back=fields.flag("read_back"),
    )
    fields.end()
    return one


def _spelled(digest: bytes) -> str:
    return f"sha256:{digest.hex()}"


def _least(moments: list[datetime | None]) -> datetime | None:
    known = [one for one in moments if one is not None]
    return min(known) if len(known) == len(moments) else None


def _sooner(now: datetime | None, was: datetime | None) -> bool:
    """Whether a promise was shortened, at the precision that is kept."""
    if was is None:
        return False
    return now is None or canonical.format_time(now) < canonical.format_time(was)
