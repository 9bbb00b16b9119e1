"""How this program is called in commands to paste."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def this_program() -> str:
    """`dockd` where the shell finds this very program under that name, else its absolute path, quoted."""
    called = Path(sys.argv[0])
    if called.name != "dockd":  # python -m dockd
        return f"{shlex.quote(sys.executable)} -m dockd"
    found = shutil.which("dockd")
    if found and Path(found).absolute() == called.absolute():
        return "dockd"
    return shlex.quote(str(called.absolute()))


def quoted(path: Path) -> str:
    """A path to paste, absolute."""
    return shlex.quote(str(path.absolute()))
