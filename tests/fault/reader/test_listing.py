"""Listing hostile cameras."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from dockd.errors import CameraGone
from dockd.model import Category, FileKind

HOSTILE = [
    b"new\nline.mp4",
    b"invalid-\xff\xfe.mp4",
    b"-rf.mp4",
    b"per%cent%2Fslash.mp4",
    b"quote'\"\\.mp4",
    b"\x01\x7f.mp4",
    b"x" * 251 + b".mp4",
    b"\xe2\x80\xae4pm.mp4",
    b" .mp4",
]


async def test_p05_hostile_names_survive_listing_and_reading(memory_rig):
    rig = memory_rig
    for index, name in enumerate(HOSTILE):
        rig.file(name, b"content %d" % index)
    reader = await rig.reader()
    found = await rig.clips(reader)
    assert set(found) == set(HOSTILE)
    for index, name in enumerate(HOSTILE):
        sealed = await reader.acquire(rig.id(index), found[name])
        assert sealed.file.path == name
        assert rig.opened(rig.id(index)) == b"content %d" % index
        assert (await reader.reread(rig.id(index), found[name])).plaintext_digest == sealed.plaintext_digest


async def test_p05_everything_that_is_no_file_is_named_and_not_followed(memory_rig, tmp_path):
    rig = memory_rig
    (tmp_path / "secret.mp4").write_bytes(b"elsewhere")
    rig.file("ok.mp4")
    (rig.camera / "loop").symlink_to(".")
    (rig.camera / "out").symlink_to(tmp_path)
    (rig.camera / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (rig.camera / "dangling.mp4").symlink_to("nowhere")
    os.mkfifo(rig.camera / "pipe.mp4")
    (rig.camera / "dir.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(rig.camera / "sock.mp4"))
        if os.geteuid() == 0:
            os.mknod(rig.camera / "null.mp4", 0o600 | 0o020000, os.makedev(1, 3))
        reader = await rig.reader()
        entries = {entry.file.path: entry for entry in await rig.listing(reader)}
    kinds = {path: entry.kind for path, entry in entries.items()}
    refused = {b"loop", b"out", b"link.mp4", b"dangling.mp4", b"pipe.mp4", b"sock.mp4"}
    refused |= {b"null.mp4"} if os.geteuid() == 0 else set()
    assert {path for path, kind in kinds.items() if kind is FileKind.REFUSED} == refused
    assert {path for path, kind in kinds.items() if kind is FileKind.CLIP} == {b"ok.mp4"}
    assert kinds[b"dockd-camera.toml"] is FileKind.OTHER
    assert all(entries[path].reason for path in refused)


async def test_p05_a_tree_that_is_too_deep_is_named_at_the_cap(memory_rig):
    rig = memory_rig
    rig.file("/".join(["d"] * 8) + "/in.mp4")
    rig.file("/".join(["e"] * 9) + "/out.mp4")
    reader = await rig.reader()
    entries = await rig.listing(reader)
    assert [entry.file.path for entry in entries if entry.kind is FileKind.CLIP] == [b"d/" * 8 + b"in.mp4"]
    (refused,) = [entry for entry in entries if entry.kind is FileKind.REFUSED]
    assert refused.file.path == b"/".join([b"e"] * 9)
    assert "deeper than 8" in refused.reason


async def test_p05_long_paths_within_the_depth_fit_their_messages(memory_rig):
    rig = memory_rig
    fd = os.open(rig.camera, os.O_RDONLY)
    for _ in range(30):
        os.mkdir(b"\xff" * 255, dir_fd=fd)
        below = os.open(b"\xff" * 255, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.close(os.open(b"\xfe" * 251 + b".mp4", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    reader = await rig.reader(rules=rig.rules(max_depth=64))
    entries = await rig.listing(reader)
    found = [entry for entry in entries if entry.kind is FileKind.CLIP]
    assert len(found) == 16
    assert [entry.reason for entry in entries if entry.kind is FileKind.REFUSED] == [
        "a path of more than 4096 bytes: not looked into"
    ]
    deepest = max(found, key=lambda entry: len(entry.file.path))
    assert (await reader.acquire(rig.id(1), deepest.file)).plaintext_size_bytes == 0
    subprocess.run(["rm", "-rf", rig.camera], check=True)


async def test_p10_more_entries_than_the_cap_are_said_to_be_left_out(memory_rig):
    rig = memory_rig
    for number in range(60):
        rig.file(f"{number}.mp4")
    reader = await rig.reader(rules=rig.rules(max_files=20))
    entries = await rig.listing(reader)
    assert len(entries) == 21
    assert entries[-1].kind is FileKind.REFUSED
    assert "more than 20 entries" in entries[-1].reason


async def test_a_long_listing_comes_in_batches_and_can_be_repeated(memory_rig):
    rig = memory_rig
    for number in range(1500):
        rig.file(f"sub/{number:04d}.mp4")
    reader = await rig.reader()
    batches = [len(batch) async for batch in reader.list()]
    assert sum(batches) == 1501
    assert len(batches) > 5
    assert len(await rig.clips(reader)) == 1500


async def test_a_listing_left_early_makes_the_reader_unusable_and_killable(memory_rig):
    rig = memory_rig
    for number in range(600):
        rig.file(f"{number}.mp4")
    reader = await rig.reader()
    async for _ in reader.list():
        break
    with pytest.raises(Exception, match="cut short"):
        await rig.listing(reader)
    await reader.kill()
    assert await reader.ended == "was killed by SIGKILL"


async def test_evidence_is_flagged(memory_rig):
    rig = memory_rig
    rig.file("EVIDENCE/a.mp4")
    rig.file("b_EVD.mp4")
    rig.file("c.mp4")
    reader = await rig.reader()
    flagged = {e.file.path: e.category for e in await rig.listing(reader) if e.kind is FileKind.CLIP}
    assert flagged == {
        b"EVIDENCE/a.mp4": Category.EVIDENCE,
        b"b_EVD.mp4": Category.EVIDENCE,
        b"c.mp4": Category.NONE,
    }


async def test_p05_another_file_system_below_is_refused(memory_rig):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    rig = memory_rig
    (rig.camera / "mnt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", rig.camera / "mnt"], check=True)
    try:
        rig.file("mnt/other.mp4")
        reader = await rig.reader()
        (refused,) = [entry for entry in await rig.listing(reader) if entry.kind is FileKind.REFUSED]
        assert refused.file.path == b"mnt"
    finally:
        subprocess.run(["umount", "-l", rig.camera / "mnt"], check=True)


async def test_p05_a_directory_that_is_mounted_below_itself_comes_to_an_end(memory_rig):
    """Bind mounts are of the same file system, so nothing tells them from directories: the loop is finite by itself."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    rig = memory_rig
    rig.file("a.mp4", b"the only clip")
    (rig.camera / "d" / "loop").mkdir(parents=True)
    subprocess.run(["mount", "--bind", rig.camera, rig.camera / "d" / "loop"], check=True)
    try:
        reader = await rig.reader()
        clips = await rig.clips(reader)
        assert set(clips) == {b"a.mp4", b"d/loop/a.mp4"}
        for number, file in enumerate(clips.values()):
            await reader.acquire(rig.id(number), file)
            assert rig.opened(rig.id(number)) == b"the only clip"
    finally:
        subprocess.run(["umount", "-l", rig.camera / "d" / "loop"], check=True)


async def test_a_camera_that_left_is_never_listed_as_empty(memory_rig):
    rig = memory_rig
    rig.file("a.mp4")
    reader = await rig.reader()
    rig.camera.rename(rig.directory / "away")
    with pytest.raises(CameraGone):
        await rig.listing(reader)


async def test_p04_listing_and_reading_leave_no_trace_on_the_camera(rig):
    rig.file("DCIM/a.mp4", b"x" * 100_000)

    def state():
        paths = [rig.camera, *sorted(rig.camera.rglob("*"))]
        return [
            (p, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_atime_ns) for p in paths for s in [p.stat()]
        ]

    old = 1_000_000_000
    for path in (rig.camera / "DCIM", rig.camera / "DCIM" / "a.mp4"):
        os.utime(path, (old, old))
    before = state()
    reader = await rig.reader()
    file = await rig.clip(reader)
    await reader.acquire(rig.id(1), file)
    await reader.reread(rig.id(1), file)
    after = state()
    assert [entry[:5] for entry in after] == [entry[:5] for entry in before]
    assert after[-1] == before[-1]
