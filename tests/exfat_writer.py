"""Fill a fresh exFAT image without mounting it: directories, files in one piece or chained through the FAT.

Written against Microsoft's specification, and apart from dockd.filesystems, which it is to test.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path

FILLER = "DCIM/FILLER.BIN"
_MADE = (46 << 25) | (1 << 21) | (2 << 16) | (3 << 11) | (4 << 5) | 3  # 2026-01-02 03:04:06
_END_OF_CHAIN = 0xFFFFFFFF
_NO_FAT_CHAIN, _ALLOCATION = 2, 1
_READ_ONLY, _DIRECTORY, _ARCHIVE = 0x01, 0x10, 0x20


def fill(
    path: Path,
    files: Mapping[str, bytes],
    *,
    chained: Collection[str] = (),
    read_only: Collection[str] = (),
    full: bool = False,
) -> bytes:
    """Write `files` to the image that mkfs.exfat made. Returns the filler's content where it was to be full.

    The clusters of `chained` files lie two apart, and the FAT says so; all others lie in a row.
    """
    assert not (full and chained), "the gaps of chained files stay free"
    with path.open("r+b") as image:
        writer = _Writer(image, chained, read_only)
        filler = b""
        if full:
            room = writer.free - writer.needed(_tree({**files, FILLER: b""}))
            filler = b"\x5a" * (room * writer.cluster_bytes)
            files = {**files, FILLER: filler}
        writer.write(_tree(files))
    return filler


def _tree(files: Mapping[str, bytes]) -> dict:
    root: dict = {}
    for path, content in files.items():
        *above, name = path.split("/")
        directory = root
        for part in above:
            directory = directory.setdefault(part, {})
        directory[name] = content
    return root


class _Writer:
    def __init__(self, image, chained: Collection[str], read_only: Collection[str]) -> None:
        self._image = image
        self._chained = set(chained)
        self._read_only = set(read_only)
        image.seek(64)
        fields = struct.unpack("<QQIIIIIIHHBBB", image.read(47))
        sector = 1 << fields[10]
        self.cluster_bytes = sector << fields[11]
        self._fat, self._heap, self._clusters, self._root = fields[2] * sector, fields[4] * sector, fields[5], fields[6]
        self._system = self._entries()
        bitmap = next(entry for entry in self._system if entry[0] == 0x81)
        self._bitmap_at = self._offset(int.from_bytes(bitmap[20:24], "little"))
        image.seek(self._bitmap_at)
        self._bitmap = bytearray(image.read((self._clusters + 7) // 8))

        taken = [cluster for cluster in range(2, self._clusters + 2) if not self._is_free(cluster)]
        self._next = max(taken) + 1

    @property
    def free(self) -> int:
        return self._clusters + 2 - self._next

    def needed(self, tree: dict, *, root: bool = True) -> int:
        own = self._directory_bytes(tree, root=root) // self.cluster_bytes - root
        for content in tree.values():
            own += self.needed(content, root=False) if isinstance(content, dict) else self._count(len(content))
        return own

    def write(self, tree: dict) -> None:
        content = b"".join(self._system) + self._children(tree, "")
        size = self._directory_bytes(tree, root=True)
        clusters = [self._root, *self._take(size // self.cluster_bytes - 1)]
        self._put(clusters, content.ljust(size, b"\0"))
        self._link(clusters)
        self._image.seek(self._bitmap_at)
        self._image.write(self._bitmap)

    # --- directories and files

    def _children(self, tree: dict, above: str) -> bytes:
        return b"".join(self._set(name, content, f"{above}{name}") for name, content in tree.items())

    def _set(self, name: str, content: dict | bytes, path: str) -> bytes:
        attributes = _READ_ONLY if path in self._read_only else 0
        if isinstance(content, dict):
            size = self._directory_bytes(content, root=False)
            content = self._children(content, path + "/").ljust(size, b"\0")
            attributes |= _DIRECTORY
        else:
            attributes |= _ARCHIVE
        in_a_row = path not in self._chained
        clusters = self._take(self._count(len(content)), step=1 if in_a_row else 2)
        self._put(clusters, content)
        if clusters and not in_a_row:
            self._link(clusters)
        flags = _ALLOCATION | (_NO_FAT_CHAIN if clusters and in_a_row else 0)
        return _entry_set(name, attributes, flags, clusters[0] if clusters else 0, len(content))

    def _directory_bytes(self, tree: dict, *, root: bool) -> int:
        entries = (len(self._system) if root else 0) + sum(2 + -(-len(_utf16(name)) // 30) for name in tree)
        return max(1, self._count(32 * entries)) * self.cluster_bytes

    # --- clusters

    def _entries(self) -> list[bytes]:
        self._image.seek(self._offset(self._root))
        content = self._image.read(self.cluster_bytes)
        entries = [content[at : at + 32] for at in range(0, len(content), 32)]
        return [entry for entry in entries if entry[0]]

    def _offset(self, cluster: int) -> int:
        return self._heap + (cluster - 2) * self.cluster_bytes

    def _count(self, size: int) -> int:
        return -(-size // self.cluster_bytes)

    def _is_free(self, cluster: int) -> bool:
        return not self._bitmap[(cluster - 2) // 8] >> (cluster - 2) % 8 & 1

    def _take(self, count: int, *, step: int = 1) -> list[int]:
        """Free ones, `step` apart; where `step` is 1, in a row."""
        if not count:
            return []
        clusters = list(range(self._next, self._next + count * step, step))
        self._next = clusters[-1] + 1
        assert clusters[-1] < self._clusters + 2, "the files do not fit on the card"
        for cluster in clusters:
            self._bitmap[(cluster - 2) // 8] |= 1 << (cluster - 2) % 8
        return clusters

    def _put(self, clusters: list[int], content: bytes) -> None:
        for place, cluster in enumerate(clusters):
            self._image.seek(self._offset(cluster))
            self._image.write(content[place * self.cluster_bytes : (place + 1) * self.cluster_bytes])

    def _link(self, clusters: list[int]) -> None:
        for cluster, after in zip(clusters, [*clusters[1:], _END_OF_CHAIN], strict=True):
            self._image.seek(self._fat + 4 * cluster)
            self._image.write(struct.pack("<I", after))


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-le")


def _entry_set(name: str, attributes: int, flags: int, first: int, size: int) -> bytes:
    units = _utf16(name)
    names = [units[at : at + 30].ljust(30, b"\0") for at in range(0, len(units), 30)]
    stamps = struct.pack("<III", _MADE, _MADE, _MADE)
    own = struct.pack("<BBHHH", 0x85, 1 + len(names), 0, attributes, 0) + stamps + bytes(2) + b"\x80\x80\x80" + bytes(7)
    hashed = _rotated(_utf16("".join(_upper(character) for character in name)))
    stream = struct.pack("<BBBBHHQIIQ", 0xC0, flags, 0, len(units) // 2, hashed, 0, size, 0, first, size)
    entries = own + stream + b"".join(b"\xc1\0" + part for part in names)
    return entries[:2] + struct.pack("<H", _rotated(entries[:2] + entries[4:])) + entries[4:]


def _upper(character: str) -> str:
    capital = character.upper()
    return capital if len(_utf16(capital)) == len(_utf16(character)) == 2 else character


def _rotated(content: bytes) -> int:
    total = 0
    for byte in content:
        total = ((total << 15 | total >> 1) & 0xFFFF) + byte & 0xFFFF
    return total
