"""What a store was found to enforce, against what it claims: asked at set-up and by `dockd doctor`.

An adapter's `probe` makes objects of its own, named so that nobody takes them for evidence, tries them, and removes
them where the store lets it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dockd.errors import VerificationFailed
from dockd.model import Entropy

_PREFIX = "dockd-probe-"
_UUID_BYTES = 16


class Question(StrEnum):
    """What every kind of store is asked, where it applies; an adapter may ask more, in words of its own."""

    WRONG_CHECKSUM = "is a wrong checksum refused?"
    CHECKSUM_BACK = "does it state a checksum that is right?"
    OVERWRITE = "is overwriting refused?"
    LOCKED = "is a locked object undeletable?"
    READ_BACK = "can a range be read back?"
    RESUME = "can an upload be resumed in a new session?"
    ABANDON = "can an upload be abandoned?"
    COMPLETE = "has it all that dockd needs?"


class Answer(StrEnum):
    """What the trial showed."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # it could not be tried; nothing may rest on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the table."""

    question: str
    answer: Answer
    claimed: bool | None  # whether the store says that it does; None: it says nothing of it
    detail: str  # one sentence for a person: what was tried and what came of it

    @property
    def broken_claim(self) -> bool:
        """Whether the store claims what it was seen not to do."""
        return self.claimed is True and self.answer is Answer.NO


Findings = tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """How one open store is tried, and how its adapter learns what it may rely on."""

    probe: Callable[[], Awaitable[Findings]]  # never raises StoreError: what could not be tried is unknown
    believe: Callable[[Findings], None]  # from now on
    about: str = ""  # what else decides what is asked: where it is another one, the store is tried anew


def merged(before: Findings, now: Findings) -> Findings:
    """What is known after a newer trial: what could not be tried this time is as it was."""
    earlier = {one.question: one for one in before}
    return tuple(
        earlier.get(one.question, one) if one.answer is Answer.UNKNOWN else one  # a line that broke proves nothing
        for one in now
    )


def to_records(findings: Findings) -> list[dict[str, Any]]:
    """For the journal, the custody log and `--json`."""
    return [
        {"question": str(one.question), "answer": one.answer.value, "claimed": one.claimed, "detail": one.detail}
        for one in findings
    ]


def from_text(text: str) -> Findings:
    """Out of the journal: JSON of `to_records`. Raises VerificationFailed."""
    try:
        return tuple(
            Finding(
                question=str(one["question"]),
                answer=Answer(one["answer"]),
                claimed={True: True, False: False}.get(one["claimed"]),
                detail=str(one["detail"]),
            )
            for one in json.loads(text)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise VerificationFailed("the findings about a store that the journal has cannot be read") from error


def probe_name(random: Entropy) -> str:
    """A name for an object that is no evidence."""
    return _PREFIX + str(uuid.UUID(bytes=random(_UUID_BYTES), version=4))
