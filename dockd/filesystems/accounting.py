"""Whose clusters are whose: each to belong to one file or directory, and none to be taken by nobody."""

from __future__ import annotations

from dockd.errors import FilesystemUnclear
from dockd.filesystems.chains import FIRST_CLUSTER, Chain

_REASONS = 4  # that are told in words; the others are counted


class Account:
    """Takes what was found, piece by piece, and says in the end what does not come out even."""

    def __init__(self, clusters: int) -> None:
        self._owned = bytearray(clusters)
        self._reasons: list[str] = []
        self._more = 0
        self._lost = 0
        self._free = 0

    def note(self, *reasons: str) -> None:
        """Something speaks against it."""
        room = _REASONS - len(self._reasons)
        self._reasons += reasons[:room]
        self._more += len(reasons[room:])

    def take(self, name: str, chain: Chain) -> None:
        """These clusters are of `name`. Raises FilesystemUnclear where one is another's."""
        if chain.broken:
            self.note(f"{name}: {chain.broken}")
        for first, count in chain.runs:
            begin, end = first - FIRST_CLUSTER, first - FIRST_CLUSTER + count
            shared = self._owned.find(1, begin, end)
            if shared >= 0:
                raise FilesystemUnclear(f"{name} shares cluster {shared + FIRST_CLUSTER} with something else")
            self._owned[begin:end] = b"\1" * count

    def compare(self, first: int, taken: bytes) -> None:
        """Set what was found against what the file system says is taken, from cluster `first` on: 1 or 0 for each."""
        begin = first - FIRST_CLUSTER
        owned = bytes(self._owned[begin : begin + len(taken)])
        if owned != taken:
            self._lost += sum(1 for ours, theirs in zip(owned, taken, strict=True) if theirs > ours)
            self._free += sum(1 for ours, theirs in zip(owned, taken, strict=True) if ours > theirs)

    def text(self) -> str:
        """All reasons in one line; empty where there are none."""
        reasons = list(self._reasons)
        if self._lost:
            reasons.append(f"{self._lost} clusters are taken by no file")
        if self._free:
            reasons.append(f"{self._free} clusters of files are marked as free")
        if self._more:
            reasons.append(f"{self._more} more findings")
        return "; ".join(reasons)
