"""What a trial of a store found: the questions, the answers, and what stays unknown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
