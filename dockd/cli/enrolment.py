"""`dockd camera enrol`, `forget`, `list`: which cameras may be docked, said by a person and kept in custody."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from dockd.cli.asking import ask_station


def register(actions: Any) -> None:
    """Add the actions to `dockd camera`."""
    for name, what, reason in (
        ("enrol", "let a camera, or all cameras of a profile, be docked", "issued to PC 4711"),
        ("forget", "take an enrolment back", "sent in for repair"),
    ):
        action = actions.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}. Who decided, and why, goes into the custody log. A camera whose "
            "file system changed since it was here last is admitted by enrolling it again.",
            epilog=f'Example: dockd camera {name} X012345 --reason "{reason}"',
        )
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("serial", metavar="SERIAL", nargs="?", help="one camera, by the serial that status shows")
        which.add_argument("--profile", metavar="NAME", help="every camera of this profile (docs/cameras.md)")
        action.add_argument("--reason", default="", metavar="TEXT", help="why; kept for ever")
        action.add_argument("--config", metavar="FILE", help="the station's configuration")
        action.set_defaults(handler=decide, operation=name)
    listing = actions.add_parser(
        "list",
        help="list what is enrolled",
        description="List the cameras, and the profiles of cameras, that may be docked.",
        epilog="Example: dockd camera list",
    )
    listing.add_argument("--config", metavar="FILE", help="the station's configuration")
    listing.add_argument("--json", action="store_true", help="one JSON object a line (docs/status.md)")
    listing.set_defaults(handler=show)


def decide(args: argparse.Namespace) -> int:
    """Tell the station."""
    for answer in ask_station(
        args.config, args.operation, serial=args.serial, profile=args.profile, reason=args.reason
    ):
        print(f"{_subject(answer)}: {answer['decision']}, by {answer['operator']}")
    return 0


def show(args: argparse.Namespace) -> int:
    """List."""
    empty = True
    for record in ask_station(args.config, "cameras"):
        empty = False
        if args.json:
            print(json.dumps(record, sort_keys=True))
        else:
            words = [_subject(record), f"enrolled {record['enrolled_at']} by {record['operator']}", record["reason"]]
            print("\t".join(filter(None, words)))
    if empty and not args.json:
        print("No camera is enrolled: `dockd camera enrol SERIAL` admits one.", file=sys.stderr)
    return 0


def _subject(record: dict[str, Any]) -> str:
    return f"camera {record['serial']}" if "serial" in record else f"profile {record['profile']}"
