"""The roots of a camera: a folder in its bay, or mounts with their block devices. How each says that it is there."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from dockd.core.marker import MARKER_NAME, MAX_MARKER_BYTES, parse_marker
from dockd.errors import CameraGone, CameraRefused
from dockd.faultpoints import Point
from dockd.filesystems import probe
from dockd.reader import kernel
from dockd.reader.block import PAGE, BlockDevice

if TYPE_CHECKING:
    from dockd.faults import Faults
    from dockd.model import CameraIdentity, Volume

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_ID_PLACES = ((39, 4), (67, 4), (100, 4), (1128, 16))
"""Where volume ids stand: FAT12 and FAT16, FAT32, exFAT, ext4. In each kind the other places never change, either."""

_INVENTED_INODES = ("vfat", "exfat")  # the kernel numbers their files anew whenever it looks one up again


def open_quietly(name: bytes, flags: int, directory_fd: int) -> int:
    """Open below a directory without leaving a trace of the access in it, where the file is ours."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, flags, dir_fd=directory_fd)


class FolderRoot:
    """A directory of this machine. Knows where it was attached: leaving is noticed even while descriptors live."""

    keeps_inodes = True
    device: BlockDevice | None = None

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.name = volume.name.encode()
        self.fd = volume.root_fd
        status = os.fstat(self.fd)
        self.number = status.st_dev
        self._inode = status.st_ino
        self._place: tuple[int, int, bytes] | None = None
        self._place = self._look_up()
        if self._place is None:
            raise CameraGone("the camera left before its reader began")

    def attached(self) -> bool:
        """Whether the root still stands in the directory, and under the name, where it stood at the start."""
        return self._look_up() == self._place

    def identify(self, _: CameraIdentity) -> CameraIdentity:
        """Read the marker anew. Raises CameraRefused, CameraGone."""
        try:
            fd = open_quietly(MARKER_NAME, os.O_RDONLY | FILE, self.fd)
        except OSError as error:
            raise CameraRefused(f"its dockd-camera.toml cannot be read: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CameraRefused("its dockd-camera.toml is no plain file")
            return parse_marker(os.read(fd, MAX_MARKER_BYTES + 1))
        except OSError as error:
            raise CameraGone(f"its dockd-camera.toml could not be read: {error.strerror}") from error
        finally:
            os.close(fd)

    def sync(self, _: Faults) -> None:
        """Nothing to do: its file system stays mounted."""

    def close(self) -> None:
        """Close its descriptor."""
        os.close(self.fd)

    def _look_up(self) -> tuple[int, int, bytes] | None:
        """The directory that holds the root, as device and inode, and the root's name in it."""
        try:
            above = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return None
        try:
            status = os.fstat(above)
            name = self._name_in(above)
        except OSError:
            return None
        finally:
            os.close(above)
        return None if name is None else (status.st_dev, status.st_ino, name)

    def _name_in(self, above: int) -> bytes | None:
        if self._place is not None:  # after the start only the name from then counts
            return self._place[2] if self._is_root(above, self._place[2]) else None
        with os.scandir(above) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if self._is_root(above, name):
                    return name
        return None

    def _is_root(self, above: int, name: bytes) -> bool:
        with suppress(OSError):
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            return (status.st_dev, status.st_ino) == (self.number, self._inode)
        return False


class VolumeRoot:
    """A mount that is attached to no path, and the block device below it.

    The mount may go on answering from caches long after the device is gone, so only the device is asked. Its
    descriptor stands for one arrival of one disk: another one never answers through it.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.name = volume.name.encode()
        self.fd = volume.root_fd
        self.keeps_inodes = volume.filesystem not in _INVENTED_INODES
        self.number = os.fstat(self.fd).st_dev
        self.device = BlockDevice(volume.block_fd)
        self._directory_fd = os.open(b".", DIRECTORY, dir_fd=self.fd)  # from before the first write: see `sync`
        try:
            self._require_volume(CameraGone)
            self._mark = self._look()
        except BaseException:
            os.close(self._directory_fd)
            raise

    def attached(self) -> bool:
        """Whether the device still gives its first sectors, with the same volume id: a reader's card may change."""
        try:
            return self._look() == self._mark
        except OSError:
            return False

    def identify(self, identity: CameraIdentity) -> CameraIdentity:
        """The camera it belongs to, if its medium still bears the volume id it was admitted with.

        Raises CameraRefused where it bears another, CameraGone.
        """
        self._require_volume(CameraRefused)
        return identity

    @property
    def writable(self) -> bool:
        """Whether the mount is."""
        return not os.fstatvfs(self._directory_fd).f_flag & os.ST_RDONLY

    def sync(self, faults: Faults) -> None:
        """Write everything that the kernel keeps back. Raises OSError where any of it failed since it was taken.

        The kernel says so to each descriptor once, and only to those that were open when it failed.
        """
        if self.writable:
            faults.act(Point.ERASE_VOLUME_SYNC, kernel.sync_filesystem, self._directory_fd)

    def close(self) -> None:
        """Close its descriptors: the mount goes with the last one that anybody holds."""
        self.device.close()
        os.close(self._directory_fd)
        os.close(self.fd)
        os.close(self.volume.block_fd)

    def _look(self) -> tuple[bytes, ...]:
        start = self.device.read(0, PAGE)
        return tuple(start[offset : offset + size] for offset, size in _ID_PLACES)

    def _require_volume(self, otherwise: type[CameraGone | CameraRefused]) -> None:
        try:
            superblock = probe(self.device.read)
        except OSError as error:
            raise CameraGone(f"the camera left its bay, or its medium fails: {error.strerror}") from error
        seen = superblock.volume_id if superblock else "none that is known"
        if superblock is None or seen != self.volume.volume_id:
            where = f" {self.volume.name}" if self.volume.name else ""
            raise otherwise(f"the volume{where} on its medium is {seen}, not {self.volume.volume_id}")


Root = FolderRoot | VolumeRoot
