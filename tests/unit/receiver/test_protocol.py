"""A peer that does not read what it asked for is cut off; one that reads again is not."""

import asyncio
from types import SimpleNamespace

import pytest
from uvicorn.server import ServerState

from dockd.receiver.connections import Connections
from dockd.receiver.protocol import PatientProtocol
from dockd.receiver.serve import _config
from dockd.receiver.settings import Limits


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.aborted = asyncio.Event()
        self.high = None

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def is_closing(self):
        return self.aborted.is_set()

    def close(self):
        self.aborted.set()

    def abort(self):
        self.aborted.set()


class Machine:
    def monotonic_s(self):
        return 1.0


@pytest.fixture
async def made():
    def make(**limits):
        config = _config(lambda *_: None, SimpleNamespace(limits=Limits(**limits)))
        connections = Connections(Limits(**limits), Machine())
        place = connections.admit("127.0.0.1")
        state = ServerState()
        return (
            PatientProtocol(config=config, state=state, limits=Limits(**limits), connections=connections, place=place),
            connections,
            place,
        )

    return make


async def test_a_peer_that_does_not_read_is_cut_off(made):
    protocol, connections, _ = made(answer_s=0.01, head_s=1000)
    transport = Transport()
    protocol.connection_made(transport)
    assert transport.high == 64 * 1024
    protocol.pause_writing()
    async with asyncio.timeout(10):
        await transport.aborted.wait()
    protocol.connection_lost(OSError())
    assert connections.open == 0


async def test_a_peer_that_reads_again_is_not(made):
    protocol, _, _ = made(answer_s=0.01, head_s=1000)
    transport = Transport()
    protocol.connection_made(transport)
    protocol.pause_writing()
    waiting = protocol._unread
    protocol.pause_writing()
    assert protocol._unread is waiting  # said again, it begins no new time
    protocol.resume_writing()
    assert waiting.cancelled()
    assert not transport.aborted.is_set()
    protocol.connection_lost(OSError())


async def test_a_connection_that_gave_way_during_its_handshake_is_cut_when_it_is_made(made):
    protocol, connections, place = made()
    connections.release(place)
    transport = Transport()
    protocol.connection_made(transport)
    assert transport.aborted.is_set()
    protocol.connection_lost(OSError())
    assert connections.open == 0
