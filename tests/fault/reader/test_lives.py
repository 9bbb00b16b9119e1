"""How readers and their server live and end: on their own, by the daemon, by each other's faults."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dockd.errors import CameraGone, ReaderDied
from dockd.model import Epoch, Medium, MediumKind, Volume
from dockd.reader import messages
from dockd.reader.client import ForkServer, Reader
from dockd.reader.server import Started

PATIENCE_S = 20


def folder(fd):
    return Medium(kind=MediumKind.FOLDER, volumes=(Volume(name="", filesystem="folder", volume_id="x", root_fd=fd),))


async def ended(reader):
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.shield(reader.ended)


def wait_for_end(pid):
    """Until a program that is not our child is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], PATIENCE_S)[0], f"{pid} still lives"
    finally:
        os.close(pidfd)


async def test_a_reader_ends_when_the_daemon_closes_its_socket(memory_rig):
    reader = await memory_rig.reader()
    reader._channel.close()
    assert await ended(reader) == "ended with status 0"


async def test_p09_closing_ends_a_reader_in_the_middle_of_a_clip(memory_rig):
    rig = memory_rig
    os.truncate(rig.file("a.mp4", b""), 4 << 30)
    reader = await rig.reader()
    file = await rig.clip(reader)
    begun = asyncio.Event()
    rig.on_progress = lambda *_: begun.set()
    task = asyncio.create_task(reader.acquire(rig.id(1), file))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ReaderDied, match="cut short"):
        await reader.acquire(rig.id(1), file)
    reader._channel.close()  # what `aclose` does first; on a busy machine it kills before the reader ends by itself
    assert await ended(reader) == "ended with status 0"
    assert list(rig.incoming.iterdir()) == []
    await reader.aclose()
    await reader.aclose()
    await reader.kill()


async def test_p09_a_hung_reader_is_killed_without_waiting_and_holds_up_no_other(memory_rig):
    rig = memory_rig
    rig.faults = "hang@read:hang"
    rig.file("hang.mp4")
    rig.file("good.mp4")
    hung = await rig.reader()
    clips = await rig.clips(hung)
    task = asyncio.create_task(hung.acquire(rig.id(1), clips[b"hang.mp4"]))
    good = await rig.reader(docking="01890000-0000-7000-8000-000000000002", epoch=2)
    await good.acquire(rig.id(2), clips[b"good.mp4"])
    assert not task.done()
    await hung.kill()
    with pytest.raises(ReaderDied):
        await task
    assert await ended(hung) == "was killed by SIGKILL"
    await hung.kill()
    assert b"good.mp4" in await rig.clips(good)


async def test_p09_one_poisoned_clip_beside_seven_good_bays(memory_rig):
    rig = memory_rig
    rig.faults = "kill@structure:poison"
    for number in range(8):
        rig.file("poison.mp4" if number == 3 else f"{number}.mp4", b"clip %d" % number * 50_000)
    readers = [await rig.reader(epoch=number) for number in range(8)]
    files = await rig.clips(readers[0])
    names = [b"poison.mp4" if number == 3 else b"%d.mp4" % number for number in range(8)]
    results = await asyncio.gather(
        *(reader.acquire(rig.id(number), files[names[number]]) for number, reader in enumerate(readers)),
        return_exceptions=True,
    )
    assert isinstance(results[3], ReaderDied)
    assert "SIGKILL" in str(results[3])
    for number, result in enumerate(results):
        if number != 3:
            assert result.plaintext_digest == rig.digest(b"clip %d" % number * 50_000)
            assert rig.opened(rig.id(number)) == b"clip %d" % number * 50_000
    assert rig.server.pid is not None


async def test_p09_the_server_dies_and_the_next_request_starts_another(memory_rig):
    rig = memory_rig
    rig.file("a.mp4")
    first = await rig.reader()
    before = rig.server.pid
    os.kill(before, signal.SIGKILL)
    assert await ended(first)
    with pytest.raises(ReaderDied):
        await rig.listing(first)
    second = await rig.reader(epoch=2)
    assert rig.server.pid not in (None, before)
    assert len(await rig.clips(second)) == 1
    wait_for_end(first.pid)


async def test_p02_signals_to_the_group_leave_readers_to_the_daemon(memory_rig):
    rig = memory_rig
    rig.file("a.mp4")
    reader = await rig.reader()
    assert os.getpgid(reader.pid) != os.getpgid(0)
    for pid in (rig.server.pid, reader.pid):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGIO):
            os.kill(pid, number)
    assert len(await rig.clips(reader)) == 1


async def test_closing_the_server_ends_it_and_every_reader(memory_rig):
    reader = await memory_rig.reader()
    server = memory_rig.server
    pid = server.pid
    await server.aclose()
    await server.aclose()
    assert server.pid is None
    assert not Path(f"/proc/{pid}").exists()
    assert await ended(reader)
    wait_for_end(reader.pid)


def test_p02_readers_end_with_a_daemon_that_was_killed(tmp_path):
    script = textwrap.dedent(
        """
        import asyncio, os, sys
        from dockd.model import CameraIdentity, Medium, MediumKind, Volume
        from dockd.core.sealing import Identity
        from dockd.reader.client import ClipRules, ForkServer

        async def main():
            server = await ForkServer.start()
            root = os.open(sys.argv[1], os.O_RDONLY)
            reader = await server.reader(
                docking="01890000-0000-7000-8000-000000000001", epoch=1, bay=1, incoming_fd=root,
                medium=Medium(
                    kind=MediumKind.FOLDER,
                    volumes=(Volume(name="", filesystem="folder", volume_id="C", root_fd=root),),
                ),
                identity=CameraIdentity(serial="A", model="B", volume_id="C"),
                recipients=(Identity.generate(os.urandom).recipient.text,),
                rules=ClipRules(suffixes=(".mp4",), evidence_directories=(), max_depth=3, max_files=9,
                                block_bytes=1 << 20),
                on_progress=lambda *_: None,
            )
            os.write(1, f"{server.pid} {reader.pid}\\n".encode())
            await asyncio.Event().wait()

        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as daemon:
        pids = []
        while len(pids) < 2:  # the log may write lines of its own
            words = daemon.stdout.readline().split()
            pids = [int(word) for word in words] if len(words) == 2 and all(map(bytes.isdigit, words)) else []
        daemon.kill()
    for pid in pids:
        wait_for_end(pid)


# --- epochs and messages


async def test_p09_a_request_of_another_epoch_ends_the_reader(memory_rig):
    rig = memory_rig
    rig.file("a.mp4")
    reader = await rig.reader(epoch=5)
    reader._channel.send(messages.pack(Epoch(4), "list"))
    assert await ended(reader) == f"ended with status {os.EX_PROTOCOL}"
    with pytest.raises(ReaderDied):
        await rig.listing(reader)


@pytest.mark.parametrize(
    "message", [b"{}", b"\xff", b"x" * 65537, b'{"epoch":5,"kind":"format","type":"reader","v":1}']
)
async def test_p09_a_malformed_request_ends_the_reader(memory_rig, message):
    reader = await memory_rig.reader(epoch=5)
    reader._channel.send(message)
    assert await ended(reader) == f"ended with status {os.EX_PROTOCOL}"


@pytest.fixture
async def puppet():
    """A reader whose side of the socket the test plays."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asleep = subprocess.Popen(["sleep", "100"])
    pidfd = os.pidfd_open(asleep.pid)
    started = Started(pid=asleep.pid, pidfd=pidfd, ended=asyncio.get_running_loop().create_future())
    reader = Reader(ours, started, docking="d", epoch=Epoch(5), on_progress=lambda *_: None)
    yield reader, theirs
    await reader.kill()
    assert asleep.wait() == -signal.SIGKILL
    theirs.close()
    os.close(pidfd)


@pytest.mark.parametrize(
    "answer",
    [
        messages.pack(Epoch(4), "done"),
        messages.pack(Epoch(5), "entries", entries=5),
        messages.pack(Epoch(5), "entries", entries=[{}]),
        messages.pack(Epoch(5), "sealed"),
        messages.pack(Epoch(5), "progress", acquisition=3, phase="x", done="1", size="2"),
        b"x" * 65537,
        b"not json",
    ],
)
async def test_p09_a_late_or_malformed_answer_is_refused(puppet, answer):
    reader, theirs = puppet
    theirs.send(answer)
    with pytest.raises(ReaderDied):
        async for _ in reader.list():
            pass
    with pytest.raises(ReaderDied):
        async for _ in reader.list():
            pass


async def test_p09_an_answer_about_another_acquisition_is_refused(puppet, rig):
    reader, theirs = puppet
    theirs.send(messages.pack(Epoch(5), "sealed", acquisition=rig.id(2), sealed={}))
    rig.file("a.mp4")
    file = await rig.clip(await rig.reader())
    with pytest.raises(ReaderDied, match="another acquisition"):
        await reader.acquire(rig.id(1), file)


async def test_one_call_at_a_time(puppet):
    reader, _ = puppet
    first = asyncio.create_task(anext(reader.list()))
    await asyncio.sleep(0)
    with pytest.raises(ReaderDied, match="cut short"):
        await anext(reader.list())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_start_that_is_cancelled_leaves_no_reader(memory_rig):
    rig = memory_rig
    await rig.reader()
    children = Path(f"/proc/{rig.server.pid}/task/{rig.server.pid}/children")
    before = children.read_text().split()
    for turns in range(6):
        task = asyncio.create_task(rig.reader(epoch=2))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await rig.listing(await rig.reader(epoch=3))
    async with asyncio.timeout(PATIENCE_S):
        while len(children.read_text().split()) != len(before) + 1:
            await asyncio.sleep(0)


async def test_a_camera_that_left_before_its_reader_began_is_gone(memory_rig):
    rig = memory_rig
    fd = os.open(rig.camera, os.O_RDONLY)
    (rig.camera / "dockd-camera.toml").unlink()
    rig.camera.rmdir()
    server = await ForkServer.start()
    try:
        with pytest.raises(CameraGone):
            await server.reader(
                docking="01890000-0000-7000-8000-000000000001",
                epoch=Epoch(1),
                bay=1,
                medium=folder(fd),
                incoming_fd=fd,
                identity=rig.identity,
                recipients=(),
                rules=rig.rules(),
                on_progress=lambda *_: None,
            )
    finally:
        await server.aclose()
        os.close(fd)


async def test_a_recipient_that_is_none_ends_the_start_with_its_reason(memory_rig):
    rig = memory_rig
    rig.keys = ()
    reader = await rig.reader()
    rig.file("a.mp4")
    with pytest.raises(ReaderDied, match="ValueError"):
        await reader.acquire(rig.id(1), await rig.clip(reader))


async def test_p10_a_reader_is_small(memory_rig):
    rig = memory_rig
    rig.file("a.mp4", b"x" * 5_000_000)
    readers = [await rig.reader(epoch=number) for number in range(4)]
    file = await rig.clip(readers[0])
    for number, reader in enumerate(readers):
        await reader.acquire(rig.id(number), file)
    assert sum(rig.memory_kib(reader) for reader in readers) < 4 * 25 * 1024
