"""What a store that does not sign was found to enforce: tried before it is relied on, kept in the journal, entered."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Self

import structlog

from dockd.core.canonical import format_time, parse_time
from dockd.core.findings import Answer, Findings
from dockd.errors import VerificationFailed
from dockd.keep.journal import Journal
from dockd.keep.transaction import Tx
from dockd.model import Clock, StoreId
from dockd.station.outlet import Outlet, Parts
from dockd.stores.probing import Probing, from_text, merged, to_records

_log = structlog.get_logger()

GOOD_FOR = timedelta(days=30)  # servers are upgraded, and buckets set up anew
UNKNOWN_FOR = timedelta(hours=6)  # until what could not be tried is tried again


class Enforced:
    """Findings about one store: nothing is believed of it that none of them shows. Without `probing` all is idle."""

    def __init__(self, *, journal: Journal, store: StoreId, probing: Probing | None, clock: Clock) -> None:
        self.findings: Findings = ()
        self._journal = journal
        self._store = store
        self._probing = probing
        self._clock = clock
        self._due: str | None = None  # when to try again, as the journal writes times; None: not tried yet
        self._about = ""  # as in Probing
        self._trying = asyncio.Lock()

    @classmethod
    def of(cls, outlet: Outlet, parts: Parts) -> Self:
        """About one store of a station."""
        probing = outlet.keeping.probing if outlet.keeping else None
        return cls(journal=parts.journal, store=outlet.store, probing=probing, clock=parts.clock)

    async def begin(self) -> None:
        """Believe what the journal has. Raises JournalError."""
        text = await self._journal.read(lambda tx: tx.get(_key(self._store)))
        if self._probing is None or text is None:
            return
        try:
            record = json.loads(text)
            self.findings, self._due = from_text(json.dumps(record["findings"])), record["due"]
            parse_time(self._due)
            self._about = str(record["about"])
        except (ValueError, KeyError, TypeError, VerificationFailed) as error:
            _log.warning("findings_unreadable", store=self._store, reason=str(error))
            self.findings, self._due = (), None
            return
        if self._about != self._probing.about:
            self.findings = ()  # they answer other questions than are asked now
        self._probing.believe(self.findings)

    async def known(self) -> None:
        """Before anything is sent: try the store where that is due. After cancellation trial objects may be left there.

        Where it is out of reach nothing is learnt, and whatever is sent next says why.
        """
        if self._probing is None or not self._is_due():
            return
        async with self._trying:
            if self._is_due():
                await self._try(self._probing)

    async def tried(self) -> Findings:
        """What is known of the store, after a trial where one is due."""
        await self.known()
        return self.findings

    async def try_now(self) -> Findings:
        """Try it, whatever is known; returns what was found this time."""
        if self._probing is None:
            return ()
        async with self._trying:
            return await self._try(self._probing)

    def _is_due(self) -> bool:
        asked = self._probing is not None and self._about == self._probing.about
        return not asked or self._due is None or self._clock.now() >= parse_time(self._due)

    async def _try(self, probing: Probing) -> Findings:
        tried = await probing.probe()
        if all(one.answer is Answer.UNKNOWN for one in tried):
            return tried  # it is not there: that says nothing of what it does
        found = merged(self.findings if self._about == probing.about else (), tried)
        sure = all(one.answer is not Answer.UNKNOWN for one in found)
        due = format_time(self._clock.now() + (GOOD_FOR if sure else UNKNOWN_FOR))
        changed = _essence(found) != _essence(self.findings)

        def keep(tx: Tx) -> None:
            tx.put(_key(self._store), json.dumps({"due": due, "about": probing.about, "findings": to_records(found)}))
            if changed:
                tx.record("store.tried", details={"store": self._store, "findings": to_records(found)})

        await self._journal.write(keep)
        self.findings, self._due, self._about = found, due, probing.about
        probing.believe(found)
        for one in found:
            if one.broken_claim:
                _log.warning("store_claims_what_it_does_not", store=self._store, question=one.question, seen=one.detail)
        _log.info("store_tried", store=self._store, answers={str(one.question): one.answer.value for one in found})
        return tried


def _essence(findings: Findings) -> list[tuple[str, Answer, bool | None]]:
    """Without the words, which may bear addresses of the moment."""
    return [(str(one.question), one.answer, one.claimed) for one in findings]


def _key(store: StoreId) -> str:
    return f"enforced/{store}"
