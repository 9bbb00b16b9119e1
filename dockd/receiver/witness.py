"""Cosigning custody checkpoints: each station's log may only grow (design section 6, step 6)."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import datetime

import structlog

from dockd import faultpoints
from dockd.core import canonical, checkpoint, merkle
from dockd.core.checkpoint import Checkpoint
from dockd.errors import VerificationFailed
from dockd.faultpoints import Point
from dockd.keep.durable import temporary_beside, write_file
from dockd.model import Clock
from dockd.receiver import rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.generation import accepted_log, generation_of
from dockd.receiver.layout import Layout
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.rows import Cosigned
from dockd.receiver.sessions import Caller
from dockd.receiver.settings import ReceiverSettings

_log = structlog.get_logger()
_MAX_FORKS = 100  # files of evidence a station can make us keep


class _Forked(Exception):
    def __init__(self, known: Cosigned, reason: str) -> None:
        super().__init__(reason)
        self.known = known


class Witness:
    """Remembers the newest checkpoint of every station's log, and cosigns what is consistent with it."""

    def __init__(self, *, catalogue: Catalogue, layout: Layout, settings: ReceiverSettings, clock: Clock) -> None:
        self._catalogue = catalogue
        self._layout = layout
        self._settings = settings
        self._clock = clock

    async def size(self, caller: Caller) -> int:
        """The size of the newest cosigned checkpoint; 0 where there is none."""
        known = await self._catalogue.run(lambda db: rows.cosigned(db, caller.station))
        accepted = await asyncio.to_thread(accepted_log, self._layout, caller.station)
        return known.size if known and not _begins_anew(known, accepted) else 0

    async def cosign(self, caller: Caller, note: bytes, old_size: int, proof: list[bytes]) -> bytes:
        """The cosigned note. An older one that the newest extends is cosigned too, and the newest stays.

        `proof` leads from the smaller of `old_size` and the note's size to the larger.
        """
        shown = _read(caller, note)
        name, now = f"dockd-store/{self._settings.store}", self._clock.now()
        cosigned = checkpoint.cosign(note, self._settings.key, name, now)

        accepted = await asyncio.to_thread(accepted_log, self._layout, caller.station)

        def keep(db: sqlite3.Connection) -> Cosigned | None:
            known = rows.cosigned(db, caller.station)
            if known is not None and _begins_anew(known, accepted) and shown.origin == accepted:
                former = self._layout.former(caller.station, generation_of(known.origin))
                # What was witnessed of it is evidence.
                write_file(former, known.note, points=faultpoints.FORMER, faults=self._layout.faults)
                known = None
            if known is not None and known.origin != shown.origin:
                raise Problem(
                    Kind.OTHER_LOG,
                    f"the log {known.origin} is the one known here; a new generation has to be accepted by this "
                    "store's operators: `dockd receiver accept-log`",
                )
            size = known.size if known else 0
            if old_size != size:
                raise Problem(
                    Kind.CHECKPOINT_SIZE, f"the newest checkpoint here has {size} entries: prove from there", size=size
                )
            newest = Cosigned(origin=shown.origin, size=shown.size, root=shown.root, note=cosigned)
            if known is not None:
                try:
                    _check(known, shown, proof)
                except VerificationFailed as error:
                    raise _Forked(known, str(error)) from error
                if shown.size < known.size:
                    return None
            rows.put_cosigned(db, caller.station, newest)
            return newest

        try:
            newest = await self._catalogue.run(keep, Point.COSIGNED_ROW)
        except _Forked as fork:
            await self._alarm(caller, note, fork, now)
            raise Problem(
                Kind.LOG_FORKED,
                f"{fork}. This is kept as evidence: stop erasing at this station and find out who rewrote its log",
                size=fork.known.size,
            ) from fork
        if newest is not None:
            # A copy for people; the catalogue's is the one that counts.
            await asyncio.to_thread(
                write_file,
                self._layout.checkpoint(caller.station),
                newest.note,
                points=faultpoints.COSIGNED,
                faults=self._layout.faults,
            )
        return cosigned

    async def _alarm(self, caller: Caller, note: bytes, fork: _Forked, now: datetime) -> None:
        evidence = canonical.encode(
            {
                "type": "fork",
                "v": 1,
                "station": caller.station,
                "reason": str(fork),
                "known": fork.known.note.decode(),
                "shown": note.decode(),
                "at": canonical.format_time(now),
            }
        )

        faults = self._layout.faults

        def keep() -> str | None:
            for number in range(1, _MAX_FORKS + 1):
                path = self._layout.fork(caller.station, number)
                try:
                    with temporary_beside(path, replace=False, points=faultpoints.FORK, faults=faults) as file:
                        file.write(evidence)
                except FileExistsError:
                    continue
                return str(path)
            return None

        kept = await asyncio.to_thread(keep)
        _log.critical("custody_log_forked", station=caller.station, reason=str(fork), evidence=kept)


def _read(caller: Caller, note: bytes) -> Checkpoint:
    origin = note.split(b"\n", 1)[0].decode(errors="replace")
    station, _, generation = origin.removeprefix("dockd/").partition("/")
    if (
        not origin.startswith("dockd/")
        or station != caller.station
        or not (generation.isascii() and generation.isdigit())
    ):
        raise Problem(Kind.OTHER_LOG, f"only the log dockd/{caller.station}/GENERATION belongs to this session")
    try:
        return checkpoint.parse_and_verify(note, origin, caller.public.checkpoint_key)
    except VerificationFailed as error:
        raise Problem(Kind.OTHER_LOG, f"{error}: sign with the checkpoint key that is enrolled here") from error


def _begins_anew(known: Cosigned, accepted: str) -> bool:
    """Whether people here accepted a newer log in the place of the known one."""
    return bool(accepted) and generation_of(accepted) > generation_of(known.origin)


def _check(known: Cosigned, shown: Checkpoint, proof: list[bytes]) -> None:
    """Raises VerificationFailed unless one log extends the other."""
    if shown.size >= known.size:
        merkle.verify_consistency(known.size, shown.size, known.root, shown.root, proof)
    else:
        merkle.verify_consistency(shown.size, known.size, shown.root, known.root, proof)
