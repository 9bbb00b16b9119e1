"""What a store says of its own looking: how much of what a station brought it read again, and what it found lost.

Signed, and an answer to one question: nothing says "none" that has not looked, and no old statement passes for a new
one. Bytes in, verified object out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from datetime import datetime
from typing import Any

from dockd.core import canonical
from dockd.core.fields import Fields
from dockd.core.sshsig import LOSSES, PublicKey, verify
from dockd.errors import VerificationFailed
from dockd.model import AcquisitionId, Digest, SignedBytes, StationId, StoreId

LOSSES_TYPE = "losses"
PAGE = 100  # losses in one statement: it has to fit into a custody entry
_NONCE_BYTES = 32
_TOKEN = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """How much of a station's clips its store looked at. What was not looked at is said, too."""

    objects: int  # that it signed for
    looked: int  # of these, within the last `every_s`
    oldest: datetime | None  # the earliest of these looks
    never: int  # since they were signed for, or sent again
    late: int  # that should have been looked at by now
    unread: int  # that cannot be read at this time, and may come back
    losses: int
    every_s: int

    def record(self) -> dict[str, Any]:
        """As statements have it, and the journal."""
        counts = {key: getattr(self, key) for key in _COUNTS}
        return counts | {"oldest": self.oldest and canonical.format_time(self.oldest)}


_COUNTS = ("objects", "looked", "never", "late", "unread", "losses", "every_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldLoss:
    """One clip that the store no longer has as it signed for it."""

    acquisition: AcquisitionId
    what: str  # "missing", "length", "changed", or what a later store says
    found_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLosses:
    """One page of what a store told. Made by `verify_losses` alone."""

    token: InitVar[object]  # not kept: dataclasses.replace cannot pass it on
    at: datetime
    looking: Looking
    losses: tuple[ToldLoss, ...]
    more: bool  # others come after the last of these
    payload_digest: Digest

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("made by its verifier alone")


def build_losses(
    *,
    store: StoreId,
    station: StationId,
    nonce: bytes,
    at: datetime,
    after: str,
    looking: Looking,
    losses: Sequence[ToldLoss],
    more: bool,
) -> bytes:
    """The bytes that a store signs in namespace LOSSES. `losses`: at most PAGE, in order, beyond `after`."""
    return canonical.encode(
        {
            "type": LOSSES_TYPE,
            "v": 1,
            "store": store,
            "station": station,
            "nonce": nonce.hex(),
            "at": canonical.format_time(at),
            "after": after,
            "looking": looking.record(),
            "losses": [
                {"acquisition": one.acquisition, "what": one.what, "found": canonical.format_time(one.found_at)}
                for one in losses
            ],
            "more": more,
        }
    )


def verify_losses(
    signed: SignedBytes, *, store_key: PublicKey, store: StoreId, station: StationId, nonce: bytes, after: str
) -> VerifiedLosses:
    """Verify what answers exactly this question. Raises VerificationFailed."""
    verify(store_key, LOSSES, signed.payload, signed.signature)
    fields = Fields(canonical.decode(signed.payload, type_=LOSSES_TYPE), LOSSES_TYPE)
    found = {"store": fields.uuid("store"), "station": fields.uuid("station"), "after": fields.text("after")}
    for key, wanted in {"store": store, "station": station, "after": after}.items():
        if found[key] != wanted:
            raise VerificationFailed(f"the store's statement about losses is of another {key}: {found[key]}")
    if fields.hex("nonce", _NONCE_BYTES) != nonce:
        raise VerificationFailed("the statement about losses answers another question: it may be an old one")
    at, looking, more = fields.time("at"), take_looking(fields.inner("looking")), fields.flag("more")
    losses = tuple(_loss(one) for one in fields.records("losses"))
    fields.end()
    names = [after, *(one.acquisition for one in losses)]
    if len(losses) > PAGE or names != sorted(set(names)) or (more and not losses):
        raise VerificationFailed("the statement about losses is no page of a list that comes to an end")
    return VerifiedLosses(
        token=_TOKEN,
        at=at,
        looking=looking,
        losses=losses,
        more=more,
        payload_digest=canonical.digest(signed.payload),
    )


def take_looking(fields: Fields) -> Looking:
    """How much was looked at. Raises VerificationFailed for what contradicts itself."""
    oldest = None if fields.null("oldest") else fields.time("oldest")
    counts = {key: fields.count(key) for key in _COUNTS}
    fields.end()
    if counts["looked"] + counts["never"] > counts["objects"] or (counts["looked"] > 0) != (oldest is not None):
        raise VerificationFailed("the statement about losses contradicts itself: more was looked at than there is")
    return Looking(oldest=oldest, **counts)


def _loss(fields: Fields) -> ToldLoss:
    found = ToldLoss(
        acquisition=AcquisitionId(fields.uuid("acquisition")), what=fields.text("what"), found_at=fields.time("found")
    )
    fields.end()
    return found
