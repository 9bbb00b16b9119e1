"""What a store was found to enforce, against what it claims: asked at set-up and by `dockd doctor`.

An adapter's `probe` makes objects of its own, named so that nobody takes them for evidence, tries them, and removes
them where the store lets it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dockd.core.findings import Answer, Finding, Findings
from dockd.errors import VerificationFailed
from dockd.model import Entropy

_PREFIX = "dockd-probe-"
_UUID_BYTES = 16


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
