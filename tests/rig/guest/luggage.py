"""What goes into the guest: dockd's wheel, built from the checkout, and what it depends on.

The dependencies are resolved on the host for the guest's Python, once for as long as pyproject.toml asks for the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

from rig.guest.image import CACHE, alone, forget

SOURCE = Path(os.environ.get("DOCKD_RIG_SOURCE") or Path(__file__).parents[3])
_OF_THE_WHEEL = ("dockd", "config", "systemd", "pyproject.toml", "README.md", "LICENSE")
_PYTHON = "3.11"  # of the guest's Debian
_EXTRAS = ("mtp",)  # those that a dock with USB ports wants, as far as there are such


def wheel_key() -> str:
    """Names the content of the wheel."""
    digest = hashlib.sha256()
    for name in _OF_THE_WHEEL:
        top = SOURCE / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                digest.update(f"{path.relative_to(SOURCE)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def build_wheel(directory: Path) -> Path:
    """Build it from a copy: what is edited meanwhile does not end up half in it."""
    copy = directory / "source"
    for name in _OF_THE_WHEEL:
        source, target = SOURCE / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    _pip("wheel", "--no-deps", "--wheel-dir", str(directory), str(copy))
    shutil.rmtree(copy)
    return next(directory.glob("dockd-*.whl"))


def dependencies() -> Path:
    """A directory with the packages that dockd needs, and pip."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], "pip"]
    for extra in _EXTRAS:
        wanted += project.get("optional-dependencies", {}).get(extra, [])
    key = hashlib.sha256("\n".join([_PYTHON, *wanted]).encode()).hexdigest()[:16]
    made = CACHE / f"packages-{key}"
    with alone(CACHE / "lock"):
        if not (made / "done").exists():
            forget("packages-*")
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            same = f"{sys.version_info.major}.{sys.version_info.minor}" == _PYTHON
            for_guest = () if same else ("--python-version", _PYTHON, "--only-binary=:all:")
            _pip("install", "--target", str(made / "site-packages"), *for_guest, *wanted)
            (made / "done").touch()
        os.utime(made)
    return made / "site-packages"


def pack(target: Path, content: dict[str, Path]) -> None:
    """An image for a disk that is a tar archive: what lies at each path on the host, under its name in the guest."""
    with tarfile.open(target, "w") as archive:
        for name, source in content.items():
            archive.add(source, arcname=name, filter=_of_root)
    with target.open("ab") as file:
        file.truncate(-(-target.stat().st_size // 4096) * 4096)


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"pip {words[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
