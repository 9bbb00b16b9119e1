"""The client against the real program, one for each connection, as systemd starts it."""

import asyncio
import os
import signal
import socket

import pytest

from dockd.blocker.messages import Answer, send
from dockd.devices.blocker import Blocker, DiscardUnsupported, VolumeAddress
from dockd.errors import CameraGone, CameraNotReady, CameraRefused, EraseFailed

PORT, SERIAL = "0000:00:09.0/8.2", "X012345"


def address(card, **changed):
    fields = {"device": card.device, "diskseq": card.diskseq, "port": PORT, "serial": SERIAL, "filesystem": "ext4"}
    return VolumeAddress(**fields | changed)


def close(descriptors):
    for fd in descriptors:
        os.close(fd)


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


async def ended(program):
    return await asyncio.to_thread(program.wait, 10)


async def test_a_volume_is_read_written_made_and_locked_when_the_connection_ends(card, blocker):
    path, started = blocker
    async with Blocker(path) as connection:
        close(await connection.read(address(card)))
        assert card.locked
        close(await connection.write(address(card)))
        assert not card.locked
        done = await connection.make(address(card), method="clear", like={"label": "CAM"})
        assert "zeros" in done
        root, block = await connection.read(address(card))
        assert os.get_inheritable(root) is os.get_inheritable(block) is False
        close((root, block))
        close(await connection.write(address(card)))
        assert not card.locked
    assert await ended(started[0]) == 0
    assert card.locked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_write_blocker_that_is_stopped_locks_first(card, blocker, number):
    path, started = blocker
    async with Blocker(path) as connection:
        close(await connection.write(address(card)))
        started[0].send_signal(number)
        assert await ended(started[0]) == 0
        assert card.locked
        with pytest.raises(EraseFailed, match="went away"):
            await connection.read(address(card))


async def test_a_killed_write_blocker_leaves_no_mount(card, blocker):
    path, started = blocker
    async with Blocker(path) as connection:
        close(await connection.read(address(card)))
        started[0].kill()
        await ended(started[0])
        with pytest.raises(CameraNotReady, match="went away"):
            await connection.read(address(card))
    async with Blocker(path) as connection:
        close(await connection.read(address(card)))


async def test_errors_come_as_what_the_station_knows(card, blocker):
    path, _ = blocker
    async with Blocker(path) as connection:
        with pytest.raises(CameraGone):
            await connection.read(address(card, diskseq=1))
    async with Blocker(path) as connection:
        with pytest.raises(CameraRefused, match="serial number"):
            await connection.read(address(card, serial="other"))
    async with Blocker(path) as connection:
        with pytest.raises(EraseFailed, match="stands at"):
            await connection.write(address(card, port="0000:00:09.0/1"))
    with pytest.raises(CameraNotReady, match=r"dockd-blocker\.socket"):
        await Blocker(path.parent / "nothing-here").open()
    with pytest.raises(CameraRefused, match="not connected"):
        await Blocker(path).read(address(card))


class Silent:
    """A write blocker that answers when it is told to, and with what."""

    def __init__(self, directory):
        self.path = directory / "socket"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.peer = None

    async def asked(self):
        self.peer = (await asyncio.to_thread(self.listener.accept))[0]
        return await asyncio.to_thread(self.peer.recv, 1 << 16)

    def close(self):
        self.listener.close()
        if self.peer is not None:
            self.peer.close()


@pytest.fixture
def silent(tmp_path):
    made = Silent(tmp_path)
    yield made
    made.close()


VOLUME = VolumeAddress(device="sda1", diskseq=1, port="a/1", serial="X", filesystem="vfat")


async def test_a_cancelled_call_ends_the_connection_and_leaves_no_descriptor(silent, tmp_path):
    connection = Blocker(silent.path)
    await connection.open()
    asking = asyncio.create_task(connection.read(VOLUME))
    assert b'"read"' in await silent.asked()
    before = open_descriptors()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert open_descriptors() == before - 1
    assert silent.peer.recv(1) == b""
    await connection.aclose()


@pytest.mark.parametrize(
    ("answer", "descriptors", "error"),
    [
        (Answer(ok=True, read_only=True), 1, CameraRefused),
        (Answer(ok=True, read_only=False), 2, CameraRefused),
        (Answer(ok=False, error="io", message="no"), 2, CameraRefused),
        (Answer(ok=False, error="busy", message="no"), 0, CameraNotReady),
        (Answer(ok=False, error="discard_unsupported", message="no"), 0, DiscardUnsupported),
        (Answer(ok=False, error="odd", message="no"), 1, CameraRefused),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for_leaves_no_descriptor(silent, answer, descriptors, error):
    async with Blocker(silent.path) as connection:
        asking = asyncio.create_task(connection.read(VOLUME))
        await silent.asked()
        before = open_descriptors()
        null = [os.open(os.devnull, os.O_RDONLY) for _ in range(descriptors)]
        send(silent.peer, answer, tuple(null))
        close(null)
        with pytest.raises(error):
            await asking
        assert open_descriptors() in (before, before - 1)
