"""A journal under test: a clock turned by hand, one key, and clips made up by number."""

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from dockd.core import ids
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState, DeliveryEvent, DockingEvent
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.sshsig import SigningKey
from dockd.keep.journal import Journal
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

STATION = str(uuid.UUID(int=0xD0C))
CAMERA = CameraIdentity(serial="CAM-1", model="Övre", volume_id="VOL-1", vendor="v", product="p")
START = datetime(2026, 3, 1, 6, 30, 0, 123456, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
STORE = str(uuid.UUID(int=0x5708E))
E = AcquisitionEvent
# Events that follow from a delivery, and what its store said then.
_DELIVERED = {
    E.REGISTERED: (DeliveryEvent.REGISTERED, {"upload_url": "https://store/uploads/x"}),
    E.STORED: (DeliveryEvent.CONFIRMED, {"confirmation_digest": DIGEST}),
}


class HandClock:
    def __init__(self):
        self.passed_s = 0.0

    def now(self):
        return START + timedelta(seconds=self.passed_s)

    def monotonic_s(self):
        return self.passed_s

    async def sleep(self, delay_s):
        self.passed_s += delay_s


class Kit:
    camera = CAMERA
    station = STATION
    digest = DIGEST
    store = STORE
    policy = StorePolicy([PolicyStore(store=STORE, name="archive")])

    def __init__(self, directory):
        self.directory = directory / "state"
        self.clock = HandClock()
        self.key = SigningKey.generate()
        self.journals = []

    async def open(self, **changes):
        wanted = {"station": STATION, "clock": self.clock, "checkpoint_key": self.key} | changes
        journal = await Journal.open(wanted.pop("directory", self.directory), **wanted)
        self.journals.append(journal)
        return journal

    async def close_all(self):
        for journal in self.journals:
            await journal.aclose()

    @property
    def mirror(self):
        return self.directory / "custody" / "custody.jsonl"

    @staticmethod
    def uuid(number, kind=0):
        return ids.uuid7(START + timedelta(milliseconds=number), bytes([kind]) * 10)

    def docking(self, number=1):
        return self.uuid(number, kind=9)

    def clip(self, number=1, *, docking=1, path=None, size_bytes=1000, **changes):
        return Acquisition(
            **{
                "acquisition": self.uuid(number),
                "state": AcquisitionState.FOUND,
                "docking": self.docking(docking),
                "bay": 1,
                "camera": CAMERA,
                "file": FoundFile(
                    path=path or b"DCIM/%06d.MP4" % number,
                    size_bytes=size_bytes,
                    mtime_ns=10**18 + number,
                    inode=number,
                ),
                "category": Category.NONE,
                "category_reason": "",
                "found_at": START + timedelta(milliseconds=number),
            }
            | changes
        )

    def begin(self, tx, number=1, camera=CAMERA):
        tx.set_outlets([STORE])
        return tx.begin_docking(
            self.docking(number), tx.next_epoch(), 1, f"device-{number}", camera, DockingEvent.ADMITTED, {}
        )

    @staticmethod
    def sealed(clip, status=VerdictStatus.INTACT):
        reasons = () if status is VerdictStatus.INTACT else ("the end is missing", "noll\u00e4nde \u2028 'x'")
        return Sealed(
            file=clip.file,
            plaintext_digest=DIGEST,
            plaintext_size_bytes=clip.file.size_bytes,
            sealed_digest="sha256:" + "cd" * 32,
            sealed_size_bytes=clip.file.size_bytes + 300,
            verdict=Verdict(
                status=status,
                container="mp4",
                reasons=reasons,
                duration_ms=5,
                recorded_at=datetime(1969, 1, 1, tzinfo=UTC),
            ),
            recipients=("sha256:" + "01" * 32, "sha256:" + "02" * 32),
        )

    def reread(self, clip, docking=1):
        return Reread(docking=self.docking(docking), file=clip.file, plaintext_digest=DIGEST, cache=CacheState.DROPPED)

    @staticmethod
    def signed(payload=b"\x00\xffexact\n"):
        return SignedBytes(payload=payload, signature="-----BEGIN SSH SIGNATURE-----\n")

    def bring(self, tx, clip, *events, status=VerdictStatus.INTACT):
        """Add a clip and drive it through events, with what each of them sets."""
        row = tx.add_acquisition(clip)
        for event in events:
            changes = {
                E.READ_STARTED: {"attempts": row.attempts + 1},
                E.SEALED: {
                    "sealed": self.sealed(clip, status),
                    "manifest_digest": DIGEST,
                    "custody_seq": tx.next_seq(),
                },
                E.REREAD: {"reread": self.reread(clip)},
                E.CONTESTED: {"contested": True},
                E.RELEASED: {"released_by": "anna"},
            }.get(event, {})
            if event in _DELIVERED:
                sent, about = _DELIVERED[event]
                row = tx.deliver(clip.acquisition, STORE, sent, self.policy, **about)[1]
            else:
                row = tx.advance(clip.acquisition, event, **changes)
        return row

    to_spooled = (E.READ_STARTED, E.SEALED)
    to_stored = (E.READ_STARTED, E.SEALED, E.REGISTERED, E.STORED)

    replace = staticmethod(dataclasses.replace)


@pytest.fixture
async def kit(tmp_path):
    made = Kit(tmp_path)
    yield made
    await made.close_all()
