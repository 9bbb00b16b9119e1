"""The two configurations, key by key. Each key's description says what is allowed; error messages quote it.

config/dockd.toml and config/receiver.toml list every key; a test compares them with this file both ways.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from dockd.model import BayNumber

CLIP_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".ts", ".mts", ".m2ts", ".mkv", ".3gp")
MIB = 1024 * 1024
BASE = "base"  # in the validation context: the directory that relative paths start from

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_HOST = re.compile(r"(?!-)[A-Za-z0-9.-]{1,253}(?<![.-])")
_MOST_PORTS = 65535
_BAY = re.compile(r"[1-9][0-9]{0,3}")
_PORT = re.compile(
    r"[A-Za-z0-9:._-]{1,64}/[1-9][0-9]{0,2}(?:\.[1-9][0-9]{0,2}){0,6}"
)  # six hubs at most: USB 2.0, 4.1.1


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPv6]:PORT` as host (without brackets) and port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= _MOST_PORTS:
        raise ValueError("no port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1])), int(port)
    if not _HOST.fullmatch(host):
        raise ValueError("no host name or address")
    return host, int(port)


def _address(text: str) -> str:
    split_address(text)
    return text


def _https(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("not https")
    if parts.port == 0:  # reading it also raises ValueError for what is no port
        raise ValueError("no port")
    return text


def _absolute(value: object, info: ValidationInfo) -> object:
    """A path from its text; relative ones start at the configuration's own directory."""
    if not isinstance(value, str) or not value or "\x00" in value:
        raise ValueError("no path")
    base: Path = (info.context or {}).get(BASE, Path("/"))
    return base / value


def _suffix(text: str) -> str:
    if not re.fullmatch(r"\.[A-Za-z0-9]{1,16}", text):
        raise ValueError("no suffix")
    return text.lower()


def _name(text: str) -> str:
    if not text or "/" in text or "\x00" in text or text in (".", ".."):
        raise ValueError("no name of a directory")
    return text


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("one stands twice")
    return values


def _bay(text: str) -> str:
    if not _BAY.fullmatch(text):
        raise ValueError("no bay number")
    return text


def _port(text: str) -> str:
    if not _PORT.fullmatch(text):
        raise ValueError("no USB port")
    return text


def _store_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", text):
        raise ValueError("no name of a store")
    return text


def _distinct_ports(bays: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    _distinct(tuple(port for ports in bays.values() for port in ports))
    if not all(bays.values()):
        raise ValueError("a bay without a port")
    return bays


FilePath = Annotated[Path, BeforeValidator(_absolute)]
Suffix = Annotated[str, AfterValidator(_suffix)]
DirectoryName = Annotated[str, AfterValidator(_name)]
Address = Annotated[str, AfterValidator(_address)]
BayName = Annotated[str, AfterValidator(_bay)]
StoreName = Annotated[str, AfterValidator(_store_name)]
UsbPort = Annotated[str, AfterValidator(_port)]
HttpsUrl = Annotated[str, AfterValidator(_https)]


def _whole(low: int, high: int, unit: str = "") -> Any:
    return Field(ge=low, le=high, description=f"a whole number from {low} to {high}{unit and ' (' + unit + ')'}")


def _seconds(high: int) -> Any:
    return Field(gt=0, le=high, allow_inf_nan=False, description=f"a number above 0, at most {high} (seconds)")


def _size(low: int) -> Any:
    return Field(ge=low, le=2**53 - 1, description=f"a whole number of bytes, {low} or more")


def _path(what: str) -> Any:
    return Field(description=f"{what}, as text; a relative path starts at the directory of this file")


def _list(what: str, *, least: int = 0) -> Any:
    # A TOML array arrives as a list; strict mode would want a tuple.
    return Field(strict=False, min_length=least, max_length=64, description=f"a list of {what}, each once")


class Table(BaseModel):
    """One table: frozen, no keys but its own, no value of another type turned into the right one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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
        str, Field(pattern=f"^{_UUID}$", description="the station's UUID in lower case, as `dockd init` made it")
    ]
    state_dir: Annotated[FilePath, _path("a directory of the station's own (mode 0700)")] = Path("/var/lib/dockd")
    socket: Annotated[FilePath | None, _path("the path of the control socket")] = None


class StationKeys(Table):
    """The two private keys of a station, both Ed25519 in OpenSSH's form."""

    manifest: Annotated[FilePath, _path("the file of the private key that signs manifests and sessions (mode 0600)")]
    checkpoint: Annotated[FilePath, _path("the file of the private key that signs checkpoints (mode 0600)")]


class Bays(Table):
    """Where cameras appear: directories, USB ports, or both."""

    folder_root: Annotated[FilePath | None, _path("a directory whose numbered subdirectories (1, 2, ...) are bays")] = (
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

    directory: Annotated[FilePath, _path("a directory of camera profiles")] = Path("/etc/dockd/cameras.d")


class Blocker(Table):
    """The privileged unit that mounts and locks the volumes of USB cameras."""

    socket: Annotated[FilePath, _path("the path of its socket")] = Path("/run/dockd-blocker.sock")


class Seal(Table):
    """To whom clips are sealed."""

    recipients_file: Annotated[FilePath, _path("a file of age recipients, one `age1...` a line, at least two")]


class Acquire(Table):
    """What a clip is, and how it is read. Takes effect with the next docking."""

    block_kib: Annotated[int, _whole(256, 4096, "KiB")] = 1024
    suffixes: Annotated[
        tuple[Suffix, ...], _list('file name suffixes like ".mp4"', least=1), AfterValidator(_distinct)
    ] = CLIP_SUFFIXES
    evidence_directories: Annotated[
        tuple[DirectoryName, ...], _list("directory names without a slash"), AfterValidator(_distinct)
    ] = ("EVIDENCE",)
    max_depth: Annotated[int, _whole(1, 64)] = 16
    max_files: Annotated[int, _whole(1, 1_000_000)] = 50_000


class Spool(Table):
    """Sealed clips on this machine's disk."""

    directory: Annotated[FilePath | None, _path("a directory (mode 0700)")] = None
    max_bytes: Annotated[int, _size(0)] = 0
    reserve_bytes: Annotated[int, _size(0)] = 256 * MIB
    keep_after_receipt_s: Annotated[int, _whole(0, 366 * 86400, "seconds")] = 86_400


class Store(Table):
    """What every `[store.NAME]` has, whatever its kind: what its word is worth, and how much of the network it has."""

    final: Annotated[bool | None, Field(description="true or false")] = None
    fallback_for: Annotated[StoreName | None, Field(description="the NAME of another [store.NAME]")] = None
    failover_after_s: Annotated[int, _whole(1, 30 * 86400, "seconds")] = 900
    min_retention_days: Annotated[int, _whole(0, 36500, "days")] = 31
    slots: Annotated[int, _whole(1, 32, "uploads at once")] = 3
    patch_mib: Annotated[int, _whole(1, 64, "MiB")] = 64
    connect_timeout_s: Annotated[float, _seconds(300)] = 10.0
    read_timeout_s: Annotated[float, _seconds(3600)] = 60.0

    @property
    def patch_bytes(self) -> int:
        """The longest body of one request that carries a clip."""
        return self.patch_mib * MIB

    @property
    def is_final(self) -> bool:
        """Whether its word counts towards erasing: by default that of every store but a fallback."""
        return self.fallback_for is None if self.final is None else self.final


class ReceiverStore(Store):
    """A dockd receiver: it signs for what it holds."""

    kind: Annotated[str, Field(pattern=r"^receiver$", description='"receiver"')] = "receiver"
    url: Annotated[HttpsUrl, Field(description="https://HOST[:PORT][/PATH]; plain http is not spoken")]
    ca_file: Annotated[FilePath, _path("a PEM file of the only certificates that are trusted for it")]
    key_file: Annotated[FilePath, _path("the store's public key file (store.pub)")]


class CountedStores(Table):
    """So many of these."""

    count: Annotated[int, _whole(1, 64)]
    of: Annotated[tuple[StoreName, ...], _list("NAMEs of [store.NAME]", least=1), AfterValidator(_distinct)]


class Policy(Table):
    """What has to confirm a clip before it may be erased."""

    erase_when: Annotated[
        Annotated[str, Field(pattern=r"^(all|any)$")] | CountedStores,
        Field(description='"all", "any" or { count = 2, of = ["NAME", "NAME", "NAME"] }'),
    ] = "all"


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
        Mapping[StoreName, ReceiverStore],
        Field(
            min_length=1,
            max_length=16,
            description="a table [store.NAME] for each store, NAME of up to 32 lower-case letters, digits and hyphens",
        ),
    ]
    stores: Annotated[Policy, Field(description="a table [stores]")] = Policy()
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
        str, Field(pattern=f"^{_UUID}$", description="the store's UUID in lower case, as `dockd init` made it")
    ]
    listen: Annotated[Address, Field(description='"HOST:PORT" to listen on, for instance "0.0.0.0:8443"')]
    directory: Annotated[FilePath, _path("the directory that holds what is received (mode 0700)")]
    public_hosts: Annotated[
        tuple[Address, ...], _list('"HOST:PORT" as stations dial it', least=1), AfterValidator(_distinct)
    ]
    tls_cert: Annotated[FilePath, _path("a PEM file of the certificate (and its chain)")]
    tls_key: Annotated[FilePath, _path("a PEM file of the certificate's private key (mode 0600)")]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return split_address(self.listen)


class ReceiverKeys(Table):
    """The store's private key."""

    store: Annotated[FilePath, _path("the file of the private key that signs receipts (Ed25519, mode 0600)")]


class Accept(Table):
    """What is accepted."""

    recipients_file: Annotated[FilePath, _path("a file of the age recipients that clips may be sealed to")]
    min_recipients: Annotated[int, _whole(1, 16)] = 2
    max_clip_bytes: Annotated[int, _size(1)] = 1024 * 1024 * MIB


class Retention(Table):
    """How long the store promises to keep what it signs for."""

    days: Annotated[int, _whole(0, 36500, "days")] = 365


class Uploads(Table):
    """Sessions and unfinished uploads."""

    expire_after_s: Annotated[int, _whole(60, 366 * 86400, "seconds")] = 7 * 86400
    token_lifetime_s: Annotated[int, _whole(60, 86400, "seconds")] = 3600
    holding_rehash: Annotated[bool, Field(description="true or false")] = False


class ReceiverConfig(Table):
    """receiver.toml."""

    trial: Annotated[bool, Field(description="true or false")] = False
    receiver: Annotated[Receiver, Field(description="a table [receiver]")]
    keys: Annotated[ReceiverKeys, Field(description="a table [keys]")]
    accept: Annotated[Accept, Field(description="a table [accept]")]
    retention: Annotated[Retention, Field(description="a table [retention]")] = Retention()
    uploads: Annotated[Uploads, Field(description="a table [uploads]")] = Uploads()
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
    }
)
"""The station's keys that a running daemon takes over; a change of any other waits for a restart."""


def keys_of(table: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every key as `table.key`, in the order of the schema; what a person names is NAME."""
    for name, field in table.model_fields.items():
        inner, named = inner_table(field.annotation)
        if inner is None or field.annotation is Policy.model_fields["erase_when"].annotation:
            yield above + name
        else:
            yield from keys_of(inner, f"{above}{name}.NAME." if named else f"{above}{name}.")


def inner_table(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The table that a key holds, or those in its list; and whether a person names each of them."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one, get_origin(annotation) is Mapping
    return None, False


def fixed_changes(old: StationConfig, new: StationConfig) -> list[str]:
    """The keys that differ and that only a restart can change."""
    return [key for key in changed_keys(old, new) if key not in RELOADABLE]


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
