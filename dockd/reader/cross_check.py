"""Whether a file system shows everything that its directories on the medium name.

Linux's FAT goes on behind a directory sector that the medium does not give, and says nothing: clips would be passed
over in silence. So the directories are read a second time, by our own eyes and around the page cache.
"""

from __future__ import annotations

import hashlib
from functools import reduce
from typing import TYPE_CHECKING

from dockd.errors import FilesystemUnclear
from dockd.filesystems import open_volume
from dockd.reader.roots import VolumeRoot

if TYPE_CHECKING:
    from dockd.reader.roots import Root

_OWN = ("vfat", "exfat")


class CrossCheck:
    """Takes the files of one root as they are listed, and compares them in the end. Small, however many there are."""

    def __init__(self, root: Root) -> None:
        self._volume = root if isinstance(root, VolumeRoot) and root.volume.filesystem in _OWN else None
        self._shown = (0, 0)

    def shown(self, path: bytes) -> None:
        """A file that the file system shows; `path` is in the volume."""
        if self._volume is not None:
            self._shown = _with(self._shown, path)

    def finding(self) -> str:
        """Why the listing may not be whole, in words; "" where it is. Nothing is asked of a writable volume."""
        if self._volume is None or self._volume.writable:
            return ""
        try:
            named = reduce(_with, open_volume(self._volume.device.read).paths(), (0, 0))
        except FilesystemUnclear as unclear:
            return f"its directories are not clear: {unclear}"
        except OSError as error:
            return f"its directories cannot be read from the medium: {error.strerror or error}"
        if named != self._shown:
            return f"its directories name {named[0]} files, and the file system shows {self._shown[0]}, or others"
        return ""


def _with(tally: tuple[int, int], path: bytes) -> tuple[int, int]:
    """How many paths, and a sum that is the same for the same paths in any order."""
    return tally[0] + 1, (tally[1] + int.from_bytes(hashlib.sha256(path).digest(), "big")) % 2**256
