"""Ask one store that signs what it found of this station's clips when it read them again, and act on what it tells.

A clip that it lost is sent again where its camera or the spool still has it, and is no grounds for erasing until then.
Nothing here says "none" by itself: what is kept is how much the store says that it looked at, and when it said so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from dockd.core.backoff import Row
from dockd.core.canonical import format_time, parse_time
from dockd.core.fields import Fields
from dockd.core.losses import Looking, ToldLoss, VerifiedLosses, take_looking, verify_losses
from dockd.errors import DockdError, IllegalTransition, JournalError, UploadLost, VerificationFailed
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Clock, Entropy, SignedBytes, StationId, StoreId
from dockd.station.trust import Trust, forget_lost
from dockd.stores.port import SigningStore

_log = structlog.get_logger()

EVERY_S = 3600.0
LOST_EVERY_S = 120.0  # while it says that something is lost: an alarm ends soon after that is mended
_SOONEST_S = 600.0  # after the last answer: a checkpoint is shown more often than that
_MOST_PAGES = 10_000  # of a hundred losses each; a list without an end is no answer
_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a store last told of its looking. `looking`: None where it does not look, or does not say so."""

    at: datetime
    looking: Looking | None


@dataclass(slots=True, kw_only=True)
class Told:
    """Asks one store. `ask` from one task."""

    journal: Journal
    store: SigningStore
    station: StationId
    trust: Trust
    clock: Clock
    random: Entropy
    waits: Row
    on_changed: Callable[[Acquisition], None]
    on_lost: Callable[[], None]  # something is to be sent again
    known: Known | None = None
    _asked_at_s: float | None = None

    async def begin(self) -> None:
        """Learn what was told in an earlier life."""
        self.known = await self.journal.read(lambda tx: known(tx, self.store.store))

    async def ask(self) -> float:
        """Ask, unless that was done just now; returns the seconds until the next time. Raises JournalError."""
        now_s = self.clock.monotonic_s()
        if self._asked_at_s is not None and now_s - self._asked_at_s < min(_SOONEST_S, self._every_s):
            return self._every_s
        try:
            await self._ask()
        except JournalError:
            raise
        except (DockdError, OSError) as error:
            _log.warning("losses_not_asked", store=self.store.store, reason=str(error))
            return self.waits.failed(now_s)
        self._asked_at_s = now_s
        self.waits.succeeded()
        return self._every_s

    @property
    def _every_s(self) -> float:
        lost = self.known is not None and self.known.looking is not None and self.known.looking.losses
        return LOST_EVERY_S if lost else EVERY_S

    async def _ask(self) -> None:
        """All pages; what one tells is kept before the next is asked for."""
        if self.known is None:
            await self.begin()
        after, told = "", set[AcquisitionId]()
        for _ in range(_MOST_PAGES):
            nonce = self.random(_NONCE_BYTES)
            try:
                signed = await self.store.losses(nonce, after)
            except UploadLost:
                if self.known is not None and self.known.looking is not None:
                    raise  # it looked before: something else answers, or it was set back
                await self._keep(Known(at=self.clock.now(), looking=None))
                return
            page = verify_losses(
                signed,
                store_key=self.store.key,
                store=self.store.store,
                station=self.station,
                nonce=nonce,
                after=after,
            )
            await self._take(page, signed)
            told |= {one.acquisition for one in page.losses}
            if not page.more:
                break
            after = page.losses[-1].acquisition
        else:
            raise VerificationFailed("the store's list of what it lost does not come to an end")
        await self.journal.write(lambda tx: _note_healed(tx, self.store.store, told))
        await self._keep(Known(at=page.at, looking=page.looking))

    async def _keep(self, found: Known) -> None:
        await self.journal.write(lambda tx: _put_known(tx, self.store.store, found))
        self.known = found

    async def _take(self, page: VerifiedLosses, signed: SignedBytes) -> None:
        """Keep the store's own words of what is new, and have each clip sent again where that can be."""
        new = await self.journal.write(lambda tx: _note_told(tx, self.store.store, page, signed))
        for one in new:
            _log.critical("store_lost_clip", store=self.store.store, acquisition=one.acquisition, what=one.what)
        for one in page.losses:
            try:
                row = await self.journal.write(lambda tx, one=one: self.trust.retract_told(tx, one))  # type: ignore[misc]
            except IllegalTransition:  # under a warrant right now: nothing more is erased until that is settled
                self.trust.doubt_holding(one.acquisition, f"the store says that it lost {one.acquisition}: {one.what}")
                continue
            if row is not None:
                self.on_changed(row)
                self.on_lost()


def known(tx: Tx, store: StoreId) -> Known | None:
    """What the store last told, as the journal has it; None where it was never asked, or did not answer yet."""
    kept = tx.get(_key(store))
    if not kept:
        return None
    record: dict[str, Any] = json.loads(kept)
    looking = record["looking"]
    return Known(at=parse_time(record["at"]), looking=looking and take_looking(Fields(looking, "looking")))


def sentence(found: Known | None, *, signs: bool) -> str:
    """How much a store looked at, and when it said so, for people: beside every word about what it lost."""
    if not signs:
        return "it does not say what it lost: each clip was looked at when it was last asked for, and not since"
    if found is None:
        return "it has not said yet how much of its clips it read again"
    if found.looking is None:
        return f"it does not read its clips again, or does not say so; last asked at {format_time(found.at)}"
    looking = found.looking
    said = [f"as it said at {format_time(found.at)}, it read {looking.looked} of {looking.objects} clips again"]
    if looking.oldest:
        said.append(f"the first of them at {format_time(looking.oldest)}")
    for count, what in ((looking.never, "not read again yet"), (looking.late, "late"), (looking.unread, "unreadable")):
        if count:
            said.append(f"{count} {what}")
    return ", ".join([*said, f"{looking.losses} lost"])


def alarm(looking: Looking | None) -> str:
    """A sentence where the store says that it lost what it signed for."""
    if looking is None or not looking.losses:
        return ""
    return (
        f"the store says that it lost {looking.losses} of the clips that it signed for: have its operators look "
        "at `dockd receiver scrub` there; what a camera or the spool still has is sent again"
    )


def is_told(tx: Tx, store: StoreId, acquisition: AcquisitionId) -> bool:
    """Whether the store says that it lost this one, as far as it was heard."""
    return bool(tx.get(_told(store) + acquisition))


def _put_known(tx: Tx, store: StoreId, found: Known) -> None:
    looking = found.looking and found.looking.record()
    tx.put(_key(store), json.dumps({"at": format_time(found.at), "looking": looking}))


def _note_told(tx: Tx, store: StoreId, page: VerifiedLosses, signed: SignedBytes) -> list[ToldLoss]:
    """A custody entry with the statement itself, where it tells anything new, and one about each clip."""
    new = [one for one in page.losses if not is_told(tx, store, one.acquisition)]
    if new:
        evidence = {"statement": signed.payload.decode(), "signature": signed.signature}
        tx.record("store.losses_told", details={"store": store, "clips": len(new), **evidence})
    for one in new:
        details = {"store": store, "what": one.what, "found": format_time(one.found_at), "told": page.payload_digest}
        row = tx.acquisition(one.acquisition)
        if row is not None:
            tx.record_about(row, "store.loss_told", details)
        else:
            tx.record("store.loss_told", details=details | {"unknown": one.acquisition})
        tx.put(_told(store) + one.acquisition, one.what)
    return new


def _note_healed(tx: Tx, store: StoreId, told: set[AcquisitionId]) -> None:
    """What the store told before, and no longer tells, it has again."""
    for key in tx.keys(_told(store)):
        name = AcquisitionId(key.removeprefix(_told(store)))
        if name in told:
            continue
        row = tx.acquisition(name)
        if row is not None:
            tx.record_about(row, "store.loss_healed", {"store": store})
        tx.drop(key)
        forget_lost(tx, store, name)


def _key(store: StoreId) -> str:
    return f"looked/{store}"


def _told(store: StoreId) -> str:
    return f"told/{store}/"
