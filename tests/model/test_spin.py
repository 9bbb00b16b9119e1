"""The lifecycle's table, model-checked: in every order in which anything can happen, erased implies confirmed."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from model.promela import EVENTS, model

from dockd.core.lifecycle import AcquisitionEvent

MEMORY_MIB = 6000


@pytest.fixture
def spin(tmp_path):
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (.ci/packages.txt)")

    def check(text: str) -> tuple[int, int, str]:
        """Errors found, states visited, and everything it said."""
        (tmp_path / "lifecycle.pml").write_text(text)
        subprocess.run(["spin", "-a", "lifecycle.pml"], cwd=tmp_path, check=True, capture_output=True)
        flags = ["-O3", "-w", "-DSAFETY", "-DNOFAIR", f"-DMEMLIM={MEMORY_MIB}"]
        subprocess.run(["gcc", *flags, "-o", "pan", "pan.c"], cwd=tmp_path, check=True)
        done = subprocess.run(["./pan", "-m2000000", "-w26"], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert "max search depth too small" not in done.stdout
        assert "aborted" not in done.stdout
        errors, states = re.search(r"errors: (\d+)\n\s+(\d+) states, stored", done.stdout).groups()
        return int(errors), int(states), done.stdout

    return check


def test_every_event_is_in_the_model():
    assert set(EVENTS) == set(AcquisitionEvent)


@pytest.mark.timeout(900)
def test_p01_erased_implies_confirmed_in_every_order(spin, capsys):
    errors, states, said = spin(model())
    assert errors == 0, said
    assert states > 1_000_000
    assert "assert(((same" not in said.partition("unreached")[2], "no clip was ever erased in the model"
    with capsys.disabled():
        print(f"\nspin: {states} states of 2 cameras x 2 clips x 2 stores, no error")  # noqa: T201  the count is asked for


@pytest.mark.parametrize("left_out", ["reread[c]", "intact[c]", "holds[c*2]", "holds[c*2+1]"])
def test_p01_without_a_condition_of_the_warrant_a_clip_is_lost(spin, left_out):
    condition, _ = EVENTS[AcquisitionEvent.WARRANTED]
    terms = condition.split(" && ")
    assert left_out in terms
    broken = " && ".join(term for term in terms if term != left_out)
    text = model()
    assert text.count(condition) == 1
    errors, _, _ = spin(text.replace(condition, broken))
    assert errors == 1
