"""The marker file of a folder camera, on disk: read through the camera's own directory descriptor, made once."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from typing import TYPE_CHECKING

from dockd.core.marker import MARKER_NAME, MAX_MARKER_BYTES, format_marker, parse_marker
from dockd.errors import CameraRefused
from dockd.model import CameraIdentity, Entropy

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking: a FIFO must not hold us up


def read_marker(root_fd: int) -> CameraIdentity:
    """The identity in the marker of the directory `root_fd`.

    Raises CameraRefused where there is no sound marker that is a plain file; other OSErrors (EIO) pass through.
    """
    try:
        fd = os.open(MARKER_NAME, _READ, dir_fd=root_fd)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise CameraRefused("it has no dockd-camera.toml") from error
        if error.errno in (errno.ELOOP, errno.EACCES, errno.ENXIO):
            raise CameraRefused(f"its dockd-camera.toml cannot be read: {error.strerror}") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CameraRefused("its dockd-camera.toml is no plain file")
        return parse_marker(_content(fd))
    finally:
        os.close(fd)


def make_marker(
    directory: Path, *, serial: str, made_at: datetime, random: Entropy, model: str = "folder"
) -> CameraIdentity:
    """Make an existing directory a camera, under a fresh volume id, and return its identity.

    The file appears whole or not at all, and is durable on return. Raises CameraRefused for an unusable serial or
    model, and where the directory already is a camera; OSErrors pass through.
    """
    camera = CameraIdentity(serial=serial, model=model, volume_id=str(uuid.UUID(bytes=random(16), version=4)))
    content = format_marker(camera, made_at)
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _exists(root_fd):
            raise CameraRefused(f"{directory} already is a camera: remove its dockd-camera.toml first if it is none")
        _write(root_fd, content)
    finally:
        os.close(root_fd)
    return camera


def _exists(root_fd: int) -> bool:
    try:
        os.stat(MARKER_NAME, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _write(root_fd: int, content: bytes) -> None:
    """Write beside, fsync, rename, fsync the directory. Two makers at once are left to whoever started them."""
    beside = MARKER_NAME + b".new"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=root_fd)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(beside, MARKER_NAME, src_dir_fd=root_fd, dst_dir_fd=root_fd)
    os.fsync(root_fd)


def _content(fd: int) -> bytes:
    """At most one byte more than a marker may have, so that a longer one is noticed."""
    content = b""
    while len(content) <= MAX_MARKER_BYTES:
        block = os.read(fd, MAX_MARKER_BYTES + 1 - len(content))
        if not block:
            break
        content += block
    return content
