"""Tell a station what was found of its clips when they were read again, and how much was read at all. Signed."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from dockd.core import sshsig
from dockd.core.losses import PAGE, Looking, ToldLoss, build_losses
from dockd.model import Clock, SignedBytes, StationId
from dockd.receiver import scrub_rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.scrub import pace_of
from dockd.receiver.scrub_rows import Looked, Loss
from dockd.receiver.settings import ReceiverSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Answers for one receiver."""

    catalogue: Catalogue
    settings: ReceiverSettings
    clock: Clock

    async def losses(self, station: StationId, nonce: bytes, after: str) -> SignedBytes:
        """What is lost now of what this station brought, beyond the acquisition `after`; at most a page."""
        now, pace = self.clock.now(), pace_of(self.settings)

        def ask(db: sqlite3.Connection) -> tuple[Looked, list[Loss]]:
            looked = scrub_rows.looked(db, pace, now, station)
            return looked, scrub_rows.losses(db, station, after, PAGE + 1)

        looked, found = await self.catalogue.run(ask)
        payload = build_losses(
            store=self.settings.store,
            station=station,
            nonce=nonce,
            at=now,
            after=after,
            looking=Looking(
                objects=looked.objects,
                looked=looked.looked,
                oldest=looked.oldest,
                never=looked.never,
                late=looked.late,
                unread=looked.unread,
                losses=looked.losses,
                every_s=int(pace.every.total_seconds()),
            ),
            losses=[
                ToldLoss(acquisition=one.acquisition, what=one.what, found_at=one.found_at) for one in found[:PAGE]
            ],
            more=len(found) > PAGE,
        )
        return SignedBytes(payload=payload, signature=sshsig.sign(self.settings.key, sshsig.LOSSES, payload))
