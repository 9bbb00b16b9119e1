"""`dockd run`: the station's daemon, in the foreground."""

from __future__ import annotations

import argparse
import signal
from typing import Any


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "run",
        help="run the station's daemon in the foreground",
        description="Run the station's daemon in the foreground until SIGTERM or Ctrl-C. It stops within five "
        "seconds with nothing lost, and at once on a second signal.",
        epilog="Example: dockd run --config trial/dockd.toml",
    )
    parser.add_argument("--config", metavar="FILE", help="the station's configuration")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Run until told to stop."""
    # A wish to reload that comes before anybody listens for it is fulfilled by this very start.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from dockd.app.station import run_station
    from dockd.config.load import find_config

    return run_station(find_config(args.config))
