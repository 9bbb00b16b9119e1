"""The lifecycle's table and guards of the warrant, each broken in turn: the state machine or Spin has to notice."""

from __future__ import annotations

import sys

from mutate import Mutation, main

TABLE, WARRANT = "dockd/core/lifecycle.py", "dockd/core/warrant.py"
MACHINE = ("tests/property/test_station_machine.py",)
SPIN = ("tests/model/test_spin.py::test_p01_erased_implies_confirmed_in_every_order",)
UNIT_TEST = "tests/unit/test_lifecycle.py"
# Where an edge is there that nothing ever takes, neither world goes wrong: the table itself is looked at.
PATHS = (f"{UNIT_TEST}::test_p01_the_only_way_to_erased_leads_through_stored_and_warranted",)
READY = (f"{UNIT_TEST}::test_p04_a_docking_is_ready_only_from_where_all_is_read_and_nothing_is_left_to_do",)


def _edge(name: str, text: str, instead: str, tests: tuple[str, ...] = MACHINE) -> Mutation:
    return Mutation(name=name, file=TABLE, text=text, instead=instead, tests=tests)


def _more(name: str, edge: str, tests: tuple[str, ...] = PATHS) -> Mutation:
    """An edge that the table does not have."""
    first = "    (A.FOUND, E.READ_STARTED): A.ACQUIRING,\n"
    return _edge(name, first, f"{first}    {edge},\n", tests)


def _ready(name: str, edge: str) -> Mutation:
    first = "    (None, F.REFUSED): D.REFUSED,\n"
    return _edge(name, first, f"{first}    {edge},\n", READY)


def _guard(name: str, text: str, instead: str = "False") -> Mutation:
    return Mutation(name=name, file=WARRANT, text=text, instead=instead, tests=MACHINE)


MUTATIONS = (
    _more("stored without an upload", "(A.SPOOLED, E.STORED): A.STORED"),
    _more("warranted while uploading", "(A.UPLOADING, E.WARRANTED): A.WARRANTED"),
    _more("warranted while spooled", "(A.SPOOLED, E.WARRANTED): A.WARRANTED"),
    _more("erased without a warrant", "(A.STORED, E.ERASED): A.ERASED"),
    _more("erased out of the spool", "(A.SPOOLED, E.ERASED): A.ERASED"),
    _more("quarantine left as stored", "(A.QUARANTINED, E.STORED): A.STORED"),
    _edge(
        "sealing counts as stored",
        "(A.ACQUIRING, E.SEALED): A.SPOOLED",
        "(A.ACQUIRING, E.SEALED): A.STORED",
    ),
    _edge(
        "registering counts as stored",
        "(A.SPOOLED, E.REGISTERED): A.UPLOADING",
        "(A.SPOOLED, E.REGISTERED): A.STORED",
    ),
    _edge(
        "an abandoned read counts",
        "(A.ACQUIRING, E.READ_ABANDONED): A.FOUND",
        "(A.ACQUIRING, E.READ_ABANDONED): A.SPOOLED",
    ),
    _edge(
        "a lapsed warrant counts as erased",
        "(A.WARRANTED, E.LAPSED): A.STORED",
        "(A.WARRANTED, E.LAPSED): A.ERASED",
        SPIN,
    ),
    _edge(
        "push again counts as stored",
        "(A.QUARANTINED, E.PUSH_AGAIN): A.SPOOLED",
        "(A.QUARANTINED, E.PUSH_AGAIN): A.STORED",
    ),
    _edge(
        "reopened counts as stored",
        "(A.UPLOADING, E.REOPENED): A.SPOOLED",
        "(A.UPLOADING, E.REOPENED): A.STORED",
        PATHS,  # an acquisition follows its deliveries, and would leave that state again at once
    ),
    _edge(
        "a contested clip counts as read again",
        "(A.STORED, E.CONTESTED): A.STORED",
        "(A.STORED, E.CONTESTED): A.WARRANTED",
        SPIN,
    ),
    _edge(
        "a second read counts as a warrant",
        "(A.STORED, E.REREAD): A.STORED",
        "(A.STORED, E.REREAD): A.WARRANTED",
        SPIN,
    ),
    _edge(
        "a release counts as a warrant",
        "(A.STORED, E.RELEASED): A.STORED",
        "(A.STORED, E.RELEASED): A.WARRANTED",
        SPIN,
    ),
    _edge(
        "retracted stays stored",
        "(A.STORED, E.RETRACTED): A.SPOOLED",
        "(A.STORED, E.RETRACTED): A.STORED",
        SPIN,
    ),
    _edge(
        "a quarantined clip goes on where it was",
        "(A.STORED, E.QUARANTINED): A.QUARANTINED",
        "(A.STORED, E.QUARANTINED): A.STORED",
        SPIN,
    ),
    _edge(
        "a spoiled upload goes on as stored",
        "(A.UPLOADING, E.SPOILED): A.SPOILED",
        "(A.UPLOADING, E.SPOILED): A.STORED",
        SPIN,
    ),
    _guard(
        "a damaged clip unreleased",
        'and not row.released_by,\n        "the manifest',
        'and False,\n        "the manifest',
    ),
    _guard("a holding statement of long ago", "not timedelta(0) <= now - one.asked_at <= HOLDING_FRESH"),
    _guard("a custody entry that is not durable", "manifest.custody_seq >= custody_durable_size\n", "False\n"),
    _ready("ready while it is listed", "(D.LISTING, F.EMPTY): D.READY"),
    _ready("ready while clips are to be read", "(D.ACQUIRING, F.EMPTY): D.READY"),
    _edge(
        "erased counts as ready, unseen",
        "(D.SANITISING, F.SANITISED): D.DELIVERING",
        "(D.SANITISING, F.SANITISED): D.READY",
        READY,
    ),
    _edge(
        "what needs a person counts as ready",
        "(D.DELIVERING, F.NEEDS_PERSON): D.ATTENTION",
        "(D.DELIVERING, F.NEEDS_PERSON): D.READY",
        READY,
    ),
)

if __name__ == "__main__":
    sys.exit(main(MUTATIONS, sys.argv[1:]))
