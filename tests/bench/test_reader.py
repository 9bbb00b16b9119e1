"""How fast one reader is beside the plain loop that does the same, and how small it stays on a 5 GiB clip."""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
import re
import secrets
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockd.core.sealing import Identity, Sealer
from dockd.devices.marker import make_marker
from dockd.model import Medium, MediumKind, Volume
from dockd.reader.client import ClipRules, ForkServer

pytestmark = pytest.mark.bench

MIB = 1024 * 1024
RULES = ClipRules(suffixes=(".mp4",), evidence_directories=(), max_depth=4, max_files=99, block_bytes=MIB)


@pytest.fixture
async def bench():
    recipients = tuple(Identity.generate(secrets.token_bytes).recipient for _ in range(2))
    progress = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        camera, incoming = Path(directory, "bay", "camera"), Path(directory, "incoming")
        camera.mkdir(parents=True)
        incoming.mkdir()
        identity = make_marker(camera, serial="B", made_at=datetime.now(UTC), random=secrets.token_bytes)
        descriptors = [os.open(path, os.O_RDONLY) for path in (camera, incoming)]
        volume = Volume(name="", filesystem="folder", volume_id=identity.volume_id, root_fd=descriptors[0])
        server = await ForkServer.start()
        reader = await server.reader(
            docking="01890000-0000-7000-8000-000000000001",
            epoch=1,
            bay=1,
            medium=Medium(kind=MediumKind.FOLDER, volumes=(volume,)),
            incoming_fd=descriptors[1],
            identity=identity,
            recipients=tuple(recipient.text for recipient in recipients),
            rules=RULES,
            on_progress=lambda *report: [callback(*report) for callback in progress],
        )
        yield camera, incoming, recipients, reader, progress
        await reader.kill()
        await server.aclose()
        for fd in descriptors:
            os.close(fd)


async def clip_of(reader):
    entries = [entry async for batch in reader.list() for entry in batch]
    (file,) = (entry.file for entry in entries if entry.file.path == b"a.mp4")
    return file


def plain_loop(source, target, recipients):
    """SHA-256 of both sides and age, file to file, in one thread: no checks, no lease, no messages."""
    sealer = Sealer(recipients, secrets.token_bytes)
    first, second = hashlib.sha256(), hashlib.sha256()
    view = memoryview(mmap.mmap(-1, MIB))
    with source.open("rb", buffering=0) as reading, target.open("wb", buffering=0) as writing:
        left = source.stat().st_size
        writing.write(sealer.header())
        while left:
            count = reading.readinto(view)
            left -= count
            first.update(view[:count])
            sealed = sealer.seal(view[:count], final=not left)
            second.update(sealed)
            writing.write(sealed)
        os.fsync(writing.fileno())


async def test_throughput_beside_the_plain_loop(bench, capsys):
    camera, incoming, recipients, reader, _ = bench
    size = 512 * MIB
    with (camera / "a.mp4").open("wb") as clip:
        for _ in range(size // MIB):
            clip.write(os.urandom(MIB))
    file = await clip_of(reader)
    rows = []
    for number in range(4):
        acquisition = f"01890000-0000-7000-8000-{number:012x}"
        times = [time.perf_counter()]
        plain_loop(camera / "a.mp4", incoming / "plain", recipients)
        times.append(time.perf_counter())
        await reader.acquire(acquisition, file)
        times.append(time.perf_counter())
        await reader.reread(acquisition, file)
        times.append(time.perf_counter())
        rows.append([size / 1e6 / (end - start) for start, end in itertools.pairwise(times)])
        (incoming / f"{acquisition}.age").unlink()
    with capsys.disabled():
        for plain, acquired, reread in rows:
            print(f"\nplain {plain:5.0f} MB/s, acquire {acquired:5.0f} ({acquired / plain:.0%}), reread {reread:5.0f}")  # noqa: T201


async def test_p10_five_gib_in_bounded_memory(bench, capsys):
    camera, _, _, reader, progress = bench
    (camera / "a.mp4").touch()
    os.truncate(camera / "a.mp4", 5 << 30)
    seen = []

    def measure(*_):
        rollup = Path(f"/proc/{reader.pid}/smaps_rollup").read_text()
        seen.append(int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1]))

    progress.append(measure)
    file = await clip_of(reader)
    sealed = await reader.acquire("01890000-0000-7000-8000-0000000000aa", file)
    again = await reader.reread("01890000-0000-7000-8000-0000000000aa", file)
    assert again.plaintext_digest == sealed.plaintext_digest
    assert max(seen) < 40 * 1024
    with capsys.disabled():
        print(f"\npeak PSS of the reader on 5 GiB: {max(seen) / 1024:.1f} MiB in {len(seen)} looks")  # noqa: T201
