"""What is announced, taken over and signed for: manifests in, receipts and holding statements out."""

from __future__ import annotations

import asyncio
import base64
import shutil
import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from dockd.core import canonical, manifest, receipts, sshsig
from dockd.core.challenge import Range
from dockd.core.manifest import Manifest
from dockd.core.merkle import EMPTY_ROOT
from dockd.core.retention import Promise
from dockd.core.sealing import sealed_size
from dockd.errors import VerificationFailed
from dockd.faultpoints import Point
from dockd.model import Clock, Digest, Entropy, SignedBytes, StationId
from dockd.receiver import rows, scrub_rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.layout import Layout
from dockd.receiver.look import Gone, look, look_at_manifest
from dockd.receiver.part import HeaderWrong, check_header, hash_ranges, read_prefix
from dockd.receiver.places import keep_signed, take_over, take_over_shared
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.promising import Promising
from dockd.receiver.rows import Announced, Given, Share
from dockd.receiver.sessions import Caller
from dockd.receiver.settings import ReceiverSettings
from dockd.receiver.uploads import Uploads, disk_full, share_full

_log = structlog.get_logger()
_UPLOAD_BYTES = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """In bytes: what is free on the disk, and what one station may have in unfinished uploads."""

    free: int
    share: int


class Vault:
    """All acquisitions of one receiver."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        layout: Layout,
        settings: ReceiverSettings,
        uploads: Uploads,
        promising: Promising,
        clock: Clock,
        random: Entropy,
    ) -> None:
        self._catalogue = catalogue
        self._layout = layout
        self._settings = settings
        self._uploads = uploads
        self._promising = promising
        self._clock = clock
        self._random = random

    async def find(self, station: StationId, acquisition: str) -> Announced:
        """A station's acquisition. Raises Problem NOT_FOUND, also for another station's."""
        found = await self._catalogue.run(lambda db: rows.announced(db, station, acquisition))
        if found is None:
            raise Problem(Kind.NOT_FOUND, "no such acquisition: announce it with PUT first")
        return found

    async def announce(self, caller: Caller, acquisition: str, signed: SignedBytes) -> tuple[Announced, bool]:
        """Take a manifest; everything that can be refused is refused here. Returns whether it is new. Idempotent."""
        stated = self._read(caller, acquisition, signed)
        room = await asyncio.to_thread(self._room)
        one = Announced(
            station=caller.station,
            acquisition=stated.acquisition,
            upload=base64.urlsafe_b64encode(self._random(_UPLOAD_BYTES)).decode(),
            state=rows.OPEN,
            manifest=signed,
            manifest_digest=canonical.digest(signed.payload),
            sealed_digest=stated.sealed_digest,
            size_bytes=stated.sealed_size_bytes,
            stanzas=len(stated.recipients),
            durable_bytes=0,
            expires_at=self._clock.now() + self._settings.expiry(0),
            announced_at=self._clock.now(),
        )

        def add(db: sqlite3.Connection) -> tuple[Announced, bool]:
            known = rows.announced(db, one.station, acquisition)
            if known is not None and known.manifest_digest == one.manifest_digest:
                return known, False
            if known is not None or rows.has_ciphertext(db, one.sealed_digest):
                raise Problem(
                    Kind.CONFLICT,
                    "this id, or this sealed clip, was announced with another manifest: what was announced first "
                    "stands; a person has to find out why there are two",
                )
            self._require_room(db, room, one)
            rows.add_announced(db, one, stated)
            return one, True

        found, new = await self._catalogue.run(add, Point.ANNOUNCED_ROW)
        return (await self._reopen_lost(found, room) if found.state == rows.STORED else found), new

    async def receipt(self, caller: Caller, acquisition: str, manifest_digest: str) -> SignedBytes:
        """The receipt for a complete acquisition: given once, the same for ever, whatever a later session accepts."""
        station = caller.station
        one = await self.find(station, acquisition)
        if one.manifest_digest != manifest_digest:
            raise Problem(Kind.OTHER_MANIFEST, "another manifest was announced for this acquisition: compare the two")
        if one.state != rows.STORED:
            async with self._uploads.hold(one.upload):
                one = await self.find(station, acquisition)  # as it is now that nobody else changes it
                if one.state == rows.OPEN:
                    one = await self._check_complete(one)
                if one.state == rows.VERIFIED:
                    await self._put_away(one)
        given = await self._given(one, ruled=caller.knows_rules("receipt"))
        # Durable as files too before anyone is told; after a crash in between the next asking comes here again.
        place = self._layout.stored(one.station, one.acquisition).receipt
        await asyncio.to_thread(keep_signed, place, given.signed, self._layout.faults)
        return given.signed

    async def ranges(
        self, station: StationId, acquisition: str, nonce: bytes, wanted: tuple[Range, ...]
    ) -> tuple[bytes, ...]:
        """Digests of ranges of the object, read from it now."""
        one, _ = await self._signed_for(station, acquisition)
        held = await self._held_well(one)
        if any(piece.offset + piece.length > held.size_bytes for piece in wanted):
            raise Problem(Kind.MALFORMED, f"a range ends beyond the sealed clip, which has {held.size_bytes} bytes")
        stored = self._layout.stored(held.station, held.acquisition)
        try:
            return await asyncio.to_thread(hash_ranges, stored.clip, nonce, wanted)
        except OSError as error:
            raise _lost(one, error) from error

    async def extension(self, station: StationId, acquisition: str, receipt: Digest, after: int) -> SignedBytes:
        """The extension number `after` + 1 of a receipt, after looking at the object. Idempotent.

        Raises Problem PROMISE_OVER or NOT_LONGER where no more is promised.
        """
        one, given = await self._signed_for(station, acquisition)
        if given.digest != receipt:
            raise Problem(Kind.NOT_FOUND, "another receipt was given for this acquisition")
        await self._require_held(one)
        signed = await self._promising.extension(one, given, after)
        place = self._layout.stored(one.station, one.acquisition).extension(after + 1)
        await asyncio.to_thread(keep_signed, place, signed, self._layout.faults)
        return signed

    async def holding(self, caller: Caller, acquisition: str, nonce: bytes) -> SignedBytes:
        """A fresh statement that the object is here now, after looking."""
        one, given = await self._signed_for(caller.station, acquisition)
        held = await self._require_held(one)
        now = self._promising.now()
        said = await self._promising.holding(one, given, now, ruled=caller.knows_rules("holding"))
        payload = receipts.build_holding(
            store=self._settings.store,
            signed_manifest=one.manifest.payload,
            nonce=nonce,
            at=now,
            retention_until=said,
            other=None if held == one else held.manifest.payload,
        )
        return SignedBytes(payload=payload, signature=sshsig.sign(self._settings.key, sshsig.HOLDING, payload))

    async def _require_held(self, one: Announced) -> Announced:
        """Whose object it is, after a look at it. Raises Problem OBJECT_LOST."""
        held = await self._held_well(one)
        try:
            await asyncio.to_thread(self._look, one, held)
        except OSError as error:
            raise _lost(one, error) from error
        return held

    async def _held(self, one: Announced) -> Announced:
        """Whose object an acquisition's clip is: its own, or another station's."""
        share = await self._catalogue.run(lambda db: rows.share(db, one))
        return share.holder if share else one

    async def _held_well(self, one: Announced) -> Announced:
        """The same. Raises Problem OBJECT_LOST where a look proved it lost: its length alone may be right."""
        held = await self._held(one)
        if await self._is_lost(held):
            raise _lost(one, OSError("it was read again, and is not what was signed for"))
        return held

    async def _is_lost(self, held: Announced) -> bool:
        return await self._catalogue.run(lambda db: scrub_rows.is_lost(db, held.station, held.acquisition))

    async def _signed_for(self, station: StationId, acquisition: str) -> tuple[Announced, Given]:
        """What a receipt was given for. Raises Problem INCOMPLETE, OBJECT_LOST or NOT_FOUND."""
        one = await self.find(station, acquisition)
        given = await self._catalogue.run(lambda db: rows.receipt(db, one.station, one.acquisition))
        if given is None:
            raise _incomplete(one)
        if one.state != rows.STORED:
            raise _lost(one, FileNotFoundError("it was lost, and has not been sent again to the end"))
        return one, given

    # --- announcing

    def _read(self, caller: Caller, acquisition: str, signed: SignedBytes) -> Manifest:
        try:
            sshsig.verify(caller.public.manifest_key, sshsig.MANIFEST, signed.payload, signed.signature)
        except VerificationFailed as error:
            raise Problem(
                Kind.SIGNATURE_REFUSED, f"{error}: sign the manifest with the key that is enrolled here"
            ) from error
        try:
            stated = manifest.decode(signed.payload)
        except VerificationFailed as error:
            raise Problem(Kind.MALFORMED, f"the manifest cannot be read: {error}") from error
        if stated.station != caller.station:
            raise Problem(Kind.OTHER_STATION, "only the station that made a manifest may announce it")
        if stated.acquisition != acquisition:
            raise Problem(Kind.MANIFEST_MISMATCH, f"the manifest is of acquisition {stated.acquisition}: PUT it there")
        self._check_recipients(stated)
        if stated.sealed_size_bytes != sealed_size(stated.plaintext_size_bytes, len(stated.recipients)):
            raise Problem(
                Kind.MANIFEST_MISMATCH,
                "the sealed size does not follow from the plaintext's size and the number of recipients: seal again",
            )
        if stated.sealed_size_bytes > self._settings.max_clip_bytes:
            raise Problem(
                Kind.TOO_LARGE,
                "the clip is larger than this store takes: its operators can raise accept.max_clip_bytes",
            )
        return stated

    def _check_recipients(self, stated: Manifest) -> None:
        distinct = set(stated.recipients)
        if len(distinct) != len(stated.recipients) or len(distinct) < self._settings.min_stanzas:
            raise Problem(
                Kind.RECIPIENT_REFUSED,
                f"clips have to be sealed to at least {self._settings.min_stanzas} different recipients: correct the "
                "station's recipients file",
            )
        if unknown := sorted(distinct - self._settings.allowed_recipients):
            raise Problem(
                Kind.RECIPIENT_REFUSED,
                f"recipient {unknown[0]} is not one that this store accepts: compare the station's recipients file "
                "with the store's",
            )

    def _room(self) -> _Room:
        usage = shutil.disk_usage(self._layout.root)
        return _Room(free=usage.free, share=self._settings.station_share(usage.total))

    def _require_room(self, db: sqlite3.Connection, room: _Room, one: Announced) -> None:
        if room.free - rows.outstanding_bytes(db) - self._settings.reserve_bytes < one.size_bytes:
            raise disk_full(f"there is no room for another {one.size_bytes} bytes")
        count, unfinished = rows.unfinished(db, one.station)
        if count >= self._settings.station_unfinished:
            raise share_full(f"this station has {count} unfinished uploads here, as many as it may have")
        if unfinished + one.size_bytes > room.share:
            raise share_full(
                f"this station has {unfinished} bytes in unfinished uploads here; with another {one.size_bytes} it "
                f"would have more than its {room.share}"
            )

    async def _reopen_lost(self, one: Announced, room: _Room) -> Announced:
        """Take the bytes anew of what was signed for and is provably gone; its receipt stands. Else change nothing."""
        async with self._uploads.hold(one.upload):
            one = await self.find(one.station, one.acquisition)  # as it is now that nobody else changes it
            if one.state != rows.STORED:
                return one
            held = await self._held(one)
            try:
                if await self._is_lost(held):
                    raise Gone("it was read again, and is not what was signed for", what="changed")  # noqa: TRY301
                await asyncio.to_thread(self._look, one, held)
            except Gone as error:
                _log.critical("object_sent_again", station=one.station, acquisition=one.acquisition, error=str(error))
            except OSError as error:
                _log.critical("object_lost", station=one.station, acquisition=one.acquisition, error=str(error))
                return one
            else:
                return one
            expires_at = self._clock.now() + self._settings.expiry(0)

            def reopen(db: sqlite3.Connection) -> None:
                self._require_room(db, room, one)
                if held != one:
                    rows.drop_share(db, one, expires_at)
                else:
                    rows.reopen(db, one.upload, expires_at)

            await self._catalogue.run(reopen, Point.ANNOUNCED_ROW)
            return replace(one, state=rows.OPEN, durable_bytes=0, expires_at=expires_at)

    # --- storing

    async def _put_away(self, one: Announced) -> None:
        """Put what is verified where nothing unfinished is: the clip, or what says that another's object is it.

        Raises Problem OBJECT_LOST where the other's object is not there any more: the clip itself has to be sent then.
        """
        share = await self._catalogue.run(lambda db: rows.share(db, one))
        if share is None:
            await asyncio.to_thread(take_over, self._layout, one)
            return
        held = share.holder
        try:
            place = self._layout.stored(held.station, held.acquisition)
            await asyncio.to_thread(look, place, held, rehash=self._settings.holding_rehash)
        except OSError as error:  # nothing was signed yet, so whatever it is, nothing has to rest on it
            expires_at = self._clock.now() + self._settings.expiry(0)
            await self._catalogue.run(lambda db: rows.drop_share(db, one, expires_at), Point.SHARED_ROW)
            raise _lost(held, error) from error
        await asyncio.to_thread(take_over_shared, self._layout, one)

    async def _check_complete(self, one: Announced) -> Announced:
        """Move a complete upload to VERIFIED. Raises Problem INCOMPLETE; drops bytes that are not the manifest's."""
        if one.durable_bytes < one.size_bytes:
            raise _incomplete(one)
        path = self._layout.upload(one.upload)
        try:
            digest = "sha256:" + await self._uploads.digest(one)
            whole = check_header(await asyncio.to_thread(read_prefix, path), one.stanzas)
        except HeaderWrong as error:
            await self._uploads.start_over(one)
            raise Problem(Kind.HEADER_REFUSED, f"{error}. Nothing was kept; seal and announce it again") from error
        if digest != one.sealed_digest or not whole:
            _log.warning("upload_digest_wrong", station=one.station, acquisition=one.acquisition, found=digest)
            await self._uploads.start_over(one)
            raise Problem(
                Kind.DIGEST_MISMATCH,
                f"the bytes that arrived have the digest {digest}, the manifest says {one.sealed_digest}: all was "
                "dropped; look at the sealed file, then send it again from 0",
                offset=0,
            )
        # From here on nobody may write to it, remove it or let it expire.
        await self._catalogue.run(lambda db: rows.set_state(db, one.upload, rows.VERIFIED), Point.VERIFIED_ROW)
        return replace(one, state=rows.VERIFIED)

    async def _given(self, one: Announced, *, ruled: bool) -> Given:
        settings, now = self._settings, self._promising.now()

        def give(db: sqlite3.Connection) -> Given:
            given = rows.receipt(db, one.station, one.acquisition)
            if given is not None:
                if rows.settle(db, one.upload):  # it was sent again
                    scrub_rows.begin_again(db, one.station, one.acquisition, now)
                return given
            last, witnessed = rows.last_receipt(db, one.station), rows.cosigned(db, one.station)
            share = rows.share(db, one)
            receipt_seq = last.receipt_seq + 1 if last else 1
            said = self._promising.of_receipt(one, now, ruled=ruled, other=_kept_until(db, share, now))
            payload = receipts.build_receipt(
                store=settings.store,
                signed_manifest=one.manifest.payload,
                receipt_seq=receipt_seq,
                previous=last.digest if last else receipts.NO_PREVIOUS,
                witnessed_size=witnessed.size if witnessed else 0,
                witnessed_root=witnessed.root if witnessed else EMPTY_ROOT,
                at=now,
                retention_until=said,
                other=(share.holder.manifest.payload, share.shown) if share else None,
            )
            given = Given(
                receipt_seq=receipt_seq,
                signed=SignedBytes(payload=payload, signature=sshsig.sign(settings.key, sshsig.RECEIPT, payload)),
                digest=canonical.digest(payload),
                retention_until=said.keep_until if isinstance(said, Promise) else said,
            )
            # Number and chain become the station's history with this commit, whether or not the answer arrives.
            rows.add_receipt(db, one, given)
            scrub_rows.begin_again(db, one.station, one.acquisition, now)
            self._promising.keep(db, one, now, said)
            _log.info("receipt_given", station=one.station, acquisition=one.acquisition, receipt_seq=receipt_seq)
            return given

        return await self._catalogue.run(give, Point.RECEIPT_ROW)

    def _look(self, one: Announced, held: Announced) -> None:
        look(self._layout.stored(held.station, held.acquisition), held, rehash=self._settings.holding_rehash)
        if held != one:
            look_at_manifest(self._layout.stored(one.station, one.acquisition), one)


def _kept_until(db: sqlite3.Connection, share: Share | None, now: datetime) -> datetime:
    """Until when the other's object has to be kept anyway."""
    given = rows.receipt(db, share.holder.station, share.holder.acquisition) if share else None
    return given.retention_until if given else now


def _incomplete(one: Announced) -> Problem:
    return Problem(
        Kind.INCOMPLETE,
        f"{one.size_bytes - one.durable_bytes} of {one.size_bytes} bytes are missing, or it was never asked for its "
        f"receipt: PATCH from offset {one.durable_bytes}, then ask for the receipt",
        offset=one.durable_bytes,
    )


def _lost(one: Announced, error: OSError) -> Problem:
    _log.critical("object_lost", station=one.station, acquisition=one.acquisition, error=str(error))
    return Problem(
        Kind.OBJECT_LOST,
        "the object is no longer as it was signed for: erase nothing, and call the store's operators",
    )
