import itertools
from pathlib import Path

import pytest

from dockd.core.lifecycle import (
    ACQUISITION,
    DELIVERY,
    DOCKING,
    AcquisitionEvent,
    AcquisitionState,
    DeliveryEvent,
    DeliveryState,
    DockingEvent,
    DockingState,
    following,
)
from dockd.errors import IllegalTransition

DOCS = Path(__file__).parents[2] / "docs" / "lifecycle.md"


def diagram(table, first) -> str:
    """The table as a Mermaid state diagram: what docs/lifecycle.md has to show."""
    lines = ["stateDiagram-v2", *([f"    [*] --> {first}: found"] if first else [])]
    lines += [f"    {before or '[*]'} --> {after}: {event}" for (before, event), after in table.items()]
    return "\n".join(lines)


@pytest.mark.parametrize(("table", "first"), [(ACQUISITION, "found"), (DELIVERY, "waiting"), (DOCKING, None)])
def test_the_documented_diagram_is_the_table(table, first):
    assert diagram(table, first) in DOCS.read_text(), f"docs/lifecycle.md should show:\n{diagram(table, first)}"


def test_p05_every_state_can_be_reached():
    for table, states, start in (
        (ACQUISITION, AcquisitionState, {AcquisitionState.FOUND}),
        (DELIVERY, DeliveryState, {DeliveryState.WAITING}),
        (DOCKING, DockingState, {None}),
    ):
        reached = set(start)
        while more := {after for (before, _), after in table.items() if before in reached} - reached:
            reached |= more
        assert reached >= set(states)


def test_p01_the_only_way_to_erased_leads_through_stored_and_warranted():
    state, event = AcquisitionState, AcquisitionEvent
    assert _into(ACQUISITION, state.ERASED) == {(state.WARRANTED, event.ERASED)}
    assert _into(ACQUISITION, state.WARRANTED) == {(state.STORED, event.WARRANTED)}
    assert _into(ACQUISITION, state.STORED) == {(state.UPLOADING, event.STORED), (state.WARRANTED, event.LAPSED)}
    assert _into(ACQUISITION, state.UPLOADING) == {(state.SPOOLED, event.REGISTERED)}


def test_p04_a_docking_is_ready_only_from_where_all_is_read_and_nothing_is_left_to_do():
    state, event = DockingState, DockingEvent
    assert _into(DOCKING, state.READY) == {(state.DELIVERING, event.EMPTY), (state.DELIVERING, event.DELIVERED)}
    assert _into(DOCKING, state.DELIVERING) == {(state.ACQUIRING, event.READ), (state.SANITISING, event.SANITISED)}
    assert _into(DOCKING, state.SANITISING) == {(state.DELIVERING, event.SANITISING)}
    assert _into(DOCKING, state.ACQUIRING) == {(state.LISTING, event.LISTED)}


def _into(table, state):
    """The edges that lead into a state from another one."""
    return {(before, event) for (before, event), after in table.items() if after is state and before is not state}


def test_what_is_not_in_a_table_is_illegal():
    for state, event in itertools.product([None, *AcquisitionState], AcquisitionEvent):
        if (state, event) not in ACQUISITION:
            with pytest.raises(IllegalTransition):
                following(ACQUISITION, state, event)
    for state, event in itertools.product([None, *DeliveryState], DeliveryEvent):
        if (state, event) not in DELIVERY:
            with pytest.raises(IllegalTransition):
                following(DELIVERY, state, event)
    for state, event in itertools.product([None, *DockingState], DockingEvent):
        if (state, event) not in DOCKING:
            with pytest.raises(IllegalTransition):
                following(DOCKING, state, event)


def test_erased_and_ended_are_final():
    assert not [key for key in ACQUISITION if key[0] is AcquisitionState.ERASED]
    assert not [key for key in DOCKING if key[0] is DockingState.ENDED]
