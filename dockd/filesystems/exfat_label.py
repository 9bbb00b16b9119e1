"""The label of an exFAT volume: an entry of its root directory (specification, section 7.3)."""

from __future__ import annotations

from dockd.filesystems.exfat_layout import ENTRY_BYTES, FIRST_CLUSTER, ExfatLayout
from dockd.filesystems.records import ReadAt, exactly

_MAX_BYTES = 1024 * 1024  # of the root directory, to find it in
_END, _LABEL = 0x00, 0x83
_LABEL_CHARACTERS = 11


def label(read: ReadAt, layout: ExfatLayout) -> str:
    """Find it: an empty one where there is none."""
    cluster = layout.root_cluster
    for _ in range(0, _MAX_BYTES, layout.cluster_bytes):
        if not FIRST_CLUSTER <= cluster < layout.clusters + FIRST_CLUSTER:
            break
        piece = exactly(read, layout.offset(cluster), min(layout.cluster_bytes, _MAX_BYTES))
        for at in range(0, len(piece), ENTRY_BYTES):
            if piece[at] == _END:
                return ""
            if piece[at] == _LABEL:
                count = min(piece[at + 1], _LABEL_CHARACTERS)
                return piece[at + 2 : at + 2 + 2 * count].decode("utf-16-le", "replace")
        cluster = int.from_bytes(exactly(read, layout.fat_start + 4 * cluster, 4), "little")
    return ""
