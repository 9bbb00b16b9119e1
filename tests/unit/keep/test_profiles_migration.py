"""A journal from before there were profiles: its clips are clips, without one."""

import sqlite3
from importlib import resources

from dockd.faults import Faults
from dockd.keep.database import connect
from dockd.keep.records import acquisition_of
from dockd.model import Role

_COLUMNS = {
    "acquisition": "a",
    "state": "found",
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
    **dict.fromkeys(("found_at_us", "attempts", "readers_ended", "contested"), 0),
}


def test_an_older_journal_is_taken_over(tmp_path):
    path = tmp_path / "journal"
    with sqlite3.connect(path) as old:
        old.executescript((resources.files("dockd.keep") / "sql" / "0001.sql").read_text())
        old.execute(f"PRAGMA application_id = {0x646F636B}")
        old.execute("PRAGMA user_version = 1")
        old.execute("INSERT INTO docking VALUES ('d', 1, 1, x'00', 'ended', 0, NULL, NULL, NULL, NULL, NULL)")
        marks = ", ".join("?" * len(_COLUMNS))
        old.execute(f"INSERT INTO acquisition ({', '.join(_COLUMNS)}) VALUES ({marks})", tuple(_COLUMNS.values()))  # noqa: S608  names from above
    old.close()
    now = connect(path, Faults())
    try:
        row = acquisition_of(now.execute("SELECT * FROM acquisition").fetchone())
    finally:
        now.close()
    assert (row.role, row.of, row.profile, row.profile_version, row.named) == (Role.CLIP, None, "", 0, None)
