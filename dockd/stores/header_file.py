"""The value of an Authorization header, out of a file that may be renewed at any time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dockd.errors import StoreUnreachable

_MAX_FILE_BYTES = 64 * 1024


class HeaderFile:
    """What stands in a file, on one line: "Bearer TOKEN" or "Basic WORD". Read anew before every request."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def current(self) -> str:
        """The value. Raises StoreUnreachable where there is none that can be used; its text is shown to nobody."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> str:
        try:
            with self.path.open("rb") as file:
                value = file.read(_MAX_FILE_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreUnreachable(f"{self.path}: the store's credentials cannot be read") from error
        if not (value and value.isascii() and value.isprintable()):
            raise StoreUnreachable(f'{self.path}: the store\'s credentials are not one line like "Bearer TOKEN"')
        return value
