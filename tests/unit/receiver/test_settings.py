"""How much of a disk a station may have, and for how long an announcement reserves it."""

from datetime import timedelta
from pathlib import Path

import pytest

from dockd.core.sshsig import SigningKey
from dockd.receiver.settings import ReceiverSettings

GB = 10**9


def made(**more):
    return ReceiverSettings(
        directory=Path("/d"),
        listen_host="127.0.0.1",
        listen_port=0,
        tls_cert=Path("/c"),
        tls_key=Path("/k"),
        store="0190a5c0-0000-4000-8000-00000000000a",
        key=SigningKey.generate(),
        public_hosts=frozenset(),
        allowed_recipients=frozenset(),
        **more,
    )


@pytest.mark.parametrize(
    ("disk", "share"), [(100_000 * GB, 10_000 * GB), (5_000 * GB, 800 * GB), (1_000 * GB, 500 * GB), (20 * GB, 10 * GB)]
)
def test_a_station_has_a_tenth_of_a_large_disk_a_shift_of_16_bays_on_others_and_half_of_a_small_one(disk, share):
    assert made().station_share(disk) == share


@pytest.mark.parametrize(
    ("kept", "unused", "begun"),
    [(timedelta(days=7), timedelta(days=1), timedelta(days=7)), (timedelta(hours=1),) * 3],
)
def test_an_announcement_without_a_byte_reserves_room_for_a_day_at_most(kept, unused, begun):
    settings = made(upload_expiry=kept)
    assert settings.expiry(0) == unused
    assert settings.expiry(1) == begun
