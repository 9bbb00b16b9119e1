"""The label of a FAT volume: an entry of its root directory, as blkid reads it."""

from __future__ import annotations

from collections.abc import Iterator

from dockd.filesystems.fat_layout import ENTRY_BYTES, FIRST_CLUSTER, FatLayout
from dockd.filesystems.records import ReadAt, exactly

_MAX_CLUSTERS = 1024  # of the root directory, to find it in
_FREE, _END, _ESCAPED = 0xE5, 0x00, 0x05
_VOLUME, _DIRECTORY, _LONG = 0x08, 0x10, 0x0F
_ATTRIBUTES = 11


def label(read: ReadAt, layout: FatLayout) -> str:
    """Find it: an empty one where there is none. In codepage 850, as mkfs.vfat writes it."""
    for piece in _pieces(read, layout):
        for at in range(0, len(piece), ENTRY_BYTES):
            entry = piece[at : at + ENTRY_BYTES]
            if entry[0] == _END:
                return ""
            if entry[0] == _FREE or entry[_ATTRIBUTES] & 0x3F == _LONG or any(entry[20:22] + entry[26:28]):
                continue
            if entry[_ATTRIBUTES] & (_VOLUME | _DIRECTORY) == _VOLUME:
                name = bytes([_FREE]) + entry[1:11] if entry[0] == _ESCAPED else entry[:11]
                return name.rstrip(b" \0").decode("cp850")
    return ""


def _pieces(read: ReadAt, layout: FatLayout) -> Iterator[bytes]:
    if not layout.root_cluster:
        yield exactly(read, layout.root_start, layout.root_entries * ENTRY_BYTES)
        return
    cluster = layout.root_cluster
    for _ in range(_MAX_CLUSTERS):
        if not FIRST_CLUSTER <= cluster < layout.clusters + FIRST_CLUSTER:
            return
        yield exactly(read, layout.offset(cluster), layout.cluster_bytes)
        cluster = int.from_bytes(exactly(read, layout.fat_start + 4 * cluster, 4), "little") & 0x0FFFFFFF
