"""`dockd camera probe`: what a profile makes of a camera, without touching it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockd.cli.render import count, size

if TYPE_CHECKING:
    from dockd.app.probe import Probe, Probed

_COUNTED = ("clip", "sidecar")
_KINDS = ("clip", "sidecar", "noise", "other", "refused")


def register(actions: Any) -> None:
    """Add the action to `dockd camera`."""
    action = actions.add_parser(
        "probe",
        help="show what a profile makes of a camera's files",
        description="List what each file in PATH would be to a profile: a clip, a sidecar of one, noise, something "
        "else, or refused. Nothing is written, and no file is opened. PATH is where the camera's file system is "
        "mounted (read-only, best with noatime), or a copy of it.",
        epilog='Example: dockd camera probe /mnt --label "AXON BODY 2"',
    )
    action.add_argument("directory", metavar="PATH", type=Path, help="a directory: the root of a camera's volume")
    action.add_argument("--profile", metavar="NAME", help="the profile (default: the one that fits best)")
    action.add_argument("--vendor-id", metavar="ID", default="", help="the camera's USB vendor id, four hex digits")
    action.add_argument("--product-id", metavar="ID", default="", help="its product id")
    action.add_argument("--label", metavar="L", default="", help="the label of its volume")
    action.add_argument("--mtp", action="store_true", help="take it for an MTP device")
    action.add_argument("--config", metavar="FILE", help="the station's configuration, for its profiles and rules")
    action.add_argument("--json", action="store_true", help="one JSON object a line (docs/cameras.md)")
    action.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Look. Raises CameraRefused where no profile fits."""
    from dockd.app.probe import probe
    from dockd.config.load import find_config
    from dockd.core.profile import Facts, VolumeFacts
    from dockd.model import MediumKind

    config = find_config(args.config)
    facts = Facts(
        medium=MediumKind.MTP if args.mtp else MediumKind.VOLUMES,
        vendor_id=args.vendor_id.lower(),
        product_id=args.product_id.lower(),
        volumes=() if args.mtp else (VolumeFacts(filesystem="", label=args.label),),
    )
    seen = probe(args.directory, facts=facts, wanted=args.profile, config=config if _wanted(args, config) else None)
    if args.json:
        for one in seen.files:
            print(json.dumps(_record(seen, one), sort_keys=True))
    elif sys.stdout.isatty():
        _print_table(seen)
    else:
        for one in seen.files:
            print("\t".join(_cells(one)))
    print(_summary(seen), file=sys.stderr)
    return 0


def _wanted(args: argparse.Namespace, config: Path) -> bool:
    return args.config is not None or config.exists()


def _print_table(seen: Probe) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("what", "category", "size", "path", "why, and what its name says"):
        table.add_column(name, overflow="fold", no_wrap=name in ("what", "category", "size"))
    for one in seen.files:
        table.add_row(*_cells(one))
    Console().print(table)


def _cells(one: Probed) -> list[str]:
    from dockd.core.canonical import encode_path

    words = [one.reason]
    if one.of is not None:
        words.append(f"of {encode_path(one.of)}")
    if one.named is not None:
        said = {"officer": one.named.officer, "category": one.named.category, "sequence": one.named.sequence}
        words += [f"{one.named.local} {one.named.time_zone}".strip()]
        words += [f"{key} {value}" for key, value in said.items() if value]
    evidence = one.category.value if one.kind in ("clip", "sidecar") else ""
    return [
        one.kind,
        evidence,
        size(one.file.size_bytes),
        encode_path(one.file.path),
        "; ".join(filter(None, words)),
    ]


def _record(seen: Probe, one: Probed) -> dict[str, Any]:
    from dockd.core.canonical import encode_path
    from dockd.station.operations import named_to_json

    return {
        "type": "probed",
        "v": 1,
        "profile": f"{seen.profile.name} {seen.profile.version}",
        "path": encode_path(one.file.path),
        "size_bytes": one.file.size_bytes,
        "kind": one.kind,
        "category": one.category.value,
        "reason": one.reason,
        "of": None if one.of is None else encode_path(one.of),
        "named": None if one.named is None else named_to_json(one.named),
    }


def _summary(seen: Probe) -> str:
    kinds, profile = [one.kind for one in seen.files], seen.profile
    found = ", ".join(
        count(kinds.count(kind), kind) if kind in _COUNTED else f"{kinds.count(kind)} {kind}" for kind in _KINDS
    )
    also = f"; {', '.join(one.name for one in seen.others)} would fit, too" if seen.others else ""
    return f"{profile.name} {profile.version} ({profile.description}): {found}; erase: {profile.erase.value}{also}"
