"""What a peer without a token can hold open, keep in memory or go on with, and that stations do not notice."""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import replace
from ipaddress import ip_network

import pytest

from dockd.receiver.problems import Kind
from dockd.receiver.settings import Limits

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
ROOMY = {"peer_burst": 1e9}


@pytest.fixture
async def tight(receiver):
    """Start the receiver again with limits of the test's own."""

    async def start(**limits):
        await receiver.stop()
        await receiver.start(replace(receiver.settings, limits=Limits(**(ROOMY | limits))))
        return receiver

    return start


class Peer:
    """Connections of one address that say what they are told to, and nothing else."""

    def __init__(self, receiver, address="127.0.0.1"):
        self.receiver, self.address = receiver, address
        self._writers = []

    async def tcp(self, **more):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.receiver.port, local_addr=(self.address, 0), **more
        )
        self._writers.append(writer)
        return reader, writer

    async def tls(self):
        context = ssl.create_default_context(cafile=self.receiver.cert)
        return await self.tcp(ssl=context, server_hostname="127.0.0.1")

    async def close(self):
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.fixture
async def peers():
    made = []

    def make(*args):
        made.append(Peer(*args))
        return made[-1]

    yield make
    for peer in made:
        await peer.close()


async def ended(reader, within_s=10):
    """All that still came until the receiver ended the connection."""
    came = b""
    async with asyncio.timeout(within_s):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                came += piece
    return came


async def answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
    return head + await reader.readexactly(length)


# --- time


async def test_a_connection_without_a_first_byte_is_closed_and_costs_no_tls(tight, peers):
    receiver = await tight(first_byte_s=0.1, handshake_s=30)
    reader, _ = await peers(receiver).tcp()
    assert await ended(reader) == b""


async def test_a_handshake_that_stops_half_way_is_closed(tight, peers):
    receiver = await tight(first_byte_s=30, handshake_s=0.1)
    reader, writer = await peers(receiver).tcp()
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
    assert await ended(reader) == b""


async def test_what_is_no_tls_is_closed_at_once(receiver, peers):
    reader, writer = await peers(receiver).tcp()
    writer.write(HEALTH)
    assert HEALTH not in await ended(reader)


async def test_a_first_request_that_does_not_come_ends_the_connection(tight, peers):
    receiver = await tight(head_s=0.1, idle_s=30)
    reader, _ = await peers(receiver).tls()
    assert await ended(reader) == b""


async def test_a_head_that_trickles_ends_the_connection(tight, peers):
    receiver = await tight(head_s=0.3, idle_s=30)
    station = await receiver.station()
    reader, writer = await peers(receiver).tls()
    end = asyncio.create_task(ended(reader))
    for byte in HEALTH[:-4] + b"\r\nX-More: " + b"a" * 100_000:
        if end.done():
            break
        with contextlib.suppress(OSError):
            writer.write(bytes([byte]))
        assert (await station.http.get("/checkpoints")).status_code == 200  # a station goes on meanwhile
    assert end.done()
    assert await end == b""


async def test_an_idle_connection_is_closed_whatever_empty_lines_come(tight, peers):
    receiver = await tight(idle_s=0.2, head_s=30)
    for stray in (b"", b"\r\n"):
        reader, writer = await peers(receiver).tls()
        writer.write(HEALTH)
        assert b"200 OK" in await answer(reader)
        writer.write(stray)
        assert await ended(reader) == b""


async def test_a_body_that_goes_on_after_its_answer_is_dropped_for_so_long(tight, peers):
    receiver = await tight(drain_s=0.2, idle_s=30, head_s=30)
    reader, writer = await peers(receiver).tls()
    writer.write(b"POST /uploads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    assert b" 412 " in await answer(reader)
    end = asyncio.create_task(ended(reader))
    with contextlib.suppress(OSError):
        while not end.done():
            writer.write(b"1\r\na\r\n")
            await writer.drain()
            await asyncio.sleep(0)
    assert await end == b""


# --- memory


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"a" * 70_000,
        HEALTH[:-2] + b"X: " + b"a" * 70_000,
        HEALTH[:-2] + b"X" * 70_000,
        HEALTH[:-2] + b"".join(b"X-%d: a\r\n" % number for number in range(101)),
        b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 70_000,
        b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 70_000,
    ],
    ids=["line", "header", "name", "headers", "trailer", "chunk extension"],
)
async def test_a_head_or_framing_without_end_is_refused(receiver, peers, endless):
    reader, writer = await peers(receiver).tls()
    for start in range(0, len(endless), 16_000):  # in pieces, so that none of them is seen whole
        writer.write(endless[start : start + 16_000])
        with contextlib.suppress(OSError):
            await writer.drain()
    with contextlib.suppress(OSError):
        for _ in range(10):
            writer.write(b"a" * 16_000)
            await writer.drain()
    came = await ended(reader)  # long before it would be too late for a head
    assert came == b"" or b" 400 " in came  # where it is cut while it sends, a peer may not see why
    client = await receiver.connect()
    assert (await client.get("/health")).status_code == 200


async def test_a_few_requests_at_once_are_answered_and_many_end_the_connection(receiver, peers):
    reader, writer = await peers(receiver).tls()
    writer.write(HEALTH * 8)
    for _ in range(8):
        assert b"200 OK" in await answer(reader)
    writer.write(HEALTH * 5000)
    assert (await ended(reader)).count(b"200 OK") < 20


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /session HTTP/1.1\r\n", b" 413 "),
        (b"GET /health HTTP/1.1\r\n", b" 200 "),
        (b"PATCH /uploads/x HTTP/1.1\r\nTus-Resumable: 1.0.0\r\n", b" 401 "),
    ],
)
async def test_a_chunked_body_without_end_is_read_only_so_far(tight, peers, head, status):
    receiver = await tight(drain_bytes=1 << 20)
    reader, writer = await peers(receiver).tls()
    writer.write(head + b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    sent = 0
    with contextlib.suppress(OSError):
        async with asyncio.timeout(20):
            while True:
                writer.write(chunk)
                await writer.drain()
                sent += len(chunk)
    came = await ended(reader)
    assert came == b"" or status in came
    assert sent < 32 << 20  # what was dropped, and what fits into the sockets between


async def test_a_station_cannot_send_more_than_belongs_to_its_upload(receiver, station, peers):
    clip = station.clip()
    url = await station.announced(clip)
    reader, writer = await peers(receiver).tls()
    head = f"PATCH {url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {station.token}\r\nTus-Resumable: 1.0.0\r\n"
    head += "Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode() + b"10000\r\n" + clip.content[:0x10000] + b"\r\n")
    for _ in range(2):
        writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
    assert b" 422 " in await answer(reader)
    assert await station.offset(url) <= len(clip.content)
    assert (receiver.store / url.removeprefix("/")).stat().st_size <= len(clip.content)


# --- number


async def test_idle_connections_of_some_peers_keep_no_station_out(tight, peers):
    receiver = await tight(strangers=20, per_peer=8)
    held = [await peers(receiver, f"127.0.0.{2 + number % 5}").tcp() for number in range(100)]
    station = await receiver.station()
    await station.stored(station.clip())
    open_ = [one for one in held if not one[0].at_eof()]
    assert len(open_) <= 20


async def test_a_connection_with_a_session_stays_while_others_come_and_go(tight, peers):
    receiver = await tight(strangers=8, per_peer=4)
    station = await receiver.station()
    ask = f"GET /checkpoints HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {station.token}\r\n\r\n".encode()
    reader, writer = await peers(receiver).tls()
    for number in range(1, 30):
        writer.write(ask)
        assert b" 200 " in await answer(reader)
        await peers(receiver, f"127.0.1.{number}").tls()


async def test_closed_connections_give_their_places_back(tight, peers):
    receiver = await tight(connections=8, strangers=4, per_peer=4)
    for _ in range(10):
        peer = peers(receiver)
        reader, writer = await peer.tls()
        await peer.tcp()
        writer.write(HEALTH)
        assert b"200 OK" in await answer(reader)
        await peer.close()
    station = await receiver.station()
    assert (await station.http.get("/checkpoints")).status_code == 200


async def test_a_station_has_so_many_connections_and_another_one_its_own(tight, problem):
    receiver = await tight(per_station=2)
    station, other = await receiver.station(), await receiver.station()
    second, third = [await receiver.connect(dict(station.http.headers)) for _ in range(2)]
    assert (await second.get("/checkpoints")).status_code == 200
    refused = await third.get("/checkpoints")
    problem(refused, Kind.TOO_MANY)
    assert refused.headers["Retry-After"]
    assert refused.headers["Connection"] == "close"
    assert (await station.http.get("/checkpoints")).status_code == 200
    assert (await other.http.get("/checkpoints")).status_code == 200
    await second.aclose()
    async with asyncio.timeout(10):
        while (await third.get("/checkpoints")).status_code != 200:
            await asyncio.sleep(0)


async def test_a_flood_without_a_token_is_told_to_wait_and_no_station_is(tight, peers, problem):
    receiver = await tight(peer_burst=30, peer_per_s=0.001)
    station = await receiver.station()
    flood = peers(receiver, "127.0.0.2")
    reader, writer = await flood.tls()
    statuses = []
    for _ in range(40):
        writer.write(HEALTH)
        statuses.append((await answer(reader)).split(b" ")[1])
        if statuses[-1] == b"429":
            break
    assert statuses == [b"200"] * 29 + [b"429"]  # the connection was one
    assert await ended(reader) == b""
    with pytest.raises(OSError):  # noqa: PT011  reset, or an end of file in the handshake
        await flood.tls()
    assert (await station.http.get("/checkpoints")).status_code == 200
    await station.stored(station.clip())
    client = await receiver.connect()
    assert (await client.get("/health")).status_code == 200


async def test_a_trusted_proxy_brings_as_many_as_there_is_room_for(tight, peers):
    receiver = await tight(strangers=4, per_peer=2, peer_burst=1, proxies=(ip_network("127.0.0.9/32"),))
    proxy = peers(receiver, "127.0.0.9")
    held = [await proxy.tls() for _ in range(20)]
    for reader, writer in held:
        writer.write(HEALTH)
        assert b"200 OK" in await answer(reader)


async def test_a_connection_that_was_cut_by_its_peer_frees_the_listener(receiver):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset
    client = await receiver.connect()
    assert (await client.get("/health")).status_code == 200
