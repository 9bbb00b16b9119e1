"""Whether what a store promises is long enough for this station, and reaches far enough from now. Pure.

The station's minimum is by category and counted as a store's rule is: from the start of the recording and from the
arrival (core.retention). What a store promises of one clip is its receipt, or the newest extension of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dockd.core import retention
from dockd.core.canonical import format_time
from dockd.core.extensions import VerifiedExtension
from dockd.core.manifest import Manifest, recorded
from dockd.core.policy import PolicyStore
from dockd.core.receipts import VerifiedReceipt
from dockd.core.retention import Until


def wanted_until(configured: PolicyStore, manifest: Manifest, arrived: datetime) -> datetime:
    """Until when the station's minimum asks for a clip to be kept that a store got at `arrived`."""
    least = arrived + configured.min_retention
    category = retention.category_of(manifest, configured.minima)
    terms = configured.minima.get(category)
    if terms is None:
        return least
    _, recorded_at = retention.recording_start(recorded(manifest)[0], arrived)
    return max(least, retention.keep_until(terms, recorded_at=recorded_at, arrived=arrived, now=arrived))


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What a promise is measured with."""

    configured: PolicyStore
    manifest: Manifest
    margin: timedelta
    now: datetime


def doubts(receipt: VerifiedReceipt, extension: VerifiedExtension | None, until: datetime, own: Own) -> tuple[str, ...]:
    """What speaks against the promise of a store that signs, which ends at `until`; empty where nothing does.

    Receipts of versions 1 and 2 cannot say that a person ends it: of them the date alone is asked for.
    """
    rule = receipt.rule if extension is None else extension.rule
    minima = own.configured.minima
    wanted = minima.get(retention.category_of(own.manifest, minima))
    endless = wanted is not None and wanted.until is Until.ENDED
    found = too_soon(until, wanted_until(own.configured, own.manifest, receipt.at), own.margin, own.now)
    if endless and rule is not None and rule.until is not Until.ENDED:
        return (*found, "it lets a date end what only a person may end")
    return found


def too_soon(until: datetime, wanted: datetime, margin: timedelta, now: datetime) -> tuple[str, ...]:
    """Why a promise that ends at `until` is none: it is shorter than what is asked for, or nearly over."""
    unmet = {
        f"it keeps the clip until {format_time(until)} only": until < wanted,
        f"its promise ends {format_time(until)}, which is too near or over": until - now < margin,
    }
    return tuple(reason for reason, broken in unmet.items() if broken)


def is_endless(receipt: VerifiedReceipt, extension: VerifiedExtension | None) -> bool:
    """Whether a person ends it: then the date that was stated moves with each holding statement."""
    rule = receipt.rule if extension is None else extension.rule
    return rule is not None and rule.until is Until.ENDED
