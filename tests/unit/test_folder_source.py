"""The folder source: what it reports, and what it refuses."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from dockd.core.marker import format_marker, parse_marker
from dockd.devices.folder import FolderSource
from dockd.devices.marker import make_marker, read_marker
from dockd.devices.port import Plugged, Unplugged
from dockd.errors import CameraGone, CameraRefused
from dockd.model import BayNumber, CameraIdentity

MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BAY = BayNumber(1)


def camera(directory, serial="CAM-1"):
    directory.mkdir(parents=True)
    return make_marker(directory, serial=serial, made_at=MADE, random=os.urandom)


async def attach(source, plugged):
    return await source.attach(plugged, await source.identify(plugged))


@asynccontextmanager
async def following(source):
    """The source's events, as a function that waits for the next."""
    events = source.events()

    async def following_event():
        async with asyncio.timeout(20):
            return await anext(events)

    try:
        yield following_event
    finally:
        await events.aclose()


@pytest.fixture
def bays(tmp_path):
    for number in (1, 2):
        (tmp_path / "bays" / str(number)).mkdir(parents=True)
    return {BayNumber(number): tmp_path / "bays" / str(number) for number in (1, 2)}


def test_marker_survives_the_way_to_disk_and_back(tmp_path):
    made = camera(tmp_path / "cam", serial="A.b_c-9")
    fd = os.open(tmp_path / "cam", os.O_RDONLY)
    try:
        assert read_marker(fd) == made
    finally:
        os.close(fd)
    assert [entry.name for entry in (tmp_path / "cam").iterdir()] == ["dockd-camera.toml"]
    assert made.serial == "A.b_c-9"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[camera]\n",
        b"camera = 1\n",
        b'[camera]\nserial = "a b"\nmodel = "m"\nvolume_id = "abcd"\n',
        b'[camera]\nserial = 7\nmodel = "m"\nvolume_id = "abcd"\n',
        b'[camera]\nserial = "a"\nmodel = "m"\nvolume_id = "x"\n',
        b"a = " + b"[" * 4000,
        b"#" * 5000,
    ],
)
def test_p08_an_unsound_marker_is_refused_with_a_sentence(content):
    with pytest.raises(CameraRefused, match=r"dockd-camera\.toml"):
        parse_marker(content)


def test_a_marker_that_could_not_be_read_back_is_not_made():
    identity = CameraIdentity(serial="", model='a"b', volume_id="abcd")
    with pytest.raises(CameraRefused, match=r"serial is '', .*model is"):
        format_marker(identity, MADE)


def test_a_camera_is_not_made_twice(tmp_path):
    camera(tmp_path / "cam")
    with pytest.raises(CameraRefused, match="already is a camera"):
        make_marker(tmp_path / "cam", serial="X", made_at=MADE, random=os.urandom)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "missing"])
def test_p08_a_marker_that_is_no_plain_file_is_refused_at_once(tmp_path, kind):
    root = tmp_path / "cam"
    root.mkdir()
    marker = root / "dockd-camera.toml"
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(b"x")
        marker.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(marker)
    elif kind == "directory":
        marker.mkdir()
    fd = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(CameraRefused):
            read_marker(fd)
    finally:
        os.close(fd)


async def test_present_renamed_in_and_renamed_away_are_reported(bays, tmp_path):
    camera(bays[1] / "first")
    source = FolderSource(bays)
    async with following(source) as following_event:
        first = await following_event()
        assert isinstance(first, Plugged)
        assert (first.bay, first.label) == (1, "first")
        attachment = await attach(source, first)
        assert attachment.identity.serial == "CAM-1"
        assert await attachment.identify_again() == attachment.identity
        camera(tmp_path / "second", serial="CAM-2")
        (tmp_path / "second").rename(bays[2] / "second")
        second = await following_event()
        assert (second.bay, second.label) == (2, "second")
        (bays[1] / "first").rename(tmp_path / "away")
        assert await following_event() == Unplugged(bay=BAY, device=first.device)
        with pytest.raises(CameraGone):
            await attachment.identify_again()
        with pytest.raises(CameraGone):
            await attach(source, first)
        await attachment.aclose()
        await attachment.aclose()
        with pytest.raises(CameraGone):
            _ = attachment.medium


async def test_p08_a_folder_that_is_no_camera_is_refused_and_nothing_in_it_touched(bays):
    (bays[1] / "holiday").mkdir()
    (bays[1] / "holiday" / "film.mp4").write_bytes(b"mine")
    before = (bays[1] / "holiday" / "film.mp4").stat()
    source = FolderSource(bays)
    async with following(source) as following_event:
        plugged = await following_event()
        with pytest.raises(CameraRefused, match=r"dockd camera make .*nothing in it was touched"):
            await attach(source, plugged)
    assert (bays[1] / "holiday" / "film.mp4").stat() == before


async def test_a_marker_that_comes_late_makes_it_a_camera(bays):
    (bays[1] / "cam").mkdir()
    source = FolderSource(bays, relook_s=0.01)
    async with following(source) as following_event:
        bare = await following_event()
        make_marker(bays[1] / "cam", serial="L", made_at=MADE, random=os.urandom)
        assert await following_event() == Unplugged(bay=BAY, device=bare.device)
        attachment = await attach(source, await following_event())
        assert attachment.identity.serial == "L"
        await attachment.aclose()


async def test_p08_a_second_folder_in_a_bay_waits_until_the_first_left(bays, tmp_path):
    camera(bays[1] / "zz-first")
    source = FolderSource(bays)
    async with following(source) as following_event:
        first = await following_event()
        camera(tmp_path / "aa", serial="CAM-2")
        (tmp_path / "aa").rename(bays[1] / "aa-second")
        second = await following_event()
        with pytest.raises(CameraRefused, match="already holds zz-first"):
            await attach(source, second)
        (bays[1] / "zz-first").rename(tmp_path / "away")
        assert await following_event() == Unplugged(bay=BAY, device=first.device)
        assert await following_event() == Unplugged(bay=BAY, device=second.device)
        again = await following_event()
        assert again == second
        attachment = await attach(source, again)
        assert attachment.identity.serial == "CAM-2"
        await attachment.aclose()


async def test_p08_another_directory_under_the_same_name_is_another_device(bays, tmp_path):
    camera(bays[1] / "cam", serial="A")
    camera(tmp_path / "other", serial="B")
    source = FolderSource(bays)
    async with following(source) as following_event:
        first = await following_event()
        (bays[1] / "cam").rename(tmp_path / "away")
        (tmp_path / "other").rename(bays[1] / "cam")
        seen = [await following_event(), await following_event()]
        assert seen[0] == Unplugged(bay=BAY, device=first.device)
        attachment = await attach(source, seen[1])
        assert attachment.identity.serial == "B"
        await attachment.aclose()


async def test_a_folder_that_left_and_came_back_between_two_looks_has_left(bays, tmp_path):
    camera(bays[1] / "cam")
    source = FolderSource(bays, relook_s=3600)
    async with following(source) as following_event:
        first = await following_event()
        (bays[1] / "cam").rename(tmp_path / "away")
        (tmp_path / "away").rename(bays[1] / "cam")
        assert await following_event() == Unplugged(bay=BAY, device=first.device)
        assert await following_event() == first


async def test_more_names_than_are_noted_undock_everything(bays):
    camera(bays[1] / "cam")
    source = FolderSource(bays, relook_s=3600)
    async with following(source) as following_event:
        first = await following_event()
        for number in range(300):
            source.call(source._bays[BAY], f"ghost-{number}")
        assert await following_event() == Unplugged(bay=BAY, device=first.device)
        assert await following_event() == first


async def test_a_bay_directory_made_anew_is_watched_again(bays, tmp_path):
    source = FolderSource(bays, relook_s=0.01)
    async with following(source) as following_event:
        camera(tmp_path / "one", serial="A")
        (tmp_path / "one").rename(bays[1] / "one")
        first = await following_event()
        bays[1].rename(tmp_path / "old-bay")
        assert await following_event() == Unplugged(bay=BAY, device=first.device)
        camera(bays[1] / "two", serial="B")
        second = await following_event()
        assert second.label == "two"


async def test_files_and_links_in_a_bay_are_no_devices(bays, tmp_path):
    camera(tmp_path / "cam")
    (bays[1] / "note.txt").write_text("x")
    (bays[1] / "link").symlink_to(tmp_path / "cam")
    camera(bays[2] / "cam\n\udcff", serial="B")
    source = FolderSource(bays)
    async with following(source) as following_event:
        only = await following_event()
        assert only.bay == 2
        assert only.label == "cam\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
        only.device.encode("ascii")
