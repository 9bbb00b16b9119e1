"""Write ready-to-run sets: an evidence authority, a receiver, a station, or all three for a trial on one machine.

Nothing is ever overwritten. Private files are 0600 and lie in directories of 0700.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dockd.core import sealing
from dockd.core.keyfiles import StationPublic, StorePublic, format_station_pub, format_store_pub, parse_store_pub
from dockd.core.sealing import Identity, Opener, Recipient, Sealer, parse_recipients_file
from dockd.core.sshsig import SigningKey
from dockd.errors import ConfigError
from dockd.keep.durable import write_file
from dockd.model import StationId, StoreId
from dockd.receiver.enrol import enrol

TRIAL_BAYS = 8
_CERTIFICATE_DAYS = 730
_CANARY = b"dockd canary: the authority can open what is sealed to it\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class StationSet:
    """What `init_station` made."""

    config: Path
    public: Path
    fingerprints: tuple[str, str]  # of the manifest key and the checkpoint key


def init_authority(directory: Path) -> tuple[str, str]:
    """A working key and an escrow key, tried out on a canary; returns their recipients.

    `working.key`, `escrow.key`: age identities. `recipients.txt`: what stations seal to.
    """
    _directory(directory)
    identities = {name: Identity.generate(secrets.token_bytes) for name in ("working", "escrow")}
    recipients = [identity.recipient for identity in identities.values()]
    canary = _seal_canary(recipients)
    for name, identity in identities.items():
        opener = Opener([identity])
        if bytes(opener.feed(canary)) + bytes(opener.finish()) != _CANARY:
            raise ConfigError(f"the {name} key did not open its canary: nothing was written")
    for name, identity in identities.items():
        text = f"# {name} key of the evidence authority; keep it off every dock\n"
        _new(directory / f"{name}.key", (text + f"# public key: {identity.recipient.text}\n{identity.text}\n").encode())
    lines = [f"# {name}\n{identity.recipient.text}\n" for name, identity in identities.items()]
    _new(directory / "recipients.txt", "".join(lines).encode(), mode=0o644)
    _new(directory / "canary.age", canary, mode=0o644)
    return recipients[0].text, recipients[1].text


def init_receiver(
    directory: Path, listen: str, recipients_file: Path, *, config: Path | None = None, trial: bool = False
) -> Path:
    """A receiver's keys, certificate, store directory and configuration; returns the configuration's path.

    `directory` holds the store; `store.pub` and `tls.crt` in its `public/` are what stations are given.
    """
    config = config or directory / "receiver.toml"
    _absent(config)
    _directory(directory)
    _directory(directory / "keys")
    _directory(directory / "stations")
    host = listen.rpartition(":")[0]
    store, key = StoreId(str(uuid.uuid4())), SigningKey.generate()
    certificate, tls_key = _certificate(host)
    _new(directory / "keys" / "store.key", key.private_pem())
    _new(directory / "keys" / "tls.key", tls_key)
    _new(directory / "keys" / "tls.crt", certificate, mode=0o644)
    public = format_store_pub(StorePublic(store=store, key=key.public))
    _new(directory / "keys" / "store.pub", public.encode(), mode=0o644)
    port = listen.rpartition(":")[2]
    hosts = sorted({listen, f"localhost:{port}"} if _is_loopback(host) else {listen})
    _new(
        config,
        _toml(
            trial,
            {
                "receiver": {
                    "id": store,
                    "listen": listen,
                    "public_hosts": hosts,
                    "directory": _from(config, directory),
                    "tls_cert": _from(config, directory / "keys" / "tls.crt"),
                    "tls_key": _from(config, directory / "keys" / "tls.key"),
                },
                "keys": {"store": _from(config, directory / "keys" / "store.key")},
                "accept": {"recipients_file": _from(config, recipients_file), "min_recipients": 2},
                "retention": {"days": 365},
            },
        ),
    )
    return config


def init_station(
    directory: Path,
    receiver_url: str,
    ca: Path,
    store_key: Path,
    recipients: Path,
    *,
    config: Path | None = None,
    bays: Path | None = None,
    trial: bool = False,
) -> StationSet:
    """A station's keys, bays and configuration. What it was handed is copied beside its keys, and so pinned."""
    config = config or directory / "dockd.toml"
    bays = bays or directory / "bays"
    _absent(config)
    pinned = {"ca.crt": ca, "store.pub": store_key, "recipients.txt": recipients}
    contents = {name: _given(path) for name, path in pinned.items()}
    parse_store_pub(contents["store.pub"].decode(errors="replace"))
    parse_recipients_file(contents["recipients.txt"].decode(errors="replace"))
    _directory(directory)
    keys = directory / "keys"
    _directory(keys)
    for name, content in contents.items():
        _new(keys / name, content, mode=0o644)
    station = StationId(str(uuid.uuid4()))
    manifest_key, checkpoint_key = SigningKey.generate(), SigningKey.generate()
    _new(keys / "manifest.key", manifest_key.private_pem())
    _new(keys / "checkpoint.key", checkpoint_key.private_pem())
    public = StationPublic(station=station, manifest_key=manifest_key.public, checkpoint_key=checkpoint_key.public)
    _new(keys / "station.pub", format_station_pub(public).encode(), mode=0o644)
    for bay in range(1, TRIAL_BAYS + 1):
        (bays / str(bay)).mkdir(parents=True, exist_ok=True)
    _new(
        config,
        _toml(
            trial,
            {
                "station": {"id": station, "state_dir": _from(config, directory)},
                "keys": {
                    "manifest": _from(config, keys / "manifest.key"),
                    "checkpoint": _from(config, keys / "checkpoint.key"),
                },
                "bays": {"folder_root": _from(config, bays)},
                "seal": {"recipients_file": _from(config, keys / "recipients.txt")},
                "store": {
                    "url": receiver_url,
                    "ca_file": _from(config, keys / "ca.crt"),
                    "key_file": _from(config, keys / "store.pub"),
                    "min_retention_days": 31,
                },
            },
        ),
    )
    return StationSet(
        config=config,
        public=keys / "station.pub",
        fingerprints=(public.manifest_key.fingerprint, public.checkpoint_key.fingerprint),
    )


def init_trial(directory: Path, listen: str) -> None:
    """All three for one machine, the station enrolled at the receiver: both run as they are. For trials only."""
    for name in ("dockd.toml", "receiver.toml", "authority", "station", "store", "bays"):
        _absent(directory / name)
    directory.mkdir(parents=True, exist_ok=True)
    authority, store = directory / "authority", directory / "store"
    init_authority(authority)
    init_receiver(store, listen, authority / "recipients.txt", config=directory / "receiver.toml", trial=True)
    shutil.copyfile(store / "keys" / "store.pub", authority / "store.pub")
    made = init_station(
        directory / "station",
        f"https://{listen}",
        store / "keys" / "tls.crt",
        authority / "store.pub",
        authority / "recipients.txt",
        config=directory / "dockd.toml",
        bays=directory / "bays",
        trial=True,
    )
    text = made.public.read_text()
    _new(authority / "station.pub", text.encode(), mode=0o644)
    enrol(store, text)


def _seal_canary(recipients: list[Recipient]) -> bytes:
    sealer = Sealer(recipients, secrets.token_bytes)
    sealed = sealer.header() + bytes(sealer.seal(memoryview(_CANARY), final=True))
    if len(sealed) != sealing.sealed_size(len(_CANARY), len(recipients)):
        raise ConfigError("the canary has the wrong length: nothing was written")
    return sealed


def _certificate(host: str) -> tuple[bytes, bytes]:
    """A self-signed certificate for `host`, which stations pin, and its key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dockd receiver")])
    names: list[x509.GeneralName] = []
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]"))))
    except ValueError:
        names.append(x509.DNSName(host))
    if _is_loopback(host) and host != "localhost":
        names.append(x509.DNSName("localhost"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _toml(trial: bool, sections: dict[str, dict[str, object]]) -> bytes:
    """TOML of these sections. Keys that are left out have the defaults that config/ lists."""
    lines = ["# Every key, with its default, is explained in the shipped config/.", ""]
    if trial:
        lines += ["# A trial: this machine holds the keys that open its own clips.", "trial = true", ""]
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {_value(value)}" for key, value in keys.items()), ""]
    return "\n".join(lines).encode()


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, int):
        return str(value)
    return json.dumps(str(value))  # TOML's basic strings take JSON's escapes


def _from(config: Path, path: Path) -> str:
    """`path` as the configuration says it: relative where it lies below, so that the set can be moved."""
    base, absolute = config.absolute().parent, path.absolute()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) and absolute != base else str(absolute)


def _given(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _absent(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path} exists already and is not overwritten: name another directory, or remove it first")


def _new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    _absent(path)
    write_file(path, content, mode=mode)
