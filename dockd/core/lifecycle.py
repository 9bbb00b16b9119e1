"""Every state and every transition of an acquisition, of its delivery to a store, and of a docking, in three tables.

An event that is not in the table raises `IllegalTransition` and changes nothing. The diagrams in docs/lifecycle.md
are drawn from these tables, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from dockd.errors import IllegalTransition


class AcquisitionState(StrEnum):
    """Where an acquisition stands."""

    FOUND = "found"  # listed on a camera, to be read
    NEEDS_SPOOL = "needs_spool"  # larger than the spool can ever hold, as it is set up: waits on its camera
    ACQUIRING = "acquiring"  # an attempt is journalled, a reader may be at it
    SPOOLED = "spooled"  # sealed file and signed manifest are durable in the spool
    UPLOADING = "uploading"  # some store has accepted the manifest
    STORED = "stored"  # verified confirmations satisfy the store policy
    WARRANTED = "warranted"  # an erase warrant is durable in journal and mirror
    ERASED = "erased"  # gone from the camera, and looked for again
    DEPARTED = "departed"  # no longer on the camera, before it was read
    SPOILED = "spoiled"  # its sealed file was damaged or lost before the store had it: the clip is to be read anew
    QUARANTINED = "quarantined"  # needs a person


class AcquisitionEvent(StrEnum):
    """What happens to an acquisition. Its custody entry is called `acquisition.<event>`."""

    NEEDS_SPOOL = "needs_spool"  # it can never fit into the spool
    READ_STARTED = "read_started"
    READ_ABANDONED = "read_abandoned"
    SEALED = "sealed"
    REGISTERED = "registered"
    REOPENED = "reopened"  # no store has what it had accepted any more: register again
    STORED = "stored"
    RETRACTED = "retracted"  # too few stores still have it, and an operator accepted that: push again
    REREAD = "reread"  # a second read agreed
    CONTESTED = "contested"  # a second read disagreed
    RELEASED = "released"  # an operator lets a damaged clip be erased
    SEEN_AGAIN = "seen_again"  # found on its camera in a new docking
    WARRANTED = "warranted"
    LAPSED = "lapsed"  # the warrant's docking ended, or the erasure could not be verified
    ERASED = "erased"
    DEPARTED = "departed"
    SPOILED = "spoiled"  # the sealed file is not what was sealed, or is gone, and the store does not have it
    QUARANTINED = "quarantined"
    READ_AGAIN = "read_again"  # an operator asks for another try at reading
    PUSH_AGAIN = "push_again"  # an operator asks for another try at pushing


class DeliveryState(StrEnum):
    """Where one acquisition stands on its way to one store."""

    WAITING = "waiting"  # the store lacks it
    REGISTERED = "registered"  # the store has accepted the manifest
    FINISHED = "finished"  # the store has all of it, and is still to confirm it
    CONFIRMED = "confirmed"  # verified: a receipt, the store's checksums, or what was read back
    GIVEN_UP = "given_up"  # the store will never take it, or its sealed file is gone


class DeliveryEvent(StrEnum):
    """What happens on the way to one store. Its custody entry is called `delivery.<event>`."""

    REGISTERED = "registered"
    REOPENED = "reopened"  # the store lost what it had accepted
    FINISHED = "finished"
    SHARED = "shared"  # another station's object stands for it: nothing is sent
    CONFIRMED = "confirmed"
    RETRACTED = "retracted"  # the store lost what it had confirmed, and an operator accepted that
    REFUSED = "refused"  # for good
    UNSENDABLE = "unsendable"  # its sealed file is gone, and the clip need not be read anew for this store
    PUSH_AGAIN = "push_again"  # an operator asks for another try


class DockingState(StrEnum):
    """Where a docking stands."""

    REFUSED = "refused"
    LISTING = "listing"
    ACQUIRING = "acquiring"  # some clip is still to be read
    DELIVERING = "delivering"  # all is read; uploads and second reads go on
    SANITISING = "sanitising"
    READY = "ready"  # no clip is left on the camera, and it was looked at again; or all are stored, and are to stay
    ATTENTION = "attention"  # what is left needs a person
    ENDED = "ended"


class DockingEvent(StrEnum):
    """What happens to a docking. Its custody entry is called `docking.<event>`."""

    REFUSED = "refused"
    ADMITTED = "admitted"
    LISTED = "listed"
    READ = "read"
    SANITISING = "sanitising"
    SANITISED = "sanitised"
    DELIVERED = "delivered"  # every clip is stored, and stays: its profile erases nothing
    EMPTY = "empty"
    NEEDS_PERSON = "needs_person"
    RELISTING = "relisting"  # new files, a release, a reader that died
    ENDED = "ended"


A, E = AcquisitionState, AcquisitionEvent

ACQUISITION: Mapping[tuple[AcquisitionState | None, AcquisitionEvent], AcquisitionState] = {
    (A.FOUND, E.READ_STARTED): A.ACQUIRING,
    (A.FOUND, E.SEEN_AGAIN): A.FOUND,
    (A.FOUND, E.DEPARTED): A.DEPARTED,
    (A.FOUND, E.QUARANTINED): A.QUARANTINED,
    (A.FOUND, E.NEEDS_SPOOL): A.NEEDS_SPOOL,
    (A.NEEDS_SPOOL, E.SEEN_AGAIN): A.FOUND,
    (A.NEEDS_SPOOL, E.READ_AGAIN): A.FOUND,
    (A.NEEDS_SPOOL, E.DEPARTED): A.DEPARTED,
    (A.ACQUIRING, E.READ_ABANDONED): A.FOUND,
    (A.ACQUIRING, E.SEALED): A.SPOOLED,
    (A.ACQUIRING, E.QUARANTINED): A.QUARANTINED,
    (A.DEPARTED, E.SEEN_AGAIN): A.FOUND,
    (A.SPOOLED, E.REGISTERED): A.UPLOADING,
    (A.SPOOLED, E.QUARANTINED): A.QUARANTINED,
    (A.SPOOLED, E.SPOILED): A.SPOILED,
    (A.SPOOLED, E.REREAD): A.SPOOLED,
    (A.SPOOLED, E.CONTESTED): A.SPOOLED,
    (A.SPOOLED, E.RELEASED): A.SPOOLED,
    (A.SPOOLED, E.SEEN_AGAIN): A.SPOOLED,
    (A.UPLOADING, E.REOPENED): A.SPOOLED,
    (A.UPLOADING, E.STORED): A.STORED,
    (A.UPLOADING, E.QUARANTINED): A.QUARANTINED,
    (A.UPLOADING, E.SPOILED): A.SPOILED,
    (A.UPLOADING, E.REREAD): A.UPLOADING,
    (A.UPLOADING, E.CONTESTED): A.UPLOADING,
    (A.UPLOADING, E.RELEASED): A.UPLOADING,
    (A.UPLOADING, E.SEEN_AGAIN): A.UPLOADING,
    (A.STORED, E.REREAD): A.STORED,
    (A.STORED, E.CONTESTED): A.STORED,
    (A.STORED, E.RELEASED): A.STORED,
    (A.STORED, E.SEEN_AGAIN): A.STORED,
    (A.STORED, E.WARRANTED): A.WARRANTED,
    (A.STORED, E.QUARANTINED): A.QUARANTINED,
    (A.STORED, E.RETRACTED): A.SPOOLED,
    (A.WARRANTED, E.LAPSED): A.STORED,
    (A.WARRANTED, E.ERASED): A.ERASED,
    (A.WARRANTED, E.QUARANTINED): A.QUARANTINED,
    (A.WARRANTED, E.RETRACTED): A.SPOOLED,
    (A.QUARANTINED, E.SEEN_AGAIN): A.QUARANTINED,
    (A.QUARANTINED, E.READ_AGAIN): A.FOUND,
    (A.QUARANTINED, E.PUSH_AGAIN): A.SPOOLED,
    (A.SPOILED, E.PUSH_AGAIN): A.SPOOLED,
}

S, V = DeliveryState, DeliveryEvent

DELIVERY: Mapping[tuple[DeliveryState | None, DeliveryEvent], DeliveryState] = {
    (S.WAITING, V.REGISTERED): S.REGISTERED,
    (S.WAITING, V.REFUSED): S.GIVEN_UP,
    (S.WAITING, V.UNSENDABLE): S.GIVEN_UP,
    (S.REGISTERED, V.REOPENED): S.WAITING,
    (S.REGISTERED, V.FINISHED): S.FINISHED,
    (S.REGISTERED, V.SHARED): S.FINISHED,
    (S.REGISTERED, V.CONFIRMED): S.CONFIRMED,
    (S.REGISTERED, V.REFUSED): S.GIVEN_UP,
    (S.REGISTERED, V.UNSENDABLE): S.GIVEN_UP,
    (S.FINISHED, V.REOPENED): S.WAITING,
    (S.FINISHED, V.CONFIRMED): S.CONFIRMED,
    (S.FINISHED, V.REFUSED): S.GIVEN_UP,
    (S.FINISHED, V.UNSENDABLE): S.GIVEN_UP,
    (S.CONFIRMED, V.RETRACTED): S.WAITING,
    (S.GIVEN_UP, V.PUSH_AGAIN): S.WAITING,
}

D, F = DockingState, DockingEvent

DOCKING: Mapping[tuple[DockingState | None, DockingEvent], DockingState] = {
    (None, F.REFUSED): D.REFUSED,
    (None, F.ADMITTED): D.LISTING,
    (D.LISTING, F.LISTED): D.ACQUIRING,
    (D.ACQUIRING, F.READ): D.DELIVERING,
    (D.ACQUIRING, F.RELISTING): D.LISTING,
    (D.DELIVERING, F.SANITISING): D.SANITISING,
    (D.DELIVERING, F.EMPTY): D.READY,
    (D.DELIVERING, F.DELIVERED): D.READY,
    (D.DELIVERING, F.NEEDS_PERSON): D.ATTENTION,
    (D.DELIVERING, F.RELISTING): D.LISTING,
    (D.SANITISING, F.SANITISED): D.DELIVERING,
    (D.SANITISING, F.RELISTING): D.LISTING,
    (D.READY, F.RELISTING): D.LISTING,
    (D.ATTENTION, F.RELISTING): D.LISTING,
    (D.REFUSED, F.ENDED): D.ENDED,
    (D.LISTING, F.ENDED): D.ENDED,
    (D.ACQUIRING, F.ENDED): D.ENDED,
    (D.DELIVERING, F.ENDED): D.ENDED,
    (D.SANITISING, F.ENDED): D.ENDED,
    (D.READY, F.ENDED): D.ENDED,
    (D.ATTENTION, F.ENDED): D.ENDED,
}

_S = TypeVar("_S", bound=StrEnum)
_V = TypeVar("_V", bound=StrEnum)


def following(table: Mapping[tuple[_S | None, _V], _S], state: _S | None, event: _V) -> _S:
    """The state that follows. Raises IllegalTransition, naming both, where the table has no such row."""
    try:
        return table[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.value} is not allowed in state {state.value if state else 'none'}") from None
