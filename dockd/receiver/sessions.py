"""Who asks: challenges, session statements and tokens (design section 6, step 1)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from dockd.core import canonical, sshsig, versions
from dockd.core.keyfiles import StationPublic
from dockd.errors import VerificationFailed
from dockd.faultpoints import Point
from dockd.model import Clock, Entropy, SignedBytes, StationId
from dockd.receiver import rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.challenges import LIFE, Challenges, TooManyUsed
from dockd.receiver.enrol import find_station
from dockd.receiver.layout import Layout
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.settings import ReceiverSettings

_log = structlog.get_logger()
_TOKEN_BYTES = 32
_CHOOSES = 2  # the version of what a station signs that says which versions of statements it accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose token a request carries, with the keys that are enrolled at this moment."""

    public: StationPublic
    versions: Mapping[str, int] = field(default_factory=dict)  # that its session chose

    @property
    def station(self) -> StationId:
        """The station."""
        return self.public.station

    def knows_rules(self, kind: str) -> bool:
        """Whether it takes statements of this kind that say which rule a clip falls under."""
        return self.versions.get(kind, 0) >= versions.RULED


class Sessions:
    """Gives challenges (kept nowhere) and tokens (kept hashed in the catalogue), and knows them again."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        layout: Layout,
        settings: ReceiverSettings,
        policy: SignedBytes,
        clock: Clock,
        random: Entropy,
    ) -> None:
        self._catalogue = catalogue
        self._layout = layout
        self._settings = settings
        self._policy = policy
        self._clock = clock
        self._random = random
        self._challenges = Challenges(store=settings.store, clock=clock, random=random)

    async def challenge(self, station: object, *, chooses: bool) -> dict[str, Any]:
        """A fresh challenge for an enrolled station: the answer's record.

        To a station that `chooses` versions it says what this receiver offers.
        """
        public = await self._enrolled(station)
        offers: dict[str, Any] = {"v": 2, "offers": versions.record()} if chooses else {"v": 1}
        return offers | {
            "type": "challenge",
            "store": self._settings.store,
            "challenge": base64.b64encode(self._challenges.give(public.station)).decode(),
            "expires": canonical.format_time(self._clock.now() + LIFE),
        }

    async def open(self, signed: SignedBytes) -> dict[str, Any]:
        """A token for a station that signed a challenge: the answer's record."""
        try:
            # Whose key verifies it stands inside: read as a claim here, believed after the signature was verified.
            statement = canonical.decode(signed.payload, type_="session", newest=_CHOOSES)
        except VerificationFailed as error:
            raise Problem(Kind.MALFORMED, f"the session statement cannot be read: {error}") from error
        public = await self._enrolled(statement.get("station"))
        try:
            sshsig.verify(public.manifest_key, sshsig.SESSION, signed.payload, signed.signature)
        except VerificationFailed as error:
            raise Problem(Kind.SESSION_REFUSED, f"{error}: compare the station's key with the enrolled one") from error
        chosen = self._check(statement, public.station)
        self._use_up(public.station, statement.get("challenge"))
        now = self._clock.now()
        token = base64.urlsafe_b64encode(self._random(_TOKEN_BYTES)).decode().rstrip("=")
        expires_at = now + self._settings.token_lifetime

        def keep(db: sqlite3.Connection) -> None:
            rows.drop_sessions(db, now)
            rows.add_session(
                db, _hash(token), rows.Session(station=public.station, expires_at=expires_at, versions=chosen)
            )

        await self._catalogue.run(keep, Point.SESSION_ROW)
        _log.info("session_opened", station=public.station, versions=chosen)
        answer = {"type": "session-token", "v": 1, "token": token, "expires": canonical.format_time(expires_at)}
        if statement["v"] < _CHOOSES:
            return answer
        policy = sshsig.signed_to_json(self._policy) if "policy" in chosen else None
        return answer | {"v": _CHOOSES, "versions": chosen, "policy": policy}

    async def caller(self, authorization: str | None) -> Caller:
        """Whose request this is. Raises Problem NO_TOKEN, and UNKNOWN_STATION after its keys were removed."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        known = None
        if scheme.lower() == "bearer" and token.isascii() and token:
            known = await self._catalogue.run(lambda db: rows.session(db, _hash(token)))
        if known is None or known.expires_at <= self._clock.now():
            raise Problem(
                Kind.NO_TOKEN,
                "no token, or one that ended: open a session (POST /session) and send 'Authorization: Bearer TOKEN'",
                headers={"WWW-Authenticate": 'Bearer realm="dockd"'},
            )
        return Caller(public=await self._enrolled(known.station), versions=known.versions)

    async def _enrolled(self, station: object) -> StationPublic:
        if not _is_uuid(station):
            raise Problem(Kind.MALFORMED, "'station' has to be a UUID in lower case")
        try:
            public = await asyncio.to_thread(find_station, self._layout, StationId(str(station)))
        except VerificationFailed as error:
            _log.error("station_keys_unusable", station=station, error=str(error))
            public = None
        if public is None:
            raise Problem(
                Kind.UNKNOWN_STATION,
                f"station {station} is not enrolled here: its people send station.pub to this store's operators, who "
                "compare fingerprints and run `dockd receiver enrol`",
            )
        return public

    def _check(self, statement: dict[str, Any], station: StationId) -> dict[str, int]:
        """Returns the versions that both sides know, as the station signed what it accepts."""
        more = {"accepts"} if statement["v"] == _CHOOSES else set()
        if set(statement) != {"type", "v", "station", "store", "host", "challenge", "at"} | more:
            raise Problem(Kind.MALFORMED, "the session statement has missing or unknown keys")
        if statement["store"] != self._settings.store:
            raise Problem(
                Kind.SESSION_REFUSED, f"the statement is for another store; this one is {self._settings.store}"
            )
        host = statement["host"]
        if not isinstance(host, str) or host.lower() not in {one.lower() for one in self._settings.public_hosts}:
            _log.warning("session_for_another_host", station=station)
            raise Problem(
                Kind.SESSION_REFUSED,
                "the statement names another host than those of this store: compare the station's store.url with "
                "receiver.public_hosts",
            )
        try:
            canonical.parse_time(statement["at"])
            return versions.choose(versions.take(statement["accepts"])) if more else {}
        except VerificationFailed as error:
            raise Problem(Kind.MALFORMED, f"the session statement cannot be used: {error}") from error

    def _use_up(self, station: StationId, text: object) -> None:
        try:
            challenge = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        except ValueError:
            challenge = b""
        try:
            is_good = self._challenges.use(station, challenge)
        except TooManyUsed as error:
            raise Problem(
                Kind.TOO_MANY,
                "this station opens session after session: find out which program of its does, and come back later",
                headers={"Retry-After": str(int(LIFE.total_seconds()))},
            ) from error
        if not is_good:
            raise Problem(
                Kind.CHALLENGE_UNKNOWN, "a challenge serves once, for five minutes: ask for a new one (POST /session)"
            )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _is_uuid(text: object) -> bool:
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text
    except ValueError:
        return False
