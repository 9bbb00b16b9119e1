"""What the files of a configuration hold: keys that fit, recipients that are enough, a sound certificate."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from dockd.app.guard import readable_secrets
from dockd.app.stores import policy_of, read_back_rate, store_id, trusted_stations
from dockd.blocker.allowed import writable_by_others
from dockd.config.load import problem, refused
from dockd.config.schema import ReceiverConfig, StationConfig
from dockd.config.stores import AxisStore, Foreign, ReceiverStore, S3Store, Store, TusStore, WebIdentity
from dockd.core.keyfiles import parse_store_pub
from dockd.core.sealing import Recipient, parse_recipients_file
from dockd.core.sshsig import SigningKey
from dockd.errors import ConfigError, VerificationFailed
from dockd.station.limits import caps_of
from dockd.station.reload import known_profiles
from dockd.stores.s3_signing import Signer

_T = TypeVar("_T")
_LEAST_RECIPIENTS = 2
_SOON = timedelta(days=30)
_OLD_DAYS = (
    "retention.days is of an older version, where it was said for all clips: call it legacy_days. Stations of that "
    "version alone are still told {} days; how long clips are kept is said by category now (retention.categories)"
)


def check_station(path: Path, config: StationConfig) -> None:
    """Raises ConfigError with every mistake in the files that `config`, read from `path`, names; nothing is changed.

    Outside a trial, a key that must not be on a dock is one of them.
    """
    found = _Findings(path)
    manifest = found.parse("keys.manifest", config.keys.manifest, SigningKey.parse)
    checkpoint = found.parse("keys.checkpoint", config.keys.checkpoint, SigningKey.parse)
    if manifest and checkpoint and manifest.public == checkpoint.public:
        found.add("keys.checkpoint", "the same key as keys.manifest", "a key of its own")
    recipients = found.parse("seal.recipients_file", config.seal.recipients_file, _recipients)
    if recipients is not None and len(set(recipients)) < _LEAST_RECIPIENTS and not config.trial:
        found.add(
            "seal.recipients_file",
            f"{len(set(recipients))} recipients in {config.seal.recipients_file}",
            "at least two, a working key and an escrow key",
        )
    ids: dict[str, str] = {}
    for name, one in config.store.items():
        found.connection(f"store.{name}", one)
        if not isinstance(one, ReceiverStore):
            ids[store_id(one)] = name
            found.foreign(f"store.{name}", one)
            continue
        found.trusted(name, one, config.station.id)
        store = found.parse(f"store.{name}.key_file", one.key_file, lambda content: parse_store_pub(_text(content)))
        if store is not None and store.store in ids:
            found.add(f"store.{name}.key_file", f"the same store as store.{ids[store.store]}", "a store of its own")
        elif store is not None:
            ids[store.store] = name
    try:
        policy_of(config)
    except ValueError as error:
        found.add("stores.erase_when", str(error), "a policy that these stores can satisfy (config/dockd.toml)")
    found.lines += [f"{path}: {line}" for line in _problems(lambda: caps_of(config.uplink))]
    found.lines += _problems(lambda: known_profiles(config))
    if recipients and len(ids) == len(config.store) and not config.trial:
        found.lines += [
            f"{path}: {secret}: move it off this machine, or say `trial = true` where no real evidence is handled"
            for secret in readable_secrets(path, config)
        ]
    found.finish()


def _problems(look: Callable[[], object]) -> Sequence[str]:
    try:
        look()
    except ConfigError as error:
        return error.problems
    return ()


def check_receiver(path: Path, config: ReceiverConfig) -> None:
    """The same for a receiver."""
    found = _Findings(path)
    found.parse("keys.store", config.keys.store, SigningKey.parse)
    recipients = found.parse("accept.recipients_file", config.accept.recipients_file, _recipients)
    least = config.accept.min_recipients
    if recipients is not None and len(set(recipients)) < least:
        found.add(
            "accept.recipients_file",
            f"{len(set(recipients))} recipients in {config.accept.recipients_file}",
            f"at least {least}, as accept.min_recipients says",
        )
    found.certificate("receiver.tls_cert", config.receiver.tls_cert, config.receiver.tls_key)
    found.finish()


def careful_ports(path: Path, config: StationConfig) -> tuple[str, ...]:
    """A sentence where the write blocker will not believe this file, and so touch no camera."""
    if not config.bays.ports or not writable_by_others(path):
        return ()
    words = "the write blocker takes no list of ports from it, and refuses every camera"
    repair = "give it, and the directories above it, to root alone"
    return (f"bays.ports: {path} may be changed by others than root: {words}; {repair}",)


def careful_station(config: StationConfig, now: datetime) -> tuple[str, ...]:
    """Sentences about what is no mistake, and stops a station that was checked all the same, now or soon."""
    found: list[str] = []
    for name, store in config.store.items():
        effect = f"nothing is sent to {name}, nor erased on its word"
        for key, file in (("ca_file", store.ca_file), ("client_cert", store.client_cert)):
            if file is not None:
                own = _certificates(file)[: 1 if key == "client_cert" else None]
                found += _expiry(f"store.{name}.{key}: {file}", own, now, effect)
        found += _missing_secrets(name, store)
    return tuple(found)


def careful_receiver(config: ReceiverConfig, now: datetime) -> tuple[str, ...]:
    """The same for a receiver."""
    file = config.receiver.tls_cert
    own = _certificates(file)[:1]  # what follows only leads to its authority
    found = _expiry(f"receiver.tls_cert: {file}", own, now, "stations send nothing to this receiver")
    if config.retention.says_days:
        found = (*found, _OLD_DAYS.format(config.retention.legacy_days))
    return found


def _missing_secrets(name: str, store: Store) -> list[str]:
    """What signs in to a store, and is not there yet: whoever renews it may be late."""
    named: list[tuple[str, Path | None]] = []
    match store:
        case TusStore():
            named = [("authorization_file", store.authorization_file)]
        case S3Store(web_identity=WebIdentity() as identity):
            named = [("web_identity.token_file", identity.token_file)]
        case S3Store() | AxisStore():
            named = [("credentials_file", store.credentials_file)]
    return [
        f"store.{name}.{key}: {file} is not there: nothing is sent to {name} until it is"
        for key, file in named
        if file is not None and not file.exists()
    ]


def _certificates(file: Path) -> list[x509.Certificate]:
    """Those in a file that OpenSSL can use; none where it says in a way of its own what they are."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError:
        return []


def _expiry(what: str, certificates: list[x509.Certificate], now: datetime, effect: str) -> tuple[str, ...]:
    """Whether one of the certificates is good for a while. Others beside it may be old, or not good yet."""
    if not certificates:
        return ()
    begun = [one for one in certificates if one.not_valid_before_utc <= now]
    if not begun:
        first = min(one.not_valid_before_utc for one in certificates)
        return (f"{what} is not valid before {first:%Y-%m-%d %H:%M} UTC: until then {effect}",)
    last = max(one.not_valid_after_utc for one in begun)
    if last < now:
        return (f"{what} expired on {last:%Y-%m-%d %H:%M} UTC: {effect} until it is replaced",)
    if last < now + _SOON:
        return (f"{what} expires on {last:%Y-%m-%d %H:%M} UTC: from then on {effect}",)
    return ()


class _Findings:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: list[str] = []

    def add(self, key: str, what: str, allowed: str) -> None:
        self.lines.append(problem(self._path, key, what, allowed))

    def parse(self, key: str, file: Path, parse: Callable[[bytes], _T]) -> _T | None:
        try:
            return parse(file.read_bytes())
        except OSError as error:
            self.add(key, f"{file} ({error.strerror})", "a file that the daemon's user can read")
        except VerificationFailed as error:
            self.add(key, f"{file} ({error})", "a file as `dockd init` writes it")
        return None

    def authorities(self, key: str, file: Path) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
        except (OSError, ssl.SSLError):
            self.add(key, f"{file} (no certificate in it)", "certificates in PEM")

    def connection(self, key: str, store: Store) -> None:
        """Whom it believes, and what it shows."""
        if store.ca_file is not None:
            self.authorities(f"{key}.ca_file", store.ca_file)
        if store.client_cert is not None and store.client_key is not None:
            self.certificate(f"{key}.client_cert", store.client_cert, store.client_key)

    def trusted(self, name: str, store: ReceiverStore, own: str) -> None:
        """The stations that are trusted there, and their keys."""
        key = f"store.{name}.trust_stations"
        if own in store.trust_stations:
            self.add(key, f"{own}, which is this station itself", "other stations")
        try:
            trusted_stations(name, store)
        except ConfigError as error:
            self.lines += error.problems
        except VerificationFailed as error:
            self.add(key, str(error), "a station.pub as `dockd init` writes it, called UUID.pub, for each of them")

    def foreign(self, key: str, store: Foreign) -> None:
        """What a store that does not sign has besides."""
        try:
            read_back_rate(store)
        except ValueError as error:
            self.add(f"{key}.read_back_rate", str(error), 'a rate like "50 Mbit/s", of 64 kbit/s at least')
        if isinstance(store, S3Store):
            try:
                Signer(store.region)
            except ConfigError as error:
                self.lines += error.problems

    def certificate(self, name: str, cert: Path, key: Path) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
            self.add(
                name,
                f"{cert} and {key} ({reason})",
                "a certificate in PEM and the unencrypted key that belongs to it",
            )

    def finish(self) -> None:
        if self.lines:
            raise refused(self._path, self.lines)


def _recipients(content: bytes) -> tuple[Recipient, ...]:
    return parse_recipients_file(_text(content))


def _text(content: bytes) -> str:
    return content.decode(errors="replace")
