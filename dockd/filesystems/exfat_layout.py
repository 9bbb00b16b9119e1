"""The boot region of exFAT (Microsoft's exFAT file system specification, section 3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dockd.errors import FilesystemUnclear
from dockd.filesystems.records import ReadAt, exactly

ENTRY_BYTES = 32  # of a directory
FIRST_CLUSTER = 2
_SECTOR_SHIFTS = range(9, 13)
_MAX_CLUSTER_SHIFT = 25  # of sector and cluster shift together: 32 MiB
_MAX_CLUSTERS = 0xFFFFFFF5
_REGION_SECTORS = 11  # that the checksum in the twelfth covers
_NOT_SUMMED = (106, 107, 112)  # VolumeFlags and PercentInUse, which change in use
_ACTIVE_FAT, _DIRTY, _MEDIA_FAILURE = 1, 2, 4  # of VolumeFlags


@dataclass(frozen=True, slots=True, kw_only=True)
class ExfatLayout:
    """Where things lie on an exFAT volume. Offsets and lengths are in bytes from the start of the volume."""

    sector_bytes: int
    cluster_bytes: int
    clusters: int  # the first is number 2
    fat_start: int
    fat_bytes: int
    heap_start: int  # of cluster 2
    root_cluster: int
    size_bytes: int
    partition_sectors: int  # before the volume, on its disk
    serial: int
    flags: int
    fats: int

    def offset(self, cluster: int) -> int:
        """Of a cluster."""
        return self.heap_start + (cluster - FIRST_CLUSTER) * self.cluster_bytes


def read_layout(read: ReadAt) -> ExfatLayout:
    """Parse the boot sector. Raises FilesystemUnclear, saying what makes it no exFAT file system that Linux mounts."""
    boot = exactly(read, 0, 512)
    if boot[3:11] != b"EXFAT   " or boot[510:] != b"\x55\xaa" or any(boot[11:64]):
        raise FilesystemUnclear("the first sector is none of an exFAT file system")
    fields = struct.unpack_from("<QQIIIIIIHHBBB", boot, 64)
    partition, sectors, fat, fat_sectors, heap, clusters, root, serial, _, flags, shift, cluster_shift, fats = fields
    if shift not in _SECTOR_SHIFTS or shift + cluster_shift > _MAX_CLUSTER_SHIFT or fats not in (1, 2):
        raise FilesystemUnclear("sectors, clusters or FATs of a kind that exFAT does not have")
    sector, cluster = 1 << shift, 1 << shift + cluster_shift
    if not 0 < clusters <= _MAX_CLUSTERS or not FIRST_CLUSTER <= root < clusters + FIRST_CLUSTER:
        raise FilesystemUnclear(f"the root directory begins at cluster {root}, of {clusters}")
    if fat_sectors * sector // 4 < clusters + FIRST_CLUSTER or fat <= 2 * _REGION_SECTORS:
        raise FilesystemUnclear("the FAT is too short for the clusters, or lies where the boot sectors do")
    if fat + fats * fat_sectors > heap or heap * sector + clusters * cluster > sectors * sector:
        raise FilesystemUnclear("the FAT, the clusters and the end of the volume overlap")
    if _checksum(exactly(read, 0, _REGION_SECTORS * sector)) != exactly(read, _REGION_SECTORS * sector, 4):
        raise FilesystemUnclear("the checksum of the boot sectors is wrong")
    return ExfatLayout(
        sector_bytes=sector,
        cluster_bytes=cluster,
        clusters=clusters,
        fat_start=fat * sector,
        fat_bytes=fat_sectors * sector,
        heap_start=heap * sector,
        root_cluster=root,
        size_bytes=sectors * sector,
        partition_sectors=partition,
        serial=serial,
        flags=flags,
        fats=fats,
    )


def dirty(layout: ExfatLayout) -> str:
    """Why the volume is not clean, by its VolumeFlags."""
    reasons = []
    if layout.flags & _DIRTY:
        reasons.append("the boot sector says that the volume was not let go cleanly")
    if layout.flags & _MEDIA_FAILURE:
        reasons.append("the boot sector says that the medium had errors")
    return "; ".join(reasons)


def second_fat_counts(layout: ExfatLayout) -> bool:
    """The volume works with its second FAT and bitmap, as TexFAT does; Linux reads the first ones."""
    return layout.fats > 1 or bool(layout.flags & _ACTIVE_FAT)


def _checksum(region: bytes) -> bytes:
    total = 0
    for place, byte in enumerate(region):
        if place not in _NOT_SUMMED:
            total = ((total << 31 | total >> 1) & 0xFFFFFFFF) + byte & 0xFFFFFFFF
    return total.to_bytes(4, "little")
