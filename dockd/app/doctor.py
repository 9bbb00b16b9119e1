"""Try readers' confinement, and the stores of a configuration, without a running station: nothing is kept of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from dockd import log
from dockd.app.check import check_station
from dockd.app.clock import MachineClock
from dockd.app.stores import Identity, open_store, policy_of, read_file
from dockd.config.load import load_station
from dockd.core.findings import Findings
from dockd.core.sshsig import SigningKey
from dockd.errors import RequestRefused
from dockd.model import StationId
from dockd.reader.client import ForkServer
from dockd.station import confinement
from dockd.station.doctor import looked_at, report, to_json, unsuited


async def examine(path: Path, name: str | None) -> AsyncGenerator[dict[str, Any], None]:
    """A report for readers and for each store, or for the store of this name alone.

    Raises ConfigError, RequestRefused for a name of none.
    """
    config = load_station(path)
    log.set_up("error", config.log.format)
    check_station(path, config)
    if name is not None and name not in config.store:
        known = ", ".join(sorted(config.store))
        raise RequestRefused(f"there is no store {name}: name one of {known}", kind="usage")
    identity = Identity(
        station=StationId(config.station.id),
        key=SigningKey.parse(read_file(config.keys.manifest, "keys.manifest")),
        clock=MachineClock(),
        spool=None,
    )
    if name is None:
        forkserver = await ForkServer.start()
        try:
            yield confinement.to_json(await confinement.measure(forkserver))
        finally:
            await forkserver.aclose()
    async with AsyncExitStack() as closing:
        outlets = {one: open_store(one, section, identity, closing) for one, section in config.store.items()}
        policy = policy_of(config, {one: outlet.store for one, outlet in outlets.items()})
        for one, outlet in outlets.items():
            configured = policy.store(outlet.store)
            if configured is None or name not in (None, one):
                continue
            probing = outlet.keeping.probing if outlet.keeping else None
            found = await looked_at(outlet, probing.probe if probing else _nothing)
            yield to_json(report(configured, found, (), await unsuited(outlet, configured)))


async def _nothing() -> Findings:
    """A receiver was asked on the way."""
    return ()
