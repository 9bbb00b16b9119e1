"""Ceph's object gateway over one monitor and one OSD on a file, without authentication between them.

No manager daemon: nothing of S3 needs it.
"""

from __future__ import annotations

import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from servers.programs import Servers, free_ports, program

ACCESS_KEY = "AKIADOCKDTEST"
SECRET_KEY = "dockd-test-secret-0123456789"  # noqa: S105  of a server that lives as long as the test
_CRC = "--ms_mon_client_mode=crc"  # with authentication off it would otherwise still ask for the secure mode
_DISK_BYTES = 8 << 30  # a sparse file

_CONF = """\
[global]
fsid = {fsid}
mon host = {monitors}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 1
mon osd full ratio = 0.99
mon osd backfillfull ratio = 0.985
mon osd nearfull ratio = 0.98
bluestore block size = {disk_bytes}
osd memory target = 939524096
mon data = {directory}/mon
osd data = {directory}/osd
rgw data = {directory}/rgw
run dir = {directory}
admin socket = {directory}/$cluster-$name.$pid.asok
crash dir = {directory}/crash
log file = {directory}/$name.log
keyring = {directory}/keyring
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceph:
    """A running gateway with one user."""

    s3_url: str
    access_key: str
    secret_key: str
    servers: Servers

    @contextmanager
    def used_up(self, bucket: str) -> Iterator[None]:
        """A bucket's quota is used up meanwhile."""
        told = ("--quota-scope=bucket", f"--bucket={bucket}")
        _admin(self.servers, "quota", "set", *told, "--max-size=1M")
        _admin(self.servers, "quota", "enable", *told)
        try:
            yield
        finally:
            _admin(self.servers, "quota", "disable", *told)


@pytest.fixture(scope="session")
def ceph() -> Iterator[Ceph]:
    """An empty Ceph with its object gateway."""
    for name, package in (("ceph-mon", "ceph-mon"), ("ceph-osd", "ceph-osd"), ("radosgw", "radosgw")):
        program(name, f"Debian's {package}")
    servers = Servers("ceph")
    try:
        yield _start(servers)
    finally:
        servers.close()


def _start(servers: Servers) -> Ceph:
    directory = servers.directory
    for name in ("mon", "osd", "rgw", "crash"):
        (directory / name).mkdir()
    monitor, monitor_v1, gateway = free_ports(3)
    fsid = str(uuid.uuid4())
    monitors = f"[v2:127.0.0.1:{monitor},v1:127.0.0.1:{monitor_v1}]"
    conf = directory / "ceph.conf"
    conf.write_text(_CONF.format(fsid=fsid, monitors=monitors, disk_bytes=_DISK_BYTES, directory=directory))
    servers.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitors, directory / "monmap")
    servers.run("ceph-mon", "-c", conf, "-i", "a", "--mkfs", "--monmap", directory / "monmap")
    servers.start("ceph-mon", ["ceph-mon", "-c", conf, "-i", "a", "-f"])
    servers.run("ceph", "-c", conf, "osd", "create")
    servers.run("ceph-osd", "-c", conf, "-i", "0", "--mkfs")
    servers.start("ceph-osd", ["ceph-osd", "-c", conf, "-i", "0", "-f"])
    listen = f"--rgw_frontends=beast endpoint=127.0.0.1:{gateway}"
    servers.start("radosgw", ["radosgw", "-c", conf, "-n", "client.rgw", "-f", _CRC, listen])
    url = f"http://127.0.0.1:{gateway}"
    servers.wait("the object gateway ready", lambda: _speaks(url))
    keys = (f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
    _admin(servers, "user", "create", "--uid=dock", "--display-name=dock", *keys)
    return Ceph(s3_url=url, access_key=ACCESS_KEY, secret_key=SECRET_KEY, servers=servers)


def _admin(servers: Servers, *words: str) -> None:
    servers.run("radosgw-admin", "-c", servers.directory / "ceph.conf", "-n", "client.rgw", _CRC, *words)


def _speaks(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  loopback
        return answer.status == 200
