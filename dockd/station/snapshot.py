"""The one frozen status record, which the control socket, the CLI and the demo render; docs/status.md lists it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dockd.core.canonical import encode_path, format_time
from dockd.core.losses import Looking
from dockd.model import AcquisitionId, BayNumber, DockingId, StationId


@dataclass(frozen=True, slots=True, kw_only=True)
class BayStatus:
    """One bay. An empty bay has state "empty" and nothing else."""

    bay: BayNumber
    state: str  # "empty" or a core.lifecycle.DockingState
    note: str = ""  # why it waits or was refused, and what to do
    docking: DockingId | None = None
    camera: str | None = None  # the serial, or what the device calls itself where it was refused
    model: str | None = None
    clips_total: int = 0
    clips_acquired: int = 0  # sealed and in the spool, or further
    clips_stored: int = 0  # confirmed by the store, or further
    clips_erased: int = 0
    clips_held: int = 0  # stored, but damaged or unrecognised: an operator has to release them
    clips_quarantined: int = 0
    clips_needing_spool: int = 0  # larger than the spool can ever hold, as it is set up
    others: int = 0  # files on the camera that are no clips: listed, left alone
    bytes_total: int = 0  # of clips, on the camera
    bytes_acquired: int = 0
    bytes_stored: int = 0
    rate_bytes_s: int = 0  # acquisition and upload together, over the last seconds
    left_s: int | None = None  # estimated time until the camera is ready


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """One store as its uplink last saw it."""

    name: str  # as the configuration calls it
    store: str = ""  # its id
    state: str  # "unknown", "reachable", "lacking", "unreachable", "untrusted", "stopped"
    note: str = ""
    counts: bool = True  # whether its word counts towards erasing
    waiting: int = 0  # acquisitions that it has not confirmed yet
    waiting_bytes: int = 0
    given_up: int = 0  # those that it will not get: refused for good, or their sealed file is gone
    standing_in: bool = False  # a fallback whose primary is out of reach
    at_once: int = 0  # uploads that it is given at once: fewer than configured where it pushed back or was away
    looked_at: datetime | None = None  # when the store last said how much it read again; None: it never did
    looked: Looking | None = None  # of the clips that it signed for; None: it does not look, or does not say so
    looked_note: str = ""  # the same in a sentence
    spread_left_s: int = 0  # after an outage, for how long uploads that are not flagged wait, or go one by one

    held: str = ""  # why nothing is erased on its word now, by what its trials found; empty where it can be

    @property
    def out_of_reach(self) -> bool:
        """Whether clips wait for it."""
        return self.state in ("lacking", "unreachable", "untrusted", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkStatus:
    """All uploads together, and the cap that holds for them."""

    rate_bytes_s: int = 0  # over the last seconds
    in_flight: int = 0
    max_in_flight: int = 0
    cap_bytes_s: int | None = None  # None: no cap
    cap_by: str = ""  # the operator who set it; empty where the configuration says so
    cap_changes_at: datetime | None = None
    cap_then_bytes_s: int | None = None  # after that


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The station at one instant."""

    version: str
    station: StationId
    trial: bool
    started_at: datetime
    at: datetime
    bays: tuple[BayStatus, ...]
    stores: tuple[StoreStatus, ...]
    uplink: UplinkStatus
    policy: str  # what has to confirm a clip, in words
    spool_files: int
    spool_bytes: int
    spool_free_bytes: int
    custody_size: int  # entries in the log
    custody_signed: int  # entries under the newest checkpoint
    custody_witnessed: int  # entries under the newest checkpoint that a store cosigned
    tasks: int  # in the event loop; grows with docked cameras and those who ask, and with nothing else
    confinement: Mapping[str, str] = field(default_factory=dict)  # of readers: each part holds, or why it does not
    config_note: str = ""  # why the changed configuration was not taken, if so
    alarms: tuple[str, ...] = ()  # what IT has to look at, a sentence each
    held: tuple[HeldClip, ...] = ()  # at most 100 of those that wait for a person


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClip:
    """A clip that waits for a person."""

    acquisition: AcquisitionId
    bay: BayNumber | None  # where its camera is docked now
    camera: str
    path: bytes
    state: str
    why: str


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """The stable JSON form: the fields under their names, paths percent-encoded, times RFC 3339."""
    return {"type": "status", "v": 2, **_plain(dataclasses.asdict(snapshot))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return encode_path(value)
    if isinstance(value, datetime):
        return format_time(value)
    return value
