"""What nobody will go on with at a store that keeps objects: unfinished uploads, given up here or by a crash."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import structlog

from dockd.core.backoff import Row
from dockd.core.lifecycle import DeliveryState
from dockd.errors import StoreError, UploadLost
from dockd.keep.deliveries import Delivery
from dockd.keep.journal import Journal
from dockd.model import AcquisitionId, Clock
from dockd.station.outlet import Parts
from dockd.station.waiting import pause
from dockd.stores.port import ObjectStore

_log = structlog.get_logger()
_PAGE = 50
_OPEN = (DeliveryState.WAITING, DeliveryState.REGISTERED, DeliveryState.FINISHED)


@dataclass(slots=True, kw_only=True)
class Leftovers:
    """Clears up at one store; mutable: what it has done so far. `run` once."""

    journal: Journal
    store: ObjectStore
    clock: Clock
    waits: Row
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _orphans_cleared: bool = False

    @classmethod
    def of(cls, store: ObjectStore, parts: Parts, waits: Row) -> Self:
        """For one store of a station."""
        return cls(journal=parts.journal, store=store, clock=parts.clock, waits=waits)

    async def run(self) -> None:
        """At the start, and whenever something was given up, until cancelled. Raises JournalError."""
        while True:
            self._wanted.clear()
            delay_s = None
            try:
                await self._clear()
                self.waits.succeeded()
            except StoreError as error:
                _log.info("leftovers_stay", store=self.store.store, reason=str(error))
                delay_s = self.waits.failed(self.clock.monotonic_s())
            await pause(self.clock, delay_s, self._wanted)

    def soon(self) -> None:
        """Something was given up."""
        self._wanted.set()

    async def _clear(self) -> None:
        if not self._orphans_cleared:
            await self.store.clear_orphans(self._is_wanted)
            self._orphans_cleared = True
        while found := await self.journal.read(lambda tx: tx.leftovers(self.store.store, _PAGE)):
            for one in found:
                await self._abandon(one)

    async def _abandon(self, delivery: Delivery) -> None:
        with suppress(UploadLost):  # the journal's text names none at this store
            await self.store.abandon(delivery.upload_url or "")
        name, store = delivery.acquisition, delivery.store
        await self.journal.write(lambda tx: tx.forget_upload(name, store))
        _log.info("upload_abandoned", acquisition=name, store=store)

    async def _is_wanted(self, acquisition: AcquisitionId) -> bool:
        delivery = await self.journal.read(lambda tx: tx.delivery(acquisition, self.store.store))
        return delivery is not None and delivery.state in _OPEN
