"""trust_stations and lookups.permit: whose keys they name, and every mistake in words."""

import os
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from dockd.app import check, init
from dockd.app.receiver import _settings
from dockd.app.stores import Identity, open_store, policy_of
from dockd.config.load import load_receiver, load_station
from dockd.core.keyfiles import StationPublic, format_station_pub
from dockd.core.sshsig import SigningKey
from dockd.errors import ConfigError
from dockd.keep.spool import Spool

OTHER, THIRD = str(uuid.UUID(int=11)), str(uuid.UUID(int=12))


class Clock:
    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC)


def keys_of(station):
    manifest, checkpoint = SigningKey.generate(), SigningKey.generate()
    return StationPublic(station=station, manifest_key=manifest.public, checkpoint_key=checkpoint.public)


@pytest.fixture
def sets(tmp_path):
    """A station's and a receiver's set."""
    authority = init.init_authority(tmp_path / "away" / "authority")
    receiver = init.init_receiver(tmp_path / "away" / "receiver", "127.0.0.1:8443", recipients=authority.recipients)
    station = init.init_station(
        tmp_path / "here",
        receiver_url="https://127.0.0.1:8443",
        ca=receiver.certificate,
        store_key=receiver.store_pub,
        recipients=authority.recipients,
    )
    (tmp_path / "here" / "stations").mkdir()
    return station.config, receiver.config


def trusting(config, *stations):
    """The same configuration, with these trusted."""
    listed = ", ".join(f'"{one}"' for one in stations)
    text = config.read_text().replace("[store.archive]\n", f"[store.archive]\ntrust_stations = [{listed}]\n")
    config.write_text(text.replace("[store.archive]\n", '[store.archive]\nstations_directory = "stations"\n'))
    return config


def lend(config, public, name=None):
    """Put a station's public keys where they are looked for."""
    (config.parent / "stations" / f"{name or public.station}.pub").write_text(format_station_pub(public))
    return public


def mistakes(config):
    with pytest.raises(ConfigError) as caught:
        check.check_station(config, load_station(config))
    return caught.value.problems


async def test_the_keys_of_trusted_stations_reach_the_store_and_the_policy(sets):
    config = trusting(sets[0], OTHER)
    public = lend(config, keys_of(OTHER))
    loaded = load_station(config)
    check.check_station(config, loaded)
    spool = Spool(config.parent / "spool", reserve_bytes=0, max_bytes=0)
    identity = Identity(station=THIRD, key=SigningKey.generate(), clock=Clock(), spool=spool)
    async with AsyncExitStack() as closing:
        outlet = open_store("archive", loaded.store["archive"], identity, closing)
        assert outlet.way.trusted == {OTHER: public.manifest_key}
    assert policy_of(loaded).stores[0].trust_stations == {OTHER}


async def test_by_default_nobody_is_trusted(sets):
    loaded = load_station(sets[0])
    assert loaded.store["archive"].trust_stations == ()
    assert policy_of(loaded).stores[0].trust_stations == frozenset()


def test_a_station_without_its_keys_is_a_mistake(sets):
    (line,) = mistakes(trusting(sets[0], OTHER))
    assert "store.archive.trust_stations" in line
    assert f"stations{os.sep}{OTHER}.pub" in line


def test_another_stations_keys_under_that_name_are_a_mistake(sets):
    config = trusting(sets[0], OTHER)
    lend(config, keys_of(THIRD), OTHER)
    (line,) = mistakes(config)
    assert f"has the keys of station {THIRD}" in line


def test_a_file_that_holds_no_station_is_a_mistake(sets):
    config = trusting(sets[0], OTHER)
    (config.parent / "stations" / f"{OTHER}.pub").write_text("ssh-ed25519 nothing\n")
    (line,) = mistakes(config)
    assert "station.pub" in line


def test_a_station_does_not_trust_itself(sets):
    own = load_station(sets[0]).station.id
    config = trusting(sets[0], own)
    lend(config, keys_of(own))
    (line,) = mistakes(config)
    assert "this station itself" in line


@pytest.mark.parametrize("listed", [("no UUID",), (OTHER, OTHER), (OTHER.upper(),)])
def test_what_is_no_list_of_stations_is_a_mistake(sets, listed):
    with pytest.raises(ConfigError) as caught:
        load_station(trusting(sets[0], *listed), files=False)
    assert "trust_stations" in caught.value.problems[0]


def test_a_receiver_lets_ask_whom_its_configuration_names(sets):
    config = sets[1]
    assert not _settings(load_receiver(config)).lookups
    config.write_text(config.read_text() + f'\n[lookups.permit]\n"{OTHER}" = ["{THIRD}"]\n')
    assert _settings(load_receiver(config)).lookups == {OTHER: {THIRD}}


@pytest.mark.parametrize("line", ['"x" = []', f'"{OTHER}" = ["x"]', f'"{OTHER}" = "{THIRD}"'])
def test_a_permission_that_names_no_stations_is_a_mistake(sets, line):
    config = sets[1]
    config.write_text(f"{config.read_text()}\n[lookups.permit]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_receiver(config, files=False)
    assert "lookups.permit" in caught.value.problems[0]
