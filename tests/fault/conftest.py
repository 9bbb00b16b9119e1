"""A station without cameras: a real journal and spool, clips as if just sealed, and a store in memory."""

import asyncio
import dataclasses
import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from types import MappingProxyType

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from manifests import stated

from dockd.core import canonical, sshsig
from dockd.core.backoff import Backoff
from dockd.core.keyfiles import StationPublic
from dockd.core.lifecycle import AcquisitionEvent, DockingEvent
from dockd.core.manifest import encode
from dockd.core.places import Places
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import (
    Acquisition,
    CameraIdentity,
    Category,
    FoundFile,
    Sealed,
    SignedBytes,
    Verdict,
    VerdictStatus,
)
from dockd.station.outlet import Outlet, Parts, Signing
from dockd.station.pacing import Pacing
from dockd.station.uplink import Uplink
from dockd.stores.memory import MemoryStore

CAMERA = CameraIdentity(serial="CAM1", model="M", volume_id=str(uuid.UUID(int=7)))


class TurningClock:
    """Time that passes at once while somebody sleeps, as long as the sleep is short; long sleeps last for ever."""

    def __init__(self, longest_s=600.0):
        self.longest_s = longest_s
        self.passed_s = 0.0
        self.sleeps = []
        self._slept = asyncio.Event()

    def now(self):
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.passed_s)

    def monotonic_s(self):
        return self.passed_s

    async def sleep(self, delay_s):
        until_s = self.passed_s + delay_s
        self.sleeps.append(delay_s)
        self._slept.set()
        if delay_s > self.longest_s:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self.passed_s = max(self.passed_s, until_s)

    async def until_slept(self, count=None):
        """Until somebody sleeps again, or altogether `count` times were slept."""
        wanted = len(self.sleeps) + 1 if count is None else count
        while len(self.sleeps) < wanted:
            self._slept.clear()
            await asyncio.wait_for(self._slept.wait(), 20)


class Calls(list):
    """The store's calls, with a way to wait for one."""

    def __init__(self):
        self._more = asyncio.Event()

    def append(self, call):
        super().append(call)
        self._more.set()

    async def until(self, wanted, count=1):
        while sum(call is wanted for call, _ in self) < count:
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), 20)


class Bench:
    """One station's sending half. `uplink(...)` makes a new life of it; the journal and the spool stay."""

    def __init__(self, directory):
        self.directory = directory
        self.clock = TurningClock()
        self.station = str(uuid.UUID(int=1))
        self.manifest_key, self.checkpoint_key = sshsig.SigningKey.generate(), sshsig.SigningKey.generate()
        public = StationPublic(
            station=self.station,
            manifest_key=self.manifest_key.public,
            checkpoint_key=self.checkpoint_key.public,
        )
        self.store = MemoryStore(
            store=str(uuid.UUID(int=2)), key=sshsig.SigningKey.generate(), station=public, clock=self.clock
        )
        self.store.calls = Calls()
        self.spool = Spool(directory / "spool", reserve_bytes=0, max_bytes=0)
        self.journal = None
        self.changed = asyncio.Queue()
        self.states = {}
        self._made = 0
        self._docking = str(uuid.UUID(int=99))

    async def open(self):
        self.journal = await Journal.open(
            self.directory / "state", station=self.station, clock=self.clock, checkpoint_key=self.checkpoint_key
        )

        await self.dock(self._docking)

    async def dock(self, docking):
        """What is sealed from here on is of this docking."""

        def change(tx):
            if tx.docking(docking) is None:
                tx.begin_docking(docking, tx.next_epoch(), 1, "d", CAMERA, DockingEvent.ADMITTED)

        self._docking = docking
        await self.journal.write(change)

    async def sealed(self, size=3 << 20, *, category=Category.NONE):
        """A clip in state spooled."""
        self._made += 1
        acquisition = str(uuid.UUID(int=(0x019 << 116) | (7 << 76) | (2 << 62) | self._made))
        content = hashlib.sha256(acquisition.encode()).digest() * (size // 32) + bytes(size % 32)
        self.spool.path(acquisition).write_bytes(content)
        file = FoundFile(path=b"%d.mp4" % self._made, size_bytes=size, mtime_ns=1, inode=self._made)
        sealed = Sealed(
            file=file,
            plaintext_digest=canonical.digest(b"plain" + content[:32]),
            plaintext_size_bytes=size,
            sealed_digest=canonical.digest(content),
            sealed_size_bytes=size,
            verdict=Verdict(status=VerdictStatus.INTACT, container="mp4"),
            recipients=("sha256:" + "1" * 64, "sha256:" + "2" * 64),
        )
        row = Acquisition(
            acquisition=acquisition,
            state="found",
            docking=self._docking,
            bay=1,
            camera=CAMERA,
            file=file,
            category=category,
            category_reason="",
            found_at=self.clock.now(),
        )
        nonce = hashlib.sha256(b"nonce" + acquisition.encode()).digest()

        def change(tx):
            tx.add_acquisition(row)
            tx.advance(acquisition, AcquisitionEvent.READ_STARTED, attempts=1)
            seq = tx.next_seq()
            payload = encode(stated(self.station, row, sealed, seq, nonce))
            signed = SignedBytes(payload=payload, signature=sshsig.sign(self.manifest_key, sshsig.MANIFEST, payload))
            tx.put_manifest(acquisition, signed, nonce)
            return tx.advance(
                acquisition,
                AcquisitionEvent.SEALED,
                sealed=sealed,
                manifest_digest=canonical.digest(payload),
                custody_seq=seq,
            )

        return await self.journal.write(change)

    def uplink(self, **changes):
        outlet = {"way": Signing(port=changes.pop("store", self.store)), "slots": 3, "patch_bytes": 1 << 20}
        parts = self.parts(self.policy(changes.pop("min_retention", timedelta(0)), changes.pop("minima", {})))
        if "random" in changes:
            parts = dataclasses.replace(parts, random=changes.pop("random"))
        return Uplink(Outlet(**(outlet | changes)), parts, backoff=Backoff())

    def policy(self, min_retention=timedelta(0), minima=MappingProxyType({})):
        """The one store."""
        one = PolicyStore(store=self.store.store, name="archive", min_retention=min_retention, minima=minima)
        return StorePolicy([one])

    def parts(self, policy, places=8):
        return Parts(
            journal=self.journal,
            spool=self.spool,
            station=self.station,
            policy=policy,
            clock=self.clock,
            random=lambda count: b"\x80" * count,
            on_changed=self.changed.put_nowait,
            pacing=Pacing(self.clock),
            places=Places(most=places),
        )

    async def until(self, acquisition, state):
        """Wait for a row's state, as the uplink tells of it."""
        while self.states.get(acquisition) != state:
            row = await asyncio.wait_for(self.changed.get(), 20)
            self.states[row.acquisition] = row.state

    async def row(self, acquisition):
        return await self.journal.read(lambda tx: tx.acquisition(acquisition))

    async def events(self):
        """The names of all custody entries, in order."""
        lines = await self.journal.read(lambda tx: tx.lines(0, 100_000))
        return [canonical.decode(line, type_="custody")["event"] for line in lines]


@pytest.fixture
async def bench(tmp_path):
    made = Bench(tmp_path)
    await made.open()
    yield made
    await made.journal.aclose()


def _certificate(directory, name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made - timedelta(hours=1))
        .not_valid_after(made + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / f"{name}.crt", directory / f"{name}.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    return {name: _certificate(directory, name) for name in ("store", "stranger")}


@pytest.fixture
def clock():
    return TurningClock()
