"""What this receiver promises: its policy, signed and numbered, and each clip's promise under it."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from dockd.core import canonical, extensions, promises, retention, sshsig
from dockd.core.manifest import Manifest, decode, recorded
from dockd.core.promises import NoMore, Offered, Said
from dockd.core.retention import Promise
from dockd.errors import VerificationFailed
from dockd.faultpoints import Point
from dockd.model import Clock, SignedBytes
from dockd.receiver import promise_rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.layout import Layout
from dockd.receiver.places import keep_signed
from dockd.receiver.problems import Kind, Problem
from dockd.receiver.promise_rows import Promised
from dockd.receiver.rows import Announced, Given
from dockd.receiver.settings import ReceiverSettings

_log = structlog.get_logger()
_AHEAD = timedelta(days=1)  # by so much a floor is kept ahead of what is stated, so that it is written once a day


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy of now, as it is signed, and as it is counted with."""

    signed: SignedBytes
    offered: Offered


async def open_policy(catalogue: Catalogue, layout: Layout, settings: ReceiverSettings, clock: Clock) -> Policy:
    """The policy as it is configured: signed anew, under the next number, where the newest statement says another.

    Its file is there when this returns.
    """
    policy_seq, signed = await _current(catalogue, settings, clock)
    await asyncio.to_thread(keep_signed, layout.policy(policy_seq), signed, layout.faults)
    offered = Offered(policy=canonical.digest(signed.payload), categories=settings.categories)
    return Policy(signed=signed, offered=offered)


async def _current(catalogue: Catalogue, settings: ReceiverSettings, clock: Clock) -> tuple[int, SignedBytes]:
    now = clock.now()

    def look(db: sqlite3.Connection) -> tuple[int, SignedBytes] | None:
        return promise_rows.newest_policy(db)

    known = await catalogue.run(look)
    if known is not None and _says(known[1], settings):
        return known
    policy_seq = known[0] + 1 if known else 1
    payload = retention.build_policy(
        store=settings.store, policy_seq=policy_seq, at=now, categories=settings.categories
    )
    signed = SignedBytes(payload=payload, signature=sshsig.sign(settings.key, sshsig.POLICY, payload))
    digest = canonical.digest(payload)
    # From here on every token is void: the stations' next sessions bring them this policy.
    await catalogue.run(lambda db: promise_rows.add_policy(db, policy_seq, signed, digest), Point.POLICY_ROW)
    _log.warning("policy_changed", policy_seq=policy_seq, policy=digest)
    return policy_seq, signed


class Promising:
    """What is said of how long a clip is kept. Called on the catalogue's thread, but for `holding`."""

    def __init__(self, *, catalogue: Catalogue, settings: ReceiverSettings, policy: Policy, clock: Clock) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._offered = policy.offered
        self._clock = clock

    def now(self) -> datetime:
        """As statements say it, in milliseconds: what is counted from it is counted from what is said."""
        return canonical.parse_time(canonical.format_time(self._clock.now()))

    def of_receipt(self, one: Announced, now: datetime, *, ruled: bool, other: datetime) -> datetime | Promise:
        """What a receipt of `now` promises. Without a rule it is at least what older stations ask for.

        `other`: until when the object is kept anyway, which only receipts without a rule say.
        """
        promise = self._offered.promise(decode(one.manifest.payload), arrived=now, now=now)
        return promise if ruled else max(promise.keep_until, now + self._settings.legacy, other)

    def keep(self, db: sqlite3.Connection, one: Announced, now: datetime, said: datetime | Promise) -> None:
        """Keep with the receipt what it promises."""
        stated = decode(one.manifest.payload)
        promise = self._offered.promise(stated, arrived=now, now=now)
        start, _ = recorded(stated)
        is_late = retention.is_late(self._offered.terms(stated), stated=start, arrived=now)
        if is_late:
            _log.warning(
                "clip_came_late",
                station=one.station,
                acquisition=one.acquisition,
                recorded=start and canonical.format_time(start),
                keep_until=canonical.format_time(promise.keep_until),
            )
        promise_rows.add_promise(
            db,
            one,
            Promised(
                category=promise.rule.category,
                until=promise.rule.until,
                recorded_from=promise.rule.recorded_from,
                recorded_at=promise.rule.recorded_at,
                arrived_at=now,
                keep_until=said.keep_until if isinstance(said, Promise) else said,
                is_late=is_late,
            ),
        )

    async def holding(self, one: Announced, given: Given, now: datetime, *, ruled: bool) -> datetime | Promise:
        """What a holding statement says of `now`. A floor that moved is durable before it is stated."""
        newest, arrived = await self._catalogue.run(lambda db: _newest(db, one, given))
        said = promises.restated(newest, self._offered, decode(one.manifest.payload), arrived=arrived, now=now)
        if said.kept_until > newest.kept_until:
            is_kept = await self._catalogue.run(lambda db: promise_rows.is_promised(db, one, said.kept_until))
            if not is_kept:
                ahead = said.kept_until + _AHEAD
                await self._catalogue.run(lambda db: promise_rows.keep_longer(db, one, ahead), Point.PROMISE_ROW)
        return promises.as_signed(said, ruled=ruled)

    async def extension(self, one: Announced, given: Given, after: int) -> SignedBytes:
        """The extension number `after` + 1: given before, or made now. Raises Problem PROMISE_OVER, NOT_LONGER."""
        now = self.now()

        def extend(db: sqlite3.Connection) -> SignedBytes:
            known = promise_rows.extensions(db, one)
            if after < len(known):
                return known[after]
            if after > len(known):
                raise Problem(Kind.NOT_FOUND, f"of this receipt {len(known)} extensions were given, not {after}")
            newest, arrived = _newest(db, one, given)
            promise = _more(newest, self._offered, decode(one.manifest.payload), arrived=arrived, now=now)
            payload = extensions.build_extension(
                receipt=given.signed.payload, previous=known[-1].payload if known else None, at=now, promise=promise
            )
            signed = SignedBytes(payload=payload, signature=sshsig.sign(self._settings.key, sshsig.EXTENSION, payload))
            rule = promise.rule
            promise_rows.add_extension(db, one, after + 1, signed, (rule.category, rule.until, promise.keep_until))
            _log.info("receipt_extended", station=one.station, acquisition=one.acquisition, n=after + 1)
            return signed

        return await self._catalogue.run(extend, Point.EXTENSION_ROW)


def _more(newest: Said, offered: Offered, stated: Manifest, *, arrived: datetime, now: datetime) -> Promise:
    found = promises.extended(newest, offered, stated, arrived=arrived, now=now)
    if found is NoMore.OVER:
        raise Problem(
            Kind.PROMISE_OVER,
            f"it was kept until {canonical.format_time(newest.kept_until)}: {found.value}; send the clip as a new "
            "acquisition, if it is needed",
        )
    if isinstance(found, NoMore):
        raise Problem(
            Kind.NOT_LONGER,
            f"it is kept until {canonical.format_time(newest.kept_until)}: {found.value}; the store's operators can "
            "mend it",
        )
    return found


def _newest(db: sqlite3.Connection, one: Announced, given: Given) -> tuple[Said, datetime]:
    """What was said last, and the receipt's time."""
    first, known = promises.read_receipt(given.signed.payload), promise_rows.extensions(db, one)
    return (promises.read_extension(known[-1].payload) if known else first), first.at


def _says(signed: SignedBytes, settings: ReceiverSettings) -> bool:
    """Whether a statement is by this store's key of now, and says what is configured."""
    try:
        found = retention.verify_policy(signed, store_key=settings.key.public, store=settings.store)
    except VerificationFailed:
        return False
    return found.categories == settings.categories
