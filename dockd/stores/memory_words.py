"""What the signing store in memory says: receipts, holding statements, its policy and extensions, really signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from dockd.core import canonical, extensions, promises, receipts, retention, sshsig
from dockd.core.manifest import Manifest
from dockd.core.promises import NoMore, Offered
from dockd.core.retention import Promise, Terms
from dockd.errors import NotExtended
from dockd.model import Clock, SignedBytes, StoreId


class Words:
    """One store's key, and how long it keeps what. Without `categories` it is a store of before there were policies."""

    def __init__(
        self,
        *,
        store: StoreId,
        key: sshsig.SigningKey,
        clock: Clock,
        retention: timedelta,
        categories: Mapping[str, Terms] | None,
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._policy_seq = 0
        self._offered: Offered | None = None
        self.retention = retention  # of a store without a policy
        self.policy: SignedBytes | None = None
        if categories is not None:
            self.mend(categories)

    def mend(self, categories: Mapping[str, Terms]) -> None:
        """The store's people change its policy."""
        self._policy_seq += 1
        payload = retention.build_policy(
            store=self._store, policy_seq=self._policy_seq, at=self.now(), categories=categories
        )
        self.policy = self._signed(sshsig.POLICY, payload)
        self._offered = Offered(policy=canonical.digest(payload), categories=dict(categories))

    def now(self) -> datetime:
        """As statements say it: what is counted from it is counted from what is said."""
        return canonical.parse_time(canonical.format_time(self._clock.now()))

    def receipt(
        self,
        manifest: bytes,
        stated: Manifest,
        *,
        before: Sequence[SignedBytes],
        witnessed: tuple[int, bytes],
        other: tuple[bytes, bytes] | None,
    ) -> SignedBytes:
        """The receipt after those `before`."""
        size, root = witnessed
        now = self.now()
        offered = self._offered
        payload = receipts.build_receipt(
            store=self._store,
            signed_manifest=manifest,
            receipt_seq=len(before) + 1,
            previous=canonical.digest(before[-1].payload) if before else receipts.NO_PREVIOUS,
            witnessed_size=size,
            witnessed_root=root,
            at=now,
            retention_until=offered.promise(stated, arrived=now, now=now) if offered else now + self.retention,
            other=other,
        )
        return self._signed(sshsig.RECEIPT, payload)

    def holding(
        self, manifest: bytes, stated: Manifest, *, promised: Sequence[SignedBytes], nonce: bytes, other: bytes | None
    ) -> SignedBytes:
        """The statement of now. `promised`: the receipt, and its extensions."""
        now, until = self.now(), self._clock.now() + self.retention
        said: datetime | Promise = until
        if self._offered is not None:
            newest, arrived = _newest(promised)
            held = promises.restated(newest, self._offered, stated, arrived=arrived, now=now)
            said = promises.as_signed(held, ruled=True)
        payload = receipts.build_holding(
            store=self._store, signed_manifest=manifest, nonce=nonce, at=now, retention_until=said, other=other
        )
        return self._signed(sshsig.HOLDING, payload)

    def extension(self, stated: Manifest, *, promised: Sequence[SignedBytes]) -> SignedBytes:
        """The extension after what was `promised`. Raises NotExtended."""
        if self._offered is None:
            raise NotExtended("the store extends no receipts", over=False)
        newest, arrived = _newest(promised)
        now = self.now()
        found = promises.extended(newest, self._offered, stated, arrived=arrived, now=now)
        if isinstance(found, NoMore):
            raise NotExtended(f"the store promises no more: {found.value}", over=found is NoMore.OVER)
        previous = promised[-1].payload if len(promised) > 1 else None
        payload = extensions.build_extension(receipt=promised[0].payload, previous=previous, at=now, promise=found)
        return self._signed(sshsig.EXTENSION, payload)

    def _signed(self, namespace: str, payload: bytes) -> SignedBytes:
        return SignedBytes(payload=payload, signature=sshsig.sign(self._key, namespace, payload))


def _newest(promised: Sequence[SignedBytes]) -> tuple[promises.Said, datetime]:
    first = promises.read_receipt(promised[0].payload)
    return (promises.read_extension(promised[-1].payload) if len(promised) > 1 else first), first.at
