"""Find the running station's control socket from its configuration, and ask it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dockd.config.load import find_config, load_station
from dockd.control.client import ask


def ask_station(config: str | None, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """The objects that answer one request. Raises as control.client.ask, and ConfigError."""
    return ask(load_station(find_config(config), files=False).socket_path, operation, **arguments)
