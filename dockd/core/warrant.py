"""The erase warrant: the one permission to erase a clip, given only where every condition of promise P01 is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from datetime import datetime, timedelta
from typing import Any

from dockd.core import canonical, releases, standing
from dockd.core.canonical import decode_path, encode_path, format_time
from dockd.core.confirmation import Kind, VerifiedObjects, VerifiedPresence
from dockd.core.extensions import VerifiedExtension, kept_until
from dockd.core.fields import Fields
from dockd.core.findings import Findings
from dockd.core.lifecycle import AcquisitionState
from dockd.core.manifest import Manifest, encode
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.proof import Needs, weigh
from dockd.core.receipts import VerifiedHolding, VerifiedReceipt
from dockd.core.remnants import may_be_left, remnant_of
from dockd.core.standing import Own
from dockd.core.twins import VerifiedTwin, differences
from dockd.errors import VerificationFailed, WarrantRefused
from dockd.model import (
    Acquisition,
    AcquisitionId,
    CameraIdentity,
    Digest,
    DockingId,
    Epoch,
    FoundFile,
    Reread,
    StationId,
    StoreId,
)

HOLDING_FRESH = timedelta(minutes=5)  # of the station's own clock: what a store says is no older than its question
_TOKEN = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedConfirmation:
    """What a store that signs said: its receipt, and right now that it holds the clip."""

    receipt: VerifiedReceipt
    holding: VerifiedHolding
    asked_at: datetime  # by the station's clock, with the holding statement's nonce
    twin: VerifiedTwin | None = None  # where the two are about another station's object
    extension: VerifiedExtension | None = None  # the newest of the receipt

    @property
    def store(self) -> StoreId:
        """Whose receipt it is."""
        return self.receipt.store


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectConfirmation:
    """What was found at a store that does not sign: its objects were whole, and right now they still are those."""

    objects: VerifiedObjects
    presence: VerifiedPresence
    asked_at: datetime  # by the station's clock, before the store was looked at
    findings: Findings  # what is known of the store from its trials

    @property
    def store(self) -> StoreId:
        """Whose objects they are."""
        return self.objects.store


Confirmation = SignedConfirmation | ObjectConfirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """One store's word that a warrant rests on, by its digests."""

    store: StoreId
    kind: Kind
    confirmation: Digest  # of the receipt, or of what was found when the objects were compared
    presence: Digest  # of the holding statement, or of what was found right before erasing


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseWarrant:
    """Permission to erase one file of one camera within one docking. Made by `issue` and `from_wire` alone."""

    token: InitVar[object]  # not kept: dataclasses.replace cannot pass it on
    acquisition: AcquisitionId
    docking: DockingId
    epoch: Epoch
    camera: CameraIdentity
    file: FoundFile  # what may be erased, and nothing else
    plaintext_digest: Digest  # what the second read found, and the manifest states
    grounds: tuple[Ground, ...]  # of stores that satisfy the policy, in order of their ids
    remnant: bool  # the rest of an interrupted erasure, under its own name
    since: datetime  # by the station's clock: when the last of the grounds was asked for
    until: datetime  # when the first of the grounds is no longer fresh, or its promise too near its end

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("a warrant is issued, not made")


def issue(
    *,
    acquisition: Acquisition,
    manifest: Manifest,
    confirmations: Sequence[Confirmation],
    policy: StorePolicy,
    reread: Reread,
    docking: DockingId,
    epoch: Epoch,
    camera_now: CameraIdentity,
    custody_durable_size: int,
    now: datetime,
    remnant: FoundFile | None = None,
    unclean: str = "",
) -> EraseWarrant:
    """Issue a warrant. Raises WarrantRefused, naming every condition that is not met.

    Of the confirmations only those count that meet every condition of their own; those have to satisfy the policy.
    With `remnant`, the rest of an erasure that was begun under an earlier, durable warrant may go: it was read a second
    time then, and cannot be compared again. `unclean` says why the camera's file systems were not clean, where they
    were not: its clips are erased by an operator's release alone, and so is an empty clip.
    """
    row, sealed = acquisition, acquisition.sealed
    digests = {manifest.plaintext_digest, reread.plaintext_digest, sealed.plaintext_digest if sealed else None}
    unmet = {
        "the second read found other bytes": len(digests) != 1,
        "another camera is in the bay": camera_now != manifest.camera,
        "its custody entry is not durable": manifest.custody_seq >= custody_durable_size
        or row.custody_seq != manifest.custody_seq,
    }
    unmet |= _release_conditions(row, manifest, unclean)
    unmet |= _row_conditions(row, manifest, AcquisitionState.WARRANTED if remnant else AcquisitionState.STORED)
    unmet |= _remnant_conditions(row, remnant) if remnant else _file_conditions(row, manifest, reread, docking)
    confirmed, doubts = _weigh(confirmations, policy, manifest, now)
    reasons = *(reason for reason, broken in unmet.items() if broken), *doubts
    if reasons:
        raise WarrantRefused(reasons)
    return EraseWarrant(
        token=_TOKEN,
        acquisition=row.acquisition,
        docking=docking,
        epoch=epoch,
        camera=camera_now,
        file=remnant or row.file,
        plaintext_digest=manifest.plaintext_digest,
        grounds=tuple(_ground_of(one) for one in confirmed),
        remnant=remnant is not None,
        since=max(one.asked_at for one in confirmed),
        until=min(_stands_until(one, policy) for one in confirmed),
    )


def require_standing(warrant: EraseWarrant, now: datetime) -> None:
    """Raise WarrantRefused where what a warrant rests on does not hold at this moment, as `issue` would then.

    A clock that was set back counts as well as one that went on.
    """
    if not warrant.since <= now <= warrant.until:
        raise WarrantRefused(("what the stores said is not of right now, or promised for too short a time from now",))


def to_wire(warrant: EraseWarrant) -> dict[str, Any]:
    """For the reader, and for the custody entry that makes the warrant durable."""
    camera, file = warrant.camera, warrant.file
    return {
        "acquisition": warrant.acquisition,
        "docking": warrant.docking,
        "epoch": int(warrant.epoch),
        "camera": {
            "vendor": camera.vendor,
            "product": camera.product,
            "serial": camera.serial,
            "model": camera.model,
            "volume_id": camera.volume_id,
        },
        "path": encode_path(file.path),
        "size_bytes": file.size_bytes,
        "mtime_ns": str(file.mtime_ns),
        "inode": str(file.inode),
        "links": file.links,
        "plaintext": warrant.plaintext_digest,
        "confirmations": [
            {
                "store": ground.store,
                "kind": ground.kind.value,
                "confirmation": ground.confirmation,
                "presence": ground.presence,
            }
            for ground in warrant.grounds
        ],
        "remnant": "yes" if warrant.remnant else "no",
        "since": format_time(warrant.since),
        "until": format_time(warrant.until),
    }


def from_wire(record: dict[str, Any], *, docking: DockingId, epoch: Epoch, camera: CameraIdentity) -> EraseWarrant:
    """The warrant that the station issued to this very docking. Raises WarrantRefused for any other.

    The reader is handed it over a socket that only its own station holds.
    """
    try:
        fields = Fields(record, "warrant")
        who = fields.inner("camera")
        warrant = EraseWarrant(
            token=_TOKEN,
            acquisition=AcquisitionId(fields.uuid("acquisition")),
            docking=DockingId(fields.uuid("docking")),
            epoch=Epoch(fields.count("epoch")),
            camera=CameraIdentity(
                **{key: who.text(key) for key in ("vendor", "product", "serial", "model", "volume_id")}
            ),
            file=FoundFile(
                path=decode_path(fields.text("path")),
                size_bytes=fields.count("size_bytes"),
                mtime_ns=int(fields.text("mtime_ns")),
                inode=int(fields.text("inode")),
                links=fields.count("links"),
            ),
            plaintext_digest=fields.digest("plaintext"),
            grounds=tuple(_ground(one) for one in fields.records("confirmations")),
            remnant=fields.text("remnant") == "yes",
            since=fields.time("since"),
            until=fields.time("until"),
        )
        who.end()
        fields.end()
    except (VerificationFailed, ValueError) as error:
        raise WarrantRefused((f"not a warrant: {error}",)) from error
    unmet = {
        "the warrant rests on no confirmation": not warrant.grounds,
        "the warrant is of another docking": (warrant.docking, warrant.epoch) != (docking, epoch),
        "the warrant is for another camera": warrant.camera != camera,
        "the warrant names a remnant that is none": warrant.remnant
        and remnant_of(warrant.file.path) != warrant.acquisition,
    }
    reasons = tuple(reason for reason, broken in unmet.items() if broken)
    if reasons:
        raise WarrantRefused(reasons)
    return warrant


def _ground(fields: Fields) -> Ground:
    ground = Ground(
        store=StoreId(fields.text("store")),
        kind=Kind(fields.text("kind")),
        confirmation=fields.digest("confirmation"),
        presence=fields.digest("presence"),
    )
    fields.end()
    return ground


def _row_conditions(row: Acquisition, manifest: Manifest, wanted: AcquisitionState) -> dict[str, bool]:
    """The journal's word: the clip's turn has come, nothing speaks against it, and the manifest is its own."""
    return {
        f"the clip is {row.state}, not {wanted.value}": row.state != wanted,
        "its reads disagree": row.contested,
        "the manifest is of another acquisition or camera": manifest.acquisition != row.acquisition
        or manifest.camera != row.camera
        or row.manifest_digest != canonical.digest(encode(manifest)),
    }


def _release_conditions(row: Acquisition, manifest: Manifest, unclean: str) -> dict[str, bool]:
    """What only a person may judge, and nobody who had seen it did."""
    needed = releases.grounds(manifest.verdict, manifest.size_bytes, unclean)
    return {releases.sentence(one): True for one in releases.uncovered(needed, row.released_for)}


def _weigh(
    confirmations: Sequence[Confirmation], policy: StorePolicy, manifest: Manifest, now: datetime
) -> tuple[tuple[Confirmation, ...], list[str]]:
    """The stores' word: those who hold exactly this, and long enough, are enough. Else the reasons why they are not."""
    grounds: dict[StoreId, Confirmation] = {}
    doubts: list[str] = []
    for one in confirmations:
        unmet = _store_conditions(one, policy, manifest, now)
        reasons = [f"{policy.name(one.store)}: {reason}" for reason, broken in unmet.items() if broken]
        doubts += reasons
        if not reasons:
            grounds[one.store] = one
    if policy.satisfied(grounds.keys()):
        return tuple(grounds[store] for store in sorted(grounds)), []
    asked = {policy.name(one.store) for one in confirmations}
    silent = [name for name in policy.missing(grounds.keys()) if name not in asked]
    if silent or not doubts:
        doubts.append(f"what has to confirm it is {policy.sentence()}, and nothing is there of {', '.join(silent)}")
    return (), doubts


def _store_conditions(one: Confirmation, policy: StorePolicy, manifest: Manifest, now: datetime) -> dict[str, bool]:
    """One store's word: it counts, is of right now, about exactly this clip, and is kept long enough from then on."""
    configured = policy.store(one.store)
    unmet = {
        "its word does not count towards erasing": configured is None or not policy.counts(one.store),
        "what it said is not of right now": not timedelta(0) <= now - one.asked_at <= HOLDING_FRESH,
    }
    if isinstance(one, SignedConfirmation):
        unmet |= _signed_conditions(one, manifest)
        unmet |= _twin_conditions(one, manifest, configured)
    else:
        unmet |= _object_conditions(one.objects, one.presence, manifest)
        unmet |= _proof_conditions(one, configured)
    if configured is not None:
        unmet |= dict.fromkeys(_promise_doubts(one, configured, manifest, policy.margin, now), True)
    return unmet


def _promise_doubts(
    one: Confirmation, configured: PolicyStore, manifest: Manifest, margin: timedelta, now: datetime
) -> tuple[str, ...]:
    """What it promises is as long as it has to be, and has not come too near its end: from now, not from then."""
    if not _has_to_promise(one, configured):
        return ()
    until = _kept_until(one)
    if until is None:
        return ("it does not promise to keep the clip",)
    if isinstance(one, SignedConfirmation):
        own = Own(configured=configured, manifest=manifest, margin=margin, now=now)
        return standing.doubts(one.receipt, one.extension, until, own)
    return standing.too_soon(until, one.objects.at + configured.min_retention, margin, now)


def _has_to_promise(one: Confirmation, configured: PolicyStore) -> bool:
    """Whether its promise counts: of a store that does not sign it may be waived, outright, with a minimum of 0."""
    return isinstance(one, SignedConfirmation) or bool(configured.min_retention)


def _kept_until(one: Confirmation) -> datetime | None:
    """What it promises: by all that it said, or by the lock that is there now, which may have been made longer since.

    None where it promised nothing when it confirmed the clip, or promises nothing now.
    """
    if isinstance(one, SignedConfirmation):
        return kept_until(one.receipt, one.extension, one.holding)
    then, now = one.objects.kept_until, one.presence.kept_until
    return None if then is None else now


def _stands_until(one: Confirmation, policy: StorePolicy) -> datetime:
    """Until when a confirmation that is believed now is one."""
    fresh, configured, until = one.asked_at + HOLDING_FRESH, policy.store(one.store), _kept_until(one)
    if until is None or configured is None or not _has_to_promise(one, configured):
        return fresh
    return min(fresh, until - policy.margin)


def _signed_conditions(one: SignedConfirmation, manifest: Manifest) -> dict[str, bool]:
    receipt, holding = one.receipt, one.holding
    return {
        "the receipt is for another acquisition": not _is_about(receipt, manifest, one.twin),
        "the holding statement is for another acquisition": not _is_about(holding, manifest, one.twin),
        "receipt and holding statement are by two stores": receipt.store != holding.store,
        "the extension is of another receipt": one.extension is not None
        and one.extension.receipt != receipt.payload_digest,
    }


def _is_about(said: VerifiedReceipt | VerifiedHolding, manifest: Manifest, twin: VerifiedTwin | None) -> bool:
    """Whether the store holds the clip's own object, or the very one of the other station that its twin is."""
    if said.shared is None:
        return _said_of(said) == _subject(manifest)
    whose = said.station, said.acquisition, said.manifest_digest
    own = manifest.station, manifest.acquisition, canonical.digest(encode(manifest))
    return twin is not None and whose == own and twin.is_meant(said.shared, said.sealed_digest, said.sealed_size_bytes)


def _twin_conditions(one: SignedConfirmation, manifest: Manifest, configured: PolicyStore | None) -> dict[str, bool]:
    """Another station's object may stand for this clip's own: what is sealed there is what both own reads found."""
    shared, twin = one.receipt.shared or one.holding.shared, one.twin
    if shared is None:
        return {}
    listed = configured is not None and shared.station in configured.trust_stations
    unmet = {
        f"it has the object of station {shared.station}, which is not one of its trust_stations": not listed,
        "the manifest of the other station, whose object it has, was not verified": twin is None,
        "the other station's object was compared with another clip": twin is not None and twin.own != manifest,
    }
    reasons = () if twin is None else differences(manifest, twin.other)
    return unmet | {f"of the other station's object: {reason}": True for reason in reasons}


def _object_conditions(objects: VerifiedObjects, presence: VerifiedPresence, manifest: Manifest) -> dict[str, bool]:
    return {
        "the objects are of another acquisition": _said_of(objects) != _subject(manifest),
        "what was seen right now is of other objects": (presence.store, presence.confirmation)
        != (objects.store, objects.payload_digest),
    }


def _proof_conditions(one: ObjectConfirmation, configured: PolicyStore | None) -> dict[str, bool]:
    """What its trials found lets its word count, and it was asked for no less than that takes."""
    verdict = weigh(configured, one.findings, signs=False)
    less = "its bytes were not read back right now, and no checksum of it is believed"
    return {less: verdict.needs is Needs.BYTES and one.presence.needs is not Needs.BYTES} | dict.fromkeys(
        verdict.held, True
    )


def _ground_of(one: Confirmation) -> Ground:
    if isinstance(one, SignedConfirmation):
        kind, confirmed, present = Kind.RECEIPT, one.receipt.payload_digest, one.holding.payload_digest
    else:
        kind, confirmed, present = one.objects.kind, one.objects.payload_digest, one.presence.payload_digest
    return Ground(store=one.store, kind=kind, confirmation=confirmed, presence=present)


def _subject(manifest: Manifest) -> tuple[StationId, AcquisitionId, Digest, int, Digest]:
    sealed = manifest.sealed_digest, manifest.sealed_size_bytes
    return manifest.station, manifest.acquisition, *sealed, canonical.digest(encode(manifest))


def _said_of(said: VerifiedReceipt | VerifiedHolding | VerifiedObjects) -> tuple[object, ...]:
    return said.station, said.acquisition, said.sealed_digest, said.sealed_size_bytes, said.manifest_digest


def _file_conditions(row: Acquisition, manifest: Manifest, reread: Reread, docking: DockingId) -> dict[str, bool]:
    """The clip was read a second time in this uninterrupted docking, and is still the file that was read."""
    sealed = row.sealed
    return {
        "it was not read a second time within this docking": reread.docking != docking or row.docking != docking,
        "the file is not the one that was read a second time": reread.file != row.file,
        "the file is not the one that was sealed": sealed is None
        or (row.file.path, row.file.size_bytes, row.file.mtime_ns)
        != (manifest.path, manifest.size_bytes, manifest.mtime_ns)
        or manifest.plaintext_size_bytes != manifest.size_bytes,
        "the file has several links": row.file.links != 1,
    }


def _remnant_conditions(row: Acquisition, remnant: FoundFile) -> dict[str, bool]:
    """What an erasure under an earlier warrant left is that very file, by inode and by the name it was given."""
    return {
        "the remnant bears another name": remnant_of(remnant.path) != row.acquisition,
        "the remnant is another file": remnant.inode != row.file.inode or remnant.links != 1,
        "the remnant has another size": not may_be_left(remnant.size_bytes, row.file.size_bytes),
    }
