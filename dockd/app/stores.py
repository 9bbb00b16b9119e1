"""Open the stores that a configuration names, and say what their words are worth together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dockd.config.schema import StationConfig
from dockd.config.stores import CountedStores, ReceiverStore, Store
from dockd.core.keyfiles import parse_store_pub
from dockd.core.policy import CountOf, EraseWhen, PolicyStore, StorePolicy
from dockd.core.sshsig import SigningKey
from dockd.errors import ConfigError
from dockd.model import Clock, StationId, StoreId
from dockd.station.outlet import Outlet
from dockd.stores.receiver_store import ReceiverStore as Receiver
from dockd.stores.wire import Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the station is to a store."""

    station: StationId
    key: SigningKey
    clock: Clock


def open_store(name: str, section: ReceiverStore, identity: Identity) -> Outlet:
    """The store of `[store.NAME]`; nothing is sent to it yet. The caller closes its `port`. Raises ConfigError."""
    receiver = Receiver(
        url=section.url,
        ca_file=section.ca_file,
        store_public=parse_store_pub(read_file(section.key_file, f"store.{name}.key_file").decode()),
        station=identity.station,
        key=identity.key,
        clock=identity.clock,
        timeouts=_timeouts(section),
    )
    return Outlet(
        signing=receiver,
        slots=section.slots,
        patch_bytes=section.patch_bytes,
        failover_after_s=float(section.failover_after_s),
    )


def policy_of(config: StationConfig, ids: Mapping[str, StoreId] | None = None) -> StorePolicy:
    """The store policy, with the stores' ids where they are known by now, else with their names.

    Raises ValueError for one that these stores cannot satisfy.
    """

    def id_of(name: str) -> StoreId:
        return (ids or {}).get(name, StoreId(name))

    wanted = config.stores.erase_when
    if isinstance(wanted, CountedStores):
        when: EraseWhen | CountOf = CountOf(count=wanted.count, of=tuple(id_of(name) for name in wanted.of))
    else:
        when = EraseWhen(wanted)
    return StorePolicy(
        [
            PolicyStore(
                store=id_of(name),
                name=name,
                final=one.is_final,
                fallback_for=None if one.fallback_for is None else id_of(one.fallback_for),
                min_retention=timedelta(days=one.min_retention_days),
            )
            for name, one in config.store.items()
        ],
        when,
    )


def read_file(path: Path, key: str) -> bytes:
    """What a key of the configuration names. Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{key}: {path} cannot be read: {error.strerror}", problems=(f"{key}: {path}: {error.strerror}",)
        ) from error


def _timeouts(store: Store) -> Timeouts:
    """A block may take twice, a small exchange three times as long as the wait for the next bytes of an answer."""
    read_s = store.read_timeout_s
    return Timeouts(connect_s=store.connect_timeout_s, read_s=read_s, write_s=2 * read_s, exchange_s=3 * read_s)
