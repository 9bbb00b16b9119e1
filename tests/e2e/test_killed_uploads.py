"""A clip of 1 GiB, pushed by a station that is killed ten times: it arrives once, and little of it is sent twice.

The server is a real one of others. An nginx before it, which passes bodies on as they come, logs what arrived of each
request: that is what is counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import pytest
from contract.evidence import MachineClock
from servers.buckets import adapter, make_bucket
from servers.nginx import Doors, doors

from dockd.core.objects import Piece
from dockd.stores.header_file import HeaderFile
from dockd.stores.tus_store import TusStore

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1500)]

MIB = 1024 * 1024
SIZE = 1024 * MIB
PIECE = 8 * MIB
KILLS = 10
PATIENCE_S = 600.0
HEAD = 4096  # a request's head is shorter, and counts with its body
TRIED = 16 * 1024  # what the station tries a server with is shorter, head and all


@dataclass(frozen=True, kw_only=True)
class Far:
    """A trial whose only store is a server of others; what that server shows of the clip, and how it is read."""

    trial: object
    nginx: Doors
    reader: Callable[[], object]
    carries: str  # a pattern of "METHOD PATH" of a request that carries the clip's bytes
    upload: str  # and of what names the upload in its path

    def requests(self, pattern):
        return [one for one in self.nginx.requests() if re.match(pattern, f"{one.method} {one.path}")]

    def uploads(self):
        """How many the clip's bytes went to."""
        name = re.compile(self.upload)
        found = [name.search(one.path) for one in self.requests(self.carries) if int(one.size) > TRIED]
        return len({one.group(1) for one in found})

    def arrived_bytes(self):
        """As far as nginx has seen the end of a request."""
        return sum(int(one.size) for one in self.requests(self.carries))


@pytest.fixture
def s3(trial_in, tmp_path, seaweed):
    trial, bucket = trial_in(tmp_path / "trial"), f"b{secrets.token_hex(6)}"
    keys = f"[default]\naws_access_key_id = {seaweed.access_key}\naws_secret_access_key = {seaweed.secret_key}\n"
    _secret(trial.directory / "far.keys", keys)

    async def make():
        async with aclosing(adapter(seaweed, bucket)) as store:
            await make_bucket(store)

    asyncio.run(make())
    with doors(seaweed.s3_url) as nginx:
        said = f'kind = "s3"\nbucket = "{bucket}"\ncredentials_file = "far.keys"\npart_mib = {PIECE // MIB}\n'
        _configure(trial, f'{said}url = "{nginx.passing}"\nca_file = "{nginx.ca_file}"\n')
        yield Far(
            trial=trial,
            nginx=nginx,
            reader=lambda: adapter(seaweed, bucket),
            carries=r"PUT .*/clip\.age\?.*partNumber=",
            upload=r"uploadId=([^&]+)",
        )


@pytest.fixture
def tus(trial_in, tmp_path, tus_server):
    trial = trial_in(tmp_path / "trial")
    token, before = trial.directory / "far.token", set(tus_server.files.iterdir())
    _secret(token, f"Bearer {tus_server.token}\n")
    with doors(tus_server.url) as nginx:
        said = (
            f'kind = "tus"\nauthorization_file = "far.token"\npatch_mib = {PIECE // MIB}\nread_back_rate = "8 Gbit/s"\n'
        )
        _configure(trial, f'{said}url = "{nginx.passing}/files"\nca_file = "{nginx.ca_file}"\n')
        yield Far(
            trial=trial,
            nginx=nginx,
            reader=lambda: TusStore(
                name="tus",
                url=tus_server.url,
                clock=MachineClock(),
                random=secrets.token_bytes,
                ca_file=tus_server.ca_file,
                authorization=HeaderFile(token),
            ),
            carries=r"PATCH /files/",
            upload=r"/files/(.+)",
        )
    for path in set(tus_server.files.iterdir()) - before:
        path.unlink()


@pytest.mark.parametrize("kind", ["s3", "tus"])
def test_p02_a_gibibyte_whose_station_is_killed_ten_times_arrives_once(request, sparse_mp4, tmp_path, capsys, kind):
    far = request.getfixturevalue(kind)
    trial, seed = far.trial, secrets.randbits(32)
    chance = random.Random(seed)
    camera = trial.camera("CAM1", {})
    clip = camera / "DCIM" / "CLIP1.mp4"
    clip.parent.mkdir(exist_ok=True)
    sparse_mp4(clip, SIZE, 1)
    whole = _digest(clip)
    began_s = time.monotonic()
    trial.start("station")
    docked = trial.dock(camera, 1)
    for number in range(KILLS):
        stop_at = SIZE * number // KILLS + chance.randrange(SIZE // KILLS)
        trial.wait(f"{stop_at} bytes pushed", lambda at=stop_at: far.arrived_bytes() >= at, PATIENCE_S)
        assert not _entries(trial, "delivery.finished"), "it ended before it was killed"
        trial.kill("station")
        trial.start("station")
    trial.wait_settled(1, patience_s=PATIENCE_S)
    took_s = time.monotonic() - began_s
    assert trial.bay(1)["state"] == "ready"
    assert not list(docked.rglob("*.mp4"))
    trial.stop("station")
    ((finished,), (confirmed,)) = (_entries(trial, f"delivery.{one}") for one in ("finished", "confirmed"))
    assert finished["acquisition"] == confirmed["acquisition"]
    assert far.uploads() == 1
    sealed = tmp_path / "clip.age"
    asyncio.run(_fetch(far.reader(), finished["details"]["objects"], sealed))
    assert _opened(trial, sealed, tmp_path / "clip.mp4") == whole
    size, pieces = sealed.stat().st_size, far.requests(far.carries)
    again = far.arrived_bytes() - size
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{kind}: seed {seed}, {KILLS} kills in {took_s:.0f} s, {len(pieces)} pieces, at most "
            f"{again / MIB:.1f} MiB of {size / MIB:.0f} sent twice"
        )
    assert 0 <= again <= KILLS * PIECE + len(pieces) * HEAD


def _secret(path, text):
    path.write_text(text)
    path.chmod(0o600)


def _configure(trial, section):
    file = trial.directory / "dockd.toml"
    text = file.read_text()
    file.write_text(f"{text[: text.index('[store.archive]')]}\n[store.far]\n{section}min_retention_days = 0\n")
    trial.command("check-config", str(file))


def _entries(trial, event):
    if not (trial.directory / "station" / "custody" / "custody.jsonl").exists():
        return []
    return [one for one in trial.custody() if one["event"] == event]


async def _fetch(reader, objects, path):
    manifest = bytearray()
    async with aclosing(reader), aclosing(reader.read(objects, Piece.SEALED, 0)) as blocks:
        with path.open("wb") as out:
            async for block in blocks:
                out.write(block)
        async with aclosing(reader.read(objects, Piece.MANIFEST, 0)) as pieces:
            async for piece in pieces:
                manifest += piece
    stated = json.loads(manifest)
    assert _digest(path) == stated["sealed"]["digest"].removeprefix("sha256:")


def _opened(trial, sealed, out):
    key = trial.directory / "authority" / "working.key"
    words = ["open", str(sealed), "-i", str(key), "-o", str(out)]
    subprocess.run([sys.executable, "-m", "dockd", *words], check=True)
    return _digest(out)


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
