"""exFAT volumes: their tree and their clusters (specification, sections 6 and 7), as kernel fs/exfat reads them."""

from __future__ import annotations

from collections.abc import Iterator

from dockd.errors import FilesystemUnclear
from dockd.filesystems import exfat_layout
from dockd.filesystems.chains import FIRST_CLUSTER, Chains
from dockd.filesystems.exfat_layout import ENTRY_BYTES, ExfatLayout
from dockd.filesystems.names import from_utf16
from dockd.filesystems.records import ReadAt, exactly
from dockd.filesystems.tree import ClusterVolume, Node, require_name

MAX_DIRECTORY_BYTES = 16 * 1024 * 1024
_END, _BITMAP, _UPCASE, _FILE, _STREAM, _NAME = 0x00, 0x81, 0x82, 0x85, 0xC0, 0xC1
_IN_USE = 0x80
_DIRECTORY = 0x10
_NO_FAT_CHAIN, _ALLOCATION_POSSIBLE = 2, 1
_NAME_BYTES = 30  # in each entry
_SECONDARIES = range(2, 19)  # stream and 1 to 17 names; vendors' own may follow
_BITS = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
_PIECE_BYTES = 16 * 1024  # of the bitmap


class ExfatVolume(ClusterVolume):
    """One volume, as the boot sector lays it out. Raises FilesystemUnclear where Linux would read another FAT."""

    def __init__(self, read: ReadAt, layout: ExfatLayout) -> None:
        if exfat_layout.second_fat_counts(layout):
            raise FilesystemUnclear("the volume has a second FAT, and Linux reads the first")
        chains = Chains(read, start=layout.fat_start, bits=32, clusters=layout.clusters)
        super().__init__(
            read,
            chains,
            clusters=layout.clusters,
            cluster_bytes=layout.cluster_bytes,
            max_directory_bytes=MAX_DIRECTORY_BYTES,
        )
        self._layout = layout
        self._root = Node(name=b"", is_directory=True, size_bytes=0, first=layout.root_cluster)

    @property
    def root(self) -> Node:
        """The root directory."""
        return self._root

    def _offset(self, cluster: int) -> int:
        return self._layout.offset(cluster)

    def _parse(self, content: bytes) -> Iterator[Node]:
        at = 0
        while at < len(content):
            kind = content[at]
            if kind == _END:
                return
            if kind != _FILE:
                at += ENTRY_BYTES
                continue
            length = ENTRY_BYTES * (1 + content[at + 1])
            entries = content[at : at + length]
            if content[at + 1] not in _SECONDARIES or len(entries) != length or not _is_set(entries):
                raise FilesystemUnclear(f"the entries of a file, {at} bytes into their directory, do not fit together")
            yield _node(entries)
            at += length

    def _beside(self) -> Iterator[tuple[str, Node]]:
        yield "the allocation bitmap", self._bitmap()
        yield "the up-case table", self._system(_UPCASE)

    def _allocated(self) -> Iterator[tuple[int, bytes]]:
        left, first = self._layout.clusters, FIRST_CLUSTER
        for begin, count in self._chain(self._bitmap(), whole=True).runs:
            offset, size = self._offset(begin), count * self._layout.cluster_bytes
            for at in range(0, size, _PIECE_BYTES):
                if not left:
                    return
                piece = exactly(self._read, offset + at, min(_PIECE_BYTES, size - at, (left + 7) // 8))
                flags = b"".join([_BITS[byte] for byte in piece])[:left]
                yield first, flags
                first += len(flags)
                left -= len(flags)
        if left:
            raise FilesystemUnclear("the allocation bitmap is shorter than the volume")

    def _suspicious(self) -> Iterator[str]:
        reason = exfat_layout.dirty(self._layout)
        if reason:
            yield reason
        bad = sum(page.count(self._chains.bad) for _, page in self._chains.pages())
        if bad:
            yield f"{bad} clusters are marked as bad"

    def _bitmap(self) -> Node:
        node = self._system(_BITMAP)
        if node.size_bytes < (self._layout.clusters + 7) // 8:
            raise FilesystemUnclear("the allocation bitmap is shorter than the volume")
        return node

    def _system(self, kind: int) -> Node:
        """The bitmap or the up-case table: an entry of the root directory without a name."""
        content = self._content(self._root)
        for at in range(0, len(content), ENTRY_BYTES):
            if content[at] == _END:
                break
            if content[at] == kind and not (kind == _BITMAP and content[at + 1] & 1):
                first = int.from_bytes(content[at + 20 : at + 24], "little")
                size = int.from_bytes(content[at + 24 : at + 32], "little")
                return Node(name=b"", is_directory=False, size_bytes=size, first=first)
        raise FilesystemUnclear("the root directory names no allocation bitmap, or no up-case table")


def _is_set(entries: bytes) -> bool:
    """A file's own entry, its stream and as many names as the stream's length needs, one after the other."""
    kinds = entries[0::ENTRY_BYTES]
    names = -(-2 * entries[ENTRY_BYTES + 3] // _NAME_BYTES)
    expected = bytes([_FILE, _STREAM]) + bytes([_NAME]) * names
    return bool(names) and kinds.startswith(expected) and all(kind & 0xC0 == 0xC0 for kind in kinds[1:])  # noqa: PLR2004  in use and secondary


def _node(entries: bytes) -> Node:
    stream = entries[ENTRY_BYTES : 2 * ENTRY_BYTES]
    parts = (entries[at + 2 : at + ENTRY_BYTES] for at in range(2 * ENTRY_BYTES, len(entries), ENTRY_BYTES))
    name = from_utf16(b"".join(parts)[: 2 * stream[3]])
    sums = _sum(entries) == int.from_bytes(entries[2:4], "little")
    first, size = int.from_bytes(stream[20:24], "little"), int.from_bytes(stream[24:32], "little")
    possible = bool(stream[1] & _ALLOCATION_POSSIBLE)
    return Node(
        name=require_name(name),
        is_directory=bool(int.from_bytes(entries[4:6], "little") & _DIRECTORY),
        size_bytes=size,
        first=first if possible else 0,
        in_a_row=bool(possible and first and stream[1] & _NO_FAT_CHAIN),
        unclear="" if sums else "the checksum of its entries is wrong",
    )


def _sum(entries: bytes) -> int:
    total = 0
    for place, byte in enumerate(entries):
        if place not in (2, 3):
            total = ((total << 15 | total >> 1) & 0xFFFF) + byte & 0xFFFF
    return total
