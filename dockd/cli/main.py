"""The command line's frame: one parser, a module a command, and exit codes after sysexits.h."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dockd import __version__
from dockd.errors import (
    CameraRefused,
    ConfigError,
    DaemonUnreachable,
    Disposition,
    DockdError,
    RequestRefused,
    StoreUnreachable,
    VerificationFailed,
)

OK, USAGE, INVALID, UNREACHABLE, FAILED, CANNOT_MAKE, LATER, FORBIDDEN, CONFIGURATION = (
    0,
    64,
    65,
    69,
    70,
    73,
    75,
    77,
    78,
)
INTERRUPTED = 130

COMMANDS = (
    "demo",
    "init",
    "run",
    "receiver",
    "camera",
    "bays",
    "status",
    "clips",
    "store",
    "uplink",
    "doctor",
    "custody",
    "open",
    "check-config",
    "install-system",
    "version",
)


class _Formatter(argparse.HelpFormatter):
    """Wraps descriptions and examples line by line, so that a line break in them is one on the screen."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = (line.rstrip() for line in text.splitlines())
        return "\n".join(
            # An example is to be pasted: it keeps its line, however long it is.
            line if line.startswith(("Example:", " ")) else super(_Formatter, self)._fill_text(line, width, indent)
            for line in lines
        )


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors exit with 64, and whose examples keep their line breaks."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how to learn more."""
        self.exit(USAGE, f"{self.prog}: {message}\nTry: {self.prog} --help\n")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; with `only`, the other commands' modules are not loaded (their names stay known)."""
    parser = Parser(
        prog="dockd",
        description="Ingest daemon of a body-worn camera docking station: reads clips once, seals them, pushes them to "
        "the evidence store, and erases the camera only after the store has signed for exactly those bytes.",
        epilog="Example: dockd demo",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)
    for name in COMMANDS:
        if only in COMMANDS and name != only:
            subparsers.add_parser(name)
        else:
            importlib.import_module(f"dockd.cli.{name.replace('-', '_')}").register(subparsers)
    parser.add_argument("--version", action="version", version=f"dockd {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words[0] if words else None)
    try:
        args = parser.parse_args(words)
        if hasattr(args, "handler"):
            return _run(args)
    except SystemExit as done:  # argparse's way of saying that help was printed, or that the words make no sense
        return done.code if isinstance(done.code, int) else USAGE
    parser.print_help(sys.stderr)
    return USAGE


def _run(args: argparse.Namespace) -> int:
    """Run the command's handler, and make an exit code of how it ended."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = int(args.handler(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except DockdError as error:
        _complain(error)
        return _code(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"dockd: {where}{error.strerror or error}", file=sys.stderr)
        return FORBIDDEN if isinstance(error, PermissionError) else CANNOT_MAKE
    return code


def _complain(error: DockdError) -> None:
    print(f"dockd: {error}", file=sys.stderr)
    for problem in error.problems if isinstance(error, ConfigError) else ():
        print(f"  {problem}", file=sys.stderr)


def _code(error: DockdError) -> int:
    if isinstance(error, ConfigError):
        return CONFIGURATION
    if isinstance(error, VerificationFailed):
        return INVALID
    if isinstance(error, DaemonUnreachable | StoreUnreachable):
        return UNREACHABLE
    if isinstance(error, CameraRefused):
        return USAGE
    if isinstance(error, RequestRefused):
        return LATER if error.kind == Disposition.RETRY else USAGE
    return LATER if error.disposition is Disposition.RETRY else FAILED


if __name__ == "__main__":
    sys.exit(main())
