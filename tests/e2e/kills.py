"""What has to be true after any kill, by the cameras, the custody log and the receiver's log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import pyrage

AT_WORK = {
    "acquisition.read_started": "reading",
    "acquisition.registered": "uploading",
    "acquisition.warranted": "erasing",
}
SETTLED_EVENTS = ("acquisition.reread", "acquisition.contested", "acquisition.seen_again", "acquisition.released")


class Log:
    """The custody log of a running trial, read as it grows: each line once."""

    def __init__(self, trial) -> None:
        self._path = trial.directory / "station" / "custody" / "custody.jsonl"
        self._at = 0
        self.paths: dict[str, str] = {}  # `serial:path`, by acquisition
        self._stored: set[str] = set()
        self._warranted: set[str] = set()
        self._latest: dict[str, str] = {}

    def read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in map(json.loads, whole.splitlines()):
            clip, event = line.get("acquisition"), line["event"]
            if not clip:
                continue
            if event == "acquisition.found":
                self.paths[clip] = f"{line['camera']}:{line['details']['path']}"
            if event == "acquisition.stored":
                self._stored.add(clip)
            if event == "acquisition.warranted" and clip in self._stored:
                self._warranted.add(clip)
            if event.startswith("acquisition.") and event not in SETTLED_EVENTS:  # the others change no state
                self._latest[clip] = event

    def warranted(self) -> set[str]:
        """`serial:path` of what was stored, and warranted after that."""
        return {self.paths[clip] for clip in self._warranted}

    def at_work(self) -> set[str]:
        """What the station was doing when it wrote its last line."""
        return {AT_WORK[event] for event in self._latest.values() if event in AT_WORK}


def check_nothing_is_lost(log: Log, docked: Iterable[Path], wanted: Mapping[str, str]) -> None:
    """Each clip is whole on its camera, or the journal's mirror says that it was stored and warranted."""
    # The cameras first, the log afterwards: whatever is gone by then must be in the log, which is always ahead.
    cameras = {camera.name: camera for camera in docked}
    here = {clip: digest for clip, digest in wanted.items() if clip.partition(":")[0] in cameras}
    gone = {clip for clip, digest in here.items() if digest_on(cameras, clip) != digest}
    log.read()
    assert gone <= log.warranted(), f"touched too early: {gone - log.warranted()}"


def digest_on(cameras: Mapping[str, Path], clip: str) -> str | None:
    """The SHA-256 of a clip, or None where it is gone, perhaps this very moment."""
    serial, _, path = clip.partition(":")
    try:
        return hashlib.sha256((cameras[serial] / path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def carry_little(trial) -> None:
    """Small requests, so that a kill finds uploads of which a part was acknowledged."""
    config = trial.directory / "dockd.toml"
    text = config.read_text()
    assert "[store.archive]\n" in text
    assert "patch_mib" not in text
    config.write_text(text.replace("[store.archive]\n", "[store.archive]\npatch_mib = 1\n"))


def check_uploads_went_on(trial) -> int:
    """No upload was sent from zero again after the store had acknowledged some of it, by the store's own log.

    Returns how many were gone on with in their middle after a doubt, at least one. A request under way when the
    receiver was killed has no line: the station never heard of its bytes either.
    """
    assert "store_lost_bytes" not in trial.log("station")
    began: dict[str, list[tuple[float, str, int | None, int | None]]] = {}
    for line in trial.log("receiver").splitlines():
        record = json.loads(line) if line.startswith("{") else {}
        if record.get("event") == "request_answered" and record["path"].startswith("/uploads/"):
            at_s = datetime.fromisoformat(record["timestamp"]).timestamp() - record["duration_ms"] / 1000
            request = (at_s, record["method"], record["offset"], record["durable"])
            began.setdefault(record["path"], []).append(request)
    assert len(began) >= len(trial.sealed())
    resumed = 0
    for upload, requests in began.items():
        acknowledged, asked = 0, False
        for _, method, offset, durable in sorted(requests, key=lambda request: request[0]):
            if method == "PATCH":
                assert offset or not acknowledged, f"{upload} was sent from zero again: {requests}"
                resumed += asked and bool(offset)
            acknowledged, asked = max(acknowledged, durable or 0), method == "HEAD"
    assert resumed, "no upload was ever gone on with after a doubt: the test shows nothing"
    return resumed


def stored(trial) -> dict[str, list[str]]:
    """The SHA-256 of each plaintext that the store has, by `serial:path`: one, unless something went wrong.

    Opened with another implementation of age than dockd's own.
    """
    text = (trial.directory / "authority" / "working.key").read_text()
    (secret,) = [line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-")]
    identity = pyrage.x25519.Identity.from_str(secret)
    found: dict[str, list[str]] = {}
    for sealed in trial.sealed():
        manifest = json.loads((sealed.parent / "manifest.json").read_bytes())
        content = pyrage.decrypt(sealed.read_bytes(), [identity])
        place = f"{manifest['camera']['serial']}:{manifest['path']}"
        found.setdefault(place, []).append(hashlib.sha256(content).hexdigest())
    return found
