"""What a receiver is started with. The composition root fills it in from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from dockd.core.sshsig import SigningKey
from dockd.model import StationId, StoreId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSettings:
    """One receiver. Durations are timedeltas, sizes are bytes."""

    directory: Path  # all that is received; this program alone may use it
    listen_host: str
    listen_port: int  # 0: any free one, told through `ready`
    tls_cert: Path  # PEM, with its chain
    tls_key: Path  # PEM
    store: StoreId
    key: SigningKey  # signs receipts, holding statements and cosignatures
    public_hosts: frozenset[str]  # "host:port" as stations dial it; a session names one of them
    allowed_recipients: frozenset[str]  # fingerprints (core.sealing)
    min_stanzas: int = 2
    retention: timedelta = timedelta(days=365)
    token_lifetime: timedelta = timedelta(hours=1)
    upload_expiry: timedelta = timedelta(days=14)  # since the last byte arrived
    max_clip_bytes: int = 64 * 1024**3  # of a sealed clip
    reserve_bytes: int = 256 * 1024**2  # of the disk, never promised to an upload
    lookups: Mapping[StationId, frozenset[StationId]] = field(default_factory=dict)  # who may ask about whose clips
    holding_rehash: bool = False  # read the whole object again for each holding statement
    stall: timedelta = timedelta(seconds=60)  # a PATCH that brings no byte for so long is ended
    takeover: timedelta = timedelta(seconds=10)  # ... and for so long gives way to another PATCH of its upload
    scrub_every: timedelta = timedelta(days=30)  # each stored object is read again once in so long
    scrub_first_within: timedelta = timedelta(days=1)  # ... and the first time within so long of its receipt
    scrub_bytes_per_s: int = 50_000_000
