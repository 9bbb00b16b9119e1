"""The tus engine: who writes to an upload, from which offset, and when what arrived may be called durable."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dockd.core.canonical import format_time
from dockd.faultpoints import Point
from dockd.keep.durable import fsync_directory
from dockd.model import Clock, StationId
from dockd.receiver import rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.layout import Layout
from dockd.receiver.part import HeaderWrong, Part, hash_file
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.rows import Announced
from dockd.receiver.settings import ReceiverSettings

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from dockd.receiver.incoming import Incoming

_log = structlog.get_logger()
_BATCH_BYTES = 1 << 20  # pieces arrive as 64 to 256 KiB: fewer, larger jobs for the threads
_COMMIT_BYTES = 32 << 20  # a PATCH of any length loses no more than this to a power cut
_SETTLE_S = 2.0
_REMEMBERED = 256  # uploads whose running hash is kept


@dataclass(slots=True, kw_only=True)
class _Live:
    """What is known of an upload beside its row. `hash` is over exactly `hashed_bytes`."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    holder: Incoming | None = None
    hash: Hash | None = None
    hashed_bytes: int = 0

    def digest_of(self, durable_bytes: int) -> Hash | None:
        return self.hash if self.hashed_bytes == durable_bytes else None

    def remember(self, part: Part) -> None:
        self.hash, self.hashed_bytes = part.hash.copy(), part.synced  # the part's own goes on


class Uploads:
    """All uploads of one receiver."""

    def __init__(self, *, catalogue: Catalogue, layout: Layout, settings: ReceiverSettings, clock: Clock) -> None:
        self._catalogue = catalogue
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._live: OrderedDict[str, _Live] = OrderedDict()
        self._stopping = False

    async def find(self, station: StationId, upload: str) -> Announced:
        """A station's upload. Raises Problem NOT_FOUND, also for another station's."""
        found = await self._catalogue.run(lambda db: rows.announced_by_upload(db, upload))
        if found is None or found.station != station:
            raise Problem(Kind.NOT_FOUND, "no such upload: ask for the receipt, or announce the acquisition again")
        return found

    async def find_settled(self, station: StationId, upload: str) -> Announced:
        """The same, a moment later where somebody writes to it: most likely a PATCH whose sender has gone."""
        one = await self.find(station, upload)
        live = self._live.get(upload)
        if live is None or live.holder is None:
            return one
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await live.holder.ended.wait()
        return await self.find(station, upload)

    async def append(self, station: StationId, upload: str, offset: int, incoming: Incoming) -> Announced:
        """Take a PATCH's body. Returns the row as it is durable now; after a Problem what arrived may be durable.

        After cancellation all that was committed before stays, and the upload is free for the next writer.
        """
        async with self.hold(upload, incoming) as live:
            one = await self.find(station, upload)
            if one.state != rows.OPEN:
                raise Problem(Kind.FINISHED, "the upload is finished: ask for its receipt")
            one = await self._settle_length(one, live)
            if offset != one.durable_bytes:
                raise Problem(
                    Kind.OFFSET_MISMATCH,
                    f"the upload stands at {one.durable_bytes}, not at {offset}: ask HEAD and go on there",
                    offset=one.durable_bytes,
                    headers={"Upload-Offset": str(one.durable_bytes)},
                )
            incoming.limit(one.size_bytes - offset)
            return await self._fill(one, live, incoming)

    async def digest(self, one: Announced) -> str:
        """The digest of a complete upload's bytes, in hex. The caller holds it."""
        live = self._of(one.upload)
        known = live.digest_of(one.durable_bytes)
        if known is None:
            known = await asyncio.to_thread(hash_file, self._layout.upload(one.upload), one.size_bytes)
        return known.hexdigest()

    async def start_over(self, one: Announced) -> Announced:
        """Drop an upload's bytes, so that they can be sent again. The caller holds it."""
        live = self._of(one.upload)
        live.hash = None
        return await self._commit(one, 0)  # the file is cut when the next writer opens it

    async def remove(self, station: StationId, upload: str) -> None:
        """Forget an unfinished upload and its announcement (tus "termination")."""
        async with self.hold(upload):
            one = await self.find(station, upload)
            if not await self._drop(one.upload):
                raise Problem(Kind.FINISHED, "the upload is finished: what was signed for is kept")

    async def expire(self) -> None:
        """Forget the uploads whose time is over, but for those that someone is writing to."""
        now = self._clock.now()
        for upload in await self._catalogue.run(lambda db: rows.expired(db, now)):
            with suppress(Problem):
                async with self.hold(upload):
                    one = await self._catalogue.run(partial(_by_upload, upload))
                    if one is not None and one.expires_at <= now and await self._drop(upload, expired=one):
                        _log.warning(
                            "upload_expired",
                            station=one.station,
                            acquisition=one.acquisition,
                            size_bytes=one.size_bytes,
                            durable_bytes=one.durable_bytes,
                            announced_at=one.announced_at and format_time(one.announced_at),
                        )

    async def sweep(self) -> None:
        """Remove files of the upload space that no row stands for. Called before the first request."""
        known = await self._catalogue.run(rows.uploads)

        def remove() -> int:
            strays = [path for path in self._layout.uploads.iterdir() if path.name not in known]
            for path in strays:
                self._layout.faults.act(Point.STORE_SWEEP, path.unlink)
            return len(strays)

        if removed := await asyncio.to_thread(remove):
            _log.info("stray_uploads_removed", files=removed)

    def stop(self) -> None:
        """End every PATCH that is under way; what arrived is made durable and stays."""
        self._stopping = True
        for live in self._live.values():
            if live.holder is not None:
                live.holder.abandon(Kind.STOPPING)

    @asynccontextmanager
    async def hold(self, upload: str, incoming: Incoming | None = None) -> AsyncIterator[_Live]:
        """Be the only one who changes this upload. Raises Problem LOCKED while somebody alive is at it.

        A PATCH over a connection that went silent gives way: its sender has most likely lost it.
        """
        live = self._of(upload)
        holder = live.holder
        if holder is not None and holder.silent_s() >= self._settings.takeover.total_seconds():
            holder.abandon(Kind.LOCKED)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.takeover.total_seconds()):
                    await holder.ended.wait()
            live = self._of(upload)
        if live.lock.locked():
            raise Problem(
                Kind.LOCKED,
                "another request is at this upload: wait, then ask for its offset",
                headers={"Retry-After": "1"},
            )
        async with live.lock:
            live.holder = incoming
            try:
                if self._stopping:
                    raise Problem(
                        Kind.STOPPING, "the receiver is being stopped: come back", headers={"Retry-After": "5"}
                    )
                yield live
            finally:
                live.holder = None
                if incoming is not None:
                    incoming.ended.set()

    # --- how

    def _of(self, upload: str) -> _Live:
        live = self._live.get(upload)
        if live is None:
            live = self._live[upload] = _Live()
            for name in [name for name, one in self._live.items() if not one.lock.locked()][:-_REMEMBERED]:
                del self._live[name]
        self._live.move_to_end(upload)
        return live

    async def _settle_length(self, one: Announced, live: _Live) -> Announced:
        """Believe the disk where it has less than the catalogue says: acknowledged bytes were lost."""

        def size() -> int:
            try:
                return self._layout.upload(one.upload).stat().st_size
            except FileNotFoundError:
                return 0

        present = await asyncio.to_thread(size)
        if present >= one.durable_bytes:
            return one
        _log.error("durable_bytes_lost", acquisition=one.acquisition, offset=one.durable_bytes, present=present)
        live.hash = None
        return await self._commit(one, present)

    async def _fill(self, one: Announced, live: _Live, incoming: Incoming) -> Announced:
        path, known = self._layout.upload(one.upload), live.digest_of(one.durable_bytes)

        def open_part() -> Part:
            faults = self._layout.faults
            part = Part.open(path, one.durable_bytes, known, stanzas=one.stanzas, faults=faults)
            if one.durable_bytes == 0:
                faults.act(Point.PART_NAME_SYNC, fsync_directory, path.parent)
            return part

        try:
            part = await asyncio.to_thread(open_part)
            try:
                return await self._receive(one, live, part, incoming)
            finally:
                await asyncio.to_thread(part.close)  # waits for a write that was left behind
        except HeaderWrong as error:
            await self.start_over(one)
            raise Problem(
                Kind.HEADER_REFUSED, f"{error}. Nothing was kept; seal and announce the clip again"
            ) from error
        except OSError as error:
            live.hash = None
            _log.error("upload_write_failed", acquisition=one.acquisition, error=str(error))
            raise  # a full disk is told from others where every request ends

    async def _receive(self, one: Announced, live: _Live, part: Part, incoming: Incoming) -> Announced:
        """Write what comes in, one batch behind the network, and commit now and then and at the end."""
        batch: list[bytes] = []
        size = 0
        writing: asyncio.Future[None] | None = None
        try:
            async with aclosing(incoming.pieces()) as pieces:
                async for piece in pieces:
                    batch.append(piece)
                    size += len(piece)
                    if size < _BATCH_BYTES:
                        continue
                    if writing is not None:
                        await writing
                    if incoming.commits_early and part.position - part.synced >= _COMMIT_BYTES:
                        one = await self._commit_part(one, live, part)
                    writing = asyncio.ensure_future(asyncio.to_thread(part.write, batch))
                    batch, size = [], 0
            if writing is not None:
                await writing
        except BaseException:
            if writing is not None:  # not awaited by anyone now; its bytes lie beyond the durable offset
                await asyncio.wait([writing])
                writing.cancelled() or writing.exception()
            raise
        if batch:
            await asyncio.to_thread(part.write, batch)
        incoming.check_sum()  # raises before anything of this PATCH was committed
        one = await self._commit_part(one, live, part)
        incoming.check_end()
        return one

    async def _commit_part(self, one: Announced, live: _Live, part: Part) -> Announced:
        if part.position == one.durable_bytes:
            return one
        await asyncio.to_thread(part.sync)
        one = await self._commit(one, part.synced)  # only now may anyone be told
        live.remember(part)
        return one

    async def _commit(self, one: Announced, durable_bytes: int) -> Announced:
        expires_at = self._clock.now() + self._settings.expiry(durable_bytes)
        await self._catalogue.run(
            lambda db: rows.set_durable(db, one.upload, durable_bytes, expires_at), Point.OFFSET_ROW
        )
        return replace(one, durable_bytes=durable_bytes, expires_at=expires_at)

    async def _drop(self, upload: str, expired: Announced | None = None) -> bool:
        now = self._clock.now()

        def drop(db: sqlite3.Connection) -> bool:
            done = rows.drop_announced(db, upload)
            if done and expired is not None and rows.announced_by_upload(db, upload) is None:
                rows.note_expired(db, expired, now)
            return done

        if not await self._catalogue.run(drop, Point.DROPPED_ROW):
            return False
        self._live[upload].hash = None
        path, faults = self._layout.upload(upload), self._layout.faults
        await asyncio.to_thread(faults.act, Point.PART_GONE, path.unlink, missing_ok=True)
        return True


def disk_full(detail: str) -> Problem:
    """What is said while there is no room."""
    return Problem(
        Kind.DISK_FULL, f"{detail}: its operators have to make room; try later", headers={"Retry-After": "60"}
    )


def share_full(detail: str) -> Problem:
    """What is said to a station that has so much unfinished that it has to go on with that first."""
    return Problem(
        Kind.STATION_SHARE,
        f"{detail}: finish or delete what is unfinished, and the clip is taken; where the station brings that much in "
        "honest work, the store's operators raise uploads.station_percent, station_least_bytes or station_unfinished",
        headers={"Retry-After": "60"},
    )


def _by_upload(upload: str, db: sqlite3.Connection) -> Announced | None:
    return rows.announced_by_upload(db, upload)
