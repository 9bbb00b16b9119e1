"""The composition root of the station: reads keys and configuration, opens every part, and closes it again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

import structlog

from dockd import faults, log
from dockd.app.check import check_station
from dockd.app.clock import MachineClock
from dockd.app.running import run_until_signal
from dockd.app.stores import Identity, open_store, policy_of, read_file
from dockd.config.load import load_station
from dockd.config.schema import StationConfig
from dockd.control.notify import service_manager
from dockd.control.server import bind
from dockd.core.profile import Profile
from dockd.core.sealing import parse_recipients_file
from dockd.core.sshsig import SigningKey
from dockd.devices.folder import FolderSource
from dockd.devices.port import DeviceSource
from dockd.keep.rebuild import Origins, open_journal
from dockd.keep.spool import Spool
from dockd.model import StationId
from dockd.reader.client import ForkServer
from dockd.station.daemon import Daemon, Machine
from dockd.station.limits import limits_of
from dockd.station.reload import Live, known_profiles

_log = structlog.get_logger()


def run_station(config_path: Path) -> int:
    """Run the station until a signal; returns the exit code. Raises ConfigError before anything is opened."""
    config = load_station(config_path)
    log.set_up(config.log.level, config.log.format)
    check_station(config_path, config)
    return run_until_signal(lambda: _run(config_path, config))


async def _run(config_path: Path, config: StationConfig) -> None:
    clock, failing = MachineClock(), faults.from_environment()
    recipients = parse_recipients_file(read_file(config.seal.recipients_file, "seal.recipients_file").decode())
    manifest_key = SigningKey.parse(read_file(config.keys.manifest, "keys.manifest"))
    checkpoint_key = SigningKey.parse(read_file(config.keys.checkpoint, "keys.checkpoint"))
    station = StationId(config.station.id)
    async with AsyncExitStack() as stack:
        spool = Spool(
            config.spool_directory,
            reserve_bytes=config.spool.reserve_bytes,
            max_bytes=config.spool.max_bytes,
            faults=failing,
        )
        limits = limits_of(config, clock)
        identity = Identity(station=station, key=manifest_key, clock=clock, spool=spool, pace=limits.pacing)
        outlets = {}
        for name, section in config.store.items():
            outlets[name] = open_store(name, section, identity, stack)
        origins = Origins(
            station=station,
            stores=tuple(one.store for one in outlets.values() if one.signing is not None),
            clock=clock,
            checkpoint_key=checkpoint_key,
            manifest_key=manifest_key.public,
        )
        journal = await open_journal(config.station.state_dir, spool, origins, failing)
        stack.push_async_callback(journal.aclose)
        forkserver = await ForkServer.start()
        stack.push_async_callback(forkserver.aclose)
        control = stack.enter_context(closing(bind(config.socket_path)))
        live = Live(config_path, config, known_profiles(config), limits)
        directories, ports = config.bay_directories(), config.bays.port_numbers()
        await Daemon(
            Machine(
                station=station,
                trial=config.trial,
                bays=sorted({*directories, *ports.values()}),
                sources=sources(config, live.profiles),
                journal=journal,
                spool=spool,
                outlets=tuple(outlets.values()),
                policy=policy_of(config, {name: one.store for name, one in outlets.items()}),
                forkserver=forkserver,
                control=control,
                manifest_key=manifest_key,
                recipients=tuple(recipient.text for recipient in recipients),
                live=live,
                limits=limits,
                clock=clock,
                random=secrets.token_bytes,
                service_manager=service_manager(os.environ, pid=os.getpid()),
            )
        ).run()


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
