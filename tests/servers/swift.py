"""OpenStack Swift with one disk: proxy, account, container and object server, and memcached for its tokens."""

from __future__ import annotations

import getpass
import json
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers.programs import Servers, answers, free_ports, program

USER = "dock:station"
KEY = "swift-test-key"
ACCOUNT = "AUTH_dock"
_RINGS = ("account", "container", "object")
_PACKAGE = 'pip install "dockd[servers]"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Swift:
    """A running Swift, with one account."""

    port: int
    user: str
    key: str
    servers: Servers

    @property
    def url(self) -> str:
        """Where tokens are given, as an Axis connection file names it."""
        return f"http://127.0.0.1:{self.port}/auth/v1.0"


@pytest.fixture(scope="session")
def swift() -> Iterator[Swift]:
    """Swift with large objects, as a stranger would run it behind an evidence management system."""
    yield from started("swift")


@pytest.fixture(scope="session")
def full_swift() -> Iterator[Swift]:
    """Swift whose disk has no room: metadata can be stored, no object's bytes can."""
    yield from started("full-swift", reserve="100%")


@pytest.fixture(scope="session")
def plain_swift() -> Iterator[Swift]:
    """Swift without large objects: whole PUTs are all there is."""
    yield from started("plain-swift", filters="")


def started(name: str, *, filters: str = "slo dlo", reserve: str = "0") -> Iterator[Swift]:
    """Swift, until the generator is closed."""
    builder, memcached = program("swift-ring-builder", _PACKAGE), program("memcached", "apt install memcached")
    servers = Servers(name)
    try:
        proxy, memory, *rings = free_ports(2 + len(_RINGS))
        ports = dict(zip(_RINGS, rings, strict=True))
        (servers.directory / "disks" / "d1").mkdir(parents=True)
        _check_attributes(servers.directory)
        _write(servers.directory / "swift.conf", {"swift-hash": {"swift_hash_path_suffix": name}})
        for ring, port in ports.items():
            _ring(servers, builder, ring, port)
            _write(servers.directory / f"{ring}.conf", _backend(servers.directory, ring, port, reserve))
        _write(servers.directory / "proxy.conf", _proxy(servers.directory, proxy, memory, filters))
        servers.start("memcached", [memcached, "-u", getpass.getuser(), "-l", "127.0.0.1", "-p", str(memory)])
        for one in (*_RINGS, "proxy"):
            binary = program(f"swift-{one}-server", _PACKAGE)
            servers.start(one, [sys.executable, binary, servers.directory / f"{one}.conf", "--verbose"])
        for port in (memory, *ports.values()):
            servers.wait("Swift's parts listening", lambda port=port: answers(port))
        made = Swift(port=proxy, user=USER, key=KEY, servers=servers)
        servers.wait("Swift giving tokens", lambda: _takes_containers(made))
        yield made
    finally:
        servers.close()


def _check_attributes(directory: Path) -> None:
    """Swift keeps metadata in extended attributes of its files."""
    import os  # noqa: PLC0415  here alone

    os.setxattr(directory, "user.swift.metadata", b"x")


def _ring(servers: Servers, builder: str, ring: str, port: int) -> None:
    file = f"{ring}.builder"
    servers.run(sys.executable, builder, file, "create", "4", "1", "0")
    servers.run(sys.executable, builder, file, "add", f"r1z1-127.0.0.1:{port}/d1", "1")
    servers.run(sys.executable, builder, file, "rebalance", "--seed", "7")


def _common(directory: Path, port: int) -> dict[str, str]:
    return {
        "bind_ip": "127.0.0.1",
        "bind_port": str(port),
        "workers": "0",  # in the program itself: no child to look for
        "user": getpass.getuser(),
        "swift_dir": str(directory),
        "log_level": "INFO",
    }


def _backend(directory: Path, ring: str, port: int, reserve: str) -> dict[str, dict[str, str]]:
    more = {
        "devices": str(directory / "disks"),
        "mount_check": "false",
        "fallocate_reserve": reserve if ring == "object" else "0",
        "recon_cache_path": str(directory),
    }
    return {
        "DEFAULT": _common(directory, port) | more,
        "pipeline:main": {"pipeline": f"{ring}-server"},
        f"app:{ring}-server": {"use": f"egg:swift#{ring}"},
    }


def _proxy(directory: Path, port: int, memory: int, filters: str) -> dict[str, dict[str, str]]:
    pipeline = f"catch_errors gatekeeper cache listing_formats tempauth copy container_quotas {filters} proxy-server"
    made = {
        "DEFAULT": _common(directory, port),
        "pipeline:main": {"pipeline": " ".join(pipeline.split())},
        "app:proxy-server": {
            "use": "egg:swift#proxy",
            "account_autocreate": "true",
            "error_suppression_limit": "1000000",  # the one disk stays in use after any number of failures
        },
        "filter:cache": {"use": "egg:swift#memcache", "memcache_servers": f"127.0.0.1:{memory}"},
        "filter:tempauth": {"use": "egg:swift#tempauth", "user_dock_station": f"{KEY} .admin"},
    }
    plain = ("catch_errors", "gatekeeper", "listing_formats", "copy", "container_quotas", "slo", "dlo")
    return made | {f"filter:{one}": {"use": f"egg:swift#{one}"} for one in plain}


def _write(path: Path, sections: dict[str, dict[str, str]]) -> None:
    lines = [
        line
        for section, values in sections.items()
        for line in (f"[{section}]", *(f"{key} = {value}" for key, value in values.items()), "")
    ]
    path.write_text("\n".join(lines))


def _takes_containers(swift: Swift) -> bool:
    asked = urllib.request.Request(  # noqa: S310  loopback
        swift.url, headers={"X-Auth-User": swift.user, "X-Auth-Key": swift.key}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310  same
        token = answer.headers["X-Auth-Token"]
        url = answer.headers["X-Storage-Url"]
    made = urllib.request.Request(f"{url}/Users", method="PUT", headers={"X-Auth-Token": token})  # noqa: S310  same
    with urllib.request.urlopen(made, timeout=10) as answer:  # noqa: S310  same
        return answer.status in (201, 202)


def info(swift: Swift) -> dict[str, object]:
    """What Swift says of itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{swift.port}/info", timeout=10) as answer:
        return json.load(answer)
