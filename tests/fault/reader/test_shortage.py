"""Short of descriptors, no reader can be started: that is no reader's death, and no camera's fault."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource

import pytest

from dockd.errors import ReaderNotStarted
from dockd.model import BayNumber, Epoch, Medium, MediumKind, Volume
from dockd.reader.client import ForkServer

SERVER_DESCRIPTORS = 4  # its socket, and three that lead nowhere; and one for each reader


@contextlib.contextmanager
def free_descriptors(count):
    """Leave this program so many."""
    taken = [os.open("/", os.O_RDONLY) for _ in range(count + 1)]
    limit = taken[-1]
    for fd in taken:
        os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limit_another(pid, free):
    """Leave another program so many, from the lowest number on: it may have descriptors with high ones. The limit."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    limit = [number for number in range(1024) if number not in taken][free]
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    return soft, hard


@pytest.fixture
def start(rig):
    """Start a reader of a server; what its request carries is open already."""
    camera_fd, incoming_fd = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (rig.camera, rig.incoming))
    rig.descriptors += [camera_fd, incoming_fd]
    volume = Volume(name="", filesystem="folder", volume_id=rig.identity.volume_id, root_fd=camera_fd)

    async def start(server, epoch=1):
        reader = await server.reader(
            docking="01890000-0000-7000-8000-000000000001",
            epoch=Epoch(epoch),
            bay=BayNumber(1),
            medium=Medium(kind=MediumKind.FOLDER, volumes=(volume,)),
            incoming_fd=incoming_fd,
            identity=rig.identity,
            recipients=(rig.keys[0].recipient.text,),
            rules=rig.rules(),
            on_progress=lambda *_: None,
        )
        rig.readers.append(reader)
        return reader

    return start


@pytest.mark.parametrize("free", range(4))
async def test_p09_a_fork_server_without_descriptors_starts_no_reader_and_lives_on(rig, start, free):
    rig.file("a.mp4")
    rig.server = server = await ForkServer.start()
    first = await start(server)
    pid = server.pid
    async with asyncio.timeout(20):
        while len(os.listdir(f"/proc/{pid}/fd")) != SERVER_DESCRIPTORS + 1:  # what came with the request is closed late
            await asyncio.sleep(0)
    before = limit_another(pid, free)
    for _ in range(3):
        with pytest.raises(ReaderNotStarted, match="no reader could be started"):
            await start(server, epoch=2)
    assert len(await rig.clips(first)) == 1, "the readers that there are go on"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert len(await rig.clips(await start(server, epoch=3))) == 1
    assert server.pid == pid


@pytest.mark.parametrize("free", range(3))
async def test_p09_a_daemon_without_descriptors_starts_no_reader(rig, start, free):
    rig.file("a.mp4")
    rig.server = server = await ForkServer.start()
    first = await start(server)
    with free_descriptors(free), pytest.raises(ReaderNotStarted, match="no reader could be started"):
        await start(server, epoch=2)
    assert len(await rig.clips(first)) == 1
    assert len(await rig.clips(await start(server, epoch=3))) == 1


async def test_p09_without_descriptors_no_fork_server_is_begun_and_none_is_left_over(rig, start):
    rig.file("a.mp4")
    rig.server = server = ForkServer(None, None)
    before = len(os.listdir("/proc/self/fd"))
    failures = 0
    for free in range(12):
        with free_descriptors(free), contextlib.suppress(ReaderNotStarted):
            await start(server)
            break
        failures += 1
        if server.pid is None:
            assert len(os.listdir("/proc/self/fd")) == before
    assert 1 < failures < 11
    assert len(await rig.clips(await start(server, epoch=2))) == 1
