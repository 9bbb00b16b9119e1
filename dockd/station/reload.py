"""Take over a changed configuration while running: validated whole, or not at all.

Only the keys in config.schema.RELOADABLE take effect; a change of any other is refused with a word about a restart.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from dockd import log
from dockd.config.load import load_station
from dockd.config.schema import StationConfig, fixed_changes
from dockd.errors import ConfigError
from dockd.reader.client import ClipRules
from dockd.station.status import Alarms

_log = structlog.get_logger()
_TOPIC = "configuration"


class Live:
    """The configuration as it is in force now."""

    def __init__(self, path: Path, config: StationConfig) -> None:
        self.config = config
        self._path = path

    def rules(self) -> ClipRules:
        """What a clip is; taken anew by every docking."""
        acquire = self.config.acquire
        return ClipRules(
            suffixes=tuple(acquire.suffixes),
            evidence_directories=tuple(acquire.evidence_directories),
            max_depth=acquire.max_depth,
            max_files=acquire.max_files,
            block_bytes=acquire.block_kib * 1024,
        )

    def keep_after_receipt(self) -> timedelta:
        """How long a confirmed clip's sealed file stays in the spool."""
        return timedelta(seconds=self.config.spool.keep_after_receipt_s)

    async def follow(self, alarms: Alarms) -> None:
        """Reload on SIGHUP and whenever the file changes, until cancelled. Never raises for a bad file."""
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        observer = Observer()
        observer.schedule(_Watch(self._path, lambda: loop.call_soon_threadsafe(changed.set)), str(self._path.parent))
        observer.start()
        loop.add_signal_handler(signal.SIGHUP, changed.set)
        try:
            while True:
                await changed.wait()
                changed.clear()
                alarms.set(_TOPIC, await asyncio.to_thread(self._reload))
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a stop is under way: it is not to be cut short
            observer.stop()

    def _reload(self) -> str:
        """Take the file over; returns why not, for status, or an empty text."""
        try:
            fresh = load_station(self._path)
        except ConfigError as error:
            _log.warning("configuration_refused", problems=error.problems)
            return f"the changed configuration is not used: {'; '.join(error.problems) or error}"
        if fresh == self.config:
            return ""
        fixed = fixed_changes(self.config, fresh)
        if fixed:
            _log.warning("configuration_needs_restart", keys=fixed)
            return f"the changed configuration is not used before a restart: {', '.join(fixed)} changed"
        self.config = fresh
        log.set_up(fresh.log.level, fresh.log.format)
        _log.info("configuration_taken_over")
        return ""


class _Watch(FileSystemEventHandler):
    """Hears of one file: editors replace it, so its directory is watched."""

    def __init__(self, path: Path, changed: Callable[[], object]) -> None:
        self._name = path.name
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called in watchdog's thread."""
        if event.event_type in ("opened", "closed_no_write"):
            return  # our own reading
        if self._name in (Path(str(event.src_path)).name, Path(str(event.dest_path)).name):
            self._changed()
