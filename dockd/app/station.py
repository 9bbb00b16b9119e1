"""The composition root of the station: reads keys and configuration, opens every part, and closes it again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from pathlib import Path

import structlog

from dockd import faults, log
from dockd.app.check import check_station
from dockd.app.clock import MachineClock
from dockd.app.running import run_until_signal
from dockd.config.load import load_station
from dockd.config.schema import StationConfig, Store
from dockd.control.notify import service_manager
from dockd.control.server import bind
from dockd.core.keyfiles import parse_store_pub
from dockd.core.profile import Profile
from dockd.core.sealing import parse_recipients_file
from dockd.core.sshsig import SigningKey
from dockd.devices.folder import FolderSource
from dockd.devices.port import DeviceSource
from dockd.errors import ConfigError
from dockd.keep.rebuild import Origins, open_journal
from dockd.keep.spool import Spool
from dockd.model import StationId
from dockd.reader.client import ForkServer
from dockd.station.daemon import Daemon, Machine
from dockd.station.reload import Live, known_profiles
from dockd.stores.receiver_store import ReceiverStore
from dockd.stores.wire import Timeouts

_log = structlog.get_logger()


def run_station(config_path: Path) -> int:
    """Run the station until a signal; returns the exit code. Raises ConfigError before anything is opened."""
    config = load_station(config_path)
    log.set_up(config.log.level, config.log.format)
    check_station(config_path, config)
    return run_until_signal(lambda: _run(config_path, config))


async def _run(config_path: Path, config: StationConfig) -> None:
    clock, failing = MachineClock(), faults.from_environment()
    recipients = parse_recipients_file(_read(config.seal.recipients_file, "seal.recipients_file").decode())
    store_public = parse_store_pub(_read(config.store.key_file, "store.key_file").decode())
    manifest_key = SigningKey.parse(_read(config.keys.manifest, "keys.manifest"))
    checkpoint_key = SigningKey.parse(_read(config.keys.checkpoint, "keys.checkpoint"))
    station = StationId(config.station.id)
    async with AsyncExitStack() as stack:
        spool = Spool(
            config.spool_directory,
            reserve_bytes=config.spool.reserve_bytes,
            max_bytes=config.spool.max_bytes,
            faults=failing,
        )
        origins = Origins(
            station=station,
            store=store_public.store,
            clock=clock,
            checkpoint_key=checkpoint_key,
            manifest_key=manifest_key.public,
        )
        journal = await open_journal(config.station.state_dir, spool, origins, failing)
        stack.push_async_callback(journal.aclose)
        store = ReceiverStore(
            url=config.store.url,
            ca_file=config.store.ca_file,
            store_public=store_public,
            station=station,
            key=manifest_key,
            clock=clock,
            timeouts=_timeouts(config.store),
        )
        stack.push_async_callback(store.aclose)
        forkserver = await ForkServer.start()
        stack.push_async_callback(forkserver.aclose)
        control = stack.enter_context(closing(bind(config.socket_path)))
        live = Live(config_path, config, known_profiles(config))
        directories, ports = config.bay_directories(), config.bays.port_numbers()
        await Daemon(
            Machine(
                station=station,
                trial=config.trial,
                bays=sorted({*directories, *ports.values()}),
                sources=sources(config, live.profiles),
                journal=journal,
                spool=spool,
                store=store,
                forkserver=forkserver,
                control=control,
                manifest_key=manifest_key,
                recipients=tuple(recipient.text for recipient in recipients),
                min_retention=timedelta(days=config.store.min_retention_days),
                slots=config.store.slots,
                patch_bytes=config.store.patch_bytes,
                live=live,
                clock=clock,
                random=secrets.token_bytes,
                service_manager=service_manager(os.environ, pid=os.getpid()),
            )
        ).run()


def _timeouts(store: Store) -> Timeouts:
    """A block may take twice, a small exchange three times as long as the wait for the next bytes of an answer."""
    read_s = store.read_timeout_s
    return Timeouts(connect_s=store.connect_timeout_s, read_s=read_s, write_s=2 * read_s, exchange_s=3 * read_s)


def sources(config: StationConfig, profiles: Callable[[], Sequence[Profile]]) -> tuple[DeviceSource, ...]:
    """Where cameras come from. USB is loaded only where it is configured: libudev need not be there otherwise."""
    found: list[DeviceSource] = []
    if config.bays.folder_root is not None:
        found.append(FolderSource(config.bay_directories()))
    ports = config.bays.port_numbers()
    if ports:
        from dockd.devices.usb.source import UsbSource  # noqa: PLC0415 - see above

        found.append(UsbSource(ports, blocker=config.blocker.socket, profiles=profiles))
    return tuple(found)


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{key}: {path} cannot be read: {error.strerror}", problems=(f"{key}: {path}: {error.strerror}",)
        ) from error
