"""Clips that are on their camera although what a store promised of them has ended, or is about to.

Such a clip is read and sent as a new acquisition, which the store keeps for a time of its own.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from dockd.core.canonical import format_time
from dockd.core.lifecycle import DeliveryState
from dockd.core.policy import MARGIN
from dockd.core.promises import read_extension, read_receipt
from dockd.keep.transaction import Tx
from dockd.model import Acquisition


def why_outlived(tx: Tx, row: Acquisition, now: datetime, margin: timedelta = MARGIN) -> str:
    """Which promise of a store that signs ends within `margin` from now, or has ended; empty where none does.

    What is kept was verified when it came. A promise that a person ends has no date.
    """
    for delivery in tx.deliveries(row.acquisition):
        receipt = tx.receipt(row.acquisition, delivery.store)
        if delivery.state is not DeliveryState.CONFIRMED or receipt is None:
            continue
        extensions = tx.extensions(row.acquisition, delivery.store)
        said = read_extension(extensions[-1].payload) if extensions else read_receipt(receipt.payload)
        if not said.is_endless and said.kept_until - now < margin:
            return f"store {delivery.store} keeps it until {format_time(said.kept_until)} only"
    return ""
