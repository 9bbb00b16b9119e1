"""Linux calls that Python 3.11 does not offer, through ctypes. Each takes and returns plain values."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)  # the handle of a library, not state of ours
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *([ctypes.c_int] * 3), ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT_FUTURE_ONFAULT = 1 | 2 | 4
_MADV_DONTDUMP = 16
_RENAME_NOREPLACE = 1
_MAP_FAILED = ctypes.c_void_p(-1).value
_STATFS_BYTES = 256  # more than any architecture's struct statfs
_MEMORY_FILE_SYSTEMS = (0x01021994, 0x858458F6)  # tmpfs, ramfs


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def end_with_parent(signal_number: int) -> None:
    """Ask for `signal_number` when the thread that started this program ends. Cleared by fork."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0))


def forbid_dumps() -> None:
    """No core dump, and no attaching debugger without privilege."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def may_dump() -> bool:
    """Whether `forbid_dumps` was not called, or undone."""
    return bool(_libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)


def forbid_new_privileges() -> None:
    """No set-user-id program started from here gains anything."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def set_name(name: bytes) -> None:
    """What `ps` shows: at most 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, name, 0, 0, 0))


def lock_all_memory() -> None:
    """Keep every page out of swap, from when it is first touched."""
    _check(_libc.mlockall(_MCL_CURRENT_FUTURE_ONFAULT))


def shield_buffer(buffer: mmap.mmap | bytearray) -> bool:
    """Keep a buffer out of core dumps and, where the limits allow it, out of swap. Whether the latter worked."""
    size = len(buffer)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    if address % mmap.PAGESIZE == 0:
        _libc.madvise(address, size, _MADV_DONTDUMP)
    return bool(_libc.mlock(address, size) == 0)


def in_memory(fd: int) -> bool:
    """Whether the file system has no medium but memory: there, O_DIRECT is accepted and means nothing."""
    answer = (ctypes.c_long * (_STATFS_BYTES // ctypes.sizeof(ctypes.c_long)))()
    _check(_libc.fstatfs(fd, ctypes.byref(answer)))
    return answer[0] & 0xFFFFFFFF in _MEMORY_FILE_SYSTEMS


def sync_filesystem(fd: int) -> None:
    """Write back the whole file system of an open file or directory. Raises what failed since that was opened."""
    _check(_libc.syncfs(fd))


def cached_pages(fd: int, offset: int, size: int) -> int:
    """How many pages of this range of a file are in the page cache. `offset` is a multiple of the page size.

    Where the kernel does not say (a file of someone else), it counts them all as cached.
    """
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
    if address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    try:
        pages = -(-size // mmap.PAGESIZE)
        answer = ctypes.create_string_buffer(pages)
        _check(_libc.mincore(address, size, answer))
        return sum(page & 1 for page in answer.raw)
    finally:
        _libc.munmap(address, size)


def rename_to_new(old: bytes, new: bytes, directory_fd: int) -> None:
    """Rename within a directory, never over another file. Raises FileExistsError where `new` is there."""
    if _libc.renameat2(directory_fd, old, directory_fd, new, _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):  # the file system cannot do it in one step
        raise OSError(number, os.strerror(number))
    if new in (os.fsencode(name) for name in os.listdir(directory_fd)):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(old, new, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
