"""The public key files that an authority carries between station and store: OpenSSH lines; comments name whose.

`store.pub` has one line (`dockd-store:<uuid>`); `station.pub` two: the key of manifests and sessions
(`dockd-station:<uuid>`) and the key of checkpoints (`dockd-checkpoint:<uuid>`).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from dockd.core.sshsig import PublicKey
from dockd.errors import VerificationFailed
from dockd.model import StationId, StoreId

_STORE, _STATION, _CHECKPOINT = "dockd-store", "dockd-station", "dockd-checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePublic:
    """A store, as a station pins it."""

    store: StoreId
    key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StationPublic:
    """A station, as a store enrols it."""

    station: StationId
    manifest_key: PublicKey
    checkpoint_key: PublicKey


def format_store_pub(store: StorePublic) -> str:
    """The text of `store.pub`."""
    return store.key.line(f"{_STORE}:{store.store}") + "\n"


def parse_store_pub(text: str) -> StorePublic:
    """The inverse. Raises VerificationFailed."""
    keys = _parse(text, "store.pub", _STORE)
    name, key = keys[_STORE]
    return StorePublic(store=StoreId(name), key=key)


def format_station_pub(station: StationPublic) -> str:
    """The text of `station.pub`."""
    return (
        station.manifest_key.line(f"{_STATION}:{station.station}")
        + "\n"
        + station.checkpoint_key.line(f"{_CHECKPOINT}:{station.station}")
        + "\n"
    )


def parse_station_pub(text: str) -> StationPublic:
    """The inverse. Raises VerificationFailed, also where both keys are one: they must not stand in for each other."""
    keys = _parse(text, "station.pub", _STATION, _CHECKPOINT)
    (name, manifest_key), (other, checkpoint_key) = keys[_STATION], keys[_CHECKPOINT]
    if name != other:
        raise VerificationFailed(f"station.pub: its two lines name two stations, {name} and {other}")
    if manifest_key == checkpoint_key:
        raise VerificationFailed("station.pub: the checkpoint key must not be the manifest key")
    return StationPublic(station=StationId(name), manifest_key=manifest_key, checkpoint_key=checkpoint_key)


def _parse(text: str, file: str, *kinds: str) -> dict[str, tuple[str, PublicKey]]:
    found: dict[str, tuple[str, PublicKey]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        kind, _, name = words[2].partition(":") if len(words) == 3 else ("", "", "")  # noqa: PLR2004  type, key, comment
        if kind not in kinds or kind in found or not _is_uuid(name):
            wanted = " and ".join(f"'{one}:<uuid>'" for one in kinds)
            raise VerificationFailed(f"{file} line {number}: expected one key each with the comment {wanted}")
        found[kind] = (name, PublicKey.parse(line))
    for kind in kinds:
        if kind not in found:
            raise VerificationFailed(f"{file}: no key with the comment '{kind}:<uuid>'")
    return found


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
