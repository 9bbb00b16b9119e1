"""Receipts and holding statements: what a store signs, and how a station verifies it before it believes a word.

Bytes in, verified object out: a VerifiedReceipt or VerifiedHolding is made by the verifiers here and nowhere else.
Version 1 is about the station's own sealed clip, version 2 about another station's (`shared`): whether that one may
stand for this one is not verified here, but where the statement is believed (core.twins). Version 3 is about either,
and says which rule the clip falls under (core.retention) in the place of a bare date. `kept_until` is common to all.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from datetime import datetime
from typing import Any

from dockd.core import canonical
from dockd.core import manifest as manifests
from dockd.core.fields import Fields
from dockd.core.retention import Promise, RecordedFrom, Rule, VerifiedPolicy, keep_until, recording_start, take_promise
from dockd.core.sshsig import HOLDING, RECEIPT, PublicKey, verify
from dockd.core.twins import Shared, shared_of, take_shared
from dockd.errors import VerificationFailed
from dockd.model import AcquisitionId, Digest, SignedBytes, StationId, StoreId

RECEIPT_TYPE, HOLDING_TYPE = "receipt", "holding"
NO_PREVIOUS = Digest("sha256:" + "0" * 64)  # what the first receipt to a station names as the one before
_NONCE_BYTES, _ROOT_BYTES, _SHOWN_BYTES = 32, 32, 32
_SHARED, _RULED = 2, 3  # versions
_OF_THE_OBJECT = ("sealed_digest", "sealed_size_bytes")  # another station's has its own
_TOKEN = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    """What receipt and holding statement have in common. Made by this module alone."""

    token: InitVar[object]  # not kept: dataclasses.replace cannot pass it on
    store: StoreId
    station: StationId
    acquisition: AcquisitionId
    manifest_digest: Digest
    sealed_digest: Digest
    sealed_size_bytes: int
    nonce: bytes
    at: datetime
    kept_until: datetime  # versions 1 and 2: retention_until; version 3: keep_until
    rule: Rule | None  # version 3
    delete_by: datetime | None  # version 3, where a date ends the promise
    payload_digest: Digest
    shared: Shared | None  # where it is about another station's object

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("made by its verifier alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReceipt(_Verified):
    """The store durably holds the acquisition, and said so in its `receipt_seq`-th receipt to this station.

    `nonce` is the manifest's.
    """

    receipt_seq: int
    previous: Digest
    witnessed_size: int  # of this station's custody log, as the store had cosigned it by then
    witnessed_root: bytes
    shown: bytes | None  # of another station's object: `core.challenge.range_digest` of all of it, for the nonce


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedHolding(_Verified):
    """The store holds the acquisition now. `nonce` is the one that the station asked with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedWitness:
    """What a receipt says of the station's custody log. No verified receipt: nothing is erased on it."""

    store: StoreId
    station: StationId
    acquisition: AcquisitionId
    receipt_seq: int
    at: datetime
    size: int
    root: bytes


def build_receipt(
    *,
    store: StoreId,
    signed_manifest: bytes,
    receipt_seq: int,
    previous: Digest,
    witnessed_size: int,
    witnessed_root: bytes,
    at: datetime,
    retention_until: datetime | Promise,
    other: tuple[bytes, bytes] | None = None,
) -> bytes:
    """The bytes that a store signs in namespace RECEIPT. `receipt_seq` counts from 1 for each station.

    `other`: the manifest of the other station whose object it is, and what was shown of that (VerifiedReceipt). A
    promise makes it version 3.
    """
    stated = manifests.decode(signed_manifest)
    record = _common(store, signed_manifest, stated, at, retention_until, other and other[0])
    if other is not None:
        record["shares"]["shown"] = other[1].hex()
    return canonical.encode(
        record
        | {
            "type": RECEIPT_TYPE,
            "nonce": stated.nonce.hex(),
            "receipt_seq": receipt_seq,
            "previous": previous,
            "witnessed": {"size": witnessed_size, "root": witnessed_root.hex()},
        }
    )


def build_holding(
    *,
    store: StoreId,
    signed_manifest: bytes,
    nonce: bytes,
    at: datetime,
    retention_until: datetime | Promise,
    other: bytes | None = None,
) -> bytes:
    """The bytes that a store signs in namespace HOLDING, after it looked at the object; `other` as for a receipt."""
    stated = manifests.decode(signed_manifest)
    record = _common(store, signed_manifest, stated, at, retention_until, other)
    return canonical.encode(record | {"type": HOLDING_TYPE, "nonce": nonce.hex()})


def verify_receipt(
    signed: SignedBytes,
    *,
    store_key: PublicKey,
    store: StoreId,
    station: StationId,
    manifest: bytes,
) -> VerifiedReceipt:
    """Verify a receipt for exactly these manifest bytes. Raises VerificationFailed."""
    verify(store_key, RECEIPT, signed.payload, signed.signature)
    opened = fields, shares, _ = _opened(signed.payload, RECEIPT_TYPE)
    witnessed = fields.inner("witnessed")
    shown = shares.hex("shown", _SHOWN_BYTES) if shares else None
    receipt = VerifiedReceipt(
        **_verified_common(opened, signed, store, station, manifest),
        shown=shown,
        receipt_seq=fields.count("receipt_seq"),
        previous=fields.digest("previous"),
        witnessed_size=witnessed.count("size"),
        witnessed_root=witnessed.hex("root", _ROOT_BYTES),
    )
    witnessed.end()
    fields.end()
    if receipt.nonce != manifests.decode(manifest).nonce:
        raise VerificationFailed("the receipt does not repeat the manifest's nonce")
    if receipt.receipt_seq < 1:
        raise VerificationFailed("the receipt's number is not 1 or more")
    rule = receipt.rule
    start = manifests.recorded(manifests.decode(manifest))[0]
    if rule is not None and (rule.recorded_from, rule.recorded_at) != recording_start(start, receipt.at):
        raise VerificationFailed("the receipt counts from another start of recording than its rule says")
    return receipt


def verify_holding(
    signed: SignedBytes,
    *,
    store_key: PublicKey,
    store: StoreId,
    station: StationId,
    manifest: bytes,
    nonce: bytes,
) -> VerifiedHolding:
    """Verify a holding statement that answers exactly this nonce. Raises VerificationFailed."""
    verify(store_key, HOLDING, signed.payload, signed.signature)
    opened = _opened(signed.payload, HOLDING_TYPE)
    holding = VerifiedHolding(**_verified_common(opened, signed, store, station, manifest))
    opened[0].end()
    if holding.nonce != nonce:
        raise VerificationFailed("the holding statement answers another question: it may be an old one")
    return holding


def stated_witness(payload: bytes) -> StatedWitness:
    """What a receipt's bytes say of the log, for a verifier who has no manifest at hand. Raises VerificationFailed.

    Whether the store signed these bytes is the caller's to check, or to say that it was not.
    """
    fields = Fields(canonical.decode(payload, type_=RECEIPT_TYPE, newest=_RULED), RECEIPT_TYPE)
    witnessed = fields.inner("witnessed")
    return StatedWitness(
        store=StoreId(fields.uuid("store")),
        station=StationId(fields.uuid("station")),
        acquisition=AcquisitionId(fields.uuid("acquisition")),
        receipt_seq=fields.count("receipt_seq"),
        at=fields.time("at"),
        size=witnessed.count("size"),
        root=witnessed.hex("root", _ROOT_BYTES),
    )


def stated_sealed(payload: bytes) -> Digest | None:
    """The digest of the object that a receipt's bytes name; None where it is another station's. As `stated_witness`."""
    fields, shares, _ = _opened(payload, RECEIPT_TYPE)
    return None if shares else fields.inner("sealed").digest("digest")


def check_succession(previous: VerifiedReceipt | None, receipt: VerifiedReceipt) -> None:
    """Check that `receipt` is the very next one after `previous`; a receipt asked for again is no repeat.

    Raises VerificationFailed for a gap, a repeat or another history: the store lost receipts that it gave out.
    """
    if previous is not None and previous.payload_digest == receipt.payload_digest:
        return
    wanted_seq = previous.receipt_seq + 1 if previous else 1
    wanted = previous.payload_digest if previous else NO_PREVIOUS
    if receipt.receipt_seq != wanted_seq or receipt.previous != wanted:
        raise VerificationFailed(
            f"receipt {receipt.receipt_seq} does not follow receipt {wanted_seq - 1}: the store was rolled back, or "
            "gave receipts that never arrived; nothing may be erased until its operators have explained it"
        )


def check_rule(receipt: VerifiedReceipt, policy: VerifiedPolicy) -> None:
    """Check that a receipt of version 3 promises what the policy that it names says. Raises VerificationFailed.

    It may promise more than that, never less.
    """
    rule = receipt.rule
    if rule is None:
        return
    if rule.policy != policy.payload_digest:
        raise VerificationFailed("the receipt names another policy")
    terms = policy.terms(rule.category)
    if rule.until is not terms.until:
        raise VerificationFailed(f"the policy says of {rule.category} that it is kept until {terms.until.value}")
    wanted = keep_until(terms, recorded_at=rule.recorded_at, arrived=receipt.at, now=receipt.at)
    if receipt.kept_until < wanted:
        raise VerificationFailed(f"by its rule the clip is kept until {canonical.format_time(wanted)}")


def _opened(payload: bytes, type_: str) -> tuple[Fields, Fields | None, bool]:
    """A statement to be taken apart, what it says of the object's own station, and whether it names a rule."""
    record = canonical.decode(payload, type_=type_, newest=_RULED)
    fields = Fields(record, type_)
    ruled = record["v"] == _RULED
    shares = record["v"] == _SHARED or (ruled and not fields.null("shares"))
    return fields, fields.inner("shares") if shares else None, ruled


def _common(  # noqa: PLR0917  what a statement is made of
    store: StoreId,
    signed_manifest: bytes,
    stated: manifests.Manifest,
    at: datetime,
    retention_until: datetime | Promise,
    other: bytes | None,
) -> dict[str, Any]:
    held = stated
    more: dict[str, Any] = {"v": 1}
    if other is not None:
        held = manifests.decode(other)
        more = {"v": _SHARED, "shares": shared_of(held, other).record()}
    if isinstance(retention_until, Promise):
        more = {"shares": None} | more | {"v": _RULED} | retention_until.record()
    else:
        more["retention_until"] = canonical.format_time(retention_until)
    return more | {
        "store": store,
        "station": stated.station,
        "acquisition": stated.acquisition,
        "manifest": canonical.digest(signed_manifest),
        "sealed": {"digest": held.sealed_digest, "size_bytes": held.sealed_size_bytes},
        "at": canonical.format_time(at),
    }


def _verified_common(
    opened: tuple[Fields, Fields | None, bool],
    signed: SignedBytes,
    store: StoreId,
    station: StationId,
    manifest_bytes: bytes,
) -> dict[str, Any]:
    """The common fields, checked against the station's own manifest."""
    fields, shares, ruled = opened
    stated = manifests.decode(manifest_bytes)
    shared = None
    if shares is not None:
        shared = take_shared(shares)
        shares.end()
    sealed = fields.inner("sealed")
    found = {
        "store": fields.uuid("store"),
        "station": fields.uuid("station"),
        "acquisition": fields.uuid("acquisition"),
        "manifest_digest": fields.digest("manifest"),
        "sealed_digest": sealed.digest("digest"),
        "sealed_size_bytes": sealed.count("size_bytes"),
    }
    sealed.end()
    wanted = {
        "store": store,
        "station": station,
        "acquisition": stated.acquisition,
        "manifest_digest": canonical.digest(manifest_bytes),
        "sealed_digest": stated.sealed_digest,
        "sealed_size_bytes": stated.sealed_size_bytes,
    }
    for key, value in wanted.items():
        if found[key] != value and not (shared is not None and key in _OF_THE_OBJECT):
            raise VerificationFailed(f"the store signed for another {key}: {found[key]}, not {value}")
    promise = take_promise(fields) if ruled else None
    if promise is not None:
        _check_start(promise.rule, stated)
    return found | {
        "token": _TOKEN,
        "shared": shared,
        "nonce": fields.hex("nonce", _NONCE_BYTES),
        "at": fields.time("at"),
        "kept_until": promise.keep_until if promise else fields.time("retention_until"),
        "rule": promise and promise.rule,
        "delete_by": promise and promise.delete_by,
        "payload_digest": canonical.digest(signed.payload),
    }


def _check_start(rule: Rule, stated: manifests.Manifest) -> None:
    """Refuse a rule that counts from a start of recording that the manifest does not state."""
    recorded_at, _ = manifests.recorded(stated)
    if rule.recorded_from is RecordedFrom.MANIFEST and rule.recorded_at != recorded_at:
        raise VerificationFailed("the store counts from another start of recording than the manifest's")
