"""Where the keys that sign a store's requests come from, and how they are renewed."""

from __future__ import annotations

import asyncio
import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from dockd.errors import StoreUnreachable

_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An access key. What is secret of it stays out of its repr."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)  # empty: a key that does not expire by itself
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        """Raises StoreUnreachable for what no header can hold: it would fail wherever a request is signed."""
        for text in (self.access_key, self.secret_key, self.session_token):
            if not (text.isascii() and text.isprintable()):
                raise StoreUnreachable("the store's credentials have characters that no request can hold")


class CredentialSource(Protocol):
    """Gives the credentials to sign with. Both calls raise StoreError where there are none now."""

    async def current(self) -> Credentials:
        """The credentials to use; fresh ones where the last would soon expire."""

    async def renewed(self, refused: Credentials) -> Credentials:
        """The store no longer takes `refused`: others where there are others by now, else the same."""


class FileCredentials:
    """Out of a file in the form of the AWS shared credentials file, read again whenever it changed.

    So a key can be rotated, or an agent can keep a session's keys fresh, without a restart.
    """

    def __init__(self, path: Path, *, profile: str = "default") -> None:
        self._path = path
        self._profile = profile
        self._read: tuple[tuple[int, int, int], Credentials] | None = None

    async def current(self) -> Credentials:
        """As the protocol says."""
        return await asyncio.to_thread(self._load)

    async def renewed(self, refused: Credentials) -> Credentials:
        """As the protocol says: what the file has now, even where it seems unchanged."""
        del refused
        self._read = None
        return await self.current()

    def _load(self) -> Credentials:
        try:
            found = self._path.stat()
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._read is None or self._read[0] != mark:
                with self._path.open("rb") as file:
                    text = file.read(_MAX_FILE_BYTES).decode()
                self._read = (mark, self._parse(text))
        except (OSError, UnicodeDecodeError) as error:
            raise StoreUnreachable(f"{self._path}: the store's credentials cannot be read: {error}") from error
        return self._read[1]

    def _parse(self, text: str) -> Credentials:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(text)
            section = parser[self._profile]
        except (configparser.Error, KeyError) as error:
            # Not the parser's own words: they quote lines, and those are secret.
            raise StoreUnreachable(
                f"{self._path}: no section [{self._profile}] with {_KEYS[0]} and {_KEYS[1]} can be read"
            ) from error
        return _complete({key: section.get(key, "") for key in _KEYS}, f"{self._path} [{self._profile}]")


class EnvironmentCredentials:
    """Out of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN of an environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    async def current(self) -> Credentials:
        """As the protocol says."""
        return _complete({key: self._environment.get(key.upper(), "") for key in _KEYS}, "the environment")

    async def renewed(self, refused: Credentials) -> Credentials:
        """As the protocol says."""
        del refused
        return await self.current()


def _complete(found: Mapping[str, str], place: str) -> Credentials:
    access_key, secret_key, session_token = (found[key].strip() for key in _KEYS)
    if not access_key or not secret_key:
        raise StoreUnreachable(f"{place}: {_KEYS[0]} or {_KEYS[1]} is missing: nothing can be sent to the store")
    return Credentials(access_key=access_key, secret_key=secret_key, session_token=session_token)
