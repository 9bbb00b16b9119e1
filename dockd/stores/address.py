"""A store's address as configuration gives it: https, or plain http at a loopback address where a test says so."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from dockd.errors import ConfigError

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is dialled."""

    scheme: str
    authority: str  # with its port, always
    path: str  # before everything of ours, without a slash at its end

    @property
    def origin(self) -> str:
        """Scheme and authority."""
        return f"{self.scheme}://{self.authority}"


def parse_address(url: str, *, insecure_loopback: bool = False) -> Address:
    """`url` taken apart. Raises ConfigError. `insecure_loopback`: http is allowed too, to a loopback address."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    secure = parts.scheme == "https" or (parts.scheme == "http" and insecure_loopback and _is_loopback(parts.hostname))
    if not secure or not parts.hostname or parts.username or parts.query or parts.fragment:
        problem = f"store.url: found {url!r}; allowed: https://HOST[:PORT][/PATH]"
        raise ConfigError("the store's address cannot be used", problems=(problem,))
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(scheme=parts.scheme, authority=f"{host}:{port}", path=parts.path.rstrip("/"))


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False
