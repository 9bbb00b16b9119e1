"""The boot sector of FAT12, FAT16 and FAT32, read as Linux reads it (Microsoft's fatgen103; kernel fs/fat/inode.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dockd.errors import FilesystemUnclear
from dockd.filesystems.records import ReadAt, exactly

ENTRY_BYTES = 32  # of a directory
FIRST_CLUSTER = 2
_SMALLEST, _LARGEST = 512, 4096  # sectors, in bytes
_MAX_CLUSTER_SECTORS = 128
_MAX_CLUSTERS = {12: 0xFF4, 16: 0xFFF4, 32: 0x0FFFFFF6}
_REMOVABLE, _FIRST_FIXED = 0xF0, 0xF8  # media bytes
_NOT_MIRRORED, _ACTIVE = 0x80, 0x0F  # of FAT32's flags
_STATE_DIRTY, _STATE_ERRORS = 1, 2  # of the byte that Windows and Linux keep in the boot sector
_CLEAN, _NO_ERRORS = {16: 1 << 15, 32: 1 << 27}, {16: 1 << 14, 32: 1 << 26}  # of FAT[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class FatLayout:
    """Where things lie on a FAT volume. Offsets and lengths are in bytes from the start of the volume."""

    bits: int  # 12, 16 or 32
    sector_bytes: int
    cluster_bytes: int
    clusters: int  # of data: the first is number 2
    reserved_sectors: int
    fats: int
    fat_bytes: int  # of each
    root_entries: int  # 0 for FAT32
    root_cluster: int  # 0 for FAT12 and FAT16
    total_sectors: int
    hidden_sectors: int
    media: int
    drive: int
    active_fat: int  # the only one that counts, 0 where all are alike
    state: int
    serial: int
    boot_label: bytes

    @property
    def fat_start(self) -> int:
        """Of the first FAT."""
        return self.reserved_sectors * self.sector_bytes

    @property
    def root_start(self) -> int:
        """Of the root directory of FAT12 and FAT16."""
        return self.fat_start + self.fats * self.fat_bytes

    @property
    def data_start(self) -> int:
        """Of cluster 2."""
        return self.root_start + self.root_entries * ENTRY_BYTES

    def offset(self, cluster: int) -> int:
        """Of a cluster."""
        return self.data_start + (cluster - FIRST_CLUSTER) * self.cluster_bytes


def read_layout(read: ReadAt) -> FatLayout:
    """Parse the boot sector. Raises FilesystemUnclear, saying what makes it no FAT file system that Linux mounts."""
    boot = exactly(read, 0, _SMALLEST)
    if boot[510:] != b"\x55\xaa":
        raise FilesystemUnclear("the first sector is not signed")
    fields = struct.unpack_from("<HBHBHHBHHHII", boot, 11)
    sector, per_cluster, reserved, fats, root_entries, total16, media, fat16, _, _, hidden, total32 = fields
    fat32, flags, _, root_cluster = struct.unpack_from("<IHHI", boot, 36)
    if not _is_power(sector) or not _SMALLEST <= sector <= _LARGEST:
        raise FilesystemUnclear(f"sectors of {sector} bytes")
    if not _is_power(per_cluster) or per_cluster > _MAX_CLUSTER_SECTORS or not reserved or not fats:
        raise FilesystemUnclear("the first sector is none of a FAT file system")
    if media != _REMOVABLE and media < _FIRST_FIXED:
        raise FilesystemUnclear(f"{media} is no media byte")
    if root_entries * ENTRY_BYTES % sector:
        raise FilesystemUnclear("the root directory does not fill its sectors")
    wide = not fat16
    fat_sectors, total = fat16 or fat32, total16 or total32
    if not fat_sectors or (wide and root_entries):
        raise FilesystemUnclear("no FAT, or two root directories")
    data_sectors = total - reserved - fats * fat_sectors - root_entries * ENTRY_BYTES // sector
    if data_sectors < per_cluster:
        raise FilesystemUnclear("no room for data")
    clusters = data_sectors // per_cluster
    bits = 32 if wide else 16 if clusters > _MAX_CLUSTERS[12] else 12
    if clusters > _MAX_CLUSTERS[bits]:
        raise FilesystemUnclear(f"{clusters} clusters, more than FAT{bits} has")
    clusters = min(clusters, fat_sectors * sector * 8 // bits - FIRST_CLUSTER)
    if wide and not FIRST_CLUSTER <= root_cluster < clusters + FIRST_CLUSTER:
        raise FilesystemUnclear(f"the root directory begins at cluster {root_cluster}, of {clusters}")
    extended = 64 if wide else 36  # where drive number, state, signature, serial and label stand
    drive, state, _, serial, label = struct.unpack_from("<BBBI11s", boot, extended)
    return FatLayout(
        bits=bits,
        sector_bytes=sector,
        cluster_bytes=sector * per_cluster,
        clusters=clusters,
        reserved_sectors=reserved,
        fats=fats,
        fat_bytes=fat_sectors * sector,
        root_entries=root_entries,
        root_cluster=root_cluster if wide else 0,
        total_sectors=total,
        hidden_sectors=hidden,
        media=media,
        drive=drive,
        active_fat=flags & _ACTIVE if wide and flags & _NOT_MIRRORED else 0,
        state=state,
        serial=serial,
        boot_label=label,
    )


def dirty(read: ReadAt, layout: FatLayout) -> str:
    """Why the volume is not clean: what the boot sector's state byte and the second entry of the FAT say."""
    reasons = []
    if layout.state & _STATE_DIRTY:
        reasons.append("the boot sector says that the volume was not let go cleanly")
    if layout.state & _STATE_ERRORS:
        reasons.append("the boot sector says that the medium had errors")
    if layout.bits in _CLEAN:
        width = layout.bits // 8
        second = int.from_bytes(exactly(read, layout.fat_start + width, width), "little")
        if not second & _CLEAN[layout.bits]:
            reasons.append("the FAT says that the volume was not let go cleanly")
        if not second & _NO_ERRORS[layout.bits]:
            reasons.append("the FAT says that the medium had errors")
    return "; ".join(reasons)


def _is_power(number: int) -> bool:
    return number > 0 and not number & (number - 1)
