"""`dockd check-config`: every mistake of a configuration, before it is used."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check-config",
        help="check a configuration without using it",
        description="Check dockd.toml or receiver.toml and list every mistake: file, key, what was found, what is "
        "allowed. Exit codes: 0 it can be used; 78 it cannot.",
        epilog="Example: dockd check-config /etc/dockd/dockd.toml",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the configuration")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Check it. Raises ConfigError with every problem."""
    from dockd.config.load import load_receiver, load_station

    kind = load_receiver if _is_receiver(args.file) else load_station
    kind(args.file)
    print(f"{args.file}: no mistakes found")
    return 0


def _is_receiver(path: Path) -> bool:
    """By its sections; a file that cannot be parsed is left to the loader's own words."""
    try:
        return "receiver" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return path.name.startswith("receiver")
