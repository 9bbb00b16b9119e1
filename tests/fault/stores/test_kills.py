"""A clip pushed to SeaweedFS's S3 port by a program that is killed ten times: it arrives once, byte by byte."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from fault.network.proxy import Proxy, Rule
from servers.buckets import STATION, adapter, make_bucket

from dockd.core.objects import Piece

PUSHER = Path(__file__).with_name("pusher.py")
SEED = 20261121
PART = 16 << 20
KILLS = 10
SIZE = (1 << 30 if os.environ.get("DOCKD_LARGE") == "1" else 256 << 20) + 12_345
ACQUISITION = "019c16f2-0000-7000-8000-000000000003"
WAIT_S = 300


@pytest.fixture
def proxy(seaweed):
    made = Proxy(target=("127.0.0.1", int(seaweed.s3_url.rpartition(":")[2])))
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def store(seaweed):
    async with contextlib.aclosing(adapter(seaweed, "kills")) as made:
        await make_bucket(made)
        yield made


def _spool(path, chance):
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for at in range(0, SIZE, 1 << 20):
            block = chance.randbytes(min(1 << 20, SIZE - at))
            file.write(block)
            digest.update(block)
    return digest.digest()


class Reached:
    """Stops a part at a byte, and says so; the part never gets further."""

    def __init__(self, count):
        self._count = count
        self.event = threading.Event()

    async def __call__(self, exchange):
        await exchange.pass_on(self._count)
        self.event.set()
        while await exchange.reader.read(1 << 16):
            pass  # what the killed program has left in its socket


def _pieces_put(seen):
    """The parts that were begun, and how many bytes of each went on to the server."""
    found = []
    for method, path, size in seen:
        if method == "PUT" and (number := re.search(r"partNumber=(\d+)", path)):
            found.append((int(number.group(1)), size))
    return found


@pytest.mark.servers
@pytest.mark.timeout(900)
async def test_a_clip_pushed_by_a_program_that_is_killed_arrives_once(seaweed, proxy, store, tmp_path):
    chance = random.Random(SEED)
    spool = tmp_path / "clip.age"
    whole = _spool(spool, chance)
    given = {
        "url": f"http://127.0.0.1:{proxy.port}",
        "bucket": "kills",
        "access_key": seaweed.access_key,
        "secret_key": seaweed.secret_key,
        "station": STATION,
        "acquisition": ACQUISITION,
        "part_bytes": PART,
        "spool": str(spool),
        "journal": str(tmp_path / "journal"),
        "result": str(tmp_path / "result"),
        "manifest": '{"a": "manifest"}',
        "signature": "a signature",
    }

    def start():
        program = subprocess.Popen([sys.executable, str(PUSHER)], stdin=subprocess.PIPE, text=True)
        program.stdin.write(json.dumps(given))
        program.stdin.close()
        return program

    count = -(-SIZE // PART)
    stops = sorted(chance.sample(range(1, count + 1), KILLS))
    for number in stops:
        length = min(PART, SIZE - (number - 1) * PART)
        reached = Reached(chance.randrange(length))
        proxy.rules[:] = [Rule(reached, "PUT", rf"partNumber={number}(&|$)", 1)]
        program = start()
        try:
            assert await asyncio.to_thread(reached.event.wait, WAIT_S), f"part {number} was not reached"
        finally:
            program.kill()
            await asyncio.to_thread(program.wait)
    program = start()
    try:
        assert await asyncio.to_thread(program.wait, WAIT_S) == 0
    finally:
        program.kill()
        program.wait()

    put = _pieces_put(proxy.seen)
    times = Counter(number for number, _ in put)
    assert set(times) == set(range(1, count + 1))
    assert {number for number, often in times.items() if often > 1} <= set(stops)
    assert max(times.values()) <= 2
    again = sum(size for _, size in put) - SIZE
    assert 0 <= again <= KILLS * PART
    objects = (tmp_path / "result").read_text()
    digest = hashlib.sha256()
    async for block in store.read(objects, Piece.SEALED, 0):
        digest.update(block)
    assert digest.digest() == whole
    assert [one async for one in store.bucket.unfinished("")] == []
    assert sum(method == "POST" and "uploads=" in path for method, path, _ in proxy.seen) == 1
