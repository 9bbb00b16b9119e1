"""What a store that signs promises: at the receipt, in each holding statement, and when it is asked for more.

The receiver's side of `core.retention`: it reads back what it signed itself, and nothing here is verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from dockd.core import canonical, retention
from dockd.core.fields import Fields
from dockd.core.manifest import Manifest, recorded
from dockd.core.retention import Promise, Rule, Terms, Until, take_promise
from dockd.model import Digest

_RULED = 3  # receipts from this version on


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """The policy of now: its statement's digest, and what it says by category."""

    policy: Digest
    categories: Mapping[str, Terms]

    def terms(self, stated: Manifest) -> Terms:
        """Of the category that a clip is kept by."""
        return self.categories[retention.category_of(stated, self.categories)]

    def promise(self, stated: Manifest, *, arrived: datetime, now: datetime) -> Promise:
        """What it promises of a clip. `arrived` is the receipt's time."""
        return retention.promise(
            policy=self.policy,
            category=retention.category_of(stated, self.categories),
            terms=self.terms(stated),
            stated=recorded(stated)[0],
            arrived=arrived,
            now=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a receipt or an extension says of how long the clip is kept. `rule` is None in versions 1 and 2."""

    at: datetime
    kept_until: datetime
    rule: Rule | None
    delete_by: datetime | None

    @property
    def is_endless(self) -> bool:
        """Whether a person ends it."""
        return self.rule is not None and self.rule.until is Until.ENDED


class NoMore(Enum):
    """Why a store promises no more than it did."""

    OVER = "the promise has ended, or the clip is on its way out"
    NOT_LONGER = "the policy says no more than was promised"


def read_receipt(payload: bytes) -> Said:
    """Of any version. Raises VerificationFailed for what is no receipt."""
    record = canonical.decode(payload, type_="receipt", newest=_RULED)
    fields = Fields(record, "receipt")
    if record["v"] < _RULED:
        return Said(at=fields.time("at"), kept_until=fields.time("retention_until"), rule=None, delete_by=None)
    return _said(fields)


def read_extension(payload: bytes) -> Said:
    """Raises VerificationFailed for what is no extension."""
    return _said(Fields(canonical.decode(payload, type_="extension"), "extension"))


def restated(newest: Said, offered: Offered | None, stated: Manifest, *, arrived: datetime, now: datetime) -> Said:
    """What a holding statement says now: the same, and of what a person ends the floor as it is now.

    A receipt of version 1 or 2 for what a person ends says a date, which moves likewise. No policy: nothing moves.
    """
    if offered is None:
        return newest
    terms = offered.terms(stated)
    if not newest.is_endless and not (newest.rule is None and terms.until is Until.ENDED):
        return newest
    # Also where the policy has a date for this category by now: what was promised until a person ends it stays so.
    _, start = retention.recording_start(recorded(stated)[0], arrived)
    floor = retention.keep_until(replace(terms, until=Until.ENDED), recorded_at=start, arrived=arrived, now=now)
    return replace(newest, at=now, kept_until=max(newest.kept_until, floor))


def extended(newest: Said, offered: Offered, stated: Manifest, *, arrived: datetime, now: datetime) -> Promise | NoMore:
    """What it promises in an extension of what it said last; or why not.

    A clip in the trash is not fetched back by this: whoever still needs it sends it again.
    """
    longer = offered.promise(stated, arrived=arrived, now=now)
    endless = longer.rule.until is Until.ENDED
    undo = timedelta(0) if newest.rule is None else timedelta(days=offered.terms(stated).undo_days)
    if not newest.is_endless and now >= newest.kept_until - undo:
        return NoMore.OVER
    begins_to_be_endless = endless and not newest.is_endless
    if newest.is_endless and not endless:
        return NoMore.NOT_LONGER
    if longer.keep_until < newest.kept_until or (longer.keep_until == newest.kept_until and not begins_to_be_endless):
        return NoMore.NOT_LONGER
    return longer


def as_signed(said: Said, *, ruled: bool) -> datetime | Promise:
    """How a holding statement puts it: with its rule where there is one and the station knows that version."""
    if said.rule is None or not ruled:
        return said.kept_until
    return Promise(rule=said.rule, keep_until=said.kept_until, delete_by=said.delete_by)


def _said(fields: Fields) -> Said:
    promise = take_promise(fields)
    return Said(at=fields.time("at"), kept_until=promise.keep_until, rule=promise.rule, delete_by=promise.delete_by)
