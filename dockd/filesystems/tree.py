"""What FAT and exFAT have in common: a tree of directories over chains of clusters, walked without recursion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from dockd.errors import FilesystemUnclear
from dockd.filesystems.accounting import Account
from dockd.filesystems.chains import FIRST_CLUSTER, Chain, Chains
from dockd.filesystems.records import Extent, ReadAt, StoredFile, exactly

MAX_CLUSTERS = 1 << 25  # 128 GiB of the smallest that cards have, 1 TiB of the usual 32 KiB
MAX_ENTRIES = 1 << 18  # files and directories on one volume
MAX_DEPTH = 64
MAX_PATH_BYTES = 4096
_IN_WORDS = {b"", b".", b".."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One entry of a directory."""

    name: bytes
    is_directory: bool
    size_bytes: int  # as the entry states it; FAT states none for a directory
    first: int  # its first cluster, 0 where it has none
    in_a_row: bool = False  # its clusters follow each other, and the FAT does not say so (exFAT)
    unclear: str = ""  # what is wrong with the entry, in words


class ClusterVolume(ABC):
    """A file system of clusters, as it was when it was opened: open it anew once anything was written.

    Memory is bounded whatever the volume says: a few MiB for pages of the FAT and for one directory, and in
    `unaccounted` one byte a cluster. An OSError of `read` passes through every method.
    """

    def __init__(
        self, read: ReadAt, chains: Chains, *, clusters: int, cluster_bytes: int, max_directory_bytes: int
    ) -> None:
        if clusters > MAX_CLUSTERS:
            raise FilesystemUnclear(f"{clusters} clusters: more than {MAX_CLUSTERS} are not followed")
        self._read = read
        self._chains = chains
        self._clusters = clusters
        self._cluster_bytes = cluster_bytes
        self._max_directory_bytes = max_directory_bytes
        self._listed: tuple[bytes, dict[bytes, Node]] | None = None  # the directory that was looked into last

    @property
    @abstractmethod
    def root(self) -> Node:
        """The root directory."""

    @abstractmethod
    def _parse(self, content: bytes) -> Iterator[Node]:
        """The entries of a directory that Linux shows, but "." and ".."."""

    @abstractmethod
    def _offset(self, cluster: int) -> int:
        """Where a cluster begins, in bytes."""

    @abstractmethod
    def _beside(self) -> Iterator[tuple[str, Node]]:
        """What takes clusters and is in no directory, with a name for it."""

    @abstractmethod
    def _allocated(self) -> Iterator[tuple[int, bytes]]:
        """For each cluster whether it is taken (1) or free (0), in pieces, each with its first cluster's number."""

    @abstractmethod
    def _suspicious(self) -> Iterator[str]:
        """What else speaks against knowing every block: dirty, bad clusters, copies that differ."""

    def files(self) -> Iterator[StoredFile]:
        """Every file and directory, each once, parents before what is in them.

        Raises FilesystemUnclear for directories in a loop, too deep, too many or not readable as such.
        """
        left = self._clusters  # no volume has more; chains that share theirs could make it long work
        for path, node in self._walk():
            file, steps = self._stored(path, node)
            left -= steps
            if left < 0:
                raise FilesystemUnclear("the files have more clusters than the volume: some share theirs")
            yield file

    def paths(self) -> Iterator[bytes]:
        """Every file's path, as `files` has it, without a look at where it lies."""
        return (path for path, node in self._walk() if not node.is_directory)

    def extents(self, path: bytes) -> tuple[Extent, ...] | None:
        """Where a file's bytes lie, in order; None where no file has that path. A directory: all that it takes.

        The root's path is b"". Raises FilesystemUnclear where its chain breaks off, or two entries have its name.
        """
        parent, _, name = path.rpartition(b"/")
        node = self._entries(parent).get(name) if path else self.root
        if node is None:
            return None
        file, _ = self._stored(path, node)
        if file.unclear:
            raise FilesystemUnclear(f"{shown(path)}: {file.unclear}")
        return file.extents

    def free(self) -> Iterator[Extent]:
        """Where nothing lies, in order."""
        start = length = 0
        for first, taken in self._allocated():
            at = taken.find(0)
            while at >= 0:
                end = taken.find(1, at)
                end = len(taken) if end < 0 else end
                offset, size = self._offset(first + at), (end - at) * self._cluster_bytes
                if offset == start + length:
                    length += size
                else:
                    if length:
                        yield start, length
                    start, length = offset, size
                at = taken.find(0, end)
        if length:
            yield start, length

    def unaccounted(self, paths: Collection[bytes]) -> str:
        """Why not every taken cluster belongs to one of the files `paths`, or to a directory. Empty where each does.

        Never raises FilesystemUnclear: that is a reason, too.
        """
        account = Account(self._clusters)
        try:
            account.note(*self._suspicious())
            account.take("the root directory", self._chain(self.root, whole=True))
            for name, node in self._beside():
                account.take(name, self._chain(node, whole=True))
            wanted = set(paths)
            for path, node in self._walk():
                if not node.is_directory:
                    if path not in wanted:
                        account.note(f"{shown(path)} is not among the files to be erased")
                    wanted.discard(path)
                account.take(shown(path), self._chain(node, whole=True))
                if node.unclear:
                    account.note(f"{shown(path)}: {node.unclear}")
            account.note(*(f"{shown(path)} is not on the volume" for path in wanted))
            for first, taken in self._allocated():
                account.compare(first, taken)
        except FilesystemUnclear as unclear:
            account.note(str(unclear))
        return account.text()

    def contradiction(self) -> str:
        """Why overwriting one file might change another: a cluster that two of them have. Empty where none has.

        What else makes the volume unclear is such a reason too. Never raises FilesystemUnclear.
        """
        account = Account(self._clusters)
        try:
            account.take("the root directory", self._chain(self.root, whole=True))
            for name, node in self._beside():
                account.take(name, self._chain(node, whole=True))
            for path, node in self._walk():
                account.take(shown(path), self._chain(node, whole=True))
        except FilesystemUnclear as unclear:
            return str(unclear)
        return ""

    # --- directories

    def _walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every entry below the root, with its path."""
        count, seen = 0, {self.root.first}
        waiting: list[tuple[bytes, Node, int]] = [(b"", self.root, 0)]  # directory above, directory, depth
        while waiting:
            above, directory, depth = waiting.pop()
            path = _join(above, directory.name)
            if depth > MAX_DEPTH or len(path) > MAX_PATH_BYTES:
                raise FilesystemUnclear(f"directories more than {MAX_DEPTH} deep, or a path too long to follow")
            names = set()
            for node in self._parse(self._content(directory)):
                count += 1
                if count > MAX_ENTRIES:
                    raise FilesystemUnclear(f"more than {MAX_ENTRIES} files and directories")
                if node.name in names:
                    raise FilesystemUnclear(f"two entries are named {shown(_join(path, node.name))}")
                names.add(node.name)
                if node.is_directory:
                    if node.first in seen:
                        raise FilesystemUnclear(f"{shown(_join(path, node.name))} lies where another directory does")
                    if node.first:
                        seen.add(node.first)
                    waiting.append((path, node, depth + 1))
                yield _join(path, node.name), node

    def _entries(self, path: bytes) -> dict[bytes, Node]:
        """What is in a directory, by name; nothing where there is no such directory."""
        if self._listed is not None and self._listed[0] == path:
            return self._listed[1]
        entries = self._named(self.root)
        for name in path.split(b"/") if path else ():
            below = entries.get(name)
            if below is None or not below.is_directory:
                return {}
            entries = self._named(below)
        self._listed = (path, entries)
        return entries

    def _named(self, directory: Node) -> dict[bytes, Node]:
        entries: dict[bytes, Node] = {}
        for node in self._parse(self._content(directory)):
            if node.name in entries:
                raise FilesystemUnclear(f"two entries are named {shown(node.name)}")
            entries[node.name] = node
        return entries

    def _content(self, directory: Node) -> bytes:
        """All bytes of a directory. Raises FilesystemUnclear."""
        chain = self._chain(directory, whole=False)
        if chain.broken:
            raise FilesystemUnclear(f"directory {shown(directory.name) or '/'}: {chain.broken}")
        pieces = []
        for first, count in chain.runs:
            pieces.append(exactly(self._read, self._offset(first), count * self._cluster_bytes))
        return b"".join(pieces)

    # --- chains

    def _stored(self, path: bytes, node: Node) -> tuple[StoredFile, int]:
        """With its extents, and how many clusters were looked at for them."""
        chain = self._chain(node, whole=False)
        unclear, extents = node.unclear or chain.broken, []
        left = chain.clusters * self._cluster_bytes if node.is_directory else node.size_bytes
        for first, count in chain.runs:
            length = min(left, count * self._cluster_bytes)
            extents.append((self._offset(first), length))
            left -= length
        return StoredFile(
            path=path,
            size_bytes=0 if node.is_directory else node.size_bytes,
            extents=() if unclear else tuple(extents),
            is_directory=node.is_directory,
            unclear=unclear,
        ), chain.clusters

    def _chain(self, node: Node, *, whole: bool) -> Chain:
        """The clusters of an entry: what its size needs, or all of a directory.

        `whole` asks for everything that it takes: then a chain that goes on after its file is broken, too.
        """
        stated = -(-node.size_bytes // self._cluster_bytes)
        if stated > self._clusters:
            return Chain(broken="it states a size of more than the volume has")
        if node.in_a_row:
            if FIRST_CLUSTER <= node.first <= self._clusters + FIRST_CLUSTER - stated and stated:
                return Chain(runs=((node.first, stated),), clusters=stated)
            return Chain(broken=f"its {stated} clusters from {node.first} on are not on the volume")
        if not node.first:
            return Chain(broken="it has no clusters for its size") if stated else Chain()
        return self._followed(node, stated, whole=whole)

    def _followed(self, node: Node, stated: int, *, whole: bool) -> Chain:
        most = max(1, self._max_directory_bytes // self._cluster_bytes) if node.is_directory else stated
        chain = self._chains.follow(node.first, most)
        broken = chain.broken
        if broken:
            pass
        elif node.is_directory and chain.longer:
            broken = f"a directory of more than {self._max_directory_bytes} bytes, or a loop"
        elif chain.clusters < stated:
            broken = "its chain is shorter than its size"
        elif whole and (chain.longer or (node.is_directory and node.size_bytes and chain.clusters > stated)):
            broken = "its chain is longer than its size"
        return Chain(runs=chain.runs, clusters=chain.clusters, broken=broken)


def shown(path: bytes) -> str:
    """A path for a sentence."""
    return path.decode(errors="backslashreplace")


def require_name(name: bytes) -> bytes:
    """`name`, where a directory can have it. Raises FilesystemUnclear."""
    if name in _IN_WORDS or b"/" in name:
        raise FilesystemUnclear(f"an entry is named {shown(name)!r}, which no file can be")
    return name


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name
