"""`dockd check-config`: every mistake of a configuration, before it is used."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import aclosing
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
    parser.add_argument(
        "--online",
        action="store_true",
        help="try the stores of a station as well: whether they answer, and keep clips for as long as is asked for",
    )
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
    wrong = asyncio.run(_tried(args.file)) if args.online and not is_receiver(args.file) else []
    for sentence in wrong:
        print(f"dockd: {sentence}", file=sys.stderr)
    if wrong:
        return os.EX_CONFIG
    print(f"{args.file}: no mistakes found")
    return 0


async def _tried(file: Path) -> list[str]:
    """What is wrong with each store, as `dockd doctor` finds it, also of one that is out of reach."""
    from dockd.app.doctor import examine

    async with aclosing(examine(file, None)) as found:
        return [f"store.{one['name']}: {sentence}" async for one in found for sentence in one["wrong"]]
