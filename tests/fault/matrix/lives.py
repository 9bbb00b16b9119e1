"""A dock's station and receiver in this process, started again whenever one of them ends, as a service manager does."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fault.matrix.dock import Dock
from fault.matrix.truth import check_now

from dockd import faults as no
from dockd.errors import DockdError
from dockd.reader.client import ForkServer
from dockd.station.status import take_snapshot

PATIENCE_S = 40.0
POLL_S = 0.02
RESTARTS = 3  # that one fault may cost at most


class Lives:
    """`station` and `receiver` are the faults of every life."""

    def __init__(self, dock: Dock, forkserver: ForkServer, station=no.NONE, receiver=no.NONE):
        self.dock = dock
        self.restarts = 0
        self._forkserver = forkserver
        self._faults = {"station": station, "receiver": receiver}
        self._tasks: dict[str, asyncio.Task] = {}
        self._daemon = None

    async def settled(self, also):
        """Until the camera is ready or waits for a person, and `also()` holds."""
        await self.ready(also, states=("ready", "attention"))

    async def ready(self, also=lambda: True, states=("ready",)):
        """Until the camera is ready, nothing alarms, and `also()` holds."""
        snapshot = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self._keep_alive()
                    if self._daemon is not None:
                        with suppress(DockdError):  # the journal closed meanwhile
                            snapshot = await take_snapshot(self._daemon._sources())
                            if snapshot.bays[0].state in states and not snapshot.alarms and also():
                                return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"not ready: {also()=} {snapshot}") from None

    async def stop(self):
        """End both, the station first."""
        for name in ("station", "receiver"):
            task = self._tasks.pop(name, None)
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, *ENDINGS):
                    await task
        self._daemon = None

    async def again(self):
        """Stop both and start both, with no fault any more."""
        await self.stop()
        self._faults = {"station": no.NONE, "receiver": no.NONE}

    async def _keep_alive(self):
        for name in ("receiver", "station"):
            task = self._tasks.get(name)
            if task is not None and not task.done():
                continue
            if task is not None:
                error = task.exception()
                assert isinstance(error, ENDINGS), f"the {name} ended: {error!r}"
                self.restarts += 1
                assert self.restarts <= RESTARTS, f"the {name} ended again and again: {error!r}"
                check_now(self.dock)
            self._tasks[name] = await getattr(self, f"_start_{name}")()

    async def _start_receiver(self):
        listening = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(
            self.dock.receive(lambda _: listening.set_result(None), faults=self._faults["receiver"])
        )
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        return task

    async def _start_station(self):
        def ready(daemon):
            self._daemon = daemon

        self._daemon = None
        return asyncio.create_task(self.dock.run(ready, faults=self._faults["station"], forkserver=self._forkserver))


# What ends a program in a sentence or loudly; a service manager starts it again after either.
ENDINGS = (DockdError, OSError, BaseExceptionGroup)
