"""`dockd clips`: every clip and its state; `clips release`, `clips retry`: what only a person may decide."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from dockd.cli.asking import ask_station
from dockd.cli.render import size


def register(subparsers: Any) -> None:
    """Add the commands."""
    parser = subparsers.add_parser(
        "clips",
        help="list clips and their states; release a damaged one for erasing",
        description="List every clip that the station has found, with its state.",
        epilog="Example: dockd clips --state stored --camera X012345",
    )
    parser.add_argument("--config", metavar="FILE", help="the station's configuration")
    parser.add_argument("--json", action="store_true", help="one JSON object a line (docs/status.md)")
    parser.add_argument("--state", metavar="S", help="only clips in this state, for instance stored or quarantined")
    parser.add_argument("--camera", metavar="C", help="only clips of the camera with this serial")
    parser.set_defaults(handler=run)
    decisions = parser.add_subparsers(metavar="DECISION", title="decisions")
    for name, what, example in (
        ("release", "let a damaged but stored clip be erased", "seen with the officer: the battery died"),
        ("retry", "take a clip out of quarantine and try again", "the hard link was removed"),
    ):
        decision = decisions.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}. Who decided, and why, goes into the custody log.",
            epilog=f'Example: dockd clips {name} 0191e3a0-7c3e-7000-8000-00000000002a --reason "{example}"',
        )
        decision.add_argument("acquisition", metavar="ACQUISITION", help="as `dockd clips` lists it")
        decision.add_argument("--reason", required=True, metavar="TEXT", help="why; kept for ever")
        decision.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="the station's configuration")
        decision.set_defaults(handler=decide, operation=name)


def run(args: argparse.Namespace) -> int:
    """List."""
    clips = ask_station(args.config, "clips", state=args.state, camera=args.camera)
    if args.json:
        for clip in clips:
            print(json.dumps(clip, sort_keys=True))
    elif sys.stdout.isatty():
        _print_table(clips)
    else:
        for clip in clips:
            print(_line(clip))
    return 0


def decide(args: argparse.Namespace) -> int:
    """Tell the station what a person decided."""
    for answer in ask_station(args.config, args.operation, acquisition=args.acquisition, reason=args.reason):
        print(f"{answer['acquisition']}: {answer['decision']}, by {answer['operator']}")
    return 0


def _print_table(clips: Iterable[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("acquisition", "state", "camera", "bay", "size", "verdict", "path", "note"):
        table.add_column(name, overflow="fold", no_wrap=name in ("acquisition", "state"))
    for clip in clips:
        table.add_row(*_cells(clip))
    Console().print(table)


def _line(clip: dict[str, Any]) -> str:
    return "\t".join(_cells(clip))


def _cells(clip: dict[str, Any]) -> list[str]:
    return [
        clip["acquisition"],
        clip["state"],
        clip["camera"],
        str(clip["bay"]),
        size(clip["size_bytes"]),
        clip["verdict"] or "",
        clip["path"],
        clip["waits_for"],
    ]
