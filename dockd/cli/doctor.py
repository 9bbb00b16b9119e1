"""`dockd doctor`: what each store really does, and what that means for erasing."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

from dockd.cli.asking import ask_station
from dockd.errors import DaemonUnreachable

SOUND, DISEASED, UNREACHABLE = 0, 65, 69
_PATIENCE_S = 900.0  # a store that swallows every packet is waited for at each question
_WIDEST = 100
_INDENT = " " * 15
_SAID = {True: "yes", False: "no", None: "-"}


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="try what each store really does and what readers are kept from, and say what that means",
        description="""Reach every store, try what it enforces with small objects of the station's own (dockd-probe-*),
and say what its word is worth. Before that, a reader without a camera tries what keeps readers from all else. The
running station does it, and believes from then on what it found; where none runs, it is done from the configuration,
by who may read its keys, and nothing is kept.

For each question: whether the store claims it ("-": it says nothing of it), and whether it does it.

exit codes:
  0   all is well
  65  something is wrong, and named
  69  a store is out of reach""",
        epilog="Example: dockd doctor --store vault",
    )
    parser.add_argument("--store", metavar="NAME", help="this store alone")
    parser.add_argument("--json", action="store_true", help="one JSON object a line (docs/status.md)")
    parser.add_argument("--config", metavar="FILE", help="the station's configuration")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Try them. Raises ConfigError, RequestRefused."""
    codes = [SOUND]
    for number, report in enumerate(_reports(args.config, args.store)):
        if args.json:
            print(json.dumps(report, sort_keys=True), flush=True)
        else:
            print("\n" * bool(number) + render(report, min(_WIDEST, shutil.get_terminal_size().columns)), flush=True)
        codes.append(UNREACHABLE if report["out_of_reach"] else DISEASED if report["wrong"] else SOUND)
    return max(codes)


def render(report: dict[str, Any], width: int) -> str:
    """One report, for a person."""
    if report["type"] == "confinement":
        return _confinement(report, width)
    lines = [f"{report['name']}: {report['place'] or 'receiver ' + report['store']}"]
    lines += ["", "  claims does  question"]
    for one in report["findings"]:
        does = "?" if one["answer"] == "unknown" else one["answer"]
        lines.append(f"  {_SAID[one['claimed']]:<6} {does:<5} {one['question']}")
        lines += textwrap.wrap(one["detail"], width, initial_indent=_INDENT, subsequent_indent=_INDENT)
    lines.append("")
    for sentence in report["meaning"]:
        lines += textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="  ")
    looked = report["looked"] or "what it read again is not known here: no station runs that would have asked"
    lines += textwrap.wrap(f"Losses: {looked}", width, initial_indent="  ", subsequent_indent="  ")
    for sentence in report["wrong"]:
        lines += textwrap.wrap(f"WRONG: {sentence}", width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _confinement(report: dict[str, Any], width: int) -> str:
    lines = [
        "readers: what the program that looks at cameras is kept from, as it tried itself",
        "",
        "  holds  kept from",
    ]
    for one in report["items"]:
        lines += textwrap.wrap(f"  {_SAID[one['holds']]:<6} {one['kept_from']}", width, subsequent_indent=" " * 9)
    for sentence in report["wrong"]:
        lines += ["", *textwrap.wrap(f"WRONG: {sentence}", width, initial_indent="  ", subsequent_indent="    ")]
    return "\n".join(lines)


def _reports(config: str | None, store: str | None) -> Iterator[dict[str, Any]]:
    answered = False
    try:
        for report in ask_station(config, "doctor", patience_s=_PATIENCE_S, store=store):
            answered = True
            yield report
    except DaemonUnreachable:
        if answered:
            raise
        print("dockd: no station runs: the stores are tried from here, and nothing is kept of it", file=sys.stderr)
        yield from asyncio.run(_from_here(config, store))


async def _from_here(config: str | None, store: str | None) -> list[dict[str, Any]]:
    from dockd.app.doctor import examine
    from dockd.config.load import find_config

    async with aclosing(examine(find_config(config), store)) as found:
        return [one async for one in found]
