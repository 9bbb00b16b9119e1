"""kill -9 of the receiver at any instant: the same requests, made again, end in the same place."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from dockd.core import receipts, sshsig
from dockd.receiver.catalogue import CatalogueError
from dockd.receiver.problems import Kind

STORE = "0190a5c0-0000-4000-8000-00000000000a"
TUS = {"Tus-Resumable": "1.0.0"}

_SERVE = """
import asyncio, json, secrets, sys
from pathlib import Path
from dockd.app.clock import MachineClock
from dockd.core.sshsig import SigningKey
from dockd.receiver.serve import serve
from dockd.receiver.settings import ReceiverSettings

given = json.loads(sys.argv[1])
settings = ReceiverSettings(
    directory=Path(given["directory"]), listen_host="127.0.0.1", listen_port=given["port"],
    tls_cert=Path(given["cert"]), tls_key=Path(given["tls_key"]), store=given["store"],
    key=SigningKey.parse(given["key"].encode()), public_hosts=frozenset({f"127.0.0.1:{given['port']}"}),
    allowed_recipients=frozenset(given["recipients"]),
)
ready = lambda text: print("ready", text, flush=True)
asyncio.run(serve(settings, clock=MachineClock(), random=secrets.token_bytes, ready=ready))
"""


class Program:
    """The receiver in a program of its own, for as long as it lives."""

    def __init__(self, receiver):
        settings = receiver.settings
        self._given = {
            "directory": str(settings.directory),
            "port": settings.listen_port,
            "cert": str(settings.tls_cert),
            "tls_key": str(settings.tls_key),
            "store": settings.store,
            "key": settings.key.private_pem().decode(),
            "recipients": sorted(settings.allowed_recipients),
        }
        self.running = None

    async def start(self, *before):
        """Start it; False where it died before it listened."""
        self.running = await asyncio.create_subprocess_exec(
            *before,
            sys.executable,
            "-c",
            _SERVE,
            json.dumps(self._given),
            stdout=asyncio.subprocess.PIPE,
            process_group=0,
        )
        async with asyncio.timeout(60):
            async for line in self.running.stdout:
                if line.startswith(b"ready"):
                    return True
        return False

    async def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)  # strace too, where it was started by that
        await self.running.wait()
        self.running._transport.close()


@pytest.fixture
async def program(receiver):
    """The receiver's settings, keys and directory, but run as a program."""
    await receiver.stop()
    program = Program(receiver)
    yield program
    if program.running is not None:
        await program.kill()


async def _port_is_free(port):
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
        return False
    return True


async def test_p02_kill_9_leaves_neither_child_nor_port_nor_lock(receiver, program):
    assert await program.start()
    children = f"/proc/{program.running.pid}/task/{program.running.pid}/children"
    assert not Path(children).read_text().split()
    await program.kill()
    assert await _port_is_free(receiver.port)
    assert await program.start()


async def test_p02_kill_9_in_a_patch_resumes_at_the_durable_offset(receiver, program):
    station = await receiver.station(session=False)
    assert await program.start()
    await station.log_in()
    clip = station.clip(40 << 20)
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[: 1 << 20])

    async def body():
        at = 1 << 20
        while True:
            yield clip.content[at : at + (1 << 18)]
            at += 1 << 18
            if at > 36 << 20 and await station.offset(url) > 32 << 20:  # a commit came in the middle of this PATCH
                await program.kill()

    with pytest.raises(httpx.TransportError):
        await station.patch(url, 1 << 20, body(), **{"Content-Length": str(len(clip.content) - (1 << 20))})
    assert await program.start()
    offset = await station.offset(url)  # the token is still good, too
    assert 32 << 20 < offset < len(clip.content)
    assert (await station.patch(url, offset, clip.content[offset:])).status_code == 204
    assert (await station.receipt(clip)).status_code == 200


async def _deliver(station, clip, seen):
    """What a station does, until the receipt; notes what it was told."""
    answer = await station.announce(clip)
    assert answer.status_code in (200, 201), answer.text
    url = answer.headers["Location"]
    assert seen.setdefault("url", url) == url
    for end in (1 << 20, len(clip.content)):
        offset = await station.offset(url)
        assert offset >= seen.get("offset", 0)
        if offset < end:
            answer = await station.patch(url, offset, clip.content[offset:end])
            assert answer.status_code == 204, answer.text
            offset = end
        seen["offset"] = offset
    answer = await station.receipt(clip)
    assert answer.status_code == 200, answer.text
    assert seen.setdefault("receipt", answer.content) == answer.content
    return sshsig.signed_from_json(answer.json())


_INSTANTS = [
    ("fsync", 1),
    ("fsync", 2),
    ("fsync", 3),
    ("fsync", 4),
    ("fsync", 6),
    ("rename", 1),
    ("rename", 2),
    ("rename", 3),
    ("fdatasync", 3),
    ("fdatasync", 5),
    ("fdatasync", 6),
    ("fdatasync", 7),
    ("fdatasync", 8),
    ("fdatasync", 9),
    ("ftruncate", 2),
    ("chmod,fchmod", 2),
]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: instants cannot be chosen")
@pytest.mark.parametrize(("call", "number"), _INSTANTS)
async def test_p02_kill_9_at_any_write_and_the_same_requests_succeed(receiver, program, call, number):
    station = await receiver.station(session=False)
    kill = (
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:signal=KILL:when={number}",
    )
    clips = [station.clip(2 << 20) for _ in range(2)]
    seen = [{}, {}]
    alive, deaths = await program.start(*kill), 0
    for _ in range(3):
        try:
            if alive:
                await station.log_in()
                signed = [await _deliver(station, clip, known) for clip, known in zip(clips, seen, strict=True)]
                break
        except httpx.TransportError:
            pass
        deaths += 1
        await program.kill()
        alive = await program.start()
    assert deaths == 1
    before = None
    for clip, one in zip(clips, signed, strict=True):
        verified = receipts.verify_receipt(
            one, store_key=receiver.key.public, store=STORE, station=station.id, manifest=clip.payload
        )
        receipts.check_succession(before, verified)
        before = verified
        directory = receiver.store / "acquisitions" / station.id / clip.acquisition
        assert (directory / "clip.age").read_bytes() == clip.content
        assert (directory / "receipt.json").read_bytes() == one.payload
        assert (directory / "receipt.json.sig").read_text() == one.signature
        assert (directory / "manifest.json").read_bytes() == clip.payload
        assert (await station.holding(clip)).status_code == 200
    assert not list((receiver.store / "uploads").iterdir())


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: errors cannot be injected")
@pytest.mark.parametrize(("error", "kind"), [("ENOSPC", Kind.DISK_FULL), ("EIO", Kind.INTERNAL)])
async def test_p02_a_disk_that_refuses_acknowledges_nothing(receiver, program, problem, error, kind):
    station = await receiver.station(session=False)
    # SQLite uses fdatasync: only clips, manifests and receipts are hit, after the first directory at start.
    inject = ("-e", "trace=fsync", "-e", f"inject=fsync:error={error}:when=2+")
    assert await program.start("strace", "-f", "-qq", "-o", "/dev/null", *inject)
    await station.log_in()
    clip = station.clip(2 << 20)
    url = await station.announced(clip)
    problem(await station.patch(url, 0, clip.content), kind)
    assert await station.offset(url) == 0
    await program.kill()
    assert await program.start()
    assert (await station.patch(url, 0, clip.content)).status_code == 204
    assert (await station.receipt(clip)).status_code == 200


async def test_p02_no_second_catalogue_beside_stored_clips(receiver, program):
    station = await receiver.station(session=False)
    assert await program.start()
    await station.log_in()
    await station.stored(station.clip())
    await program.kill()
    for path in receiver.store.glob("catalogue.sqlite*"):
        path.unlink()
    with pytest.raises(CatalogueError, match="restore"):
        await receiver.start()


async def test_p02_one_receiver_a_directory(receiver, program):
    assert await program.start()
    with pytest.raises(CatalogueError, match="in use"):
        await receiver.start()
