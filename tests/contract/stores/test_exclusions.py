"""What the suite leaves out is of tests and kinds that exist, and stands in docs/stores.md with its reason."""

import re
from pathlib import Path

from contract.stores import enforced, exclusions
from contract.stores.kinds import KINDS


def test_every_exclusion_is_of_a_test_and_a_kind_that_exist():
    names = {kind.name for kind in KINDS}
    files = [Path(__file__).with_name(name) for name in ("test_conformance.py", "test_object_conformance.py")]
    tests = {name for file in files for name in re.findall(r"^async def (test_\w+)", file.read_text(), re.MULTILINE)}
    assert set(exclusions.EXCLUDED) <= tests
    assert all(set(kinds) <= names and all(kinds.values()) for kinds in exclusions.EXCLUDED.values())


def test_what_a_server_is_not_put_through_stands_in_the_document():
    servers = {kind.name: kind for kind in KINDS if kind.servers}
    rows = [
        f"| {test.removeprefix('test_').replace('_', ' ')} | {servers[name].title} | {why} |"
        for test, kinds in exclusions.EXCLUDED.items()
        for name, why in kinds.items()
        if name in servers
    ]
    missing = [row for row in rows if row not in enforced.DOCUMENT.read_text()]
    assert not missing, "docs/stores.md should show:\n" + "\n".join(rows)
