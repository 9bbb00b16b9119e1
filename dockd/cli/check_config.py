"""`dockd check-config`: every mistake of a configuration, before it is used."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check-config",
        help="check a configuration without using it",
        description="Check dockd.toml or receiver.toml and list every mistake: file, key, what was found, what is "
        "allowed. Certificates that have expired or soon will are named as well. Exit codes: 0 it can be used; 78 it "
        "cannot.",
        epilog="Example: dockd check-config /etc/dockd/dockd.toml",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the configuration")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Check it. Raises ConfigError with every mistake."""
    from dockd.app.check import careful_ports, careful_receiver, careful_station, check_receiver, check_station
    from dockd.app.clock import MachineClock
    from dockd.config.load import is_receiver, load_receiver, load_station

    now = MachineClock().now()
    if is_receiver(args.file):
        receiver = load_receiver(args.file)
        check_receiver(args.file, receiver)
        doubts = careful_receiver(receiver, now)
    else:
        station = load_station(args.file)
        check_station(args.file, station)
        doubts = (*careful_ports(args.file, station), *careful_station(station, now))
    for doubt in doubts:
        print(f"dockd: careful: {doubt}", file=sys.stderr)
    print(f"{args.file}: no mistakes found")
    return 0
