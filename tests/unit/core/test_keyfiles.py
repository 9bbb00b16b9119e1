import pytest

from dockd.core.keyfiles import (
    StationPublic,
    StorePublic,
    format_station_pub,
    format_store_pub,
    parse_station_pub,
    parse_store_pub,
)
from dockd.core.sshsig import SigningKey
from dockd.errors import VerificationFailed

ID, OTHER = "6f1e2d3c-0000-4000-8000-000000000001", "6f1e2d3c-0000-4000-8000-000000000002"
ONE, TWO = SigningKey.generate().public, SigningKey.generate().public


def test_key_files_are_read_back():
    store = StorePublic(store=ID, key=ONE)
    station = StationPublic(station=ID, manifest_key=ONE, checkpoint_key=TWO)
    assert parse_store_pub(format_store_pub(store)) == store
    assert parse_station_pub("# enrolled by hand\n\n" + format_station_pub(station)) == station


@pytest.mark.parametrize(
    "text",
    [
        "",
        ONE.line("") + "\n",
        ONE.line("dockd-store:no-uuid") + "\n",
        ONE.line(f"dockd-station:{ID}") + "\n",
        ONE.line(f"dockd-store:{ID.upper()}") + "\n",
        ONE.line(f"dockd-store:{ID}") + "\n" + TWO.line(f"dockd-store:{ID}") + "\n",
        f"ssh-rsa AAAA dockd-store:{ID}\n",
    ],
)
def test_what_is_no_store_pub_is_refused(text):
    with pytest.raises(VerificationFailed):
        parse_store_pub(text)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([ONE.line(f"dockd-station:{ID}")], "no key with the comment 'dockd-checkpoint"),
        ([ONE.line(f"dockd-station:{ID}"), TWO.line(f"dockd-checkpoint:{OTHER}")], "two stations"),
        ([ONE.line(f"dockd-station:{ID}"), ONE.line(f"dockd-checkpoint:{ID}")], "must not be the manifest key"),
        ([ONE.line(f"dockd-station:{ID}"), TWO.line(f"dockd-station:{ID}")], "line 2"),
    ],
)
def test_what_is_no_station_pub_is_refused(lines, why):
    with pytest.raises(VerificationFailed, match=why):
        parse_station_pub("\n".join(lines))
