"""What has to be true of a dock: at any instant, and at the end."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress

from fault.matrix.dock import Dock, digest

from dockd.app.verify import find_log, verify_custody
from dockd.core import receipts
from dockd.core.keyfiles import format_store_pub
from dockd.core.sealing import Opener
from dockd.model import SignedBytes


def events(dock: Dock) -> list[dict]:
    """The custody log's whole lines."""
    log = dock.state / "custody" / "custody.jsonl"
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def check_now(dock: Dock) -> None:
    """At any instant: a clip is whole on its camera, or it was stored and warranted, and the store has it whole."""
    clips = dock.clips
    # The camera first, the log afterwards: it is always ahead.
    touched = {name for name, content in clips.items() if _on_camera(dock, name) != content}
    told: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for line in events(dock):
        clip = line.get("acquisition")
        if clip:
            told.setdefault(clip, []).append(line["event"])
            if line["event"] == "acquisition.found":
                paths[clip] = line["details"]["path"]
    warranted = {
        paths[clip]
        for clip, seen in told.items()
        if "acquisition.stored" in seen and "acquisition.warranted" in seen[seen.index("acquisition.stored") :]
    }
    assert touched <= warranted, f"touched without a warrant: {touched - warranted}"
    stored = _stored(dock, whole_only=True)
    for name in touched:
        assert stored.get(name) == digest(clips[name]), f"{name} was touched, and the store does not have it"


def check_end(dock: Dock) -> None:
    """At the end: everything is stored once, verified and erased; the log is whole and nothing is left over."""
    check_now(dock)
    clips = dock.clips
    (camera,) = dock.bay.iterdir()
    left = sorted(path.name for path in camera.rglob("*"))
    assert left == ["dockd-camera.toml"], f"left on the camera: {left}"
    assert _stored(dock, whole_only=False) == {name: digest(content) for name, content in clips.items()}
    _check_receipts(dock, len(clips))
    assert not list((dock.store_directory / "uploads").iterdir())
    left = [path.name for path in dock.spool.rglob("*") if path.is_file()]
    assert not left, f"left in the spool: {left}"
    log = events(dock)
    names = [line["event"] for line in log]
    for event in ("acquisition.found", "acquisition.stored", "acquisition.erased"):
        assert names.count(event) == len(clips), f"{event}: {names.count(event)} times"
    key = dock.directory / "store.pub"
    key.write_text(format_store_pub(dock.store_public))
    checked = verify_custody(find_log(dock.state), against=None, store_key=key, station_key=None)
    assert checked.whole, (checked.doubts, checked.report)
    with closing(sqlite3.connect(dock.state / "journal.sqlite")) as journal:
        states = journal.execute("SELECT state FROM acquisition").fetchall()
    assert states == [("erased",)] * len(clips)


def _on_camera(dock: Dock, name: str) -> bytes | None:
    with suppress(FileNotFoundError):
        return (dock.bay / "CAM1" / name).read_bytes()
    return None


def _stored(dock: Dock, *, whole_only: bool) -> dict[str, str]:
    """The digest of each stored clip, opened, by the path in its manifest."""
    found: dict[str, str] = {}
    for sealed in (dock.store_directory / "acquisitions").glob("*/*/clip.age"):
        content = sealed.read_bytes()
        if whole_only and not (sealed.parent / "receipt.json").exists():
            continue
        manifest = json.loads((sealed.parent / "manifest.json").read_bytes())
        opener = Opener(dock.identities)
        plain = bytes(opener.feed(content)) + bytes(opener.finish())
        assert manifest["path"] not in found, f"{manifest['path']} was registered twice"
        found[manifest["path"]] = digest(plain)
    return found


def _check_receipts(dock: Dock, count: int) -> None:
    """A chain without a gap, of which each verifies over the manifest that lies beside it."""
    found = []
    for directory in (dock.store_directory / "acquisitions" / dock.station).iterdir():
        signed = SignedBytes(
            payload=(directory / "receipt.json").read_bytes(), signature=(directory / "receipt.json.sig").read_text()
        )
        manifest = (directory / "manifest.json").read_bytes()
        found.append(
            receipts.verify_receipt(
                signed, store_key=dock.store_key.public, store=dock.store, station=dock.station, manifest=manifest
            )
        )
    found.sort(key=lambda receipt: receipt.receipt_seq)
    assert len(found) == count
    for before, after in zip([None, *found], found, strict=False):
        receipts.check_succession(before, after)
    with closing(sqlite3.connect(dock.store_directory / "catalogue.sqlite")) as catalogue:
        states = catalogue.execute("SELECT state FROM acquisition").fetchall()
    assert states == [("stored",)] * count
