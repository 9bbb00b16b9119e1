"""Write ready-to-run sets: an evidence authority, a receiver, a station, or all three for a trial on one machine.

Nothing is ever overwritten: what is in the way is named before anything is written. Private files are 0600, in
directories of 0700.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from dockd.app.canary import try_keys
from dockd.app.certificate import self_signed
from dockd.config.tables import split_address
from dockd.core.keyfiles import StationPublic, StorePublic, format_station_pub, format_store_pub, parse_store_pub
from dockd.core.sealing import Identity, parse_recipients_file
from dockd.core.sshsig import SigningKey
from dockd.errors import ConfigError, VerificationFailed
from dockd.keep.durable import fsync_directory, write_file
from dockd.model import StationId, StoreId
from dockd.receiver.enrol import enrol

TRIAL_BAYS = 8
_LEAST_RECIPIENTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySet:
    """What `init_authority` made."""

    keys: tuple[Path, ...]
    recipients: Path
    canary: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSet:
    """What `init_receiver` made."""

    config: Path
    store: Path
    store_pub: Path
    certificate: Path
    public: StorePublic


@dataclass(frozen=True, slots=True, kw_only=True)
class StationSet:
    """What `init_station` made."""

    config: Path
    station_pub: Path
    bays: Path
    public: StationPublic


def init_authority(directory: Path) -> AuthoritySet:
    """A working key and an escrow key, both tried on a canary before anything is written.

    `working.key`, `escrow.key`: age identities. `recipients.txt`: what stations seal to. `canary.age`: for drills.
    """
    made = AuthoritySet(
        keys=(directory / "working.key", directory / "escrow.key"),
        recipients=directory / "recipients.txt",
        canary=directory / "canary.age",
    )
    _absent(*made.keys, made.recipients, made.canary)
    identities = {path.stem: Identity.generate(secrets.token_bytes) for path in made.keys}
    canary = try_keys(identities, secrets.token_bytes)
    _directory(directory)
    for path, (name, identity) in zip(made.keys, identities.items(), strict=True):
        text = (
            f"# {name} key of the evidence authority: keep it off every dock\n# public key: {identity.recipient.text}\n"
        )
        _new(path, (text + identity.text + "\n").encode())
    lines = ["# The evidence authority's recipients. Both keys opened canary.age.\n"]
    lines += [f"# {name}\n{identity.recipient.text}\n" for name, identity in identities.items()]
    _new(made.canary, canary, mode=0o644)
    _new(made.recipients, "".join(lines).encode(), mode=0o644)  # the last: before it, nobody can seal to these keys
    return made


def init_receiver(
    directory: Path,
    listen: str,
    *,
    recipients: Path | None = None,
    public_hosts: Sequence[str] = (),
    config: Path | None = None,
    store: Path | None = None,
    trial: bool = False,
) -> ReceiverSet:
    """A receiver's keys, certificate, store directory and configuration.

    `public_hosts`: "HOST:PORT" as stations dial it; by default `listen`. `recipients` is copied beside the
    configuration; where it is None the file is still to be put there. Raises ConfigError.
    """
    config = config or directory / "receiver.toml"
    store = store or directory / "store"
    keys = store / "keys"
    accepted = config.parent / "recipients.txt" if recipients is None or not trial else recipients
    made = ReceiverSet(
        config=config,
        store=store,
        store_pub=keys / "store.pub",
        certificate=keys / "tls.crt",
        public=StorePublic(store=StoreId(str(uuid.uuid4())), key=(key := SigningKey.generate()).public),
    )
    hosts = tuple(public_hosts) or _dialled(listen)
    certificate, tls_key = self_signed(sorted({split_address(host)[0] for host in hosts}), datetime.now(UTC))
    copied = (
        {accepted: _recipients(recipients, least=_LEAST_RECIPIENTS)} if recipients and recipients != accepted else {}
    )
    _absent(config, keys / "store.key", keys / "tls.key", made.store_pub, made.certificate, *copied)
    _directory(store, private=True)
    _directory(keys, private=True)
    _directory(store / "stations")
    for path, content in copied.items():
        _new(path, content, mode=0o644)
    _new(keys / "store.key", key.private_pem())
    _new(keys / "tls.key", tls_key)
    _new(made.certificate, certificate, mode=0o644)
    _new(made.store_pub, format_store_pub(made.public).encode(), mode=0o644)
    sections: dict[str, dict[str, object]] = {
        "receiver": {
            "id": made.public.store,
            "listen": listen,
            "directory": _from(config, store),
            "public_hosts": hosts,
            "tls_cert": _from(config, made.certificate),
            "tls_key": _from(config, keys / "tls.key"),
        },
        "keys": {"store": _from(config, keys / "store.key")},
        "accept": {"recipients_file": _from(config, accepted), "min_recipients": _LEAST_RECIPIENTS},
    }
    _new(config, _toml("receiver.toml", sections, trial=trial), mode=0o644)
    return made


def init_station(
    directory: Path,
    *,
    receiver_url: str,
    ca: Path,
    store_key: Path,
    recipients: Path,
    state: Path | None = None,
    bays: Path | None = None,
    config: Path | None = None,
    trial: bool = False,
) -> StationSet:
    """A station's keys, bays and configuration. What it was handed is copied beside its keys, and so pinned.

    Keys go to `directory`/keys, state to `state` (default: `directory`/state). Raises ConfigError.
    """
    config = config or directory / "dockd.toml"
    state = state or directory / "state"
    keys, bays = directory / "keys", bays or directory / "bays"
    _check_url(receiver_url)
    pinned = {
        keys / "ca.crt": _certificates(ca),
        keys / "store.pub": _store_pub(store_key),
        keys / "recipients.txt": _recipients(recipients, least=_LEAST_RECIPIENTS),
    }
    manifest_key, checkpoint_key = SigningKey.generate(), SigningKey.generate()
    public = StationPublic(
        station=StationId(str(uuid.uuid4())), manifest_key=manifest_key.public, checkpoint_key=checkpoint_key.public
    )
    made = StationSet(config=config, station_pub=keys / "station.pub", bays=bays, public=public)
    _absent(config, *pinned, keys / "manifest.key", keys / "checkpoint.key", made.station_pub)
    _directory(state, private=True)
    _directory(keys, private=True)
    for path, content in pinned.items():
        _new(path, content, mode=0o644)
    _new(keys / "manifest.key", manifest_key.private_pem())
    _new(keys / "checkpoint.key", checkpoint_key.private_pem())
    _new(made.station_pub, format_station_pub(public).encode(), mode=0o644)
    for bay in range(1, TRIAL_BAYS + 1):
        (bays / str(bay)).mkdir(parents=True, exist_ok=True)
    sections: dict[str, dict[str, object]] = {
        "station": {"id": public.station, "state_dir": _from(config, state)},
        "keys": {
            "manifest": _from(config, keys / "manifest.key"),
            "checkpoint": _from(config, keys / "checkpoint.key"),
        },
        "bays": {"folder_root": _from(config, bays)},
        "seal": {"recipients_file": _from(config, keys / "recipients.txt")},
        "store.archive": {
            "kind": "receiver",
            "url": receiver_url,
            "ca_file": _from(config, keys / "ca.crt"),
            "key_file": _from(config, keys / "store.pub"),
        },
    }
    _new(config, _toml("dockd.toml", sections, trial=trial), mode=0o644)
    return made


def init_trial(directory: Path, listen: str) -> StationSet:
    """All three for one machine, the station enrolled at the receiver: both run as they are. For trials only."""
    authority, store, station = directory / "authority", directory / "store", directory / "station"
    config, receiver_config = directory / "dockd.toml", directory / "receiver.toml"
    _absent(config, receiver_config, authority, store, station, directory / "bays")
    hosts = _dialled(listen)
    _directory(directory)
    opened = init_authority(authority)
    receiver = init_receiver(
        store,
        listen,
        recipients=opened.recipients,
        public_hosts=hosts,
        config=receiver_config,
        store=store,
        trial=True,
    )
    _new(authority / "store.pub", receiver.store_pub.read_bytes(), mode=0o644)
    made = init_station(
        station,
        receiver_url=f"https://{hosts[0]}",
        ca=receiver.certificate,
        store_key=receiver.store_pub,
        recipients=opened.recipients,
        state=station,
        bays=directory / "bays",
        config=config,
        trial=True,
    )
    text = made.station_pub.read_text()
    _new(authority / "station.pub", text.encode(), mode=0o644)
    enrol(store, text)
    return made


# --- what is handed over


def _dialled(listen: str) -> tuple[str, ...]:
    """How stations reach a receiver that listens there. Raises ConfigError where only a person knows."""
    try:
        host, port = split_address(listen)
    except ValueError as error:
        raise ConfigError(f"--listen {listen}: {error}; expected HOST:PORT, like 127.0.0.1:8443") from error
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return (f"{host}:{port}", f"127.0.0.1:{port}") if host == "localhost" else (f"{host}:{port}",)
    if address.is_unspecified:
        raise ConfigError(
            f"--listen {listen} takes connections at every address: say with --public-host which one stations dial"
        )
    return (listen, f"localhost:{port}") if address.is_loopback else (listen,)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    try:
        usable = parts.scheme == "https" and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"--receiver {url}: expected https://HOST:PORT")


def _recipients(path: Path, *, least: int) -> bytes:
    content = _given(path)
    try:
        found = parse_recipients_file(content.decode(errors="replace"))
    except VerificationFailed as error:
        raise ConfigError(f"{path}: {error}") from error
    if len(set(found)) < least:
        raise ConfigError(
            f"{path} has {len(set(found))} recipients; at least {least} are needed, a working key and an escrow key"
        )
    return content


def _store_pub(path: Path) -> bytes:
    content = _given(path)
    try:
        parse_store_pub(content.decode(errors="replace"))
    except VerificationFailed as error:
        raise ConfigError(f"{path}: {error}") from error
    return content


def _certificates(path: Path) -> bytes:
    content = _given(path)
    if b"PRIVATE KEY" in content:
        raise ConfigError(f"{path} holds a private key, which must not leave the receiver: give its certificate alone")
    try:
        x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate in PEM") from error
    return content


def _given(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


# --- what is written


def _toml(name: str, sections: Mapping[str, Mapping[str, object]], *, trial: bool) -> bytes:
    """TOML of these sections. Keys that are left out have the defaults that config/ lists."""
    lines = [f"# Every key, with its default, is explained in config/{name}.", ""]
    if trial:
        lines += ["# A trial: this machine holds the keys that open its own clips.", "trial = true", ""]
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {_value(value)}" for key, value in keys.items()), ""]
    try:
        return "\n".join(lines).encode()
    except UnicodeEncodeError as error:
        raise ConfigError("a path is no UTF-8, which a configuration cannot say: choose another directory") from error


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, int):
        return str(value)
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _from(config: Path, path: Path) -> str:
    """`path` as the configuration says it: relative where it lies below, so that the set can be moved."""
    base, absolute = config.absolute().parent, path.absolute()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) and absolute != base else str(absolute)


def _absent(*paths: Path) -> None:
    there = [str(path) for path in paths if path.exists() or path.is_symlink()]
    if there:
        raise ConfigError(
            f"nothing was written, because nothing is ever overwritten: {', '.join(there)} is there already. "
            "Name another directory, or remove it first"
        )


def _directory(path: Path, *, private: bool = False) -> None:
    """Make it, for its owner alone. One that is there already stays as it is, unless it has to be `private`."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if private:
        path.chmod(0o700)
    fsync_directory(path.parent)


def _new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, content, mode=mode)
