"""A small world around dockd's own rules: cameras, a station, two stores, all in memory; the rules are the real ones.

One store signs, the other keeps objects. What a station decides is decided by `core.lifecycle`, `core.delivery`,
`core.receipts`, `core.confirmation`, `core.policy` and `core.warrant`. The world only does what those allow, and what
accidents, operators and dishonest stores may do. `check` holds it against the promises.
"""

from __future__ import annotations

import copy
import dataclasses
import uuid
from datetime import UTC, datetime, timedelta

from property.station_twins import OTHER, Twins
from property.station_world import STATION, Camera, File, Kept, Stay, Store, as_found, digest, make_manifest

from dockd.core import canonical, receipts, releases, sshsig, warrant
from dockd.core.confirmation import OwnSums, VerifiedObjects, parse_objects, still_there, verify_objects
from dockd.core.delivery import next_event
from dockd.core.findings import Answer, Finding, Question
from dockd.core.lifecycle import (
    ACQUISITION,
    DELIVERY,
    AcquisitionEvent,
    AcquisitionState,
    DeliveryEvent,
    DeliveryState,
    following,
)
from dockd.core.manifest import Manifest, encode
from dockd.core.objects import Algorithm, Checksum, ObjectState, Piece
from dockd.core.policy import EraseWhen, PolicyStore, StorePolicy
from dockd.core.proof import weigh
from dockd.core.sshsig import SigningKey
from dockd.errors import VerificationFailed, WarrantRefused
from dockd.model import (
    Acquisition,
    CacheState,
    CameraIdentity,
    Category,
    FoundFile,
    Reread,
    Sealed,
    SignedBytes,
    Verdict,
    VerdictStatus,
)

A, E = AcquisitionState, AcquisitionEvent
D, V = DeliveryState, DeliveryEvent
STORE, CLOUD = str(uuid.UUID(int=2)), "cloud"
STORE_KEY, FORGER_KEY = SigningKey.generate(), SigningKey.generate()
MIN_RETENTION = timedelta(days=31)
ARCHIVE = PolicyStore(store=STORE, name="archive", min_retention=MIN_RETENTION, trust_stations=frozenset({OTHER}))
KEEPER = PolicyStore(store=CLOUD, name="cloud", min_retention=MIN_RETENTION)
POLICIES = {
    "one store": StorePolicy([ARCHIVE]),
    "all": StorePolicy([ARCHIVE, KEEPER]),
    "any": StorePolicy([ARCHIVE, KEEPER], EraseWhen.ANY),
    "one that does not count": StorePolicy([ARCHIVE, dataclasses.replace(KEEPER, final=False)]),
    "one that stands in": StorePolicy([ARCHIVE, dataclasses.replace(KEEPER, fallback_for=STORE)]),
}
OTHER_SIZE = 7
SIGNATURE = "a signature that nobody looks at here"
SENDABLE = (A.SPOOLED, A.UPLOADING, A.STORED, A.WARRANTED, A.ERASED)
HOLDING_MINUTES = 5
PROVEN = tuple(Finding(question=one, answer=Answer.YES, claimed=None, detail="tried") for one in Question)


class World(Twins):
    """Everything. Each method is something that may happen; it returns whether it came to pass."""

    archive = STORE

    def __init__(self, cameras: int, policy: StorePolicy) -> None:
        super().__init__()
        self.policy = policy
        self.deliveries: dict[str, dict[str, DeliveryState]] = {}
        self.cloud: dict[str, Kept] = {}  # what the store has that keeps objects
        self.kept_objects: dict[str, bytes] = {}  # what the journal has of its confirmations
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.cameras = [
            Camera(CameraIdentity(serial=f"C{number}", model="M", volume_id=f"V{number}")) for number in range(cameras)
        ]
        self.store, self.backup = Store(), Store()
        self.rows: dict[str, Acquisition] = {}
        self.manifests: dict[str, Manifest] = {}
        self.kept_receipts: dict[str, SignedBytes] = {}
        self.last_receipt: receipts.VerifiedReceipt | None = None
        self.log: list[tuple[str, AcquisitionEvent | None]] = []
        self.durable = 0
        self.mirror_works = True
        self.spool: dict[str, int] = {}  # acquisition to the content that was sealed
        self.stays: dict[int, Stay] = {}
        self.alarm = False
        self.lied = False  # the store lost or forged something: what is then missing is its doing
        self.seen_receipts: list[SignedBytes] = []
        self.seen_holdings: list[SignedBytes] = []
        self.recorded: dict[int, str] = {}  # content to what became of it by other hands than dockd's
        self.erased: list[tuple[int, bool]] = []  # content, and whether enough stores had it whole at that instant
        self.wronged: list[str] = []  # what promise P01 forbids, as the world saw it at the instant of erasing
        self._count = 0

    # --- outside

    def record(self, camera: Camera, name: int, *, damaged: bool) -> bool:
        """The camera records a clip, over another one of that name where there is one."""
        path = b"DCIM/%d.MP4" % name
        self._lose(camera, path, "overwritten")
        content = self._number()
        camera.files[path] = File(content, 100 + content, content, content, damaged)
        self.recorded[content] = ""
        return True

    def grow(self, camera: Camera, path: bytes) -> bool:
        """A file changes in place; sizes may repeat, change times do not."""
        file = camera.files[path]
        self.recorded[file.content] = "changed"
        file.content, file.size, file.mtime = self._number(), OTHER_SIZE, self._count
        self.recorded[file.content] = ""
        return True

    def tamper(self, camera: Camera, path: bytes) -> bool:
        """Other bytes, but the same size and time of change; only the change time that nobody can set tells."""
        file = camera.files[path]
        self.recorded[file.content] = "changed"
        file.content = self._number()
        self.recorded[file.content] = ""
        return True

    def remove(self, camera: Camera, path: bytes) -> bool:
        self._lose(camera, path, "deleted")
        return True

    def dock(self, camera: Camera, bay: int) -> bool:
        if camera.bay is not None or any(other.bay == bay for other in self.cameras):
            return False
        camera.bay = bay
        return True

    def undock(self, camera: Camera) -> bool:
        self.stays.pop(camera.bay or 0, None)
        camera.bay = None
        self._abandon_reads()
        return True

    def exchange(self, one: Camera, other: Camera) -> bool:
        """Two cards change cameras: each serial now answers with the other's files and file system."""
        if one.bay is not None or other.bay is not None:
            return False
        one.files, other.files = other.files, one.files
        ids = one.identity.volume_id, other.identity.volume_id
        one.identity = dataclasses.replace(one.identity, volume_id=ids[1])
        other.identity = dataclasses.replace(other.identity, volume_id=ids[0])
        return True

    def power_cut(self) -> bool:
        """The station's memory is gone; journal, spool and custody log are as they were."""
        self.stays.clear()
        self.mirror_works = True
        self.durable = len(self.log)  # the next start makes the mirror whole before anything else
        self._abandon_reads()
        return True

    def stall_mirror(self) -> bool:
        self.mirror_works = False
        return True

    def jump(self, hours: int) -> bool:
        self.now += timedelta(hours=hours)
        return True

    # --- the station

    def admit(self, bay: int) -> bool:
        camera = next((one for one in self.cameras if one.bay == bay), None)
        if camera is None or bay in self.stays:
            return False
        epoch = self._number()
        self.stays[bay] = Stay(str(uuid.UUID(int=epoch)), epoch, camera)
        return True

    def list(self, bay: int) -> bool:
        """As stages.listing does it."""
        stay = self.stays[bay]
        seen = set()
        for path, file in stay.camera.files.items():
            found = as_found(path, file)
            row = self._known(stay, found)
            if row is None:
                row = self._find(bay, stay, found)
            elif row.docking != stay.docking or row.file != found:
                if row.state == A.WARRANTED:
                    row = self._advance(row, E.LAPSED)
                row = self._advance(row, E.SEEN_AGAIN, docking=stay.docking, bay=bay, file=found)
            seen.add(row.acquisition)
        for row in list(self.rows.values()):
            if row.camera != stay.camera.identity or row.acquisition in seen:
                continue
            if row.state == A.FOUND:
                self._advance(row, E.DEPARTED, docking=stay.docking)
            elif row.state == A.WARRANTED and row.docking != stay.docking:
                self._advance(row, E.ERASED, docking=stay.docking)
        stay.listed = True
        return True

    def acquire(self, row: Acquisition, *, cut: bool) -> bool:
        stay, file = self._at(row)
        if file is None:
            return False
        row = self._advance(row, E.READ_STARTED, attempts=row.attempts + 1)
        if cut:
            self._advance(row, E.READ_ABANDONED)
            return True
        verdict = VerdictStatus.DAMAGED if file.damaged else VerdictStatus.INTACT
        sealed = Sealed(
            file=row.file,
            plaintext_digest=digest("plain", file.content),
            plaintext_size_bytes=file.size,
            sealed_digest=digest("sealed", row.acquisition, file.content),
            sealed_size_bytes=file.size + 200,
            verdict=Verdict(status=verdict, container="mp4", reasons=("cut",) if file.damaged else ()),
            recipients=("sha256:" + "1" * 64,),
        )
        manifest = make_manifest(row, sealed, stay, len(self.log))
        self.spool[row.acquisition] = file.content
        self.deliveries[row.acquisition] = dict.fromkeys(self._outlets(), D.WAITING)
        self.manifests[row.acquisition] = manifest
        self._advance(
            row,
            E.SEALED,
            sealed=sealed,
            custody_seq=len(self.log),
            manifest_digest=canonical.digest(encode(manifest)),
        )
        return True

    def reread(self, row: Acquisition) -> bool:
        stay, file = self._at(row)
        if file is None or row.sealed is None:
            return False
        again = Reread(
            docking=stay.docking,
            file=row.file,
            plaintext_digest=digest("plain", file.content),
            cache=CacheState.DIRECT,
        )
        if again.plaintext_digest == row.sealed.plaintext_digest:
            self._advance(row, E.REREAD, reread=again)
            stay.evidence[row.acquisition] = (row.file, file.content)
        else:
            self._advance(row, E.CONTESTED, contested=True)
        return True

    def push(self, row: Acquisition, *, whole: bool, answered: bool) -> bool:
        """Register and send; `answered`: whether the station hears of it."""
        if row.acquisition not in self.spool or row.state not in (A.SPOOLED, A.UPLOADING):
            return False
        stated = encode(self.manifests[row.acquisition])
        kept = self.store.kept.setdefault(row.acquisition, Kept(stated, self.spool[row.acquisition]))
        kept.whole = kept.whole or whole
        if answered and self.deliveries[row.acquisition][STORE] is D.WAITING:
            self._deliver(row, STORE, V.REGISTERED)
        return True

    def put(self, row: Acquisition, *, whole: bool, answered: bool) -> bool:
        """The same to the store that keeps objects: it may get a clip that is stored, or erased, as well."""
        if row.acquisition not in self.spool or row.state not in SENDABLE or CLOUD not in self._outlets():
            return False
        stated = encode(self.manifests[row.acquisition])
        kept = self.cloud.setdefault(row.acquisition, Kept(stated, self.spool[row.acquisition]))
        kept.whole = kept.whole or whole
        if answered and self.deliveries[row.acquisition][CLOUD] is D.WAITING:
            self._deliver(row, CLOUD, V.REGISTERED)
        if answered and kept.whole and self.deliveries[row.acquisition][CLOUD] is D.REGISTERED:
            self._deliver(self.rows[row.acquisition], CLOUD, V.FINISHED)
        return True

    def look(self, row: Acquisition) -> bool:
        """The station compares the objects with its own. As stages.confirm_objects does it."""
        if self.deliveries.get(row.acquisition, {}).get(CLOUD) is not D.FINISHED:
            return False
        states = self.states(row.acquisition)
        until = [state.retention_until for state in states.values()]
        if not states or min(until) - self.now < MIN_RETENTION:
            return False
        manifest = self._signed(row.acquisition)
        own = {
            Piece.SEALED: OwnSums(size_bytes=row.sealed.sealed_size_bytes, digest=row.sealed.sealed_digest),
            Piece.MANIFEST: _sums(manifest.payload),
            Piece.SIGNATURE: _sums(manifest.signature.encode()),
        }
        given = {"store": CLOUD, "station": STATION, "manifest": manifest, "at": self.now}
        try:
            found = verify_objects(states, own=own, read_back={}, **given)
        except VerificationFailed:
            return False
        self.kept_objects[row.acquisition] = found.payload
        self._deliver(row, CLOUD, V.CONFIRMED)
        return True

    def states(self, acquisition: str) -> dict[Piece, ObjectState]:
        """What the store that keeps objects says of them: it computes honestly over what it has."""
        kept = self.cloud.get(acquisition)
        if kept is None or not kept.whole:
            return {}
        stated = self.manifests[acquisition]
        bytes_of = {Piece.MANIFEST: kept.manifest, Piece.SIGNATURE: SIGNATURE.encode()}
        sizes = {piece: len(content) for piece, content in bytes_of.items()} | {Piece.SEALED: stated.sealed_size_bytes}
        digests = {piece: canonical.digest(content) for piece, content in bytes_of.items()}
        digests[Piece.SEALED] = digest("sealed", acquisition, kept.content)
        return {
            piece: ObjectState(
                size_bytes=sizes[piece],
                version=str(kept.content),
                checksum=Checksum(algorithm=Algorithm.SHA256, digest=bytes.fromhex(found.removeprefix("sha256:"))),
                retention_until=self.now + self.store.retention,
            )
            for piece, found in digests.items()
        }

    def swap_object(self, row: Acquisition) -> bool:
        """Somebody puts other bytes under the name at the store that keeps objects, or removes them."""
        kept = self.cloud.get(row.acquisition)
        if kept is None:
            return False
        self.lied = True
        if kept.content % 2:
            del self.cloud[row.acquisition]
        else:
            kept.content = self._number()
        return True

    def sign(self, acquisition: str) -> SignedBytes | None:
        """The store signs for what it has, once; asked again, it gives the same."""
        kept = self.store.kept.get(acquisition)
        if self.held(kept) is None:
            return None
        if kept.receipt is None:
            self.store.seq += 1
            kept.receipt = self._receipt(
                kept.manifest, self.store.seq, self.store.last, other=self.others_manifest(kept)
            )
            self.store.last = canonical.digest(kept.receipt.payload)
            self.seen_receipts.append(kept.receipt)
        return kept.receipt

    def accept(self, row: Acquisition, signed: SignedBytes) -> bool:
        """The station is handed a receipt for one of its clips. As stages.confirm does it."""
        delivery = self.deliveries.get(row.acquisition, {}).get(STORE)
        if delivery not in (D.REGISTERED, D.FINISHED):
            return False
        try:
            receipt = receipts.verify_receipt(
                signed,
                store_key=STORE_KEY.public,
                store=STORE,
                station=STATION,
                manifest=encode(self.manifests[row.acquisition]),
            )
            if self.kept_receipts.get(row.acquisition) != signed:  # what was kept before stands in its place already
                receipts.check_succession(self.last_receipt, receipt)
        except VerificationFailed:
            self.alarm = True
            return False
        if self.kept_receipts.get(row.acquisition) != signed:
            self.last_receipt = receipt
        self.kept_receipts[row.acquisition] = signed
        if receipt.kept_until - receipt.at < MIN_RETENTION:
            return False
        twin, shared = self.twin(row.acquisition), receipt.shared
        if shared is None and delivery is D.FINISHED:
            return False  # it would have to show bytes that were never sent
        if shared and not (twin and twin.is_meant(shared, receipt.sealed_digest, receipt.sealed_size_bytes)):
            return False
        self._deliver(row, STORE, V.CONFIRMED)
        return True

    def hold(self, row: Acquisition, nonce: bytes) -> SignedBytes | None:
        """The store's word that it holds a clip now."""
        kept = self.store.kept.get(row.acquisition)
        if self.held(kept) is None:
            return None
        payload = receipts.build_holding(
            store=STORE,
            signed_manifest=kept.manifest,
            nonce=nonce,
            at=self.now,
            retention_until=self.now + self.store.retention,
            other=self.others_manifest(kept),
        )
        signed = SignedBytes(payload=payload, signature=sshsig.sign(STORE_KEY, sshsig.HOLDING, payload))
        self.seen_holdings.append(signed)
        return signed

    def sanitise(self, row: Acquisition, signed: SignedBytes | None, nonce: bytes, *, waited: int, cut: str) -> bool:
        """Warrant and erase. `cut`: where the power fails: "before", "after" or, not at all, ""."""
        stay = self.stays.get(row.bay)
        if stay is None or row.reread is None:
            return False
        manifest = self.manifests[row.acquisition]
        try:
            issued = warrant.issue(
                acquisition=row,
                manifest=manifest,
                confirmations=[
                    *self._said_by_archive(row, signed, nonce, waited),
                    *self._seen_at_cloud(row, waited),
                ],
                policy=self.policy,
                reread=row.reread,
                docking=stay.docking,
                epoch=stay.epoch,
                camera_now=stay.camera.identity,
                custody_durable_size=self.durable,
                now=self.now,
            )
        except (VerificationFailed, WarrantRefused):
            return False
        if self.alarm:
            return False
        wrong = self._what_is_wrong(stay, row, waited)
        row = self._advance(row, E.WARRANTED)
        if cut != "before":
            self._erase(stay, row, issued, wrong)
        if cut:
            return self.power_cut()
        if stay.camera.files.get(row.file.path) is None:
            self._advance(row, E.ERASED)
        else:
            self._advance(row, E.LAPSED)
        return True

    def decide(self, row: Acquisition, decision: str) -> bool:
        """An operator's decision as station.operations takes it, or a refusal of the store."""
        match decision:
            case "release" if row.state == A.STORED and not row.contested:
                seen = releases.grounds(row.sealed.verdict.status, row.file.size_bytes, "")
                self._advance(row, E.RELEASED, released_by="pat", released_for=seen)
            case "retry" if row.state == A.QUARANTINED and row.sealed is None:
                self._advance(row, E.READ_AGAIN)
            case "retry" if row.state == A.QUARANTINED:
                self._try_again(row)
            case "quarantine":
                self._advance(row, E.QUARANTINED)
            case "reopen" | "retract" | "refuse" if row.state != A.WARRANTED:
                event = {"reopen": V.REOPENED, "retract": V.RETRACTED, "refuse": V.REFUSED}[decision]
                for store, state in list(self.deliveries.get(row.acquisition, {}).items()):
                    if (state, event) in DELIVERY:
                        self._deliver(self.rows[row.acquisition], store, event)
            case _:
                return False
        return True

    def is_on_its_camera(self, row: Acquisition) -> bool:
        """Whether the very file that was read is where it was read."""
        (camera,) = (one for one in self.cameras if one.identity.volume_id == row.camera.volume_id)
        file = camera.files.get(row.file.path)
        return file is not None and as_found(row.file.path, file) == row.file

    def nonce(self) -> bytes:
        """One that was never used, as 32 random bytes are."""
        return self._number().to_bytes(32, "big")

    # --- how

    def _what_is_wrong(self, stay: Stay, row: Acquisition, waited: int) -> list[str]:
        """Why a clip must not be erased now, whatever the stores say, found without the warrant's code."""
        found = {
            "the stores' word is old": waited > HOLDING_MINUTES,
            "the log is not durable": row.custody_seq is None or row.custody_seq >= self.durable,
            "it is another camera": stay.camera.identity != row.camera,
            "its reads disagree": row.contested,
            "it was not stored": row.state != A.STORED,
        }
        return [f"{row.acquisition}: {why}" for why, so in found.items() if so]

    def _erase(self, stay: Stay, row: Acquisition, issued: warrant.EraseWarrant, wrong: list[str]) -> None:
        """As the reader does it: only what it read a second time itself, and what is still that very file."""
        file = stay.camera.files.get(issued.file.path)
        evidence = stay.evidence.get(row.acquisition)
        if file is None or evidence != (issued.file, file.content) or as_found(issued.file.path, file) != issued.file:
            return  # the reader compares the change time, of which the content stands here
        self.wronged += wrong
        places = {STORE: self.store.kept.get(row.acquisition), CLOUD: self.cloud.get(row.acquisition)}
        holders = [one for one, kept in places.items() if self.held(kept) == file.content]
        self.erased.append((file.content, self.policy.satisfied(holders)))
        del stay.camera.files[issued.file.path]

    def _advance(self, row: Acquisition, event: AcquisitionEvent, **changes: object) -> Acquisition:
        """One journal transaction: the state and its custody entry, or neither."""
        state = following(ACQUISITION, AcquisitionState(row.state), event)
        row = dataclasses.replace(row, state=state, **changes)
        self.rows[row.acquisition] = row
        self._log(row.acquisition, event)
        return row

    def _deliver(self, row: Acquisition, store: str, event: DeliveryEvent) -> Acquisition:
        """The delivery, and the acquisition behind it; as keep.transaction does it."""
        deliveries = self.deliveries[row.acquisition]
        deliveries[store] = following(DELIVERY, deliveries[store], event)
        return self._follow(row)

    def _follow(self, row: Acquisition) -> Acquisition:
        deliveries = self.deliveries[row.acquisition]
        while event := next_event(AcquisitionState(row.state), deliveries, self.policy):
            row = self._advance(row, event)
        return row

    def _try_again(self, row: Acquisition) -> None:
        deliveries = self.deliveries[row.acquisition]
        for store, state in deliveries.items():
            if state is D.GIVEN_UP:
                deliveries[store] = following(DELIVERY, state, V.PUSH_AGAIN)
        self._follow(self._advance(row, E.PUSH_AGAIN))

    def _outlets(self) -> list[str]:
        return [one.store for one in self.policy.stores]

    def _signed(self, acquisition: str) -> SignedBytes:
        return SignedBytes(payload=encode(self.manifests[acquisition]), signature=SIGNATURE)

    def _said_by_archive(
        self, row: Acquisition, signed: SignedBytes | None, nonce: bytes, waited: int
    ) -> list[warrant.SignedConfirmation]:
        receipt, stated = self.kept_receipts.get(row.acquisition), encode(self.manifests[row.acquisition])
        who = {"store_key": STORE_KEY.public, "store": STORE, "station": STATION}
        if receipt is None or signed is None or self.deliveries[row.acquisition][STORE] is not D.CONFIRMED:
            return []
        return [
            warrant.SignedConfirmation(
                receipt=receipts.verify_receipt(receipt, manifest=stated, **who),
                holding=receipts.verify_holding(signed, manifest=stated, nonce=nonce, **who),
                asked_at=self.now - timedelta(minutes=waited),
                twin=self.twin(row.acquisition),
            )
        ]

    def _seen_at_cloud(self, row: Acquisition, waited: int) -> list[warrant.ObjectConfirmation]:
        if self.deliveries[row.acquisition].get(CLOUD) is not D.CONFIRMED:
            return []
        given = {"store": CLOUD, "station": STATION, "manifest": self._signed(row.acquisition)}
        found: VerifiedObjects = parse_objects(self.kept_objects[row.acquisition], **given)
        asked_at = self.now - timedelta(minutes=waited)
        try:
            states = self.states(row.acquisition)
            shown = {piece: one.size_bytes for piece, one in states.items()}
            verdict = weigh(None, PROVEN, signs=False)
            presence = still_there(found, states, verdict=verdict, shown=shown, at=self.now)
        except VerificationFailed:
            return []
        return [warrant.ObjectConfirmation(objects=found, presence=presence, asked_at=asked_at, findings=PROVEN)]

    def _log(self, acquisition: str, event: AcquisitionEvent | None) -> None:
        self.log.append((acquisition, event))
        if self.mirror_works:
            self.durable = len(self.log)

    def _known(self, stay: Stay, found: FoundFile) -> Acquisition | None:
        who = stay.camera.identity
        same = [
            row
            for row in self.rows.values()
            if (row.camera.serial, row.camera.volume_id) == (who.serial, who.volume_id)
            and (row.file.path, row.file.size_bytes, row.file.mtime_ns)
            == (found.path, found.size_bytes, found.mtime_ns)
            and row.state != A.ERASED
            and not row.contested
        ]
        return same[-1] if same else None

    def _find(self, bay: int, stay: Stay, found: FoundFile) -> Acquisition:
        row = Acquisition(
            acquisition=str(uuid.UUID(int=(0x019 << 116) | (7 << 76) | (2 << 62) | self._number())),
            state=A.FOUND,
            docking=stay.docking,
            bay=bay,
            camera=stay.camera.identity,
            file=found,
            category=Category.NONE,
            category_reason="",
            found_at=self.now,
        )
        self.rows[row.acquisition] = row
        self._log(row.acquisition, None)
        return row

    def _at(self, row: Acquisition) -> tuple[Stay | None, File | None]:
        """The stay that a row belongs to, and its file as it is now, where it is still that file."""
        stay = self.stays.get(row.bay)
        if stay is None or stay.docking != row.docking or not stay.listed:
            return None, None
        file = stay.camera.files.get(row.file.path)
        return (stay, file) if file and as_found(row.file.path, file) == row.file else (stay, None)

    def _abandon_reads(self) -> None:
        for row in self.rows.values():
            if row.state == A.ACQUIRING:
                self._advance(row, E.READ_ABANDONED)

    def _lose(self, camera: Camera, path: bytes, how: str) -> None:
        gone = camera.files.pop(path, None)
        if gone:
            self.recorded[gone.content] = how

    def _receipt(
        self, stated: bytes, seq: int, previous: str, key: SigningKey = STORE_KEY, *, other: bytes | None = None
    ) -> SignedBytes:
        payload = receipts.build_receipt(
            store=STORE,
            signed_manifest=stated,
            receipt_seq=seq,
            previous=previous,
            witnessed_size=0,
            witnessed_root=bytes(32),
            at=self.now,
            retention_until=self.now + self.store.retention,
            other=None if other is None else (other, bytes(32)),
        )
        return SignedBytes(payload=payload, signature=sshsig.sign(key, sshsig.RECEIPT, payload))

    def forge(self, row: Acquisition, *, key: SigningKey = FORGER_KEY) -> SignedBytes:
        """A receipt for a clip that nobody holds."""
        seq = self.last_receipt.receipt_seq + 1 if self.last_receipt else 1
        previous = self.last_receipt.payload_digest if self.last_receipt else receipts.NO_PREVIOUS
        return self._receipt(encode(self.manifests[row.acquisition]), seq, previous, key)

    def roll_back(self) -> bool:
        """The store is restored from its backup."""
        self.lied = self.lied or self.backup.seq != self.store.seq
        self.store = copy.deepcopy(self.backup)
        return True

    def _number(self) -> int:
        self._count += 1
        return self._count


def _sums(content: bytes) -> OwnSums:
    return OwnSums(size_bytes=len(content), digest=canonical.digest(content))
