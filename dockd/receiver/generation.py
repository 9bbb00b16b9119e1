"""Custody logs that begin anew: a station lost its journal, and a person here accepts the log that it began instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dockd import faultpoints
from dockd import faults as no
from dockd.core.checkpoint import origin_of
from dockd.errors import VerificationFailed
from dockd.faults import Faults
from dockd.keep.durable import write_file
from dockd.model import StationId
from dockd.receiver.enrol import find_station
from dockd.receiver.layout import Layout

_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What was accepted, and the head of the log that it takes the place of; that is "" and 0 where there was none."""

    origin: str
    former: str
    former_size: int


def accept_log(store_directory: Path, station: StationId, generation: int, faults: Faults = no.NONE) -> Acceptance:
    """Let a station's custody log begin anew; a running receiver notices by itself. Idempotent.

    Raises VerificationFailed where the station is not enrolled, or the generation is not a newer one; OSError.
    """
    layout = Layout(root=store_directory)
    if find_station(layout, station) is None:
        raise VerificationFailed(f"station {station} is not enrolled here")
    origin = origin_of(station, generation)
    former, size = _head(layout, station)
    if former and generation <= generation_of(former) and origin != accepted_log(layout, station):
        raise VerificationFailed(f"the log known here is {former}: only a newer generation can take its place")
    write_file(layout.accepted(station), f"{origin}\n".encode(), mode=0o644, points=faultpoints.ACCEPTED, faults=faults)
    return Acceptance(origin=origin, former=former, former_size=size)


def accepted_log(layout: Layout, station: StationId) -> str:
    """The log's name that was accepted last; empty where none was. Blocking; raises OSError."""
    try:
        with layout.accepted(station).open("rb") as file:
            return file.read(_MAX_BYTES).decode("ascii", errors="replace").strip()
    except FileNotFoundError:
        return ""


def generation_of(origin: str) -> int:
    """The number in a log's name; 0 where there is none."""
    text = origin.rpartition("/")[2]
    return int(text) if text.isascii() and text.isdecimal() else 0


def _head(layout: Layout, station: StationId) -> tuple[str, int]:
    try:
        origin, size, *_ = layout.checkpoint(station).read_text().split("\n")
    except FileNotFoundError:
        return "", 0
    return origin, int(size)
