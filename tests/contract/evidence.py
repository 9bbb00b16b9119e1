"""What every kind of evidence store is shown: keys, a sealed clip with its signed manifest, and our real receiver."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import sys
import uuid
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dockd.core import canonical, sshsig
from dockd.core.age_keys import Identity
from dockd.core.keyfiles import StationPublic, StorePublic, format_station_pub
from dockd.core.manifest import Manifest, encode
from dockd.core.sealing import Sealer
from dockd.model import CameraIdentity, Category, SignedBytes, VerdictStatus
from dockd.receiver.enrol import enrol
from dockd.stores.receiver_store import ReceiverStore

STATION, STORE = str(uuid.uuid4()), str(uuid.uuid4())
OTHER = str(uuid.uuid4())  # a station whose clips STATION may ask about


class MachineClock:
    def now(self):
        return datetime.now(UTC)

    def monotonic_s(self):
        return asyncio.get_running_loop().time()

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s)


class Keys:
    """Everybody's keys, as enrolment and configuration leave them."""

    def __init__(self):
        self.store, self.manifest, self.checkpoint = (sshsig.SigningKey.generate() for _ in range(3))
        self.identities = [Identity.generate(secrets.token_bytes) for _ in range(2)]
        self.recipients = [identity.recipient for identity in self.identities]
        self.station_public = StationPublic(
            station=STATION, manifest_key=self.manifest.public, checkpoint_key=self.checkpoint.public
        )
        self.store_public = StorePublic(store=STORE, key=self.store.public)
        self.other, other_checkpoint = sshsig.SigningKey.generate(), sshsig.SigningKey.generate()
        self.other_public = StationPublic(
            station=OTHER, manifest_key=self.other.public, checkpoint_key=other_checkpoint.public
        )


class Clip:
    """One sealed clip with its signed manifest."""

    def __init__(self, keys, size=200_000, *, content=None, acquisition=None, station=STATION, key=None, **changes):
        if content is None:
            sealer, plain = Sealer(keys.recipients, secrets.token_bytes), memoryview(secrets.token_bytes(size))
            content, batch = sealer.header(), 4 << 20
            for at in range(0, size, batch):
                content += bytes(sealer.seal(plain[at : at + batch], final=at + batch >= size))
        self.content = content
        self.acquisition = acquisition or str(
            uuid.UUID(int=(0x019 << 116) | (7 << 76) | (2 << 62) | secrets.randbits(60))
        )
        fields = {
            "acquisition": self.acquisition,
            "station": station,
            "bay": 1,
            "docking": str(uuid.UUID(int=5)),
            "camera": CameraIdentity(serial="CAM1", model="M", volume_id="v"),
            "path": b"DCIM/1.mp4",
            "size_bytes": size,
            "mtime_ns": 1,
            "recorded_at": None,
            "duration_ms": None,
            "clock_offset_ms": None,
            "category": Category.NONE,
            "category_reason": "",
            "verdict": VerdictStatus.INTACT,
            "reasons": (),
            "container": "mp4",
            "plaintext_digest": canonical.digest(b"plain" + self.acquisition.encode()),
            "plaintext_size_bytes": size,
            "sealed_digest": canonical.digest(content),
            "sealed_size_bytes": len(content),
            "recipients": tuple(recipient.fingerprint for recipient in keys.recipients),
            "dockd": "0",
            "custody_seq": 1,
            "nonce": secrets.token_bytes(32),
        }
        payload = encode(Manifest(**(fields | changes)))
        signature = sshsig.sign(key or keys.manifest, sshsig.MANIFEST, payload)
        self.manifest = SignedBytes(payload=payload, signature=signature)


async def blocks(content, size=65536):
    for at in range(0, len(content), size):
        yield content[at : at + size]


_SERVE = """
import asyncio, json, secrets, sys
from datetime import UTC, datetime
from pathlib import Path
import structlog
from dockd.core.sshsig import SigningKey
from dockd.receiver.serve import serve
from dockd.receiver.settings import ReceiverSettings

class Clock:
    def now(self): return datetime.now(UTC)
    def monotonic_s(self): return asyncio.get_running_loop().time()
    async def sleep(self, delay_s): await asyncio.sleep(delay_s)

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # nobody reads stdout to its end
given = json.loads(sys.stdin.readline())
settings = ReceiverSettings(
    directory=Path(given["directory"]), listen_host="127.0.0.1", listen_port=given["port"],
    tls_cert=Path(given["cert"]), tls_key=Path(given["tls_key"]), store=given["store"],
    key=SigningKey.parse(given["key"].encode()),
    public_hosts=frozenset(f"127.0.0.1:{port}" for port in given["public_ports"]),
    allowed_recipients=frozenset(given["recipients"]),
    lookups={given["asker"]: frozenset(given["lookups"])},
)
asyncio.run(serve(settings, clock=Clock(), random=secrets.token_bytes, ready=lambda text: print(text, flush=True)))
"""


class Receiver:
    """The real receiver in a program of its own, with this station enrolled."""

    def __init__(self, keys, directory, other_ports=()):
        self._keys = keys
        self._other_ports = other_ports  # where it is dialled as well
        self._directory = directory
        self._program = None
        self.cert, self.tls_key = certificate(directory)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]

    async def start(self):
        given = {
            "directory": str(self._directory / "store"),
            "port": self.port,
            "cert": str(self.cert),
            "tls_key": str(self.tls_key),
            "store": STORE,
            "key": self._keys.store.private_pem().decode(),
            "public_ports": [self.port, *self._other_ports],
            "recipients": [recipient.fingerprint for recipient in self._keys.recipients],
            "asker": STATION,
            "lookups": [OTHER],
        }
        self._program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _SERVE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._program.stdin.write(json.dumps(given).encode() + b"\n")
        await self._program.stdin.drain()
        assert await asyncio.wait_for(self._program.stdout.readline(), 30), "the receiver did not start"

    def connect(self, *, port=None, ca_file=None, key=None, station=STATION):
        return ReceiverStore(
            url=f"https://127.0.0.1:{port or self.port}",
            ca_file=ca_file or self.cert,
            store_public=self._keys.store_public,
            station=station,
            key=key or self._keys.manifest,
            clock=MachineClock(),
        )

    async def kill(self):
        if self._program is not None and self._program.returncode is None:
            self._program.kill()
        if self._program is not None:
            await self._program.wait()
            self._program._transport.close()


def certificate(directory):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    made = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made - timedelta(hours=1))
        .not_valid_after(made + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "tls.crt", directory / "tls.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


@contextlib.asynccontextmanager
async def receiving(keys, directory, other_ports=()):
    for station in (keys.station_public, keys.other_public):
        enrol(directory / "store", format_station_pub(station))
    made = Receiver(keys, directory, other_ports)
    try:
        await made.start()
        yield made
    finally:
        await made.kill()
