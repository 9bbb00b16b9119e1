"""Make a folder a camera."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

from dockd.devices.marker import make_marker
from dockd.errors import CameraRefused
from dockd.model import CameraIdentity


def make_camera(directory: Path, *, serial: str, model: str) -> CameraIdentity:
    """Make `directory`, which is created where it is missing, a camera under a fresh volume id.

    Raises CameraRefused where it is a camera already or a name is no good, OSError where it cannot be written; a
    directory that was created for nothing is removed again.
    """
    created = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        return make_marker(directory, serial=serial, model=model, made_at=datetime.now(UTC), random=secrets.token_bytes)
    except CameraRefused:
        if created:
            directory.rmdir()
        raise
