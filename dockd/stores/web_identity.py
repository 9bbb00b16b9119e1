"""Session credentials by AssumeRoleWithWebIdentity, at AWS STS or a store's own service that speaks like it."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import structlog

from dockd.core.transfer import Call
from dockd.errors import StoreError, StoreUnreachable
from dockd.model import Clock
from dockd.stores import s3_xml
from dockd.stores.address import parse_address
from dockd.stores.credentials import Credentials
from dockd.stores.s3_answers import judge
from dockd.stores.wire import SessionExpired, Timeouts, Wire, open_client

_log = structlog.get_logger()
_EARLY = timedelta(minutes=5)  # before the end: a part under way when it comes would be refused
_MAX_TOKEN_BYTES = 32 * 1024


class WebIdentityCredentials:
    """CredentialSource: exchanges the token in a file, which its issuer keeps fresh, for a session's keys.

    `url` is the service's address. Only one exchange is under way at a time. Raises ConfigError at construction where
    `url` or `ca_file` cannot be used.
    """

    def __init__(
        self,
        *,
        url: str,
        role: str,
        session_name: str,
        token_file: Path,
        clock: Clock,
        lifetime: timedelta = timedelta(hours=1),
        ca_file: Path | None = None,
        timeouts: Timeouts | None = None,
        insecure_loopback: bool = False,
    ) -> None:
        address = parse_address(url, insecure_loopback=insecure_loopback)
        waits = timeouts or Timeouts()
        self._url = f"{address.origin}{address.path}/"
        self._role = role
        self._session_name = session_name
        self._token_file = token_file
        self._lifetime = lifetime
        self._clock = clock
        client = open_client(ca_file, waits, least=ssl.TLSVersion.TLSv1_2)
        self._wire = Wire(client, clock=clock, timeouts=waits, judge=judge)
        self._held: Credentials | None = None
        self._exchanging = asyncio.Lock()

    async def current(self) -> Credentials:
        """As the protocol says. A session that could not be renewed early is used to its end."""
        async with self._exchanging:
            if self._held is None or self._ends_within(self._held, timedelta()):
                self._held = await self._exchange()
            elif self._ends_within(self._held, _EARLY):
                try:
                    self._held = await self._exchange()
                except StoreError as error:
                    _log.warning("session_not_renewed", reason=str(error))
            return self._held

    async def renewed(self, refused: Credentials) -> Credentials:
        """As the protocol says."""
        async with self._exchanging:
            if self._held is None or self._held == refused:  # else another call has renewed them meanwhile
                self._held = await self._exchange()
            return self._held

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        await self._wire.aclose()

    def _ends_within(self, held: Credentials, margin: timedelta) -> bool:
        return held.expires_at is not None and held.expires_at <= self._clock.now() + margin

    async def _exchange(self) -> Credentials:
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": self._role,
            "RoleSessionName": self._session_name,
            "DurationSeconds": str(int(self._lifetime.total_seconds())),
            "WebIdentityToken": await asyncio.to_thread(self._token),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/xml"}
        try:
            answer = await self._wire.ask(
                Call.SESSION, "POST", self._url, headers=headers, content=urlencode(form).encode()
            )
        except SessionExpired as error:
            raise StoreUnreachable(f"the identity token is no longer taken: {error}") from error
        access_key, secret_key, session_token, expires_at = s3_xml.session(answer.body)
        if expires_at <= self._clock.now():  # else every request would ask for another
            raise StoreUnreachable("the session that was given is over already: compare the station's clock with it")
        _log.info("session_opened", authority=self._url, expires_at=expires_at.isoformat())
        return Credentials(
            access_key=access_key, secret_key=secret_key, session_token=session_token, expires_at=expires_at
        )

    def _token(self) -> str:
        try:
            with self._token_file.open("rb") as file:
                text = file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreUnreachable(f"{self._token_file}: the identity token cannot be read: {error}") from error
        if not text:
            raise StoreUnreachable(f"{self._token_file}: there is no identity token in it")
        return text
