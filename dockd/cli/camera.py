"""`dockd camera`: which cameras may be docked, what they hold, and folders that are made cameras."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dockd.cli import enrolment, probe


def register(subparsers: Any) -> None:
    """Add the commands."""
    parser = subparsers.add_parser(
        "camera",
        help="enrol cameras, look at one, make a folder one",
        description="Work with cameras.",
        epilog="Example: dockd camera enrol X012345",
    )
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)
    enrolment.register(actions)
    probe.register(actions)
    make = actions.add_parser(
        "make",
        help="make a folder a camera",
        description="Make DIR a camera: write dockd-camera.toml into it. Renamed into a bay, its clips are then read, "
        "pushed, and ERASED once the store has signed for them. A folder without that file is never touched.",
        epilog="Example: dockd camera make ~/camera1 --serial X012345 && mv ~/camera1 trial/bays/1/",
    )
    make.add_argument("directory", metavar="DIR", type=Path, help="the folder; made where it is missing")
    make.add_argument("--serial", required=True, metavar="S", help="the camera's serial, unlike any other camera's")
    make.add_argument("--model", default="folder", metavar="M", help="what kind of camera it is (default: folder)")
    make.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Make it. Raises CameraRefused where it is one already, OSError where it cannot be made."""
    from dockd.app.camera import make_camera

    camera = make_camera(args.directory, serial=args.serial, model=args.model)
    print(f"{args.directory} is camera {camera.serial} now. Docked, its clips are erased once they are stored.")
    return 0
