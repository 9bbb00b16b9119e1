"""What the control socket serves: status, clips, and the decisions that only a person may make."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from dockd.core.canonical import encode_path, format_time
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState
from dockd.errors import IllegalTransition
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, VerdictStatus
from dockd.station.snapshot import to_json
from dockd.station.status import Sources, take_snapshot, why_held

_log = structlog.get_logger()
_PAGE = 200
_REASON_LIMIT = 1000


class Operations:
    """A control.server.ControlApi. `on_decision` hears of each row that an operator decided about."""

    def __init__(self, sources: Sources, on_decision: Callable[[Acquisition], None]) -> None:
        self._sources = sources
        self._on_decision = on_decision

    async def answer(self, operation: str, arguments: dict[str, Any], operator: str) -> AsyncIterator[dict[str, Any]]:
        """Answer one request. Raises LookupError for what there is not, IllegalTransition for what is not allowed."""
        match operation:
            case "status":
                yield to_json(await take_snapshot(self._sources))
            case "clips":
                async for clip in self._clips(arguments.get("state"), arguments.get("camera")):
                    yield clip
            case "release" | "retry":
                decide = self._release if operation == "release" else self._retry
                yield await decide(*_decision(arguments), operator)
            case _:
                raise LookupError(f"there is no operation {operation!r}")

    async def _clips(self, state: object, camera: object) -> AsyncIterator[dict[str, Any]]:
        wanted = _state(state)
        after: AcquisitionId | None = None
        serial = str(camera) if camera else None
        why = {clip: text for one in self._sources.dockings.values() for clip, text in one.postponed.reasons().items()}
        while True:
            page = await self._sources.journal.read(
                lambda tx, after=after: tx.acquisitions(state=wanted, serial=serial, limit=_PAGE, after=after)  # type: ignore[misc]
            )
            for row in page:
                yield clip_to_json(row, why.get(row.acquisition) or why_held(row))
            if len(page) < _PAGE:
                return
            after = page[-1].acquisition

    async def _release(self, clip: AcquisitionId, reason: str, operator: str) -> dict[str, Any]:
        """Let a damaged clip be erased, once the store holds it and a second read agreed."""

        def change(tx: Tx) -> Acquisition:
            row = _row(tx, clip)
            if row.state != AcquisitionState.STORED:
                raise IllegalTransition(
                    f"{clip} is {row.state}: only a clip that the store has signed for can be released"
                )
            if row.contested or row.sealed is None:
                raise IllegalTransition(f"{clip} is contested: its reads disagree, so it is never erased")
            if row.sealed.verdict.status is VerdictStatus.INTACT:
                raise IllegalTransition(f"{clip} is intact: it needs no release")
            if row.released_by:
                return row
            details = {"operator": operator, "reason": reason}
            return tx.advance(clip, AcquisitionEvent.RELEASED, details=details, released_by=operator)

        return await self._decide(change, "released", operator)

    async def _retry(self, clip: AcquisitionId, reason: str, operator: str) -> dict[str, Any]:
        """Take a clip out of quarantine: read or push it once more."""

        def change(tx: Tx) -> Acquisition:
            row = _row(tx, clip)
            if row.state != AcquisitionState.QUARANTINED:
                raise IllegalTransition(f"{clip} is {row.state}: only a clip in quarantine can be tried again")
            event = AcquisitionEvent.READ_AGAIN if row.sealed is None else AcquisitionEvent.PUSH_AGAIN
            details = {"operator": operator, "reason": reason}
            return tx.advance(clip, event, details=details, quarantine_reason=None, readers_ended=0)

        return await self._decide(change, "to be tried again", operator)

    async def _decide(self, change: Callable[[Tx], Acquisition], what: str, operator: str) -> dict[str, Any]:
        row = await self._sources.journal.write(change)
        _log.info("operator_decided", acquisition=row.acquisition, operator=operator, decision=what)
        self._on_decision(row)
        return {"type": "decision", "v": 1, "acquisition": row.acquisition, "decision": what, "operator": operator}


def clip_to_json(row: Acquisition, why: str) -> dict[str, Any]:
    """The stable JSON form of an acquisition, as `dockd clips --json` prints it (docs/status.md)."""
    sealed = row.sealed
    return {
        "type": "clip",
        "v": 1,
        "acquisition": row.acquisition,
        "state": str(row.state),
        "bay": row.bay,
        "docking": row.docking,
        "camera": row.camera.serial,
        "model": row.camera.model,
        "path": encode_path(row.file.path),
        "size_bytes": row.file.size_bytes,
        "found_at": format_time(row.found_at),
        "category": row.category.value,
        "attempts": row.attempts,
        "contested": row.contested,
        "verdict": sealed.verdict.status.value if sealed else None,
        "reasons": list(sealed.verdict.reasons) if sealed else [],
        "container": sealed.verdict.container if sealed else None,
        "duration_ms": sealed.verdict.duration_ms if sealed else None,
        "plaintext": sealed.plaintext_digest if sealed else None,
        "sealed": sealed.sealed_digest if sealed else None,
        "manifest": row.manifest_digest,
        "reread": row.reread.cache.value if row.reread else None,
        "released_by": row.released_by,
        "waits_for": why,
    }


def _row(tx: Tx, clip: AcquisitionId) -> Acquisition:
    row = tx.acquisition(clip)
    if row is None:
        raise LookupError(f"there is no acquisition {clip}: `dockd clips` lists them")
    return row


def _state(text: object) -> AcquisitionState | None:
    if text is None:
        return None
    try:
        return AcquisitionState(str(text))
    except ValueError:
        allowed = ", ".join(state.value for state in AcquisitionState)
        raise LookupError(f"there is no state {text!r}: one of {allowed}") from None


def _decision(arguments: dict[str, Any]) -> tuple[AcquisitionId, str]:
    clip, reason = arguments.get("acquisition"), arguments.get("reason")
    if not isinstance(clip, str) or not isinstance(reason, str) or not reason.strip():
        raise LookupError("a decision names an acquisition and a reason")
    if len(reason) > _REASON_LIMIT:
        raise LookupError(f"a reason has at most {_REASON_LIMIT} characters")
    return AcquisitionId(clip), reason
