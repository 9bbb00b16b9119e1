"""What one store gets next, out of the journal."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from dockd.core.places import Rank
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Category, StoreId
from dockd.station.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What would be sent next, and why."""

    row: Acquisition
    rank: Rank
    in_turn: bool  # it was looked for from camera to camera


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is looked for: nothing of `passed_over`, by turns where there are any, evidence alone where that is said."""

    store: StoreId
    passed_over: Collection[AcquisitionId]
    turns: Turns | None
    flagged_only: bool


def is_flagged(row: Acquisition) -> bool:
    """Whether it goes before all others."""
    return row.category is Category.EVIDENCE


def choose(tx: Tx, wanted: Wanted) -> tuple[Choice | None, list[AcquisitionId]]:
    """The next one, where there is any; and all candidates, as far as it takes to know that."""
    limit, turns = len(wanted.passed_over) + 1, wanted.turns
    firsts = turns.ordered(tx.uplink_firsts(wanted.store, limit)) if turns is not None else []
    candidates = tx.uplink_candidates(wanted.store, limit)
    left = (row for row in (*firsts, *candidates) if row.acquisition not in wanted.passed_over)
    row = next((row for row in left if is_flagged(row) or not wanted.flagged_only), None)
    choice = None if row is None else Choice(row=row, rank=_rank(tx, row), in_turn=turns is not None)
    return choice, [one.acquisition for one in candidates]


def _rank(tx: Tx, row: Acquisition) -> Rank:
    outstanding_bytes = tx.outstanding_bytes(row.docking)
    return Rank(
        ordinary=not is_flagged(row),
        outstanding_bytes=math.inf if outstanding_bytes is None else outstanding_bytes,
        found_at=row.found_at,
    )
