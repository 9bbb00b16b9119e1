"""`dockd install-system` below a directory: every file, twice, after changes, and dry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dockd.app.install import doubts
from dockd.cli.main import main

UNITS = Path("etc/systemd/system")


def tree(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def installed(tmp_path, capsys):
    assert main(["install-system", "--root", str(tmp_path)]) == 0
    return tmp_path, capsys.readouterr().out


def test_everything_that_a_dock_needs_is_installed_and_named(installed):
    root, said = installed
    for name in (
        *(f"{UNITS}/{unit}" for unit in ("dockd.service", "dockd-blocker.socket", "dockd-blocker@.service")),
        f"{UNITS}/dockd-receiver.service",
        "etc/sysusers.d/dockd.conf",
        "etc/tmpfiles.d/dockd.conf",
        "etc/udev/rules.d/70-dockd.rules",
        "etc/udev/rules.d/71-dockd-authorize.rules.example",
        "etc/udev/rules.d/72-dockd-seat.rules",
        "etc/dockd/dockd.toml.example",
    ):
        assert (root / name).stat().st_mode & 0o777 == 0o644
        assert f"/{name}: made\n" in said
    assert "systemctl enable --now dockd-blocker.socket" in said
    assert not (root / "etc/dockd/dockd.toml").exists()


def test_units_start_the_interpreter_that_installed_them(installed):
    root, _ = installed
    for unit, command in (("dockd.service", "dockd run"), ("dockd-blocker@.service", "dockd.blocker")):
        assert f"ExecStart={sys.executable} -I -m {command}" in (root / UNITS / unit).read_text()


def test_a_second_time_changes_nothing(installed, capsys):
    root, _ = installed
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert main(["install-system", "--root", str(root)]) == 0
    assert ": made" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_units_follow_the_version_and_the_station_s_own_files_are_kept(installed, capsys):
    root, _ = installed
    unit = root / UNITS / "dockd.service"
    unit.write_text("changed")
    configuration = root / "etc/dockd/dockd.toml"
    configuration.write_text("mine")
    profiles = sorted((root / "etc/dockd/cameras.d").glob("*.toml"))
    for profile in profiles:
        profile.write_text("mine")
    assert main(["install-system", "--root", str(root)]) == 0
    said = capsys.readouterr().out
    assert "ExecStart=" in unit.read_text()
    assert f"/{UNITS}/dockd.service: updated\n" in said
    assert configuration.read_text() == "mine"
    for profile in profiles:
        assert profile.read_text() == "mine"
        assert profile.with_name(f"{profile.name}.new").stat().st_size > 10
        assert f"{profile.name}: kept" in said


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert main(["install-system", "--root", str(tmp_path), "--dry-run"]) == 0
    assert tree(tmp_path) == {}
    assert "/etc/udev/rules.d/70-dockd.rules: would be made\n" in capsys.readouterr().out


def test_what_others_than_root_may_change_is_doubted(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: files of two owners")
    python = tmp_path / "python"
    python.touch()
    os.chown(python, 65534, 65534)
    assert any(f"{python} may be changed" in doubt for doubt in doubts(python))
    assert any("hidden" in doubt for doubt in doubts(Path("/home/alice/venv/bin/python")))


def test_systemd_finds_nothing_amiss_in_the_units(installed):
    root, _ = installed
    units = sorted(str(path) for path in (root / UNITS).iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "dockd" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_daemon_s_unit_is_as_tight_as_promised(installed):
    root, _ = installed
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(root / UNITS / "dockd.service")]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
