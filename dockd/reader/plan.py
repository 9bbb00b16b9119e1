"""What the daemon learns before clips of a camera's volumes are erased together, and how that travels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from dockd.errors import ReaderDied
from dockd.model import AcquisitionId, FoundFile
from dockd.reader.messages import file_to_wire, table

FILES_AT_ONCE = 4  # in one message: a path may take 14 KiB there


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasePlan:
    """What can be said on the read-only volumes, before a byte of them changes."""

    unaccounted: str  # why not every allocated block belongs to one of these files; "" where each does
    unclear: Mapping[AcquisitionId, str] = field(default_factory=dict)
    """Files of which it cannot be told where they lie, and why: `erase` refuses them, as nothing could be read back."""


def batches(files: Mapping[AcquisitionId, FoundFile]) -> Iterator[list[dict[str, Any]]]:
    """The files of a plan, in pieces that fit into messages."""
    rest = iter(files.items())
    while piece := list(islice(rest, FILES_AT_ONCE)):
        yield [{"acquisition": name, "file": file_to_wire(file)} for name, file in piece]


def words_from_wire(fields: dict[str, Any], key: str) -> dict[str, str]:
    """Words, each about something. Raises ReaderDied."""
    words = table(fields, key)
    if not all(isinstance(text, str) for text in words.values()):
        raise ReaderDied(f"the reader broke its protocol: {key!r} has no words")
    return words
