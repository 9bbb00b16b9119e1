"""`dockd status`: what the station does now."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from dockd.cli.asking import ask_station
from dockd.cli.render import plain_status, whole_status

_EVERY_S = 0.5


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "status",
        help="show every bay, the store, the spool and the custody log",
        description="Show what the running station does: every bay, the store, the spool and the custody log. "
        "In a bay, clips are counted as read/stored/erased.",
        epilog="Example: dockd status --watch",
    )
    parser.add_argument("--config", metavar="FILE", help="the station's configuration")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print the snapshot as JSON (docs/status.md)")
    how.add_argument("--watch", action="store_true", help="keep the table up to date until Ctrl-C")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the status once, or until interrupted."""
    if args.watch:
        return _watch(args)
    snapshot = _snapshot(args)
    if args.json:
        print(json.dumps(snapshot, sort_keys=True))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(whole_status(snapshot))
    else:
        print("\n".join(plain_status(snapshot)))
    return 0


def _snapshot(args: argparse.Namespace) -> dict[str, Any]:
    return next(iter(ask_station(args.config, "status")))


def _watch(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.live import Live

    try:
        with Live(whole_status(_snapshot(args)), console=Console(), refresh_per_second=4) as live:
            while True:
                time.sleep(_EVERY_S)
                live.update(whole_status(_snapshot(args)))
    except KeyboardInterrupt:
        return 0
