"""`dockd init`: a trial set for one machine, or one of its three parts for production."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dockd.cli.naming import quoted, this_program

DEFAULT_LISTEN = "127.0.0.1:8443"

_TAKES = {
    "": {"listen"},
    "authority": set(),
    "receiver": {"listen", "recipients", "public_host"},
    "station": {"receiver", "ca", "store_key", "recipients", "state", "bays"},
}
_NEEDS = {"receiver": {"listen"}, "station": {"receiver", "ca", "store_key", "recipients"}}


def register(subparsers: Any) -> None:
    """Add the commands. `init DIR` makes a trial set; the parts are named by a first word before the directory."""
    parser = subparsers.add_parser(
        "init",
        help="write keys and configuration, ready to run",
        usage="dockd init DIR [--listen HOST:PORT]\n"
        "       dockd init authority DIR\n"
        "       dockd init receiver DIR --listen HOST:PORT [--public-host HOST:PORT]... [--recipients FILE]\n"
        "       dockd init station DIR --receiver URL --ca FILE --store-key FILE --recipients FILE\n"
        "                              [--state DIR] [--bays DIR]",
        description="dockd init DIR writes a trial set for one machine: authority, receiver and station, enrolled "
        "with each other.\n\nFor production each part is made where it belongs (docs/operations.md), and the receiver "
        "is told of the station with `dockd receiver enrol STATION.pub`. Nothing is ever overwritten. A directory "
        "that is called like a part is given as ./authority.",
        epilog="Example: dockd init trial\n"
        "Example: dockd init authority /media/safe/authority\n"
        "Example: dockd init receiver /srv/evidence --listen 10.0.0.5:8443 --recipients recipients.txt\n"
        "Example: dockd init station /etc/dockd --receiver https://10.0.0.5:8443 --ca tls.crt --store-key store.pub "
        "\\\n             --recipients recipients.txt --state /var/lib/dockd",
    )
    parser.add_argument("what", nargs="+", metavar="[PART] DIR", help="a directory, or a part and its directory")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", type=_address, help=f"where the receiver listens (trial: {DEFAULT_LISTEN})"
    )
    parser.add_argument(
        "--public-host",
        metavar="HOST:PORT",
        action="append",
        type=_address,
        help="receiver: what stations dial, where that is not --listen; may be repeated",
    )
    parser.add_argument("--recipients", metavar="FILE", type=Path, help="the authority's recipients.txt")
    parser.add_argument("--receiver", metavar="URL", help="station: the receiver's address, https://HOST:PORT")
    parser.add_argument("--ca", metavar="FILE", type=Path, help="station: the receiver's certificate, to be pinned")
    parser.add_argument("--store-key", metavar="FILE", type=Path, help="station: the receiver's store.pub")
    parser.add_argument("--state", metavar="DIR", type=Path, help="station: journal and spool (default DIR/state)")
    parser.add_argument("--bays", metavar="DIR", type=Path, help="station: where cameras appear (default DIR/bays)")
    parser.set_defaults(handler=lambda args: run(parser, args))


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Make it. Raises ConfigError where something is there already or a given file is no good."""
    *parts, directory = args.what
    part = parts[0] if parts else ""
    if len(parts) > 1 or part not in _TAKES or (not parts and directory in _TAKES):
        parser.error("expected DIR, or one of authority, receiver, station and DIR (a DIR of that name: ./authority)")
    for name in sorted(set().union(*_TAKES.values())):
        option, given = "--" + name.replace("_", "-"), getattr(args, name) is not None
        if given and name not in _TAKES[part]:
            parser.error(f"{option} is not for `dockd init {part or 'DIR'}`")
        if not given and name in _NEEDS.get(part, ()):
            parser.error(f"`dockd init {part}` needs {option}")
    make = {"": _trial, "authority": _authority, "receiver": _receiver, "station": _station}[part]
    print("\n".join(make(Path(directory), args)))
    return 0


def _address(text: str) -> str:
    from dockd.config.tables import split_address

    try:
        split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}; expected HOST:PORT, like {DEFAULT_LISTEN}") from error
    return text


def _trial(directory: Path, args: argparse.Namespace) -> list[str]:
    from dockd.app.init import init_trial

    made = init_trial(directory, args.listen or DEFAULT_LISTEN)
    dockd, config, receiver = this_program(), quoted(made.config), quoted(directory / "receiver.toml")
    return [
        f"A trial set is in {directory.absolute()}. Start its receiver and its station, each in a terminal of its own:",
        f"  {dockd} receiver --config {receiver}",
        f"  {dockd} run --config {config}",
        "Make a folder that holds COPIES of videos a camera, and dock it by renaming it into a bay on the same disk.",
        "Its clips are erased once the receiver has signed for them:",
        f"  {dockd} camera make FOLDER --serial X1 && mv FOLDER {quoted(made.bays / '1')}/",
        f"  {dockd} status --watch --config {config}",
    ]


def _authority(directory: Path, _args: argparse.Namespace) -> list[str]:
    from dockd.app.init import init_authority

    made = init_authority(directory)
    working, escrow = made.keys
    return [
        "Two keys were made, and each opened the canary that was sealed to both.",
        f"  {working}  opens clips: for those who review evidence",
        f"  {escrow}  opens clips: for the safe, in another place",
        f"  {made.recipients}  goes to every station and receiver; it is no secret",
        "Neither key may ever be on a dock or a receiver. If both are lost, so is every sealed clip: make copies.",
        "Try a key at any time, with stock age:",
        f"  age -d -i {quoted(escrow)} {quoted(made.canary)}",
    ]


def _receiver(directory: Path, args: argparse.Namespace) -> list[str]:
    from dockd.app.init import init_receiver

    made = init_receiver(directory, args.listen, recipients=args.recipients, public_hosts=args.public_host or ())
    lines = [
        f"Receiver {made.public.store}, store key {made.public.key.fingerprint}.",
        "Read this fingerprint to whoever sets up a station, and hand over these two files; they are no secret:",
        f"  {made.store_pub}",
        f"  {made.certificate}",
    ]
    if args.recipients is None:
        lines += [
            "The authority's recipients are still missing:",
            f"  cp recipients.txt {quoted(made.config.parent / 'recipients.txt')}",
        ]
    return [*lines, "Start it with:", f"  {this_program()} receiver --config {quoted(made.config)}"]


def _station(directory: Path, args: argparse.Namespace) -> list[str]:
    from dockd.app.init import init_station
    from dockd.core.keyfiles import parse_store_pub

    made = init_station(
        directory,
        receiver_url=args.receiver,
        ca=args.ca,
        store_key=args.store_key,
        recipients=args.recipients,
        state=args.state,
        bays=args.bays,
    )
    store = parse_store_pub(args.store_key.read_text())
    return [
        f"Station {made.public.station}.",
        f"  manifest key    {made.public.manifest_key.fingerprint}",
        f"  checkpoint key  {made.public.checkpoint_key.fingerprint}",
        f"It trusts the store key {store.key.fingerprint}: compare it with what the receiver's set-up printed.",
        f"Hand {made.station_pub} to the receiver, and compare the station's two fingerprints there:",
        f"  dockd receiver enrol {made.station_pub.name} --config RECEIVER.toml",
        "Then start the station with:",
        f"  {this_program()} run --config {quoted(made.config)}",
    ]
