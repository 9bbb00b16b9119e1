"""Extensions of what a store promised: kept beside its receipt, verified again whenever they are used, asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import structlog

from dockd.core import standing
from dockd.core.canonical import format_time
from dockd.core.extensions import VerifiedExtension, verify_extension
from dockd.core.manifest import decode
from dockd.core.policy import StorePolicy
from dockd.core.receipts import VerifiedReceipt
from dockd.core.retention import MAX_DAYS
from dockd.core.standing import Own
from dockd.errors import NotExtended, StoreUnproven, StoreUntrusted, VerificationFailed
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, Clock, SignedBytes, StoreId
from dockd.stages.confirming import row_of
from dockd.stores.port import SigningStore

_log = structlog.get_logger()
_LONG = timedelta(days=MAX_DAYS)
_MOST = 32  # asked for at once: those that were given and never arrived come first


@dataclass(frozen=True, slots=True, kw_only=True)
class Extending:
    """Asks one store for more where what it promised of a clip does not reach."""

    journal: Journal
    store: SigningStore
    policy: StorePolicy
    clock: Clock

    async def newest(self, receipt: VerifiedReceipt) -> VerifiedExtension | None:
        """The newest extension that is kept of a receipt. Raises VerificationFailed."""
        name, of = receipt.acquisition, self.store.store
        kept, manifest = await self.journal.read(lambda tx: (tx.extensions(name, of), tx.manifest(name)))
        found: VerifiedExtension | None = None
        for signed in kept:
            found = self._verify(signed, receipt, manifest, found)
        return found

    async def lasting(self, receipt: VerifiedReceipt) -> VerifiedExtension | None:
        """The newest extension, asked for where the promise does not reach far enough without it.

        Raises StoreUnproven where the store promises no more: a person can change that, or send the clip again.
        Raises StoreUntrusted for an extension that does not verify, and the store's other errors.
        """
        configured = self.policy.store(self.store.store)
        manifest = await self.journal.read(lambda tx: tx.manifest(receipt.acquisition))
        stated, extension = decode(manifest.payload), await self.newest(receipt)
        if configured is None:
            return extension
        for _ in range(_MOST):
            now = self.clock.now()
            own = Own(configured=configured, manifest=stated, margin=self.policy.margin, now=now)
            endless = standing.is_endless(receipt, extension)  # then the floor of now is what counts
            until = (extension or receipt).kept_until if not endless else now + _LONG
            doubts = standing.doubts(receipt, extension, until, own)
            if not doubts:
                return extension
            try:
                extension = await self._next(receipt, manifest, extension)
            except NotExtended as error:
                raise StoreUnproven(f"{'; '.join(doubts)}, and it promises no more ({error}): {_WAITS}") from error
        raise StoreUnproven(f"{'; '.join(doubts)}, after {_MOST} extensions: {_WAITS}")

    async def _next(
        self, receipt: VerifiedReceipt, manifest: SignedBytes, before: VerifiedExtension | None
    ) -> VerifiedExtension:
        name, of, after = receipt.acquisition, self.store.store, before.n if before else 0
        signed = await self.store.extension(name, receipt.payload_digest, after)
        try:
            extension = self._verify(signed, receipt, manifest, before)
        except VerificationFailed as error:
            raise StoreUntrusted(f"the store's extension for {name} cannot be trusted: {error}") from error
        await self.journal.write(lambda tx: _keep(tx, row_of(tx, name), of, signed, extension))
        _log.info("promise_extended", acquisition=name, store=of, n=extension.n)
        return extension

    def _verify(
        self, signed: SignedBytes, receipt: VerifiedReceipt, manifest: SignedBytes, before: VerifiedExtension | None
    ) -> VerifiedExtension:
        return verify_extension(
            signed, store_key=self.store.key, receipt=receipt, manifest=manifest.payload, previous=before
        )


_WAITS = "the clip waits on its camera until the store's policy is mended"


def _keep(tx: Tx, row: Acquisition, store: StoreId, signed: SignedBytes, extension: VerifiedExtension) -> None:
    if tx.put_extension(row.acquisition, store, extension.n, signed):
        details = {
            "store": store,
            "n": extension.n,
            "extension": extension.payload_digest,
            "keep_until": format_time(extension.kept_until),
        }
        tx.record_about(row, "delivery.extended", details)
