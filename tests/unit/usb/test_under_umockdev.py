"""Runs mocked.py where libudev sees made-up devices."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

MOCKED = Path(__file__).with_name("mocked.py")


@pytest.mark.skipif(shutil.which("umockdev-wrapper") is None, reason="umockdev is not installed")
def test_the_usb_source_on_a_mocked_udev():
    with tempfile.TemporaryDirectory() as directory:  # umockdev leaves its own there; a short path, for its sockets
        run = subprocess.run(
            ["umockdev-wrapper", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(MOCKED)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "DOCKD_CI": os.environ.get("DOCKD_CI", ""), "TMPDIR": directory},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
    assert run.returncode == 0, run.stdout + run.stderr
