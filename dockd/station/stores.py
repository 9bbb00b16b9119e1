"""All stores of a station: their uplinks, who stands in for whom, and what they mean together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog

from dockd.core.backoff import Backoff
from dockd.core.lifecycle import AcquisitionState
from dockd.core.policy import StorePolicy
from dockd.errors import DockdError
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, StoreId
from dockd.stages.confirming import Bounded, Confirming
from dockd.stages.sanitise import Asking
from dockd.station.outlet import Outlet, Parts
from dockd.station.pacing import Pacing
from dockd.station.snapshot import StoreStatus, UplinkStatus
from dockd.station.uplink import Uplink
from dockd.station.waiting import pause

_log = structlog.get_logger()

_PAGE = 200
_POLICY = "store_policy"  # the setting that says what the newest start asked for
_FOLLOWING = (AcquisitionState.SPOOLED, AcquisitionState.UPLOADING, AcquisitionState.STORED)


class Stores:
    """Owns the uplinks. `begin`, then `run` once; everything else may be called at any time from the same event loop.

    A fallback gets clips once its primary has been out of reach for `failover_after_s`, and until it is back. What was
    begun at the fallback by then is finished there, and sent to the primary as well.
    """

    def __init__(self, outlets: Sequence[Outlet], parts: Parts, *, backoff: Backoff | None = None) -> None:
        self._parts = parts
        self._reach = asyncio.Event()
        witness = next((one.store for one in outlets if one.signing is not None), None)
        self.uplinks = {
            one.store: Uplink(one, parts, main_witness=one.store == witness, on_reach=self._reach.set, backoff=backoff)
            for one in outlets
        }
        unknown = {one.store for one in parts.policy.stores} ^ self.uplinks.keys()
        if unknown:
            raise ValueError(f"the policy and the stores that are open differ: {', '.join(sorted(unknown))}")
        self._standing_in: set[StoreId] = set()

    @property
    def pacing(self) -> Pacing:
        """The pace of all bytes that go to any of them."""
        return self._parts.pacing

    def uplink(self) -> UplinkStatus:
        """All uploads together."""
        cap, places = self.pacing.cap(), self._parts.places
        return UplinkStatus(
            rate_bytes_s=self.rate(),
            in_flight=places.taken,
            max_in_flight=places.most,
            cap_bytes_s=cap.bytes_per_s,
            cap_by=cap.operator,
            cap_changes_at=cap.changes_at,
            cap_then_bytes_s=cap.then_bytes_per_s,
        )

    @property
    def policy(self) -> StorePolicy:
        """What has to confirm a clip."""
        return self._parts.policy

    async def begin(self) -> None:
        """Before anything else runs: what is sent where, what the policy means for clips that are there, who objects.

        Raises JournalError.
        """
        fallbacks = [one.store for one in self.policy.stores if one.fallback_for is not None]

        def change(tx: Tx) -> bool:
            for store in fallbacks:
                tx.stand_back(store)
            tx.set_outlets(self.policy.primaries)
            before, now = tx.get(_POLICY), self.policy.fingerprint()
            if before != now:
                tx.record("policy.set", details=self.policy.described())
                tx.put(_POLICY, now)
            return before != now

        if await self._parts.journal.write(change):
            await self._follow()
        for uplink in self.uplinks.values():
            await uplink.begin()

    def returning(self, outage: timedelta) -> None:
        """Before `run`: the station was away for so long, and not because somebody stopped it."""
        for uplink in self.uplinks.values():
            uplink.returning(outage)

    async def run(self) -> None:
        """Send until cancelled. Raises JournalError where the journal failed."""
        async with asyncio.TaskGroup() as group:
            for uplink in self.uplinks.values():
                group.create_task(uplink.run(), name=f"uplink-{uplink.store}")
            group.create_task(self._watch(), name="failover")

    # --- for others

    def nudge(self) -> None:
        """Something changed: there may be work, or a store may be back."""
        for uplink in self.uplinks.values():
            uplink.nudge()

    def try_stopped(self) -> None:
        """The configuration was looked at again: stores that an unexpected error stopped are tried now."""
        for uplink in self.uplinks.values():
            if uplink.boundary.alarm:
                uplink.try_again()

    def witness_soon(self) -> None:
        """Show the newest checkpoint to every store that signs, as soon as it can be."""
        for uplink in self.uplinks.values():
            uplink.witness_soon()

    async def show_last(self) -> None:
        """Show every store that signs the log a last time; what fails is logged."""
        await asyncio.gather(*(self._show_last(uplink) for uplink in self.uplinks.values()))

    def asking(self) -> Asking:
        """For what is asked right before erasing."""
        return Asking(policy=self.policy, confirmers=self._confirmers, doubt=self._doubt)

    def status(self) -> tuple[StoreStatus, ...]:
        """Each store as it was last seen, in the order of the configuration."""
        return tuple(
            self.uplinks[one.store].status(standing_in=one.store in self._standing_in) for one in self.policy.stores
        )

    @property
    def alarms(self) -> tuple[str, ...]:
        """What contradicts itself at any store, has to be mended before clips can go there, or stopped one."""
        return tuple(
            self._named(one, alarm)
            for one in self.uplinks.values()
            for alarm in (*one.alarms, *one.agreement.alarms, one.boundary.alarm)
            if alarm
        )

    @property
    def forbids_erasing(self) -> tuple[str, ...]:
        """Contradictions of stores whose word counts: nothing may be erased while there is any.

        One that is stopped contradicts nothing: without its word, that of the others may suffice.
        """
        counted = (one for one in self.uplinks.values() if self.policy.counts(one.store))
        return tuple(self._named(one, alarm) for one in counted for alarm in one.alarms)

    @property
    def witnessed(self) -> int:
        """Custody entries under the newest checkpoint that some store cosigned."""
        return max((uplink.witnessed for uplink in self.uplinks.values()), default=0)

    def progress(self, acquisition: AcquisitionId) -> int:
        """Bytes of an acquisition sent so far to as many stores as the policy needs."""
        sent = sorted((uplink.progress(acquisition) for uplink in self.uplinks.values()), reverse=True)
        return sent[min(self.policy.needed, len(sent)) - 1]

    def rate(self, acquisition: AcquisitionId | None = None) -> int:
        """Bytes a second of one acquisition's uploads, or of all, over the last seconds."""
        return sum(uplink.rate(acquisition) for uplink in self.uplinks.values())

    def named(self, name: str | None) -> Uplink:
        """The uplink to the store that people call so; of a single one no name is needed. Raises LookupError."""
        names = {self.policy.name(store): uplink for store, uplink in self.uplinks.items()}
        if name is None and len(names) == 1:
            return next(iter(names.values()))
        if name is None or name not in names:
            said = "which store?" if name is None else f"there is no store {name}:"
            raise LookupError(f"{said} name one of {', '.join(sorted(names))}")
        return names[name]

    # --- how

    def _named(self, uplink: Uplink, sentence: str) -> str:
        return sentence if len(self.uplinks) == 1 else f"{self.policy.name(uplink.store)}: {sentence}"

    def _confirmers(self) -> Sequence[Confirming]:
        uplinks = sorted(self.uplinks.values(), key=lambda one: one.is_out)
        return [Bounded(one.confirmer, one.boundary.within) for one in uplinks]

    def _doubt(self, store: StoreId, acquisition: AcquisitionId, sentence: str) -> None:
        self.uplinks[store].trust.doubt_holding(acquisition, sentence)

    async def _show_last(self, uplink: Uplink) -> None:
        try:
            await uplink.show_last()
        except (DockdError, OSError) as error:
            _log.info("last_checkpoint_not_witnessed", store=uplink.store, reason=str(error))

    async def _follow(self) -> None:
        """The policy is another than at the last start: clips are stored, or not, by what it says now."""
        for state in _FOLLOWING:
            after: AcquisitionId | None = None
            while True:
                page = await self._parts.journal.read(
                    lambda tx, state=state, after=after: tx.acquisitions(state=state, limit=_PAGE, after=after)  # type: ignore[misc]
                )
                if not page:
                    break
                after = page[-1].acquisition
                await self._parts.journal.write(lambda tx, page=page: self._follow_each(tx, page))  # type: ignore[misc]

    def _follow_each(self, tx: Tx, rows: Sequence[Acquisition]) -> None:
        for row in rows:
            tx.follow(row.acquisition, self.policy, reason="the store policy was changed")

    async def _watch(self) -> None:
        """Let fallbacks stand in and stand back, until cancelled."""
        while True:
            self._reach.clear()
            waits = [
                await self._judge(one.store, one.fallback_for)
                for one in self.policy.stores
                if one.fallback_for is not None
            ]
            known = [wait for wait in waits if wait is not None]
            await pause(self._parts.clock, min(known, default=None), self._reach)

    async def _judge(self, fallback: StoreId, primary: StoreId) -> float | None:
        """Act on whether the primary is out of reach; returns the seconds until there may be more to do."""
        uplink = self.uplinks[primary]
        if not uplink.is_out:
            if fallback in self._standing_in:
                await self._parts.journal.write(lambda tx: self._stand_back(tx, fallback, primary))
                self._standing_in.discard(fallback)
                _log.warning("store_stood_back", store=fallback, primary=primary)
            return None
        if fallback in self._standing_in:
            return uplink.boundary.sound_in_s()
        left_s = self.uplinks[fallback].outlet.failover_after_s - uplink.out_for_s()
        if left_s > 0:
            return left_s
        await self._parts.journal.write(lambda tx: self._stand_in(tx, fallback, primary))
        self._standing_in.add(fallback)
        _log.warning("store_stands_in", store=fallback, primary=primary)
        self.uplinks[fallback].nudge()
        return None

    @staticmethod
    def _stand_in(tx: Tx, fallback: StoreId, primary: StoreId) -> None:
        tx.stand_in(fallback, primary)
        tx.record("store.stands_in", details={"store": fallback, "primary": primary})

    @staticmethod
    def _stand_back(tx: Tx, fallback: StoreId, primary: StoreId) -> None:
        tx.stand_back(fallback)
        tx.record("store.stood_back", details={"store": fallback, "primary": primary})
