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
from watchdog.observers.api import BaseObserver

from dockd import log
from dockd.config.load import load_station
from dockd.config.schema import Acquire, StationConfig, fixed_changes
from dockd.core.profile import Profile
from dockd.errors import ConfigError
from dockd.reader.client import ClipRules
from dockd.station.cameras import load_profiles
from dockd.station.limits import Limits, caps_of
from dockd.station.status import Alarms

_log = structlog.get_logger()
_TOPIC = "configuration"


class Live:
    """The configuration as it is in force now."""

    def __init__(
        self, path: Path, config: StationConfig, profiles: tuple[Profile, ...] = (), limits: Limits | None = None
    ) -> None:
        self.config = config
        self._limits = limits
        self._path = path
        self._profiles = profiles

    def profiles(self) -> tuple[Profile, ...]:
        """The kinds of cameras that are known; asked anew for every camera that is plugged in."""
        return self._profiles

    def rules(self, profile: Profile) -> ClipRules:
        """What a clip of such a camera is; taken anew by every docking."""
        return rules_for(self.config.acquire, profile)

    def keep_after_receipt(self) -> timedelta:
        """How long a confirmed clip's sealed file stays in the spool."""
        return timedelta(seconds=self.config.spool.keep_after_receipt_s)

    async def follow(self, alarms: Alarms, on_reload: Callable[[], None] = lambda: None) -> None:
        """Reload on SIGHUP and whenever a file changes, until cancelled. Never raises for a bad file.

        A directory of profiles that was not there at the start is looked at again on SIGHUP. `on_reload` hears of each
        time, also where nothing changed; it must not block.
        """
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def heard() -> None:
            loop.call_soon_threadsafe(changed.set)

        observer = Observer()
        try:
            await asyncio.to_thread(self._watch, observer, heard)
            loop.add_signal_handler(signal.SIGHUP, changed.set)
            changed.set()  # it may have changed between its reading and the watching
            while True:
                await changed.wait()
                changed.clear()
                alarms.set(_TOPIC, await asyncio.to_thread(self._reload))
                if self._limits is not None:
                    self._limits.follow(self.config.uplink)
                on_reload()
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a stop is under way: it is not to be cut short
            await asyncio.to_thread(observer.stop)

    def _watch(self, observer: BaseObserver, heard: Callable[[], object]) -> None:
        observer.schedule(_Watch(heard, self._path.name), str(self._path.parent))
        cameras = self.config.cameras.directory
        if cameras.is_dir() and cameras != self._path.parent:
            observer.schedule(_Watch(heard), str(cameras))
        try:
            observer.start()
        except OSError as error:  # no inotify watches are left, for instance
            _log.warning("configuration_not_watched", reason=error.strerror)  # SIGHUP is still heard

    def _reload(self) -> str:
        """Take the file over; returns why not, for status, or an empty text."""
        try:
            fresh = load_station(self._path)
            profiles = known_profiles(fresh)
            caps_of(fresh.uplink)
        except (ConfigError, OSError) as error:
            problems = error.problems if isinstance(error, ConfigError) else ()
            _log.warning("configuration_refused", problems=problems or str(error))
            return f"the changed configuration is not used: {'; '.join(problems) or error}"
        if (fresh, profiles) == (self.config, self._profiles):
            return ""
        fixed = fixed_changes(self.config, fresh)
        if fixed:
            _log.warning("configuration_needs_restart", keys=fixed)
            return f"the changed configuration is not used before a restart: {', '.join(fixed)} changed"
        self.config, self._profiles = fresh, profiles
        log.set_up(fresh.log.level, fresh.log.format)
        _log.info("configuration_taken_over")
        return ""


def rules_for(acquire: Acquire, profile: Profile) -> ClipRules:
    """The station's rules, and those of a profile."""
    return ClipRules(
        suffixes=tuple(acquire.suffixes),
        evidence_directories=tuple(acquire.evidence_directories),
        max_depth=acquire.max_depth,
        max_files=acquire.max_files,
        block_bytes=acquire.block_kib * 1024,
        files=profile.files,
        names=profile.names,
    )


def known_profiles(config: StationConfig) -> tuple[Profile, ...]:
    """The profiles of a configuration; none where no bay is a USB port. Raises ConfigError."""
    return load_profiles(config.cameras.directory) if config.bays.ports else ()


class _Watch(FileSystemEventHandler):
    """Hears of one file, or of all in a directory: editors replace a file, so its directory is watched."""

    def __init__(self, changed: Callable[[], object], name: str = "") -> None:
        self._changed = changed
        self._name = name

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called in watchdog's thread."""
        if event.event_type in ("opened", "closed_no_write"):
            return  # our own reading
        if not self._name or self._name in (Path(str(event.src_path)).name, Path(str(event.dest_path)).name):
            self._changed()
