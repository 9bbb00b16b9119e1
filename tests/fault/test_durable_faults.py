"""What durable files do when the system fails under them: traced writes and syncs, SIGKILL, and a full disk."""

import shutil
import signal
import subprocess
import sys

import pytest

from dockd.keep.durable import is_temporary

_WRITE = """
import sys
from pathlib import Path
from dockd.keep.durable import write_file
try:
    write_file(Path(sys.argv[1]), b"new" * 100_000)
except OSError as error:
    print(error.errno)
    sys.exit(1)
"""

_needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: it makes system calls fail"
)
_RENAMES = "rename,renameat,renameat2"


def _traced(directory, calls, injection=None):
    """Run the writer under strace. -B keeps Python itself from renaming files; nothing but durable.py syncs there."""
    fault = [] if injection is None else ["-e", f"inject={calls}:{injection}"]
    program = [sys.executable, "-B", "-c", _WRITE, directory / "a"]
    return subprocess.run(
        ["strace", "-qq", "-y", "-o", directory.parent / "trace", "-e", f"trace={calls}", *fault, *program],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "here"
    made.mkdir()
    (made / "a").write_bytes(b"old")
    return made


@_needs_strace
def test_the_order_is_write_sync_rename_sync_of_the_directory(directory):
    assert _traced(directory, f"openat,write,fsync,{_RENAMES}").returncode == 0
    trace = (directory.parent / "trace").read_text().splitlines()
    ours = [line for line in trace if str(directory) in line and "O_DIRECTORY" not in line]
    calls = [line.split("(")[0] for line in ours]
    assert calls[0] == "openat"
    assert "O_EXCL" in ours[0]
    assert set(calls[1:-3]) == {"write"}
    assert calls[-3] == "fsync"
    assert calls[-2].startswith("rename")
    assert calls[-1] == "fsync"
    assert f"<{directory}>" in ours[-1]


@_needs_strace
@pytest.mark.parametrize(("error", "number"), [("EIO", 5), ("ENOSPC", 28)])
def test_p02_a_failing_rename_leaves_the_old_file_alone(directory, error, number):
    ended = _traced(directory, _RENAMES, f"error={error}")
    assert (ended.returncode, ended.stdout.strip()) == (1, str(number)), ended.stderr
    assert [path.name for path in directory.iterdir()] == ["a"]
    assert (directory / "a").read_bytes() == b"old"


@_needs_strace
@pytest.mark.parametrize(("which", "content"), [(1, b"old"), (2, b"new" * 100_000)])
def test_p02_a_failing_sync_is_told_and_leaves_one_whole_file(directory, which, content):
    ended = _traced(directory, "fsync", f"error=EIO:when={which}")
    assert (ended.returncode, ended.stdout.strip()) == (1, "5"), ended.stderr
    assert [path.name for path in directory.iterdir()] == ["a"]
    assert (directory / "a").read_bytes() == content


@_needs_strace
@pytest.mark.parametrize("calls", ["fsync", _RENAMES])
def test_p02_killed_at_a_call_one_whole_file_stands_and_leftovers_are_known(directory, calls):
    ended = _traced(directory, calls, "signal=SIGKILL:when=1")
    assert ended.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert (directory / "a").read_bytes() in (b"old", b"new" * 100_000)
    assert all(path.name == "a" or is_temporary(path.name) for path in directory.iterdir())


_FULL = """
import errno, os, sys
from pathlib import Path
from dockd.keep.durable import write_file
directory = Path(sys.argv[1])
write_file(directory / "a", b"old")
try:
    write_file(directory / "a", bytes(2_000_000))
except OSError as error:
    assert error.errno == errno.ENOSPC, error
else:
    raise AssertionError("2 MB fitted into 1 MiB")
assert os.listdir(directory) == ["a"] and (directory / "a").read_bytes() == b"old"
write_file(directory / "a", bytes(500_000))
"""


def test_p02_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path):
    run_on_small_disk = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=1m small {tmp_path} && "
    if subprocess.run([*run_on_small_disk, mount + "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small tmpfs in a namespace of its own")
    ended = subprocess.run(
        [*run_on_small_disk, mount + 'exec "$@"', "sh", sys.executable, "-c", _FULL, tmp_path],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
