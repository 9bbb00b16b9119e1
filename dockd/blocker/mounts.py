"""Mounts that are attached to no path, by fsopen(2), fsconfig(2), fsmount(2) and mount_setattr(2).

Such a mount lasts as long as a descriptor of something in it: nobody finds it by a path, no table lists it, and it is
gone with the last of its descriptors, however their owners end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from contextlib import suppress
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)  # the handle of a library, not state of ours
_libc.syscall.restype = ctypes.c_long

# The same numbers on every architecture that has the generic table, x86 and ARM among them.
_FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 430, 431, 432, 442
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE, _CREATE_EXCLUSIVE = 0, 1, 6, 8
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _NOATIME, _NOSYMFOLLOW = 0x1, 0x2, 0x4, 0x8, 0x10, 0x200000
_IDMAP = 0x100000
_AT_EMPTY_PATH = 0x1000
_CLONE_NEWUSER = 0x10000000
_PR_SET_DUMPABLE = 4
_LOG_BYTES = 4096


class NotMounted(Exception):
    """The kernel did not take the volume. `number` is the errno; the sentence has what the kernel said besides."""

    def __init__(self, message: str, *, number: int) -> None:
        super().__init__(message)
        self.number = number


class _Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str, filesystem: str, *, writable: bool, uid: int, gid: int) -> int:
    """Mount a block device, detached: the descriptor (O_PATH) of its root, where `uid` owns every file.

    Nothing is repaired: vfat and exfat never are by a mount, and the journal of an ext4 is left alone where the mount
    is read-only. On ext4, root's files become those of `uid`. Needs CAP_SYS_ADMIN; ext4 needs CAP_SETUID and
    CAP_SETGID too. Raises NotMounted, or OSError from before the volume was looked at.
    """
    context = _call(_FSOPEN, ctypes.c_char_p(filesystem.encode()), _CLOEXEC)
    try:
        _string(context, "source", source)
        if not writable:
            _flag(context, "ro")
        for name, value in _options(filesystem, writable=writable, uid=uid, gid=gid):
            if value is None:
                _flag(context, name)
            else:
                _string(context, name, value)
        _create(context)
        attributes = _NOSUID | _NODEV | _NOEXEC | _NOATIME | _NOSYMFOLLOW | (0 if writable else _RDONLY)
        root = _call(_FSMOUNT, context, _CLOEXEC, attributes)
    except OSError as error:
        number = error.errno or errno.EIO
        words = "; ".join([os.strerror(number), *_kernel_says(context)])
        raise NotMounted(words, number=number) from error
    finally:
        os.close(context)
    if filesystem == "ext4":
        try:
            _own(root, uid, gid)
        except BaseException:
            os.close(root)
            raise
    return root


def directory(root: int, *, uid: int, gid: int) -> int:
    """The root of a mount, opened for reading: what syncfs(2) takes, which O_PATH is not good for.

    It belongs to `uid`, and who runs this may be root without the right to look into others' directories.
    """
    before = os.geteuid(), os.getegid()
    os.setegid(gid)
    os.seteuid(uid)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


def sync(fd: int) -> None:
    """syncfs(2): raises the first error of writing back since `fd` was opened."""
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _options(filesystem: str, *, writable: bool, uid: int, gid: int) -> list[tuple[str, str | None]]:
    owner: list[tuple[str, str | None]] = [("uid", str(uid)), ("gid", str(gid)), ("umask", "077")]
    if filesystem == "vfat":
        # Its times name no zone: without this they would move when the machine's own zone is changed.
        return [("utf8", None), ("shortname", "mixed"), ("tz", "UTC"), *owner]
    if filesystem == "exfat":
        return [("iocharset", "utf8"), *owner]
    return [] if writable else [("noload", None)]


def _create(context: int) -> None:
    """Make the superblock, and where the kernel can say so (6.6 and later), never share one that is there already."""
    try:
        _call(_FSCONFIG, context, _CREATE_EXCLUSIVE, None, None, 0)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        _call(_FSCONFIG, context, _CREATE, None, None, 0)


def _own(root: int, uid: int, gid: int) -> None:
    """Show what belongs to root on the volume as the property of `uid`, and what `uid` makes as root's."""
    namespace = _namespace(uid, gid)
    try:
        wish = _Attributes(attr_set=_IDMAP, userns_fd=namespace)
        size = ctypes.sizeof(wish)
        _call(_MOUNT_SETATTR, root, ctypes.c_char_p(b""), _AT_EMPTY_PATH, ctypes.byref(wish), size)
    finally:
        os.close(namespace)


def _namespace(uid: int, gid: int) -> int:
    """The descriptor of a user namespace in which 0 is `uid` and `gid`. Somebody has to be in it while it is made."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:  # nothing here may return into the caller's program
        code = 1
        with suppress(BaseException):
            # Changing users, as `directory` does, made us one whose /proc is closed: open the child's.
            if _libc.unshare(_CLONE_NEWUSER) == 0 and _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) == 0:
                os.write(tell, b"+")
                signal.pause()
            code = ctypes.get_errno() or 1
        os._exit(code)
    try:
        os.close(tell)
        if os.read(ready, 1) != b"+":
            raise OSError(errno.EPERM, "no user namespace can be made")
        here = Path(f"/proc/{child}")
        (here / "uid_map").write_text(f"0 {uid} 1\n")
        (here / "gid_map").write_text(f"0 {gid} 1\n")
        return os.open(here / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _flag(context: int, name: str) -> None:
    _call(_FSCONFIG, context, _SET_FLAG, ctypes.c_char_p(name.encode()), None, 0)


def _string(context: int, name: str, value: str) -> None:
    _call(_FSCONFIG, context, _SET_STRING, ctypes.c_char_p(name.encode()), ctypes.c_char_p(value.encode()), 0)


def _kernel_says(context: int) -> list[str]:
    """The messages that wait in a context, without their severity."""
    said: list[str] = []
    with suppress(OSError):  # ENODATA: that was all
        while message := os.read(context, _LOG_BYTES):
            said.append(message.decode(errors="replace").strip()[2:])
    return said


def _call(number: int, *arguments: object) -> int:
    plain = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *plain)
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return result
