"""A journal from when there was one store: what it confirmed stays confirmed, what was under way goes on."""

import json
import sqlite3
from importlib import resources

import pytest

from dockd.core.lifecycle import DeliveryState
from dockd.faults import Faults
from dockd.keep.database import connect
from dockd.keep.deliveries import DeliveryQueries

STORE, OTHER = "6f1e2d3c-0000-4000-8000-000000000002", "6f1e2d3c-0000-4000-8000-000000000003"
DIGEST = "sha256:" + "ab" * 32
_COLUMNS = {
    "docking": "d",
    "bay": 1,
    **dict.fromkeys(("serial", "model", "volume_id", "vendor", "product"), ""),
    "path": b"A.mp4",
    "size_bytes": 1,
    "mtime_ns": "1",
    "inode": "1",
    "links": 1,
    "category": "none",
    "category_reason": "",
    **dict.fromkeys(("attempts", "readers_ended", "contested"), 0),
    **dict.fromkeys(("sealed_file", "plaintext_digest", "sealed_digest", "verdict"), "x"),
    "sealed_size_bytes": 300,
}
STATES = {"a": "spooled", "b": "uploading", "c": "stored", "d": "erased", "e": "quarantined", "f": "found"}


def insert(connection, table, columns):
    marks = ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608  names from this file


@pytest.fixture
def journal(tmp_path):
    """A journal of version 3, with a clip in each state; one that is stored was signed for."""
    path = tmp_path / "journal"
    with sqlite3.connect(path) as old:
        for number in (1, 2, 3):
            old.executescript((resources.files("dockd.keep") / "sql" / f"{number:04}.sql").read_text())
        old.execute(f"PRAGMA application_id = {0x646F636B}")
        old.execute("PRAGMA user_version = 3")
        old.execute("INSERT INTO docking VALUES ('d', 1, 1, x'00', 'ended', 0, NULL, NULL, NULL, NULL, NULL)")
        for number, (name, state) in enumerate(STATES.items()):
            sealed = {} if state == "found" else {"upload_url": f"/u/{name}"}
            insert(old, "acquisition", _COLUMNS | {"acquisition": name, "state": state, "found_at_us": number} | sealed)
        for number, name in enumerate(("c", "d"), start=1):
            receipt = {"store": STORE, "receipt_seq": number, "acquisition": name, "payload": b"r", "signature": "s"}
            insert(old, "receipt", receipt | {"digest": DIGEST})
        for key, value in {"witnessed_by": STORE, "witnessed_size": "17", "witnessed_entry": "18"}.items():
            insert(old, "setting", {"key": key, "value": value})
    old.close()
    return path


def opened(path):
    connection = connect(path, Faults())
    return connection, DeliveryQueries(connection)


def test_p02_what_one_store_confirmed_stays_confirmed_and_the_rest_goes_on(journal):
    connection, queries = opened(journal)
    found = {name: queries.deliveries(name) for name in STATES}
    settings = dict(connection.execute("SELECT key, value FROM setting").fetchall())
    (problem,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    assert problem == "ok"
    assert [name for name, one in found.items() if one] == ["b", "c", "d"]
    assert (found["b"][0].store, found["b"][0].state, found["b"][0].upload_url) == (
        STORE,
        DeliveryState.REGISTERED,
        "/u/b",
    )
    for name in ("c", "d"):
        (one,) = found[name]
        assert (one.store, one.state, one.confirmation_digest) == (STORE, DeliveryState.CONFIRMED, DIGEST)
    assert settings == {f"witnessed_size/{STORE}": "17"}


def test_where_the_store_is_not_known_for_sure_an_upload_is_registered_again(journal):
    with sqlite3.connect(journal) as old:
        insert(old, "setting", {"key": f"receipt_asked/{OTHER}", "value": ""})
    old.close()
    connection, queries = opened(journal)
    assert queries.deliveries("b") == []
    assert [one.state for one in queries.deliveries("c")] == ["confirmed"]
    connection.close()


def test_p06_a_release_of_before_covers_what_could_be_seen_of_the_clip(journal):
    released = {
        "damaged": ("damaged", 1, ["damaged"]),
        "nothing": ("damaged", 0, ["damaged", "empty"]),
        "empty": ("intact", 0, ["empty"]),
        "unclean": ("intact", 1, []),
    }
    with sqlite3.connect(journal) as old:
        for name, (verdict, size, _) in released.items():
            row = {"acquisition": name, "state": "stored", "found_at_us": 9, "verdict": verdict, "size_bytes": size}
            insert(old, "acquisition", _COLUMNS | row | {"released_by": "anna"})
    old.close()
    connection, _ = opened(journal)
    found = dict(connection.execute("SELECT acquisition, released_for FROM acquisition").fetchall())
    connection.close()
    assert {name: json.loads(found[name]) for name in released} == {name: row[2] for name, row in released.items()}
    assert found["a"] == "[]"
