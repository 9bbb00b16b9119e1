"""An evidence store in memory: the receiver's rules without a network, for tests and trials. It signs real receipts.

Faults are ordered beforehand: `fail` before anything was done, `lose` the answer after it was, `cut` a PATCH short,
`corrupt` its bytes, `forget` or `truncate` what was acknowledged.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from dockd.core import canonical, checkpoint, merkle, sshsig
from dockd.core.challenge import Range, range_digest
from dockd.core.keyfiles import StationPublic
from dockd.core.losses import PAGE, Looking, ToldLoss, build_losses
from dockd.core.manifest import Manifest, decode
from dockd.core.retention import Terms
from dockd.core.transfer import Call
from dockd.core.twins import differences
from dockd.errors import (
    ObjectLost,
    OffsetConflict,
    StoreError,
    StoreIncomplete,
    StoreRefused,
    StoreUnreachable,
    StoreUntrusted,
    UploadCorrupt,
    UploadLost,
    VerificationFailed,
)
from dockd.model import AcquisitionId, Clock, Digest, SignedBytes, StationId, StoreId
from dockd.stores.memory_words import Words
from dockd.stores.port import Witnessed


@dataclass(slots=True, kw_only=True)
class Kept:
    """One announced acquisition, as the store has it."""

    manifest: SignedBytes
    decoded: Manifest
    content: bytearray = field(default_factory=bytearray)
    receipt: SignedBytes | None = None
    extensions: list[SignedBytes] = field(default_factory=list)
    reopened: bool = False  # what was signed for is gone, and taken again
    other: Kept | None = None  # another station's, whose object stands for this one

    @property
    def held(self) -> Kept:
        """Whose bytes they are."""
        return self.other or self

    @property
    def whole(self) -> bool:
        """Whether it is what was announced."""
        return _digest(self.content) == self.decoded.sealed_digest

    @property
    def offset(self) -> int:
        """How many bytes are here."""
        return self.decoded.sealed_size_bytes if self.other else len(self.content)


class MemoryStore:
    """EvidenceStore for one station. What it holds can be looked at: `kept`, `calls`.

    With `categories` it has a policy, which `mend` changes, and signs statements of version 3; without it is a store of
    before there were policies, and promises `retention` from now with every statement.
    """

    def __init__(
        self,
        *,
        store: StoreId,
        key: sshsig.SigningKey,
        station: StationPublic,
        clock: Clock,
        retention: timedelta = timedelta(days=365),
        categories: Mapping[str, Terms] | None = None,
    ) -> None:
        self._store = store
        self._key = key
        self._station = station
        self._clock = clock
        self._words = Words(store=store, key=key, clock=clock, retention=retention, categories=categories)
        self.kept: dict[AcquisitionId, Kept] = {}
        self.lodged: list[Kept] = []  # by other stations, which this one may know of
        self.calls: list[tuple[Call, str]] = []
        self._uploads: dict[str, AcquisitionId] = {}
        self._made = 0
        self._receipts: list[SignedBytes] = []
        self._witnessed = (0, merkle.EMPTY_ROOT)
        self._failing: dict[Call, deque[StoreError]] = {call: deque() for call in Call}
        self._losing: dict[Call, int] = dict.fromkeys(Call, 0)
        self._cuts: deque[int] = deque()
        self._corrupting = 0
        self.looks = True  # an older one knows of no such question
        self.lost: dict[AcquisitionId, str] = {}
        self.page = PAGE

    @property
    def retention(self) -> timedelta:
        """What a store without a policy promises from now."""
        return self._words.retention

    @retention.setter
    def retention(self, retention: timedelta) -> None:
        self._words.retention = retention

    def mend(self, categories: Mapping[str, Terms]) -> None:
        """The store's people change its policy; of a store that had none, it is updated to one that has."""
        self._words.mend(categories)

    def lodge(self, manifest: SignedBytes, content: bytes) -> Kept:
        """Another station has brought this, and was given its receipt."""
        kept = Kept(manifest=manifest, decoded=decode(manifest.payload), content=bytearray(content))
        self.lodged.append(kept)
        return kept

    # --- faults

    def fail(self, call: Call, *errors: StoreError) -> None:
        """The next calls of this kind raise these, one each, before they do anything."""
        self._failing[call].extend(errors)

    def lose(self, call: Call, count: int = 1) -> None:
        """The next calls of this kind do all they should, and their answer is lost."""
        self._losing[call] += count

    def cut(self, *kept_bytes: int) -> None:
        """The next PATCHes break after so many bytes, which are kept."""
        self._cuts.extend(kept_bytes)

    def corrupt(self, count: int = 1) -> None:
        """The first byte of the next PATCHes is turned over."""
        self._corrupting += count

    def truncate(self, acquisition: AcquisitionId, size_bytes: int) -> None:
        """Lose acknowledged bytes."""
        del self.kept[acquisition].content[size_bytes:]

    def forget(self, acquisition: AcquisitionId) -> None:
        """Lose an acquisition altogether."""
        del self.kept[acquisition]
        self._uploads = {url: one for url, one in self._uploads.items() if one != acquisition}

    def roll_back_receipts(self, count: int) -> None:
        """Forget the newest receipts, as a store restored from a backup does."""
        for signed in self._receipts[len(self._receipts) - count :]:
            for kept in self.kept.values():
                if kept.receipt == signed:
                    kept.receipt = None
        del self._receipts[len(self._receipts) - count :]

    def accept_log(self) -> None:
        """The store's people accept that the station's log begins anew."""
        self._witnessed = (0, merkle.EMPTY_ROOT)

    # --- the port

    @property
    def store(self) -> StoreId:
        """The id."""
        return self._store

    @property
    def key(self) -> sshsig.PublicKey:
        """The public key that receipts verify against."""
        return self._key.public

    async def register(self, acquisition: AcquisitionId, manifest: SignedBytes, sealed_size_bytes: int) -> str:
        """As the port says."""
        self._begin(Call.REGISTER, acquisition)
        try:
            sshsig.verify(self._station.manifest_key, sshsig.MANIFEST, manifest.payload, manifest.signature)
            decoded = decode(manifest.payload)
        except VerificationFailed as error:
            raise StoreRefused(f"the manifest does not verify: {error}", status=400) from error
        named = (decoded.acquisition, decoded.station, decoded.sealed_size_bytes)
        if named != (acquisition, self._station.station, sealed_size_bytes):
            raise StoreRefused("the manifest is of another acquisition, station or size", status=403)
        for one, kept in self.kept.items():
            same = one == acquisition or kept.decoded.sealed_digest == decoded.sealed_digest
            if same and kept.manifest.payload != manifest.payload:
                raise StoreRefused("the same id or ciphertext has another manifest", status=409)
        if acquisition not in self.kept:
            self.kept[acquisition] = Kept(manifest=manifest, decoded=decoded)
            self._made += 1
            self._uploads[f"/uploads/{self._made}"] = acquisition
        elif (known := self.kept[acquisition]).receipt is not None and not known.reopened and not known.held.whole:
            known.content.clear()
            known.reopened, known.other = True, None
        self._end(Call.REGISTER)
        return next(url for url, one in self._uploads.items() if one == acquisition)

    async def offset(self, upload_url: str) -> int:
        """As the port says."""
        self._begin(Call.OFFSET, upload_url)
        offset = self._find(upload_url).offset
        self._end(Call.OFFSET)
        return offset

    def stretch(self, upload_url: str, offset: int, wanted_bytes: int) -> int:
        """As the port says: any length will do."""
        del upload_url, offset
        return wanted_bytes

    async def append(self, upload_url: str, offset: int, blocks: AsyncIterator[bytes], length: int) -> int:
        """As the port says. Blocks that arrived before a cancellation are kept."""
        self._begin(Call.APPEND, upload_url)
        kept = self._find(upload_url)
        if kept.other is not None or (kept.receipt is not None and not kept.reopened):
            raise UploadLost("the upload is finished and takes no more bytes")
        if offset != len(kept.content):
            raise OffsetConflict(f"the upload stands at {len(kept.content)}, not at {offset}")
        if offset + length > kept.decoded.sealed_size_bytes:
            raise StoreRefused("more bytes than were announced", status=400)
        cut = self._cuts.popleft() if self._cuts else None
        flip, self._corrupting = self._corrupting > 0, max(0, self._corrupting - 1)
        async for block in blocks:
            arrived = bytes([block[0] ^ 1]) + block[1:] if flip else block
            flip = False
            kept.content += arrived
            if cut is not None and len(kept.content) - offset >= cut:
                del kept.content[offset + cut :]
                raise StoreUnreachable("the connection broke")
        self._end(Call.APPEND)
        return len(kept.content)

    async def twins(self, acquisition: AcquisitionId, stations: Collection[StationId]) -> tuple[SignedBytes, ...]:
        """As the port says."""
        self._begin(Call.TWINS, acquisition)
        own = self._announced(acquisition).decoded
        found = [one for one in self.lodged if one.decoded.station in stations and not differences(own, one.decoded)]
        self._end(Call.TWINS)
        return tuple(one.manifest for one in found)

    async def share(self, acquisition: AcquisitionId, manifest: Digest) -> None:
        """As the port says."""
        self._begin(Call.SHARE, acquisition)
        kept = self._announced(acquisition)
        found = [one for one in self.lodged if canonical.digest(one.manifest.payload) == manifest]
        if not found or differences(kept.decoded, found[0].decoded):
            raise UploadLost("there is nothing of that kind")
        if kept.other is not found[0]:
            if kept.other is not None or kept.receipt is not None:
                raise UploadLost("the clip has its bytes, or its receipt, already")
            if not found[0].whole:
                raise ObjectLost("the other station's object is not as it was signed for")
            kept.other = found[0]
            kept.content.clear()
        self._end(Call.SHARE)

    async def receipt(self, acquisition: AcquisitionId, manifest: SignedBytes) -> SignedBytes:
        """As the port says."""
        self._begin(Call.RECEIPT, acquisition)
        kept = self._announced(acquisition)
        if kept.receipt is None and kept.other is not None and not kept.other.whole:
            kept.other = None
            raise ObjectLost("the other station's object is not as it was signed for")
        if kept.manifest.payload != manifest.payload:
            raise StoreRefused("another manifest was announced", status=403)
        if kept.receipt is None:
            kept.receipt = self._sign_receipt(kept)
            self._receipts.append(kept.receipt)
        elif kept.reopened:
            self._require_whole(kept)
            kept.reopened = False
        self._end(Call.RECEIPT)
        return kept.receipt

    async def policy(self, *, anew: bool = False) -> SignedBytes | None:
        """As the port says."""
        self._begin(Call.SESSION, "anew" if anew else "")
        self._end(Call.SESSION)
        return self._words.policy

    async def extension(self, acquisition: AcquisitionId, receipt: Digest, after: int) -> SignedBytes:
        """As the port says."""
        self._begin(Call.EXTENSION, acquisition)
        kept = self._announced(acquisition)
        if kept.receipt is None or canonical.digest(kept.receipt.payload) != receipt:
            raise StoreIncomplete("no such receipt was given")
        if kept.reopened or not kept.held.whole:
            raise ObjectLost("the object is not what was signed for")
        if after > len(kept.extensions):
            raise UploadLost("so many extensions were never given")
        if after == len(kept.extensions):
            kept.extensions.append(self._words.extension(kept.decoded, promised=[kept.receipt, *kept.extensions]))
        self._end(Call.EXTENSION)
        return kept.extensions[after]

    async def ranges(self, acquisition: AcquisitionId, nonce: bytes, ranges: tuple[Range, ...]) -> tuple[bytes, ...]:
        """As the port says."""
        self._begin(Call.RANGES, acquisition)
        kept = self._announced(acquisition)
        if kept.receipt is None:
            raise StoreIncomplete("the acquisition is not finished")
        held = kept.held
        if kept.reopened or len(held.content) != held.decoded.sealed_size_bytes:
            raise ObjectLost("the object is not what was signed for")
        found = tuple(range_digest(nonce, bytes(held.content[one.offset : one.offset + one.length])) for one in ranges)
        self._end(Call.RANGES)
        return found

    async def holding(self, acquisition: AcquisitionId, nonce: bytes) -> SignedBytes:
        """As the port says."""
        self._begin(Call.HOLDING, acquisition)
        kept = self._announced(acquisition)
        if kept.receipt is None:
            raise StoreIncomplete("the acquisition is not finished")
        if kept.reopened or not kept.held.whole:
            raise ObjectLost("the object is not what was signed for")
        signed = self._sign_holding(kept, nonce)
        self._end(Call.HOLDING)
        return signed

    async def losses(self, nonce: bytes, after: str) -> SignedBytes:
        """As the port says. What it found lost is what `found_lost` said, until it is whole again."""
        self._begin(Call.LOSSES, after)
        if not self.looks:
            raise UploadLost("there is no such address")
        now = self._clock.now()
        self.lost = {name: what for name, what in self.lost.items() if not self._is_well(name)}
        signed_for = [one for one in self.kept.values() if one.receipt is not None]
        looking = Looking(
            objects=len(signed_for),
            looked=len(signed_for),
            oldest=now if signed_for else None,
            never=0,
            late=0,
            unread=0,
            losses=len(self.lost),
            every_s=86400,
        )
        beyond = sorted(name for name in self.lost if name > after)
        payload = build_losses(
            store=self._store,
            station=self._station.station,
            nonce=nonce,
            at=now,
            after=after,
            looking=looking,
            losses=[ToldLoss(acquisition=one, what=self.lost[one], found_at=now) for one in beyond[: self.page]],
            more=len(beyond) > self.page,
        )
        self._end(Call.LOSSES)
        return SignedBytes(payload=payload, signature=sshsig.sign(self._key, sshsig.LOSSES, payload))

    def found_lost(self, acquisition: AcquisitionId, what: str = "changed") -> None:
        """It looked, and the object is not what was signed for: from now on it is not."""
        self.kept[acquisition].held.content[-1] ^= 1
        self.lost[acquisition] = what

    def _is_well(self, acquisition: AcquisitionId) -> bool:
        kept = self.kept.get(acquisition)
        return kept is not None and not kept.reopened and kept.held.whole

    async def witness(self, note: bytes, old_size: int, proof: tuple[bytes, ...]) -> Witnessed:
        """As the port says."""
        self._begin(Call.WITNESS, str(old_size))
        size, root = self._witnessed
        if old_size != size:
            raise OffsetConflict(f"the newest checkpoint has {size} entries, not {old_size}")
        shown = self._parse(note)
        try:
            if size:
                merkle.verify_consistency(size, shown.size, root, shown.root, list(proof))
        except VerificationFailed as error:
            raise StoreUntrusted(f"the custody log forked: {error}") from error
        self._witnessed = (shown.size, shown.root)
        cosigned = checkpoint.cosign(note, self._key, f"dockd-store/{self._store}", self._clock.now())
        self._end(Call.WITNESS)
        return Witnessed(note=cosigned)

    async def witnessed_size(self) -> int:
        """As the port says."""
        self._begin(Call.WITNESS, "size")
        return self._witnessed[0]

    async def aclose(self) -> None:
        """As the port says."""

    # --- how

    def _begin(self, call: Call, what: str) -> None:
        self.calls.append((call, what))
        if self._failing[call]:
            raise self._failing[call].popleft()

    def _end(self, call: Call) -> None:
        if self._losing[call]:
            self._losing[call] -= 1
            raise StoreUnreachable("the answer was lost")

    def _require_whole(self, kept: Kept) -> None:
        missing = kept.decoded.sealed_size_bytes - len(kept.content)
        if missing:
            raise StoreIncomplete(f"{missing} bytes are missing")
        if not kept.whole:
            kept.content.clear()
            raise UploadCorrupt("what arrived has another digest than the manifest's")

    def _sign_receipt(self, kept: Kept) -> SignedBytes:
        other = (kept.other.manifest.payload, self.shown(kept)) if kept.other else None
        if other is None:
            self._require_whole(kept)
        return self._words.receipt(
            kept.manifest.payload, kept.decoded, before=self._receipts, witnessed=self._witnessed, other=other
        )

    @staticmethod
    def shown(kept: Kept) -> bytes:
        """What a receipt shows of another's object."""
        return range_digest(kept.decoded.nonce, bytes(kept.held.content))

    def _sign_holding(self, kept: Kept, nonce: bytes) -> SignedBytes:
        promised = [kept.receipt, *kept.extensions] if kept.receipt else []
        return self._words.holding(
            kept.manifest.payload,
            kept.decoded,
            promised=promised,
            nonce=nonce,
            other=kept.other.manifest.payload if kept.other else None,
        )

    def _parse(self, note: bytes) -> checkpoint.Checkpoint:
        origin = note.split(b"\n", 1)[0].decode(errors="replace")
        if not origin.startswith(f"dockd/{self._station.station}/"):
            raise StoreRefused("the checkpoint is of another log", status=403)
        try:
            return checkpoint.parse_and_verify(note, origin, self._station.checkpoint_key)
        except VerificationFailed as error:
            raise StoreUntrusted(f"the checkpoint does not verify: {error}") from error

    def _find(self, upload_url: str) -> Kept:
        acquisition = self._uploads.get(upload_url)
        if acquisition is None:
            raise UploadLost("no such upload")
        return self.kept[acquisition]

    def _announced(self, acquisition: AcquisitionId) -> Kept:
        if acquisition not in self.kept:
            raise UploadLost("no such acquisition")
        return self.kept[acquisition]


def _digest(content: bytes | bytearray) -> Digest:
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())
