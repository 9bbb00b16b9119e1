"""Look at a camera's file system on its block device, beside the kernel: what it is, whose bytes are where. Pure."""

from dockd.errors import FilesystemUnclear
from dockd.filesystems.exfat import ExfatVolume
from dockd.filesystems.fat import FatVolume
from dockd.filesystems.probe import open_volume, probe
from dockd.filesystems.records import Extent, ReadAt, StoredFile, Superblock

__all__ = [
    "ExfatVolume",
    "Extent",
    "FatVolume",
    "FilesystemUnclear",
    "ReadAt",
    "StoredFile",
    "Superblock",
    "open_volume",
    "probe",
]
