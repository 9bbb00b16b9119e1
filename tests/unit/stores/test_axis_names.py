"""Names and metadata of recordings, whatever a camera says of itself."""

import uuid
from datetime import UTC, datetime
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dockd.core import canonical
from dockd.model import CameraIdentity, Named
from dockd.stores.axis_names import MAX_VALUE_BYTES, encoded_value, escaped, headers, path, recording, segment, value

STATION = "6f1e2d3c-0000-4000-8000-000000000001"
ACQUISITION = "019c16f2-0000-7000-8000-000000000003"
NOW = datetime(2026, 1, 31, 23, 59, 59, 123000, tzinfo=UTC)
HOSTILE = st.text(st.characters(), max_size=400)


@pytest.fixture(scope="session")
def named(make_manifest):
    """What a manifest with these changes is called."""
    return lambda **changes: recording(make_manifest(**changes), "d" * 64, STATION, acquired_at=NOW)


def test_a_recording_is_called_as_the_api_says(named):
    found = named()
    user, serial, moment = found.containers[0].split("_")
    assert (str(uuid.UUID(user)), serial, moment) == (found.user, "B8A44F0A1B2C", "20260131T200000Z")
    assert found.containers[1] == f"{found.containers[0]}_{ACQUISITION}"
    assert found.sealed == f"20260131_200000_{ACQUISITION}.mp4"
    assert found.manifest == f"20260131_200000_{ACQUISITION}.manifest.json"
    assert found.signature == found.manifest + ".sig"
    said = found.container_metadata
    assert (said["StartTime"], said["StartTimeISO"]) == ("1769889600", "2026-01-31T20:00:00Z")
    assert (said["StopTime"], said["StopTimeISO"]) == ("1769889661", "2026-01-31T20:01:01Z")
    assert (said["Status"], said["Dockd-Acquisition"], said["Dockd-Manifest"]) == (
        "Transferring",
        ACQUISITION,
        "d" * 64,
    )
    assert found.clip_metadata["Dockd-Digest"] == canonical.digest(b"sealed")


@pytest.mark.parametrize(
    ("changes", "stamp", "source"),
    [
        ({"recorded_at": None}, "20260131T235959Z", "mtime"),
        ({"recorded_at": None, "mtime_ns": 10**30}, "20260131T235959Z", "acquired"),
        ({"recorded_at": datetime(1, 1, 1, tzinfo=UTC)}, "00010101T000000Z", "container"),
        (
            {"recorded_at": datetime(9999, 12, 31, 23, 59, tzinfo=UTC), "duration_ms": 10**9},
            "99991231T235900Z",
            "container",
        ),
    ],
)
def test_the_time_that_a_recording_is_called_by(named, changes, stamp, source):
    found = named(**changes)
    assert found.containers[0].endswith("_" + stamp)
    assert found.container_metadata["Dockd-Time-Source"] == source


def test_one_officer_is_one_user_on_every_dock(make_manifest, named):
    officers = {name: Named(officer=name) for name in ("4711", "4712")}
    users = {
        name: recording(make_manifest(profile="p", profile_version=1, named=one), "", station, acquired_at=NOW).user
        for station in (STATION, str(uuid.uuid4()))
        for name, one in officers.items()
    }
    assert len(set(users.values())) == 2
    assert named().officer == "unassigned"


@settings(deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE)
@example("\ud800", "\udfff", "\ud800")
def test_no_name_of_a_camera_leaves_its_place(named, serial, model, officer):
    camera = CameraIdentity(serial=serial, model=model, volume_id="v")
    found = named(camera=camera, profile="p", profile_version=1, named=Named(officer=officer))
    for container in found.containers:
        assert len(container.encode()) <= 256
        assert container.isascii()
        assert container.isprintable()
        assert not set(container) & set("/ \\?#")
    said = {
        **headers("Container", found.container_metadata),
        **headers("Object", found.clip_metadata),
        **headers("Object", {"Name": found.officer, "Model": found.model}),
    }
    for name, text in said.items():
        assert name.replace("-", "").isalnum()
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
        assert 0 < len(text) <= MAX_VALUE_BYTES
    asked = httpx.URL("https://store.example/v1/a" + path(found.containers[0], found.sealed))
    assert asked.raw_path.decode().count("/") == 4
    parts = asked.raw_path.decode().split("/")[3:]
    assert [unquote(part) for part in parts] == [found.containers[0], found.sealed]
    device = httpx.URL("https://store.example/v1/a" + path("Devices", found.device)).raw_path.decode()
    assert unquote(device.removeprefix("/v1/a/Devices/")) == found.device


@settings(deadline=None)
@given(HOSTILE, HOSTILE)
def test_two_serials_never_share_a_name(one, other):
    same = one.encode(errors="replace") == other.encode(errors="replace")
    assert (escaped(one) == escaped(other)) == same


def test_a_serial_made_like_a_cut_one_has_another_name():
    cut = escaped("x" * 100)
    assert len(cut) <= 72
    assert escaped(cut) != cut


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("B8A44F0A1B2C", "B8A44F0A1B2C"),
        ("BC_17.a~b-c", "BC_17.a%7Eb-c"),
        ("", "%-"),
        ("..", "%2E%2E"),
        ("a/../b", "a%2F..%2Fb"),
        ("a\r\nX-Delete-At: 1", "a%0D%0AX-Delete-At%3A%201"),
        ("Kamera Ü", "Kamera%20%C3%9C"),
        ("\ud800", "%3F"),
    ],
)
def test_escaped(text, name):
    assert escaped(text) == name


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_value_comes_back_as_it_was(text):
    encoded = encoded_value(text)
    if len(text.encode(errors="replace")) * 3 <= MAX_VALUE_BYTES:
        given = {"x-object-meta-name": encoded}
        assert value(given, "object", "Name") == text.encode(errors="replace").decode()


@settings(deadline=None)
@given(st.text(min_size=100, max_size=400))
def test_a_long_value_is_cut_at_a_character(text):
    encoded = encoded_value(text)
    assert len(encoded) <= MAX_VALUE_BYTES
    assert text.encode(errors="replace").decode().startswith(unquote(encoded, errors="strict"))


def test_segments_sort_by_their_offset():
    offsets = [0, 9, 10, 10**9, 10**15]
    found = [segment(ACQUISITION, offset) for offset in offsets]
    assert found == sorted(found)
    assert len(set(found)) == len(offsets)
