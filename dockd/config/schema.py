"""What may stand in dockd.toml and receiver.toml. Every key is explained in config/; a test compares the two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from dockd.model import BayNumber

CLIP_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".ts", ".mts", ".m2ts", ".mkv", ".3gp")

RELOADABLE = frozenset({"acquire", "log", "spool.keep_after_receipt_s"})
"""Keys, or whole sections, that take effect without a restart."""

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MIB = 1024 * 1024


def _resolve(value: object, info: ValidationInfo) -> object:
    """A relative path is relative to the file that says it."""
    if isinstance(value, str) and value and info.context:
        return Path(info.context) / value
    return value


def _suffixes(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"\.[a-z0-9]+", value):
            raise ValueError("each is a dot and lower-case letters or digits, like .mp4")
    return values


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:  # noqa: PLR2004  the ports there are
        raise ValueError("expected HOST:PORT, like 0.0.0.0:8443")
    return value


FilePath = Annotated[Path, BeforeValidator(_resolve)]
Uuid = Annotated[str, Field(pattern=f"^{_UUID}$")]
Address = Annotated[str, AfterValidator(_address)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Log(_Section):
    """[log]."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Station(_Section):
    """[station]."""

    id: Uuid
    state_dir: FilePath
    socket: FilePath | None = None


class StationKeys(_Section):
    """[keys] of a station."""

    manifest: FilePath
    checkpoint: FilePath


class Bays(_Section):
    """[bays]."""

    folder_root: FilePath


class Seal(_Section):
    """[seal]."""

    recipients_file: FilePath


class Acquire(_Section):
    """[acquire]."""

    block_kib: Annotated[int, Field(ge=256, le=4096, multiple_of=64)] = 1024
    suffixes: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_suffixes)] = CLIP_SUFFIXES
    evidence_directories: tuple[str, ...] = ("EVIDENCE",)
    max_depth: Annotated[int, Field(ge=1, le=64)] = 16
    max_files: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000


class SpoolSection(_Section):
    """[spool]."""

    directory: FilePath | None = None
    max_bytes: Annotated[int, Field(ge=0)] = 0
    reserve_bytes: Annotated[int, Field(ge=0)] = 256 * _MIB
    keep_after_receipt_s: Annotated[int, Field(ge=0)] = 86_400


class Store(_Section):
    """[store]."""

    url: Annotated[str, Field(pattern=r"^https://[^/]+(/.*)?$")]
    ca_file: FilePath
    key_file: FilePath
    min_retention_days: Annotated[int, Field(ge=0)] = 31
    slots: Annotated[int, Field(ge=1, le=32)] = 3
    patch_mib: Annotated[int, Field(ge=1, le=64)] = 64
    connect_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    read_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0

    @property
    def patch_bytes(self) -> int:
        """One PATCH at most."""
        return self.patch_mib * _MIB


class StationConfig(_Section):
    """dockd.toml."""

    trial: bool = False
    station: Station
    keys: StationKeys
    bays: Bays
    seal: Seal
    acquire: Acquire = Acquire()
    spool: SpoolSection = SpoolSection()
    store: Store
    log: Log = Log()

    @property
    def socket_path(self) -> Path:
        """The control socket."""
        default = self.station.state_dir / "control.sock" if self.trial else Path("/run/dockd/control.sock")
        return self.station.socket or default

    @property
    def spool_directory(self) -> Path:
        """Where sealed clips wait."""
        return self.spool.directory or self.station.state_dir / "spool"

    def bay_directories(self) -> dict[BayNumber, Path]:
        """The bays: the subdirectories of `bays.folder_root` whose names are numbers."""
        root = self.bays.folder_root
        return {
            BayNumber(int(entry.name)): entry
            for entry in sorted(root.iterdir())
            if entry.is_dir() and re.fullmatch(r"[1-9][0-9]{0,3}", entry.name)
        }


class Receiver(_Section):
    """[receiver]."""

    id: Uuid
    listen: Address
    directory: FilePath
    public_hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    tls_cert: FilePath
    tls_key: FilePath


class ReceiverKeys(_Section):
    """[keys] of a receiver."""

    store: FilePath


class Accept(_Section):
    """[accept]."""

    recipients_file: FilePath
    min_recipients: Annotated[int, Field(ge=1, le=16)] = 2
    max_clip_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024 * _MIB


class Retention(_Section):
    """[retention]."""

    days: Annotated[int, Field(ge=0, le=36_500)] = 365


class Uploads(_Section):
    """[uploads]."""

    expire_after_s: Annotated[int, Field(ge=60)] = 604_800
    token_lifetime_s: Annotated[int, Field(ge=60, le=86_400)] = 3600
    holding_rehash: bool = False


class ReceiverConfig(_Section):
    """receiver.toml."""

    trial: bool = False
    receiver: Receiver
    keys: ReceiverKeys
    accept: Accept
    retention: Retention = Retention()
    uploads: Uploads = Uploads()
    log: Log = Log()


def fixed_changes(before: StationConfig, after: StationConfig) -> list[str]:
    """The changed keys that need a restart."""
    return [
        key for key in changed_keys(before, after) if key not in RELOADABLE and key.partition(".")[0] not in RELOADABLE
    ]


def changed_keys(before: BaseModel, after: BaseModel, prefix: str = "") -> list[str]:
    """The dotted keys in which two configurations differ."""
    keys = []
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            keys += changed_keys(old, new, f"{prefix}{name}.")
        elif old != new:
            keys.append(f"{prefix}{name}")
    return keys
