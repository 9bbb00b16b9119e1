"""The composition root of the receiver."""

from __future__ import annotations

import ctypes
import secrets
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

from dockd import faults, log
from dockd.app.check import check_receiver
from dockd.app.clock import MachineClock
from dockd.app.running import run_until_signal
from dockd.config.load import load_receiver
from dockd.config.retention import Retention
from dockd.config.schema import ReceiverConfig
from dockd.core.retention import Terms, Until, usual_terms
from dockd.core.sealing import parse_recipients_file
from dockd.core.sshsig import SigningKey
from dockd.model import Category, StationId, StoreId
from dockd.receiver.serve import serve
from dockd.receiver.settings import Limits, ReceiverSettings

_M_MMAP_THRESHOLD = -3  # malloc.h
_TLS_BUFFER_BYTES = 256 * 1024


def run(config_path: Path) -> int:
    """Run the receiver until a signal; returns the exit code. Raises ConfigError before anything is opened."""
    config = load_receiver(config_path)
    log.set_up(config.log.level, config.log.format)
    check_receiver(config_path, config)
    _give_memory_back()
    settings = _settings(config)
    return run_until_signal(
        lambda: serve(
            settings,
            clock=MachineClock(),
            random=secrets.token_bytes,
            ready=lambda _address: None,
            faults=faults.from_environment(),
        )
    )


def _give_memory_back() -> None:
    """Have the C library return the buffers of closed connections to the system.

    asyncio keeps 256 KiB for each TLS connection. glibc takes such a block from the system and returns it, but raises
    the size from which it does so to that of the first one that is freed (mallopt(3), "M_MMAP_THRESHOLD"): from then on
    they lie between others in the heap, and stay. Setting the size ends that. Other C libraries have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _TLS_BUFFER_BYTES)


def _settings(config: ReceiverConfig) -> ReceiverSettings:
    host, port = config.receiver.address
    recipients = parse_recipients_file(config.accept.recipients_file.read_text())
    return ReceiverSettings(
        directory=config.receiver.directory,
        listen_host=host,
        listen_port=port,
        tls_cert=config.receiver.tls_cert,
        tls_key=config.receiver.tls_key,
        store=StoreId(config.receiver.id),
        key=SigningKey.parse(config.keys.store.read_bytes()),
        public_hosts=frozenset(config.receiver.public_hosts),
        allowed_recipients=frozenset(recipient.fingerprint for recipient in recipients),
        min_stanzas=config.accept.min_recipients,
        categories=categories_of(config.retention),
        legacy=timedelta(days=config.retention.legacy_days),
        token_lifetime=timedelta(seconds=config.uploads.token_lifetime_s),
        upload_expiry=timedelta(seconds=config.uploads.expire_after_s),
        max_clip_bytes=config.accept.max_clip_bytes,
        holding_rehash=config.uploads.holding_rehash,
        scrub_every=timedelta(days=config.scrub.every_days),
        scrub_first_within=timedelta(seconds=config.scrub.first_within_s),
        scrub_bytes_per_s=config.scrub.bytes_per_s,
        station_percent=config.uploads.station_percent,
        station_least_bytes=config.uploads.station_least_bytes,
        station_unfinished=config.uploads.station_unfinished,
        limits=Limits(
            connections=config.connections.most,
            strangers=config.connections.most // 4,
            per_peer=config.connections.per_peer,
            per_station=config.connections.per_station,
            proxies=tuple(ip_network(one) for one in config.connections.proxies),
        ),
        lookups={
            StationId(station): frozenset(StationId(one) for one in others)
            for station, others in config.lookups.permit.items()
        },
    )


def categories_of(config: Retention) -> dict[str, Terms]:
    """The policy by category: as it is configured, and as is usual where nothing is said."""
    usual = usual_terms()
    said = {
        name: Terms(
            until=Until(one.until) if one.until else usual.get(name, usual[Category.NONE]).until,
            recorded_days=one.recorded_days,
            review_days=one.review_days,
            undo_days=one.undo_days,
        )
        for name, one in config.categories.items()
    }
    return usual | said
