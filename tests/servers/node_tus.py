"""`@tus/server` on node, over TLS: the reference server of the tus protocol, with files in a directory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from contract.evidence import certificate
from servers.programs import Servers, answers, free_ports, lacking, program

_HERE = Path(__file__).parent
_CACHE = _HERE.parents[1] / ".cache" / "servers"
_LEAST_NODE = (20, 19)
_EXPIRE_MS = 24 * 3600 * 1000
TOKEN = "a-token-of-the-test"  # noqa: S105  of a server that lives as long as the test


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTus:
    """A running server. Uploads are files in `files`, named as the last part of their address."""

    url: str
    token: str
    ca_file: Path
    tls_key: Path
    files: Path
    servers: Servers


@contextmanager
def node_tus(*, disk_bytes: int = 0, max_size_bytes: int = 0) -> Iterator[NodeTus]:
    """A server of its own, with an empty directory; on a disk of `disk_bytes`, where that is said (as root)."""
    servers = Servers("node-tus")
    files = servers.directory / "files"
    files.mkdir()
    try:
        if disk_bytes:
            servers.run("mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", files)
        yield _start(servers, files, max_size_bytes)
    finally:
        if os.path.ismount(files):
            with suppress(KeyError):
                servers.stop("tus")
            servers.run("umount", files)
        servers.close()


@pytest.fixture(scope="session")
def tus_server() -> Iterator[NodeTus]:
    """One for the whole session."""
    with node_tus() as started:
        yield started


def _start(servers: Servers, files: Path, max_size_bytes: int) -> NodeTus:
    program_of_node, modules = node(), installed_modules()
    chain, key = certificate(servers.directory)
    # Modules are looked for beside the script.
    (servers.directory / "node_modules").symlink_to(modules)
    shutil.copy(_HERE / "tus_server.mjs", servers.directory)
    port = free_ports(1)[0]
    settings = {
        "PORT": str(port),
        "FILES": str(files),
        "CERTIFICATE": str(chain),
        "KEY": str(key),
        "TOKEN": TOKEN,
        "EXPIRE_MS": str(_EXPIRE_MS),
        "MAX_SIZE": str(max_size_bytes),
    }
    servers.start("tus", [program_of_node, servers.directory / "tus_server.mjs"], env=settings)
    servers.wait("@tus/server ready", lambda: answers(port))
    return NodeTus(
        url=f"https://127.0.0.1:{port}/files", token=TOKEN, ca_file=chain, tls_key=key, files=files, servers=servers
    )


def node() -> str:
    """The first node on the PATH, where it is new enough: Debian 12's own is not."""
    found = program("node", "nodejs.org, or a package of Node 20.19 or newer")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    if tuple(map(int, said.removeprefix("v").split(".")[:2])) < _LEAST_NODE:
        lacking(f"{found} is Node {said}, and @tus/server needs 20.19 or newer: put a newer one first on the PATH")
    return found


def installed_modules() -> Path:
    """The modules of package-lock.json, installed once and again when it changed."""
    npm = program("npm", "apt-get install npm")
    lock = (_HERE / "package-lock.json").read_bytes()
    installed = _CACHE / "installed-lock.json"
    if not installed.exists() or installed.read_bytes() != lock:
        _CACHE.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_HERE / name, _CACHE)
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", _CACHE],
            cwd=_CACHE,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            lacking(f"npm could not install the servers of package.json: {done.stderr[-500:]}")
        installed.write_bytes(lock)
    return _CACHE / "node_modules"
