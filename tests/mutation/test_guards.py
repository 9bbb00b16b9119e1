"""P01 stands on ten guards: with any one of them gone, a unit test fails. docs/reliability.md has the others too."""

import subprocess
import sys
from pathlib import Path

import pytest

TEN = (
    *("receipt signature", "nonce", "digest", "length", "retention", "receipt sequence", "holding statement"),
    *("camera identity", "reread", "durable custody entry"),
)


@pytest.mark.timeout(900)
def test_p01_without_any_one_of_its_ten_guards_a_test_fails():
    script = Path(__file__).with_name("guards.py")
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--only", *TEN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for guard in TEN:
        section = lines[lines.index(guard) + 1]
        assert section.startswith("    without "), done.stdout
        assert "::test_" in section, done.stdout
