"""`dockd store`: what only a person may decide about a store that contradicts what it signed."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from dockd.cli.asking import ask_station


def register(subparsers: Any) -> None:
    """Add the commands."""
    parser = subparsers.add_parser(
        "store",
        help="a store that lost what it signed for: accept it, list what is lost",
        description="Decide about a store that was rolled back to an older state.",
        epilog="Example: dockd store lost",
    )
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    for name, what, more, reason in (
        (
            "accept-rollback",
            "accept that the store lost what it signed for",
            "Have its operators bring back the newest state first: what they cannot is pushed again or counts as lost.",
            "restored from the back-up of 20 November, ticket 4711",
        ),
        (
            "accept-loss",
            "say that the clips that `dockd store lost` lists are known to be lost",
            "The alarm ends, the list stays.",
            "reported to the evidence authority, case 4712",
        ),
    ):
        action = actions.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}. {more} Who decided, and why, goes into the custody log.",
            epilog=f'Example: dockd store {name} --reason "{reason}"',
        )
        action.add_argument("--reason", required=True, metavar="TEXT", help="why; kept for ever")
        action.add_argument("--store", metavar="NAME", help="which store, where the station has several")
        action.add_argument("--config", metavar="FILE", help="the station's configuration")
        action.set_defaults(handler=decide, operation=name.replace("-", "_"))
    listing = actions.add_parser(
        "lost",
        help="list clips that were erased from their cameras and that the store lost afterwards",
        description="List the clips that were erased on the store's receipt, and that it lost afterwards; and how much "
        "of its clips the store read again, and when. The receipts themselves stand in the custody log.",
        epilog="Example: dockd store lost --json",
    )
    listing.add_argument("--json", action="store_true", help="one JSON object a line (docs/status.md)")
    listing.add_argument("--store", metavar="NAME", help="which store, where the station has several")
    listing.add_argument("--config", metavar="FILE", help="the station's configuration")
    listing.set_defaults(handler=show)


def decide(args: argparse.Namespace) -> int:
    """Tell the station what a person decided."""
    for answer in ask_station(args.config, args.operation, reason=args.reason, store=args.store):
        print(f"store {answer['store']}: {answer['decision']}, by {answer['operator']}")
    if args.operation == "accept_rollback":
        print("It is carried out now: `dockd status` and `dockd store lost` show what came of it.", file=sys.stderr)
    return 0


def show(args: argparse.Namespace) -> int:
    """List."""
    empty = True
    for clip in ask_station(args.config, "lost", store=args.store):
        if args.json:
            print(json.dumps(clip, sort_keys=True))
        elif clip["type"] == "looked":
            none = "no clip that was erased is known to be lost; " if empty else ""
            print(f"{clip['name']}: {none}{clip['looked_note']}", file=sys.stderr)
        else:
            empty = False
            receipt = f"receipt {clip['receipt_seq']}"
            print("\t".join((clip["acquisition"], clip["camera"], clip["path"], receipt, clip["sealed"])))
    return 0
