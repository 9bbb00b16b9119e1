"""A manifest as the station states one."""

import dataclasses
from datetime import UTC, datetime

import pytest

from dockd.core import canonical
from dockd.core.manifest import Manifest
from dockd.model import CameraIdentity, Category, VerdictStatus

STATION = "6f1e2d3c-0000-4000-8000-000000000001"
ACQUISITION = "019c16f2-0000-7000-8000-000000000003"


def _manifest(**changes):
    stated = Manifest(
        acquisition=ACQUISITION,
        station=STATION,
        bay=3,
        docking="019c16f2-0000-7000-8000-000000000004",
        camera=CameraIdentity(serial="B8A44F0A1B2C", model="W110", volume_id="6A7F-01D2"),
        path=b"DCIM/A.MP4",
        size_bytes=1000,
        mtime_ns=1_769_903_999_123_456_789,
        recorded_at=datetime(2026, 1, 31, 20, tzinfo=UTC),
        duration_ms=61_500,
        clock_offset_ms=None,
        category=Category.EVIDENCE,
        category_reason="flagged",
        verdict=VerdictStatus.INTACT,
        reasons=(),
        container="fragmented-mp4",
        plaintext_digest=canonical.digest(b"plain"),
        plaintext_size_bytes=1000,
        sealed_digest=canonical.digest(b"sealed"),
        sealed_size_bytes=1300,
        recipients=("sha256:" + "1" * 64,),
        dockd="0.1.0",
        custody_seq=7,
        nonce=bytes(32),
    )
    return dataclasses.replace(stated, **changes)


@pytest.fixture(scope="session")
def make_manifest():
    return _manifest
