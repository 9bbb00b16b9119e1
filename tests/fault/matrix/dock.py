"""A whole dock with its store, small and quick: the real station, readers and receiver over one directory.

Everything is in this directory, so that a program that was forked for it, or a later life, finds it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
import uuid
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fault.matrix import mtp

from dockd import faults as no
from dockd.control.server import bind
from dockd.core.age_keys import Identity
from dockd.core.keyfiles import StationPublic, StorePublic, format_station_pub
from dockd.core.places import Places
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.retention import Terms, Until, usual_terms
from dockd.core.sshsig import PublicKey, SigningKey
from dockd.devices.folder import FolderSource
from dockd.devices.marker import make_marker
from dockd.keep.rebuild import Origins, open_journal
from dockd.keep.spool import Spool
from dockd.reader.client import ClipRules, ForkServer
from dockd.receiver.enrol import enrol
from dockd.receiver.generation import accept_log
from dockd.receiver.serve import serve
from dockd.receiver.settings import ReceiverSettings
from dockd.station.daemon import Daemon, Machine
from dockd.station.limits import Limits
from dockd.station.outlet import Outlet, Signing
from dockd.station.pacing import Pacing
from dockd.stores.receiver_store import ReceiverStore

PACE = 30  # how many times faster than the machine's a dock's clock runs: every wait is as much shorter
PATCH_BYTES = 64 * 1024


class PacedClock:
    """The same hour in all programs of a dock, and in each of its lives."""

    def __init__(self, began_s: float, pace: float = PACE):
        self._began_s = began_s  # of the machine's monotonic clock, which all programs share
        self._pace = pace

    def now(self):
        return datetime.now(UTC) + timedelta(seconds=(self._pace - 1) * (time.monotonic() - self._began_s))

    def monotonic_s(self):
        return self._pace * time.monotonic()

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s / self._pace)


class ReceiverClock(PacedClock):
    """The dock's hour, but the machine's pace: how long a connection is silent is not sped up."""

    def monotonic_s(self):
        return time.monotonic()

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s)


class StillLive:
    """A configuration that nobody changes."""

    def rules(self, _=None):
        return ClipRules(suffixes=(".mp4",), evidence_directories=(), max_depth=8, max_files=1000, block_bytes=1 << 20)

    def keep_after_receipt(self):
        return timedelta(days=1)

    async def follow(self, _alarms, _on_reload):
        await asyncio.Event().wait()


ENDLESS = Terms(until=Until.ENDED, review_days=30, undo_days=1)


class Dock:
    """One station with one bay, and its store. `make` a new one, or find that of an earlier life."""

    @classmethod
    def make(cls, directory: Path) -> Dock:
        directory.mkdir(parents=True)
        keys = {
            f"{name}_key": SigningKey.generate().private_pem().decode() for name in ("manifest", "checkpoint", "store")
        }
        given = {
            "port": free_port(),
            "upload_expiry_s": 14 * 86400,
            "scrub_first_within_s": 86400,
            "station": str(uuid.uuid4()),
            "store": str(uuid.uuid4()),
            "began_s": time.monotonic(),
            "identities": [Identity.generate(secrets.token_bytes).text for _ in range(2)],
            **keys,
        }
        (directory / "dock.json").write_text(json.dumps(given))
        _certificate(directory)
        dock = cls(directory)
        dock.bay.mkdir(parents=True)
        return dock

    def mend_policy(self) -> Dock:
        """The store's people say that a person ends every promise; the receiver is started again for that."""
        given = json.loads((self.directory / "dock.json").read_text())
        (self.directory / "dock.json").write_text(json.dumps(given | {"endless": True}))
        mended = type(self)(self.directory)
        mended.clips = dict(self.clips)
        return mended

    @classmethod
    def copy(cls, template: Dock, directory: Path) -> Dock:
        """Another dock in the same state, at another port. Its clips are those of the template."""
        shutil.copytree(template.directory, directory, ignore=shutil.ignore_patterns("*.sock"))
        given = json.loads((directory / "dock.json").read_text())
        (directory / "dock.json").write_text(json.dumps(given | {"port": free_port(), "upload_expiry_s": 14 * 86400}))
        dock = cls(directory)
        dock.clips = dict(template.clips)
        return dock

    def __init__(self, directory: Path):
        given = json.loads((directory / "dock.json").read_text())
        self.directory = directory
        self.clips: dict[str, bytes] = {}  # what was made, in this program
        self.endless: bool = given.get("endless", False)  # the store's policy has no date any more
        self.upload_expiry = timedelta(seconds=given["upload_expiry_s"])
        self.scrub_first_within = timedelta(seconds=given["scrub_first_within_s"])
        self.port: int = given["port"]
        self.station: str = given["station"]
        self.store: str = given["store"]
        self.other: dict[str, str] | None = given.get("other")  # a station whose clips are at the store, and its key
        self.clock = PacedClock(given["began_s"])
        self.receiver_clock = ReceiverClock(given["began_s"])
        self.identities = [Identity.parse(text) for text in given["identities"]]
        self.manifest_key, self.checkpoint_key, self.store_key = (
            SigningKey.parse(given[f"{name}_key"].encode()) for name in ("manifest", "checkpoint", "store")
        )

    @property
    def bay(self) -> Path:
        return self.directory / "bays" / "1"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @property
    def store_directory(self) -> Path:
        return self.directory / "store"

    @property
    def control(self) -> Path:
        return self.directory / "control.sock"

    @property
    def store_public(self) -> StorePublic:
        return StorePublic(store=self.store, key=self.store_key.public)

    def camera(self, clips: dict[str, bytes], serial: str = "CAM1") -> Path:
        """Make a camera and put it into the bay; returns where it is then."""
        place = self.directory / "made" / serial
        place.mkdir(parents=True)
        for name, content in clips.items():
            (place / name).write_bytes(content)
        make_marker(place, serial=serial, made_at=datetime.now(UTC), random=os.urandom)
        self.clips |= clips
        return place.rename(self.bay / serial)

    def succeed(self) -> Dock:
        """Another station in this one's place, which believes it; its store stays as it is."""
        given = json.loads((self.directory / "dock.json").read_text())
        before = {"station": self.station, "key": self.manifest_key.public.line("other")}
        keys = {f"{name}_key": SigningKey.generate().private_pem().decode() for name in ("manifest", "checkpoint")}
        changed = given | keys | {"station": str(uuid.uuid4()), "other": before}
        (self.directory / "dock.json").write_text(json.dumps(changed))
        for place in (self.state, self.spool):
            shutil.rmtree(place)
        after = Dock(self.directory)
        after.clips = dict(self.clips)
        after.enrol()
        return after

    @property
    def trusted(self) -> dict[str, PublicKey]:
        return {self.other["station"]: PublicKey.parse(self.other["key"])} if self.other else {}

    # --- what scenarios whose cameras are no folders do otherwise

    def sources(self):
        """Where cameras come from, for one life of the station."""
        return (FolderSource({1: self.bay}),)

    def on_camera(self) -> dict[str, bytes]:
        """The files of the camera, without its marker."""
        return {
            path.name: path.read_bytes()
            for path in self.bay.rglob("*")
            if path.is_file() and path.name != "dockd-camera.toml"
        }

    # --- what people at the store do

    def enrol(self, faults=no.NONE) -> None:
        enrol(self.store_directory, _station_pub(self), faults)

    def accept_log(self, faults=no.NONE) -> None:
        accept_log(self.store_directory, self.station, 2, faults)

    # --- what a reader does with a camera over MTP

    @property
    def object(self) -> Path:
        """What is in the camera's memory."""
        return self.directory / "object"

    def delete_object(self, faults=no.NONE) -> None:
        mtp.delete(self.object, faults)

    # --- the two programs

    async def receive(self, ready=lambda _address: None, faults=no.NONE) -> None:
        """Be the receiver until cancelled."""
        settings = ReceiverSettings(
            directory=self.store_directory,
            listen_host="127.0.0.1",
            listen_port=self.port,
            tls_cert=self.directory / "tls.crt",
            tls_key=self.directory / "tls.key",
            store=self.store,
            key=self.store_key,
            public_hosts=frozenset({f"127.0.0.1:{self.port}"}),
            allowed_recipients=frozenset(one.recipient.fingerprint for one in self.identities),
            reserve_bytes=0,
            upload_expiry=self.upload_expiry,
            scrub_first_within=self.scrub_first_within,
            categories=usual_terms() | ({"none": ENDLESS} if self.endless else {}),
            lookups={self.station: frozenset(self.trusted)},
        )
        await serve(settings, clock=self.receiver_clock, random=secrets.token_bytes, ready=ready, faults=faults)

    async def run(self, ready=lambda _daemon: None, faults=no.NONE, forkserver: ForkServer | None = None) -> None:
        """Be the station until cancelled; opened and closed as the composition root does it."""
        spool = Spool(self.spool, reserve_bytes=0, max_bytes=0, faults=faults)
        origins = Origins(
            station=self.station,
            stores=(self.store,),
            clock=self.clock,
            checkpoint_key=self.checkpoint_key,
            manifest_key=self.manifest_key.public,
        )
        journal = await open_journal(self.state, spool, origins, faults)
        try:
            async with self.push() as store, _own(forkserver) as readers:
                with closing(bind(self.control)) as control:
                    daemon = Daemon(
                        Machine(
                            station=self.station,
                            trial=True,
                            bays=[1],
                            sources=self.sources(),
                            journal=journal,
                            spool=spool,
                            outlets=(
                                Outlet(way=Signing(port=store, trusted=self.trusted), slots=3, patch_bytes=PATCH_BYTES),
                            ),
                            policy=StorePolicy(
                                [
                                    PolicyStore(
                                        store=store.store,
                                        name="archive",
                                        min_retention=timedelta(days=14),  # of a rule's, whenever the clip was recorded
                                        trust_stations=frozenset(self.trusted),
                                    )
                                ]
                            ),
                            forkserver=readers,
                            control=control,
                            manifest_key=self.manifest_key,
                            recipients=tuple(one.recipient.text for one in self.identities),
                            live=StillLive(),
                            limits=Limits(pacing=Pacing(self.clock), places=Places(most=8)),
                            clock=self.clock,
                            random=os.urandom,
                        )
                    )
                    ready(daemon)
                    await daemon.run()
        finally:
            await journal.aclose()

    @asynccontextmanager
    async def push(self):
        """The station's way to its store."""
        store = ReceiverStore(
            url=f"https://127.0.0.1:{self.port}",
            ca_file=self.directory / "tls.crt",
            store_public=self.store_public,
            station=self.station,
            key=self.manifest_key,
            clock=self.clock,
        )
        try:
            yield store
        finally:
            await store.aclose()


@asynccontextmanager
async def _own(forkserver):
    if forkserver is not None:  # it outlives this station
        yield forkserver
        return
    made = await ForkServer.start()
    try:
        yield made
    finally:
        await made.aclose()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _station_pub(dock: Dock) -> str:
    return format_station_pub(
        StationPublic(
            station=dock.station, manifest_key=dock.manifest_key.public, checkpoint_key=dock.checkpoint_key.public
        )
    )


def _certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    made = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made - timedelta(hours=1))
        .not_valid_after(made + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
