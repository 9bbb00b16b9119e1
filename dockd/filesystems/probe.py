"""Which file system a volume has, and what it says of itself."""

from __future__ import annotations

from contextlib import suppress
from math import gcd

from dockd.errors import FilesystemUnclear
from dockd.filesystems import exfat_label, exfat_layout, ext4, fat_label, fat_layout
from dockd.filesystems.exfat import ExfatVolume
from dockd.filesystems.fat import FatVolume
from dockd.filesystems.records import ReadAt, Superblock

_MAX_BOUNDARY_BYTES = 16 * 1024 * 1024  # that mkfs.exfat is asked to align to


def probe(read: ReadAt) -> Superblock | None:
    """None where it is none of the three kinds, or could be two of them, which udev does not name either.

    Costs a few reads of some KiB. An OSError of `read` passes through.
    """
    found = []
    for look in (_exfat, ext4.superblock, _vfat):
        with suppress(FilesystemUnclear):
            found.append(look(read))
    return found[0] if len(found) == 1 else None


def open_volume(read: ReadAt) -> FatVolume | ExfatVolume:
    """Look into a FAT or exFAT volume, as it is now. Raises FilesystemUnclear where it is not clearly one."""
    try:
        layout = exfat_layout.read_layout(read)
    except FilesystemUnclear:
        return FatVolume(read, fat_layout.read_layout(read))
    return ExfatVolume(read, layout)


def _volume_id(serial: int) -> str:
    return f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if serial else ""


def _vfat(read: ReadAt) -> Superblock:
    layout = fat_layout.read_layout(read)
    label, volume_id = fat_label.label(read, layout), _volume_id(layout.serial)
    return Superblock(
        kind="vfat",
        volume_id=volume_id,
        label=label,
        size_bytes=layout.total_sectors * layout.sector_bytes,
        block_bytes=layout.cluster_bytes,
        dirty=fat_layout.dirty(read, layout),
        like={
            "label": label,
            "volume_id": volume_id,
            "fat_bits": layout.bits,
            "sector_bytes": layout.sector_bytes,
            "sectors_per_cluster": layout.cluster_bytes // layout.sector_bytes,
            "reserved_sectors": layout.reserved_sectors,
            "fats": layout.fats,
            "root_entries": layout.root_entries,
            "hidden_sectors": layout.hidden_sectors,
            "media": layout.media,
            "drive": layout.drive,
        },
    )


def _exfat(read: ReadAt) -> Superblock:
    layout = exfat_layout.read_layout(read)
    label, volume_id = exfat_label.label(read, layout), _volume_id(layout.serial)
    return Superblock(
        kind="exfat",
        volume_id=volume_id,
        label=label,
        size_bytes=layout.size_bytes,
        block_bytes=layout.cluster_bytes,
        dirty=exfat_layout.dirty(layout),
        like={
            "label": label,
            "volume_id": volume_id,
            "sector_bytes": layout.sector_bytes,
            "cluster_bytes": layout.cluster_bytes,
            "boundary_bytes": _boundary(layout),
        },
    )


def _boundary(layout: exfat_layout.ExfatLayout) -> int:
    """What FAT and clusters are aligned to on the disk: a power of two that `mkfs.exfat -b` puts them at again."""
    before = layout.partition_sectors * layout.sector_bytes
    both = gcd(before + layout.fat_start, before + layout.heap_start)
    return min(both & -both, _MAX_BOUNDARY_BYTES)
