"""The file that makes a directory a camera: `dockd-camera.toml` at its root, with a `[camera]` table.

Only the text is handled here; opening the file, without following links, is for whoever holds the directory.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from dockd.core.canonical import format_time
from dockd.errors import CameraRefused
from dockd.model import CameraIdentity

if TYPE_CHECKING:
    from datetime import datetime

MARKER_NAME = b"dockd-camera.toml"
MAX_MARKER_BYTES = 4096

_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VOLUME = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{3,63}")
_MODEL = re.compile(r"[^\x00-\x1f\x7f\"\\]{1,64}")


def parse_marker(content: bytes) -> CameraIdentity:
    """The identity that a marker states. Raises CameraRefused, naming every mistake, for anything but a sound one."""
    if len(content) > MAX_MARKER_BYTES:
        raise CameraRefused(f"dockd-camera.toml is longer than {MAX_MARKER_BYTES} bytes; nothing else was read")
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # tomllib's and the decoder's errors are ValueErrors
        raise CameraRefused(f"dockd-camera.toml is no TOML ({error}); nothing else was read") from error
    camera = document.get("camera")
    if not isinstance(camera, dict):
        raise CameraRefused("dockd-camera.toml has no [camera] table; nothing else was read")
    found = CameraIdentity(
        serial=_text(camera, "serial"), model=_text(camera, "model"), volume_id=_text(camera, "volume_id")
    )
    problems = _problems(found)
    if problems:
        raise CameraRefused(f"dockd-camera.toml: {'; '.join(problems)}; nothing else was read")
    return found


def format_marker(camera: CameraIdentity, made_at: datetime) -> bytes:
    """The marker of a new folder camera. Raises CameraRefused, naming every mistake, where it could not be read back.

    The values hold no quote, backslash or control character, so they stand in TOML as they are.
    """
    problems = _problems(camera)
    if problems:
        raise CameraRefused(f"no camera was made: {'; '.join(problems)}")
    lines = (
        "# This directory is a camera to dockd: clips in it are erased once the evidence store signed for them.",
        "[camera]",
        f'serial = "{camera.serial}"',
        f'model = "{camera.model}"',
        f'volume_id = "{camera.volume_id}"',
        f"made = {format_time(made_at)}",
        "",
    )
    return "\n".join(lines).encode()


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""


def _problems(camera: CameraIdentity) -> list[str]:
    problems = []
    if not _SERIAL.fullmatch(camera.serial):
        problems.append(f"serial is {camera.serial!r}, allowed are 1 to 64 letters, digits, '.', '_' and '-'")
    if not _MODEL.fullmatch(camera.model):
        problems.append(f"model is {camera.model!r}, allowed are 1 to 64 characters without quotes or backslashes")
    if not _VOLUME.fullmatch(camera.volume_id):
        problems.append(f"volume_id is {camera.volume_id!r}, allowed are 4 to 64 letters, digits and '-'")
    return problems
