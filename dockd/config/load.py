"""Load a configuration: every mistake at once, each with file, key, what was found and what is allowed."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dockd.config.schema import ReceiverConfig, StationConfig
from dockd.errors import ConfigError

_M = TypeVar("_M", bound=BaseModel)
_SHOWN = 80


def find_config(option: str | None, name: str = "dockd.toml", environment: Mapping[str, str] = os.environ) -> Path:
    """The configuration file: what `--config` says, else DOCKD_CONFIG, else /etc/dockd/`name`."""
    return Path(option or environment.get("DOCKD_CONFIG") or f"/etc/dockd/{name}")


def load_station(path: Path) -> StationConfig:
    """dockd.toml. Raises ConfigError with every problem; nothing it names has been opened yet."""
    config = _load(path, StationConfig)
    root = config.bays.folder_root
    if not root.is_dir():
        problem = (
            f"{path}: bays.folder_root: found {root}; allowed: a directory whose subdirectories 1, 2, ... are bays"
        )
        raise ConfigError(f"{path} cannot be used", problems=(problem,))
    return config


def load_receiver(path: Path) -> ReceiverConfig:
    """receiver.toml. Raises ConfigError with every problem."""
    return _load(path, ReceiverConfig)


def _load(path: Path, model: type[_M]) -> _M:
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no configuration at {path}: name one with --config or DOCKD_CONFIG, or make a trial set with "
            "`dockd init DIR`"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{path} cannot be read: {reason}", problems=(f"{path}: {reason}",)) from error
    try:
        return model.model_validate(record, context=str(path.absolute().parent))
    except ValidationError as error:
        problems = tuple(_problem(path, model, one) for one in error.errors(include_url=False))
        raise ConfigError(f"{path} cannot be used", problems=problems) from error


def _problem(path: Path, model: type[BaseModel], error: Mapping[str, Any]) -> str:
    where = error["loc"]
    key = ".".join(str(part) for part in where)
    if error["type"] == "missing":
        return f"{path}: {key}: found nothing; allowed: it has to be set (see config/{path.name})"
    if error["type"] == "extra_forbidden":
        known = _known(model, where[:-1])
        near = difflib.get_close_matches(str(where[-1]), known, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"
        return f"{path}: {key}: found an unknown key{hint}"
    allowed = str(error["msg"]).removeprefix("Value error, ")
    found = repr(error["input"])
    return f"{path}: {key}: found {found[:_SHOWN]}; allowed: {allowed}"


def _known(model: type[BaseModel], where: tuple[Any, ...]) -> list[str]:
    for part in where:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)
