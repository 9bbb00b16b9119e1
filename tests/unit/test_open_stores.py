"""Stores of every kind, opened as configuration says: by which way they confirm, who they are, what they are told."""

import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from contract.evidence import certificate

from dockd.app import check, init
from dockd.app.stores import Identity, access_keys, open_store, policy_of, store_id
from dockd.config.load import load_station
from dockd.core.sshsig import SigningKey
from dockd.errors import ConfigError
from dockd.keep.spool import Spool
from dockd.model import Category, StationId
from dockd.station.outlet import Keeping, Signing
from dockd.stores.axis import AxisStore
from dockd.stores.credentials import EnvironmentCredentials, FileCredentials
from dockd.stores.s3 import S3Store
from dockd.stores.s3_records import LockMode
from dockd.stores.tus_store import TusStore
from dockd.stores.web_identity import WebIdentityCredentials

FOREIGN = """
[store.vault]
kind = "s3"
url = "https://s3.example.org"
bucket = "bodycam"
prefix = "north"
ca_file = "tls.crt"
part_mib = 8
lock = "governance"
lock_days = 365
lock_evidence_days = 3650
legal_hold = true
read_back_rate = "8 Mbit/s"
credentials_file = "vault.keys"
[store.tus]
kind = "tus"
url = "https://tus.example.org/files"
objects_url = "https://tus.example.org/objects"
ca_file = "tls.crt"
authorization_file = "tus.token"
min_retention_days = 0
slots = 2
patch_mib = 8
[store.video]
kind = "axis"
url = "https://vms.example.org/auth/v1.0"
ca_file = "tls.crt"
credentials_file = "video.json"
min_retention_days = 0
"""


@pytest.fixture
def station(tmp_path):
    """A station's set whose configuration has a store of every kind."""
    authority = init.init_authority(tmp_path / "away" / "authority")
    receiver = init.init_receiver(tmp_path / "away" / "receiver", "127.0.0.1:8443", recipients=authority.recipients)
    made = init.init_station(
        tmp_path / "here",
        receiver_url="https://127.0.0.1:8443",
        ca=receiver.certificate,
        store_key=receiver.store_pub,
        recipients=authority.recipients,
    )
    certificate(tmp_path / "here")
    made.config.write_text(made.config.read_text() + FOREIGN)
    return made.config


def identity(directory, clock):
    return Identity(
        station=StationId(str(uuid.uuid4())),
        key=SigningKey.generate(),
        clock=clock,
        spool=Spool(directory / "spool", reserve_bytes=0, max_bytes=0),
    )


@pytest.fixture
async def opened(station, tmp_path, clock):
    """What configuration makes of it: outlets by name."""
    async with AsyncExitStack() as closing:

        def opened():
            who = identity(tmp_path, clock)
            return {name: open_store(name, one, who, closing) for name, one in load_station(station).store.items()}

        yield opened


class Clock:
    def now(self):
        return datetime(2026, 1, 31, tzinfo=UTC)

    def monotonic_s(self):
        return 0.0

    async def sleep(self, seconds):
        raise AssertionError(seconds)


@pytest.fixture
def clock():
    return Clock()


async def test_every_kind_becomes_the_adapter_that_its_table_describes(opened):
    found = opened()
    assert isinstance(found["archive"].way, Signing)
    ways = {name: one.way for name, one in found.items() if name != "archive"}
    assert all(isinstance(way, Keeping) for way in ways.values())
    vault, tus, video = ways["vault"].port, ways["tus"].port, ways["video"].port
    assert isinstance(vault, S3Store)
    assert vault.lock.mode is LockMode.GOVERNANCE
    assert vault.lock.days == {Category.NONE: 365, Category.EVIDENCE: 3650}
    assert vault.lock.hold == {Category.EVIDENCE}
    assert vault.prefix.startswith("north/")
    assert isinstance(tus, TusStore)
    assert tus.server.files_by_name
    assert isinstance(video, AxisStore)
    assert (ways["vault"].read_back_bytes_s, ways["tus"].read_back_bytes_s) == (1_000_000, 0)
    assert (found["tus"].slots, found["tus"].patch_bytes) == (2, 8 << 20)


async def test_a_store_that_does_not_sign_is_known_by_its_place(opened, station):
    first = {name: one.store for name, one in opened().items()}
    assert {name: one.store for name, one in opened().items()} == first
    assert len(set(first.values())) == 4
    assert all(str(uuid.UUID(one)) == one for one in first.values())
    station.write_text(station.read_text().replace("https://s3.example.org", "https://S3.example.org:443/"))
    assert opened()["vault"].store == first["vault"]
    station.write_text(station.read_text().replace('prefix = "north"', 'prefix = "south"'))
    moved = opened()
    assert moved["vault"].store != first["vault"]
    assert moved["tus"].store == first["tus"]


def test_the_custody_log_is_told_which_place_an_id_is_made_of(station):
    config = load_station(station)
    ids = {name: store_id(one) for name, one in config.store.items() if name != "archive"}
    described = {one["name"]: one for one in policy_of(config, ids).described()["stores"]}
    assert described["vault"]["place"] == "s3 https://s3.example.org:443/bodycam/north"
    space = uuid.UUID("5f0c7d8e-0d5c-4c57-9d5e-6f1f5c1a7a42")  # docs/formats.md
    assert described["vault"]["store"] == str(uuid.uuid5(space, described["vault"]["place"]))
    assert "place" not in described["archive"]


@pytest.mark.parametrize(
    ("instead", "kind"),
    [
        ('credentials_file = "vault.keys"', FileCredentials),
        ("", EnvironmentCredentials),
        (
            '[store.vault.web_identity]\nurl = "https://sts.example.org"\nrole = "dock"\ntoken_file = "token"',
            WebIdentityCredentials,
        ),
    ],
)
async def test_access_keys_come_from_where_configuration_says(station, clock, tmp_path, instead, kind):
    station.write_text(station.read_text().replace('credentials_file = "vault.keys"', instead))
    async with AsyncExitStack() as closing:
        source = access_keys(load_station(station).store["vault"], identity(tmp_path, clock), closing)
        assert isinstance(source, kind)


def test_a_set_with_stores_of_every_kind_is_checked(station):
    check.check_station(station, load_station(station))


def test_what_cannot_be_used_of_a_foreign_store_is_told(station, tmp_path):
    (tmp_path / "here" / "other.crt").write_text("nothing")
    station.write_text(
        station.read_text()
        .replace('"8 Mbit/s"', '"8 furlongs"')
        .replace('ca_file = "tls.crt"\nauthorization', 'ca_file = "other.crt"\nauthorization')
        .replace("[store.video]\n", '[store.video]\nclient_cert = "tls.crt"\nclient_key = "keys/manifest.key"\n')
    )
    with pytest.raises(ConfigError) as caught:
        check.check_station(station, load_station(station))
    lines = [line.removeprefix(f"{station}: ") for line in caught.value.problems]
    assert [line.partition(": ")[0] for line in lines] == [
        "store.vault.read_back_rate",
        "store.tus.ca_file",
        "store.video.client_cert",
    ]
    assert "8 furlongs" in lines[0]


def test_what_signs_in_to_a_store_and_is_missing_is_a_doubt_and_no_mistake(station, clock):
    doubts = check.careful_station(load_station(station), clock.now())
    missing = [line.partition(": ")[0] for line in doubts if "is not there" in line]
    assert missing == ["store.vault.credentials_file", "store.tus.authorization_file", "store.video.credentials_file"]
