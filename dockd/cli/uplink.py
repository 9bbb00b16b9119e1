"""`dockd uplink`: change for a while how much of the network the station may have."""

from __future__ import annotations

import argparse
import re
from typing import Any

from dockd.cli.asking import ask_station
from dockd.cli.render import cap_words

_TIME = re.compile(r"([1-9][0-9]{0,5})(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "uplink",
        help="change for a while how much of the network all uploads may have",
        description="Decide about the uplink. `dockd status` shows it.",
        epilog='Example: dockd uplink cap "5 Mbit/s" --for 2h',
    )
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    cap = actions.add_parser(
        "cap",
        help="set a cap in place of [uplink.caps], or take it back",
        description="Set a cap over all uploads to all stores, at once, in place of what [uplink] caps says. It "
        "outlives a restart. Who set it goes into the custody log.",
        epilog='Example: dockd uplink cap "5 Mbit/s" --for 2h --reason "radio exercise"\n'
        "Example: dockd uplink cap --clear",
    )
    what = cap.add_mutually_exclusive_group(required=True)
    what.add_argument("rate", nargs="?", metavar="RATE", help='like "5 Mbit/s" or "800 kB/s"; none: no cap at all')
    what.add_argument("--clear", action="store_true", help="what the configuration says holds again")
    cap.add_argument(
        "--for", dest="for_s", metavar="TIME", type=_time, help="for so long, like 90min or 2h; else until --clear"
    )
    cap.add_argument("--reason", default="", metavar="TEXT", help="why; kept for ever")
    cap.add_argument("--config", metavar="FILE", help="the station's configuration")
    cap.set_defaults(handler=set_cap)


def set_cap(args: argparse.Namespace) -> int:
    """Tell the station."""
    for answer in ask_station(args.config, "cap", rate=args.rate, for_s=args.for_s, reason=args.reason):
        print(f"uplink: {cap_words(answer)}")
    return 0


def _time(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: a whole number with s, min, h or d, like 90min")
    return int(match[1]) * _SECONDS[match[2]]
