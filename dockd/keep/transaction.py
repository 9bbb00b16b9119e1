"""The changes that a journal transaction can make. Each that means something writes its custody entry with it."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from dockd.core.canonical import encode_path
from dockd.core.delivery import next_event
from dockd.core.lifecycle import (
    ACQUISITION,
    DELIVERY,
    DOCKING,
    AcquisitionEvent,
    AcquisitionState,
    DeliveryEvent,
    DeliveryState,
    DockingEvent,
    following,
)
from dockd.errors import IllegalTransition
from dockd.keep.deliveries import Delivery, delivery_columns
from dockd.keep.outlets import OutletChanges
from dockd.keep.records import (
    DockingRecord,
    EnrolmentRecord,
    acquisition_columns,
    docking_columns,
    microseconds,
    noted_columns,
)
from dockd.model import (
    Acquisition,
    AcquisitionId,
    BayNumber,
    CameraIdentity,
    Category,
    Digest,
    DockingId,
    Epoch,
    ListedFile,
    Role,
    SignedBytes,
    StoreId,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dockd.core.policy import StorePolicy

_NO_DETAILS: Mapping[str, Any] = {}


class Tx(OutletChanges):
    """One transaction of the journal, alive only while the function it was handed to runs.

    Whatever raises in that function, all of its changes are undone, and the error passes to the caller of `write`.
    """

    # --- enrolments

    def enrol(self, kind: str, name: str, *, operator: str, reason: str) -> EnrolmentRecord:
        """Let a camera (`serial`), or every camera of a `profile`, be docked; a camera as it is from now on."""
        self._check_writable()
        since = int(self.get("epoch") or 0)
        at = self._clock.now()
        self._connection.execute(
            "INSERT OR REPLACE INTO enrolment VALUES (?, ?, ?, ?, ?, ?)",
            (kind, name, operator, reason, microseconds(at), since),
        )
        self._record_enrolment("camera.enrolled", kind, name, operator, reason)
        return EnrolmentRecord(
            kind=kind, name=name, operator=operator, reason=reason, enrolled_at=at, since_epoch=Epoch(since)
        )

    def forget(self, kind: str, name: str, *, operator: str, reason: str) -> bool:
        """Take an enrolment back; what it admitted stays until it is taken out. False where there was none."""
        self._check_writable()
        done = self._connection.execute("DELETE FROM enrolment WHERE kind = ? AND name = ?", (kind, name))
        if not done.rowcount:
            return False
        self._record_enrolment("camera.forgotten", kind, name, operator, reason)
        return True

    def _record_enrolment(self, event: str, kind: str, name: str, operator: str, reason: str) -> None:
        said = {"operator": operator, "reason": reason}
        if kind == "serial":
            self.record(event, camera=name, details=said)
        else:
            self.record(event, details=said | {"profile": name})

    # --- dockings

    def next_epoch(self) -> Epoch:
        """A new epoch: higher than any that this journal ever gave out."""
        epoch = Epoch(int(self.get("epoch") or 0) + 1)
        self.put("epoch", str(epoch))
        return epoch

    def begin_docking(  # noqa: PLR0917  what a docking is made of
        self,
        docking: DockingId,
        epoch: Epoch,
        bay: BayNumber,
        device: str,
        camera: CameraIdentity | None,
        event: DockingEvent,
        details: Mapping[str, Any] = _NO_DETAILS,
    ) -> DockingRecord:
        """Begin a docking, admitted or refused."""
        record = DockingRecord(
            docking=docking,
            epoch=epoch,
            bay=bay,
            device=device,
            state=following(DOCKING, None, event),
            begun_at=self._clock.now(),
            camera=camera,
        )
        self._insert("docking", docking_columns(record))
        known = {} if camera is None else dataclasses.asdict(camera)
        known.pop("serial", None)  # the entry's own "camera"
        # A folder's name need not be text: percent-encoded it always is.
        known |= {"epoch": int(epoch), "device": encode_path(os.fsencode(device))}
        self._record_docking(record, event, known | dict(details))
        return record

    def advance_docking(
        self, docking: DockingId, event: DockingEvent, details: Mapping[str, Any] = _NO_DETAILS
    ) -> DockingRecord:
        """Move a docking on. Raises IllegalTransition, changing nothing, where its state does not allow the event."""
        before = self.docking(docking)
        if before is None:
            raise IllegalTransition(f"no docking {docking}")
        after = dataclasses.replace(before, state=following(DOCKING, before.state, event))
        self._check_writable()
        self._connection.execute("UPDATE docking SET state = ? WHERE docking = ?", (after.state.value, docking))
        self._record_docking(after, event, details)
        return after

    def restore_docking(self, record: DockingRecord) -> None:
        """Put back the row of a docking that a lost journal knew; its entries stand in the log of that journal."""
        self._insert("docking", docking_columns(record))

    def restore(
        self, acquisition: Acquisition, manifest: SignedBytes, nonce: bytes, details: Mapping[str, Any]
    ) -> None:
        """Put back an acquisition of a lost journal, as its signed manifest has it."""
        self._insert("acquisition", acquisition_columns(acquisition))
        self.put_manifest(acquisition.acquisition, manifest, nonce)
        self._record_acquisition(acquisition, "restored", details)

    def note_file(self, docking: DockingId, listed: ListedFile) -> None:
        """Remember a file of the listing that is no acquisition. Again for the same path: replaces."""
        self._insert("noted_file", noted_columns(docking, listed), replace=True)

    def clear_files(self, docking: DockingId) -> None:
        """Forget the docking's noted files, before a new listing."""
        self._check_writable()
        self._connection.execute("DELETE FROM noted_file WHERE docking = ?", (docking,))

    # --- acquisitions

    def add_acquisition(self, acquisition: Acquisition, details: Mapping[str, Any] = _NO_DETAILS) -> Acquisition:
        """Add a clip that was found on a camera; the entry says where, how long and from when it is."""
        if acquisition.state != AcquisitionState.FOUND:
            raise IllegalTransition(f"an acquisition begins as found, not as {acquisition.state}")
        self._insert("acquisition", acquisition_columns(acquisition))
        known = {
            "path": encode_path(acquisition.file.path),
            "size_bytes": acquisition.file.size_bytes,
            "mtime_ns": str(acquisition.file.mtime_ns),  # beyond 2^53: as text
            "category": acquisition.category.value,
            "volume_id": acquisition.camera.volume_id,
        }
        if acquisition.profile:
            known |= {"role": acquisition.role.value, "profile": f"{acquisition.profile} {acquisition.profile_version}"}
        self._record_acquisition(acquisition, "found", known | dict(details))
        return acquisition

    def advance(
        self,
        acquisition: AcquisitionId,
        event: AcquisitionEvent,
        *,
        details: Mapping[str, Any] = _NO_DETAILS,
        **changes: Any,
    ) -> Acquisition:
        """Move an acquisition on and set columns, by their names in model.Acquisition; returns the new record.

        Raises IllegalTransition, changing nothing, where its state does not allow the event; TypeError for an
        unknown column.
        """
        before = self.acquisition(acquisition)
        if before is None:
            raise IllegalTransition(f"no acquisition {acquisition}")
        if not changes.keys().isdisjoint(_FIXED):
            raise TypeError(f"these follow from the event or never change: {sorted(changes.keys() & _FIXED)}")
        state = following(ACQUISITION, AcquisitionState(before.state), event)
        after = dataclasses.replace(before, state=state, **changes)
        self._update_acquisition(before, after)
        self._record_acquisition(after, event.value, details)
        return after

    def pair(self, sidecar: AcquisitionId, clip: Acquisition) -> Acquisition:
        """Note which clip a sidecar belongs to: the two are erased together. What is evidence makes the other so."""
        before = self.acquisition(sidecar)
        if before is None or before.role is not Role.SIDECAR:
            raise IllegalTransition(f"{sidecar} is no sidecar")
        after = dataclasses.replace(before, of=clip.acquisition)
        if before.sealed is None and clip.category is Category.EVIDENCE and before.category is Category.NONE:
            after = dataclasses.replace(
                after, category=clip.category, category_reason=f"its clip is: {clip.category_reason}"
            )
        self._update_acquisition(before, after)
        self._record_acquisition(after, "paired", {"of": clip.acquisition, "category": after.category.value})
        return after

    def put_manifest(self, acquisition: AcquisitionId, manifest: SignedBytes, nonce: bytes) -> None:
        """Keep a signed manifest's exact bytes. A second one for the same acquisition is refused."""
        self._insert(
            "manifest",
            {
                "acquisition": acquisition,
                "payload": manifest.payload,
                "signature": manifest.signature,
                "nonce": nonce,
            },
        )

    # --- deliveries

    def deliver(
        self,
        acquisition: AcquisitionId,
        store: StoreId,
        event: DeliveryEvent,
        policy: StorePolicy,
        *,
        details: Mapping[str, Any] = _NO_DETAILS,
        **changes: Any,
    ) -> tuple[Delivery, Acquisition]:
        """Move a delivery on, and the acquisition behind it as far as the policy says; returns both.

        Raises IllegalTransition, changing nothing, where the delivery's state does not allow the event, or where there
        is none.
        """
        before, row = self.delivery(acquisition, store), self.acquisition(acquisition)
        if before is None or row is None:
            raise IllegalTransition(f"acquisition {acquisition} has no delivery to store {store}")
        state = following(DELIVERY, before.state, event)
        after = dataclasses.replace(before, state=state, changed_at=self._clock.now(), **changes)
        columns = delivery_columns(after)
        self._check_writable()
        self._connection.execute(
            f"UPDATE delivery SET {', '.join(f'{name} = ?' for name in columns)} WHERE acquisition = ? AND store = ?",  # noqa: S608  names from deliveries.py
            (*columns.values(), acquisition, store),
        )
        self.record_about(row, f"delivery.{event.value}", {"store": store} | dict(details))
        return after, self.follow(acquisition, policy, reason=str(details.get("reason", "")))

    def follow(self, acquisition: AcquisitionId, policy: StorePolicy, *, reason: str = "") -> Acquisition:
        """Let an acquisition follow its deliveries as far as the policy says; returns it. Idempotent."""
        row = self.acquisition(acquisition)
        if row is None:
            raise IllegalTransition(f"no acquisition {acquisition}")
        deliveries = self.deliveries(acquisition)
        states = {one.store: one.state for one in deliveries}
        while event := next_event(AcquisitionState(row.state), states, policy):
            changes: dict[str, Any] = {}
            details: dict[str, Any] = {"reason": reason} if reason else {}
            if event is AcquisitionEvent.STORED:
                details = {
                    "policy": policy.sentence(),
                    "confirmations": [
                        {"store": one.store, "confirmation": one.confirmation_digest}
                        for one in deliveries
                        if one.state is DeliveryState.CONFIRMED
                    ],
                }
            elif event is AcquisitionEvent.QUARANTINED:
                given_up = "; ".join(f"{policy.name(one.store)}: {one.reason}" for one in deliveries if one.reason)
                changes = {"quarantine_reason": given_up}
                details = {"reason": given_up, "policy": policy.sentence()}
            row = self.advance(acquisition, event, details=details, **changes)
        return row

    def forget_upload(self, acquisition: AcquisitionId, store: StoreId) -> None:
        """An upload that nobody goes on with was given up at its store. Idempotent."""
        self._check_writable()
        done = self._connection.execute(
            "UPDATE delivery SET upload_url = NULL WHERE acquisition = ? AND store = ? AND upload_url IS NOT NULL",
            (acquisition, store),
        )
        row = self.acquisition(acquisition)
        if done.rowcount and row is not None:
            self.record_about(row, "delivery.abandoned", {"store": store})

    def try_again(
        self, acquisition: AcquisitionId, policy: StorePolicy, details: Mapping[str, Any], **changes: Any
    ) -> Acquisition:
        """An operator's word that it is to be pushed once more, also to stores that refused it; sets `changes`."""
        for one in self.deliveries(acquisition):
            if one.state is DeliveryState.GIVEN_UP:
                self.deliver(acquisition, one.store, DeliveryEvent.PUSH_AGAIN, policy, details=details, reason=None)
        row = self.acquisition(acquisition)
        if row is not None and row.state in (AcquisitionState.QUARANTINED, AcquisitionState.SPOILED):
            self.advance(acquisition, AcquisitionEvent.PUSH_AGAIN, details=details, **changes)
        return self.follow(acquisition, policy)

    def put_twin(self, acquisition: AcquisitionId, store: StoreId, manifest: SignedBytes) -> None:
        """Keep another station's manifest of the same clip, in place of an earlier one.

        Raises IllegalTransition where the store has signed for this acquisition, so that its word may rest on that one.
        """
        kept = self.twin(acquisition, store)
        if kept is not None and kept != manifest and self.receipt(acquisition, store) is not None:
            raise IllegalTransition(f"the receipt for {acquisition} may rest on another station's object")
        row = {"acquisition": acquisition, "store": store}
        self._insert("twin", row | {"payload": manifest.payload, "signature": manifest.signature}, replace=True)

    def put_receipt(
        self, acquisition: AcquisitionId, store: StoreId, receipt: SignedBytes, receipt_seq: int, digest: Digest
    ) -> None:
        """Keep a verified receipt. Idempotent for the same bytes; raises IllegalTransition for other ones."""
        kept = self.receipt(acquisition, store)
        if kept is not None:
            if kept.payload != receipt.payload:
                raise IllegalTransition(f"acquisition {acquisition} has another receipt of store {store} already")
            return
        self._insert(
            "receipt",
            {
                "store": store,
                "receipt_seq": receipt_seq,
                "acquisition": acquisition,
                "payload": receipt.payload,
                "signature": receipt.signature,
                "digest": digest,
            },
        )

    def put_extension(self, acquisition: AcquisitionId, store: StoreId, number: int, signed: SignedBytes) -> bool:
        """Keep a verified extension. Idempotent for the same bytes: whether it is new; IllegalTransition for others."""
        kept = self.extensions(acquisition, store)[number - 1 : number]
        if kept:
            if kept[0].payload != signed.payload:
                raise IllegalTransition(f"acquisition {acquisition} has another extension {number} of store {store}")
            return False
        row = {"acquisition": acquisition, "store": store, "n": number}
        self._insert("extension", row | {"payload": signed.payload, "signature": signed.signature})
        return True

    def withdraw_receipt(self, acquisition: AcquisitionId, store: StoreId) -> tuple[int, SignedBytes]:
        """Give up a receipt that the store does not stand by any more; returns its number and its bytes, once more.

        The caller records them. Raises IllegalTransition where there is none.
        """
        self._check_writable()
        row = self._one("SELECT * FROM receipt WHERE acquisition = ? AND store = ?", acquisition, store)
        if row is None:
            raise IllegalTransition(f"acquisition {acquisition} has no receipt of store {store}")
        for table in ("receipt", "extension"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE acquisition = ? AND store = ?",  # noqa: S608  constants
                (acquisition, store),
            )
        return int(row["receipt_seq"]), SignedBytes(payload=row["payload"], signature=row["signature"])

    # --- how

    def _update_acquisition(self, before: Acquisition, after: Acquisition) -> None:
        self._check_writable()
        old = acquisition_columns(before)
        # Only what differs: an index that has none of these columns is left alone.
        columns = {name: value for name, value in acquisition_columns(after).items() if value != old[name]}
        if columns:
            self._connection.execute(
                f"UPDATE acquisition SET {', '.join(f'{name} = ?' for name in columns)} WHERE acquisition = ?",  # noqa: S608  names from records.py
                (*columns.values(), after.acquisition),
            )

    def _record_acquisition(self, record: Acquisition, event: str, details: Mapping[str, Any]) -> None:
        self.record_about(record, f"acquisition.{event}", details)

    def _record_docking(self, record: DockingRecord, event: DockingEvent, details: Mapping[str, Any]) -> None:
        self.record(
            f"docking.{event.value}",
            bay=record.bay,
            docking=record.docking,
            camera=None if record.camera is None else record.camera.serial,
            details=details,
        )


_FIXED = frozenset({"acquisition", "state", "camera", "found_at"})
