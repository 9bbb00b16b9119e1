"""The Merkle tree of RFC 6962, section 2.1, over the custody log's lines.

A node's level counts from the leaves; its index counts complete subtrees of that level from the left. Only complete
nodes are kept: proofs and roots of every size follow from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, Self

from dockd.errors import VerificationFailed

EMPTY_ROOT = hashlib.sha256(b"").digest()


class NodeSource(Protocol):
    """Where complete nodes are kept."""

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete node."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf: a custody line without its LF."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: a hash for each one-bit of its size."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []  # (level, hash), the largest first

    @classmethod
    def rebuild(cls, nodes: NodeSource, size: int) -> Self:
        """The frontier of a tree of `size` leaves whose nodes are kept."""
        frontier = cls()
        frontier.size = size
        frontier._peaks = [(level, nodes.node(level, index)) for level, index in _cover(0, size)]
        return frontier

    def append(self, entry: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf; returns the nodes that it completes, as (level, index, hash)."""
        level, index, value = 0, self.size, leaf_hash(entry)
        made = [(level, index, value)]
        while self._peaks and self._peaks[-1][0] == level:
            value = node_hash(self._peaks.pop()[1], value)
            level, index = level + 1, index // 2
            made.append((level, index, value))
        self._peaks.append((level, value))
        self.size += 1
        return made

    def root(self) -> bytes:
        """The tree's root."""
        return _fold([value for _, value in self._peaks])


def root_at(nodes: NodeSource, size: int) -> bytes:
    """The root that the tree had at `size` leaves."""
    return _range_hash(nodes, 0, size)


def inclusion_proof(nodes: NodeSource, index: int, size: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves (RFC 6962, section 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_hash(nodes, middle, high))
            high = middle
        else:
            path.append(_range_hash(nodes, low, middle))
            low = middle
    return path[::-1]


def consistency_proof(nodes: NodeSource, old: int, new: int) -> list[bytes]:
    """The proof that the tree of `new` leaves extends that of `old` (RFC 6962, section 2.1.2)."""
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof from {old} to {new}")
    path, low, high, whole = [], 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range_hash(nodes, middle, high))
            high = middle
        else:
            path.append(_range_hash(nodes, low, middle))
            low, whole = middle, False
    if not whole:
        path.append(_range_hash(nodes, low, high))
    return path[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that `leaf` (a leaf hash) stands at `index` under `root` (RFC 9162, 2.1.3.2). Raises VerificationFailed."""
    if not 0 <= index < size:
        raise VerificationFailed(f"there is no entry {index} under a root of {size} entries")
    place, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise VerificationFailed("the inclusion proof is too long")
        if place & 1 or place == last:
            value = node_hash(sibling, value)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        place, last = place >> 1, last >> 1
    if last or value != root:
        raise VerificationFailed(f"the entry is not number {index} under this root of {size} entries")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `new` leaves extends that of `old` (RFC 9162, 2.1.4.2). Raises VerificationFailed."""
    if old > new or old < 0:
        raise VerificationFailed(f"a log of {new} entries cannot extend one of {old}")
    if old in (0, new):
        if proof or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise VerificationFailed(f"two different logs of {old} entries")
        return
    path = list(proof)
    if not old & (old - 1):
        path.insert(0, old_root)
    if not path:
        raise VerificationFailed("the consistency proof is empty")
    if _both_roots(old, new, path) != (old_root, new_root):
        raise VerificationFailed(f"the log of {new} entries does not extend the one of {old} entries: it forked")


def _both_roots(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The roots that a consistency path leads to; None where it is too short. Raises VerificationFailed."""
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise VerificationFailed("the consistency proof is too long")
        if place & 1 or place == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        place, last = place >> 1, last >> 1
    return None if last else (first, second)


def _split(count: int) -> int:
    """The largest power of two below `count` (at least 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def _cover(low: int, high: int) -> list[tuple[int, int]]:
    """The complete nodes (level, index), from the left, that cover the leaves [low, high); low as the tree splits."""
    nodes = []
    while low < high:
        level = (high - low).bit_length() - 1
        nodes.append((level, low >> level))
        low += 1 << level
    return nodes


def _range_hash(nodes: NodeSource, low: int, high: int) -> bytes:
    return _fold([nodes.node(level, index) for level, index in _cover(low, high)])


def _fold(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    value = peaks[-1]
    for left in reversed(peaks[:-1]):
        value = node_hash(left, value)
    return value
