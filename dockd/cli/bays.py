"""`dockd bays`: which USB ports are bays, and what stands at them. Needs no daemon."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import aclosing, suppress
from typing import Any


def register(subparsers: Any) -> None:
    """Add the commands."""
    parser = subparsers.add_parser(
        "bays",
        help="list USB ports, and learn which is which bay",
        description="Look at the USB ports of this machine. Nothing on any device is read.",
        epilog="Example: dockd bays learn",
    )
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    listing = actions.add_parser(
        "list",
        help="list bays, ports and what stands at them",
        description="List the USB ports that are bays, and every other one at which something stands.",
        epilog="Example: dockd bays list",
    )
    listing.add_argument("--config", metavar="FILE", help="the station's configuration")
    listing.set_defaults(handler=show)
    learn = actions.add_parser(
        "learn",
        help="learn which port is which bay, by plugging a camera into each in turn",
        description="Plug a camera, any camera, into each bay in the order of their numbers. Each is printed as a line "
        "for [bays.ports] of the configuration. A camera that can do both speeds of a port has to be tried only "
        "once. Ctrl-C ends.",
        epilog="Example: dockd bays learn --count 8 > ports.toml",
    )
    learn.add_argument("--first", metavar="N", type=int, default=1, help="the number of the first bay (default: 1)")
    learn.add_argument("--count", metavar="N", type=int, help="how many bays there are; then it ends by itself")
    learn.set_defaults(handler=learn_ports)


def show(args: argparse.Namespace) -> int:
    """List."""
    from dockd.app.bays import ports
    from dockd.config.load import find_config

    config = find_config(args.config)
    for line in ports(config if args.config or config.exists() else None):
        bay = f"bay {line.bay}" if line.bay else "no bay"
        print("\t".join(filter(None, (bay, line.port, line.label or "empty", line.says))))
    return 0


def learn_ports(args: argparse.Namespace) -> int:
    """Learn, until there are enough or Ctrl-C."""
    if args.first < 1 or (args.count is not None and args.count < 1):
        print("dockd bays learn: numbers start at 1", file=sys.stderr)
        return 64
    with suppress(KeyboardInterrupt):
        asyncio.run(_learn(args.first, args.count))
    return 0


async def _learn(first: int, count: int | None) -> None:
    from dockd.app.bays import arrivals

    bays: dict[str, int] = {}
    print("[bays.ports]", flush=True)
    async with aclosing(arrivals(lambda: print(f"Plug a camera into bay {first}.", file=sys.stderr))) as found:
        async for node in found:
            if node.port in bays:
                print(f"That was bay {bays[node.port]} again ({node.label}).", file=sys.stderr)
                continue
            bay = bays[node.port] = first + len(bays)
            print(f'{bay} = ["{node.port}"]', flush=True)
            if len(bays) == count:
                return
            print(f"Bay {bay} is port {node.port} ({node.label}). Now bay {bay + 1}.", file=sys.stderr)
