"""What an Axis content destination was found to enforce, tried with objects of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from dockd.core.findings import Answer, Finding, Question
from dockd.core.transfer import Call
from dockd.errors import StoreError, StoreUnreachable
from dockd.model import AcquisitionId, Entropy
from dockd.stores.axis import AxisStore
from dockd.stores.axis_names import ACQUISITION, SEGMENTS, headers, segment, value
from dockd.stores.axis_segments import Segments
from dockd.stores.axis_session import Account
from dockd.stores.probing import probe_name

METADATA = "are metadata kept that the API does not name?"
_FIRST, _OTHER = b"dockd tries what this store enforces\n", b"another content of the same length!!\n"
_REFUSED = (400, 403, 405, 409, 412, 422, 423)
_NEW = {"If-None-Match": "*"}
_Trial = Callable[["_Probe"], Awaitable[Finding]]


async def probe(store: AxisStore, *, random: Entropy) -> tuple[Finding, ...]:
    """Try each question. Never raises StoreError: what could not be tried is an `unknown` that says why.

    After cancellation a container named `dockd-probe-...` may be left.
    """
    made = _Probe(store, probe_name(random))
    findings: list[Finding] = []
    for question, trial in _TRIALS:
        try:
            await made.open()
            findings.append(await trial(made))
        except StoreError as error:
            findings.append(Finding(question=question, answer=Answer.UNKNOWN, claimed=None, detail=str(error)))
            if len(findings) == 1 and isinstance(error, StoreUnreachable) and error.silent:
                return tuple(findings)  # it is not there: every further question would wait for it as long
    await made.remove()
    return tuple(findings)


def joins_pieces(findings: tuple[Finding, ...]) -> bool | None:
    """Whether a clip may travel in pieces, for AxisStore's `segments`: not where that was tried and failed."""
    return False if any(one.question == Question.RESUME and one.answer is Answer.NO for one in findings) else None


class _Probe:
    def __init__(self, store: AxisStore, name: str) -> None:
        self.store = store
        self.account: Account = store.account
        self.name = name
        self._opened = False

    async def open(self) -> None:
        """A container with one object, once."""
        if self._opened:
            return
        said = headers("Container", {ACQUISITION: self.name})
        await self.account.ask(Call.REGISTER, "PUT", (self.name,), headers=said)
        await self.account.ask(Call.REGISTER, "PUT", (self.name, "first"), headers=_NEW, content=_FIRST)
        self._opened = True

    async def remove(self) -> None:
        """Everything, as far as the store lets it."""
        places = [(self.name, one) for one in ("first", "second", "joined")]
        places += [(SEGMENTS, segment(AcquisitionId(self.name), at)) for at in (0, len(_FIRST))]
        for place in (*places, (self.name,)):
            try:
                await self.account.ask(Call.ABANDON, "DELETE", place, expected=(404, *_REFUSED))
            except StoreError:
                continue

    async def content(self, name: str, offset: int = 0) -> tuple[int, bytes]:
        """What a GET gives: its status and the bytes."""
        said = {"Range": f"bytes={offset}-"} if offset else {}
        answer = await self.account.ask(Call.READ, "GET", (self.name, name), headers=said)
        return answer.status, answer.body


async def _metadata(probe: _Probe) -> Finding:
    answer = await probe.account.ask(Call.LOOK, "HEAD", (probe.name,))
    kept = value(answer.headers, "container", ACQUISITION) == probe.name
    detail = "dockd knows its own containers by them" if kept else "each recording's name has its id added"
    return Finding(question=METADATA, answer=_yes(kept), claimed=None, detail=detail)


async def _overwrite(probe: _Probe) -> Finding:
    answer = await probe.account.ask(
        Call.REGISTER, "PUT", (probe.name, "first"), headers=_NEW, content=_OTHER, expected=_REFUSED
    )
    refused = answer.status in _REFUSED
    detail = f"a second PUT with If-None-Match: * was answered {answer.status}"
    if refused:
        refused = (await probe.content("first"))[1] == _FIRST
        detail += ", and the first content stands" if refused else ", but the content is another one"
    return Finding(question=Question.OVERWRITE, answer=_yes(refused), claimed=None, detail=detail)


async def _wrong_checksum(probe: _Probe) -> Finding:
    wrong = hashlib.md5(_OTHER, usedforsecurity=False).hexdigest()
    answer = await probe.account.ask(
        Call.REGISTER, "PUT", (probe.name, "second"), headers={"ETag": wrong}, content=_FIRST, expected=_REFUSED
    )
    detail = f"a PUT with a wrong MD5 was answered {answer.status}"
    return Finding(
        question=Question.WRONG_CHECKSUM, answer=_yes(answer.status in _REFUSED), claimed=None, detail=detail
    )


async def _checksum(probe: _Probe) -> Finding:
    answer = await probe.account.ask(Call.LOOK, "HEAD", (probe.name, "first"))
    right = answer.headers.get("etag", "").strip('"') == hashlib.md5(_FIRST, usedforsecurity=False).hexdigest()
    detail = f"it states {'a right' if right else 'no right'} MD5, which is not believed: objects are read back"
    return Finding(question=Question.CHECKSUM_BACK, answer=Answer.NO, claimed=None, detail=detail)


async def _read_back(probe: _Probe) -> Finding:
    status, body = await probe.content("first", 5)
    fits = (status, body) in ((206, _FIRST[5:]), (200, _FIRST))  # all of it instead is read through up to there
    return Finding(
        question=Question.READ_BACK, answer=_yes(fits), claimed=None, detail=f"a GET with a range was answered {status}"
    )


async def _resume(probe: _Probe) -> Finding:
    offered = await probe.store.limits()
    if offered is None:
        detail = "no large objects are offered: a clip goes in one PUT, and an interruption costs all of it"
        return Finding(question=Question.RESUME, answer=Answer.NO, claimed=False, detail=detail)
    acquisition, segments = AcquisitionId(probe.name), Segments(probe.account)
    await probe.account.ask(Call.REGISTER, "PUT", (SEGMENTS,))
    for at, content in ((0, _FIRST), (len(_FIRST), _OTHER)):
        probe.account.forget()
        place = (SEGMENTS, segment(acquisition, at))
        await probe.account.ask(Call.REGISTER, "PUT", place, headers=_NEW, content=content)
    pieces = await segments.held(acquisition, len(_FIRST + _OTHER))
    await segments.join(probe.name, "joined", acquisition, pieces, {})
    fits = (await probe.content("joined"))[1] == _FIRST + _OTHER
    detail = "two pieces, each with a token of its own, were joined and read back"
    return Finding(question=Question.RESUME, answer=_yes(fits), claimed=True, detail=detail)


async def _locked(probe: _Probe) -> Finding:
    answer = await probe.account.ask(Call.ABANDON, "DELETE", (probe.name, "first"), expected=(404, *_REFUSED))
    refused = answer.status in _REFUSED
    detail = f"a DELETE with the station's own credentials was answered {answer.status}; nothing promises a retention"
    return Finding(question=Question.LOCKED, answer=_yes(refused), claimed=None, detail=detail)


_TRIALS: tuple[tuple[str, _Trial], ...] = (
    (METADATA, _metadata),
    (Question.OVERWRITE, _overwrite),
    (Question.WRONG_CHECKSUM, _wrong_checksum),
    (Question.CHECKSUM_BACK, _checksum),
    (Question.READ_BACK, _read_back),
    (Question.RESUME, _resume),
    (Question.LOCKED, _locked),
)


def _yes(found: bool) -> Answer:
    return Answer.YES if found else Answer.NO
