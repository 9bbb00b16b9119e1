"""A machine on which readers cannot be sealed off from files: a program has 16 layers of Landlock, and no more."""

from __future__ import annotations

import sys
from pathlib import Path

LAYERS = 16
_SCRIPT = f"""\
#!{sys.executable} -I
import os, sys
from dockd.reader import kernel, landlock
kernel.forbid_new_privileges()
root = os.open("/", os.O_PATH)
for _ in range({LAYERS}):
    landlock.restrict({{root: (1 << 15) - 1}})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def make_interpreter(path: Path) -> Path:
    """An interpreter for readers with all layers taken, each of which keeps nothing back."""
    path.write_text(_SCRIPT)
    path.chmod(0o755)
    return path
