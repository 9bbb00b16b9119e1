"""Sixteen stations push to the real receiver while 20 peers hold 5,000 connections open, and say nothing.

The same clips are pushed alone and beside the crowd, in turns. The crowd is a program of its own, which opens every
connection that the receiver closes again. Measured are seconds, the receiver's memory (PSS), and what became of the
crowd's connections.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
import tomllib
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pytest
from programs import descriptors, pss_kib
from servers.buckets import MachineClock

from dockd.core import canonical, sshsig
from dockd.core.ids import uuid7
from dockd.core.keyfiles import StationPublic, StorePublic, format_station_pub
from dockd.core.manifest import Manifest, encode
from dockd.core.sealing import Sealer, parse_recipients_file
from dockd.core.sshsig import SigningKey
from dockd.model import CameraIdentity, Category, SignedBytes, VerdictStatus
from dockd.receiver.enrol import enrol
from dockd.stores.receiver_store import ReceiverStore

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

MIB = 1024 * 1024
STATIONS, PEERS, IDLE = 16, 20, 5000
CLIP_BYTES = 8 * MIB
CLIPS = 4  # of each station, in each turn
ROUNDS = 3
CROWD = Path(__file__).with_name("crowd_program.py")


class Station:
    """Seals what it makes up, and pushes it by the adapter that stations use."""

    def __init__(self, config, recipients, directory):
        self.id = str(uuid.uuid4())
        self.key = SigningKey.generate()
        enrol(
            Path(config["directory"]),
            format_station_pub(
                StationPublic(
                    station=self.id, manifest_key=self.key.public, checkpoint_key=SigningKey.generate().public
                )
            ),
        )
        store_key = SigningKey.parse((directory / config["key"]).read_bytes()).public
        self.recipients = recipients
        self.store = ReceiverStore(
            url=f"https://{config['public_hosts'][0]}/",
            ca_file=directory / config["tls_cert"],
            store_public=StorePublic(store=config["id"], key=store_key),
            station=self.id,
            key=self.key,
            clock=MachineClock(),
        )

    def clip(self):
        sealer = Sealer(self.recipients, secrets.token_bytes)
        plain = secrets.token_bytes(CLIP_BYTES)
        content = sealer.header() + b"".join(
            bytes(sealer.seal(plain[at : at + MIB], final=at + MIB >= CLIP_BYTES)) for at in range(0, CLIP_BYTES, MIB)
        )
        acquisition = uuid7(datetime.now(UTC), secrets.token_bytes(10))
        payload = encode(
            Manifest(
                acquisition=acquisition,
                station=self.id,
                bay=1,
                docking=str(uuid.uuid4()),
                camera=CameraIdentity(serial="CAM1", model="M", volume_id="v"),
                path=b"DCIM/1.mp4",
                size_bytes=CLIP_BYTES,
                mtime_ns=1,
                recorded_at=None,
                duration_ms=None,
                clock_offset_ms=None,
                category=Category.NONE,
                category_reason="",
                verdict=VerdictStatus.INTACT,
                reasons=(),
                container="mp4",
                plaintext_digest=canonical.digest(plain),
                plaintext_size_bytes=CLIP_BYTES,
                sealed_digest=canonical.digest(content),
                sealed_size_bytes=len(content),
                recipients=tuple(one.fingerprint for one in self.recipients),
                dockd="0",
                custody_seq=1,
                nonce=secrets.token_bytes(32),
            )
        )
        signature = sshsig.sign(self.key, sshsig.MANIFEST, payload)
        return acquisition, content, SignedBytes(payload=payload, signature=signature)

    async def push(self, clips):
        for acquisition, content, manifest in clips:
            url = await self.store.register(acquisition, manifest, len(content))
            assert await self.store.append(url, 0, _blocks(content), len(content)) == len(content)
            await self.store.receipt(acquisition, manifest)


def _cpu_s(pid):
    """Processor seconds of a program so far."""
    said = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(said[11]) + int(said[12])) / os.sysconf("SC_CLK_TCK")


async def _blocks(content):
    for at in range(0, len(content), MIB):
        yield content[at : at + MIB]


def _rounded(turns):
    return [tuple(round(one, 2) for one in turn) for turn in turns]


@contextmanager
def crowd(port, again_s):
    words = [sys.executable, str(CROWD), str(port), str(PEERS), str(IDLE // PEERS), str(again_s)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:

        def stands():
            program.stdin.write("\n")
            program.stdin.flush()
            return json.loads(program.stdout.readline())

        try:
            while (now := stands())["held"] + now["closed"] < IDLE:
                time.sleep(0.1)
            yield stands
        finally:
            program.stdin.close()


def _config(trial):
    written = tomllib.loads((trial.directory / "receiver.toml").read_text())
    return written["receiver"] | {"key": written["keys"]["store"]}, trial.directory / written["accept"][
        "recipients_file"
    ]


@pytest.mark.parametrize("again_s", [0, 5], ids=["held", "opened again after 5 s"])
async def test_sixteen_stations_push_beside_5000_idle_connections(trial_in, tmp_path, capsys, again_s):
    trial = trial_in(tmp_path / "trial")
    config, recipients_file = _config(trial)
    recipients = parse_recipients_file(recipients_file.read_text())
    config["directory"] = str(trial.directory / config["directory"])
    receiver = trial.start("receiver")
    while "receiver_listening" not in trial.log("receiver"):
        assert receiver.poll() is None, trial.log("receiver")
        await asyncio.sleep(0.1)
    stations = [Station(config, recipients, trial.directory) for _ in range(STATIONS)]
    port = int(config["public_hosts"][0].rpartition(":")[2])

    async def turn():
        clips = [[one.clip() for _ in range(CLIPS)] for one in stations]
        began_s, began_cpu_s = time.perf_counter(), _cpu_s(receiver.pid)
        await asyncio.gather(*(one.push(of) for one, of in zip(stations, clips, strict=True)))
        return time.perf_counter() - began_s, _cpu_s(receiver.pid) - began_cpu_s

    await turn()  # sessions are open, and the program has what it needs
    before_kib = pss_kib(receiver.pid)
    alone, beside, looks, stood = [], [], [], []
    for _ in range(ROUNDS):
        alone.append(await turn())
        with crowd(port, again_s) as stands:
            beside.append(await turn())
            looks.append((pss_kib(receiver.pid), descriptors(receiver.pid)))
            stood.append(stands())
    while descriptors(receiver.pid) > 3 * STATIONS:
        await asyncio.sleep(0.1)
    after_kib = pss_kib(receiver.pid)
    for one in stations:
        await one.store.aclose()
    ratio, cpu = (median(one[at] for one in beside) / median(one[at] for one in alone) for at in (0, 1))
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{STATIONS} stations, {STATIONS * CLIPS} clips of {CLIP_BYTES // MIB} MiB: "
            f"beside {IDLE} connections of {PEERS} peers {ratio:.2f} times the seconds and {cpu:.2f} times the "
            f"receiver's processor seconds; each turn, seconds and processor seconds: alone {_rounded(alone)}, "
            f"beside {_rounded(beside)}\n"
            f"receiver's PSS before {before_kib / 1024:.1f}, beside {max(one for one, _ in looks) / 1024:.1f}, "
            f"after {after_kib / 1024:.1f} MiB; at most {max(count for _, count in looks)} descriptors; "
            f"the crowd: {stood}"
        )
    assert max(count for _, count in looks) < 1024
    assert all(one["closed"] > IDLE // 2 for one in stood), stood
    assert max(one for one, _ in looks) < 300 * 1024
