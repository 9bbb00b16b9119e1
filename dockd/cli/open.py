"""`dockd open`: decrypt one sealed clip with a key of the evidence authority."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dockd.app.open import OpenFailed, OpenFault, open_sealed
from dockd.errors import VerificationFailed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

# The codes of sysexits.h.
_USAGE = 64
_DATA_ERROR = 65
_CODES = {
    OpenFault.INPUT: 66,
    OpenFault.OUTPUT: 73,
    OpenFault.BROKEN: 74,
    OpenFault.FULL: 75,
    OpenFault.PERMISSION: 77,
}


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "open",
        help="open a sealed clip with a key of the evidence authority",
        description="""Open a sealed clip. OUT gets its name only when the whole clip was verified: what is at OUT is
never half a clip. Stock `age -d -i KEY` opens the same files.

exit codes:
  0   opened
  65  wrong key, or the sealed file was changed or cut short
  66  no such file
  73  OUT cannot be made, or is there already
  74  a medium failed
  75  no space left
  77  no permission
  130 interrupted""",
        epilog="Example: dockd open clip.age -i authority/working.key -o clip.mp4",
    )
    parser.add_argument("sealed", metavar="SEALED", type=Path, help="the sealed clip (clip.age)")
    parser.add_argument("-i", "--identity", metavar="KEY", type=Path, required=True, help="a key file of age")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="where the clip goes")
    parser.add_argument("--force", action="store_true", help="overwrite OUT where it is there already")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Open it, and say what was written. KeyboardInterrupt passes through, with nothing left behind."""
    if str(args.output) == "-":
        return _complain("-o - is not offered: what is on a pipe cannot be taken back; name a file", _USAGE)
    try:
        with _ended_politely():
            clip = open_sealed(args.sealed, args.identity, args.output, overwrite=args.force)
    except VerificationFailed as error:
        return _complain(f"{error}; nothing was written", _DATA_ERROR)
    except OpenFailed as error:
        return _complain(str(error), _CODES[error.fault])
    sys.stdout.write(f"{args.output}: {clip.size_bytes} bytes, {clip.digest}\n")
    return 0


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"dockd open: {sentence}\n")
    return code


@contextmanager
def _ended_politely() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the work as Ctrl-C does, so that no plaintext stays behind."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
