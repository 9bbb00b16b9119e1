"""OpenStack Swift as an Axis content destination. Every clip is long enough to travel in pieces."""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack, asynccontextmanager

from contract.evidence import STATION, Clip, Keys, MachineClock
from contract.stores.cases import Case, Kind, ProxyFaults, Way, proxy_before
from servers.nginx import doors

from dockd.core.transfer import Call
from dockd.stores.axis import AxisStore
from dockd.stores.axis_names import SEGMENTS
from dockd.stores.axis_session import AxisCredentials

_RECORDING = r"^/v1/AUTH_dock/[^/?]*_[^/?]*$"
CALLS = {
    Call.REGISTER: ("PUT", _RECORDING),
    Call.OFFSET: ("HEAD", _RECORDING),
    Call.APPEND: ("PUT", f"/{SEGMENTS}/"),
    Call.FINISH: ("PUT", "multipart-manifest=put"),
}
_LEAST_BYTES = 300_000  # of plaintext; what is shorter goes in one piece


def _adapter(swift, url, ca_file=None, *, key=None):
    return AxisStore(
        name="axis",
        url=f"{url}/auth/v1.0",
        ca_file=ca_file,
        clock=MachineClock(),
        credentials=lambda: AxisCredentials(user=swift.user, key=key or swift.key),
        station=STATION,
        insecure_loopback=True,
    )


@asynccontextmanager
async def _axis(request, way):
    swift, keys = request.getfixturevalue("swift"), Keys()
    direct = f"http://127.0.0.1:{swift.port}"
    operator = _adapter(swift, direct)
    ask = operator.account.ask

    async def remove(objects, piece):
        found = json.loads(objects)
        await ask(Call.ABANDON, "DELETE", (found["container"], found["pieces"][piece]["name"]))

    async def occupy(upload, clip):
        found = json.loads(upload)
        name = found["name"].rsplit(".", 1)[0] + ".manifest.json"
        await ask(Call.FINISH, "PUT", (found["container"], name), content=b"another")

    @asynccontextmanager
    async def fill():
        """No room in the container of pieces, by a quota."""
        await ask(Call.REGISTER, "POST", (SEGMENTS,), headers={"X-Container-Meta-Quota-Bytes": "1"})
        try:
            yield
        finally:
            await ask(Call.REGISTER, "POST", (SEGMENTS,), headers={"X-Remove-Container-Meta-Quota-Bytes": "x"})

    with ExitStack() as stack:
        nginx, beyond, url = None, {}, direct
        if way is not Way.DIRECT:
            nginx = stack.enter_context(doors(direct))
            url, beyond = nginx.buffering if way is Way.BUFFERING else nginx.passing, {"believes": nginx.ca_file}
        proxy, url = proxy_before(url, **beyond)
        stack.callback(proxy.stop)
        yield Case(
            connect=lambda: _adapter(swift, url),
            connect_wrongly=lambda: _adapter(swift, url, key=secrets.token_hex()),
            clip=lambda size=_LEAST_BYTES: Clip(keys, size=max(size, _LEAST_BYTES)),
            faults=ProxyFaults(proxy, CALLS),
            remove=remove,
            occupy=occupy,
            fill=fill,
            nginx=nginx,
            at=lambda url, ca_file: _adapter(swift, url, ca_file),
        )
        await operator.aclose()


AXIS = Kind(name="axis-swift", title="OpenStack Swift, Axis", open=_axis)
