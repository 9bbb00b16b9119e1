"""Keep what the program of today writes, and the program itself: tests will try it against every later version.

    .venv/bin/python tests/versions/keep.py NAME

makes `tests/versions/NAME` from the checkout (where it has a program already, its trial set is made again by that one):

- `program.zip`: the package, without the demo's clips. It runs on the dependencies of the version that tests it.
- `trial.tar.xz`: a trial set whose programs were killed in the midst of their work. Of camera DONE the clips are stored
  and erased; one of HELD is stored, damaged, and waits for a person; those of WAITING are sealed and in the spool, for
  the receiver was gone by then. The keys in it open nothing but what is in it.
- `digests.json`: SHA-256 of each clip, by camera and path.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from clips import mp4  # noqa: E402  only now on the path
from trial import Trial  # noqa: E402

KIB = 1024
_CUT_BYTES = 9 * KIB
_LASTING_DAYS = 36500  # what is promised in it is tried for many years


def cameras() -> dict[str, dict[str, bytes]]:
    """What is on each camera, by serial and name."""
    return {
        "DONE": {"A.mp4": mp4(20 * KIB, 1), "B_EVD.mp4": mp4(24 * KIB, 2)},
        "HELD": {"WHOLE.mp4": mp4(16 * KIB, 3), "CUT.mp4": mp4(20 * KIB, 4)[:_CUT_BYTES]},
        "WAITING": {f"W{number}_EVD.mp4": mp4(12 * KIB, 5 + number) for number in range(3)},
    }


def interpreter(program: Path, place: Path) -> Path:
    """An environment in `place` whose dockd is that program, and all else is this one's; returns its interpreter."""
    with zipfile.ZipFile(program) as archive:
        archive.extractall(place / "package")  # noqa: S202  ours
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    paths = [place / "package", *(path for path in sys.path if path.endswith("-packages"))]
    (packages / "former.pth").write_text("".join(f"{path}\n" for path in paths))
    return place / "bin" / "python3"


def keep(name: str) -> None:
    """Make the directory; see above."""
    place = HERE / name
    place.mkdir(exist_ok=True)
    program = place / "program.zip"
    if not program.exists():
        _program(program)
    clips = cameras()
    digests = {
        f"{serial}:DCIM/{name}": hashlib.sha256(content).hexdigest()
        for serial, files in clips.items()
        for name, content in files.items()
    }
    (place / "digests.json").write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        python = interpreter(program, Path(scratch) / "former")
        trial = Trial(Path(scratch) / "trial", made_by=python)
        trial.versions = {"station": python, "receiver": python}
        config = trial.directory / "receiver.toml"
        config.write_text(config.read_text().replace("days = 365\n", f"days = {_LASTING_DAYS}\n"))
        try:
            _live(trial, clips)
        finally:
            trial.close()
        with tarfile.open(place / "trial.tar.xz", "w:xz") as tar:
            tar.add(trial.directory, "trial", filter=_kept)


def _program(path: Path) -> None:
    """The package as the checkout has it."""
    root = HERE.parent.parent
    listed = subprocess.run(
        ["git", "ls-files", "-z", "dockd"], cwd=root, check=True, capture_output=True, text=True
    ).stdout
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(listed.split("\0")):
            if name and "/demo_clips/" not in name:
                archive.write(root / name, name)


def _live(trial: Trial, clips: dict[str, dict[str, bytes]]) -> None:
    made = {serial: trial.camera(serial, files) for serial, files in clips.items()}
    trial.start_both()
    trial.dock(made["DONE"], 1)
    trial.dock(made["HELD"], 2)
    trial.wait_settled(1, 2)
    trial.kill("receiver")
    trial.dock(made["WAITING"], 3)
    wanted = len(clips["WAITING"])
    trial.wait("all were read", lambda: (trial.bay(3) or {}).get("clips_acquired", 0) >= wanted, watched=("station",))
    trial.kill("station")


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Whatever lasts: no logs, no sockets, no owner."""
    if not (entry.isfile() or entry.isdir()) or entry.name.endswith(".log"):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    keep(*sys.argv[1:])
