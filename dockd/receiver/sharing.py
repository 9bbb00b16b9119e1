"""A clip that another station brought: whether it is here, and its object in the place of one that is not sent.

Who asks has announced the clip: its signed manifest names the camera and the plaintext, so that nobody can try digests
without leaving a signature for each. What is not here and what may not be known are one answer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection

import structlog

from dockd.core.manifest import decode
from dockd.core.twins import differences
from dockd.faultpoints import Point
from dockd.model import Digest, SignedBytes, StationId
from dockd.receiver import rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.layout import Layout
from dockd.receiver.look import look_whole
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.rows import Announced, Share
from dockd.receiver.settings import ReceiverSettings
from dockd.receiver.uploads import Uploads

_log = structlog.get_logger()
_READ_AT_ONCE = 2  # objects that are read whole: what arrives meanwhile has to be written by the same threads


class Sharing:
    """Look-ups among the stations that the receiver's own configuration permits, and what comes of them."""

    def __init__(self, *, catalogue: Catalogue, layout: Layout, settings: ReceiverSettings, uploads: Uploads) -> None:
        self._catalogue = catalogue
        self._layout = layout
        self._settings = settings
        self._uploads = uploads
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)

    async def twins(self, station: StationId, acquisition: str, wanted: Collection[StationId]) -> list[SignedBytes]:
        """The manifests of these stations' acquisitions of the same clip, as they were signed; the newest first.

        Raises Problem NOT_FOUND where the asking station has not announced the acquisition.
        """
        one = await self._find(station, acquisition)
        permitted = await self._permitted(station, wanted)
        found = await self._catalogue.run(lambda db: _twins(db, one, permitted))
        _log.info("twins_asked", station=station, acquisition=acquisition, asked=sorted(wanted), found=len(found))
        return [twin.manifest for twin in found]

    async def share(self, station: StationId, acquisition: str, manifest_digest: Digest) -> Announced:
        """Let another's object stand for a clip, after all of it was read and compared. Returns the other. Idempotent.

        Raises Problem NOT_FOUND where there is none, or none that this station may know of; CONFLICT where the clip has
        bytes or a receipt of its own; OBJECT_LOST where the other's object is not what was signed for. The upload takes
        no more bytes then, and has to be asked for its receipt. After cancellation it is so or not.
        """
        one = await self._find(station, acquisition)
        async with self._uploads.hold(one.upload):
            one = await self._find(station, acquisition)  # as it is now that nobody else changes it
            known, is_given = await self._catalogue.run(
                lambda db: (rows.share(db, one), rows.receipt(db, one.station, one.acquisition) is not None)
            )
            if known is not None and known.holder.manifest_digest == manifest_digest:
                return known.holder
            if one.state != rows.OPEN or is_given:
                raise Problem(Kind.CONFLICT, "the clip has its bytes, or its receipt, already: ask for the receipt")
            permitted = await self._permitted(station, self._settings.lookups.get(station, frozenset()))
            holder = await self._catalogue.run(lambda db: _twin(db, one, permitted, manifest_digest))
            nonce = decode(one.manifest.payload).nonce
            try:
                place = self._layout.stored(holder.station, holder.acquisition)
                async with self._reading:
                    shown = await asyncio.to_thread(look_whole, place, holder, nonce)
            except OSError as error:
                _log.critical("object_lost", station=holder.station, acquisition=holder.acquisition, error=str(error))
                raise Problem(
                    Kind.OBJECT_LOST, "the other station's object is not as it was signed for: send the clip itself"
                ) from error

            def add(db: sqlite3.Connection) -> None:
                again = _twin(db, one, permitted, manifest_digest)  # it may have been sent anew meanwhile
                rows.add_share(db, one, Share(holder=again, shown=shown))

            # From here on no byte of the clip itself is taken, and nothing of it expires.
            await self._catalogue.run(add, Point.SHARED_ROW)
        _log.info(
            "object_shared",
            station=station,
            acquisition=acquisition,
            holder=holder.station,
            held=holder.acquisition,
        )
        return holder

    async def _find(self, station: StationId, acquisition: str) -> Announced:
        found = await self._catalogue.run(lambda db: rows.announced(db, station, acquisition))
        if found is None:
            raise _not_found()
        return found

    async def _permitted(self, station: StationId, wanted: Collection[StationId]) -> frozenset[StationId]:
        """Of these stations the ones whose clips this one may know of, and that are still enrolled."""
        allowed = frozenset(wanted) & self._settings.lookups.get(station, frozenset()) - {station}

        def enrolled() -> frozenset[StationId]:
            return frozenset(one for one in allowed if self._layout.station(one).is_file())

        return await asyncio.to_thread(enrolled)


def _twins(db: sqlite3.Connection, one: Announced, permitted: Collection[StationId]) -> list[Announced]:
    stated = decode(one.manifest.payload)
    found = rows.twins(db, stated, permitted)
    return [twin for twin in found if not differences(stated, decode(twin.manifest.payload))]


def _twin(db: sqlite3.Connection, one: Announced, permitted: Collection[StationId], digest: Digest) -> Announced:
    for twin in _twins(db, one, permitted):
        if twin.manifest_digest == digest:
            return twin
    raise _not_found()


def _not_found() -> Problem:
    return Problem(Kind.NOT_FOUND, "there is nothing of that kind here that this station may know of")
