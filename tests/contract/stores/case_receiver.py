"""Our own receiver, for the parts that every store has."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from contract.evidence import Clip, Keys, receiving
from contract.stores.cases import Case, Kind, ProxyFaults, Way, proxy_before
from servers.nginx import doors
from servers.programs import free_ports

from dockd.core import sshsig
from dockd.core.transfer import Call

CALLS = {
    Call.REGISTER: ("PUT", "/acquisitions/"),
    Call.OFFSET: ("HEAD", "/uploads/"),
    Call.APPEND: ("PATCH", "/uploads/"),
}


@asynccontextmanager
async def _receiver(request, way):
    del request
    keys = Keys()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="dockd-receiver.")))
        ports = free_ports(4)
        async with receiving(keys, directory, ports) as receiver:
            # The statement of a session names the host as dialled: the proxy passes it on, and the receiver knows it.
            url, ca_file = f"https://127.0.0.1:{receiver.port}", receiver.cert
            nginx = None
            if way is not Way.DIRECT:
                nginx = stack.enter_context(doors(url, ports[:3]))
                url = nginx.buffering if way is Way.BUFFERING else nginx.passing
                ca_file = nginx.ca_file
            proxy, url = proxy_before(
                url, certificate=receiver.cert, key=receiver.tls_key, believes=ca_file, port=ports[3]
            )
            stack.callback(proxy.stop)
            yield Case(
                connect=lambda: receiver.connect(port=proxy.port),
                connect_wrongly=lambda: receiver.connect(port=proxy.port, key=sshsig.SigningKey.generate()),
                clip=lambda size=200_000: Clip(keys, size=size),
                faults=ProxyFaults(proxy, CALLS),
                nginx=nginx,
                at=lambda url, ca_file: receiver.connect(port=urlsplit(url).port, ca_file=ca_file),
            )


RECEIVER = Kind(name="receiver", title="dockd receiver", open=_receiver, keeps_objects=False)
