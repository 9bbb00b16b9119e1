"""Where the receiver keeps things below its directory (docs/receiver.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dockd import faults as no
from dockd.faultpoints import Point
from dockd.faults import Faults
from dockd.keep.durable import fsync_directory, is_temporary
from dockd.model import AcquisitionId, StationId

STATIONS = "stations"
_UPLOADS, _ACQUISITIONS, _CHECKPOINTS, _POLICIES = "uploads", "acquisitions", "checkpoints", "policies"
_CLIP, _MANIFEST, _RECEIPT, _SIGNATURE = "clip.age", "manifest.json", "receipt.json", ".sig"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Paths below `root`. Ids are checked before they come here: UUIDs, and upload names of our own making."""

    root: Path
    faults: Faults = no.NONE

    def make(self) -> None:
        """Make the directories that every receiver has, durably. Idempotent."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (STATIONS, _UPLOADS, _ACQUISITIONS, _CHECKPOINTS, _POLICIES):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        self.faults.act(Point.STORE_PLACES, fsync_directory, self.root)

    def sweep(self) -> None:
        """Remove the checkpoints that a kill left half-made. Only while no other receiver runs. Raises OSError."""
        for stray in [path for path in (self.root / _CHECKPOINTS).iterdir() if is_temporary(path.name)]:
            self.faults.act(Point.STORE_SWEEP, stray.unlink)

    @property
    def stations(self) -> Path:
        """The enrolled stations' public keys."""
        return self.root / STATIONS

    def station(self, station: StationId) -> Path:
        """One station's public keys."""
        return self.stations / f"{station}.pub"

    def accepted(self, station: StationId) -> Path:
        """The name of the station's custody log that this store's people accepted in the place of the one before."""
        return self.stations / f"{station}.log"

    @property
    def uploads(self) -> Path:
        """The upload space."""
        return self.root / _UPLOADS

    def upload(self, upload: str) -> Path:
        """One upload's bytes."""
        return self.uploads / upload

    @property
    def acquisitions(self) -> Path:
        """Everything that is stored, a directory a station."""
        return self.root / _ACQUISITIONS

    def stored(self, station: StationId, acquisition: AcquisitionId) -> Stored:
        """One stored acquisition."""
        return Stored(directory=self.acquisitions / station / acquisition)

    def policy(self, policy_seq: int) -> Path:
        """A policy statement's exact bytes."""
        return self.root / _POLICIES / f"{policy_seq}.json"

    def checkpoint(self, station: StationId) -> Path:
        """The newest cosigned checkpoint of a station's log."""
        return self.root / _CHECKPOINTS / station

    def former(self, station: StationId, generation: int) -> Path:
        """The newest cosigned checkpoint of a log that another generation took the place of."""
        return self.root / _CHECKPOINTS / f"{station}.generation-{generation}"

    def fork(self, station: StationId, number: int) -> Path:
        """Evidence of a forked log."""
        return self.root / _CHECKPOINTS / f"{station}.fork-{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The files of one stored acquisition."""

    directory: Path

    @property
    def clip(self) -> Path:
        """The sealed clip."""
        return self.directory / _CLIP

    @property
    def manifest(self) -> Path:
        """The manifest's exact bytes."""
        return self.directory / _MANIFEST

    @property
    def receipt(self) -> Path:
        """The receipt's exact bytes."""
        return self.directory / _RECEIPT

    def extension(self, n: int) -> Path:
        """The exact bytes of an extension of the receipt."""
        return self.directory / f"extension-{n}.json"


def signature_of(path: Path) -> Path:
    """Where the signature over a file's bytes stands."""
    return path.with_name(path.name + _SIGNATURE)
