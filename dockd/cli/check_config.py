"""`dockd check-config`: every mistake of a configuration, before it is used."""

from __future__ import annotations

import argparse
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
    """Check it. Raises ConfigError with every mistake."""
    from dockd.app.check import check_receiver, check_station
    from dockd.config.load import is_receiver, load_receiver, load_station

    if is_receiver(args.file):
        check_receiver(args.file, load_receiver(args.file))
    else:
        check_station(args.file, load_station(args.file))
    print(f"{args.file}: no mistakes found")
    return 0
