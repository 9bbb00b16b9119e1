"""Sealed files on the dock's disk: whole or absent, and nobody else's."""

import os
import stat
import uuid

import pytest

from dockd import faults
from dockd.keep.spool import Spool
from dockd.model import SignedBytes

DOCKING, A, B = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
SIGNED = SignedBytes(payload=b"{}\xff", signature="-----BEGIN\n")


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "deep" / "spool", reserve_bytes=0, max_bytes=0)


def seal(spool, acquisition, content=b"x" * 10, docking=DOCKING, suffix=".age"):
    fd = spool.open_incoming(docking)
    try:
        file = os.open(acquisition + suffix, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd)
        os.write(file, content)
        os.close(file)
    finally:
        os.close(fd)


def names(spool):
    return sorted(str(path.relative_to(spool.directory)) for path in spool.directory.rglob("*") if path.is_file())


def test_a_clip_is_adopted_and_discarded(spool):
    seal(spool, A)
    assert spool.present() == []
    spool.adopt(DOCKING, A)
    spool.adopt(DOCKING, A)
    assert not spool.has_manifest(A)
    spool.put_manifest(A, SIGNED)
    spool.put_manifest(A, SIGNED)
    assert spool.has_manifest(A)
    assert names(spool) == [f"{A}.age", f"{A}.manifest.json", f"{A}.manifest.json.sig"]
    assert spool.path(A).read_bytes() == b"x" * 10
    assert (spool.directory / f"{A}.manifest.json").read_bytes() == SIGNED.payload
    assert spool.present() == [A]
    spool.drop_incoming(DOCKING)
    spool.adopt(DOCKING, A)
    spool.discard(A)
    spool.discard(A)
    assert names(spool) == []
    with pytest.raises(FileNotFoundError):
        spool.adopt(DOCKING, A)


def test_everything_is_private(spool):
    old = os.umask(0)
    try:
        seal(spool, A)
        spool.put_manifest(B, SIGNED)
    finally:
        os.umask(old)
    for path in [spool.directory, *spool.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("name", ["", "..", "../x", "a" * 36, A.upper().replace("0", "A"), A + "\n", f"{A}/.."])
def test_only_an_id_becomes_a_file_name(spool, name):
    for call in (spool.open_incoming, spool.drop_incoming, spool.path, spool.discard):
        with pytest.raises(ValueError, match="not an id"):
            call(name)
    with pytest.raises(ValueError, match="not an id"):
        spool.adopt(DOCKING, name)


def test_p02_a_reader_that_wakes_up_late_can_put_nothing_anywhere(spool):
    seal(spool, A, suffix=".part")
    fd = spool.open_incoming(DOCKING)
    spool.drop_incoming(DOCKING)
    spool.drop_incoming(DOCKING)
    with pytest.raises(FileNotFoundError):
        os.open("late.part", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.close(fd)
    assert names(spool) == []


def test_a_symlink_is_never_taken_for_a_clip(spool, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"x" * 10)
    spool.path(A).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        spool.adopt(DOCKING, A)
    (spool.directory / "incoming" / DOCKING).symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        spool.open_incoming(DOCKING)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_p02_what_is_set_aside_takes_its_manifest_along_whenever_it_is_cut_short(tmp_path, number):
    failing = faults.parse(f"lost@spool.set-aside#{number}")
    spool = Spool(tmp_path, reserve_bytes=0, max_bytes=0, faults=failing)
    spool.path(A).write_bytes(b"x")
    spool.put_manifest(A, SIGNED)
    with pytest.raises(TimeoutError):
        spool.set_aside(A)
    for left in spool.present():  # as the next start does
        spool.set_aside(left)
    assert names(spool) == [f"set-aside/{A}{suffix}" for suffix in (".age", ".manifest.json", ".manifest.json.sig")]


def test_room(tmp_path):
    plenty = Spool(tmp_path / "s", reserve_bytes=0, max_bytes=0)
    assert plenty.shortage(1) == ""
    assert "no room for 1 bytes, 0 are free" in Spool(tmp_path / "s", reserve_bytes=2**62, max_bytes=0).shortage(1)
    assert not Spool(tmp_path / "s", reserve_bytes=2**62, max_bytes=0).shortage(0)
    small = Spool(tmp_path / "s", reserve_bytes=0, max_bytes=100)
    seal(small, A, b"x" * 30)
    small.adopt(DOCKING, A)
    seal(small, B, b"x" * 40, suffix=".part")
    assert small.usage() == (1, 70)
    assert small.free_bytes() == 30
    assert not small.shortage(30)
    assert "no room" in small.shortage(31)
    seal(small, B, b"x" * 90, suffix=".part")
    assert small.free_bytes() == 0


def test_p02_the_sweep_removes_what_no_run_owns_and_nothing_else(spool):
    for acquisition in (A, B):
        seal(spool, acquisition)
        spool.adopt(DOCKING, acquisition)
        spool.put_manifest(acquisition, SIGNED)
    other = str(uuid.UUID(int=9))
    seal(spool, B, docking=other)
    seal(spool, B, docking=other, suffix=".part")
    (spool.directory / f".{A}.manifest.json.xyz.dockd-tmp").write_bytes(b"")
    (spool.directory / "notes.txt").write_bytes(b"somebody's")
    gone = spool.sweep(lambda acquisition: acquisition == A)
    assert gone == sorted(
        [
            f".{A}.manifest.json.xyz.dockd-tmp",
            f"{B}.age",
            f"{B}.manifest.json",
            f"{B}.manifest.json.sig",
            f"incoming/{other}/{B}.age",
            f"incoming/{other}/{B}.part",
        ]
    )
    assert names(spool) == [f"{A}.age", f"{A}.manifest.json", f"{A}.manifest.json.sig", "notes.txt"]
    assert list((spool.directory / "incoming").iterdir()) == []
    assert spool.sweep(lambda _: True) == []
