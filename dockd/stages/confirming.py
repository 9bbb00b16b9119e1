"""What every way of confirming a delivery has in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dockd.core.warrant import Confirmation
from dockd.errors import VerificationFailed
from dockd.keep.deliveries import Delivery
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, StoreId


class Confirming(Protocol):
    """Confirms the deliveries to one store. One for each store and program."""

    @property
    def of(self) -> StoreId:
        """Whose word it is."""

    async def confirm(self, acquisition: AcquisitionId) -> Delivery:
        """Have the store confirm what was sent, and verify it; returns the delivery in state confirmed.

        Idempotent. Returns the delivery as it is where somebody else moved it on. Raises StoreIncomplete or UploadLost
        where the store has not got it all, StoreUntrusted where it contradicts itself or the bytes, SpoolSpoiled where
        the station's own file is not what was sealed, and the store's other errors.
        """

    async def prolong(self, acquisition: AcquisitionId) -> None:
        """See that what the store promised of it reaches far enough from now: have it extended where it does not.

        Raises StoreUnproven where the store promises no more, StoreUntrusted and the store's other errors.
        """

    async def ask_again(self, acquisition: AcquisitionId) -> Confirmation:
        """The confirmation that is kept, and the store's word right now that it still holds. Changes nothing.

        Raises StoreForgot where the store no longer has what it confirmed, StoreUntrusted where its word cannot be
        trusted, VerificationFailed where nothing is kept; its other errors pass.
        """

    def forget(self, acquisition: AcquisitionId) -> None:
        """The delivery is done with, or given up: nothing that is only in memory is needed of it any more."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """A Confirming whose every unexpected error is one of the store's, made so by `within`."""

    inner: Confirming
    within: Callable[[], AbstractContextManager[None]]

    @property
    def of(self) -> StoreId:
        """As Confirming says."""
        return self.inner.of

    async def confirm(self, acquisition: AcquisitionId) -> Delivery:
        """As Confirming says."""
        with self.within():
            return await self.inner.confirm(acquisition)

    async def prolong(self, acquisition: AcquisitionId) -> None:
        """As Confirming says."""
        with self.within():
            await self.inner.prolong(acquisition)

    async def ask_again(self, acquisition: AcquisitionId) -> Confirmation:
        """As Confirming says."""
        with self.within():
            return await self.inner.ask_again(acquisition)

    def forget(self, acquisition: AcquisitionId) -> None:
        """As Confirming says."""
        self.inner.forget(acquisition)


def row_of(tx: Tx, acquisition: AcquisitionId) -> Acquisition:
    """The acquisition. Raises VerificationFailed where there is none."""
    row = tx.acquisition(acquisition)
    if row is None:
        raise VerificationFailed(f"the journal has no acquisition {acquisition}")
    return row


def delivery_of(tx: Tx, acquisition: AcquisitionId, store: StoreId) -> Delivery:
    """Its delivery. Raises VerificationFailed where there is none."""
    delivery = tx.delivery(acquisition, store)
    if delivery is None:
        raise VerificationFailed(f"acquisition {acquisition} is not to be delivered to store {store}")
    return delivery
