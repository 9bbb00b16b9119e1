"""What the tables of all configurations are made of: kinds of values, and the words that say what is allowed."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

MIB = 1024 * 1024
BASE = "base"  # in the validation context: the directory that relative paths start from

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_HOST = re.compile(r"(?!-)[A-Za-z0-9.-]{1,253}(?<![.-])")
_MOST_PORTS = 65535


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


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """A list in which nothing stands twice. Raises ValueError."""
    if len(set(values)) != len(values):
        raise ValueError("one stands twice")
    return values


def _uuid(text: str) -> str:
    if not re.fullmatch(UUID, text):
        raise ValueError("no UUID")
    return text


FilePath = Annotated[Path, BeforeValidator(_absolute)]
StationName = Annotated[str, AfterValidator(_uuid)]
Address = Annotated[str, AfterValidator(_address)]
HttpsUrl = Annotated[str, AfterValidator(_https)]


def whole(low: int, high: int, unit: str = "") -> Any:
    """A key whose value is a whole number."""
    return Field(ge=low, le=high, description=f"a whole number from {low} to {high}{unit and ' (' + unit + ')'}")


def seconds(high: int) -> Any:
    """A key whose value is a time."""
    return Field(gt=0, le=high, allow_inf_nan=False, description=f"a number above 0, at most {high} (seconds)")


def size(low: int) -> Any:
    """A key whose value is a number of bytes."""
    return Field(ge=low, le=2**53 - 1, description=f"a whole number of bytes, {low} or more")


def path(what: str) -> Any:
    """A key whose value names a file or directory."""
    return Field(description=f"{what}, as text; a relative path starts at the directory of this file")


def listing(what: str, *, least: int = 0) -> Any:
    """A key whose value is a list."""
    # A TOML array arrives as a list; strict mode would want a tuple.
    return Field(strict=False, min_length=least, max_length=64, description=f"a list of {what}, each once")


def text(most: int, what: str) -> Any:
    """A key whose value is a text of 1 to `most` characters."""
    return Field(min_length=1, max_length=most, description=what)


class Table(BaseModel):
    """One table: frozen, no keys but its own, no value of another type turned into the right one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
