"""The two configurations, key by key. Each key's description says what is allowed; error messages quote it.

config/dockd.toml and config/receiver.toml list every key; a test compares them with this file both ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, Field, model_validator

from dockd.config.retention import Retention
from dockd.config.stores import AnyStore, Policy, StoreName
from dockd.config.tables import (
    MIB,
    UUID,
    Address,
    FilePath,
    StationName,
    Table,
    distinct,
    listing,
    path,
    size,
    split_address,
    whole,
)
from dockd.config.uplink import Uplink
from dockd.model import BayNumber

CLIP_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".ts", ".mts", ".m2ts", ".mkv", ".3gp")

_BAY = re.compile(r"[1-9][0-9]{0,3}")
_PORT = re.compile(
    r"[A-Za-z0-9:._-]{1,64}/[1-9][0-9]{0,2}(?:\.[1-9][0-9]{0,2}){0,6}"
)  # six hubs at most: USB 2.0, 4.1.1


def _suffix(text: str) -> str:
    if not re.fullmatch(r"\.[A-Za-z0-9]{1,16}", text):
        raise ValueError("no suffix")
    return text.lower()


def _name(text: str) -> str:
    if not text or "/" in text or "\x00" in text or text in (".", ".."):
        raise ValueError("no name of a directory")
    return text


def _network(text: str) -> str:
    ip_network(text)  # raises ValueError
    return text


def _bay(text: str) -> str:
    if not _BAY.fullmatch(text):
        raise ValueError("no bay number")
    return text


def _port(text: str) -> str:
    if not _PORT.fullmatch(text):
        raise ValueError("no USB port")
    return text


def _distinct_ports(bays: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    distinct(tuple(port for ports in bays.values() for port in ports))
    if not all(bays.values()):
        raise ValueError("a bay without a port")
    return bays


Suffix = Annotated[str, AfterValidator(_suffix)]
DirectoryName = Annotated[str, AfterValidator(_name)]
BayName = Annotated[str, AfterValidator(_bay)]
UsbPort = Annotated[str, AfterValidator(_port)]


class Log(Table):
    """`[log]`, in both files."""

    level: Annotated[
        str, Field(pattern=r"^(debug|info|warning|error)$", description='"debug", "info", "warning" or "error"')
    ] = "info"
    format: Annotated[
        str,
        Field(pattern=r"^(auto|json|console)$", description='"auto" (JSON unless on a terminal), "json" or "console"'),
    ] = "auto"


# --- the station


class Station(Table):
    """Who this station is and where it keeps its state."""

    id: Annotated[
        str, Field(pattern=f"^{UUID}$", description="the station's UUID in lower case, as `dockd init` made it")
    ]
    state_dir: Annotated[FilePath, path("a directory of the station's own (mode 0700)")] = Path("/var/lib/dockd")
    socket: Annotated[FilePath | None, path("the path of the control socket")] = None


class StationKeys(Table):
    """The two private keys of a station, both Ed25519 in OpenSSH's form."""

    manifest: Annotated[FilePath, path("the file of the private key that signs manifests and sessions (mode 0600)")]
    checkpoint: Annotated[FilePath, path("the file of the private key that signs checkpoints (mode 0600)")]


class Bays(Table):
    """Where cameras appear: directories, USB ports, or both."""

    folder_root: Annotated[FilePath | None, path("a directory whose numbered subdirectories (1, 2, ...) are bays")] = (
        None
    )
    ports: Annotated[
        Mapping[BayName, Annotated[tuple[UsbPort, ...], Field(strict=False)]],
        Field(
            max_length=256,
            description='a table of bay numbers, each with a list of USB ports, like 1 = ["0000:00:14.0/1"], '
            "each port once (`dockd bays learn` writes it)",
        ),
        AfterValidator(_distinct_ports),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.folder_root is None and not self.ports:
            raise ValueError("no bay at all")
        return self

    def port_numbers(self) -> Mapping[str, BayNumber]:
        """The bay of each USB port."""
        return {port: BayNumber(int(bay)) for bay, ports in self.ports.items() for port in ports}


class Cameras(Table):
    """What kinds of cameras are known (docs/cameras.md). Takes effect with the next docking."""

    directory: Annotated[FilePath, path("a directory of camera profiles")] = Path("/etc/dockd/cameras.d")


class Blocker(Table):
    """The privileged unit that mounts and locks the volumes of USB cameras."""

    socket: Annotated[FilePath, path("the path of its socket")] = Path("/run/dockd-blocker.sock")


class Seal(Table):
    """To whom clips are sealed."""

    recipients_file: Annotated[FilePath, path("a file of age recipients, one `age1...` a line, at least two")]


class Acquire(Table):
    """What a clip is, and how it is read. Takes effect with the next docking."""

    block_kib: Annotated[int, whole(256, 4096, "KiB")] = 1024
    suffixes: Annotated[
        tuple[Suffix, ...], listing('file name suffixes like ".mp4"', least=1), AfterValidator(distinct)
    ] = CLIP_SUFFIXES
    evidence_directories: Annotated[
        tuple[DirectoryName, ...], listing("directory names without a slash"), AfterValidator(distinct)
    ] = ("EVIDENCE",)
    max_depth: Annotated[int, whole(1, 64)] = 16
    max_files: Annotated[int, whole(1, 1_000_000)] = 50_000


class Spool(Table):
    """Sealed clips on this machine's disk."""

    directory: Annotated[FilePath | None, path("a directory (mode 0700)")] = None
    max_bytes: Annotated[int, size(0)] = 0
    reserve_bytes: Annotated[int, size(0)] = 256 * MIB
    keep_after_receipt_s: Annotated[int, whole(0, 366 * 86400, "seconds")] = 86_400


class StationConfig(Table):
    """dockd.toml."""

    trial: Annotated[bool, Field(description="true or false")] = False
    station: Annotated[Station, Field(description="a table [station]")]
    keys: Annotated[StationKeys, Field(description="a table [keys]")]
    bays: Annotated[Bays, Field(description="a table [bays] with folder_root, [bays.ports] or both")]
    cameras: Annotated[Cameras, Field(description="a table [cameras]")] = Cameras()
    blocker: Annotated[Blocker, Field(description="a table [blocker]")] = Blocker()
    seal: Annotated[Seal, Field(description="a table [seal]")]
    acquire: Annotated[Acquire, Field(description="a table [acquire]")] = Acquire()
    spool: Annotated[Spool, Field(description="a table [spool]")] = Spool()
    store: Annotated[
        Mapping[StoreName, AnyStore],
        Field(
            min_length=1,
            max_length=16,
            description="a table [store.NAME] for each store, NAME of up to 32 lower-case letters, digits and hyphens",
        ),
    ]
    stores: Annotated[Policy, Field(description="a table [stores]")] = Policy()
    uplink: Annotated[Uplink, Field(description="a table [uplink]")] = Uplink()
    log: Annotated[Log, Field(description="a table [log]")] = Log()

    @property
    def socket_path(self) -> Path:
        """The control socket: as configured, else in the state directory of a trial, else in /run."""
        if self.station.socket is not None:
            return self.station.socket
        return self.station.state_dir / "control.sock" if self.trial else Path("/run/dockd/control.sock")

    @property
    def spool_directory(self) -> Path:
        """The spool: as configured, else in the state directory."""
        return self.spool.directory or self.station.state_dir / "spool"

    def bay_directories(self) -> Mapping[BayNumber, Path]:
        """The numbered directories under `bays.folder_root`, as they are now; none without it. Raises OSError."""
        root = self.bays.folder_root
        found = [entry for entry in root.iterdir() if _BAY.fullmatch(entry.name)] if root else []
        return MappingProxyType({BayNumber(int(entry.name)): entry for entry in found if entry.is_dir()})


# --- the receiver


class Receiver(Table):
    """Who the receiver is, where it listens and where it keeps clips."""

    id: Annotated[
        str, Field(pattern=f"^{UUID}$", description="the store's UUID in lower case, as `dockd init` made it")
    ]
    listen: Annotated[Address, Field(description='"HOST:PORT" to listen on, for instance "0.0.0.0:8443"')]
    directory: Annotated[FilePath, path("the directory that holds what is received (mode 0700)")]
    public_hosts: Annotated[
        tuple[Address, ...], listing('"HOST:PORT" as stations dial it', least=1), AfterValidator(distinct)
    ]
    tls_cert: Annotated[FilePath, path("a PEM file of the certificate (and its chain)")]
    tls_key: Annotated[FilePath, path("a PEM file of the certificate's private key (mode 0600)")]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return split_address(self.listen)


class ReceiverKeys(Table):
    """The store's private key."""

    store: Annotated[FilePath, path("the file of the private key that signs receipts (Ed25519, mode 0600)")]


class Accept(Table):
    """What is accepted."""

    recipients_file: Annotated[FilePath, path("a file of the age recipients that clips may be sealed to")]
    min_recipients: Annotated[int, whole(1, 16)] = 2
    max_clip_bytes: Annotated[int, size(1)] = 1024 * 1024 * MIB


class Uploads(Table):
    """Sessions and unfinished uploads."""

    expire_after_s: Annotated[int, whole(60, 366 * 86400, "seconds")] = 7 * 86400
    token_lifetime_s: Annotated[int, whole(60, 86400, "seconds")] = 3600
    holding_rehash: Annotated[bool, Field(description="true or false")] = False
    station_percent: Annotated[int, whole(1, 100, "parts in a hundred of the disk")] = 10
    station_least_bytes: Annotated[int, size(1)] = 800 * 10**9
    station_unfinished: Annotated[int, whole(64, 65536, "uploads")] = 256


class PeerConnections(Table):
    """What peers may hold open."""

    most: Annotated[int, whole(64, 65536, "connections")] = 1024
    per_peer: Annotated[int, whole(1, 4096, "connections")] = 32
    per_station: Annotated[int, whole(1, 4096, "connections")] = 64
    proxies: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...],
        listing('addresses or networks, such as "192.0.2.7" or "2001:db8::/48"'),
        AfterValidator(distinct),
    ] = ()


class Scrub(Table):
    """How often what is stored is read again."""

    every_days: Annotated[int, whole(1, 366, "days")] = 30
    first_within_s: Annotated[int, whole(1, 7 * 86400, "seconds")] = 86400
    bytes_per_s: Annotated[int, whole(1024, 100_000_000_000, "bytes a second")] = 50_000_000


class Lookups(Table):
    """Which stations may ask about each other's clips."""

    permit: Annotated[
        Mapping[StationName, Annotated[tuple[StationName, ...], Field(strict=False, max_length=1024)]],
        Field(
            max_length=1024,
            description="a table of stations' UUIDs, each with a list of those about whose clips it may ask",
        ),
    ] = Field(default_factory=dict)


class ReceiverConfig(Table):
    """receiver.toml."""

    trial: Annotated[bool, Field(description="true or false")] = False
    receiver: Annotated[Receiver, Field(description="a table [receiver]")]
    keys: Annotated[ReceiverKeys, Field(description="a table [keys]")]
    accept: Annotated[Accept, Field(description="a table [accept]")]
    retention: Annotated[Retention, Field(description="a table [retention]")] = Retention()
    uploads: Annotated[Uploads, Field(description="a table [uploads]")] = Uploads()
    scrub: Annotated[Scrub, Field(description="a table [scrub]")] = Scrub()
    connections: Annotated[PeerConnections, Field(description="a table [connections]")] = PeerConnections()
    lookups: Annotated[Lookups, Field(description="a table [lookups.permit]")] = Lookups()
    log: Annotated[Log, Field(description="a table [log]")] = Log()


# --- about the schema itself


RELOADABLE = frozenset(
    {
        "acquire.block_kib",
        "acquire.suffixes",
        "acquire.evidence_directories",
        "acquire.max_depth",
        "acquire.max_files",
        "cameras.directory",
        "log.level",
        "log.format",
        "spool.keep_after_receipt_s",
        "uplink.caps",
        "uplink.max_in_flight",
        "uplink.time_zone",
    }
)
"""The station's keys that a running daemon takes over; a change of any other waits for a restart."""


def keys_of(table: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every key as `table.key`, in the order of the schema, once; what a person names is NAME."""
    seen: set[str] = set()
    for name, field in table.model_fields.items():
        tables, named = inner_tables(field.annotation)
        if not tables or field.annotation is Policy.model_fields["erase_when"].annotation:
            yield above + name
            continue
        for inner in tables.values():
            for key in keys_of(inner, f"{above}{name}.NAME." if named else f"{above}{name}."):
                if key not in seen:
                    yield key
                seen.add(key)


def inner_tables(annotation: Any) -> tuple[Mapping[str, type[BaseModel]], bool]:
    """The table that a key holds, or those of its list, by kind (an empty text where there is but one kind).

    And whether a person names each of them.
    """
    found = {str(one.model_fields["kind"].default if _has_kinds(one) else ""): one for one in _tables(annotation)}
    return found, bool(found) and get_origin(annotation) is Mapping


def _has_kinds(table: type[BaseModel]) -> bool:
    return "kind" in table.model_fields


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _tables(one)


def fixed_changes(old: StationConfig, new: StationConfig) -> list[str]:
    """The keys that differ and that only a restart can change."""
    return [key for key in changed_keys(old, new) if not _is_reloadable(key)]


def _is_reloadable(key: str) -> bool:
    return key in RELOADABLE or any(key.startswith(f"{one}.") for one in RELOADABLE)


def changed_keys(old: Table, new: Table, above: str = "") -> list[str]:
    """The keys, as `table.key`, in which two configurations differ."""
    keys = []
    for name in type(old).model_fields:
        keys += _differences(getattr(old, name), getattr(new, name), above + name)
    return keys


def _differences(before: object, after: object, key: str) -> list[str]:
    if isinstance(before, Table) and type(before) is type(after):
        return changed_keys(before, after, f"{key}.")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = sorted(before.keys() | after.keys())
        return [one for name in names for one in _differences(before.get(name), after.get(name), f"{key}.{name}")]
    return [] if before == after else [key]
