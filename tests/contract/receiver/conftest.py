"""A real receiver on loopback TLS inside the test's loop, a station with a raw HTTP client, and sealed clips."""

import asyncio
import base64
import contextlib
import json
import secrets
import socket
import ssl
import uuid
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dockd.core import canonical, sshsig
from dockd.core.ids import uuid7
from dockd.core.keyfiles import StationPublic, format_station_pub
from dockd.core.manifest import Manifest, encode
from dockd.core.sealing import Identity, Sealer
from dockd.model import CameraIdentity, Category, SignedBytes, VerdictStatus
from dockd.receiver.enrol import enrol
from dockd.receiver.serve import serve
from dockd.receiver.settings import ReceiverSettings

STORE = "0190a5c0-0000-4000-8000-00000000000a"
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}


class TurnedClock:
    """The machine's clock, which a test may set forward."""

    def __init__(self):
        self.ahead = timedelta()

    def now(self):
        return datetime.now(UTC) + self.ahead

    def monotonic_s(self):
        return asyncio.get_running_loop().time() + self.ahead.total_seconds()

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s)


def certificate(directory):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    made = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made - timedelta(hours=1))
        .not_valid_after(made + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, private = directory / "tls.crt", directory / "tls.key"
    cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, private


class Clip:
    """One sealed clip with its manifest."""

    def __init__(self, station, sealed_to, size=100_000, **changes):
        sealer = Sealer(sealed_to, secrets.token_bytes)
        self.content = sealer.header() + b"".join(
            bytes(sealer.seal(secrets.token_bytes(min(1 << 20, size - at)), final=at + (1 << 20) >= size))
            for at in range(0, max(size, 1), 1 << 20)
        )
        self.acquisition = uuid7(datetime.now(UTC), secrets.token_bytes(10))
        fields = {
            "acquisition": self.acquisition,
            "station": station.id,
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
            "plaintext_digest": canonical.digest(b"plain"),
            "plaintext_size_bytes": size,
            "sealed_digest": canonical.digest(self.content),
            "sealed_size_bytes": len(self.content),
            "recipients": tuple(one.fingerprint for one in sealed_to),
            "dockd": "0",
            "custody_seq": 1,
            "nonce": secrets.token_bytes(32),
        }
        self.fields = fields | changes
        self.payload = encode(Manifest(**self.fields))
        self.digest = canonical.digest(self.payload)

    def restated(self, **changes):
        """The same clip under another manifest."""
        other = object.__new__(Clip)
        other.content, other.acquisition = self.content, self.acquisition
        other.fields = self.fields | changes
        other.payload = encode(Manifest(**other.fields))
        other.digest = canonical.digest(other.payload)
        return other


class Station:
    """A station that speaks plain HTTP to the receiver, right or wrong as the test likes."""

    def __init__(self, receiver):
        self.receiver = receiver
        self.id = str(uuid.uuid4())
        self.key, self.checkpoint_key = sshsig.SigningKey.generate(), sshsig.SigningKey.generate()
        self.public = StationPublic(
            station=self.id, manifest_key=self.key.public, checkpoint_key=self.checkpoint_key.public
        )
        self.token = None
        self.http = None

    def enrol(self):
        enrol(self.receiver.settings.directory, format_station_pub(self.public))

    def envelope(self, payload, namespace, key=None):
        signature = sshsig.sign(key or self.key, namespace, payload)
        return canonical.encode(sshsig.signed_to_json(SignedBytes(payload=payload, signature=signature)))

    async def challenge(self, **more):
        body = canonical.encode({"type": "session-request", "v": 1, "station": self.id} | more)
        return await self.http.post("/session", content=body)

    def statement(self, challenge, **changes):
        fields = {
            "type": "session",
            "v": 1,
            "station": self.id,
            "store": STORE,
            "host": f"127.0.0.1:{self.receiver.port}",
            "challenge": challenge,
            "at": canonical.format_time(datetime.now(UTC)),
        }
        return canonical.encode({key: value for key, value in (fields | changes).items() if value is not None})

    async def log_in(self, accepts=None):
        """As a station of the first version, which names no versions; or as one that accepts these."""
        said = {} if accepts is None else {"accepts": accepts}
        given = (await self.challenge(**said)).json()
        chooses = said and {"v": 2} | said
        body = self.envelope(self.statement(given["challenge"], **chooses), sshsig.SESSION)
        answer = await self.http.post("/session", content=body)
        assert answer.status_code == 201, answer.text
        self.session = answer.json()
        self.token = answer.json()["token"]
        self.http.headers["Authorization"] = f"Bearer {self.token}"

    def clip(self, size=100_000, **changes):
        return Clip(self, self.receiver.recipients, size, **changes)

    async def announce(self, clip, *, key=None, at=None):
        body = self.envelope(clip.payload, sshsig.MANIFEST, key)
        return await self.http.put(f"/acquisitions/{at or clip.acquisition}", content=body)

    async def announced(self, clip):
        answer = await self.announce(clip)
        assert answer.status_code in (200, 201), answer.text
        return answer.headers["Location"]

    async def patch(self, url, offset, content, **headers):
        said = BYTES | {"Upload-Offset": str(offset)} | headers
        return await self.http.patch(url, content=content, headers=said)

    async def offset(self, url):
        answer = await self.http.head(url, headers=TUS)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["Upload-Offset"])

    async def sent(self, clip):
        url = await self.announced(clip)
        answer = await self.patch(url, 0, clip.content)
        assert answer.status_code == 204, answer.text
        return url

    async def receipt(self, clip, digest=None):
        body = canonical.encode({"type": "receipt-request", "v": 1, "manifest": digest or clip.digest})
        return await self.http.post(f"/acquisitions/{clip.acquisition}/receipt", content=body)

    async def stored(self, clip):
        url = await self.sent(clip)
        answer = await self.receipt(clip)
        assert answer.status_code == 200, answer.text
        return url, sshsig.signed_from_json(answer.json())

    async def ranges(self, clip, *wanted, nonce=None):
        body = {"type": "ranges-request", "v": 1, "nonce": (nonce or bytes(32)).hex(), "ranges": list(wanted)}
        return await self.http.post(f"/acquisitions/{clip.acquisition}/ranges", content=canonical.encode(body))

    async def holding(self, clip, nonce=None):
        body = canonical.encode({"type": "holding-request", "v": 1, "nonce": (nonce or bytes(32)).hex()})
        return await self.http.post(f"/acquisitions/{clip.acquisition}/holding", content=body)

    async def checkpoint(self, note, old_size, proof=()):
        body = {"type": "checkpoint-submission", "v": 1, "old_size": old_size, "note": note.decode()}
        body["proof"] = [node.hex() for node in proof]
        return await self.http.post("/checkpoints", content=canonical.encode(body))


class Receiver:
    """`serve` in a task of this loop; can be stopped and started again over the same directory."""

    def __init__(self, directory):
        self.clock = TurnedClock()
        self.identities = [Identity.generate(secrets.token_bytes) for _ in range(2)]
        self.recipients = [one.recipient for one in self.identities]
        self.key = sshsig.SigningKey.generate()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.cert, private = certificate(directory)
        self.lookups = {}  # a test may add to it while it runs
        self.settings = ReceiverSettings(
            directory=directory / "store",
            listen_host="127.0.0.1",
            listen_port=self.port,
            tls_cert=self.cert,
            tls_key=private,
            store=STORE,
            key=self.key,
            public_hosts=frozenset({f"127.0.0.1:{self.port}"}),
            allowed_recipients=frozenset(one.fingerprint for one in self.recipients),
            lookups=self.lookups,
        )
        self._task = None
        self._stack = contextlib.AsyncExitStack()

    async def start(self, settings=None):
        ready = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(
            serve(settings or self.settings, clock=self.clock, random=secrets.token_bytes, ready=ready.set_result)
        )
        await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._task
        assert ready.result() == f"127.0.0.1:{self.port}"

    async def stop(self):
        if self._task.done():
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def close(self):
        await self._stack.aclose()
        await self.stop()

    async def connect(self, headers=None):
        context = ssl.create_default_context(cafile=self.cert)
        client = httpx.AsyncClient(
            verify=context, base_url=f"https://127.0.0.1:{self.port}", timeout=30, trust_env=False, headers=headers
        )
        return await self._stack.enter_async_context(client)

    async def station(self, *, enrolled=True, session=True):
        station = Station(self)
        station.http = await self.connect()
        if enrolled:
            station.enrol()
        if enrolled and session:
            await station.log_in()
        return station

    @property
    def store(self):
        return self.settings.directory


@pytest.fixture
async def receiver(tmp_path):
    receiver = Receiver(tmp_path)
    await receiver.start()
    yield receiver
    await receiver.close()


@pytest.fixture
async def station(receiver):
    return await receiver.station()


@pytest.fixture
def problem():
    """Check an answer to be a problem record of this kind that tells a person what to do; returns its members."""

    def check(answer, kind):
        assert answer.headers["Content-Type"] == "application/problem+json", answer.text
        record = json.loads(answer.content)
        assert record["type"] == kind.type, record
        assert record["status"] == answer.status_code == kind.status
        assert record["title"] == kind.title
        assert len(record["detail"]) > 20
        return record

    return check


@pytest.fixture
def b64():
    return lambda content: base64.b64encode(content).decode()
