"""Landlock (landlock(7)): a program gives up every file by its path but those below places that it names. No privilege.

What is open stays usable. A place is named by a descriptor of it, and what is mounted nowhere, as a camera's volume,
can be named as well; but no place can be added later on. Before Linux 6.2 it keeps nobody from truncate(2), and no
version does from chmod(2) and the like: those are dockd.reader.syscalls' part.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Mapping

_libc = ctypes.CDLL(None, use_errno=True)  # the handle of a library, not state of ours
_libc.syscall.restype = ctypes.c_long

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION = 1  # the flag that asks for it
_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REG = 1 << 5, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_FIRST = (1 << 13) - 1  # all rights of version 1, of Linux 5.13
_HANDLED = (0, _FIRST, _FIRST | _REFER, _FIRST | _REFER | _TRUNCATE)  # by version; of later ones this much

LIST = _READ_DIR
READ = _READ_DIR | _READ_FILE
READ_WRITE = _READ_FILE | _WRITE_FILE | _TRUNCATE
REMOVE = _REMOVE_FILE
KEEP_FILES = READ_WRITE | _READ_DIR | _REMOVE_FILE | _MAKE_REG
"""Read, write, make, rename within a directory and remove plain files; nothing about directories and other kinds."""

_OF_FILES = READ_WRITE  # what can be said of a place that is no directory


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """Which version the kernel has; 0: none, or it is switched off, or a filter of system calls keeps it away."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def restrict(places: Mapping[int, int]) -> None:
    """Leave this thread, and what it forks, the files below these descriptors, with these rights; nothing else.

    Raises OSError where the kernel cannot: nothing is given up then. Needs PR_SET_NO_NEW_PRIVS.
    """
    handled = _HANDLED[min(version(), len(_HANDLED) - 1)]
    if not handled:
        kept_away = ctypes.get_errno() == errno.EPERM
        why = "the unit is an older one (`dockd install-system`)" if kept_away else "the kernel has none (lsm=)"
        raise OSError(errno.ENOSYS, f"there is no Landlock: {why}")
    rules = _Ruleset(handled_access_fs=handled)
    ruleset = _call(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    try:
        for fd, rights in places.items():
            possible = handled if stat.S_ISDIR(os.fstat(fd).st_mode) else handled & _OF_FILES
            rule = _PathBeneath(allowed_access=rights & possible, parent_fd=fd)
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
