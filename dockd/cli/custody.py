"""`dockd custody`: check the custody log, and read it. Needs no running station, and no key but public ones."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dockd.app.verify import (
    CheckedLog,
    CustodyPlace,
    FileForbidden,
    FileMissing,
    find_log,
    lines_of,
    verify_custody,
)
from dockd.core.canonical import format_time
from dockd.core.custody import Entry, parse_entry
from dockd.errors import VerificationFailed

# The codes of sysexits.h.
_DATA_ERROR, _NO_INPUT, _NO_PERMISSION = 65, 66, 77
_PATH_HELP = "the state directory, its custody directory or custody.jsonl (default: the configured station's)"


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "custody",
        help="check the custody log, and read it",
        description="Check the custody log, and read it. Neither needs a running station.",
        epilog="Example: dockd custody verify",
    )
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    _register_verify(commands)
    _register_show(commands)


def _register_verify(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        help="check that the log is as it was signed",
        description="Check every line, every link, and the Merkle root under the signed checkpoint. Lines past the "
        "checkpoint are not yet signed, which is no error. That the whole log was not put back to an older state can "
        "only be seen with --against: a receipt or a checkpoint that was kept elsewhere. Exit codes: 0 nothing wrong "
        "was found; 65 something is wrong; 66 no such file; 77 no permission; 78 configuration.",
        epilog="Examples:\n"
        "  dockd custody verify\n"
        "  dockd custody verify /var/lib/dockd --station-key station.pub\n"
        "  dockd custody verify custody.jsonl --against receipt.json --store-key store.pub",
    )
    _add_place(verify)
    verify.add_argument(
        "--against",
        metavar="RECEIPT|CHECKPOINT",
        type=Path,
        help="a store's receipt.json (its receipt.json.sig beside it) or signed envelope, or a checkpoint",
    )
    verify.add_argument("--store-key", metavar="STORE.pub", type=Path, help="check the store's signature, too")
    verify.add_argument(
        "--station-key", metavar="STATION.pub", type=Path, help="the station's public keys, as they were enrolled"
    )
    verify.set_defaults(handler=run_verify)


def _register_show(commands: Any) -> None:
    show = commands.add_parser(
        "show",
        help="print the log's entries",
        description="Print the log's entries, or those of one acquisition. Nothing is verified by this.",
        epilog="Example: dockd custody show --acquisition 01890a5d-ac96-774b-bcce-b302099a8057",
    )
    _add_place(show)
    show.add_argument("--acquisition", metavar="ID", help="only the entries of this acquisition")
    show.add_argument("--json", action="store_true", help="print the lines as they stand in the log (docs/formats.md)")
    show.set_defaults(handler=run_show)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", nargs="?", type=Path, help=_PATH_HELP)
    parser.add_argument("--config", metavar="FILE", help="the station's configuration, where PATH is not given")


def run_verify(args: argparse.Namespace) -> int:
    """Check the log, and say what was found."""
    try:
        place = _place(args)
        checked = verify_custody(place, against=args.against, store_key=args.store_key, station_key=args.station_key)
    except VerificationFailed as error:
        return _complain(f"{error}", _DATA_ERROR)
    except FileMissing as error:
        return _complain(str(error), _NO_INPUT)
    except FileForbidden as error:
        return _complain(str(error), _NO_PERMISSION)
    _print(_verdict(checked))
    return 0 if checked.whole else _DATA_ERROR


def run_show(args: argparse.Namespace) -> int:
    """Print entries. What is no entry is named, and makes the exit code 65."""
    unreadable = 0
    try:
        for number, raw in enumerate(lines_of(_place(args).log), 1):
            line = raw.removesuffix(b"\n")
            try:
                entry = parse_entry(line)
            except VerificationFailed as error:
                unreadable += 1
                _complain(f"line {number} is no custody entry: {_printable(str(error))}", _DATA_ERROR)
                continue
            if args.acquisition is None or entry.acquisition == args.acquisition:
                _show(entry, line, as_json=args.json)
    except FileMissing as error:
        return _complain(str(error), _NO_INPUT)
    except FileForbidden as error:
        return _complain(str(error), _NO_PERMISSION)
    return _DATA_ERROR if unreadable else 0


def _place(args: argparse.Namespace) -> CustodyPlace:
    if args.path is not None:
        return find_log(args.path)
    from dockd.config.load import find_config, load_station

    return find_log(Path(load_station(find_config(args.config), files=False).station.state_dir))


def _show(entry: Entry, line: bytes, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(line.decode() + "\n")
        return
    where = f"bay {entry.bay}" if entry.bay is not None else ""
    camera = f"camera {entry.camera}" if entry.camera is not None else ""
    words = [
        str(entry.seq).rjust(6),
        format_time(entry.at),
        entry.event,
        *(word for word in (where, camera, entry.acquisition) if word),
        *(f"{key}={_value(value)}" for key, value in sorted(entry.details.items())),
    ]
    sys.stdout.write(_printable("  ".join(words)) + "\n")


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _printable(text: str) -> str:
    """Without what could move a terminal's cursor or turn its text around: names on a camera are anybody's."""
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)


def _verdict(checked: CheckedLog) -> list[tuple[str, str]]:
    """What was found, as (rich style, line)."""
    report = checked.report
    lines = [
        ("", f"log         {checked.log}"),
        ("", f"station     {report.station} ({report.origin})"),
        ("", f"signed by   {checked.key}"),
        ("", f"lines       {report.lines}, of which {report.unsigned} not yet signed"),
    ]
    if report.checkpoint is not None:
        root = report.checkpoint.root.hex()
        lines.append(("", f"checkpoint  {report.checkpoint.size} entries, root {root}; its signature is good"))
    lines += [("", f"note        {note}") for note in report.notes]
    lines += [("green", f"checked     {fact}") for fact in checked.established]
    lines += [("yellow", f"not checked {gap}") for gap in checked.not_checked]
    if checked.whole:
        return [*lines, ("bold green", "Nothing wrong was found: every line, link and root is as it was signed.")]
    count = len(report.defects) + report.more_defects + len(checked.doubts)
    lines.append(("bold red", f"NOT AS IT WAS SIGNED: {count} finding{'s' if count > 1 else ''}."))
    for defect in report.defects:
        where = f"line {defect.line}" if defect.line is not None else defect.kind.value
        lines.append(("red", f"  {where}: {defect.text}"))
    lines += [("red", f"  {doubt}") for doubt in checked.doubts]
    if report.more_defects:
        lines.append(("red", f"  and {report.more_defects} more"))
    return lines


def _print(lines: Iterable[tuple[str, str]]) -> None:
    if not sys.stdout.isatty():
        for _, line in lines:
            sys.stdout.write(_printable(line) + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for style, line in lines:
        console.print(Text(_printable(line), style=style), soft_wrap=True)


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"dockd custody: {sentence}\n")
    return code
