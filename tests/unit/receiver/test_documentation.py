"""docs/receiver.md lists every refusal, and no other."""

import re
from pathlib import Path

from dockd.receiver.problems import PREFIX, Kind

_PAGE = Path(__file__).parents[3] / "docs" / "receiver.md"
_ROW = re.compile(r"\| ([a-z-]+) \| (\d{3}) \| .+ \| .* ?\|")


def test_the_table_of_refusals_is_the_programs():
    written = {(name, int(status)) for name, status in _ROW.findall(_PAGE.read_text())}
    assert written == {(kind.type.removeprefix(PREFIX), kind.status) for kind in Kind}
