"""tus servers of others: `@tus/server`, which names uploads itself, and SeaweedFS, which files them by name."""

from __future__ import annotations

import json
import secrets
import urllib.request
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

from contract.evidence import Clip, Keys, MachineClock
from contract.stores.cases import Case, Kind, ProxyFaults, Way, proxy_before
from servers.nginx import doors
from servers.node_tus import node_tus
from servers.seaweed import TUS_BASE

from dockd.core.transfer import Call
from dockd.stores.header_file import HeaderFile
from dockd.stores.tus_store import TusStore

_DISK_BYTES = 8 << 20
_NODE_CALLS = {
    Call.REGISTER: ("POST", "/files$"),
    Call.OFFSET: ("HEAD", "/files/"),
    Call.APPEND: ("PATCH", "/files/"),
    Call.FINISH: ("POST", "/files$"),  # of the manifest, by then
}
_SEAWEED_CALLS = {
    Call.REGISTER: ("POST", "/clip.age$"),
    Call.OFFSET: ("HEAD", "/.uploads/"),
    Call.APPEND: ("PATCH", "/.uploads/"),
    Call.FINISH: ("POST", "/manifest.json$"),
}


def _store(url, **settings):
    return TusStore(
        name="tus",
        url=url,
        clock=MachineClock(),
        random=secrets.token_bytes,
        insecure_loopback=True,
        **settings,
    )


@asynccontextmanager
async def _node(request, way):
    keys = Keys()
    with ExitStack() as stack:
        if "full_disk" in request.node.name:
            server = stack.enter_context(node_tus(disk_bytes=_DISK_BYTES))
        else:
            server = request.getfixturevalue("tus_server")
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="dockd-tus.")))
        right, wrong = directory / "right", directory / "wrong"
        right.write_text(f"Bearer {server.token}\n")
        wrong.write_text("Bearer another\n")
        url, ca_file, nginx = _behind(stack, server.url, server.ca_file, way)
        proxy, url = proxy_before(url, believes=ca_file)  # plain before it: it is on this machine
        stack.callback(proxy.stop)

        async def remove(objects, piece):
            name = json.loads(objects)[piece].rpartition("/")[2]
            (server.files / name).unlink()

        async def expire(upload_url):
            path = server.files / (urlsplit(upload_url).path.rpartition("/")[2] + ".json")
            kept = json.loads(path.read_text())
            kept["creation_date"] = "2020-01-01T00:00:00.000Z"
            path.write_text(json.dumps(kept))

        @asynccontextmanager
        async def fill():
            filler = server.files / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            yield
            filler.unlink()

        yield Case(
            connect=lambda: _store(url, authorization=HeaderFile(right)),
            connect_wrongly=lambda: _store(url, authorization=HeaderFile(wrong)),
            clip=lambda size=200_000: Clip(keys, size=size),
            faults=ProxyFaults(proxy, _NODE_CALLS),
            remove=remove,
            expire=expire,
            fill=fill,
            nginx=nginx,
            at=lambda url, ca_file: _store(url + "/files", ca_file=ca_file, authorization=HeaderFile(right)),
        )


@asynccontextmanager
async def _seaweed(request, way):
    server, keys = request.getfixturevalue("seaweed"), Keys()
    with ExitStack() as stack:
        url, ca_file, nginx = _behind(stack, server.tus_url, None, way)
        proxy, url = proxy_before(url, believes=ca_file)
        stack.callback(proxy.stop)
        files = f"http://127.0.0.1:{proxy.port}/clips"

        async def remove(objects, piece):
            name = json.loads(objects)[piece]
            _request(f"{server.files_url}/clips/{name}", "DELETE")

        async def expire(upload_url):
            path = urlsplit(upload_url).path
            _request(f"{server.files_url}{path}", "DELETE", headers={"Tus-Resumable": "1.0.0"})

        async def occupy(upload_url, clip):
            del clip
            name = parse_qs(urlsplit(upload_url).fragment)["name"][0].replace("clip.age", "manifest.json")
            _request(f"{server.files_url}/clips/{name}", "PUT", b"another")

        @asynccontextmanager
        async def fill():
            with server.full_below(TUS_BASE), server.full_below("/clips"):
                yield

        yield Case(
            connect=lambda: _store(url + "/clips", objects_url=files),
            connect_wrongly=lambda: _store(url + "/clips", objects_url=files),
            clip=lambda size=200_000: Clip(keys, size=size),
            faults=ProxyFaults(proxy, _SEAWEED_CALLS),
            remove=remove,
            expire=expire,
            occupy=occupy,
            fill=fill,
            nginx=nginx,
            at=lambda url, ca_file: _store(f"{url}{TUS_BASE}/clips", ca_file=ca_file, objects_url=url + "/clips"),
        )


def _behind(stack, url, ca_file, way):
    """The server's address by this way, who vouches for it, and the nginx on it."""
    if way is Way.DIRECT:
        return url, ca_file, None
    nginx = stack.enter_context(doors(url))
    door = nginx.buffering if way is Way.BUFFERING else nginx.passing
    return door + urlsplit(url).path, nginx.ca_file, nginx


def _request(url, method, content=None, headers=None):
    asked = urllib.request.Request(url, data=content, method=method, headers=headers or {})  # noqa: S310  loopback
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310  same
        assert answer.status < 300


NODE = Kind(name="tus-node", title="`@tus/server`", open=_node)
SEAWEED = Kind(name="tus-seaweed", title="SeaweedFS, tus", open=_seaweed)
