"""Extensions: a store promises to keep longer what it gave a receipt for, by statements that chain to that receipt.

They stand outside `receipt_seq`. Each names the receipt and the extension before it, so that none can be left out or
put in later unseen; none promises less than what was promised before. Bytes in, verified object out.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from datetime import datetime

from dockd.core import canonical
from dockd.core import manifest as manifests
from dockd.core.fields import Fields
from dockd.core.receipts import NO_PREVIOUS, VerifiedHolding, VerifiedReceipt
from dockd.core.retention import Promise, Rule, Until, recording_start, take_promise
from dockd.core.sshsig import EXTENSION, PublicKey, verify
from dockd.errors import VerificationFailed
from dockd.model import AcquisitionId, Digest, SignedBytes

EXTENSION_TYPE = "extension"
RECEIPT_TYPE, _NEWEST_RECEIPT = "receipt", 3
_TOKEN = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedExtension:
    """The `n`-th extension of one receipt. Made by `verify_extension` alone."""

    token: InitVar[object]  # not kept: dataclasses.replace cannot pass it on
    acquisition: AcquisitionId
    receipt: Digest  # of the receipt's exact bytes
    n: int
    at: datetime
    rule: Rule
    kept_until: datetime
    delete_by: datetime | None
    payload_digest: Digest

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("made by its verifier alone")


def build_extension(*, receipt: bytes, previous: bytes | None, at: datetime, promise: Promise) -> bytes:
    """The bytes that a store signs in namespace EXTENSION. `receipt`, `previous`: exact bytes that it signed itself."""
    # A receipt of any version: what is taken from it is in all of them.
    given = canonical.decode(receipt, type_=RECEIPT_TYPE, newest=_NEWEST_RECEIPT)
    number = 1 if previous is None else canonical.decode(previous, type_=EXTENSION_TYPE)["n"] + 1
    return canonical.encode(
        {
            "type": EXTENSION_TYPE,
            "v": 1,
            **{key: given[key] for key in ("store", "station", "acquisition", "manifest")},
            "receipt": canonical.digest(receipt),
            "n": number,
            "previous": NO_PREVIOUS if previous is None else canonical.digest(previous),
            "at": canonical.format_time(at),
            **promise.record(),
        }
    )


def verify_extension(
    signed: SignedBytes,
    *,
    store_key: PublicKey,
    receipt: VerifiedReceipt,
    manifest: bytes,
    previous: VerifiedExtension | None,
) -> VerifiedExtension:
    """Verify the extension of `receipt` that follows `previous`. Raises VerificationFailed.

    `manifest`: the exact bytes that the receipt is for.
    """
    verify(store_key, EXTENSION, signed.payload, signed.signature)
    fields = Fields(canonical.decode(signed.payload, type_=EXTENSION_TYPE), EXTENSION_TYPE)
    found = {key: fields.uuid(key) for key in ("store", "station", "acquisition")}
    found |= {key: fields.digest(key) for key in ("manifest", "receipt", "previous")}
    number, at, promise = fields.count("n", least=1), fields.time("at"), take_promise(fields)
    fields.end()
    wanted = {
        "store": receipt.store,
        "station": receipt.station,
        "acquisition": receipt.acquisition,
        "manifest": canonical.digest(manifest),
        "receipt": receipt.payload_digest,
        "previous": previous.payload_digest if previous else NO_PREVIOUS,
    }
    for key, value in wanted.items():
        if found[key] != value:
            raise VerificationFailed(f"the extension names another {key}: {found[key]}, not {value}")
    if number != (previous.n + 1 if previous else 1):
        raise VerificationFailed(f"the extension is number {number}, which does not follow")
    _check_promise(promise, receipt, manifest, previous or receipt)
    return VerifiedExtension(
        token=_TOKEN,
        acquisition=receipt.acquisition,
        receipt=receipt.payload_digest,
        n=number,
        at=at,
        rule=promise.rule,
        kept_until=promise.keep_until,
        delete_by=promise.delete_by,
        payload_digest=canonical.digest(signed.payload),
    )


def kept_until(receipt: VerifiedReceipt, extension: VerifiedExtension | None, holding: VerifiedHolding) -> datetime:
    """Until when a store keeps a clip, by all that it said: `extension` is the newest, `holding` what it says now.

    Where a person ends the promise, the floor that the holding statement states now is what counts: those stated
    before have moved since. Else it is the least of what was promised and what is said now.
    """
    promised = receipt if extension is None else extension
    endless = (promised.rule, holding.rule)
    if all(rule is not None and rule.until is Until.ENDED for rule in endless):
        return holding.kept_until
    return min(promised.kept_until, holding.kept_until)


def _check_promise(
    promise: Promise, receipt: VerifiedReceipt, manifest: bytes, before: VerifiedReceipt | VerifiedExtension
) -> None:
    start, _ = manifests.recorded(manifests.decode(manifest))
    if (promise.rule.recorded_from, promise.rule.recorded_at) != recording_start(start, receipt.at):
        raise VerificationFailed("the extension counts from another start of recording than its rule says")
    weaker = before.rule is not None and before.rule.until is Until.ENDED and promise.rule.until is not Until.ENDED
    if weaker or promise.keep_until < before.kept_until:
        raise VerificationFailed("the extension promises less than what was promised before")
