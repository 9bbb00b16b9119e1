"""A long clip, pushed by lives that are killed: it arrives once, byte for byte, and little of it is sent twice.

256 MiB by default; `DOCKD_KILLED_MIB=1024` for the length that the promise is made for.
"""

import contextlib
import hashlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from contract.evidence import MachineClock
from contract.stores.cases import ProxyFaults, proxy_before

from dockd.core.objects import Piece
from dockd.core.transfer import Call
from dockd.stores.header_file import HeaderFile
from dockd.stores.tus_store import TusStore

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

MIB = 1024 * 1024
SIZE = int(os.environ.get("DOCKD_KILLED_MIB", "256")) * MIB
PIECE = 8 * MIB
KILLS = 10

_LIFE = """
import asyncio, json, secrets, sys
from datetime import UTC, datetime
from pathlib import Path
from dockd.errors import OffsetConflict, StoreBusy, StoreUnreachable
from dockd.model import SignedBytes
from dockd.stores.header_file import HeaderFile
from dockd.stores.tus_store import TusStore

class Clock:
    def now(self): return datetime.now(UTC)
    def monotonic_s(self): return asyncio.get_running_loop().time()
    async def sleep(self, delay_s): await asyncio.sleep(delay_s)

def say(*words):
    print(json.dumps(words), flush=True)

async def blocks(path, offset, length):
    with path.open("rb") as file:
        file.seek(offset)
        end = offset + length
        while offset < end:
            block = file.read(min(1 << 20, end - offset))
            yield block
            offset += len(block)
            say("sent", offset)

async def push(given):
    path, size = Path(given["file"]), given["size"]
    manifest = SignedBytes(payload=b"a manifest", signature="a signature")
    store = TusStore(
        name="tus", url=given["url"], clock=Clock(), random=secrets.token_bytes, insecure_loopback=True,
        authorization=HeaderFile(Path(given["authorization"])),
    )
    url = given["upload"] or await store.register(given["acquisition"], manifest, size)
    say("upload", url)
    while True:
        try:
            offset = await store.offset(url)
            say("stands", offset)
            while offset < size:
                length = store.stretch(url, offset, min(given["piece"], size - offset))
                offset = await store.append(url, offset, blocks(path, offset, length), length)
            say("objects", await store.finish(url, given["acquisition"], manifest))
            break
        except (OffsetConflict, StoreBusy, StoreUnreachable):
            await asyncio.sleep(0.2)
    await store.aclose()

asyncio.run(push(json.loads(sys.stdin.readline())))
"""


def _life(given, kill_at):
    """One life, killed once it handed over byte `kill_at`; what it said by then."""
    said = {}
    with subprocess.Popen(
        [sys.executable, "-c", _LIFE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as life:
        try:
            life.stdin.write(json.dumps(given) + "\n")
            life.stdin.flush()
            for line in life.stdout:
                word, value = json.loads(line)
                said[word] = value
                if word == "sent" and kill_at is not None and value >= kill_at:
                    break
        finally:
            if kill_at is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(life.pid, signal.SIGKILL)
        life.wait(60)
    return said


async def test_p02_a_clip_whose_lives_are_killed_arrives_once(tus_server, tmp_path):
    file, authorization = tmp_path / "clip.age", tmp_path / "authorization"
    authorization.write_text(f"Bearer {tus_server.token}")
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for _ in range(SIZE // MIB):
            block = secrets.token_bytes(MIB)
            digest.update(block)
            out.write(block)
    proxy, url = proxy_before(tus_server.url, believes=tus_server.ca_file)
    seed = secrets.randbits(32)
    print("seed", seed)  # noqa: T201  to repeat a failure
    chosen = random.Random(seed)
    before = set(tus_server.files.iterdir()) if tus_server.files.exists() else set()
    given = {
        "file": str(file),
        "size": SIZE,
        "url": url,
        "authorization": str(authorization),
        "acquisition": "0190a5c0-0000-7000-8000-000000000001",
        "piece": PIECE,
        "upload": None,
    }
    try:
        for number in range(KILLS):
            said = _life(given, SIZE * (number + 1) // (KILLS + 1) + chosen.randrange(PIECE))
            assert "objects" not in said, "it ended before it was killed"
            given["upload"] = said["upload"]  # as the journal keeps it
        said = _life(given, None)
        store = TusStore(
            name="tus",
            url=url,
            clock=MachineClock(),
            random=secrets.token_bytes,
            insecure_loopback=True,
            authorization=HeaderFile(authorization),
        )
        states = await store.look(said["objects"])
        assert states[Piece.SEALED].size_bytes == SIZE
        back = hashlib.sha256()
        async with contextlib.aclosing(store.read(said["objects"], Piece.SEALED, 0)) as blocks:
            async for block in blocks:
                back.update(block)
        await store.aclose()
        assert back.digest() == digest.digest()
        sent = ProxyFaults(proxy, {Call.APPEND: ("PATCH", "/files/")}).count(Call.APPEND)
        print("sent twice, MiB", (sent - SIZE) / MIB)  # noqa: T201  the figure for the record
        assert SIZE <= sent <= SIZE + KILLS * PIECE + 64 * 1024
        made = [path for path in set(tus_server.files.iterdir()) - before if path.stat().st_size == SIZE]
        assert len(made) == 1
    finally:
        proxy.stop()
        for path in set(tus_server.files.iterdir()) - before:
            Path(path).unlink()
