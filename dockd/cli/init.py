"""`dockd init`: a trial set for one machine, or one of its three parts for production."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

DEFAULT_LISTEN = "127.0.0.1:8443"
_PARTS = ("authority", "receiver", "station")


def register(subparsers: Any) -> None:
    """Add the commands. `init DIR` makes a trial set; the parts are sub-commands of their own names."""
    parser = subparsers.add_parser(
        "init",
        help="write keys and configuration, ready to run",
        description="dockd init DIR writes a trial set for one machine: authority, receiver and station, enrolled "
        "with each other. For production, each part is made where it belongs:\n\n"
        "  dockd init authority DIR\n"
        "  dockd init receiver DIR --listen ADDR --recipients FILE\n"
        "  dockd init station DIR --receiver URL --ca FILE --store-key FILE --recipients FILE\n\n"
        "and the receiver is told of the station with `dockd receiver enrol STATION.pub`. A directory called like a "
        "part is given as ./authority. Nothing is ever overwritten.",
        epilog="Example: dockd init trial",
    )
    parser.add_argument("what", nargs="+", metavar="[PART] DIR", help="a directory, or a part and its directory")
    parser.add_argument("--listen", metavar="ADDR", help=f"where the receiver listens (default {DEFAULT_LISTEN})")
    parser.add_argument("--receiver", metavar="URL", help="station: the receiver's https URL")
    parser.add_argument("--ca", metavar="FILE", type=Path, help="station: the certificate that is pinned")
    parser.add_argument("--store-key", metavar="FILE", type=Path, help="station: the receiver's store.pub")
    parser.add_argument("--recipients", metavar="FILE", type=Path, help="the authority's recipients.txt")
    parser.set_defaults(handler=lambda args: run(parser, args))


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Make it. Raises ConfigError where something is there already or a given file is no good."""
    part, directory = ("", args.what[0]) if len(args.what) == 1 else (args.what[0], args.what[1])
    if len(args.what) > 2 or (part and part not in _PARTS) or (not part and directory in _PARTS):  # noqa: PLR2004  part and directory
        parser.error("expected DIR, or one of authority, receiver, station and DIR (a DIR of that name: ./authority)")
    _check_options(parser, args, part)
    make = {"": _trial, "authority": _authority, "receiver": _receiver, "station": _station}[part]
    make(Path(directory), args)
    return 0


def _check_options(parser: argparse.ArgumentParser, args: argparse.Namespace, part: str) -> None:
    takes = {
        "": {"listen"},
        "authority": set(),
        "receiver": {"listen", "recipients"},
        "station": {"receiver", "ca", "store_key", "recipients"},
    }[part]
    needs = takes if part == "station" else {"recipients"} & takes
    for name in ("listen", "receiver", "ca", "store_key", "recipients"):
        option = "--" + name.replace("_", "-")
        given = getattr(args, name) is not None
        if given and name not in takes:
            parser.error(f"{option} is not for `dockd init {part or 'DIR'}`")
        if not given and name in needs:
            parser.error(f"`dockd init {part}` needs {option}")


def _trial(directory: Path, args: argparse.Namespace) -> None:
    from dockd.app.init import init_trial

    init_trial(directory, args.listen or DEFAULT_LISTEN)
    at = shlex.quote(str(directory))
    print(f"A trial set is in {directory}. Start both, each in a terminal of its own:")
    print(f"  dockd receiver --config {at}/receiver.toml")
    print(f"  dockd run --config {at}/dockd.toml")
    print("Then make a folder of videos a camera, and dock it by renaming it into a bay:")
    print(f"  dockd camera make FOLDER --serial X1 && mv FOLDER {at}/bays/1/")
    print(f"  dockd status --watch --config {at}/dockd.toml")


def _authority(directory: Path, _args: argparse.Namespace) -> None:
    from dockd.app.init import init_authority

    init_authority(directory)
    print(f"{directory}/working.key and {directory}/escrow.key open clips: keep them apart, and off every dock.")
    print(f"{directory}/recipients.txt goes to every station and receiver. Both keys opened their canary.")


def _receiver(directory: Path, args: argparse.Namespace) -> None:
    from dockd.app.init import init_receiver
    from dockd.core.keyfiles import parse_store_pub

    config = init_receiver(directory, args.listen or DEFAULT_LISTEN, args.recipients)
    public = parse_store_pub((directory / "keys" / "store.pub").read_text())
    print(f"The receiver's store key is {public.key.fingerprint}: read it to whoever sets up a station.")
    print(f"Give each station {directory}/keys/store.pub and {directory}/keys/tls.crt, then start:")
    print(f"  dockd receiver --config {shlex.quote(str(config))}")


def _station(directory: Path, args: argparse.Namespace) -> None:
    from dockd.app.init import init_station

    made = init_station(directory, args.receiver, args.ca, args.store_key, args.recipients)
    print(f"The station's keys are {made.fingerprints[0]} (manifests) and {made.fingerprints[1]} (checkpoints).")
    print(f"On the receiver: dockd receiver enrol {made.public.name} --directory STORE; compare both fingerprints.")
    print(f"Then start: dockd run --config {shlex.quote(str(made.config))}")
