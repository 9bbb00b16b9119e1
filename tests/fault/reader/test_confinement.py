"""What somebody who took a reader over could reach: tried thing by thing, as docs/threat-model.md lists them."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from cards import Part, make_volume
from without_landlock import make_interpreter

from dockd.errors import ReaderDied
from dockd.reader import syscalls
from dockd.reader.client import ForkServer
from dockd.reader.confine import ITEMS

ROOT = Path(__file__).parents[3]
PROBE = ROOT / "tests" / "confinement_probe.py"
SOMEBODY = 65534
REFUSALS = {"EACCES", "EPERM"}
REACHED = {"becoming a program": "ENOENT", "BPF": "EINVAL", "performance counters": "EFAULT"}
"""What shows that a call is made at all, where it cannot succeed: no such program, arguments that make no sense."""
MAY_LACK = {"a user namespace", "io_uring", "BPF", "userfaultfd", "performance counters"}  # this machine, for everybody

LOOKS = """
import os, sys
from dockd.filesystems import probe
from dockd.reader import confine, kernel
fd = os.open(sys.argv[1], os.O_RDONLY)
kernel.forbid_new_privileges()
confine.seal_off(-1, None)
found = probe(lambda offset, size: os.pread(fd, size, offset))
print(found.kind, found.label)
"""
"""A reader's look at a volume, by a program that has loaded nothing for it before."""


@pytest.fixture(scope="module", params=["as root", "without privilege"])
def found(request):
    """What the probe tells, as the user who runs the tests or as one without any privilege."""
    uid = SOMEBODY if request.param == "without privilege" else 0
    if os.geteuid() != 0 and not uid:
        pytest.skip("needs root")
    with ExitStack() as closing:
        state = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="dockd-test-")))
        files = {name: state / name for name in ("key", "journal", "config")}
        sockets = {"control": socket.SOCK_STREAM, "blocker": socket.SOCK_SEQPACKET}
        for file in files.values():
            file.write_bytes(b"x")
        for name, kind in sockets.items():
            made = closing.enter_context(socket.socket(socket.AF_UNIX, kind))
            made.bind(str(state / name))
            made.listen()
        plan = {
            "state": str(state),
            "files": {name: str(path) for name, path in files.items()},
            "sockets": {name: str(state / name) for name in sockets},
        }
        if os.geteuid() == 0:
            plan["uid"] = uid
            for path in (state, *state.iterdir()):
                os.chown(path, uid, uid)
        words = [sys.executable, "-I", str(PROBE), json.dumps(plan)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout.removeprefix("PROBE "))


def table():
    """The rows of the threat model, by their first column."""
    text = (ROOT / "docs" / "threat-model.md").read_text()
    section = text.partition("### What a reader is kept from\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
    return {name: (item, by) for name, item, by in rows if name not in ("what", "---")}


def test_a_reader_is_kept_from_each_thing_that_the_threat_model_names(found):
    told, free = found["reader"]["told"], found["free"]
    open_to_it = {name: how for name, how in told.items() if how not in REFUSALS}
    assert open_to_it == {}
    shows_nothing = {name: how for name, how in free.items() if how not in ("done", REACHED.get(name))}
    assert set(shows_nothing) <= MAY_LACK, "a program that is not confined cannot do these either"


def test_the_threat_models_table_is_what_is_tried(found):
    assert list(table()) == list(found["reader"]["told"])
    assert {item for item, _ in table().values()} == set(ITEMS)
    by = {"Landlock": "EACCES", "seccomp": "EPERM"}
    assert {name: by[means] for name, (_, means) in table().items()} == found["reader"]["told"]


def test_a_reader_that_is_sealed_off_can_do_its_work(found):
    assert set(found["reader"]["needed"].values()) == {"done"}, found["reader"]["needed"]


def test_a_reader_finds_itself_sealed_off(found):
    assert found["reader"]["unmet"] == {}


async def test_a_reader_that_could_not_be_sealed_off_says_so_by_itself(rig, tmp_path):
    rig.server = await ForkServer.start(python=str(make_interpreter(tmp_path / "python")))
    unmet = await rig.server.measure()
    assert unmet == {"files": os.strerror(errno.E2BIG)}
    rig.file("a.mp4")
    assert await rig.clips(await rig.reader())
    assert rig.server.unmet == unmet


async def test_what_a_reader_left_is_refused_where_it_is_not_what_readers_leave(card):
    rig = card(Part(kind="ext4", files={"DCIM/A.MP4": b"clip"}))
    reader = await rig.reader()
    await reader.let_go()
    medium = rig.mount()
    for content in (b"", b"{}\n", b"[]\n", b'{"volumes":[],"generation":0,"reread":{},"clips":{}}\n12345678'):
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            with pytest.raises(ReaderDied, match=r"what the last reader left|broke its protocol"):
                await reader.again(medium, file.fileno())


@pytest.mark.parametrize(("column", "header"), [(0, "x86_64-linux-gnu/asm/unistd_64.h"), (1, "asm-generic/unistd.h")])
def test_the_numbers_of_the_system_calls_are_the_kernels(column, header):
    path = Path("/usr/include") / header
    if not path.is_file():
        pytest.skip("no kernel headers of this architecture (linux-libc-dev)")
    known = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", path.read_text(), re.MULTILINE))
    ours = {name: numbers[column] for name, numbers in syscalls.NUMBERS.items()}
    newer = {"fchmodat2"}  # than Debian 12's headers
    assert {name: number for name, number in ours.items() if number >= 0} == {
        name: int(known.get(name, number if name in newer else -1)) for name, number in ours.items() if number >= 0
    }
    assert not [name for name, number in ours.items() if number < 0 and name in known]


async def test_each_running_reader_has_the_filter_and_no_new_privileges(rig):
    reader = await rig.reader()
    status = Path(f"/proc/{reader.pid}/status").read_text()
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    ours = re.search(r"^Seccomp_filters:\s+(\d+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    theirs = re.search(r"^Seccomp_filters:\s+(\d+)$", status, re.MULTILINE)
    assert int(theirs[1]) == int(ours[1]) + 1


@pytest.mark.parametrize("kind", ["vfat", "exfat", "ext4"])
def test_a_volume_whose_label_needs_a_codec_is_known_by_a_reader_that_is_sealed_off(tmp_path, kind):
    image = tmp_path / "volume"
    make_volume(image, Part(kind=kind, files={"DCIM/A.MP4": b"clip"}))
    done = subprocess.run([sys.executable, "-I", "-c", LOOKS, str(image)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{kind} BODYCAM\n"


def test_what_names_and_labels_are_written_in_is_loaded_before_readers_are_forked():
    words = "import sys; from dockd.reader.forkserver import _warm_up; _warm_up(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", words], capture_output=True, text=True, check=True)
    assert {"encodings.cp437", "encodings.cp850", "encodings.utf_16_le"} <= set(done.stdout.split())
