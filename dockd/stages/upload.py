"""Upload: announce an acquisition to one store, push its sealed bytes from wherever the store stands, get it confirmed.

The store's durable offset is the only truth about an upload. It is asked for at the start and after every doubt, and
nothing is sent before it answered.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import aiofiles
import structlog
from aiofiles.threadpool.binary import AsyncFileIO

from dockd.core.backoff import ENOUGH_BYTES
from dockd.core.lifecycle import DeliveryEvent, DeliveryState
from dockd.core.patch_size import PatchSize
from dockd.core.policy import StorePolicy
from dockd.core.transfer import Action, next_move
from dockd.errors import (
    OffsetConflict,
    PatchTooLarge,
    SpoolFull,
    SpoolSpoiled,
    StoreError,
    StoreIncomplete,
    StoreUnreachable,
    StoreUntrusted,
    UploadCorrupt,
    UploadLost,
    VerificationFailed,
)
from dockd.keep.deliveries import Delivery
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import Acquisition, AcquisitionId, Sealed
from dockd.stages.confirming import Confirming, delivery_of
from dockd.stages.sharing import Chance, Sharing
from dockd.stores.port import EvidenceStore

_log = structlog.get_logger()

BLOCK_BYTES = 1024 * 1024  # aiofiles pays for every block with a thread hop: below 1 MiB that is felt
_OPEN = (DeliveryState.WAITING, DeliveryState.REGISTERED, DeliveryState.FINISHED)
MAX_STALLS = 5  # answers in a row that brought the upload no further, before the uplink is asked to wait


@dataclass(slots=True, kw_only=True)
class Track:
    """What this program's life knows of one upload; mutable, since an attempt that failed leaves it to the next."""

    acked_bytes: int = 0  # the highest offset that the store ever reported for `upload_url`
    sent_bytes: int = 0  # for people to look at: acknowledged, or on its way
    upload_url: str | None = None
    chance: Chance = field(default_factory=Chance)  # that it need not be sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Pusher:
    """What a push needs, for one store. `on_progress` hears of every block and every answer; it must not block."""

    journal: Journal
    spool: Spool
    store: EvidenceStore
    confirmer: Confirming
    policy: StorePolicy
    patch: PatchSize
    on_progress: Callable[[AcquisitionId, Track], None]
    on_answer: Callable[[], None]  # the store just proved to be there
    on_sent: Callable[[], None]  # it took bytes
    may_retry: Callable[[], bool]  # whether what failed may be sent again at once; it counts as sent again then
    on_changed: Callable[[Acquisition], None]  # hears of every other change of a row; must not block
    sharing: Sharing | None = None  # where other stations' objects may stand for clips

    async def push(self, acquisition: Acquisition, track: Track) -> Delivery:
        """Bring a delivery that is open to confirmed; returns it.

        Goes on wherever an earlier push was interrupted. Raises every StoreError that needs a wait or a person,
        SpoolSpoiled where the spool file is not what was sealed, SpoolFull where the spool cannot be used now. After
        cancellation the connection of a PATCH is closed, and the store keeps what it has.
        """
        upload = _Upload(self, acquisition, track)
        return await upload.run()


class _Upload:
    """One attempt at one acquisition."""

    def __init__(self, pusher: Pusher, acquisition: Acquisition, track: Track) -> None:
        if acquisition.sealed is None:
            raise VerificationFailed(f"acquisition {acquisition.acquisition} is to be sent, but was never sealed")
        self._pusher = pusher
        self._name, self._row = acquisition.acquisition, acquisition
        self._sealed: Sealed = acquisition.sealed
        self._size = acquisition.sealed.sealed_size_bytes
        self._path: Path = pusher.spool.path(acquisition.acquisition)
        self._track = track
        self._stalls = 0
        self._compared = False  # the spool file with its seal

    async def run(self) -> Delivery:
        store = self._pusher.store.store
        delivery = await self._pusher.journal.read(lambda tx: delivery_of(tx, self._name, store))
        try:
            await asyncio.to_thread(_check_length, self._path, self._size)
        except SpoolSpoiled as damaged:
            delivery = await self._rescue(delivery, damaged)
        while delivery.state in _OPEN:
            try:
                delivery = await self._shared(await self._announced(delivery))
                if delivery.state is DeliveryState.FINISHED or await self._sent(delivery):
                    delivery = await self._pusher.confirmer.confirm(self._name)
            except UploadCorrupt as error:
                await self._compare_with_seal(error)
            except UploadLost as error:
                delivery = await self._find_out(delivery, error)
            except (OffsetConflict, StoreIncomplete) as error:
                self._stall(error)
        return delivery

    async def _announced(self, delivery: Delivery) -> Delivery:
        """The delivery with its upload's address, registered where the store has not yet taken it."""
        if delivery.state is DeliveryState.WAITING or delivery.upload_url is None:
            url = await self._register()
            delivery = await self._advance(DeliveryEvent.REGISTERED, upload_url=url)
            _log.info("acquisition_registered", acquisition=self._name, store=delivery.store)
        if delivery.upload_url != self._track.upload_url:
            self._track.upload_url, self._track.acked_bytes = delivery.upload_url, 0
        return delivery

    async def _shared(self, delivery: Delivery) -> Delivery:
        """The delivery as it is; where a trusted station has brought the clip already, finished with nothing sent."""
        sharing = self._pusher.sharing
        if sharing is None or delivery.state is not DeliveryState.REGISTERED:
            return delivery
        moved = await sharing.share(self._name, self._track.chance)
        if moved is None:
            return delivery
        _log.info("delivery_shared", acquisition=self._name, store=delivery.store)
        self._pusher.on_changed(moved[1])
        return moved[0]

    async def _advance(self, event: DeliveryEvent, reason: str = "", **changes: str | None) -> Delivery:
        store, policy = self._pusher.store.store, self._pusher.policy
        details = {"reason": reason} if reason else {}
        delivery, row = await self._pusher.journal.write(
            lambda tx: tx.deliver(self._name, store, event, policy, details=details, **changes)
        )
        self._pusher.on_changed(row)
        return delivery

    async def _register(self) -> str:
        manifest = await self._pusher.journal.read(lambda tx: tx.manifest(self._name))
        url = await self._pusher.store.register(self._name, manifest, self._size)
        self._pusher.on_answer()
        return url

    async def _sent(self, delivery: Delivery) -> bool:
        """Send what the store lacks. True: it has every byte. False: there is a doubt, to begin again with."""
        url = delivery.upload_url or ""
        return await self._go_on_from(url, await self._pusher.store.offset(url))

    async def _go_on_from(self, url: str, offset: int) -> bool:
        """Send from the store's offset on until a doubt or the end. True: the store has every byte."""
        while True:
            await self._decided(offset)
            if offset == self._size:
                return True
            patch = self._pusher.patch
            wanted = min(patch.bytes, self._size - offset)
            sent_from, length = offset, self._pusher.store.stretch(url, offset, wanted)
            try:
                offset = await self._append(url, offset, length)
            except PatchTooLarge as error:
                self._shrunk(patch.refused(length))
                self._stall(error)
                return False
            except StoreUnreachable as error:
                offset = await self._learn(url, sent_from, length, error)
            else:
                patch.arrived(length)
            if offset > sent_from:
                self._pusher.on_sent()
                if offset - sent_from >= min(length, ENOUGH_BYTES):
                    self._stalls = 0
                else:
                    self._stall(StoreUnreachable(f"it took {offset - sent_from} of {length} bytes"))

    async def _decided(self, offset: int) -> None:
        """Weigh an offset against what was acknowledged before. Raises StoreUntrusted for an impossible one."""
        self._pusher.on_answer()
        acked = self._track.acked_bytes
        move = next_move(local_size=self._size, store_offset=offset, acked=acked)
        if move.action is Action.HOLD:
            raise StoreUntrusted(
                f"the store claims {offset} bytes of {self._row.acquisition}, which has {self._size}: nothing more is "
                "sent of it until the store's upload was looked at"
            )
        if move.action is Action.SEND_AGAIN:
            _log.error("store_lost_bytes", acquisition=self._row.acquisition, acknowledged=acked, offset=offset)
            details = {"store": self._pusher.store.store, "acknowledged_bytes": acked, "offset_bytes": offset}
            row = self._row
            await self._pusher.journal.write(lambda tx: tx.record_about(row, "store.lost_bytes", details))
        self._track.acked_bytes = offset
        self._show(offset)

    async def _append(self, url: str, offset: int, length: int) -> int:
        def count(position: int) -> None:
            self._show(position)

        async with aclosing(_blocks(self._path, offset, length, count)) as blocks:
            return await self._pusher.store.append(url, offset, blocks, length)

    async def _learn(self, url: str, sent_from: int, length: int, error: StoreUnreachable) -> int:
        """After a PATCH broke: the store's offset. The client may have lost an early answer, so small requests ask.

        Raises what they are answered, which is the real reason; the uplink then waits or gives up.
        """
        offset = await self._pusher.store.offset(url)
        if offset > sent_from:
            self._shrunk(self._pusher.patch.cut(length, offset - sent_from))
        else:
            self._shrunk(self._pusher.patch.refused(length))
            self._stall(error)
            await self._register()  # idempotent; says where the store is full, or will not take it after all
        return offset

    def _shrunk(self, smaller: bool) -> None:
        if smaller:
            _log.info("patch_shrunk", store=self._pusher.store.store, patch_bytes=self._pusher.patch.bytes)

    async def _find_out(self, delivery: Delivery, error: UploadLost) -> Delivery:
        """The store does not know the upload: it may be finished, and only without a confirmation is it begun anew."""
        try:
            return await self._pusher.confirmer.confirm(self._name)
        except UploadCorrupt as corrupt:
            await self._compare_with_seal(corrupt)
        except (UploadLost, StoreIncomplete):
            self._stall(error)
            if delivery.state is not DeliveryState.WAITING:
                _log.warning("upload_reopened", acquisition=self._name, store=delivery.store, reason=str(error))
                return await self._advance(DeliveryEvent.REOPENED, str(error), upload_url=None, objects=None)
        return delivery

    async def _rescue(self, delivery: Delivery, damaged: SpoolSpoiled) -> Delivery:
        """The spool file is lost or cut. Raises that, unless the store has all of it and confirms it."""
        if delivery.state not in (DeliveryState.REGISTERED, DeliveryState.FINISHED):
            raise damaged
        try:
            return await self._pusher.confirmer.confirm(self._name)
        except (StoreIncomplete, UploadLost):
            raise damaged from None

    async def _compare_with_seal(self, error: UploadCorrupt) -> None:
        """The store got other bytes than were sealed: find out which side is wrong, before sending all of it again."""
        if self._compared:
            raise StoreUnreachable("the sealed file is sound, but arrives changed: look at the network") from error
        digest = await asyncio.to_thread(_digest, self._path)
        if digest != self._sealed.sealed_digest:
            raise SpoolSpoiled(
                f"the spool file of {self._row.acquisition} is no longer what was sealed: its disk may be failing"
            ) from error
        self._compared = True
        # The store dropped the bytes itself and said so: going back to its offset is no loss on its side.
        self._track.acked_bytes = 0
        _log.warning("upload_arrived_changed", acquisition=self._row.acquisition)

    def _show(self, position: int) -> None:
        self._track.sent_bytes = position
        self._pusher.on_progress(self._row.acquisition, self._track)

    def _stall(self, error: StoreError) -> None:
        """Count an answer that brought the upload no further; too many in a row are the uplink's to wait out."""
        self._stalls += 1
        if self._stalls > MAX_STALLS or not self._pusher.may_retry():
            raise StoreUnreachable(f"the upload does not get on: {error}") from error


async def _blocks(path: Path, offset: int, length: int, sent: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """The sealed file's bytes. Raises SpoolSpoiled where they are gone, SpoolFull where the disk is away."""
    end = offset + length
    try:
        file = await _opened(path)
        try:
            await file.seek(offset)
            while offset < end:
                block = await file.read(min(BLOCK_BYTES, end - offset))
                if not block:
                    raise SpoolSpoiled(f"the spool file {path.name} ends at {offset} bytes: it was cut")
                yield block
                offset += len(block)
                sent(offset)
        finally:
            await _close(file)
    except OSError as error:
        raise unreadable(path, error) from error


async def _opened(path: Path) -> AsyncFileIO:
    """Open for reading. After cancellation nothing stays open, although the thread may have opened it by then."""

    async def open_it() -> AsyncFileIO:
        return await aiofiles.open(path, "rb", buffering=0)

    opening = asyncio.create_task(open_it())
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        if opening.exception() is None:
            await _close(opening.result())
        raise


async def _close(file: AsyncFileIO) -> None:
    """Close, also when cancelled meanwhile: a close that still waits for its thread would otherwise be dropped."""
    closing = asyncio.create_task(file.close())
    try:
        await asyncio.shield(closing)
    finally:
        await asyncio.wait([closing])


def _check_length(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if found != size:
        raise SpoolSpoiled(f"the spool file {path.name} has {found} bytes, not the {size} that were sealed")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


async def part_digests(spool: Spool, acquisition: AcquisitionId, part_bytes: int) -> list[bytes]:
    """SHA-256 of each so many bytes of the sealed file. Raises SpoolSpoiled, SpoolFull where the disk is away."""
    path = spool.path(acquisition)
    try:
        return await asyncio.to_thread(_part_digests, path, part_bytes)
    except OSError as error:
        raise unreadable(path, error) from error


def _part_digests(path: Path, part_bytes: int) -> list[bytes]:
    digests: list[bytes] = []
    with path.open("rb") as file:
        left = path.stat().st_size
        while left > 0:
            digest, end = hashlib.sha256(), max(0, left - part_bytes)
            while left > end:
                block = file.read(min(BLOCK_BYTES, left - end))
                if not block:
                    return digests  # it was cut meanwhile: too few parts
                digest.update(block)
                left -= len(block)
            digests.append(digest.digest())
    return digests


def unreadable(path: Path, error: OSError) -> SpoolSpoiled | SpoolFull:
    """A file that is gone or whose blocks cannot be read is lost; a spool that is away, or not ours to read, is not."""
    if error.errno == errno.EIO or (error.errno == errno.ENOENT and (path.parent / "incoming").is_dir()):
        return SpoolSpoiled(f"the spool file {path.name} cannot be read ({error.strerror})")
    return SpoolFull(f"the spool cannot be used: {error.strerror}")
