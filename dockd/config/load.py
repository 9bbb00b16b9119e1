"""Read a configuration: every mistake at once, each with file, key, what was found and what is allowed."""

from __future__ import annotations

import difflib
import errno
import json
import os
import stat
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dockd.config.schema import ReceiverConfig, StationConfig, inner_tables
from dockd.config.stores import (
    RECEIVER,
    AxisStore,
    ReceiverStore,
    S3Store,
    Store,
    TusStore,
    WebIdentity,
    disagreeing,
)
from dockd.config.tables import BASE
from dockd.errors import ConfigError

STATION_FILE = Path("/etc/dockd/dockd.toml")
RECEIVER_FILE = Path("/etc/dockd/receiver.toml")
STATION_VARIABLE = "DOCKD_CONFIG"
RECEIVER_VARIABLE = "DOCKD_RECEIVER_CONFIG"

_MAX_BYTES = 1024 * 1024
_MAX_FOUND = 80  # characters of a wrong value in a message
_OTHERS = 0o077
_C = TypeVar("_C", bound=BaseModel)


def find_config(option: str | Path | None) -> Path:
    """The station's configuration: the option, else $DOCKD_CONFIG, else /etc/dockd/dockd.toml."""
    return Path(option or os.environ.get(STATION_VARIABLE) or STATION_FILE)


def find_receiver_config(option: str | Path | None) -> Path:
    """The receiver's configuration: the option, else $DOCKD_RECEIVER_CONFIG, else /etc/dockd/receiver.toml."""
    return Path(option or os.environ.get(RECEIVER_VARIABLE) or RECEIVER_FILE)


def load_station(path: Path, *, files: bool = True) -> StationConfig:
    """The station's configuration. Raises ConfigError with every mistake, OSError where the state's disk is read-only.

    With `files`, the files and directories that it names are looked at as well: there, readable, private keys private.
    Without, only the file itself counts: who asks a running daemon need not be able to read its keys.
    """
    config, base = _load(path, StationConfig)
    if files:
        looked = _Look(path, base)
        looked.private("keys.manifest", config.keys.manifest)
        looked.private("keys.checkpoint", config.keys.checkpoint)
        looked.readable("seal.recipients_file", config.seal.recipients_file)
        for name, store in config.store.items():
            looked.store(f"store.{name}", store)
        for key, found, allowed in disagreeing(config.store):
            looked.say(key, found, allowed)
        looked.bays(config)
        if config.bays.ports:
            looked.directory("cameras.directory", config.cameras.directory)
        looked.state("station.state_dir", config.station.state_dir)
        looked.state("spool.directory", config.spool.directory)
        looked.finish()
    return config


def load_receiver(path: Path, *, files: bool = True) -> ReceiverConfig:
    """The receiver's configuration. As load_station."""
    config, base = _load(path, ReceiverConfig)
    if files:
        looked = _Look(path, base)
        looked.state("receiver.directory", config.receiver.directory)
        looked.readable("receiver.tls_cert", config.receiver.tls_cert)
        looked.private("receiver.tls_key", config.receiver.tls_key)
        looked.private("keys.store", config.keys.store)
        looked.readable("accept.recipients_file", config.accept.recipients_file)
        looked.finish()
    return config


def is_receiver(path: Path) -> bool:
    """Whether a file looks like the receiver's configuration and not the station's. Raises ConfigError."""
    return "receiver" in _parse(path)


def parse_table(path: Path, model: type[_C]) -> _C:
    """A file that is one table: of its values as `model` says, and with no key beside. Raises ConfigError."""
    return _load(path, model)[0]


def problem(path: Path, key: str, found: str, allowed: str) -> str:
    """One mistake in one line."""
    return f"{path}: {key}: found {found}; allowed: {allowed}"


def refused(path: Path, problems: list[str]) -> ConfigError:
    """The error that carries all of them."""
    count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return ConfigError(f"{path} cannot be used: {count}", problems=tuple(problems))


# --- the text


def _load(path: Path, model: type[_C]) -> tuple[_C, Path]:
    document = _parse(path)
    base = path.resolve().parent  # where the file really is, also when it is reached by a link
    try:
        return model.model_validate(document, context={BASE: base}), base
    except ValidationError as error:
        lines: list[str] = []
        for mistake in error.errors(include_url=False):
            line = _explain(path, model, mistake["type"], mistake["loc"], mistake["input"])
            if line not in lines:  # an optional key fails once for each of its types
                lines.append(line)
        raise refused(path, lines) from error


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise refused(
            path, [f"{path}: there is no such file; name it with --config FILE, or make one with `dockd init DIR`"]
        ) from error
    except PermissionError as error:
        raise refused(path, [f"{path}: you may not read it (you are uid {os.geteuid()})"]) from error
    except OSError as error:
        raise refused(path, [f"{path}: cannot be read: {error.strerror}"]) from error
    if len(content) > _MAX_BYTES:
        raise refused(path, [f"{path}: found more than {_MAX_BYTES} bytes; allowed: a configuration"])
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise refused(path, [f"{path}: is no UTF-8 text (byte {error.start + 1})"]) from error
    except tomllib.TOMLDecodeError as error:
        raise refused(path, [f"{path}: is no TOML: {error}"]) from error
    except RecursionError as error:
        raise refused(path, [f"{path}: is no TOML: nested too deeply"]) from error


def _explain(path: Path, model: type[BaseModel], kind: str, where: tuple[int | str, ...], found: Any) -> str:
    """One line for one of pydantic's errors, in the words of the schema."""
    if kind == "union_tag_invalid":  # a table whose `kind` is none
        where, found = (*where, RECEIVER, "kind"), found["kind"]
    walk = _Walk(model)
    if kind == "extra_forbidden":
        for part in where[:-1]:
            walk.step(part)
        return _unknown(path, walk, str(where[-1]))
    for part in where:
        if not walk.step(part):
            break
    return problem(path, walk.key, "nothing" if kind == "missing" else _shown(found), walk.allowed)


def _unknown(path: Path, walk: _Walk, name: str) -> str:
    names = list(walk.table.model_fields)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    others = [kind for kind, one in walk.kinds.items() if name in one.model_fields]
    if others:
        hint = f" (it belongs to kind = {' or '.join(json.dumps(one) for one in others)})"
    key = f"{walk.key}.{name}".lstrip(".")
    return problem(path, key, "an unknown key" + hint, ", ".join(names))


class _Walk:
    """Follows one of pydantic's paths through the schema."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.key = ""
        self.allowed = ""  # in the words of the last key that stands on the way
        self.table = model
        self.kinds: Mapping[str, type[BaseModel]] = {}  # those that the table could be, where there are several
        self._named = self._choosing = False

    def step(self, part: int | str) -> bool:
        """One part further. False for pydantic's own name for one of several types, which is left out."""
        if isinstance(part, int):
            self.key += f"[{part}]"
        elif self._named:
            self.key += f".{part}"
            self._named = False
        elif self._choosing and part in self.kinds:
            self.table, self._choosing = self.kinds[part], False
        elif (field := self.table.model_fields.get(part)) is not None:
            self.key += f".{part}" if self.key else part
            self.allowed = field.description or ""
            tables, self._named = inner_tables(field.annotation)
            self.kinds = tables if len(tables) > 1 else {}
            self._choosing = bool(self.kinds)
            self.table = next(iter(tables.values()), self.table)
        else:
            return False
        return True


def _shown(value: Any) -> str:
    """A value as TOML writes it, more or less."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, datetime | date | time):
        return f"the time {value.isoformat()}"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        text = repr(value)
    return text if len(text) <= _MAX_FOUND else text[:_MAX_FOUND] + "..."


# --- the files that it names


class _Look:
    """Looks at the files a configuration names, and collects what is amiss."""

    def __init__(self, path: Path, base: Path) -> None:
        self._path = path
        self._base = base
        self._problems: list[str] = []

    def add(self, key: str, target: Path, found: str, allowed: str) -> None:
        """One mistake more."""
        self.say(key, f"{target} ({found})", allowed)

    def say(self, key: str, found: str, allowed: str) -> None:
        """One mistake more, of no file."""
        self._problems.append(problem(self._path, key, found, allowed))

    def readable(self, key: str, target: Path) -> bool:
        """A plain file that this user can read."""
        wanted = "a file that the daemon's user can read"
        try:
            with target.open("rb") as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return True
                self.add(key, target, "not a plain file", wanted)
        except OSError as error:
            self.add(key, target, error.strerror or str(error), wanted)
        return False

    def private(self, key: str, target: Path) -> None:
        """The same, and for nobody else."""
        if self.readable(key, target) and target.stat().st_mode & _OTHERS:
            found = f"mode {stat.S_IMODE(target.stat().st_mode):04o}, others can read it"
            self.add(key, target, found, f"a private file of mode 0600 (chmod 600 {target})")

    def store(self, key: str, store: Store) -> None:
        """What one `[store.NAME]` names. What signs in to it may come later: then this store waits, and no other."""
        if store.ca_file is not None:
            self.readable(f"{key}.ca_file", store.ca_file)
        if store.client_cert is not None:
            self.readable(f"{key}.client_cert", store.client_cert)
        if store.client_key is not None:
            self.private(f"{key}.client_key", store.client_key)
        match store:
            case ReceiverStore():
                self.readable(f"{key}.key_file", store.key_file)
                for station in store.trust_stations:
                    self.readable(f"{key}.trust_stations", store.stations_directory / f"{station}.pub")
            case TusStore(authorization_file=Path() as file) if file.exists():
                self.private(f"{key}.authorization_file", file)
            case S3Store(credentials_file=Path() as file) if file.exists():
                self.private(f"{key}.credentials_file", file)
            case S3Store(web_identity=WebIdentity(ca_file=Path() as file)):
                self.readable(f"{key}.web_identity.ca_file", file)
            case AxisStore(credentials_file=file) if file.exists():
                self.private(f"{key}.credentials_file", file)

    def directory(self, key: str, target: Path) -> bool:
        """A directory that can be listed."""
        try:
            with os.scandir(target):
                return True
        except OSError as error:
            self.add(key, target, error.strerror or str(error), "a directory that the daemon's user can list")
        return False

    def bays(self, config: StationConfig) -> None:
        """Directories of bays, whose numbers no USB port has."""
        root = config.bays.folder_root
        if root is None or not self.directory("bays.folder_root", root):
            return
        directories = config.bay_directories()
        if not directories:
            self.add("bays.folder_root", root, "no bay in it", "subdirectories called 1, 2, ...")
        for bay in sorted(set(directories) & set(config.bays.port_numbers().values())):
            self.add("bays.ports", directories[bay], f"bay {bay} is this directory, too", "a number of its own")

    def state(self, key: str, target: Path | None) -> None:
        """A directory to write in; the daemon makes it, in the nearest one above that is there.

        Raises OSError where its file system is read-only: a disk that failed is no mistake of the configuration, and
        whoever starts the daemon should try again.
        """
        if target is None:
            return
        there = target
        try:
            while not there.exists():
                there = there.parent
            usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
            locked = not usable and bool(os.statvfs(there).f_flag & os.ST_RDONLY)
        except OSError:
            usable = locked = False
        if locked:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(there))
        if not usable:
            found = f"{there} is no directory that you can write in (you are uid {os.geteuid()})"
            self.add(key, target, found, "a directory that the daemon's user can write in")

    def finish(self) -> None:
        """Raises ConfigError where anything was amiss."""
        if self._problems:
            raise refused(self._path, self._problems)
