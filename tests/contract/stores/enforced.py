"""The table in docs/stores.md of what each server was seen to enforce: read, and written where the test is told to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from dockd.core.findings import Answer, Finding

DOCUMENT = Path(__file__).parents[3] / "docs" / "stores.md"
HEADING = "## What was found at real servers"
NOT_ASKED = "-"
BROKEN = "claimed, and not done"
LACKING = "not tried: it lacks what that takes"


def cells(findings: Iterable[Finding]) -> dict[str, str]:
    """A column of the table, by question. Raises AssertionError where something could not be tried without a reason."""
    found = {}
    for one in findings:
        lacking = one.answer is Answer.UNKNOWN and one.detail.startswith("reached, but it lacks ")
        assert lacking or one.answer is not Answer.UNKNOWN, one
        found[str(one.question)] = LACKING if lacking else BROKEN if one.broken_claim else str(one.answer)
    return found


def with_locks(plain: Mapping[str, str], locked: Mapping[str, str]) -> dict[str, str]:
    """One column of two buckets, of which the second keeps locks."""
    both = {question: plain.get(question, answer) for question, answer in locked.items()}
    return {
        question: answer if locked[question] == answer else f"{answer}; {locked[question]} in a bucket with locks"
        for question, answer in both.items()
    }


def documented(text: str) -> dict[str, dict[str, str]]:
    """By server and question, what the document says."""
    head, _, *rows = (_split(line) for line in _lines(text))
    return {
        server: {row[0]: row[at] for row in rows if row[at] != NOT_ASKED} for at, server in enumerate(head) if at > 0
    }


def replaced(text: str, server: str, column: Mapping[str, str]) -> str:
    """The document with another column for this server; a question that nobody is asked any more goes."""
    columns = documented(text) | {server: dict(column)}
    known = [row[0] for row in map(_split, _lines(text)[2:])]
    questions = [*known, *(one for one in column if one not in known)]
    table = [["", *columns], ["---"] * (len(columns) + 1)]
    for question in questions:
        row = [found.get(question, NOT_ASKED) for found in columns.values()]
        if set(row) != {NOT_ASKED}:
            table.append([question, *row])
    old = "\n".join(_lines(text))
    return text.replace(old, "\n".join(f"| {' | '.join(row)} |" for row in table))


def _lines(text: str) -> list[str]:
    """The first table behind the heading."""
    lines = text.partition(f"{HEADING}\n")[2].splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("|"))
    end = next((at for at in range(begin, len(lines)) if not lines[at].startswith("|")), len(lines))
    return lines[begin:end]


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
