"""`dockd demo` as a newcomer runs it: with videos of their own, with mistakes, and with Ctrl-C."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from dockd.cli.demo import _own_clips
from dockd.config.schema import CLIP_SUFFIXES

DEMO = [sys.executable, "-m", "dockd", "demo"]
NOBODY = 65534


def demo(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*DEMO, *words], capture_output=True, text=True, errors="replace", check=False, **options)


def fingerprints(directory: Path) -> dict[Path, tuple]:
    """What may not change about the user's own files."""
    return {
        path: (status.st_ino, status.st_mtime_ns, status.st_nlink, status.st_mode, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink() and (status := path.stat())
    }


def test_own_videos_of_any_name_are_copied_and_stay_as_they_were(tmp_path, mp4):
    own = tmp_path / "own"
    names = [
        "new\nline.mp4",
        os.fsdecode(b"\xff\xfe.mp4"),
        "x" * 251 + ".mp4",
        "-rf.mp4",
        "a'b\"c.MP4",
        "\x1b[31mred.mp4",
        "zero.mp4",
        "again/zero.mp4",
        "again/" + "x" * 251 + ".mp4",
    ]
    for number, name in enumerate(names):
        path = own / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "zero" in name else mp4(30_000 + number, number))
    (own / "link.mp4").symlink_to("/etc/passwd")
    (own / "loop").symlink_to(".")
    os.mkfifo(own / "pipe.mp4")
    (own / "notes.txt").write_text("no video")
    before = fingerprints(own)
    done = demo("--clips", str(own), "--bays", "2", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Left out" in done.stdout
    assert "Read      9 clips" in done.stdout
    assert "Stored    9 clips" in done.stdout
    assert "Erased    7 clips" in done.stdout
    assert "Waiting   2 clips" in done.stdout
    assert fingerprints(own) == before
    assert len(list((tmp_path / "out" / "store").rglob("clip.age"))) == 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["Setting up", "Docking", "bay 1: "])
def test_whatever_ends_it_leaves_no_child_behind(tmp_path, number, moment):
    mark = f"DOCKD_DEMO_TEST={uuid.uuid4()}"
    words = [*DEMO, "--out", str(tmp_path / "out"), "--bays", "1"]
    environment = os.environ | dict([mark.split("=")])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert any(line.startswith(moment) for line in child.stdout)
        assert marked(mark), "the mark is how children are found"
        child.send_signal(number)
        said = child.stdout.read()
        assert child.wait() == 130
    assert f"rm -r {tmp_path / 'out'}" in said
    deadline = time.monotonic() + 10  # readers die with whoever started them, a moment later
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked(mark) == []


def marked(mark: str) -> list[str]:
    """The programs that carry the mark in their environment and are no zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--bays", "0"), 64, "--bays takes 1 to 16"),
        (("--bays", "17"), 64, "--bays takes 1 to 16"),
        (("--bays", "x"), 64, "invalid int value"),
        (("--clips", "none"), 73, "is not a directory"),
        (("--clips", "file"), 73, "is not a directory"),
        (("--clips", "\udcff"), 73, "is not a directory"),
        (("--clips", "empty"), 73, "holds no videos"),
        (("--out", "file"), 73, "Not a directory"),
        (("--out", "full"), 73, "is not empty"),
        (("--out", "/proc/none"), 73, "name another place with --out"),
        (("--clips", "huge"), 73, "name another place with --out"),
    ],
)
def test_mistakes_end_in_a_sentence_and_leave_nothing(tmp_path, words, code, sentence):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for place in ("full", "huge"):
        (tmp_path / place).mkdir()
    (tmp_path / "full" / "x").touch()
    with (tmp_path / "huge" / "a.mp4").open("wb") as file:
        file.truncate(1 << 43)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "tmp").mkdir()
    done = demo(*words, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path / "tmp")})
    assert done.returncode == code, done.stdout + done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list((tmp_path / "tmp").iterdir()) == []
    (tmp_path / "tmp").rmdir()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize("closed", ["a video", "a directory", "all"])
def test_what_may_not_be_read_is_said_before_anything_is_made(mp4, closed):
    assert CLIP_SUFFIXES, "imported by now: nobody may not be able to"
    with tempfile.TemporaryDirectory() as directory:  # pytest's own is closed to others
        own = Path(directory, "own")
        (own / "sub").mkdir(parents=True)
        for path in (own / "a.mp4", own / "sub" / "b.mp4"):
            path.write_bytes(mp4(1000, 1))
        Path(directory).chmod(0o755)
        {"a video": own / "sub" / "b.mp4", "a directory": own / "sub", "all": own}[closed].chmod(0)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError):
                _own_clips(own)
        finally:
            os.seteuid(0)
