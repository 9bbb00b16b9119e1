"""Make an MP4 file longer without touching what it records: `free` boxes behind its last box."""

from __future__ import annotations

from collections.abc import Iterator

_HEADER_BYTES = 8
_BOX_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 16
# Text, not zeros: behind a recording that was cut, padding then does not look like lost clusters.
_FILLING = (b"padding made by dockd\n" * (_BLOCK_BYTES // 22 + 1))[:_BLOCK_BYTES]


def pad(size_bytes: int) -> Iterator[bytes]:
    """Blocks of at most 64 KiB, `size_bytes` together, that are valid `free` boxes.

    Raises ValueError, at once, for 1 to 7 bytes and less than none: no box is as short.
    """
    if size_bytes < 0 or 0 < size_bytes < _HEADER_BYTES:
        raise ValueError(f"no padding of {size_bytes} bytes can be made: 0, or at least {_HEADER_BYTES}")
    return _boxes(size_bytes)


def _boxes(left: int) -> Iterator[bytes]:
    while left:
        # never leave less than a header for the last box
        box = left if left < 2 * _BOX_BYTES else _BOX_BYTES
        yield box.to_bytes(4, "big") + b"free"
        payload = box - _HEADER_BYTES
        while payload:
            count = min(payload, _BLOCK_BYTES)
            yield _FILLING[:count]
            payload -= count
        left -= box
