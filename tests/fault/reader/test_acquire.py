"""Acquiring and rereading clips that change, vanish, hang together, or hide."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from dockd.errors import CameraGone, ClipBusy, ClipChanged, ClipGone, ClipRefused, ReaderDied, SpoolFull
from dockd.model import CacheState, VerdictStatus

MIB = 1024 * 1024
SIZES = [0, 1, 65535, 65536, 65537, 131072, MIB - 1, MIB, MIB + 1, 3 * MIB + 4097]


def sparse(rig, name, size):
    path = rig.file(name, b"")
    os.truncate(path, size)
    return path


def incoming(rig):
    return sorted(entry.name for entry in rig.incoming.iterdir())


@pytest.mark.parametrize("block_bytes", [256 * 1024, MIB, 4 * MIB])
async def test_sealed_clips_open_to_what_was_read(memory_rig, block_bytes):
    rig = memory_rig
    contents = [os.urandom(size) for size in SIZES]
    for size, content in zip(SIZES, contents, strict=True):
        rig.file(f"{size}.mp4", content)
    reader = await rig.reader(rules=rig.rules(block_bytes=block_bytes))
    found = await rig.clips(reader)
    for number, (size, content) in enumerate(zip(SIZES, contents, strict=True)):
        sealed = await reader.acquire(rig.id(number), found[b"%d.mp4" % size])
        assert rig.opened(rig.id(number)) == content
        raw = (rig.incoming / f"{rig.id(number)}.age").read_bytes()
        assert sealed.plaintext_digest == rig.digest(content)
        assert sealed.plaintext_size_bytes == size
        assert (sealed.sealed_digest, sealed.sealed_size_bytes) == (rig.digest(raw), len(raw))
        assert sealed.recipients == tuple(key.recipient.fingerprint for key in rig.keys)
        again = await reader.reread(rig.id(number), found[b"%d.mp4" % size])
        assert again.plaintext_digest == rig.digest(content)
    assert len(incoming(rig)) == len(SIZES)


async def test_p03_no_plaintext_and_no_key_leave_the_reader(rig):
    secret = b"THE-PLAINTEXT-OF-THIS-CLIP" * 200
    rig.file("a.mp4", secret)
    reader = await rig.reader()
    await reader.acquire(rig.id(1), await rig.clip(reader))
    sealed = (rig.incoming / f"{rig.id(1)}.age").read_bytes()
    assert b"THE-PLAINTEXT" not in sealed
    limits = Path(f"/proc/{reader.pid}/limits").read_text()
    assert re.search(r"Max core file size\s+0\s+0", limits)
    arguments = Path(f"/proc/{reader.pid}/cmdline").read_bytes()
    assert b"dockd.reader.forkserver" in arguments
    if os.geteuid() != 0:  # not even the user it runs as may look into it
        with pytest.raises(PermissionError):
            list(Path(f"/proc/{reader.pid}/fd").iterdir())
        return
    targets = []
    for entry in Path(f"/proc/{reader.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            targets.append((int(entry.name), str(entry.readlink())))
    beyond = sorted(target for number, target in targets if number > 2)
    assert beyond[:-1] == sorted(map(str, (rig.camera, rig.incoming)))
    assert beyond[-1].startswith("socket:")
    assert rig.server.unmet == {}, "it tried, and is not sealed off"


async def test_p03_the_reader_cannot_be_dumped_and_its_buffers_stay_out_of_swap(memory_rig):
    rig = memory_rig
    rig.file("a.mp4", b"x" * MIB)
    reader = await rig.reader()
    await reader.acquire(rig.id(1), await rig.clip(reader))
    status = Path(f"/proc/{reader.pid}/status").read_text()
    assert int(re.search(r"VmLck:\s+(\d+)", status)[1]) >= 1024
    assert "NoNewPrivs:\t1" in status


async def test_a_clip_that_is_being_written_is_busy_until_the_writer_closes(memory_rig):
    rig = memory_rig
    path = rig.file("a.mp4", b"first")
    reader = await rig.reader()
    file = await rig.clip(reader)
    with path.open("r+b"):
        with pytest.raises(ClipBusy):
            await reader.acquire(rig.id(1), file)
        with pytest.raises(ClipBusy):
            await reader.reread(rig.id(1), file)
    await reader.acquire(rig.id(1), file)
    assert rig.opened(rig.id(1)) == b"first"


@pytest.mark.parametrize("phase", ["acquire", "reread"])
async def test_a_writer_that_comes_while_a_clip_is_read_is_let_in_and_the_clip_is_busy(memory_rig, phase):
    rig = memory_rig
    path = sparse(rig, "a.mp4", 2048 * MIB)
    reader = await rig.reader()
    file = await rig.clip(reader)
    refused = []

    def write(*_):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except BlockingIOError as error:
            refused.append(error)

    rig.on_progress = write
    with pytest.raises(ClipBusy):
        await getattr(reader, phase)(rig.id(1), file)
    assert refused
    assert incoming(rig) == []
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path):
    os.truncate(path, 3)


def touch(path):
    os.utime(path, ns=(1, 1))


def replace(path):
    beside = path.with_suffix(".new")
    beside.write_bytes(path.read_bytes())
    os.utime(beside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    beside.rename(path)


@pytest.mark.parametrize("change", [grow, shrink, touch, replace])
async def test_a_clip_that_is_not_the_one_that_was_listed_is_changed(memory_rig, change):
    rig = memory_rig
    path = rig.file("a.mp4", b"content")
    reader = await rig.reader()
    file = await rig.clip(reader)
    change(path)
    with pytest.raises(ClipChanged):
        await reader.acquire(rig.id(1), file)
    with pytest.raises(ClipChanged):
        await reader.reread(rig.id(1), file)
    assert incoming(rig) == []
    await reader.acquire(rig.id(1), await rig.clip(reader))


def unlink(path):
    path.unlink()


def rename_over(path):
    replacement = path.with_suffix(".new")
    replacement.write_bytes(b"other")
    replacement.rename(path)


@pytest.mark.parametrize("change", [touch, unlink, rename_over])
async def test_a_clip_that_changes_while_it_is_read_is_not_sealed(memory_rig, change):
    rig = memory_rig
    path = sparse(rig, "a.mp4", 1024 * MIB)
    reader = await rig.reader()
    file = await rig.clip(reader)
    calls = iter([change])
    rig.on_progress = lambda *_: next(calls, lambda _: None)(path)
    with pytest.raises(ClipChanged):
        await reader.acquire(rig.id(1), file)
    assert incoming(rig) == []


@pytest.mark.parametrize("change", ["grow", "shrink"])
async def test_a_clip_cannot_grow_or_shrink_unseen_while_it_is_read(memory_rig, change):
    rig = memory_rig
    path = sparse(rig, "a.mp4", 1024 * MIB)
    reader = await rig.reader()
    file = await rig.clip(reader)
    changing = []

    def start(*_):
        if not changing:  # it waits for the lease: on a thread of its own
            changing.append(asyncio.create_task(asyncio.to_thread({"grow": grow, "shrink": shrink}[change], path)))

    rig.on_progress = start
    with pytest.raises((ClipBusy, ClipChanged)):
        await reader.acquire(rig.id(1), file)
    await changing[0]
    assert incoming(rig) == []


async def test_a_clip_that_was_renamed_or_removed_is_gone(memory_rig):
    rig = memory_rig
    path = rig.file("d/a.mp4")
    reader = await rig.reader()
    file = await rig.clip(reader)
    path.rename(rig.camera / "b.mp4")
    with pytest.raises(ClipGone):
        await reader.acquire(rig.id(1), file)
    path.parent.rmdir()
    with pytest.raises(ClipGone):
        await reader.acquire(rig.id(1), file)


async def test_a_file_with_several_links_is_refused(memory_rig):
    rig = memory_rig
    path = rig.file("a.mp4")
    (rig.directory / "other-name").hardlink_to(path)
    reader = await rig.reader()
    file = await rig.clip(reader)
    assert file.links == 2
    with pytest.raises(ClipRefused, match="2 links"):
        await reader.acquire(rig.id(1), file)


async def test_p08_what_became_a_link_or_a_pipe_since_the_listing_is_not_opened(memory_rig, tmp_path):
    rig = memory_rig
    (tmp_path / "a.mp4").write_bytes(b"secret!")
    rig.file("d/a.mp4", b"content")
    rig.file("d/p.mp4", b"content")
    reader = await rig.reader()
    found = await rig.clips(reader)
    (rig.camera / "d" / "p.mp4").unlink()
    os.mkfifo(rig.camera / "d" / "p.mp4")
    with pytest.raises(ClipRefused, match="not a regular file"):
        await reader.acquire(rig.id(1), found[b"d/p.mp4"])
    (rig.camera / "d").rename(rig.camera / "moved")
    (rig.camera / "d").symlink_to(tmp_path)
    with pytest.raises(ClipRefused):
        await reader.acquire(rig.id(1), found[b"d/a.mp4"])
    (rig.camera / "d").unlink()
    (rig.camera / "d").mkdir()
    (rig.camera / "d" / "a.mp4").symlink_to(tmp_path / "a.mp4")
    with pytest.raises(ClipRefused):
        await reader.acquire(rig.id(1), found[b"d/a.mp4"])
    assert incoming(rig) == []


async def test_a_camera_that_leaves_while_it_is_read_is_gone(memory_rig):
    rig = memory_rig
    sparse(rig, "a.mp4", 2048 * MIB)
    reader = await rig.reader()
    file = await rig.clip(reader)
    away = iter([rig.directory / "away"])
    rig.on_progress = lambda *_: [rig.camera.rename(place) for place in away]
    with pytest.raises(CameraGone):
        await reader.acquire(rig.id(1), file)
    assert incoming(rig) == []
    with pytest.raises(CameraGone):
        await reader.acquire(rig.id(1), file)
    (rig.directory / "away").rename(rig.camera)


async def test_p06_a_parsers_exception_is_a_verdict_and_the_clip_is_preserved(memory_rig):
    rig = memory_rig
    rig.faults = "raise@structure:bad.mp4"
    rig.file("bad.mp4", b"hostile" * 1000)
    reader = await rig.reader()
    sealed = await reader.acquire(rig.id(1), await rig.clip(reader))
    assert sealed.verdict.status is VerdictStatus.DAMAGED
    assert sealed.verdict.reasons == ("the structure check failed: RuntimeError: a fault was asked for",)
    assert rig.opened(rig.id(1)) == b"hostile" * 1000


async def test_p06_an_unreadable_range_stands_as_zeros_and_is_named(memory_rig):
    rig = memory_rig
    rig.faults = "eio@read:a.mp4:1050000-1060000 eio@read:a.mp4:2097152-2097153"
    content = bytearray(os.urandom(2 * MIB + 5))
    rig.file("a.mp4", content)
    reader = await rig.reader()
    file = await rig.clip(reader)
    sealed = await reader.acquire(rig.id(1), file)
    first, end = 1050000 // 4096 * 4096, -(-1060000 // 4096) * 4096
    content[first:end] = bytes(end - first)
    content[2097152:] = bytes(5)
    assert rig.opened(rig.id(1)) == content
    assert sealed.verdict.status is VerdictStatus.DAMAGED
    assert sealed.verdict.reasons[0] == (
        f"{end - first + 5} bytes could not be read and stand as zeros: bytes {first} to {end - 1}, 2097152 to 2097156"
    )
    assert (await reader.reread(rig.id(1), file)).plaintext_digest == rig.digest(content)


async def test_a_clip_of_which_nothing_can_be_read_is_refused_in_the_end(memory_rig):
    rig = memory_rig
    rig.faults = "eio@read"
    sparse(rig, "a.mp4", 64 * MIB)
    reader = await rig.reader()
    with pytest.raises(ClipRefused, match="have the camera's memory examined"):
        await reader.acquire(rig.id(1), await rig.clip(reader))
    assert incoming(rig) == []


async def test_p02_a_full_spool_leaves_nothing_behind_and_the_reader_goes_on(memory_rig):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    rig = memory_rig
    rig.file("big.mp4", os.urandom(3 * MIB))
    rig.file("small.mp4", b"small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", rig.incoming], check=True)
    try:
        reader = await rig.reader()
        found = await rig.clips(reader)
        with pytest.raises(SpoolFull):
            await reader.acquire(rig.id(1), found[b"big.mp4"])
        assert incoming(rig) == []
        await reader.acquire(rig.id(2), found[b"small.mp4"])
        assert incoming(rig) == [f"{rig.id(2)}.age"]
        await rig.aclose()
        rig.descriptors, rig.readers, rig.server = [], [], None
    finally:
        subprocess.run(["umount", "-l", rig.incoming], check=True)


async def test_p02_a_spool_directory_that_is_gone_is_said_to_be_unusable(memory_rig):
    rig = memory_rig
    rig.file("a.mp4")
    reader = await rig.reader()
    file = await rig.clip(reader)
    rig.incoming.rmdir()
    with pytest.raises(SpoolFull):
        await reader.acquire(rig.id(1), file)


@pytest.mark.parametrize("point", ["structure", "read", "acquire.written", "acquire.finished"])
async def test_p02_a_reader_killed_at_any_point_leaves_files_in_incoming_alone(memory_rig, point):
    rig = memory_rig
    rig.faults = f"kill@{point}:bad"
    rig.file("bad.mp4", os.urandom(3 * MIB))
    rig.file("good.mp4", b"good")
    before = {path: path.stat().st_ctime_ns for path in rig.camera.rglob("*")}
    reader = await rig.reader()
    found = await rig.clips(reader)
    with pytest.raises(ReaderDied, match="SIGKILL"):
        await reader.acquire(rig.id(1), found[b"bad.mp4"])
    assert {path: path.stat().st_ctime_ns for path in rig.camera.rglob("*")} == before
    left = incoming(rig)
    assert left == ([f"{rig.id(1)}.age"] if point == "acquire.finished" else [f"{rig.id(1)}.part"])
    again = await rig.reader(epoch=2)
    await again.acquire(rig.id(2), found[b"good.mp4"])
    assert rig.opened(rig.id(2)) == b"good"


async def test_p02_a_reader_killed_while_it_reads_leaves_a_part_that_the_next_try_replaces(memory_rig):
    rig = memory_rig
    sparse(rig, "a.mp4", 512 * MIB)
    reader = await rig.reader()
    file = await rig.clip(reader)
    killed = []

    def kill(*_):
        if not killed:
            killed.append(asyncio.ensure_future(reader.kill()))

    rig.on_progress = kill
    with pytest.raises(ReaderDied):
        await reader.acquire(rig.id(1), file)
    assert incoming(rig) in ([f"{rig.id(1)}.part"], [])
    rig.on_progress = None
    again = await rig.reader(epoch=2)
    await again.acquire(rig.id(1), file)
    assert incoming(rig) == [f"{rig.id(1)}.age"]


async def test_p02_killed_at_any_moment_a_reader_leaves_the_camera_as_it_was(memory_rig):
    rig = memory_rig
    rig.file("a.mp4", os.urandom(48 * MIB))
    before = [(path, path.stat().st_ctime_ns, path.stat().st_size) for path in sorted(rig.camera.rglob("*"))]
    moments = random.Random(20260101)
    for epoch in range(1, 13):
        reader = await rig.reader(epoch=epoch)
        file = await rig.clip(reader)
        asyncio.get_running_loop().call_later(moments.uniform(0, 0.12), os.kill, reader.pid, signal.SIGKILL)
        with suppress(ReaderDied):
            while True:
                await reader.acquire(rig.id(epoch), file)
        assert await reader.ended == "was killed by SIGKILL"
        assert set(incoming(rig)) <= {f"{rig.id(epoch)}.part", f"{rig.id(epoch)}.age"}
        for entry in rig.incoming.iterdir():
            entry.unlink()
    assert [(path, path.stat().st_ctime_ns, path.stat().st_size) for path in sorted(rig.camera.rglob("*"))] == before
    assert {entry.name for entry in rig.directory.iterdir()} == {"bay", "incoming"}


async def test_p10_a_big_sparse_clip_is_read_in_bounded_memory(memory_rig):
    rig = memory_rig
    sparse(rig, "a.mp4", 1024 * MIB)
    reader = await rig.reader()
    file = await rig.clip(reader)
    seen = []

    def measure(*_):
        if not reader.ended.done():
            seen.append(rig.memory_kib(reader))

    rig.on_progress = measure
    sealed = await reader.acquire(rig.id(1), file)
    assert sealed.plaintext_size_bytes == 1024 * MIB
    assert len(seen) > 1
    assert max(seen) < 40 * 1024
    phases = [report[1:] for report in rig.progress]
    assert phases[-1] == ("acquire", 1024 * MIB, 1024 * MIB)
    assert [done for _, done, _ in phases] == sorted(done for _, done, _ in phases)


# --- the second read


async def test_a_second_read_on_a_file_system_in_memory_says_cached(memory_rig):
    rig = memory_rig
    rig.file("a.mp4", b"x" * 10_000)
    reader = await rig.reader()
    assert (await reader.reread(rig.id(1), await rig.clip(reader))).cache is CacheState.CACHED


async def test_a_second_read_on_a_medium_goes_around_the_page_cache(rig):
    rig.file("a.mp4", content := os.urandom(5 * MIB + 77))
    rig.file("empty.mp4", b"")
    reader = await rig.reader()
    found = await rig.clips(reader)
    again = await reader.reread(rig.id(1), found[b"a.mp4"])
    assert again.plaintext_digest == rig.digest(content)
    kind = subprocess.run(["stat", "-f", "-c", "%T", rig.camera], check=True, capture_output=True).stdout.strip()
    wanted = {CacheState.CACHED} if kind == b"tmpfs" else {CacheState.DIRECT, CacheState.DROPPED}
    assert again.cache in wanted
    assert (await reader.reread(rig.id(2), found[b"empty.mp4"])).plaintext_digest == rig.digest(b"")


async def test_a_file_system_that_will_not_read_directly_after_all_says_dropped(rig):
    rig.faults = "einval@read.direct"
    rig.file("a.mp4", content := os.urandom(5 * MIB + 77))
    reader = await rig.reader()
    again = await reader.reread(rig.id(1), await rig.clip(reader))
    assert again.plaintext_digest == rig.digest(content)
    kind = subprocess.run(["stat", "-f", "-c", "%T", rig.camera], check=True, capture_output=True).stdout.strip()
    assert again.cache is (CacheState.CACHED if kind == b"tmpfs" else CacheState.DROPPED)


async def test_a_second_read_sees_bytes_that_changed_under_the_same_time(memory_rig):
    rig = memory_rig
    path = rig.file("a.mp4", b"original")
    reader = await rig.reader()
    file = await rig.clip(reader)
    sealed = await reader.acquire(rig.id(1), file)
    path.write_bytes(b"0riginal")
    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
    again = await reader.reread(rig.id(1), file)
    assert again.plaintext_digest != sealed.plaintext_digest
