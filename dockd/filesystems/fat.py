"""FAT12, FAT16 and FAT32 volumes: their tree and their clusters, entries read as kernel fs/fat/dir.c reads them."""

from __future__ import annotations

from collections.abc import Iterator

from dockd.errors import FilesystemUnclear
from dockd.filesystems import fat_layout
from dockd.filesystems.chains import Chains
from dockd.filesystems.fat_layout import ENTRY_BYTES, FatLayout
from dockd.filesystems.names import from_short, from_utf16
from dockd.filesystems.records import ReadAt, exactly
from dockd.filesystems.tree import ClusterVolume, Node, require_name

MAX_DIRECTORY_BYTES = 65536 * ENTRY_BYTES
_WIDE_BITS, _WIDE_BITS_COUNTED = 32, 28
_FREE = (0x00, 0xE5)
_VOLUME, _DIRECTORY, _LONG = 0x08, 0x10, 0x0F
_LAST_SLOT, _MAX_SLOTS = 0x40, 20
_DOTS = (b".          ", b"..         ")


class FatVolume(ClusterVolume):
    """One volume, as the boot sector lays it out. Raises FilesystemUnclear where Linux would read another FAT."""

    def __init__(self, read: ReadAt, layout: FatLayout) -> None:
        if layout.active_fat:
            raise FilesystemUnclear(f"FAT number {layout.active_fat} counts, and Linux reads the first")
        bits = _WIDE_BITS_COUNTED if layout.bits == _WIDE_BITS else layout.bits
        chains = Chains(read, start=layout.fat_start, bits=bits, clusters=layout.clusters)
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
        """The root directory: of FAT12 and FAT16 it has no clusters."""
        return self._root

    def _offset(self, cluster: int) -> int:
        return self._layout.offset(cluster)

    def _content(self, directory: Node) -> bytes:
        if directory is self._root and not directory.first:
            return exactly(self._read, self._layout.root_start, self._layout.root_entries * ENTRY_BYTES)
        return super()._content(directory)

    def _parse(self, content: bytes) -> Iterator[Node]:
        """Like the kernel, this goes on after an entry that says it is the last."""
        long = _LongName()
        for at in range(0, len(content), ENTRY_BYTES):
            first, attributes = content[at], content[at + 11]
            if attributes == _LONG and first != _FREE[1]:
                long.take(content[at : at + ENTRY_BYTES])
                continue
            if first not in _FREE and not attributes & _VOLUME and content[at : at + 11] not in _DOTS:
                entry = content[at : at + ENTRY_BYTES]
                name = long.of(entry[:11])
                short = from_short(entry[:11], entry[12])
                if name is not None or short:
                    yield self._node(short if name is None else name, entry)
            long.forget()

    def _node(self, name: bytes, entry: bytes) -> Node:
        first = int.from_bytes(entry[26:28], "little")
        if self._layout.bits == _WIDE_BITS:
            first |= int.from_bytes(entry[20:22], "little") << 16
        is_directory = bool(entry[11] & _DIRECTORY)
        size = 0 if is_directory else int.from_bytes(entry[28:32], "little")
        return Node(name=require_name(name), is_directory=is_directory, size_bytes=size, first=first)

    def _beside(self) -> Iterator[tuple[str, Node]]:
        return iter(())

    def _allocated(self) -> Iterator[tuple[int, bytes]]:
        for first, page in self._chains.pages():
            yield first, bytes([1 if entry else 0 for entry in page])

    def _suspicious(self) -> Iterator[str]:
        reason = fat_layout.dirty(self._read, self._layout)
        if reason:
            yield reason
        bad = sum(page.count(self._chains.bad) for _, page in self._chains.pages())
        if bad:
            yield f"{bad} clusters are marked as bad"
        for number in range(1, self._layout.fats):
            if self._chains.differs(self._layout.fat_start + number * self._layout.fat_bytes):
                yield f"copy {number + 1} of the FAT is not like the first"


class _LongName:
    """The entries before a file's own that spell its long name, the last part first."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._missing = -1  # parts still to come before the file's own entry; -1: there is no long name
        self._sum = 0

    def take(self, entry: bytes) -> None:
        """One part. What does not go on from the parts before begins a name, or is nothing."""
        slot = entry[0] & ~_LAST_SLOT
        part = entry[1:11] + entry[14:26] + entry[28:32]
        if entry[0] & _LAST_SLOT and 0 < slot <= _MAX_SLOTS:
            self._parts, self._missing, self._sum = [part], slot, entry[13]
        elif 0 < slot == self._missing - 1 and entry[13] == self._sum:
            self._parts.append(part)
            self._missing = slot
        else:
            self.forget()

    def of(self, short: bytes) -> bytes | None:
        """The long name of the file with that short one, where all parts were there and are its own."""
        if self._missing != 1 or _sum(short) != self._sum:
            return None
        return from_utf16(b"".join(reversed(self._parts)))

    def forget(self) -> None:
        """What was collected belongs to nothing."""
        self._missing = -1


def _sum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    return total
