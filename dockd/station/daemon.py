"""The daemon: starts from the journal, runs the parts side by side, and stops with nothing lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from dockd import __version__
from dockd.control.notify import Nobody, ServiceManager, keep_told
from dockd.control.server import serve as serve_control
from dockd.core.custody import parse_entry
from dockd.core.policy import StorePolicy
from dockd.core.sshsig import SigningKey
from dockd.devices.port import DeviceSource, Plugged
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, BayNumber, CameraIdentity, Clock, Entropy, StationId
from dockd.reader.client import ForkServer
from dockd.stages.detect import detect
from dockd.stages.witness import WITNESSED
from dockd.station import confinement
from dockd.station.docking import Docking, Parts, end_docking
from dockd.station.limits import Limits, kept_cap
from dockd.station.operations import Operations
from dockd.station.outlet import Outlet
from dockd.station.outlet import Parts as StoreParts
from dockd.station.reload import Live
from dockd.station.status import Alarms, Sources
from dockd.station.stores import Stores
from dockd.station.surroundings import Surroundings
from dockd.station.tidy import Tidier

_log = structlog.get_logger()

_STOPPED = "station.stopped"
_LOOKED_BACK = 50  # entries; more than there can be stores
LAST_WITNESS_S = 1.5  # what a stop allows the store for cosigning the last checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the composition root opened for the daemon, and closes after it."""

    station: StationId
    trial: bool
    bays: Sequence[BayNumber]
    sources: Sequence[DeviceSource]
    journal: Journal
    spool: Spool
    outlets: Sequence[Outlet]
    policy: StorePolicy
    forkserver: ForkServer
    control: socket.socket
    manifest_key: SigningKey
    recipients: tuple[str, ...]
    live: Live
    limits: Limits
    clock: Clock
    random: Entropy
    service_manager: ServiceManager = field(default_factory=Nobody)


class Daemon:
    """One station. `run` ends by cancellation, or loudly with the first error that is fatal to all bays."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._started_at: datetime = machine.clock.now()
        self._alarms = Alarms()
        self._dockings: dict[str, Docking] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._spool_short = asyncio.Event()
        self._stores = Stores(
            machine.outlets,
            StoreParts(
                journal=machine.journal,
                spool=machine.spool,
                station=machine.station,
                policy=machine.policy,
                clock=machine.clock,
                random=machine.random,
                on_changed=self._acquisition_changed,
                pacing=machine.limits.pacing,
                places=machine.limits.places,
            ),
        )
        self._tidier = Tidier(
            journal=machine.journal,
            spool=machine.spool,
            clock=machine.clock,
            keep_after_receipt=machine.live.keep_after_receipt,
        )
        self._parts = Parts(
            station=machine.station,
            journal=machine.journal,
            spool=machine.spool,
            forkserver=machine.forkserver,
            manifest_key=machine.manifest_key,
            recipients=machine.recipients,
            rules=machine.live.rules,
            clock=machine.clock,
            random=machine.random,
            around=Surroundings(
                asking=self._stores.asking(),
                recipients=len(machine.recipients),
                wake_uplink=self._stores.nudge,
                witness=self._stores.witness_soon,
                spool_short=self._spool_short.set,
                alarms=lambda: self._stores.forbids_erasing,
            ),
            docked=self._docked,
        )

    async def run(self) -> None:
        """Run until cancelled; then every docking is ended in the journal, and the store is shown the log."""
        machine = self._machine
        await self._resume()
        operations = Operations(self._sources(), self._operator_decided)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._stores.run(), name="stores")
                group.create_task(serve_control(machine.control, operations), name="control")
                group.create_task(self._tidier.run(self._spool_short), name="tidy")
                group.create_task(machine.live.follow(self._alarms, self._stores.try_stopped), name="reload")
                for source in machine.sources:
                    group.create_task(detect(source, self), name="detect")
                # Last: the tasks above have begun when this one says that the station is ready.
                group.create_task(keep_told(machine.service_manager, self._status_line, machine.clock), name="watchdog")
        finally:
            self._group = None
            await self._stop()

    # --- stages.detect.Bays

    def begin(self, plugged: Plugged, source: DeviceSource) -> None:
        """Start a docking, once every docking that is still ending has let go of its camera."""
        if self._group is None:
            return
        self.end(plugged.device)
        docking = Docking(plugged, source, self._parts)
        self._dockings[plugged.device] = docking
        task = self._group.create_task(self._dock(docking, frozenset(self._ending)), name=f"bay-{plugged.bay}")
        self._tasks[plugged.device] = task

    def end(self, device: str) -> None:
        """End a docking. What waited for its camera to leave is tried again."""
        self._dockings.pop(device, None)
        task = self._tasks.pop(device, None)
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ended)
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        for docking in self._dockings.values():
            docking.changed()

    async def _dock(self, docking: Docking, earlier: frozenset[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        await docking.run()

    # --- messages between the parts

    def _docked(self) -> Iterable[tuple[BayNumber, CameraIdentity]]:
        return [(one.plugged.bay, one.camera) for one in self._dockings.values() if one.camera is not None]

    def _acquisition_changed(self, row: Acquisition) -> None:
        for docking in self._dockings.values():
            if docking.docking == row.docking:
                docking.changed()

    def _operator_decided(self, row: Acquisition) -> None:
        self._stores.nudge()
        for docking in self._dockings.values():
            docking.decided(row.acquisition)

    def _status_line(self) -> str:
        """For `systemctl status`: the rest is in `dockd status`."""
        taken = len({docking.plugged.bay for docking in self._dockings.values()})
        return f"{taken} of {len(self._machine.bays)} bays taken"

    def _sources(self) -> Sources:
        machine = self._machine
        dockings: Mapping[str, Docking] = self._dockings
        return Sources(
            station=machine.station,
            trial=machine.trial,
            started_at=self._started_at,
            clock=machine.clock,
            journal=machine.journal,
            spool=machine.spool,
            stores=self._stores,
            bays=machine.bays,
            dockings=dockings,
            alarms=self._alarms,
            forkserver=machine.forkserver,
        )

    # --- start and stop

    async def _resume(self) -> None:
        """Bring the journal to where a fresh start can drive it: there is no other recovery than this."""
        machine = self._machine
        mended = machine.journal.mended

        def change(tx: Tx) -> tuple[int, timedelta]:
            away = _away(tx, machine.clock.now())
            details: dict[str, object] = {"version": __version__, "trial": machine.trial}
            tx.record("station.started", details=details | ({"mended": list(mended)} if mended else {}))
            interrupted = tx.open_dockings()
            for docking in interrupted:
                end_docking(tx, docking.docking, "the station was stopped or lost power during it")
            return len(interrupted), away

        interrupted, away = await machine.journal.write(change)
        self._alarms.set(
            "custody", "; ".join(mended) and f"{'; '.join(mended)}: have the evidence side look at the log"
        )
        unmet = await confinement.measure(machine.forkserver)
        if unmet:
            _log.error("readers_not_confined", unmet=dict(unmet))
        self._alarms.set("confinement", confinement.alarm(unmet))
        machine.limits.pacing.override(await machine.journal.read(kept_cap))
        await self._stores.begin()
        self._stores.returning(away)
        orphans = await self._tidier.sweep()
        _log.info("station_started", interrupted_dockings=interrupted, orphans_removed=orphans)

    async def _stop(self) -> None:
        journal = self._machine.journal
        await journal.write(lambda tx: tx.record(_STOPPED, details={"version": __version__}))
        try:
            async with asyncio.timeout(LAST_WITNESS_S):
                await self._stores.show_last()
        except TimeoutError:
            _log.info("last_checkpoint_not_witnessed", reason="a store was too slow")
        _log.info("station_stopped")


def _away(tx: Tx, now: datetime) -> timedelta:
    """For how long the station was away without anybody having stopped it: others may have been with it."""
    first = max(0, tx.size - _LOOKED_BACK)
    newest = [parse_entry(line) for line in tx.lines(first, _LOOKED_BACK)]
    told = [one for one in newest if one.event != WITNESSED]  # by a store, after the stop that it was shown
    if not told or told[-1].event == _STOPPED:
        return timedelta()
    return max(timedelta(), now - newest[-1].at)
