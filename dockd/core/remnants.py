"""The name under which a clip is erased.

The reader renames a clip to this name before it overwrites the first byte. An erasure that a power cut stops half-way
so leaves a file that says whose remnant it is, and that nobody can take for a clip.
"""

from __future__ import annotations

import re

from dockd.model import AcquisitionId

_PREFIX = b".dockd-erasing-"
_NAME = re.compile(rb"\.dockd-erasing-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def remnant_name(acquisition: AcquisitionId) -> bytes:
    """The file name, in the clip's own directory."""
    return _PREFIX + acquisition.encode()


def remnant_of(path: bytes) -> AcquisitionId | None:
    """The acquisition whose remnant `path` is by its name, or None."""
    match = _NAME.fullmatch(path.rpartition(b"/")[2])
    return AcquisitionId(match[1].decode()) if match else None
