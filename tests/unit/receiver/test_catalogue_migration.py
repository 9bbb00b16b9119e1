"""A receiver's catalogue from before clips could be shared: what it has can be found by camera and plaintext."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from importlib import resources

import pytest

from dockd.core import canonical
from dockd.errors import ConfigError
from dockd.receiver import rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.left import uploads_left
from dockd.receiver.promises import promises_kept

MANIFEST = canonical.encode(
    {"type": "manifest", "v": 1, "camera": {"serial": "CAM1"}, "plaintext": {"digest": "sha256:" + "ab" * 32}}
)


@pytest.fixture
def directory(tmp_path):
    """A catalogue of version 1 with a clip that was stored, and an upload."""
    with closing(sqlite3.connect(tmp_path / "catalogue.sqlite")) as old:
        old.executescript((resources.files("dockd.receiver") / "sql" / "0001.sql").read_text())
        old.execute(f"PRAGMA application_id = {0x646F7263}")
        old.execute("PRAGMA user_version = 1")
        for name, state, durable in (("stored", "stored", 300), ("open", "open", 7)):
            old.execute(
                "INSERT INTO acquisition VALUES ('station', ?, ?, ?, ?, 's', 'd', ?, 300, 2, ?, 1000000)",
                (name, name, state, MANIFEST, name, durable),
            )
        receipt = canonical.encode({"type": "receipt", "v": 1, "at": "2025-12-01T10:00:00.000Z"})
        old.execute("INSERT INTO receipt VALUES ('station', 1, 'stored', ?, 's', 'd', 0)", (receipt,))
        old.commit()
    return tmp_path


async def test_what_was_stored_can_be_found_by_camera_and_plaintext(directory):
    catalogue = await Catalogue.open(directory, may_be_new=False)
    try:
        found = await catalogue.run(
            lambda db: [
                tuple(row)
                for row in db.execute(
                    "SELECT acquisition, camera_serial, plaintext_digest FROM acquisition ORDER BY acquisition"
                )
            ]
        )
        assert found == [(name, "CAM1", "sha256:" + "ab" * 32) for name in ("open", "stored")]
        one = await catalogue.run(lambda db: rows.announced(db, "station", "stored"))
        assert one.announced_at is None
        since = await catalogue.run(lambda db: db.execute("SELECT since_us, looked_us FROM look").fetchone())
        assert tuple(since) == (1_764_583_200_000_000, None), "it was never looked at since its receipt"
    finally:
        await catalogue.aclose()
    (left,) = uploads_left(directory)
    assert (left.acquisition, left.since, left.durable_bytes) == ("open", None, 7)
    assert "since an older version" in left.sentence()


def test_uploads_of_an_older_catalogue_are_listed_after_the_receiver_was_started_once(directory):
    with pytest.raises(ConfigError) as caught:
        list(uploads_left(directory))
    assert "catalogue.sqlite" in caught.value.problems[0]


async def test_receipts_from_before_there_was_a_policy_keep_their_date_and_are_listed(directory):
    catalogue = await Catalogue.open(directory, may_be_new=False)
    await catalogue.aclose()
    (kept,) = promises_kept(directory)
    assert (kept.acquisition, kept.category, kept.is_late) == ("stored", None, False)
    assert kept.keep_until == datetime(1970, 1, 1, tzinfo=UTC)
    assert kept.held == ("station", "stored")
    assert (kept.to_json()["category"], kept.to_json()["recorded"]) == (None, None)
    assert "given before there was a policy" in kept.sentence()
