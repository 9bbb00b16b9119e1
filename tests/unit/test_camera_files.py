"""Profiles in files: what is refused, with file and key, and what a running station takes over."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockd.config.load import load_station
from dockd.config.schema import StationConfig
from dockd.core.clip_names import ClipNames
from dockd.core.profile import EraseMethod, Evidence, FileRules, Match, Pattern, Profile
from dockd.errors import ConfigError
from dockd.model import MediumKind, Named
from dockd.stages.named import named
from dockd.station.cameras import load_profile, load_profiles
from dockd.station.reload import Live, known_profiles

LEAST = 'version = 1\ndescription = "a camera"\n[[match]]\nmedium = "storage"\n'
WHOLE = """
version = 3
description = "the cameras of precinct 7"
erase = "clear"
[[match]]
medium = "storage"
vendor_id = "1d6b"
product_id = "0104"
label = "BODYCAM*"
filesystem = "exfat"
must_exist = "DCIM/100"
[[match]]
medium = "mtp"
[clips]
directories = ["DCIM"]
suffixes = [".MP4"]
[sidecars]
names = ["*.gps"]
[noise]
directories = ["System Volume Information"]
[evidence]
directories = ["RO"]
name_flags = ["_EVD"]
categories = ["EVD"]
read_only = true
[names]
templates = ["{year}{month}{day}_{sequence}"]
time_zone = "Europe/Berlin"
"""


@pytest.fixture
def write(tmp_path):
    directory = tmp_path / "cameras.d"
    directory.mkdir()

    def put(text, name="cam-1.toml"):
        (directory / name).write_text(text)
        return directory / name

    return put


def mistakes(path):
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert all(line.startswith(f"{path}: ") for line in caught.value.problems)
    return [line.removeprefix(f"{path}: ") for line in caught.value.problems]


def test_a_whole_profile(write):
    assert load_profile(write(WHOLE)) == Profile(
        name="cam-1",
        version=3,
        description="the cameras of precinct 7",
        erase=EraseMethod.CLEAR,
        matches=(
            Match(
                medium=MediumKind.VOLUMES,
                vendor_id="1d6b",
                product_id="0104",
                label="BODYCAM*",
                filesystem="exfat",
                must_exist=b"DCIM/100",
            ),
            Match(medium=MediumKind.MTP),
        ),
        files=FileRules(
            clips=Pattern(directories=("DCIM",), suffixes=(".mp4",)),
            sidecars=Pattern(names=("*.gps",)),
            noise=Pattern(directories=("System Volume Information",)),
            evidence=Evidence(directories=("RO",), name_flags=("_EVD",), categories=("EVD",), read_only=True),
        ),
        names=ClipNames(templates=("{year}{month}{day}_{sequence}",), time_zone="Europe/Berlin"),
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("version = 1", "version = 0"), "version: found 0; allowed: a whole number from 1"),
        (("version = 1\n", ""), "version: found nothing; allowed: a whole number from 1"),
        (('medium = "storage"', 'medium = "usb"'), 'match[0].medium: found "usb"; allowed: "storage" or "mtp"'),
        (('medium = "storage"', ""), 'match[0].medium: found nothing; allowed: "storage" or "mtp"'),
        (
            ('"storage"', '"storage"\nvendor = "1d6b"'),
            "match[0].vendor: found an unknown key (did you mean vendor_id?)",
        ),
        (('"storage"', '"storage"\nvendor_id = 1'), "match[0].vendor_id: found 1; allowed: the USB vendor id"),
        (('"storage"', '"storage"\nvendor_id = "0x1d"'), 'match[0].vendor_id: found "0x1d"; allowed'),
        (
            ('"storage"', '"storage"\nproduct_id = "0104"'),
            "match[0]: found a table; allowed: one or more tables [[match]]",
        ),
        (
            ('"storage"', '"mtp"\nlabel = "X"'),
            "match[0]: found a table; allowed: one or more tables [[match]]; in each",
        ),
        (('"storage"', '"storage"\nmust_exist = "/DCIM"'), 'match[0].must_exist: found "/DCIM"; allowed: a path below'),
        (('"storage"', '"storage"\nmust_exist = "../x"'), 'match[0].must_exist: found "../x"'),
        (('[[match]]\nmedium = "storage"\n', ""), "match: found nothing; allowed: one or more tables [[match]]"),
        (('"storage"', '"storage"\n[clips]\nsuffixes = ["mp4"]'), 'clips.suffixes[0]: found "mp4"; allowed: a list of'),
        (
            ('"storage"', '"storage"\n[clips]\nsufixes = []'),
            "clips.sufixes: found an unknown key (did you mean suffixes?)",
        ),
        (('"storage"', '"storage"\n[names]\ntime_zone = "Mars"'), 'names.time_zone: found "Mars"; allowed: "station"'),
        (
            ('"storage"', '"storage"\n[names]\ntemplates = ["{yr}"]'),
            'names.templates[0]: found "{yr}"; allowed: a template;',
        ),
        (('"a camera"\n', '"a camera"\nerase = "purge"\n'), 'erase: found "purge"; allowed: "delete", "clear"'),
        (("version", "vresion"), "version: found nothing"),
    ],
)
def test_a_mistake_names_file_and_key(write, change, line):
    assert mistakes(write(LEAST.replace(*change)))[0].startswith(line)


@pytest.mark.parametrize("name", ["folder.toml", "Cam.toml", "a b.toml", "-.toml"])
def test_a_profile_is_called_as_its_file_is(write, name):
    (line,) = mistakes(write(LEAST, name))
    assert line.startswith("its name: found ")


def test_a_file_that_is_no_profile(write):
    assert "is no TOML" in mistakes(write("["))[0]
    assert mistakes(write(LEAST + "#" * 20_000))[0].startswith("found 20")


def test_all_mistakes_in_all_files_are_told_at_once(write, tmp_path):
    write(LEAST, "a.toml")
    write("version = 1", "b.toml")
    write("", "c.toml")
    write("not a profile", "README")
    write("not a profile", ".hidden.toml")
    with pytest.raises(ConfigError) as caught:
        load_profiles(tmp_path / "cameras.d")
    assert {Path(line.split(": ")[0]).name for line in caught.value.problems} == {"b.toml", "c.toml"}
    with pytest.raises(ConfigError, match="cannot be listed"):
        load_profiles(tmp_path / "none")


@pytest.mark.parametrize(
    ("zone", "written", "started_at"),
    [
        ("utc", "20260701_1", datetime(2026, 7, 1, tzinfo=UTC)),
        ("Europe/Berlin", "20260701_1", datetime(2026, 6, 30, 22, tzinfo=UTC)),
        ("Europe/Berlin", "20260101_1", datetime(2025, 12, 31, 23, tzinfo=UTC)),
        ("Europe/Berlin", "00010101_1", None),  # before the first year that there is
        ("Never/Never", "20260701_1", None),  # was known when the file was read
    ],
)
def test_a_time_in_a_name_is_placed_by_its_rule(zone, written, started_at):
    names = ClipNames(templates=("{year}{month}{day}_{sequence}",), time_zone=zone)
    local = f"{written[:4]}-{written[4:6]}-{written[6:8]}T00:00:00"
    assert named(names, f"DCIM/{written}.mp4".encode()) == Named(
        started_at=started_at, local=local, time_zone=zone, sequence="1"
    )
    assert named(names, b"DCIM/other.mp4") is None


def test_the_stations_zone_is_that_of_its_clock():
    names = ClipNames(templates=("{year}{month}{day}_{hour}{minute}",))
    found = named(names, b"20260701_1200.mp4")
    assert found.started_at == datetime(2026, 7, 1, 12).astimezone(UTC)
    assert (found.local, found.time_zone) == ("2026-07-01T12:00:00", "station")


# --- a running station


class Alarms:
    def __init__(self):
        self.told = asyncio.Queue()

    def set(self, topic, words):
        self.told.put_nowait(words)


@pytest.fixture
def station(tmp_path, write):
    for name in ("m.key", "c.key", "r.txt", "ca.crt", "s.pub"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o600)
    write(LEAST)
    config = tmp_path / "dockd.toml"
    config.write_text(
        '[station]\nid = "11111111-1111-4111-8111-111111111111"\nstate_dir = "state"\n'
        '[keys]\nmanifest = "m.key"\ncheckpoint = "c.key"\n[bays.ports]\n1 = ["0000:00:14.0/1"]\n'
        '[cameras]\ndirectory = "cameras.d"\n[seal]\nrecipients_file = "r.txt"\n'
        '[store.archive]\nurl = "https://x"\nca_file = "ca.crt"\nkey_file = "s.pub"\n'
    )
    return config


async def test_a_changed_profile_is_taken_over_and_a_broken_one_is_not(station, write):
    config = load_station(station)
    live, alarms = Live(station, config, known_profiles(config)), Alarms()
    following = asyncio.create_task(live.follow(alarms))
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            write(LEAST.replace("version = 1", "version = 2"))
            while live.profiles()[0].version != 2:
                await alarms.told.get()
            write(LEAST.replace("version = 1", "version = 0"))
            while "version: found 0" not in (words := await alarms.told.get()):
                pass
            assert "the changed configuration is not used" in words
            assert live.profiles()[0].version == 2
            write(LEAST.replace("version = 1", "version = 3"), "second.toml")
            write(LEAST)
            while [one.version for one in live.profiles()] != [1, 3]:
                await alarms.told.get()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert live.rules(live.profiles()[0]).files == live.profiles()[0].files


def test_without_usb_ports_no_profile_is_needed(station):
    text = station.read_text().replace('[bays.ports]\n1 = ["0000:00:14.0/1"]', '[bays]\nfolder_root = "."')
    station.write_text(text.replace('directory = "cameras.d"', 'directory = "none"'))
    (station.parent / "1").mkdir()
    config = load_station(station)
    assert isinstance(config, StationConfig)
    assert known_profiles(config) == ()
