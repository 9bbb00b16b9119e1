"""`dockd receiver`: the evidence receiver, in the foreground; and what people at the store do and look at."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the commands."""
    parser = subparsers.add_parser(
        "receiver",
        help="run the evidence receiver in the foreground, or enrol a station",
        description="Run the evidence receiver in the foreground until SIGTERM or Ctrl-C. It stops within five seconds "
        "with nothing lost, and at once on a second signal.",
        epilog="Example: dockd receiver --config trial/receiver.toml",
    )
    parser.add_argument("--config", metavar="FILE", help="the receiver's configuration")
    parser.set_defaults(handler=run)
    actions = parser.add_subparsers(metavar="ACTION", title="actions")
    enrolling = actions.add_parser(
        "enrol",
        help="let a station push to this receiver",
        description="Let the station whose public keys are in STATION.pub push to this receiver. A running receiver "
        "needs no restart. Compare the printed fingerprints with what the station printed, over another channel than "
        "the one the file came by.",
        epilog="Example: dockd receiver enrol station.pub --config /etc/dockd/receiver.toml",
    )
    enrolling.add_argument("station", metavar="STATION.pub", type=Path, help="what `dockd init station` wrote")
    _add_place(enrolling)
    enrolling.set_defaults(handler=enrol)
    accepting = actions.add_parser(
        "accept-log",
        help="accept that a station's custody log begins anew",
        description="Accept that a station lost its journal and began its custody log anew, as the generation that its "
        "status names. A running receiver needs no restart. Compare first what the station's new log says, in its "
        "entry 0, of the log before with the checkpoint that is kept here; that one is kept as evidence.",
        epilog="Example: dockd receiver accept-log 7d4f1f6e-5c0b-4f0e-9d3a-0c8a7a2b9e11 --generation 2",
    )
    accepting.add_argument("station", metavar="STATION", help="the station's id")
    accepting.add_argument("--generation", metavar="N", type=int, required=True, help="the new log's generation")
    _add_place(accepting)
    accepting.set_defaults(handler=accept_log)
    listing = actions.add_parser(
        "uploads",
        help="list uploads that are unfinished, and those that nobody came back for",
        description="List the uploads that are unfinished: of which station, since when, how much is there, when they "
        "expire; and those that expired (docs/receiver.md). A running receiver is not disturbed.",
        epilog="Example: dockd receiver uploads --json --config /etc/dockd/receiver.toml",
    )
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_place(listing)
    listing.set_defaults(handler=uploads)
    scrubbing = actions.add_parser(
        "scrub",
        help="say how much of what is stored was read again, and what was found lost",
        description="""Say how much of what is stored was read again and compared with its receipt, since when, and what
was found lost or changed (docs/receiver.md). A running receiver is not disturbed.

exit codes:
  0   all was looked at in its time, and is well
  65  clips are lost or changed, cannot be read, or were not looked at in time: it says which""",
        epilog="Example: dockd receiver scrub --json --config /etc/dockd/receiver.toml",
    )
    scrubbing.add_argument("--json", action="store_true", help="one JSON object a line")
    scrubbing.add_argument("--history", action="store_true", help="losses that are healed, too")
    _add_place(scrubbing)
    scrubbing.set_defaults(handler=scrub)
    keeping = actions.add_parser(
        "promises",
        help="list until when each clip is kept, and what came late",
        description="List what was promised of each clip that has a receipt, the promise that ends first at the top: "
        "its category, until when it is kept, whether it came late, whether its bytes stay for another, and whether "
        "the receipt is from before there was a policy (docs/receiver.md). A running receiver is not disturbed.",
        epilog="Example: dockd receiver promises --json --config /etc/dockd/receiver.toml",
    )
    keeping.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_place(keeping)
    keeping.set_defaults(handler=promises)


def _add_place(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the receiver's configuration, which names its store",
    )
    where.add_argument("--directory", metavar="DIR", type=Path, help="the store's directory itself")


def run(args: argparse.Namespace) -> int:
    """Run until told to stop."""
    from dockd.app.receiver import run as run_receiver
    from dockd.config.load import find_receiver_config

    return run_receiver(find_receiver_config(args.config))


def enrol(args: argparse.Namespace) -> int:
    """Enrol one station. Raises VerificationFailed for what is no station.pub, OSError where it cannot be kept."""
    from dockd import faults
    from dockd.receiver.enrol import enrol as keep

    directory = _directory(args)
    text = args.station.read_bytes().decode(errors="replace")
    station = keep(directory, text, faults.from_environment())
    print(f"Station {station.station} may push to the store in {directory}.")
    print("Compare with what the station printed at its set-up, and remove it again where one differs:")
    print(f"  manifest key    {station.manifest_key.fingerprint}")
    print(f"  checkpoint key  {station.checkpoint_key.fingerprint}")
    return 0


def accept_log(args: argparse.Namespace) -> int:
    """Accept a new generation. Raises VerificationFailed for one that is not newer, OSError where it cannot be kept."""
    from dockd import faults
    from dockd.receiver.generation import accept_log as keep

    directory = _directory(args)
    done = keep(directory, args.station, args.generation, faults.from_environment())
    if done.former:
        print(f"Until now this store knew {done.former}, and cosigned its first {done.former_size} entries.")
        print("Entry 0 of the new log has to name that log, and no fewer entries (`before`): compare, before anything")
        print("else is done, with `dockd custody show` at the station.")
    print(f"Accepted: {done.origin}. Its next checkpoint is cosigned, and the station erases again.")
    return 0


def uploads(args: argparse.Namespace) -> int:
    """List. Raises ConfigError where there is no catalogue."""
    from dockd.receiver.left import uploads_left

    empty = True
    for one in uploads_left(_directory(args)):
        empty = False
        print(json.dumps(one.to_json(), sort_keys=True) if args.json else one.sentence())
    if empty and not args.json:
        print("No upload is unfinished, and none expired.", file=sys.stderr)
    return 0


def scrub(args: argparse.Namespace) -> int:
    """Report. Raises ConfigError where there is no catalogue."""
    from datetime import UTC, datetime

    from dockd.config.load import find_receiver_config, load_receiver
    from dockd.config.schema import Scrub
    from dockd.receiver.report import report

    directory = _directory(args)
    paced = Scrub() if args.directory else load_receiver(find_receiver_config(args.config), files=False).scrub
    found = report(
        directory,
        every_days=paced.every_days,
        first_within_s=paced.first_within_s,
        bytes_per_s=paced.bytes_per_s,
        now=datetime.now(UTC),
        history=args.history,
    )
    for record, sentence in found.lines():
        print(json.dumps(record, sort_keys=True) if args.json else sentence)
    return 0 if found.looked.is_whole else 65


def promises(args: argparse.Namespace) -> int:
    """List. Raises ConfigError where there is no catalogue."""
    from dockd.receiver.promises import promises_kept

    total = late = old = 0
    for one in promises_kept(_directory(args)):
        total, late, old = total + 1, late + one.is_late, old + (one.category is None)
        print(json.dumps(one.to_json(), sort_keys=True) if args.json else one.sentence())
    if not args.json:
        print(f"{total} promises, {late} of them late, {old} given before there was a policy.", file=sys.stderr)
    return 0


def _directory(args: argparse.Namespace) -> Path:
    from dockd.config.load import find_receiver_config, load_receiver

    directory: Path | None = args.directory
    if directory is None:
        return load_receiver(find_receiver_config(args.config), files=False).receiver.directory
    if not directory.is_dir():
        raise NotADirectoryError(f"--directory {directory} is no directory: nothing was changed")
    return directory
