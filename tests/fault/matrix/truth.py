"""What has to be true of a dock: at any instant, and at the end."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from fault.matrix.dock import Dock, digest

from dockd.app.verify import find_log, verify_custody
from dockd.core import receipts
from dockd.core.keyfiles import format_store_pub
from dockd.core.sealing import Opener
from dockd.keep.durable import is_temporary
from dockd.model import SignedBytes

RUBBLE = b"half"  # what a scenario puts in the place of a stored clip


def logs(dock: Dock) -> list[Path]:
    """The directories of the custody log and of those that were set aside."""
    return sorted(dock.state.glob("custody*"))


def events(dock: Dock) -> list[dict]:
    """The whole lines of all of them."""
    found = []
    for directory in logs(dock):
        log = directory / "custody.jsonl"
        lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
        found += [json.loads(line) for line in lines if line.endswith(b"\n")]
    return found


def check_now(dock: Dock) -> None:
    """At any instant: a clip is whole on its camera, or it was stored and warranted, and the store has it whole."""
    # The camera first, the logs afterwards: they are always ahead.
    there = dock.on_camera()
    touched = {name for name, content in dock.clips.items() if there.get(name) != content}
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
        assert digest(dock.clips[name]) in stored.get(name, ()), f"{name} was touched, and the store does not have it"


def lost_bytes(dock: Dock) -> int:
    """The bytes of clips that are neither whole on their camera nor whole in the store."""
    there, stored = dock.on_camera(), _stored(dock, whole_only=True)
    return sum(
        len(content)
        for name, content in dock.clips.items()
        if there.get(name) != content and digest(content) not in stored.get(name, ())
    )


def check_end(dock: Dock, *, copies: int = 1, torn: bool = False, resent: int = 0, others: int = 0) -> None:
    """At the end: each clip is stored, verified and erased; the log is whole and nothing is left over.

    It is stored `copies` times: once, but where a journal was lost. With `torn`, what an erasure left of a clip that
    had no room for its remnant may be stored, too: it is a file of its own. `resent` were stored a second time, as the
    store had lost them. `others` are of another station.
    """
    check_now(dock)
    assert not dock.on_camera(), "left on the camera"
    for name, found in _stored(dock, whole_only=False).items():
        assert found[digest(dock.clips[name])] == copies, f"{name} was stored {found}"
        assert torn or len(found) == 1, f"{name} was stored with other bytes: {found}"
        assert max(found.values()) == copies, f"{name} was registered twice: {found}"
    count = sum(found.total() for found in _stored(dock, whole_only=True).values())
    assert count == copies * len(dock.clips) or torn
    _check_receipts(dock, count, others)
    _check_leftovers(dock)
    _check_log(dock, count, copies, resent)


def check_custody(dock: Dock) -> None:
    """All logs verify, as an outsider does it."""
    key = dock.directory / "store.pub"
    key.write_text(format_store_pub(dock.store_public))
    for directory in logs(dock):
        checked = verify_custody(find_log(directory), against=None, store_key=key, station_key=None)
        assert checked.whole, (directory, checked.doubts, checked.report)


def _check_log(dock: Dock, count: int, copies: int, resent: int) -> None:
    names = Counter(line["event"] for line in events(dock))
    with closing(sqlite3.connect(dock.state / "journal.sqlite")) as journal:
        states = Counter(state for (state,) in journal.execute("SELECT state FROM acquisition"))
    if copies == 1:
        for event, times in (("found", count), ("stored", count + resent), ("erased", count)):
            told = names[f"acquisition.{event}"]
            assert told == times, f"{event}: {told} times"
        assert states == {"erased": count}
    else:  # those of the lost journal are never grounds for erasing: they stay stored
        assert names["acquisition.restored"] == names["acquisition.erased"] == len(dock.clips)
        assert states == {"stored": len(dock.clips), "erased": len(dock.clips)}, states
    check_custody(dock)


def _check_leftovers(dock: Dock) -> None:
    """Nothing half-made is left, but beside stored clips and keys, where it is in nobody's way."""
    assert not list((dock.store_directory / "uploads").iterdir())
    kept = [path.name for path in dock.spool.iterdir() if path.is_file()]
    with closing(sqlite3.connect(dock.state / "journal.sqlite")) as journal:
        unerased = {name for (name,) in journal.execute("SELECT acquisition FROM acquisition WHERE state <> 'erased'")}
    assert {name.partition(".")[0] for name in kept} == unerased, f"left in the spool: {kept}"
    incoming = [path for path in (dock.spool / "incoming").rglob("*") if path.is_file()]
    assert not incoming, f"left in the spool: {incoming}"
    places = (*logs(dock), dock.state, dock.store_directory / "checkpoints")
    left = [path for place in places for path in place.iterdir() if is_temporary(path.name)]
    assert not left, f"left half-made: {left}"


def _stored(dock: Dock, *, whole_only: bool) -> dict[str, Counter]:
    """How often each digest of a stored clip, opened, is there, by the path in its manifest."""
    found: dict[str, Counter] = {}
    for sealed in (dock.store_directory / "acquisitions").glob("*/*/clip.age"):
        content = sealed.read_bytes()
        if whole_only and (content == RUBBLE or not (sealed.parent / "receipt.json").exists()):
            continue
        manifest = json.loads((sealed.parent / "manifest.json").read_bytes())
        opener = Opener(dock.identities)
        plain = bytes(opener.feed(content)) + bytes(opener.finish())
        found.setdefault(manifest["path"], Counter())[digest(plain)] += 1
    return found


def _check_receipts(dock: Dock, count: int, others: int) -> None:
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
    assert states == [("stored",)] * (count + others)
