"""`dockd version`."""

from __future__ import annotations

import argparse
import platform
from typing import Any

from dockd import __version__


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "version",
        help="print the version",
        description="Print dockd's version, and that of the Python it runs on.",
        epilog="Example: dockd version",
    )
    parser.set_defaults(handler=run)


def run(_args: argparse.Namespace) -> int:
    """Print it."""
    print(f"dockd {__version__} (Python {platform.python_version()})")
    return 0
