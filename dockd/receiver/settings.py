"""What a receiver is started with. The composition root fills it in from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from dockd.core.retention import Terms, usual_terms
from dockd.core.sshsig import SigningKey
from dockd.model import StationId, StoreId


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What peers may hold open, and for how long. docs/operations.md has the arithmetic of memory."""

    connections: int = 1024  # in all; each costs some 280 KiB once its TLS handshake began
    strangers: int = 256  # of them, those that have shown no token, from peers without a session
    per_peer: int = 32  # of an address (IPv6: 64 bits of it) that have shown no token
    per_station: int = 64  # that have shown a token of one station
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # addresses that stand for many peers: no limit by peer
    known_s: float = 3600.0  # a peer from which a station opened a session is known for so long
    peer_burst: float = 64.0  # connections and requests without a token that a peer may have at once ...
    peer_per_s: float = 16.0  # ... and so many more a second
    known_factor: float = 8.0  # times both, for a peer that is known
    first_byte_s: float = 10.0  # from the connection on; TLS costs nothing before it
    handshake_s: float = 10.0
    head_s: float = 20.0  # for a request's head
    idle_s: float = 30.0  # between two requests
    drain_s: float = 60.0  # for the rest of a body that was answered before its end
    answer_s: float = 30.0  # for a peer that does not read what it asked for
    close_s: float = 5.0  # for the end of TLS
    head_bytes: int = 64 * 1024  # of a request's line and headers, and of what frames a body
    headers: int = 100
    drain_bytes: int = 128 * 1024**2  # after the answer; a station's PATCH has at most 64 MiB
    pipelined: int = 8  # requests that wait behind one that is being answered


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
    categories: Mapping[str, Terms] = field(default_factory=usual_terms)  # how long clips of each are kept
    legacy: timedelta = timedelta(days=32)  # from now, at least: what receipts say to stations that know no rules
    token_lifetime: timedelta = timedelta(hours=1)
    upload_expiry: timedelta = timedelta(days=14)  # since the last byte arrived
    max_clip_bytes: int = 64 * 1024**3  # of a sealed clip
    station_percent: int = 10  # of the disk, for what one station has announced and not finished ...
    station_least_bytes: int = 800 * 10**9  # ... and no less than this, or half of the disk where that is less
    station_unfinished: int = 256  # uploads of one station
    unused_expiry: timedelta = timedelta(days=1)  # of an announcement without a byte
    reserve_bytes: int = 256 * 1024**2  # of the disk, never promised to an upload
    lookups: Mapping[StationId, frozenset[StationId]] = field(default_factory=dict)  # who may ask about whose clips
    holding_rehash: bool = False  # read the whole object again for each holding statement
    stall: timedelta = timedelta(seconds=60)  # a PATCH that brings no byte for so long is ended
    limits: Limits = Limits()
    takeover: timedelta = timedelta(seconds=10)  # ... and for so long gives way to another PATCH of its upload
    scrub_every: timedelta = timedelta(days=30)  # each stored object is read again once in so long
    scrub_first_within: timedelta = timedelta(days=1)  # ... and the first time within so long of its receipt
    scrub_bytes_per_s: int = 50_000_000

    def expiry(self, durable_bytes: int) -> timedelta:
        """How long an unfinished upload is kept from now on; what brought no byte has only reserved room."""
        return self.upload_expiry if durable_bytes else min(self.unused_expiry, self.upload_expiry)

    def station_share(self, disk_bytes: int) -> int:
        """How many bytes one station may have in unfinished uploads, on a disk of this size.

        On a small disk what a whole dock brings would be all of it: no station ever reserves more than half by that.
        """
        return max(disk_bytes * self.station_percent // 100, min(self.station_least_bytes, disk_bytes // 2))
