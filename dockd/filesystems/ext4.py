"""The superblock of ext4 (kernel Documentation/filesystems/ext4/super.rst). Its files are the kernel's business."""

from __future__ import annotations

import struct
from uuid import UUID

from dockd.errors import FilesystemUnclear
from dockd.filesystems.records import ReadAt, Superblock, exactly

_AT, _BYTES = 1024, 1024
_MAX_LOG_BLOCK = 6  # 64 KiB
_CLEAN, _ERRORS, _ORPHANS = 1, 2, 4  # s_state
_RECOVER, _JOURNAL_DEVICE = 4, 8  # incompatible features
_WIDE = 0x80  # the same: 64bit
_ORPHANS_PRESENT = 0x10000  # read-only compatible
_TEST = 4  # s_flags: made for a kernel under test, which udev calls ext4dev
_EXT3_INCOMPATIBLE, _EXT3_READ_ONLY = 0x16, 0x07  # all that ext3 knows

# The names that mke2fs has for feature bits worth keeping: what describes a moment is left out.
_COMPATIBLE = {
    0x04: "has_journal",
    0x08: "ext_attr",
    0x10: "resize_inode",
    0x20: "dir_index",
    0x200: "sparse_super2",
    0x1000: "orphan_file",
}
_INCOMPATIBLE = {
    0x02: "filetype",
    0x10: "meta_bg",
    0x40: "extent",
    0x80: "64bit",
    0x200: "flex_bg",
    0x400: "ea_inode",
    0x2000: "metadata_csum_seed",
    0x4000: "large_dir",
    0x8000: "inline_data",
}
_READ_ONLY = {
    0x01: "sparse_super",
    0x02: "large_file",
    0x08: "huge_file",
    0x10: "uninit_bg",
    0x20: "dir_nlink",
    0x40: "extra_isize",
    0x400: "metadata_csum",
}


def superblock(read: ReadAt) -> Superblock:
    """Parse it. Raises FilesystemUnclear where there is none, or that of an ext2 or ext3."""
    block = exactly(read, _AT, _BYTES)
    magic, state = struct.unpack_from("<HH", block, 56)
    if magic != 0xEF53:  # noqa: PLR2004  the magic number
        raise FilesystemUnclear("no superblock of an ext file system")
    compatible, incompatible, read_only = _number(block, 92), _number(block, 96), _number(block, 100)
    unknown_to_ext3 = incompatible & ~_EXT3_INCOMPATIBLE or read_only & ~_EXT3_READ_ONLY
    if incompatible & _JOURNAL_DEVICE or not unknown_to_ext3 or _number(block, 352) & _TEST:
        raise FilesystemUnclear("an ext2 or ext3, or a journal alone: not ext4")
    if _number(block, 24) > _MAX_LOG_BLOCK:
        raise FilesystemUnclear(f"blocks of 2^{_number(block, 24) + 10} bytes")
    block_bytes = 1024 << _number(block, 24)
    blocks = _number(block, 4) | (_number(block, 336) << 32 if incompatible & _WIDE else 0)
    uuid = block[104:120]
    volume_id = str(UUID(bytes=uuid)) if any(uuid) else ""
    label = block[120:136].split(b"\0")[0].decode("utf-8", "replace")
    names = [
        name
        for bits, table in ((compatible, _COMPATIBLE), (incompatible, _INCOMPATIBLE), (read_only, _READ_ONLY))
        for bit, name in table.items()
        if bits & bit
    ]
    return Superblock(
        kind="ext4",
        volume_id=volume_id,
        label=label,
        size_bytes=blocks * block_bytes,
        block_bytes=block_bytes,
        dirty=_dirty(state, incompatible, read_only, errors=_number(block, 404), orphans=_number(block, 232)),
        like={
            "label": label,
            "volume_id": volume_id,
            "block_bytes": block_bytes,
            "inode_bytes": struct.unpack_from("<H", block, 88)[0] if _number(block, 76) else 128,
            "inodes": _number(block, 0),
            "reserved_blocks": _number(block, 8) | (_number(block, 340) << 32 if incompatible & _WIDE else 0),
            "features": ",".join(["none", *names]),  # for `mke2fs -O`, which forgets its own defaults at "none"
        },
    )


def _number(block: bytes, at: int) -> int:
    return int.from_bytes(block[at : at + 4], "little")


def _dirty(state: int, incompatible: int, read_only: int, *, errors: int, orphans: int) -> str:
    reasons = []
    if not state & _CLEAN:
        reasons.append("the superblock says that the volume was not let go cleanly")
    if incompatible & _RECOVER:
        reasons.append("its journal was not replayed")
    if state & _ERRORS or errors:
        reasons.append("the superblock counts errors of the file system")
    if state & _ORPHANS or orphans or read_only & _ORPHANS_PRESENT:
        reasons.append("deleted files were not cleared away")
    return "; ".join(reasons)
