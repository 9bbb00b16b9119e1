"""From a docked camera to an empty one, by the real programs, with stores that real servers of others are.

Each server stands behind an nginx, which ends TLS. What arrived is read back with the adapters, and opened with the
authority's key.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import subprocess
import sys
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import pytest
from contract.evidence import MachineClock
from servers.buckets import adapter, make_bucket
from servers.nginx import doors
from servers.programs import answers

from dockd.config.load import load_station
from dockd.core.objects import Piece
from dockd.stores.axis import AxisStore
from dockd.stores.axis_session import AxisCredentials
from dockd.stores.header_file import HeaderFile
from dockd.stores.tus_store import TusStore

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

MIB = 1024 * 1024


class Place:
    """A foreign store: how configuration names it, and how a person reads it."""

    def __init__(self, trial, name):
        self.trial, self.name = trial, name
        self.section = ""
        self.reader = None  # makes an adapter of the test's own

    def configure(self, *, alone=True, **changes):
        """Put it into the station's configuration, in place of the receiver or beside what is there."""
        file = self.trial.directory / "dockd.toml"
        text = file.read_text()
        if alone:
            text = text[: text.index("[store.archive]")]
        said = "".join(f"{key} = {json.dumps(value)}\n" for key, value in changes.items())
        file.write_text(f"{text}\n{self.section}{said}")
        self.trial.command("check-config", str(file))

    def opened(self, tmp_path):
        """SHA-256 of each clip that was confirmed here, as it is read back and opened, by the path in its manifest."""
        return asyncio.run(self._opened(tmp_path))

    async def _opened(self, tmp_path):
        finished = [one for one in self.trial.custody() if one["event"] == "delivery.finished"]
        found = {}
        async with aclosing(self.reader()) as reader:
            for entry in finished:
                objects = entry["details"]["objects"]
                manifest = json.loads(await _content(reader, objects, Piece.MANIFEST))
                assert b"BEGIN SSH SIGNATURE" in await _content(reader, objects, Piece.SIGNATURE)
                sealed, out = tmp_path / "clip.age", tmp_path / "clip.mp4"
                sealed.write_bytes(await _content(reader, objects, Piece.SEALED))
                key = self.trial.directory / "authority" / "working.key"
                words = ["open", str(sealed), "-i", str(key), "-o", str(out), "--force"]
                await asyncio.to_thread(subprocess.run, [sys.executable, "-m", "dockd", *words], check=True)
                place = f"{manifest['camera']['serial']}:{manifest['path']}"
                assert place not in found
                found[place] = hashlib.sha256(out.read_bytes()).hexdigest()
        return found


async def _content(reader, objects, piece):
    async with aclosing(reader.read(objects, piece, 0)) as blocks:
        return b"".join([block async for block in blocks])


@pytest.fixture
def s3(trial, seaweed):
    """A bucket with Object Lock."""
    place, bucket = Place(trial, "vault"), f"b{secrets.token_hex(6)}"
    with doors(seaweed.s3_url) as nginx:
        keys = trial.directory / "vault.keys"
        keys.write_text(
            f"[default]\naws_access_key_id = {seaweed.access_key}\naws_secret_access_key = {seaweed.secret_key}\n"
        )
        keys.chmod(0o600)
        place.section = (
            f'[store.vault]\nkind = "s3"\nurl = "{nginx.passing}"\nbucket = "{bucket}"\nprefix = "north/docks"\n'
            f'ca_file = "{nginx.ca_file}"\ncredentials_file = "vault.keys"\npart_mib = 5\nlock = "governance"\n'
            "lock_days = 40\nlegal_hold = true\n"
        )

        def reader(**changes):
            return adapter(seaweed, bucket, **changes)

        async def make(name, lock):
            async with aclosing(adapter(seaweed, name)) as store:
                await make_bucket(store, lock=lock)

        asyncio.run(make(bucket, lock=True))
        asyncio.run(make(f"{bucket}-unlocked", lock=False))
        place.reader = reader
        yield place


@pytest.fixture
def tus(trial, tus_server):
    """`@tus/server`, with a token."""
    place, token = Place(trial, "resumable"), trial.directory / "tus.token"
    token.write_text(f"Bearer {tus_server.token}\n")
    token.chmod(0o600)
    place.section = (
        f'[store.resumable]\nkind = "tus"\nurl = "{tus_server.url}"\nca_file = "{tus_server.ca_file}"\n'
        'authorization_file = "tus.token"\nmin_retention_days = 0\npatch_mib = 1\nread_back_rate = "400 Mbit/s"\n'
    )
    place.reader = lambda: TusStore(
        name="tus",
        url=tus_server.url,
        clock=MachineClock(),
        random=secrets.token_bytes,
        ca_file=tus_server.ca_file,
        authorization=HeaderFile(token),
    )
    return place


@pytest.fixture
def axis(trial, swift):
    """Swift, as a content destination."""
    place = Place(trial, "video")
    with doors(f"http://127.0.0.1:{swift.port}") as nginx:
        connection = trial.directory / "video.json"
        connection.write_text(json.dumps({"BlobAPIUserName": swift.user, "BlobAPIKey": swift.key}))
        connection.chmod(0o600)
        place.section = (
            f'[store.video]\nkind = "axis"\nurl = "{nginx.passing}/auth/v1.0"\nca_file = "{nginx.ca_file}"\n'
            'credentials_file = "video.json"\nmin_retention_days = 0\n'
        )
        place.reader = lambda: AxisStore(
            name="axis",
            url=swift.url,
            ca_file=None,
            clock=MachineClock(),
            credentials=lambda: AxisCredentials(user=swift.user, key=swift.key),
            station=str(secrets.token_hex(4)),
            insecure_loopback=True,
        )
        yield place


def digests(serial, clips):
    return {f"{serial}:DCIM/{name}": hashlib.sha256(content).hexdigest() for name, content in clips.items()}


def entries(trial, event):
    """Of the custody log, once there is one."""
    if not (trial.directory / "station" / "custody" / "custody.jsonl").exists():
        return []
    return [one["details"] for one in trial.custody() if one["event"] == event]


PROOFS = {"s3": "checksum", "tus": "read_back", "axis": "read_back"}


@pytest.mark.parametrize("kind", PROOFS)
def test_p01_a_camera_ends_empty_and_its_clips_open_from_a_store_of_others(request, trial, mp4, tmp_path, kind):
    place = request.getfixturevalue(kind)
    place.configure()
    clips = {"EVIDENCE/CLIP1.mp4": mp4(7 * MIB + 5, 1), "CLIP2.mp4": mp4(MIB, 2)}
    camera = trial.camera("CAM1", clips)
    trial.start("station")
    docked = trial.dock(camera, 1)
    status = trial.wait_settled(1)
    assert status["bays"][0]["state"] == "ready"
    assert status["alarms"] == []
    assert not list(docked.rglob("*.mp4")), "a clip is left"
    assert place.opened(tmp_path) == digests("CAM1", clips)
    assert trial.stop("station") < 5
    assert {one["kind"] for one in entries(trial, "delivery.confirmed")} == {PROOFS[kind]}
    (tried,) = entries(trial, "store.tried")
    (told,) = entries(trial, "policy.set")
    assert told["stores"][0]["store"] == tried["store"]
    assert told["stores"][0]["place"].startswith(f"{kind} https://127.0.0.1:")
    trial.command("custody", "verify", str(trial.directory / "station" / "custody"))


@pytest.mark.parametrize("kind", ["s3", "tus", "axis"])
def test_p02_a_station_killed_in_the_middle_goes_on_where_it_was(request, trial, mp4, tmp_path, kind):
    place = request.getfixturevalue(kind)
    place.configure(slots=1)
    clips = {f"CLIP{number}.mp4": mp4(24 * MIB + number, number) for number in range(2)}
    camera = trial.camera("CAM1", clips)
    trial.start("station")
    trial.dock(camera, 1)
    for _ in range(2):
        before = len(entries(trial, "delivery.confirmed"))
        trial.wait("an upload under way", partial(under_way, trial, before))
        trial.kill("station")
        trial.start("station")
    trial.wait_settled(1)
    assert trial.bay(1)["state"] == "ready"
    assert place.opened(tmp_path) == digests("CAM1", clips)
    assert len(entries(trial, "delivery.confirmed")) == len(clips)


def under_way(trial, confirmed):
    """Whether an upload began that is not confirmed; or nothing is left to interrupt."""
    registered = len(entries(trial, "delivery.registered"))
    done = len(entries(trial, "delivery.confirmed"))
    return registered > done or done > confirmed


def test_p01_a_store_that_gives_nothing_back_holds_the_clip_and_status_says_why(trial, mp4, tus, tus_server):
    clips = {"CLIP1.mp4": mp4(MIB, 1)}
    with doors(tus_server.url, more=_TAKES_ONLY) as nginx:
        origin = tus_server.url.removesuffix("/files")
        tus.section = tus.section.replace(origin, nginx.passing).replace(str(tus_server.ca_file), str(nginx.ca_file))
        tus.configure()
        docked = trial.dock(trial.camera("CAM1", clips), 1)
        trial.start("station")
        note = trial.wait("a reason", partial(said, trial))
        assert "403 to read" in note
        assert list(docked.rglob("*.mp4"))
        assert entries(trial, "acquisition.stored") == []
        assert "403 to read" in trial.command("status", "--config", str(trial.directory / "dockd.toml"))
        trial.stop("station")


_TAKES_ONLY = "limit_except POST PATCH HEAD OPTIONS DELETE { deny all; }"


def test_p01_a_bucket_that_cannot_lock_holds_the_clip_and_status_says_why(trial, mp4, s3):
    s3.section = s3.section.replace('"\nprefix', '-unlocked"\nprefix')
    s3.configure()
    docked = trial.dock(trial.camera("CAM1", {"CLIP1.mp4": mp4(MIB, 1)}), 1)
    trial.start("station")
    assert "400 to register: InvalidRequest" in trial.wait("a reason", partial(said, trial))
    assert list(docked.rglob("*.mp4"))
    assert entries(trial, "acquisition.quarantined") == []


def said(trial):
    """What status says of the only store, once it says anything."""
    status = trial.status()
    return status["stores"][0]["note"] if status else ""


def test_p01_all_waits_for_the_receiver_and_the_bucket(trial, mp4, tmp_path, s3):
    s3.configure(alone=False)
    clips = {"CLIP1.mp4": mp4(6 * MIB, 1), "CLIP2.mp4": mp4(MIB, 2)}
    docked = trial.dock(trial.camera("CAM1", clips), 1)
    trial.start("station")
    trial.wait("the bucket has both", lambda: len(entries(trial, "delivery.confirmed")) == len(clips))
    assert len(list(docked.rglob("*.mp4"))) == len(clips)
    assert entries(trial, "acquisition.warranted") == []
    trial.start("receiver")
    trial.wait_settled(1)
    assert trial.bay(1)["state"] == "ready"
    assert not list(docked.rglob("*.mp4"))
    assert trial.opened() == digests("CAM1", clips)
    assert s3.opened(tmp_path) == digests("CAM1", clips)
    assert {one["kind"] for one in entries(trial, "delivery.confirmed")} == {"receipt", "checksum"}
    for warrant in entries(trial, "acquisition.warranted"):
        assert {one["kind"] for one in warrant["warrant"]["confirmations"]} == {"receipt", "checksum"}
    trial.command("custody", "verify", str(trial.directory / "station" / "custody"))


# --- S3 that is less strict


@pytest.fixture
def lenient(request, trial, lenient_s3):
    """A bucket of one of the less strict S3 servers, without locks."""
    server, bucket = lenient_s3[request.param], f"b{secrets.token_hex(6)}"
    place = Place(trial, "vault")
    with doors(server.s3_url) as nginx:
        keys = trial.directory / "vault.keys"
        keys.write_text(
            f"[default]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"
        )
        keys.chmod(0o600)
        place.section = (
            f'[store.vault]\nkind = "s3"\nurl = "{nginx.passing}"\nbucket = "{bucket}"\n'
            f'ca_file = "{nginx.ca_file}"\ncredentials_file = "vault.keys"\npart_mib = 5\nmin_retention_days = 0\n'
        )

        async def make():
            async with aclosing(adapter(server, bucket)) as store:
                await make_bucket(store)

        asyncio.run(make())
        place.reader = lambda: adapter(server, bucket)
        yield place


def examined(trial, code):
    """What the doctor says of the only store, as the running station finds it."""
    told = trial.command("doctor", "--json", "--config", str(trial.directory / "dockd.toml"), code=code)
    records = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    (report,) = [one for one in records if one["type"] == "trial"]
    return report


@pytest.mark.parametrize(("lenient", "claims"), [("moto", False), ("rclone", True)], indirect=["lenient"])
def test_p01_of_a_less_strict_s3_store_doctor_status_and_what_is_erased_agree(trial, mp4, tmp_path, lenient, claims):
    lenient.configure()
    clips = {"EVIDENCE/CLIP1.mp4": mp4(7 * MIB + 5, 1), "CLIP2.mp4": mp4(MIB, 2)}
    docked = trial.dock(trial.camera("CAM1", clips), 1)
    trial.start("station")
    status = trial.wait_settled(1)
    assert status["bays"][0]["state"] == "ready"
    (store,) = status["stores"]
    assert (store["state"], store["note"], status["alarms"]) == ("reachable", "", [])
    assert not list(docked.rglob("*.mp4")), "a clip is left"
    report = examined(trial, code=65 if claims else 0)
    assert report["out_of_reach"] is False
    assert bool(report["wrong"]) is claims, "rclone gives back whatever checksum it was told"
    assert all(sentence.startswith("it claims what it does not do") for sentence in report["wrong"])
    assert "by reading all of it back" in report["meaning"][0]
    assert {one["kind"] for one in entries(trial, "delivery.confirmed")} == {"read_back"}
    assert lenient.opened(tmp_path) == digests("CAM1", clips)


@pytest.mark.parametrize("lenient", ["s3rver"], indirect=True)
def test_p01_an_s3_store_that_lacks_an_operation_holds_the_clip_and_doctor_and_status_name_it(trial, mp4, lenient):
    lenient.configure()
    docked = trial.dock(trial.camera("CAM1", {"CLIP1.mp4": mp4(MIB, 1)}), 1)
    trial.start("station")
    note = trial.wait("a reason", partial(said, trial))
    assert note.startswith("reached, but it lacks ListMultipartUploads")
    assert trial.status()["stores"][0]["state"] == "lacking"
    shown = trial.command("status", "--config", str(trial.directory / "dockd.toml"))
    assert "lacking" in shown
    assert "unreachable" not in shown
    report = examined(trial, code=65)
    assert report["out_of_reach"] is False
    assert any("reached, but it lacks ListParts" in sentence for sentence in report["wrong"])
    assert report["wrong"][-1] == "its word is asked for, and cannot be had: clips stay on their cameras"
    assert list(docked.rglob("*.mp4"))
    assert entries(trial, "acquisition.warranted") == []


# --- dockd doctor


@pytest.mark.parametrize("running", [True, False])
def test_the_doctor_tries_every_store_and_says_what_it_means(request, trial, running):
    for kind in PROOFS:
        request.getfixturevalue(kind).configure(alone=False)
    trial.start("receiver")
    config = str(trial.directory / "dockd.toml")
    port = int(load_station(Path(config), files=False).store["archive"].url.rpartition(":")[2])
    trial.wait("the receiver", partial(listens, port))
    if running:
        trial.start("station")
        trial.wait("the station", trial.status)
    told = trial.command("doctor", "--json", "--config", config).splitlines()
    reports = [json.loads(line) for line in told if line.startswith("{")]
    assert len(told) == len(reports) + (not running)
    assert reports.pop(0)["type"] == "confinement"
    found = {one["name"]: one for one in reports}
    assert set(found) == {"archive", "vault", "resumable", "video"}
    assert not any(one["wrong"] or one["out_of_reach"] for one in reports)
    proofs = {name: one["meaning"][0] for name, one in found.items()}
    assert proofs["archive"] == "A clip is confirmed by its signed receipt."
    assert proofs["vault"] == "A clip is confirmed by the store's own SHA-256 of all three objects."
    assert proofs["video"] == proofs["resumable"]
    assert "by reading all of it back" in proofs["video"]
    kept = {one["store"] for one in entries(trial, "store.tried")}
    assert kept == ({one["store"] for one in reports if one["place"]} if running else set())


def listens(port):
    with suppress(OSError):
        return answers(port)
    return False


def test_the_doctor_names_what_is_wrong_and_what_is_away(trial, s3, tus):
    s3.section = s3.section.replace('"\nprefix', '-unlocked"\nprefix')
    s3.configure(alone=False)
    config = trial.directory / "dockd.toml"
    said = trial.command("doctor", "--store", "vault", "--config", str(config), code=65)
    assert "WRONG: its word is asked for, and cannot be had: clips stay on their cameras" in said
    said = trial.command("doctor", "--store", "archive", "--config", str(config), code=69)  # the receiver does not run
    assert "-      no    can it be reached, by a certificate that is trusted?" in said
    assert all(len(line) <= 80 for line in said.splitlines() if line.startswith(" "))
    assert "there is no store cellar" in trial.command("doctor", "--store", "cellar", "--config", str(config), code=64)
