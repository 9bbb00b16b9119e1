"""How a medium travels to a reader: described in a message, with its descriptors beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dockd.errors import ReaderDied
from dockd.model import Medium, MediumKind, Volume
from dockd.reader.messages import integer, short, text

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_VOLUMES = 16  # of one camera: no camera has more, and they fit into one message
MAX_DESCRIPTORS = 2 * MAX_VOLUMES


def descriptors(medium: Medium) -> tuple[int, ...]:
    """Of each volume its root and, where it has one, its block device. They stay the caller's."""
    return tuple(fd for volume in medium.volumes for fd in (volume.root_fd, volume.block_fd) if fd >= 0)


def medium_to_wire(medium: Medium) -> dict[str, Any]:
    """All but the descriptors. Raises ValueError for more volumes than a camera has."""
    if len(medium.volumes) > MAX_VOLUMES:
        raise ValueError(f"a camera of {len(medium.volumes)} volumes")
    return {
        "kind": medium.kind.value,
        "usb_bus": medium.usb_bus,
        "usb_device": medium.usb_device,
        "volumes": [
            {
                "name": volume.name,
                "filesystem": volume.filesystem,
                "volume_id": volume.volume_id,
                "block": "yes" if volume.block_fd >= 0 else "no",
                "dirty": short(volume.dirty),
            }
            for volume in medium.volumes
        ],
    }


def medium_from_wire(fields: dict[str, Any], fds: Sequence[int]) -> Medium:
    """The inverse; the descriptors become the medium's. Raises ReaderDied where they are not those described."""
    given = iter(fds)
    described = fields.get("volumes")
    if not isinstance(described, list) or not all(isinstance(one, dict) for one in described):
        raise ReaderDied("a medium without a list of volumes")
    try:
        kind = MediumKind(text(fields, "kind"))
        volumes = tuple(
            Volume(
                name=text(one, "name"),
                filesystem=text(one, "filesystem"),
                volume_id=text(one, "volume_id"),
                root_fd=next(given),
                block_fd=next(given) if text(one, "block") == "yes" else -1,
                dirty=text(one, "dirty"),
            )
            for one in described
        )
    except (ValueError, RuntimeError) as error:  # RuntimeError: a generator that ran out of descriptors
        raise ReaderDied("a medium that is none, or without its descriptors") from error
    if next(given, None) is not None or (kind is MediumKind.MTP) != (not volumes):
        raise ReaderDied("a medium with descriptors of something else")
    return Medium(
        kind=kind, volumes=volumes, usb_bus=integer(fields, "usb_bus"), usb_device=integer(fields, "usb_device")
    )
