"""The directory of a stored clip: what is put into it, durably, before anything is signed. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dockd import faultpoints
from dockd.faultpoints import Point
from dockd.faults import Faults
from dockd.keep.durable import fsync_directory, is_temporary, write_file
from dockd.model import SignedBytes
from dockd.receiver.layout import Layout, signature_of
from dockd.receiver.look import set_aside
from dockd.receiver.rows import Announced


def take_over_shared(layout: Layout, one: Announced) -> None:
    """Keep the manifest of what another's object stands for; durable when this returns. Idempotent."""
    _make_place(layout, one)
    source = layout.upload(one.upload)  # what had arrived before it was known
    layout.faults.act(Point.PART_GONE, source.unlink, missing_ok=True)


def take_over(layout: Layout, one: Announced) -> None:
    """Move a verified upload to where stored clips are, with its manifest; durable when this returns. Idempotent."""
    stored, source = layout.stored(one.station, one.acquisition), layout.upload(one.upload)
    faults = layout.faults
    _make_place(layout, one)
    # Its bytes were fsynced before its offset was complete. A crash may have come after this rename before.
    if source.exists():
        if os.path.lexists(stored.clip):
            set_aside(stored.clip, faults)
        source.chmod(0o400)
        faults.act(Point.MOVE, source.rename, stored.clip)
    for directory in (stored.directory, source.parent):
        faults.act(Point.MOVE_SYNC, fsync_directory, directory)
    if stored.clip.stat().st_size != one.size_bytes:
        raise OSError(f"{stored.clip} has not the length that was verified")


def _make_place(layout: Layout, one: Announced) -> None:
    """Make the directory of a stored clip, with its manifest."""
    stored, faults = layout.stored(one.station, one.acquisition), layout.faults
    station = stored.directory.parent
    for directory in (station, stored.directory):
        directory.mkdir(mode=0o700, exist_ok=True)
        faults.act(Point.PLACE_SYNC, fsync_directory, directory.parent)
    for stray in (path for path in stored.directory.iterdir() if is_temporary(path.name)):
        faults.act(
            Point.STORE_SWEEP, stray.unlink
        )  # what a kill left behind; nobody else writes here before there is a receipt
    signature = one.manifest.signature.encode()
    for path, content in ((stored.manifest, one.manifest.payload), (signature_of(stored.manifest), signature)):
        write_file(path, content, points=faultpoints.STORED, faults=faults)


def mend_papers(layout: Layout, one: Announced, receipt: SignedBytes, wrong: Iterable[Path]) -> None:
    """Put manifest and receipt there again, as the catalogue has them; what was there instead is kept. Idempotent."""
    for path in wrong:
        if os.path.lexists(path):
            set_aside(path, layout.faults)
    _make_place(layout, one)
    keep_signed(layout.stored(one.station, one.acquisition).receipt, receipt, layout.faults)


def keep_signed(place: Path, signed: SignedBytes, faults: Faults) -> None:
    """Put what the store signed where people find it. Idempotent."""
    for path, content in ((place, signed.payload), (signature_of(place), signed.signature.encode())):
        try:
            if path.read_bytes() == content:
                continue
        except FileNotFoundError:
            pass
        write_file(path, content, points=faultpoints.RECEIPT, faults=faults)
