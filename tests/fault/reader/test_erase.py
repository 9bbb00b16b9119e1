"""Erasing: only under a warrant that this reader itself can confirm, and never half without a name for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockd.core.remnants import remnant_name
from dockd.errors import (
    CameraGone,
    ClipBusy,
    ClipChanged,
    ClipGone,
    ClipRefused,
    EraseFailed,
    ReaderDied,
    WarrantRefused,
)
from dockd.model import DockingId, FoundFile

CONTENT = b"the clip" * 300_000
POINTS = ["checked", "aside", "renamed", "overwritten", "truncated", "unlinked"]


async def confirmed(rig, name="d/a.mp4", content=CONTENT):
    """A clip that this reader read a second time, its record, and the warrant for it."""
    path = rig.file(name, content)
    reader = await rig.reader()
    file = (await rig.clips(reader))[name.encode()]
    again = await reader.reread(rig.id(1), file)
    return reader, path, file, rig.warrant(file, again.plaintext_digest)


def remnant_path(rig, directory="d"):
    return rig.camera / directory / remnant_name(rig.id(1)).decode()


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_001])
async def test_a_clip_is_erased_and_looked_for_again(rig, size):
    other = rig.file("d/other.txt", b"stays")
    reader, path, file, warrant = await confirmed(rig, content=os.urandom(size))
    erasure = await reader.erase(warrant, file)
    assert not path.exists()
    assert other.read_bytes() == b"stays"
    assert [entry.name for entry in path.parent.iterdir()] == ["other.txt"]
    assert (erasure.acquisition, erasure.method, erasure.overwritten_bytes) == (rig.id(1), "delete", size)
    assert "fresh listing" in erasure.checked
    assert await rig.clips(reader) == {}
    with pytest.raises(EraseFailed):
        await reader.erase(warrant, file)


async def test_the_blocks_of_a_clip_are_overwritten_before_they_are_freed(rig):
    rig.faults = "kill@erase.overwritten"
    reader, path, file, warrant = await confirmed(rig)
    with pytest.raises(ReaderDied):
        await reader.erase(warrant, file)
    assert not path.exists()
    assert remnant_path(rig).read_bytes() == bytes(len(CONTENT))


async def test_holes_of_a_sparse_clip_are_not_filled(memory_rig):
    rig = memory_rig
    path = rig.file("a.mp4", b"")
    with path.open("r+b") as file:
        file.seek(256 * 1024 * 1024)
        file.write(b"end")
    reader = await rig.reader()
    file = await rig.clip(reader)
    again = await reader.reread(rig.id(1), file)
    erasure = await reader.erase(rig.warrant(file, again.plaintext_digest), file)
    assert 3 <= erasure.overwritten_bytes <= 4 * 1024 * 1024


# --- refusals: the clip is untouched


async def refused(rig, reader, warrant, file, path, kind, match=None):  # noqa: PLR0917  the parts of one sentence
    with pytest.raises(kind, match=match):
        await reader.erase(warrant, file)
    assert path.read_bytes() == CONTENT
    assert not remnant_path(rig).exists()


async def test_p01_nothing_is_erased_that_this_reader_did_not_itself_read_again(memory_rig):
    rig = memory_rig
    first, path, file, warrant = await confirmed(rig)
    await first.kill()
    second = await rig.reader()
    await second.acquire(rig.id(1), file)
    await refused(rig, second, warrant, file, path, EraseFailed, "did not itself read")


@pytest.mark.parametrize("change", ["digest", "acquisition"])
async def test_p01_nothing_is_erased_under_a_warrant_for_other_bytes_or_another_acquisition(memory_rig, change):
    rig = memory_rig
    reader, path, file, _ = await confirmed(rig)
    digest = rig.digest(b"other" if change == "digest" else CONTENT)
    warrant = rig.warrant(file, digest, number=1 if change == "digest" else 2)
    await refused(rig, reader, warrant, file, path, EraseFailed, "did not itself read")


@pytest.mark.parametrize(
    "changes", [{"epoch": 2}, {"docking": DockingId("01890000-0000-7000-8000-000000000002")}], ids=["epoch", "docking"]
)
async def test_p01_a_warrant_of_another_docking_is_refused(memory_rig, changes):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    other = rig.warrant(file, warrant.plaintext_digest, **changes)
    await refused(rig, reader, other, file, path, EraseFailed, "another docking")


async def test_p01_a_file_that_differs_from_the_one_read_again_is_not_erased(memory_rig):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    os.utime(path, ns=(5, 5))
    await refused(rig, reader, warrant, file, path, ClipChanged)
    now = (await rig.clips(reader))[b"d/a.mp4"]
    other = rig.warrant(now, warrant.plaintext_digest)
    await refused(rig, reader, other, now, path, EraseFailed, "did not itself read")


async def test_p01_another_file_under_the_clips_name_is_not_erased(memory_rig):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    path.rename(path.with_suffix(".old"))
    path.write_bytes(CONTENT)
    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
    await refused(rig, reader, warrant, file, path, ClipChanged, "another inode")


async def touched(path, file, content):
    """As a program does that hides it: the same length, and the time of change set back."""
    with path.open("r+b") as clip:
        clip.write(content)
    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))


@pytest.mark.parametrize("content", [b"another clip!"[:8], CONTENT], ids=["other bytes", "the same bytes"])
@pytest.mark.parametrize("act", ["erase", "check"])
async def test_p01_a_clip_that_was_written_to_after_its_second_read_is_not_erased(memory_rig, content, act):
    """Only the change time, which no program can set, tells."""
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    await touched(path, file, content)
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (file.mtime_ns, file.size_bytes)
    before = path.read_bytes()
    with pytest.raises(ClipChanged, match="touched after its second read"):
        await (reader.erase(warrant, file) if act == "erase" else reader.check(warrant))
    assert path.read_bytes() == before
    assert not remnant_path(rig).exists()


async def test_p08_another_camera_in_its_place_is_not_erased(memory_rig):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    marker = rig.camera / "dockd-camera.toml"
    text = marker.read_text()
    marker.write_text(text.replace("CAM-1", "CAM-2"))
    await refused(rig, reader, warrant, file, path, EraseFailed, "another camera")
    marker.unlink()
    await refused(rig, reader, warrant, file, path, EraseFailed, "cannot say who it is")
    marker.write_text(text)
    await reader.erase(warrant, file)


async def test_p01_a_camera_that_left_its_bay_is_not_erased(memory_rig):
    rig = memory_rig
    reader, _, file, warrant = await confirmed(rig)
    rig.camera.rename(rig.directory / "away")
    with pytest.raises(CameraGone):
        await reader.erase(warrant, file)
    assert (rig.directory / "away" / "d" / "a.mp4").read_bytes() == CONTENT
    rig.camera.mkdir()
    with pytest.raises(CameraGone):
        await reader.erase(warrant, file)


@pytest.mark.parametrize("mode", ["rb", "r+b"])
async def test_a_clip_that_somebody_has_open_is_not_erased_until_it_is_closed(memory_rig, mode):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    with path.open(mode):
        await refused(rig, reader, warrant, file, path, ClipBusy)
    await reader.erase(warrant, file)
    assert not path.exists()


async def test_a_check_says_what_an_erasure_would_say_and_touches_nothing(memory_rig):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    before = path.stat()
    await reader.check(warrant)
    with path.open("rb"), pytest.raises(ClipBusy):
        await reader.check(warrant)
    with pytest.raises(EraseFailed, match="did not itself read"):
        await reader.check(rig.warrant(file, "sha256:" + "0" * 64))
    assert (path.stat().st_mtime_ns, path.stat().st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    path.chmod(0o640)
    with pytest.raises(ClipChanged, match="after its second read"):
        await reader.check(warrant)
    path.unlink()
    with pytest.raises(ClipGone):
        await reader.check(warrant)


async def test_a_clip_that_got_a_second_link_is_not_erased(memory_rig):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    (rig.directory / "second").hardlink_to(path)
    await refused(rig, reader, warrant, file, path, ClipRefused)


async def test_a_clip_that_is_gone_is_gone(memory_rig):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    path.unlink()
    with pytest.raises(ClipGone):
        await reader.erase(warrant, file)


async def test_a_file_that_bears_the_remnants_name_already_is_never_replaced(memory_rig):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    remnant_path(rig).write_bytes(b"whose?")
    with pytest.raises(EraseFailed, match="set aside"):
        await reader.erase(warrant, file)
    assert path.read_bytes() == CONTENT
    assert remnant_path(rig).read_bytes() == b"whose?"


async def test_an_error_before_the_first_byte_gives_the_clip_its_name_back(memory_rig):
    rig = memory_rig
    rig.faults = "eio@erase.aside"
    reader, path, file, warrant = await confirmed(rig)
    await refused(rig, reader, warrant, file, path, EraseFailed, "set aside")
    assert (await rig.clips(reader))[b"d/a.mp4"] == file


# --- cut short, and finished by another reader


@pytest.mark.parametrize("point", POINTS)
async def test_p02_an_erasure_killed_at_any_point_is_undone_or_can_be_finished(rig, point):
    rig.faults = f"kill@erase.{point}:d/a.mp4"
    reader, path, file, warrant = await confirmed(rig)
    with pytest.raises(ReaderDied, match="SIGKILL"):
        await reader.erase(warrant, file)
    left = [entry.name for entry in path.parent.iterdir()]
    if point == "checked":
        assert path.read_bytes() == CONTENT
        return
    if point == "unlinked":
        assert left == []
        return
    assert left == [remnant_path(rig).name]
    again = await rig.reader(epoch=2)
    assert await rig.clips(again) == {}
    (found,) = [e.file for e in await rig.listing(again) if e.file.path == b"d/" + remnant_name(rig.id(1))]
    assert found.inode == file.inode
    assert found.size_bytes in (0, file.size_bytes)
    resumed = rig.warrant(found, warrant.plaintext_digest, epoch=2, remnant=True)
    erasure = await again.erase(resumed, found)
    assert list(path.parent.iterdir()) == []
    assert erasure.overwritten_bytes == found.size_bytes


@pytest.mark.parametrize("point", ["renamed", "overwritten", "truncated", "unlinked"])
async def test_an_error_after_the_first_byte_ends_the_reader_and_leaves_the_remnant(memory_rig, point):
    rig = memory_rig
    rig.faults = f"eio@erase.{point}:d/a.mp4"
    reader, path, file, warrant = await confirmed(rig)
    with pytest.raises(ReaderDied, match="failed half-way"):
        await reader.erase(warrant, file)
    assert not path.exists()
    assert remnant_path(rig).exists() is (point != "unlinked")
    with pytest.raises(ReaderDied):
        await rig.listing(reader)


async def test_a_remnant_that_resists_stays_one(memory_rig):
    rig = memory_rig
    rig.faults = "eio@erase.truncated"
    reader, _, file, warrant = await confirmed(rig)
    with pytest.raises(ReaderDied):
        await reader.erase(warrant, file)
    again = await rig.reader(epoch=2)
    (found,) = [e.file for e in await rig.listing(again) if e.file.path.startswith(b"d/")]
    with pytest.raises(EraseFailed, match="half-way"):
        await again.erase(rig.warrant(found, warrant.plaintext_digest, epoch=2, remnant=True), found)
    assert remnant_path(rig).exists()


async def test_p01_only_the_acquisitions_own_remnant_needs_no_second_read(memory_rig):
    rig = memory_rig
    reader, path, file, warrant = await confirmed(rig)
    with pytest.raises(WarrantRefused, match="remnant that is none"):
        rig.warrant(file, warrant.plaintext_digest, remnant=True)
    with pytest.raises(WarrantRefused):
        rig.warrant(
            FoundFile(path=remnant_name(rig.id(2)), size_bytes=1, mtime_ns=1, inode=1),
            warrant.plaintext_digest,
            remnant=True,
        )
    assert Path(path).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="another file"):
        await reader.erase(warrant, FoundFile(path=b"x", size_bytes=1, mtime_ns=1, inode=1))
