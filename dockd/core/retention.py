"""How long a store keeps what it was given: the rule, the signed policy that it comes from, and what is long enough.

R is the start of the recording, A the arrival by the store's clock (the receipt's `at`). A clip is kept until
max(R + recorded, A + review + undo), goes to the trash `undo` before that, and its bytes are gone a day after it.
A category whose rule is `ended` has no such date: a person ends it, and what is stated is a floor that moves with now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from dockd.core import canonical
from dockd.core import manifest as manifests
from dockd.core.fields import Fields
from dockd.core.sshsig import POLICY, PublicKey, verify
from dockd.errors import VerificationFailed
from dockd.model import Category, Digest, SignedBytes, StoreId

POLICY_TYPE = "policy"
OLDEST, NEWEST = timedelta(days=90), timedelta(hours=1)  # how far before and after A a start of recording is believed
DELETION_TAKES = timedelta(days=1)  # from keep_until to delete_by
MAX_DAYS = 36_500
MAX_CATEGORIES, MAX_NAME = 256, 64
_TOKEN = object()


class Until(StrEnum):
    """What ends a promise."""

    DATE = "date"
    ENDED = "ended"  # a person at the store


class RecordedFrom(StrEnum):
    """Where the start of the recording comes from that a date is counted from."""

    MANIFEST = "manifest"
    ARRIVAL = "arrival"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a policy says of one category, and what a station asks for at least. For `ended` they make the floor."""

    until: Until = Until.DATE
    recorded_days: int = 30
    review_days: int = 7
    undo_days: int = 7

    def __post_init__(self) -> None:
        """Raises ValueError for what no calendar has."""
        if not all(0 <= days <= MAX_DAYS for days in (self.recorded_days, self.review_days, self.undo_days)):
            raise ValueError(f"days have to be 0 to {MAX_DAYS}")

    @property
    def after_recording(self) -> timedelta:
        """From R."""
        return timedelta(days=self.recorded_days)

    @property
    def after_arrival(self) -> timedelta:
        """From A: whoever docks late still has time to look at the clip, and to undo its deletion."""
        return timedelta(days=self.review_days + self.undo_days)

    def record(self) -> dict[str, Any]:
        """As policy statements have it."""
        return {
            "until": self.until.value,
            "recorded_days": self.recorded_days,
            "review_days": self.review_days,
            "undo_days": self.undo_days,
        }


def usual_terms() -> dict[str, Terms]:
    """Of the two categories that every policy has: evidence stays until a person ends it."""
    return {Category.NONE.value: Terms(), Category.EVIDENCE.value: Terms(until=Until.ENDED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which rule a clip falls under, as receipts, holding statements and extensions say it."""

    category: str
    until: Until
    policy: Digest  # of the policy statement's exact bytes
    recorded_from: RecordedFrom
    recorded_at: datetime  # R

    def record(self) -> dict[str, Any]:
        """As statements have it."""
        return {
            "category": self.category,
            "until": self.until.value,
            "policy": self.policy,
            "recorded_from": self.recorded_from.value,
            "recorded_at": canonical.format_time(self.recorded_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A rule with its dates. `delete_by` is None where no date ends it."""

    rule: Rule
    keep_until: datetime
    delete_by: datetime | None

    def record(self) -> dict[str, Any]:
        """As statements have it."""
        return {
            "rule": self.rule.record(),
            "keep_until": canonical.format_time(self.keep_until),
            "delete_by": None if self.delete_by is None else canonical.format_time(self.delete_by),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPolicy:
    """A store's policy by category, under the store's key. Made by `verify_policy` alone."""

    token: InitVar[object]  # not kept: dataclasses.replace cannot pass it on
    store: StoreId
    policy_seq: int  # counts up when the policy changes
    at: datetime
    categories: Mapping[str, Terms]  # `none` and `evidence` are always there
    payload_digest: Digest

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("made by its verifier alone")

    def terms(self, category: str) -> Terms:
        """Of a category; one that the policy does not name falls under `none`."""
        return self.categories.get(category, self.categories[Category.NONE.value])


@dataclass(frozen=True, slots=True, kw_only=True)
class TooShort:
    """A category for which a policy is shorter than what a station asks for."""

    category: str
    policy: Terms
    minimum: Terms

    def sentence(self) -> str:
        """For people."""
        return f"{self.category}: it keeps {_words(self.policy)}, and {_words(self.minimum)} is asked for"


def category_of(manifest: manifests.Manifest, categories: Mapping[str, object]) -> str:
    """The category by which a clip is kept: evidence is evidence, else what its name says, if the policy knows that."""
    named = manifest.named.category if manifest.named is not None else ""
    if manifest.category is Category.NONE and named in categories:
        return named
    return manifest.category.value


def recording_start(stated: datetime | None, arrived: datetime) -> tuple[RecordedFrom, datetime]:
    """R: what the manifest states, where that can be; else A. A camera's clock may be wrong by years."""
    if stated is not None and -NEWEST <= arrived - stated <= OLDEST:
        return RecordedFrom.MANIFEST, stated
    return RecordedFrom.ARRIVAL, arrived


def keep_until(terms: Terms, *, recorded_at: datetime, arrived: datetime, now: datetime) -> datetime:
    """The earliest moment at which it may be deleted; of `ended`, the floor as it is `now`."""
    until = max(recorded_at + terms.after_recording, arrived + terms.after_arrival)
    return max(until, now + terms.after_arrival) if terms.until is Until.ENDED else until


def trash_from(terms: Terms, until: datetime) -> datetime | None:
    """When a clip that is kept until `until` leaves everybody's sight, and can still be brought back. None: never."""
    return None if terms.until is Until.ENDED else until - timedelta(days=terms.undo_days)


def is_late(terms: Terms, *, stated: datetime | None, arrived: datetime) -> bool:
    """Whether it came so late that its review outlasts `recorded_days`, or states a start that cannot be believed.

    With the usual numbers: more than 30 - 7 - 7 = 16 days after its recording.
    """
    return stated is not None and arrived - stated > terms.after_recording - terms.after_arrival


def promise(
    *, policy: Digest, category: str, terms: Terms, stated: datetime | None, arrived: datetime, now: datetime
) -> Promise:
    """What a store promises `now` of a clip that arrived at `arrived`. `stated`: the manifest's start of recording."""
    recorded_from, recorded_at = recording_start(stated, arrived)
    until = keep_until(terms, recorded_at=recorded_at, arrived=arrived, now=now)
    return Promise(
        rule=Rule(
            category=category,
            until=terms.until,
            policy=policy,
            recorded_from=recorded_from,
            recorded_at=recorded_at,
        ),
        keep_until=until,
        delete_by=None if terms.until is Until.ENDED else until + DELETION_TAKES,
    )


def is_enough(policy: Terms, minimum: Terms) -> bool:
    """Whether whatever falls under `policy` is kept as long as `minimum` asks, whenever it was recorded and arrives.

    With R from A - OLDEST to A + NEWEST, max(R + a, A + b) >= max(R + c, A + d) holds for each R exactly where it holds
    for the d at the earliest R, and for the c at the latest.
    """
    if minimum.until is Until.ENDED and policy.until is not Until.ENDED:
        return False
    at_earliest = max(policy.after_recording - OLDEST, policy.after_arrival)
    at_latest = max(policy.after_recording, policy.after_arrival - NEWEST)
    return at_earliest >= minimum.after_arrival and at_latest >= minimum.after_recording


def too_short(policy: VerifiedPolicy, minima: Mapping[str, Terms]) -> tuple[TooShort, ...]:
    """Where this policy is shorter than the station's minimum by category; empty where it is long enough."""
    found = ((category, policy.terms(category), minimum) for category, minimum in sorted(minima.items()))
    return tuple(
        TooShort(category=category, policy=terms, minimum=minimum)
        for category, terms, minimum in found
        if not is_enough(terms, minimum)
    )


def build_policy(*, store: StoreId, policy_seq: int, at: datetime, categories: Mapping[str, Terms]) -> bytes:
    """The bytes that a store signs in namespace POLICY. Raises ValueError for a policy that nobody would take."""
    _check_names(categories)
    return canonical.encode(
        {
            "type": POLICY_TYPE,
            "v": 1,
            "store": store,
            "policy_seq": policy_seq,
            "at": canonical.format_time(at),
            "categories": {name: terms.record() for name, terms in categories.items()},
        }
    )


def verify_policy(signed: SignedBytes, *, store_key: PublicKey, store: StoreId) -> VerifiedPolicy:
    """Verify a store's policy statement. Raises VerificationFailed."""
    verify(store_key, POLICY, signed.payload, signed.signature)
    fields = Fields(canonical.decode(signed.payload, type_=POLICY_TYPE), POLICY_TYPE)
    if fields.uuid("store") != store:
        raise VerificationFailed("the policy is of another store")
    policy_seq, at, said = fields.count("policy_seq", least=1), fields.time("at"), fields.mapping("categories")
    fields.end()
    try:
        _check_names(said)
        categories = {name: _terms_of(name, one) for name, one in said.items()}
    except ValueError as error:
        raise VerificationFailed(f"{POLICY_TYPE}: {error}") from error
    return VerifiedPolicy(
        token=_TOKEN,
        store=store,
        policy_seq=policy_seq,
        at=at,
        categories=categories,
        payload_digest=canonical.digest(signed.payload),
    )


def take_promise(fields: Fields) -> Promise:
    """The keys of a promise in a statement. Raises VerificationFailed, also where they contradict each other."""
    said = fields.inner("rule")
    try:
        rule = Rule(
            category=said.text("category"),
            until=Until(said.text("until")),
            policy=said.digest("policy"),
            recorded_from=RecordedFrom(said.text("recorded_from")),
            recorded_at=said.time("recorded_at"),
        )
    except ValueError as error:
        raise VerificationFailed(f"rule: {error}") from error
    said.end()
    found = Promise(
        rule=rule,
        keep_until=fields.time("keep_until"),
        delete_by=None if fields.null("delete_by") else fields.time("delete_by"),
    )
    takes = None if found.delete_by is None else found.delete_by - found.keep_until
    if takes != (None if rule.until is Until.ENDED else DELETION_TAKES):
        raise VerificationFailed("delete_by is not what the rule and keep_until say")
    return found


def _check_names(categories: Mapping[str, object]) -> None:
    missing = {one.value for one in Category} - set(categories)
    if missing:
        raise ValueError(f"there is no rule for {', '.join(sorted(missing))}")
    if len(categories) > MAX_CATEGORIES:
        raise ValueError(f"more than {MAX_CATEGORIES} categories")
    for name in categories:
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise ValueError(f"{name!r} is no name of a category: 1 to {MAX_NAME} printable characters")


def _terms_of(name: str, said: object) -> Terms:
    if not isinstance(said, dict):
        raise VerificationFailed(f"{POLICY_TYPE}.{name} is not an object")
    fields = Fields(said, f"{POLICY_TYPE}.{name}")
    days = {key: fields.count(key) for key in ("recorded_days", "review_days", "undo_days")}
    terms = Terms(until=Until(fields.text("until")), **days)
    fields.end()
    return terms


def _words(terms: Terms) -> str:
    floor = f"{terms.recorded_days} days from recording and {terms.after_arrival.days} from arrival"
    return f"until a person ends it, at least {floor}" if terms.until is Until.ENDED else floor
