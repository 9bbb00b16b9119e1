"""The lifecycle's table and guards of the warrant, each broken in turn: the state machine or Spin has to notice."""

from __future__ import annotations

import sys

from mutate import Mutation, main

TABLE, WARRANT = "dockd/core/lifecycle.py", "dockd/core/warrant.py"
MACHINE = ("tests/property/test_station_machine.py",)
SPIN = ("tests/model",)
BOTH = (*MACHINE, *SPIN)


def _edge(name: str, text: str, instead: str) -> Mutation:
    return Mutation(name=name, file=TABLE, text=text, instead=instead, tests=BOTH)


def _more(name: str, edge: str) -> Mutation:
    """An edge that the table does not have."""
    first = "    (A.FOUND, E.READ_STARTED): A.ACQUIRING,\n"
    return _edge(name, first, f"{first}    {edge},\n")


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
    ),
    _guard("a second read that differs", "len(digests) != 1"),
    _guard("another camera", "camera_now != manifest.camera"),
    _guard("a damaged clip unreleased", "and not row.released_by", "and False"),
)

if __name__ == "__main__":
    sys.exit(main(MUTATIONS, sys.argv[1:]))
