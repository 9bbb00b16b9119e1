"""Whom TLS believes, and our own certificate, read anew when its file changes."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog

from dockd.errors import ConfigError

_log = structlog.get_logger()
_Seen = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Where our own certificate and its key lie, both PEM; one file may hold both."""

    cert_file: Path
    key_file: Path


def believing(ca_file: Path | None, least: ssl.TLSVersion) -> ssl.SSLContext:
    """A context that believes `ca_file` alone, or what the system believes. Raises ConfigError if it is no use."""
    if ca_file is None:
        import truststore  # noqa: PLC0415  only where it is asked for: most stations name their store's authority

        context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            problem = f"{ca_file}: store.ca_file: cannot be used ({error}); allowed: a PEM file with its authority"
            raise ConfigError("the store's certificate authority cannot be read", problems=(problem,)) from error
    context.minimum_version = least
    return context


class Shown:
    """Our certificate in a live context: loaded whenever its files changed, so that renewing it needs no restart."""

    def __init__(self, context: ssl.SSLContext, files: ClientCertificate) -> None:
        """Load it. Raises ConfigError where it cannot be used."""
        self._context = context
        self._files = files
        self._loaded: _Seen = ()
        try:
            self._load(self._seen())
        except OSError as error:
            raise self._unusable(error) from error

    async def before(self, request: httpx.Request) -> None:
        """Look at the files. A change that cannot be used is said, and tried again before the next request."""
        del request
        try:
            seen = await asyncio.to_thread(self._seen)
            if seen == self._loaded:
                return
            self._load(seen)  # small, and seldom; in the thread that uses the context
            _log.info("client_certificate_reloaded", path=str(self._files.cert_file))
        except (OSError, ConfigError) as error:
            _log.warning("client_certificate_unusable", path=str(self._files.cert_file), reason=str(error))

    def _load(self, seen: _Seen) -> None:
        cert, key = self._files.cert_file, self._files.key_file
        try:
            # Tried beside first: a key that does not fit its certificate would leave the live context with half of it.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key)
            self._context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise self._unusable(error) from error
        self._loaded = seen

    def _unusable(self, error: Exception) -> ConfigError:
        cert = self._files.cert_file
        problem = f"{cert}: store.client_cert: cannot be used ({error}); allowed: a PEM certificate and its key"
        return ConfigError("our own certificate cannot be used", problems=(problem,))

    def _seen(self) -> _Seen:
        found = [path.stat() for path in (self._files.cert_file, self._files.key_file)]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)
