"""Erase clips of mounted volumes together: the volumes are mounted anew, writable, and anew, read-only, once for all.

Nothing counts as erased before that last mount: what a file system says of writes that it still keeps back is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import structlog

from dockd.errors import EraseFailed
from dockd.model import AcquisitionId, Erasure
from dockd.stages import condition
from dockd.stages.sanitise import UNTOUCHED, Permit, commit, lapse, record
from dockd.stages.stay import Stay

_log = structlog.get_logger()


class Batch:
    """One batch: `plan`, `begin`, `erase` for each permit, `finish`.

    From `begin` on, whatever it raises but what `erase` says of an untouched clip must end the docking: the reader may
    have no descriptors, and what became of the clips only the next listing, on a fresh mount, can tell.
    """

    def __init__(self, stay: Stay, permits: Sequence[Permit]) -> None:
        self.permits = tuple(permits)  # those whose warrants stand
        self._stay = stay
        self.unaccounted = ""  # after `plan`: why blocks may be taken by anything else than these clips
        self._erased: dict[AcquisitionId, Erasure] = {}

    async def plan(self) -> Mapping[AcquisitionId, str]:
        """Learn where the clips lie, while the volumes are still read-only.

        Returns why clips were left out: those of which that cannot be told, as nothing could be read back of them
        later. Raises EraseFailed where nothing may be erased from these volumes; CameraGone, ReaderDied.
        """
        plan = await self._stay.reader.plan_erasing({one.row.acquisition: one.file for one in self.permits})
        self.unaccounted = plan.unaccounted
        self.permits = tuple(one for one in self.permits if one.row.acquisition not in plan.unclear)
        return plan.unclear

    async def begin(self) -> None:
        """Make the warrants durable, and mount the volumes writable.

        Raises WarrantRefused with nothing done; EraseFailed, CameraGone or ReaderDied.
        """
        stay = self._stay
        await commit(stay, self.permits)
        await stay.reader.let_go()
        await condition.note_writing(stay)
        await stay.attachment.open_to_write()
        await stay.reader.take(stay.attachment.medium)

    async def erase(self, permit: Permit) -> None:
        """Erase one clip; it does not count yet.

        Raises EraseFailed, ClipBusy, ClipChanged, ClipGone or ClipRefused with the clip untouched and its row `stored`
        (a remnant: as it was, and `warranted`); ReaderDied, CameraGone.
        """
        try:
            erasure = await self._stay.reader.erase(permit.warrant, permit.file)
        except UNTOUCHED as error:
            await lapse(self._stay, (permit,), str(error))
            raise
        self._erased[permit.row.acquisition] = erasure

    async def spare(self, permit: Permit, reason: str) -> None:
        """Leave a clip as it is: its row is `stored` again (a remnant stays as it was)."""
        await lapse(self._stay, (permit,), reason)

    async def finish(self) -> int:
        """Mount the volumes read-only, look for each clip anew, and count those that are gone; returns how many.

        Raises EraseFailed where the medium did not take what was written, or a clip was not verified: it then stays
        `warranted`, with a note why; CameraGone, ReaderDied.
        """
        stay = self._stay
        await stay.reader.let_go()
        await stay.attachment.open_to_read()
        await stay.reader.take(stay.attachment.medium)
        failed: EraseFailed | None = None
        for permit in self.permits:
            name = permit.row.acquisition
            erasure = self._erased.get(name)
            if erasure is None:
                continue
            try:
                checked = (await stay.reader.verify_erased((name,)))[name]
            except EraseFailed as error:
                failed = error
                await stay.journal.write(partial(condition.note_unverified, stay=stay, name=name, why=str(error)))
                _log.error("erasure_unverified", bay=stay.bay, acquisition=name, reason=str(error))
                continue
            await record(stay, permit, erasure, f"after a fresh mount: {checked}")
        await condition.note_written(stay)
        if failed is not None:
            raise failed
        return len(self._erased)
