"""What a trial of a store means for this station: whether its word can erase anything, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dockd.core.findings import Answer, Finding, Findings, Question
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.proof import Verdict, weigh
from dockd.errors import StoreError, StoreUntrusted
from dockd.station.agreement import shortfall, stated
from dockd.station.enforced import Enforced
from dockd.station.outlet import Outlet
from dockd.stores.probing import to_records
from dockd.stores.receiver_probe import HOLDING, SESSION
from dockd.stores.way import CERTIFICATE, CLOCKS, REACHED

_NEEDED = (REACHED, CERTIFICATE, CLOCKS, SESSION, HOLDING, Question.COMPLETE)
"""A `no` to one of these is wrong whatever else there is."""
_OUT = "Nothing is sent to it, nor erased on its word, while it is out of reach."


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
    return report(configured, found, enforced.findings, await unsuited(outlet, configured))


async def unsuited(outlet: Outlet, configured: PolicyStore) -> str:
    """Why its policy is not what this station asks for; empty where it is, or cannot be had, which its trial says."""
    if outlet.signing is None:
        return ""
    try:
        return shortfall(await stated(outlet.signing, anew=True), configured)
    except StoreUntrusted as error:
        return str(error)
    except StoreError:
        return ""


async def looked_at(outlet: Outlet, tried: Callable[[], Awaitable[Findings]]) -> Findings:
    """What is found of a store and on the way to it; it is `tried` only where it is there."""
    looked = await outlet.looked_at() if outlet.looked_at else ()
    if any(one.question == REACHED and one.answer is Answer.NO for one in looked):
        return looked
    return (*looked, *await tried())


def report(store: PolicyStore, findings: Findings, known: Findings, unsuited: str = "") -> Report:
    """Weigh what was found just now; `known` is what the station believes, which may be from an earlier trial.

    `unsuited`: why nothing is sent to it, though all of it may work.
    """
    answers = {one.question: one.answer for one in (*known, *findings) if one.answer is not Answer.UNKNOWN}
    silent = answers.get(REACHED) is not Answer.YES and all(one.answer is Answer.UNKNOWN for one in findings)
    out = silent or Answer.NO in (answers.get(REACHED), answers.get(SESSION))
    verdict = weigh(store, (*known, *findings), signs=not store.place)
    meaning = (_OUT,) if out else _meaning(store, verdict)
    wrong = [f"{one.question} no: {one.detail}" for one in findings if one.question in _NEEDED and _is_no(one)]
    wrong += [f"it claims what it does not do: {one.question} no: {one.detail}" for one in findings if one.broken_claim]
    if store.final and not out and verdict.cannot:
        wrong.append("its word is asked for, and cannot be had: clips stay on their cameras")
    elif store.final and not out and verdict.untried:
        wrong.append("its word is asked for, and was not tried yet: clips stay on their cameras until it could be")
    wrong += [unsuited] if unsuited else []
    return Report(store=store, findings=findings, meaning=meaning, wrong=tuple(dict.fromkeys(wrong)), out_of_reach=out)


def to_json(one: Report, *, looked: str = "") -> dict[str, Any]:
    """The stable JSON form, as `dockd doctor --json` prints it (docs/status.md).

    `looked`: what is known of how much the store read again; empty where no station runs that would know.
    """
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
        "looked": looked or None,
        "out_of_reach": one.out_of_reach,
    }


def _is_no(one: Finding) -> bool:
    return one.answer is Answer.NO


def _meaning(store: PolicyStore, verdict: Verdict) -> tuple[str, ...]:
    final = () if store.final else ("It is not final: whatever it confirms, nothing is erased on its word.",)
    return (*verdict.said, *final)
