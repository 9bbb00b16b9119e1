"""Show the custody log to one store that signs: at the start, on request, and hourly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from dockd.core.backoff import DOUBTED, Row
from dockd.errors import DockdError, JournalError, StoreError, StoreUntrusted
from dockd.keep.journal import Journal
from dockd.model import Clock
from dockd.stages.witness import show_checkpoint, unaccepted, witnessed_size
from dockd.station.told import Told
from dockd.station.trust import CHECKPOINT, Trust
from dockd.station.waiting import pause
from dockd.stores.port import SigningStore

_log = structlog.get_logger()

EVERY_S = 3600.0


@dataclass(slots=True, kw_only=True)
class Witnessing:
    """Keeps one witness up to date; mutable: what it knows of the witness. `run` once.

    `on_answer` hears that the store is there, `on_failure` that it failed; neither may block.
    """

    journal: Journal
    store: SigningStore
    main: bool  # its note is kept as `custody/witnessed`
    trust: Trust
    clock: Clock
    waits: Row
    on_answer: Callable[[], None]
    on_failure: Callable[[StoreError], None]
    told: Told  # asked together with it
    first_after_s: float = 0.0  # how long to wait before the first time, unless somebody asks
    size: int = 0  # entries under the newest checkpoint that it cosigned
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self) -> None:
        """Before anything else runs: learn what forbids erasing."""
        why = await unaccepted(self.journal, self.store.store)
        if why:
            self.trust.doubt(CHECKPOINT, why)
        await self.told.begin()

    async def run(self) -> None:
        """Show the checkpoint; one that failed is shown again after a wait. Until cancelled. Raises JournalError."""
        self.size = await witnessed_size(self.journal, self.store.store)
        if self.first_after_s:
            await pause(self.clock, self.first_after_s, self._wanted)
        while True:
            delay_s = await self._show()
            if not self.waits.failures:  # else it does not answer
                delay_s = min(delay_s, await self.told.ask())
            await pause(self.clock, delay_s, self._wanted)
            self._wanted.clear()

    def soon(self) -> None:
        """Show the newest checkpoint as soon as it can be."""
        self._wanted.set()

    def store_back(self) -> None:
        """The store answers again: what failed is shown now."""
        if self.waits.failures:
            self._wanted.set()

    async def show_last(self) -> None:
        """Show it a last time, at a stop. Raises what the store answered, OSError where the note cannot be kept."""
        await show_checkpoint(self.journal, self.store, main=self.main)

    async def _show(self) -> float:
        """Try once; returns the seconds until the next time."""
        before = self.size
        try:
            self.size = await show_checkpoint(self.journal, self.store, main=self.main)
        except JournalError:
            raise
        except StoreUntrusted as error:
            _log.error("store_untrusted", store=self.store.store, reason=str(error))
            self.trust.doubt(CHECKPOINT, str(error))
            if await unaccepted(self.journal, self.store.store):  # a person is about to accept the log
                return DOUBTED.cap_s
            # The store keeps every contradiction that it is shown as evidence: once an hour is enough.
            return EVERY_S
        except (DockdError, OSError) as error:  # a full disk too: the log is as good without
            _log.warning("witness_deferred", store=self.store.store, reason=str(error))
            if isinstance(error, StoreError):
                self.on_failure(error)
            return self.waits.failed(self.clock.monotonic_s())
        self.trust.believe(CHECKPOINT)
        self.waits.succeeded()
        if self.size != before:  # else there was nothing to show, and the store was not asked
            self.on_answer()
        return EVERY_S
