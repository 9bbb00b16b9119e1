"""S3: SeaweedFS and Ceph's object gateway. One bucket each; what is believed a probe found first."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace

from contract.evidence import Clip, Keys
from contract.stores.cases import Case, Kind, ProxyFaults, Way, proxy_before
from servers.buckets import MachineClock, adapter, make_bucket
from servers.nginx import doors

from dockd.core.transfer import Call
from dockd.stores.credentials import EnvironmentCredentials
from dockd.stores.s3_parts import MIN_PART_BYTES
from dockd.stores.s3_probe import believed, probe
from dockd.stores.s3_records import checksum_header, parse_objects, parse_upload

CALLS = {
    Call.REGISTER: ("POST", r"[?&]uploads="),
    Call.OFFSET: ("GET", r"[?&]uploadId="),
    Call.APPEND: ("PUT", r"[?&]partNumber="),
    Call.FINISH: ("POST", r"[?&]uploadId="),
}
BUCKET = "conformance"
_KNOWN = {}  # by server: what the probe found in its bucket


async def _believed(server):
    if server.s3_url not in _KNOWN:
        async with aclosing(adapter(server, BUCKET)) as store:
            await make_bucket(store)
            _KNOWN[server.s3_url] = believed(await probe(store, random=secrets.token_bytes, clock=MachineClock()))
    return _KNOWN[server.s3_url]


def _kind(name, title, fixture):
    @asynccontextmanager
    async def opened(request, way):
        server = request.getfixturevalue(fixture)
        clips, keys = {}, Keys()

        def clip(size=200_000):
            made = Clip(keys, size=MIN_PART_BYTES + size)  # two parts
            clips[made.acquisition] = made
            return made

        async def from_spool(acquisition, part_bytes):
            content = clips[acquisition].content
            return [hashlib.sha256(content[at : at + part_bytes]).digest() for at in range(0, len(content), part_bytes)]

        with ExitStack() as stack:
            operator = adapter(server, BUCKET)
            url, tls, nginx = server.s3_url, {}, None
            if way is not Way.DIRECT:
                nginx = stack.enter_context(doors(url))
                url = nginx.buffering if way is Way.BUFFERING else nginx.passing
                tls = {
                    "certificate": nginx.ca_file,
                    "key": nginx.ca_file.with_suffix(".key"),
                    "believes": nginx.ca_file,
                }
            proxy, url = proxy_before(url, **tls)
            stack.callback(proxy.stop)
            settings = {
                "ca_file": tls.get("believes"),
                "part_bytes": MIN_PART_BYTES,
                "believed": await _believed(server),
                "part_digests": from_spool,
            }
            reached = replace(server, s3_url=url)

            async def remove(objects, piece):
                await operator.bucket.delete(parse_objects(objects).key(piece), "")

            async def occupy(upload, _):
                content = b"another"
                await operator.bucket.put(
                    parse_upload(upload).key(), content, checksum_header(hashlib.sha256(content).digest())
                )

            @asynccontextmanager
            async def fill():
                with server.used_up(BUCKET):
                    yield

            wrong = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": "not-the-secret"}
            async with aclosing(operator):
                yield Case(
                    connect=lambda: adapter(reached, BUCKET, **settings),
                    connect_wrongly=lambda: adapter(
                        reached, BUCKET, **(settings | {"credentials": EnvironmentCredentials(wrong)})
                    ),
                    clip=clip,
                    faults=ProxyFaults(proxy, CALLS),
                    remove=remove,
                    occupy=occupy,
                    expire=operator.abandon,
                    fill=fill,
                    nginx=nginx,
                    at=lambda url, ca_file: adapter(
                        replace(server, s3_url=url), BUCKET, **(settings | {"ca_file": ca_file})
                    ),
                )

    return Kind(name=name, title=title, open=opened)


SEAWEED_S3 = _kind("seaweed-s3", "SeaweedFS, S3", "seaweed")
CEPH_S3 = _kind("ceph-s3", "Ceph RGW, S3", "ceph")
