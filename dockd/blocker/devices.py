"""What the kernel does with a block device by its descriptor. Sizes and offsets are bytes; OSError passes through."""

from __future__ import annotations

import fcntl
import struct

_BLKROSET = 0x125D
_BLKROGET = 0x125E
_BLKFLSBUF = 0x1261
_BLKSSZGET = 0x1268
_BLKDISCARD = 0x1277
_BLKZEROOUT = 0x127F
_BLKGETSIZE64 = 0x80081272
_BLKGETDISKSEQ = 0x80081280


def set_read_only(fd: int, *, locked: bool) -> None:
    """Refuse, or allow again, every write to the device and every writable mount. Needs CAP_SYS_ADMIN."""
    fcntl.ioctl(fd, _BLKROSET, struct.pack("i", int(locked)))


def is_read_only(fd: int) -> bool:
    """Whether the kernel refuses writing."""
    return _int(fd, _BLKROGET) != 0


def forget_cache(fd: int) -> None:
    """Write out and forget what is cached of the device, its own and not its files'. Needs CAP_SYS_ADMIN."""
    fcntl.ioctl(fd, _BLKFLSBUF, 0)


def disk_sequence(fd: int) -> int:
    """The number of this arrival of this disk: never used twice until the next boot."""
    answer: int = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETDISKSEQ, bytes(8)))[0]
    return answer


def size_bytes(fd: int) -> int:
    """How large the device is."""
    answer: int = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0]
    return answer


def sector_bytes(fd: int) -> int:
    """Its logical sectors: what O_DIRECT has to be aligned to."""
    return _int(fd, _BLKSSZGET)


def zero(fd: int, offset: int, length: int) -> None:
    """Make this range read as zeros, on the medium and in the cache: the kernel writes them where it has to."""
    fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", offset, length))


def discard(fd: int, offset: int, length: int) -> None:
    """Tell the device that this range is not needed. What it reads as then is the device's business."""
    fcntl.ioctl(fd, _BLKDISCARD, struct.pack("QQ", offset, length))


def _int(fd: int, request: int) -> int:
    answer: int = struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0]
    return answer
