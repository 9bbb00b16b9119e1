"""`dockd install-system`: units, users, udev rules and camera profiles, for a dock that systemd runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_NEXT = """\
Next, as root:
  systemd-sysusers
  systemd-tmpfiles --create dockd.conf
  udevadm control --reload
  systemctl daemon-reload
  systemctl enable --now dockd-blocker.socket
Then, where this machine has no configuration yet (docs/operations.md has every step):
  dockd init station /etc/dockd --receiver URL --ca FILE --store-key FILE --recipients FILE --state /var/lib/dockd
  dockd bays learn
  dockd check-config /etc/dockd/dockd.toml
And at last:
  systemctl enable --now dockd"""


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "install-system",
        help="install the units, users, udev rules and camera profiles of a dock",
        description="Write systemd units (they start the Python that runs this command), users, directories, udev "
        "rules, camera profiles and example configurations into the system. It can be repeated at any time, after "
        "an upgrade for instance.\n\nNothing is started, and a file below /etc/dockd that was changed is kept: the "
        "one shipped is then written beside it as NAME.new.",
        epilog="Example: dockd install-system --dry-run\nExample: dockd install-system --root /srv/image",
    )
    parser.add_argument(
        "--root", metavar="DIR", type=Path, default=Path("/"), help="install below this directory (default /)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Install, and say what was done to each file and what is to be done next."""
    from dockd.app.install import Outcome, doubts, install_system

    words = {
        Outcome.MADE: "would be made" if args.dry_run else "made",
        Outcome.UPDATED: "would be updated" if args.dry_run else "updated",
        Outcome.UNCHANGED: "unchanged",
        Outcome.KEPT: "kept, it was changed here; compare it with NAME.new",
    }
    for one in install_system(args.root, dry_run=args.dry_run):
        print(f"{one.path}: {words[one.outcome]}")
    for doubt in doubts(Path(sys.executable)):
        print(f"dockd: careful: {doubt}", file=sys.stderr)
    if not args.dry_run:
        print(f"\n{_NEXT}")
    return 0
