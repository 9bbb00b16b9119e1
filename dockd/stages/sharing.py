"""Sharing: skip the upload of a clip that a trusted station has brought to the same store already.

The acquisition is read twice, sealed and stated as ever; the store gets its manifest. Only its bytes are not sent: the
other's object stands for it, once this station has verified that one's manifest, and found itself, in both of its own
reads, what that one says is sealed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from dockd.core.lifecycle import DeliveryEvent, DockingState
from dockd.core.manifest import decode
from dockd.core.policy import StorePolicy
from dockd.core.sshsig import PublicKey
from dockd.core.twins import Shared, VerifiedTwin, verify_twin
from dockd.errors import DeliveryAwaits, UploadLost, VerificationFailed
from dockd.keep.deliveries import Delivery
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Clock, SignedBytes, StationId
from dockd.stages.confirming import row_of
from dockd.stores.port import SigningStore

_log = structlog.get_logger()

SECOND_READ_S = 4 * 3600.0  # a clip that need not be sent waits so long for its second read, after all first ones
RETURN_S = 600.0  # and so long where its camera is not docked: after a start of the station it soon is again


@dataclass(slots=True, kw_only=True)
class Chance:
    """What this program's life knows of one clip's twins at one store; mutable, as attempts follow each other."""

    over: bool = False  # it is sent, or shared, and nobody is asked again
    twin: tuple[SignedBytes, VerifiedTwin] | None = None  # what the store has shown, while the second read is awaited
    since_s: float | None = None  # monotonic: since when it waits for that


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Looks for twins at one store. `trusted`: the stations whose word counts, with the keys of their manifests."""

    journal: Journal
    store: SigningStore
    trusted: Mapping[StationId, PublicKey]
    policy: StorePolicy
    clock: Clock

    async def share(self, acquisition: AcquisitionId, chance: Chance) -> tuple[Delivery, Acquisition] | None:
        """Move a registered delivery on to finished where a twin can stand for the clip; None where it is to be sent.

        Raises DeliveryAwaits where there is such a twin, and the clip was not read a second time yet; StoreBusy or
        StoreUnreachable where the store could not be asked. After cancellation it is so or not.
        """
        if chance.over or not self.trusted:
            return None
        chance.twin = twin = chance.twin or await self._twin(acquisition)
        if twin is None or not await self._is_read_twice(acquisition, twin[1], chance):
            chance.over = True
            return None
        chance.over = True
        return await self.journal.write(lambda tx: self._record(tx, acquisition, *twin))

    async def _twin(self, acquisition: AcquisitionId) -> tuple[SignedBytes, VerifiedTwin] | None:
        """The newest manifest at the store that is believed. None for a clip that has a receipt, or is contested."""
        manifest, wanted = await self.journal.read(
            lambda tx: (tx.manifest(acquisition), _may_be_shared(tx, acquisition, self.store))
        )
        if not wanted:
            return None
        own = decode(manifest.payload)
        try:
            shown = await self.store.twins(acquisition, self.trusted.keys())
        except UploadLost as error:
            _log.info("twins_not_told", acquisition=acquisition, store=self.store.store, reason=str(error))
            return None
        for signed in shown:
            try:
                return signed, verify_twin(signed, trusted=self.trusted, own=own)
            except VerificationFailed as error:
                _log.warning("twin_not_believed", acquisition=acquisition, store=self.store.store, reason=str(error))
        return None

    async def _is_read_twice(self, acquisition: AcquisitionId, twin: VerifiedTwin, chance: Chance) -> bool:
        """Whether the second read found what the twin states. Raises DeliveryAwaits where it is still to come."""
        row, is_docked = await self.journal.read(lambda tx: _second_read(tx, acquisition))
        if row.reread is not None or row.contested:
            digest = row.reread and row.reread.plaintext_digest
            return not row.contested and digest == twin.other.plaintext_digest
        now_s = self.clock.monotonic_s()
        chance.since_s = now_s if chance.since_s is None else chance.since_s
        if now_s - chance.since_s > (SECOND_READ_S if is_docked else RETURN_S):
            return False
        raise DeliveryAwaits(
            f"station {twin.other.station} has brought this clip: once a second read agrees, it need not be sent"
        )

    def _record(
        self, tx: Tx, acquisition: AcquisitionId, signed: SignedBytes, twin: VerifiedTwin
    ) -> tuple[Delivery, Acquisition] | None:
        if not _may_be_shared(tx, acquisition, self.store):
            return None  # another read disagreed just now
        tx.put_twin(acquisition, self.store.store, signed)
        details = {
            "shares": twin.shared.record(),
            "plaintext": twin.other.plaintext_digest,
            "sealed": twin.other.sealed_digest,
            "size_bytes": twin.other.sealed_size_bytes,
        }
        return tx.deliver(acquisition, self.store.store, DeliveryEvent.SHARED, self.policy, details=details)


async def kept_twin(
    acquisition: AcquisitionId, journal: Journal, store: SigningStore, trusted: Mapping[StationId, PublicKey]
) -> VerifiedTwin | None:
    """The twin that is kept, verified anew; None where there is none, or its station is trusted no longer."""
    signed, manifest = await journal.read(lambda tx: (tx.twin(acquisition, store.store), tx.manifest(acquisition)))
    if signed is None:
        return None
    try:
        return verify_twin(signed, trusted=trusted, own=decode(manifest.payload))
    except VerificationFailed as error:
        _log.warning("twin_not_believed", acquisition=acquisition, store=store.store, reason=str(error))
        return None


async def fetch_twin(
    acquisition: AcquisitionId,
    shared: Shared,
    journal: Journal,
    store: SigningStore,
    trusted: Mapping[StationId, PublicKey],
) -> VerifiedTwin | None:
    """The twin that a receipt names, asked of the store and kept; None where it shows none that is believed."""
    own = decode((await journal.read(lambda tx: tx.manifest(acquisition))).payload)
    for signed in await store.twins(acquisition, trusted.keys()):
        try:
            twin = verify_twin(signed, trusted=trusted, own=own)
        except VerificationFailed:
            continue
        if twin.shared == shared:
            await journal.write(lambda tx, signed=signed: tx.put_twin(acquisition, store.store, signed))  # type: ignore[misc]
            return twin
    return None


def _may_be_shared(tx: Tx, acquisition: AcquisitionId, store: SigningStore) -> bool:
    """Not what the store has signed for once, and not where two reads disagree: then both are kept."""
    return tx.receipt(acquisition, store.store) is None and not row_of(tx, acquisition).contested


def _second_read(tx: Tx, acquisition: AcquisitionId) -> tuple[Acquisition, bool]:
    """The clip, and whether it is still in its bay, so that a second read may come."""
    row = row_of(tx, acquisition)
    docking = tx.docking(row.docking)
    return row, docking is not None and docking.state is not DockingState.ENDED
