"""Keep the spool small: a sealed file goes once its clip is erased, or confirmed long ago, or room is short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from dockd.core.lifecycle import AcquisitionState, DeliveryState
from dockd.errors import SpoolFull
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import Acquisition, Clock
from dockd.stages.outlived import why_outlived
from dockd.stages.stay import in_spool

_log = structlog.get_logger()

EVERY_S = 600.0
_PAGE = 200
_CONFIRMED = (AcquisitionState.STORED, AcquisitionState.WARRANTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidier:
    """Discards sealed files. One that the store has not confirmed is never touched."""

    journal: Journal
    spool: Spool
    clock: Clock
    keep_after_receipt: Callable[[], timedelta]

    async def sweep(self) -> int:
        """At the start: remove what no acquisition owns, and lay missing manifests beside their sealed files.

        Returns how many files were removed. Only while no reader runs. What a full or failing disk refuses is left for
        the next start: nothing depends on it.
        """
        removed: list[str] = []
        try:
            owned = {row.acquisition async for row in self._rows() if await self._is_needed(row)}
            removed = await in_spool(self.spool.sweep, owned.__contains__)
            for name in owned:
                if not await in_spool(self.spool.has_manifest, name):
                    manifest = await self.journal.read(lambda tx, name=name: tx.manifest(name))  # type: ignore[misc]
                    await in_spool(self.spool.put_manifest, name, manifest)
        except SpoolFull as error:
            _log.warning("spool_not_swept", reason=str(error))
        return len(removed)

    async def run(self, short: asyncio.Event) -> None:
        """Look every ten minutes, and at once when `short` is set. Ends by cancellation."""
        while True:
            async with asyncio.TaskGroup() as group:
                timer = group.create_task(self._set_later(short))
                await short.wait()
                timer.cancel()
            pressed = timer.cancelled()
            short.clear()
            try:
                await self.tidy(short_of_room=pressed)
            except SpoolFull as error:
                _log.warning("spool_not_tidied", reason=str(error))

    async def tidy(self, *, short_of_room: bool) -> int:
        """Discard what may go; returns how many clips.

        What another store still lacks goes only where room is short and nothing else could go: enough stores have it.
        """
        count = await self._discard(short_of_room=short_of_room, lacked=False)
        if short_of_room and not count:
            count = await self._discard(short_of_room=True, lacked=True)
        if count:
            _log.info("spool_tidied", clips=count, short_of_room=short_of_room)
        return count

    async def _discard(self, *, short_of_room: bool, lacked: bool) -> int:
        count = 0
        async for row in self._rows():
            if await self._may_go(row, short_of_room=short_of_room, lacked=lacked):
                await in_spool(self.spool.discard, row.acquisition)
                count += 1
        return count

    async def _is_needed(self, row: Acquisition) -> bool:
        return row.state != AcquisitionState.ERASED or await self._is_lacked(row)

    async def _is_lacked(self, row: Acquisition) -> bool:
        return await self.journal.read(lambda tx: bool(tx.lacking(row.acquisition)))

    async def _rows(self) -> AsyncIterator[Acquisition]:
        """What the spool holds sealed files of; those of no sealed acquisition are left out. A page at a time."""
        names = await in_spool(self.spool.present)
        for first in range(0, len(names), _PAGE):
            page = names[first : first + _PAGE]
            rows = await self.journal.read(lambda tx, page=page: [tx.acquisition(name) for name in page])  # type: ignore[misc]
            for row in rows:
                if row is not None and row.sealed is not None:
                    yield row

    async def _may_go(self, row: Acquisition, *, short_of_room: bool, lacked: bool) -> bool:
        if row.state == AcquisitionState.SPOILED:  # damaged is better than nothing, until there is something
            return await self.journal.read(lambda tx: tx.replaced(row))
        if row.state != AcquisitionState.ERASED and row.state not in _CONFIRMED:
            return False
        if not lacked and await self._is_lacked(row):
            return False
        return row.state == AcquisitionState.ERASED or short_of_room or await self._kept_long_enough(row)

    async def _kept_long_enough(self, row: Acquisition) -> bool:
        """Since it was confirmed, and never beyond the moment at which the store itself may delete it."""
        now = self.clock.now()
        if await self.journal.read(lambda tx: why_outlived(tx, row, now, timedelta(0))):
            return True
        deliveries = await self.journal.read(lambda tx: tx.deliveries(row.acquisition))
        confirmed = [one.changed_at for one in deliveries if one.state is DeliveryState.CONFIRMED]
        return bool(confirmed) and now - max(confirmed) >= self.keep_after_receipt()

    async def _set_later(self, short: asyncio.Event) -> None:
        await self.clock.sleep(EVERY_S)
        short.set()
