"""How much one PATCH carries: what a store and the way to it let through, found by trial. Pure."""

from __future__ import annotations

MIN_PATCH_BYTES = 256 * 1024  # nginx lets 1 MiB through by default; less than a quarter of that is not worth a request
_MOST_PATIENCE = 64


class PatchSize:
    """Begins with `limit_bytes`; smaller when a PATCH does not get through, larger when some got through in a row.

    The more often it had to become smaller, the longer it waits before it tries more: a limit that does not go away
    costs a PATCH in 64.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 1:
            raise ValueError("a PATCH carries at least a byte")
        self._limit_bytes = limit_bytes
        self._least_bytes = min(MIN_PATCH_BYTES, limit_bytes)
        self._patience = 1
        self._in_a_row = 0
        self.bytes = limit_bytes

    def arrived(self, length: int) -> None:
        """A PATCH of so many bytes arrived whole; a shorter one than was allowed says nothing."""
        if length < self.bytes:
            return
        self._in_a_row += 1
        if self.bytes == self._limit_bytes:
            self._patience = 1
        elif self._in_a_row >= self._patience:
            self._in_a_row = 0
            self.bytes = min(self._limit_bytes, self.bytes * 2)

    def refused(self, length: int) -> bool:
        """Nothing of so many bytes arrived: too many for somebody, or lost in a buffer on the way.

        Returns whether fewer are tried now. Several uploads that meet the same make it smaller only once.
        """
        return self._shrink(length // 4)

    def cut(self, length: int, arrived_bytes: int) -> bool:
        """The connection ended after some of its bytes: half of what it lived for. Returns the same."""
        return self._shrink(min(length, arrived_bytes) // 2)

    def _shrink(self, size_bytes: int) -> bool:
        wanted = max(self._least_bytes, size_bytes)
        if wanted >= self.bytes:
            return False
        self.bytes = wanted
        self._patience = min(_MOST_PATIENCE, self._patience * 2)
        self._in_a_row = 0
        return True
