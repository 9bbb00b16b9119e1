"""What a trial of a store means for this station: whether its word can erase anything, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dockd.core.policy import PolicyStore, StorePolicy
from dockd.station.enforced import Enforced
from dockd.station.outlet import Outlet
from dockd.stores.probing import Answer, Finding, Findings, Question, to_records
from dockd.stores.receiver_probe import HOLDING, SESSION
from dockd.stores.way import CERTIFICATE, CLOCKS, REACHED

_NEEDED = (REACHED, CERTIFICATE, CLOCKS, SESSION, HOLDING, Question.COMPLETE)
"""A `no` to one of these is wrong whatever else there is."""
_OUT = "Nothing is sent to it, nor erased on its word, while it is out of reach."
_LACKS = "It lacks something that dockd needs: clips wait on their cameras."
_CHECKSUMS = (Question.WRONG_CHECKSUM, Question.CHECKSUM_BACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """About one store, for a person and for a program."""

    store: PolicyStore
    findings: Findings
    meaning: tuple[str, ...]  # for erasing, in sentences
    wrong: tuple[str, ...]  # what somebody has to look at; empty where all is well
    out_of_reach: bool


async def examine(outlet: Outlet, enforced: Enforced, policy: StorePolicy) -> Report:
    """Try the store now. What is learnt of one that does not sign is believed from now on. Raises JournalError."""
    configured = policy.store(outlet.store)
    if configured is None:
        raise LookupError(f"{outlet.store} is no store of the policy")
    found = await looked_at(outlet, enforced.try_now)
    return report(configured, found, enforced.findings)


async def looked_at(outlet: Outlet, tried: Callable[[], Awaitable[Findings]]) -> Findings:
    """What is found of a store and on the way to it; it is `tried` only where it is there."""
    looked = await outlet.looked_at() if outlet.looked_at else ()
    if any(one.question == REACHED and one.answer is Answer.NO for one in looked):
        return looked
    return (*looked, *await tried())


def report(store: PolicyStore, findings: Findings, known: Findings) -> Report:
    """Weigh what was found just now; `known` is what the station believes, which may be from an earlier trial."""
    answers = {one.question: one.answer for one in (*known, *findings) if one.answer is not Answer.UNKNOWN}
    out = Answer.NO in (answers.get(REACHED), answers.get(SESSION)) or all(
        one.answer is Answer.UNKNOWN for one in findings
    )
    meaning, held = ((_OUT,), False) if out else _meaning(store, answers)
    wrong = [f"{one.question} no: {one.detail}" for one in findings if one.question in _NEEDED and _is_no(one)]
    wrong += [f"it claims what it does not do: {one.question} no: {one.detail}" for one in findings if one.broken_claim]
    if held and store.final:
        wrong.append("its word is asked for, and cannot be had: clips stay on their cameras")
    return Report(store=store, findings=findings, meaning=meaning, wrong=tuple(dict.fromkeys(wrong)), out_of_reach=out)


def to_json(one: Report) -> dict[str, Any]:
    """The stable JSON form, as `dockd doctor --json` prints it (docs/status.md)."""
    return {
        "type": "trial",
        "v": 1,
        "name": one.store.name,
        "store": one.store.store,
        "place": one.store.place or None,
        "counts": one.store.final,
        "findings": to_records(one.findings),
        "meaning": list(one.meaning),
        "wrong": list(one.wrong),
        "out_of_reach": one.out_of_reach,
    }


def _is_no(one: Finding) -> bool:
    return one.answer is Answer.NO


def _meaning(store: PolicyStore, answers: Mapping[str, Answer]) -> tuple[tuple[str, ...], bool]:
    """In sentences, and whether its clips would be held."""
    first, held = _proof(store, answers)
    said = [first]
    if store.place and store.min_retention:
        days = store.min_retention.days
        if answers.get(Question.LOCKED) is Answer.YES:
            said.append(f"It counts where the store locks every object for {days} days or more, which is read back.")
        else:
            said.append(f"No lock was seen to hold, and {days} days are asked for: nothing counts, clips are held.")
            held = True
    elif store.place:
        said.append("Nothing makes it keep a clip: whoever may delete there can.")
    if not store.final:
        said.append("It is not final: whatever it confirms, nothing is erased on its word.")
    return tuple(said), held


def _proof(store: PolicyStore, answers: Mapping[str, Answer]) -> tuple[str, bool]:
    if not store.place:
        return "A clip is confirmed by its signed receipt.", False
    if answers.get(Question.COMPLETE) is Answer.NO:
        return _LACKS, True
    if all(answers.get(one) is Answer.YES for one in _CHECKSUMS):
        return "A clip is confirmed by the store's own SHA-256 of all three objects.", False
    if answers.get(Question.READ_BACK) is Answer.YES:
        return "No checksum is believed: a clip is confirmed by reading all of it back.", False
    return "It states no checksum to believe, and gave nothing back: it confirms nothing, clips are held.", True
