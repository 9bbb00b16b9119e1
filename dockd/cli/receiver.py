"""`dockd receiver`: the evidence receiver, in the foreground; `receiver enrol`: let a station in."""

from __future__ import annotations

import argparse
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
    where = enrolling.add_mutually_exclusive_group()
    where.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the receiver's configuration, which names its store",
    )
    where.add_argument("--directory", metavar="DIR", type=Path, help="the store's directory itself")
    enrolling.set_defaults(handler=enrol)


def run(args: argparse.Namespace) -> int:
    """Run until told to stop."""
    from dockd.app.receiver import run as run_receiver
    from dockd.config.load import find_receiver_config

    return run_receiver(find_receiver_config(args.config))


def enrol(args: argparse.Namespace) -> int:
    """Enrol one station. Raises VerificationFailed for what is no station.pub, OSError where it cannot be kept."""
    from dockd.config.load import find_receiver_config, load_receiver
    from dockd.receiver.enrol import enrol as keep

    directory = args.directory
    if directory is None:
        directory = load_receiver(find_receiver_config(args.config), files=False).receiver.directory
    elif not directory.is_dir():
        raise NotADirectoryError(f"--directory {directory} is no directory: nothing was enrolled")
    text = args.station.read_bytes().decode(errors="replace")
    station = keep(directory, text)
    print(f"Station {station.station} may push to the store in {directory}.")
    print("Compare with what the station printed at its set-up, and remove it again where one differs:")
    print(f"  manifest key    {station.manifest_key.fingerprint}")
    print(f"  checkpoint key  {station.checkpoint_key.fingerprint}")
    return 0
