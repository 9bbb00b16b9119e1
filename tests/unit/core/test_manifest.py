import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core import canonical, manifest
from dockd.errors import VerificationFailed
from dockd.model import Named, VerdictStatus

NAMED = Named(
    started_at=datetime(2026, 2, 1, 6, 30, tzinfo=UTC),
    local="2026-02-01T07:30:00",
    time_zone="Europe/Berlin",
    sequence="007",
    officer="A17",
    category="EVD",
)


def test_a_manifest_is_read_back(clip):
    for stated in (
        clip.manifest(),
        clip.manifest(recorded_at=None, duration_ms=None, clock_offset_ms=-1500),
        clip.manifest(verdict=VerdictStatus.DAMAGED, reasons=("cut off at byte 10",), container="unknown"),
        clip.manifest(role="sidecar", of=clip.acquisition),
        clip.manifest(mtime_ns=-1, path=b"\x00\x1b[2J"),
        clip.manifest(mtime_ns=2**70),
        clip.manifest(profile="body-cam", profile_version=2),
        clip.manifest(profile="body-cam", profile_version=2, named=NAMED, recorded_at=None),
        clip.manifest(profile="body-cam", profile_version=2, named=Named(officer="A17")),
    ):
        assert manifest.decode(manifest.encode(stated)) == stated


def second(clip, **changes):
    """A manifest of version 2, as JSON, with the time of its name."""
    stated = clip.manifest(profile="body-cam", profile_version=2, named=NAMED, recorded_at=None)
    record = json.loads(manifest.encode(stated)) | changes
    return canonical.encode(record)


def test_a_profile_makes_it_version_2(clip):
    assert json.loads(manifest.encode(clip.manifest(named=NAMED)))["v"] == 1
    record = json.loads(second(clip))
    assert record["v"] == 2
    assert record["profile"] == {"name": "body-cam", "version": 2}
    assert (record["recorded_at"], record["recorded_at_source"]) == ("2026-02-01T06:30:00.000Z", "name")
    assert manifest.recorded(manifest.decode(second(clip))) == (NAMED.started_at, "name")


def test_the_container_knows_better_than_the_name(clip):
    stated = clip.manifest(profile="body-cam", profile_version=2, named=NAMED)
    assert manifest.recorded(stated) == (stated.recorded_at, "container")


@pytest.mark.parametrize(
    "change",
    [
        {"v": 1},
        {"v": 3},
        {"profile": {"name": "", "version": 2}},
        {"profile": {"name": "body-cam", "version": 0}},
        {"profile": {"name": "body-cam", "version": 2, "more": ""}},
        {"profile": None},
        {"named": None},  # then nothing says when it was recorded
        {"named": {"officer": "A17"}},
        {"recorded_at": "2026-02-01T06:30:01.000Z"},
        {"recorded_at": None},
        {"recorded_at": None, "recorded_at_source": "none"},
        {"recorded_at": None, "recorded_at_source": "container"},
    ],
)
def test_a_profile_that_contradicts_the_rest_is_refused(clip, change):
    manifest.decode(second(clip))
    with pytest.raises(VerificationFailed):
        manifest.decode(second(clip, **change))


def test_a_manifest_has_the_documented_fields(clip):
    record = json.loads(manifest.encode(clip.manifest()))
    assert record["path"] == "DCIM/100/A%20%FF.MP4"
    assert record["mtime"] == "2026-01-31T23:59:59.123Z"
    assert record["mtime_ns"] == "1769903999123456789"
    assert record["recorded_at_source"] == "container"
    assert record["plaintext"] == {"digest": clip.manifest().plaintext_digest, "size_bytes": 1000}
    assert record["nonce"] == "01" * 32
    assert (record["role"], record["of"]) == ("clip", None)


@pytest.mark.parametrize(
    ("mtime_ns", "mtime"),
    [
        (-1, "1969-12-31T23:59:59.999Z"),
        (-30_641_760_000 * 10**9, "0999-01-01T00:00:00.000Z"),
        (253_402_300_799_999_999_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800 * 10**9, None),
    ],
)
def test_a_file_systems_odd_times_are_stated_in_the_one_spelling(clip, mtime_ns, mtime):
    assert json.loads(manifest.encode(clip.manifest(mtime_ns=mtime_ns)))["mtime"] == mtime


@pytest.mark.parametrize(
    "change",
    [
        {"bay": "3"},
        {"bay": True},
        {"bay": 0},
        {"bay": -1},
        {"acquisition": "x"},
        {"path": "A%2fB"},
        {"path": "%ff"},
        {"mtime": "2026-01-31T23:59:59.124Z"},
        {"mtime": None},
        {"mtime_ns": "1_769_903_999_123_456_789"},
        {"mtime_ns": " 1769903999123456789"},
        {"mtime_ns": 1},
        {"recorded_at": None},
        {"recorded_at_source": "camera"},
        {"recorded_at": "2026-13-31T20:00:00.000Z"},
        {"category": "other"},
        {"verdict": "fine"},
        {"nonce": "01" * 31},
        {"nonce": "AB" * 32},
        {"recipients": "sha256:x"},
        {"recipients": [1]},
        {"camera": {}},
        {"plaintext": {"digest": "sha256:" + "0" * 64, "size_bytes": 1, "more": 1}},
        {"sealed": {"digest": "sha1:00", "size_bytes": 1}},
        {"size_bytes": 2**53},
        {"unknown": 1},
        {"v": 2},
        {"type": "receipt"},
    ],
)
def test_what_is_no_manifest_is_refused(clip, change):
    record = json.loads(manifest.encode(clip.manifest())) | change
    with pytest.raises(VerificationFailed):
        manifest.decode(json.dumps(record).encode())


def test_every_key_is_needed(clip):
    record = json.loads(manifest.encode(clip.manifest()))
    for key in record:
        with pytest.raises(VerificationFailed):
            manifest.decode(json.dumps({name: value for name, value in record.items() if name != key}).encode())


@given(payload=st.binary(max_size=100))
def test_junk_is_refused(payload):
    with pytest.raises(VerificationFailed):
        manifest.decode(payload)
