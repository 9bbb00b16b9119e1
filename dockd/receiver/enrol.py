"""Which stations may push: one file of public keys each, compared out of band by two people before it is put there."""

from __future__ import annotations

from pathlib import Path

from dockd import faultpoints
from dockd import faults as no
from dockd.core.keyfiles import StationPublic, format_station_pub, parse_station_pub
from dockd.errors import VerificationFailed
from dockd.faults import Faults
from dockd.keep.durable import write_file
from dockd.model import StationId
from dockd.receiver.layout import Layout

_MAX_BYTES = 4096


def enrol(store_directory: Path, station_pub_text: str, faults: Faults = no.NONE) -> StationPublic:
    """Let a station in; a running receiver notices by itself. Idempotent.

    Raises VerificationFailed for text that is no `station.pub`, and where the station is enrolled with other keys:
    nobody replaces a station's keys by handing in a file. Raises OSError.
    """
    station = parse_station_pub(station_pub_text)
    layout = Layout(root=store_directory, faults=faults)
    layout.make()
    path = layout.station(station.station)
    known = find_station(layout, station.station)
    if known is not None and known != station:
        raise VerificationFailed(
            f"station {station.station} is enrolled with other keys: compare the fingerprints with its people, and "
            f"remove {path} first if the new ones are right"
        )
    content = format_station_pub(station).encode()
    write_file(path, content, mode=0o644, points=faultpoints.ENROLLED, faults=faults)
    return station


def find_station(layout: Layout, station: StationId) -> StationPublic | None:
    """An enrolled station's keys as they are now; None where it is not enrolled. Blocking.

    Raises VerificationFailed where its file is broken, or of another station.
    """
    path = layout.station(station)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    found = parse_station_pub(content.decode("ascii", errors="replace"))
    if found.station != station:
        raise VerificationFailed(f"{path} holds the keys of station {found.station}")
    return found
