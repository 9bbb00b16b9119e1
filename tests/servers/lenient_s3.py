"""S3 that is real but less strict: moto, s3rver and `rclone serve s3`, started together, once a test session.

Two are mocks and one serves a directory. None of them keeps what S3 promises: nothing here tests integrity, only that
dockd finds out what they do, and says and does the same everywhere.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from servers.node_tus import installed_modules, node
from servers.programs import Servers, free_ports, program

ACCESS_KEY = "S3RVER"  # s3rver knows this pair alone; the others take any
SECRET_KEY = "S3RVER"  # noqa: S105  of a server that lives as long as the test
_PACKAGE = 'pip install "dockd[servers]"'
_REFUSALS = (400, 403, 404)  # to a request that nobody signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Lenient:
    """One of them, running."""

    s3_url: str
    servers: Servers
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY


@pytest.fixture(scope="session")
def lenient_s3() -> Iterator[dict[str, Lenient]]:
    """All three, by name: they start while the others do."""
    servers = Servers("lenient-s3")
    try:
        yield _start(servers)
    finally:
        servers.close()


@pytest.fixture(scope="session")
def moto(lenient_s3: dict[str, Lenient]) -> Lenient:
    """`moto_server`, which keeps all in memory."""
    return lenient_s3["moto"]


@pytest.fixture(scope="session")
def s3rver(lenient_s3: dict[str, Lenient]) -> Lenient:
    """s3rver on node."""
    return lenient_s3["s3rver"]


@pytest.fixture(scope="session")
def rclone(lenient_s3: dict[str, Lenient]) -> Lenient:
    """`rclone serve s3` over a directory."""
    return lenient_s3["rclone"]


def _start(servers: Servers) -> dict[str, Lenient]:
    directory = servers.directory
    for name in ("s3rver", "rclone"):
        (directory / name).mkdir()
    ports = dict(zip(("moto", "s3rver", "rclone"), map(str, free_ports(3)), strict=True))
    servers.start("moto", [program("moto_server", _PACKAGE), "-H", "127.0.0.1", "-p", ports["moto"]])
    script = installed_modules() / "s3rver" / "bin" / "s3rver.js"
    words = ["--address", "127.0.0.1", "--port", ports["s3rver"], "--directory", directory / "s3rver"]
    servers.start("s3rver", [node(), script, *words])
    words = ["--addr", f"127.0.0.1:{ports['rclone']}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    (directory / "rclone.conf").touch()
    words += ["--config", directory / "rclone.conf"]
    servers.start("rclone", [program("rclone", _PACKAGE), "serve", "s3", directory / "rclone", *words])
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    servers.wait("three S3 servers ready", lambda: all(map(_speaks, urls.values())))
    return {name: Lenient(s3_url=url, servers=servers) for name, url in urls.items()}


def _speaks(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):  # noqa: S310  loopback
            return True
    except urllib.error.HTTPError as error:
        return error.code in _REFUSALS
