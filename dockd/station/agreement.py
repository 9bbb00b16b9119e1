"""What a store that signs and this station have to agree on: how long clips are kept, and who seals them to whom.

Each fault of that kind is one alarm with one repair, and nothing is decided about a clip: clips wait. When it is
mended at either end, the station notices by itself, and they go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from dockd.core.policy import PolicyStore
from dockd.core.retention import VerifiedPolicy, too_short, verify_policy
from dockd.errors import StoreError, StoreUnsuited, StoreUntrusted, VerificationFailed
from dockd.model import AcquisitionId, Clock, Entropy
from dockd.station.waiting import pause
from dockd.stores.port import SigningStore

_log = structlog.get_logger()

EVERY_S = 3600.0  # that the policy is looked at where nothing is wrong
FIRST_S = 20.0  # until the first look, where no clip asks for it sooner: stations may start together
SOON_S = 30.0  # the same where something is
_STATION = "station"  # the topic of what concerns no single clip


@dataclass(slots=True, kw_only=True)
class Agreement:
    """With one store. `run` once; everything else may be called at any time from the same event loop.

    `store` is None for one that does not sign, which has nothing to agree on. `on_settled` hears that what kept clips
    waiting is over; it must not block.
    """

    store: SigningStore | None
    configured: PolicyStore | None
    clock: Clock
    random: Entropy
    on_settled: Callable[[], None] = lambda: None
    policy: VerifiedPolicy | None = None  # as it was last seen
    _unsuited: dict[str, str] = field(default_factory=dict)  # sentences, by clip or topic
    _known: bool = False
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def alarms(self) -> tuple[str, ...]:
        """What somebody has to mend, each sentence once however many clips it keeps waiting."""
        return tuple(dict.fromkeys(self._unsuited.values()))

    @property
    def holds(self) -> bool:
        """Whether nothing at all is sent."""
        return _STATION in self._unsuited

    def doubt(self, error: StoreUnsuited, clip: AcquisitionId) -> None:
        """The store does not take something of this station as it is."""
        self._unsuited[clip if error.of_one else _STATION] = str(error)
        self._woken.set()

    def forget(self, clip: AcquisitionId) -> None:
        """The clip is done with, or was taken."""
        self._unsuited.pop(clip, None)

    async def known(self) -> None:
        """Before a clip is sent: look at the store's policy, unless it was. Raises StoreUnsuited where it is too short.

        Raises the store's other errors where it cannot be asked.
        """
        if not self._known:
            await self.look()
        if why := self._unsuited.get(_STATION):
            raise StoreUnsuited(why)

    async def look(self, *, anew: bool = False) -> None:
        """See what the store's policy says; `anew` in a new session. Raises the store's errors, StoreUntrusted."""
        if self.store is None or self.configured is None:
            self._known = True
            return
        async with self._looking:
            self.policy = await stated(self.store, anew=anew)
            self._known = True
            self._judge(self.configured)

    async def run(self) -> None:
        """Look now and then, at once where a clip was not taken; until cancelled."""
        if self.store is None or self.configured is None or not self.configured.minima:
            return
        while True:
            every_s = FIRST_S if not self._known else SOON_S if self._unsuited else EVERY_S
            await pause(self.clock, every_s * (0.5 + self.random(1)[0] / 256), self._woken)
            held = self._unsuited.copy()
            try:
                await self.look(anew=True)
            except StoreUnsuited as error:
                self._unsuited[_STATION] = str(error)
            except StoreError as error:
                _log.info("policy_not_looked_at", store=self.store.store, reason=str(error))
            self._woken.clear()
            if held and _STATION not in self._unsuited:
                self.on_settled()  # also clips that were not taken: they are offered once more, all of them

    def _judge(self, configured: PolicyStore) -> None:
        short = shortfall(self.policy, configured)
        if not short:
            self._unsuited.pop(_STATION, None)
            return
        if _STATION not in self._unsuited:
            _log.error("store_policy_too_short", store=configured.store, reason=short)
        self._unsuited[_STATION] = short


async def stated(store: SigningStore, *, anew: bool = False) -> VerifiedPolicy | None:
    """The store's policy; None of a store of before there were any. Raises StoreUntrusted, the store's other errors."""
    signed = await store.policy(anew=anew)
    try:
        return None if signed is None else verify_policy(signed, store_key=store.key, store=store.store)
    except VerificationFailed as error:
        raise StoreUntrusted(f"the store's policy statement cannot be trusted: {error}") from error


def shortfall(policy: VerifiedPolicy | None, configured: PolicyStore) -> str:
    """Why a policy is too short for this station, and what mends it; empty where it is not."""
    short = too_short(policy, configured.minima) if policy else ()
    if not short:
        return ""
    return (
        f"it keeps clips for less than this station asks for ({'; '.join(one.sentence() for one in short)}): its "
        f"operators lengthen [retention.categories], or [store.{configured.name}.minimum] is lowered here; clips wait, "
        "and go on by themselves"
    )
