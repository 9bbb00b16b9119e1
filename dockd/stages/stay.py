"""What the stages of one docking share."""

from __future__ import annotations

from dataclasses import dataclass

from dockd.core.sshsig import SigningKey
from dockd.devices.port import Attachment
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import BayNumber, CameraIdentity, Clock, DockingId, Entropy, Epoch, StationId
from dockd.reader.client import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """One stay of one camera in one bay, with the reader that serves it and the station's own parts."""

    station: StationId
    docking: DockingId
    epoch: Epoch
    bay: BayNumber
    camera: CameraIdentity
    attachment: Attachment
    reader: Reader
    journal: Journal
    spool: Spool
    manifest_key: SigningKey
    clock: Clock
    random: Entropy
