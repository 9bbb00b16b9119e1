"""What an acquisition's deliveries mean for the acquisition itself, under the store policy."""

from __future__ import annotations

from collections.abc import Mapping

from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState, DeliveryState
from dockd.core.policy import StorePolicy
from dockd.model import StoreId

_ACCEPTED = (DeliveryState.REGISTERED, DeliveryState.FINISHED, DeliveryState.CONFIRMED)


def next_event(
    state: AcquisitionState, deliveries: Mapping[StoreId, DeliveryState], policy: StorePolicy
) -> AcquisitionEvent | None:
    """The event by which the acquisition follows its deliveries; None where it stands as they say. Ask until None.

    A store that refuses a clip for good refuses its own delivery alone: the clip is quarantined only where the policy
    can no longer be satisfied without that store.
    """
    confirmed = {store for store, one in deliveries.items() if one is DeliveryState.CONFIRMED}
    given_up = {store for store, one in deliveries.items() if one is DeliveryState.GIVEN_UP}
    accepted = any(one in _ACCEPTED for one in deliveries.values())
    match state:
        case AcquisitionState.SPOOLED | AcquisitionState.UPLOADING if not policy.attainable(given_up):
            return AcquisitionEvent.QUARANTINED
        case AcquisitionState.SPOOLED if accepted:
            return AcquisitionEvent.REGISTERED
        case AcquisitionState.UPLOADING if policy.satisfied(confirmed):
            return AcquisitionEvent.STORED
        case AcquisitionState.UPLOADING if not accepted:
            return AcquisitionEvent.REOPENED
        case AcquisitionState.STORED | AcquisitionState.WARRANTED if not policy.satisfied(confirmed):
            return AcquisitionEvent.RETRACTED
    return None
