"""Open the stores that a configuration names, and say what their words are worth together."""

from __future__ import annotations

import os
import secrets
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from dockd.config.schema import StationConfig
from dockd.config.stores import AnyStore, AxisStore, CountedStores, Foreign, ReceiverStore, S3Store, Store, TusStore
from dockd.core.bandwidth import parse_rate
from dockd.core.findings import Answer, Findings
from dockd.core.keyfiles import parse_station_pub, parse_store_pub
from dockd.core.policy import CountOf, EraseWhen, PolicyStore, StorePolicy
from dockd.core.retention import Terms, Until
from dockd.core.sshsig import PublicKey, SigningKey
from dockd.errors import ConfigError, VerificationFailed
from dockd.keep.spool import Spool
from dockd.model import Category, Clock, StationId, StoreId
from dockd.stages.upload import part_digests
from dockd.station.outlet import Keeping, Outlet, Signing
from dockd.stores import axis_probe, receiver_probe, s3_lifecycle, s3_probe, tus_probe, way
from dockd.stores.axis import AxisStore as Axis
from dockd.stores.axis_session import CredentialFile
from dockd.stores.credentials import CredentialSource, EnvironmentCredentials, FileCredentials
from dockd.stores.header_file import HeaderFile
from dockd.stores.port import ObjectStore
from dockd.stores.probing import Probing
from dockd.stores.receiver_store import ReceiverStore as Receiver
from dockd.stores.s3 import S3Store as Bucket
from dockd.stores.s3_records import Lock, LockMode
from dockd.stores.tls import ClientCertificate
from dockd.stores.tus_store import TusStore as Tus
from dockd.stores.web_identity import WebIdentityCredentials
from dockd.stores.wire import Pace, Timeouts

_PLACES = uuid.UUID("5f0c7d8e-0d5c-4c57-9d5e-6f1f5c1a7a42")  # docs/formats.md: the namespace of stores that do not sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the station is to a store, and what an adapter needs of it."""

    station: StationId
    key: SigningKey
    clock: Clock
    spool: Spool | None  # None: nothing will be sent
    pace: Pace | None = None  # of all bytes that are sent; None: as fast as they go


def open_store(name: str, section: AnyStore, identity: Identity, closing: AsyncExitStack) -> Outlet:
    """The store of `[store.NAME]`; nothing is sent to it yet. `closing` closes what it holds. Raises ConfigError."""
    if isinstance(section, ReceiverStore):
        receiver = _receiver(name, section, identity)
        closing.push_async_callback(receiver.aclose)
        asked: Callable[[], Awaitable[Findings]] = partial(receiver_probe.probe, receiver, random=secrets.token_bytes)
        confirming: Signing | Keeping = Signing(port=receiver, trusted=trusted_stations(name, section))
    else:
        keeper, probing = _keeper(section, identity, closing)
        confirming = Keeping(port=keeper, read_back_bytes_s=read_back_rate(section), probing=probing)
        asked = partial(s3_lifecycle.look, keeper) if isinstance(keeper, Bucket) else s3_lifecycle.nothing_known
    return Outlet(
        way=confirming,
        slots=section.slots,
        patch_bytes=section.patch_bytes,
        failover_after_s=float(section.failover_after_s),
        looked_at=partial(_look, section, identity.clock, asked),
    )


async def _look(section: AnyStore, clock: Clock, asked: Callable[[], Awaitable[Findings]]) -> Findings:
    """The way to a store, and where that holds, what it says to this station."""
    found = await way.look(
        section.url,
        clock=clock,
        timeouts=_timeouts(section),
        ca_file=section.ca_file,
        least=ssl.TLSVersion.TLSv1_3 if isinstance(section, ReceiverStore) else ssl.TLSVersion.TLSv1_2,
        certificate=_certificate(section),
        proxy_url=section.proxy_url,
    )
    return (*found, *await asked()) if found[0].answer is Answer.YES else found


def _keeper(section: Foreign, identity: Identity, closing: AsyncExitStack) -> tuple[ObjectStore, Probing]:
    """The adapter of a store that does not sign, and how that store is tried."""
    random, clock = secrets.token_bytes, identity.clock
    match section:
        case TusStore():
            tus, another = _tus(section, identity), _tus(section, identity)
            closing.push_async_callback(tus.aclose)
            closing.push_async_callback(another.aclose)
            return tus, Probing(probe=lambda: tus_probe.probe(tus, another, random=random), believe=_nothing)
        case S3Store():
            bucket = _s3(section, identity, closing)
            closing.push_async_callback(bucket.aclose)

            def believe(findings: Findings) -> None:
                bucket.believed = s3_probe.believed(findings)

            return bucket, Probing(
                probe=lambda: s3_probe.probe(bucket, random=random, clock=clock), believe=believe, about=section.lock
            )
        case AxisStore():
            axis = _axis(section, identity)
            closing.push_async_callback(axis.aclose)

            def join(findings: Findings) -> None:
                axis.joins_pieces = axis_probe.joins_pieces(findings)

            return axis, Probing(probe=lambda: axis_probe.probe(axis, random=random), believe=join)


def _nothing(findings: Findings) -> None:
    """A tus server's objects are read back whatever it says; its checksums are tried in each life by its adapter."""


def store_id(section: Foreign) -> StoreId:
    """The id of a store that has none of its own: of the place, so another place is another store."""
    return StoreId(str(uuid.uuid5(_PLACES, section.place)))


def read_back_rate(section: Foreign) -> int:
    """Bytes a second; 0 for no limit. Raises ValueError for what is no rate."""
    return 0 if section.read_back_rate is None else parse_rate(section.read_back_rate)


def policy_of(config: StationConfig, ids: Mapping[str, StoreId] | None = None) -> StorePolicy:
    """The store policy, with the stores' ids where they are known by now, else with their names.

    Raises ValueError for one that these stores cannot satisfy.
    """

    def id_of(name: str) -> StoreId:
        return (ids or {}).get(name, StoreId(name))

    wanted = config.stores.erase_when
    if isinstance(wanted, CountedStores):
        when: EraseWhen | CountOf = CountOf(count=wanted.count, of=tuple(id_of(name) for name in wanted.of))
    else:
        when = EraseWhen(wanted)
    return StorePolicy(
        [
            PolicyStore(
                store=id_of(name),
                name=name,
                final=one.is_final,
                fallback_for=None if one.fallback_for is None else id_of(one.fallback_for),
                min_retention=timedelta(0 if isinstance(one, ReceiverStore) else one.min_retention_days),
                minima=_minima(one) if isinstance(one, ReceiverStore) else {},
                trust_stations=_trusted(one),
                place="" if isinstance(one, ReceiverStore) else one.place,
            )
            for name, one in config.store.items()
        ],
        when,
        timedelta(days=config.stores.margin_days),
    )


def _minima(section: ReceiverStore) -> dict[str, Terms]:
    return {
        name: Terms(
            until=Until(one.until),
            recorded_days=one.recorded_days,
            review_days=one.review_days,
            undo_days=one.undo_days,
        )
        for name, one in section.minima.items()
    }


def trusted_stations(name: str, section: ReceiverStore) -> Mapping[StationId, PublicKey]:
    """The stations whose objects may stand for this one's, with the keys of their manifests.

    Raises ConfigError, VerificationFailed for a file that is none of station keys or of another station's.
    """
    found = {}
    for station in sorted(_trusted(section)):
        file = section.stations_directory / f"{station}.pub"
        public = parse_station_pub(read_file(file, f"store.{name}.trust_stations").decode(errors="replace"))
        if public.station != station:
            raise VerificationFailed(f"{file} has the keys of station {public.station}")
        found[station] = public.manifest_key
    return found


def _trusted(section: Store) -> frozenset[StationId]:
    return frozenset(map(StationId, section.trust_stations)) if isinstance(section, ReceiverStore) else frozenset()


def read_file(path: Path, key: str) -> bytes:
    """What a key of the configuration names. Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{key}: {path} cannot be read: {error.strerror}", problems=(f"{key}: {path}: {error.strerror}",)
        ) from error


def _receiver(name: str, section: ReceiverStore, identity: Identity) -> Receiver:
    return Receiver(
        url=section.url,
        store_public=parse_store_pub(read_file(section.key_file, f"store.{name}.key_file").decode()),
        station=identity.station,
        key=identity.key,
        ca_file=section.ca_file,
        certificate=_certificate(section),
        proxy_url=section.proxy_url,
        clock=identity.clock,
        timeouts=_timeouts(section),
        pace=identity.pace,
    )


def _tus(section: TusStore, identity: Identity) -> Tus:
    return Tus(
        name=store_id(section),
        url=section.url,
        objects_url=section.objects_url,
        authorization=None if section.authorization_file is None else HeaderFile(section.authorization_file),
        ca_file=section.ca_file,
        certificate=_certificate(section),
        proxy_url=section.proxy_url,
        clock=identity.clock,
        random=secrets.token_bytes,
        timeouts=_timeouts(section),
        pace=identity.pace,
    )


def _s3(section: S3Store, identity: Identity, closing: AsyncExitStack) -> Bucket:
    return Bucket(
        name=store_id(section),
        url=section.url,
        bucket=section.bucket,
        region=section.region,
        prefix=section.prefix,
        bucket_in_host=section.bucket_in_host,
        part_bytes=section.part_bytes,
        lock=_lock(section),
        credentials=access_keys(section, identity, closing),
        part_digests=None if identity.spool is None else partial(part_digests, identity.spool),
        station=identity.station,
        ca_file=section.ca_file,
        certificate=_certificate(section),
        proxy_url=section.proxy_url,
        clock=identity.clock,
        timeouts=_timeouts(section),
        pace=identity.pace,
    )


def _axis(section: AxisStore, identity: Identity) -> Axis:
    return Axis(
        name=store_id(section),
        url=section.url,
        credentials=CredentialFile(section.credentials_file),
        station=identity.station,
        station_name=section.station_name,
        everything=section.full_store,
        key_objects=section.key_objects,
        ca_file=section.ca_file,
        certificate=_certificate(section),
        proxy_url=section.proxy_url,
        clock=identity.clock,
        timeouts=_timeouts(section),
        pace=identity.pace,
    )


def _lock(section: S3Store) -> Lock | None:
    if section.lock == "none":
        return None
    return Lock(
        mode=LockMode(section.lock.upper()),
        days={Category.NONE: section.lock_days, Category.EVIDENCE: section.evidence_days},
        hold=frozenset({Category.EVIDENCE}) if section.legal_hold else frozenset(),
    )


def access_keys(section: S3Store, identity: Identity, closing: AsyncExitStack) -> CredentialSource:
    """Where the keys that sign requests to a bucket come from; `closing` closes what it holds."""
    if section.web_identity is not None:
        source = WebIdentityCredentials(
            url=section.web_identity.url,
            role=section.web_identity.role,
            session_name=f"dockd-{identity.station}",
            token_file=section.web_identity.token_file,
            lifetime=timedelta(seconds=section.web_identity.lifetime_s),
            ca_file=section.web_identity.ca_file or section.ca_file,
            clock=identity.clock,
            timeouts=_timeouts(section),
        )
        closing.push_async_callback(source.aclose)
        return source
    if section.credentials_file is not None:
        return FileCredentials(section.credentials_file, profile=section.credentials_profile)
    return EnvironmentCredentials(os.environ)


def _certificate(section: Store) -> ClientCertificate | None:
    if section.client_cert is None or section.client_key is None:
        return None
    return ClientCertificate(cert_file=section.client_cert, key_file=section.client_key)


def _timeouts(store: Store) -> Timeouts:
    """A block may take twice, a small exchange three times as long as the wait for the next bytes of an answer."""
    read_s = store.read_timeout_s
    return Timeouts(connect_s=store.connect_timeout_s, read_s=read_s, write_s=2 * read_s, exchange_s=3 * read_s)
