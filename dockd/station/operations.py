"""What the control socket serves: status, clips, and the decisions that only a person may make."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from dockd.core import releases
from dockd.core.canonical import encode_path, format_time
from dockd.core.lifecycle import AcquisitionEvent, AcquisitionState, DeliveryState
from dockd.errors import IllegalTransition
from dockd.keep.records import EnrolmentRecord
from dockd.keep.transaction import Tx
from dockd.model import Acquisition, AcquisitionId, Named
from dockd.stages.condition import left_unclean
from dockd.station import confinement, doctor, trust
from dockd.station.limits import cap_to_json, change_cap
from dockd.station.snapshot import StoreStatus, to_json
from dockd.station.status import Sources, take_snapshot, why_held, why_kept

_log = structlog.get_logger()
_RETRIED = (AcquisitionState.QUARANTINED, AcquisitionState.NEEDS_SPOOL, AcquisitionState.SPOILED)
_PAGE = 200
_REASON_LIMIT = 1000
_NAME_LIMIT = 126  # code units of a USB string


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
            case "clips" | "doctor":
                async for one in self._clips(arguments) if operation == "clips" else self._examined(arguments):
                    yield one
            case "release" | "retry":
                decide = self._release if operation == "release" else self._retry
                yield await decide(*_decision(arguments), operator)
            case "accept_rollback" | "accept_loss":
                yield await self._accept(operation, _store(arguments), _reason(arguments), operator)
            case "cameras" | "lost":
                for row in await (self._cameras() if operation == "cameras" else self._lost(_store(arguments))):
                    yield row
            case "cap":
                yield await self._cap(arguments, operator)
            case "enrol" | "forget":
                yield await self._enrol(operation, *_enrolment(arguments), operator)
            case _:
                raise LookupError(f"there is no operation {operation!r}")

    async def _clips(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        wanted, camera = _state(arguments.get("state")), arguments.get("camera")
        after: AcquisitionId | None = None
        serial = str(camera) if camera else None
        why = {clip: text for one in self._sources.dockings.values() for clip, text in one.postponed.reasons().items()}

        def ask(tx: Tx) -> list[tuple[Acquisition, str]]:
            rows = tx.acquisitions(state=wanted, serial=serial, limit=_PAGE, after=after)
            return [(row, why.get(row.acquisition) or why_held(row) or why_kept(tx, row, why)) for row in rows]

        while True:
            page = await self._sources.journal.read(ask)
            for row, waits_for in page:
                yield clip_to_json(row, waits_for)
            if len(page) < _PAGE:
                return
            after = page[-1][0].acquisition

    async def _release(self, clip: AcquisitionId, reason: str, operator: str) -> dict[str, Any]:
        """Let a damaged clip, or one of an unclean camera, be erased: once it is stored and a second read agreed.

        It covers what is known of the clip now, and nothing that is found later.
        """

        def change(tx: Tx) -> Acquisition:
            row = _row(tx, clip)
            if row.state != AcquisitionState.STORED:
                raise IllegalTransition(
                    f"{clip} is {row.state}: only a clip that the store has signed for can be released"
                )
            if row.contested or row.sealed is None:
                raise IllegalTransition(f"{clip} is contested: its reads disagree, so it is never erased")
            seen = releases.grounds(row.sealed.verdict.status, row.file.size_bytes, left_unclean(tx, row.camera))
            if not seen:
                raise IllegalTransition(f"{clip} is intact: it needs no release")
            if not releases.uncovered(seen, row.released_for):
                return row
            covers = row.released_for + releases.uncovered(seen, row.released_for)
            details = {"operator": operator, "reason": reason, "covers": list(covers)}
            return tx.advance(
                clip, AcquisitionEvent.RELEASED, details=details, released_by=operator, released_for=covers
            )

        return await self._decide(change, "released", operator)

    async def _retry(self, clip: AcquisitionId, reason: str, operator: str) -> dict[str, Any]:
        """Read or push a clip once more: out of quarantine, or after the spool was enlarged or its file put back."""

        def change(tx: Tx) -> Acquisition:
            row = _row(tx, clip)
            given_up = any(one.state is DeliveryState.GIVEN_UP for one in tx.deliveries(clip))
            if row.state not in _RETRIED and not given_up:
                raise IllegalTransition(
                    f"{clip} is {row.state}: only a clip in quarantine, or one that needs a larger spool, that a store "
                    "refused or whose sealed file was spoiled, can be tried again"
                )
            details = {"operator": operator, "reason": reason}
            anew = {"quarantine_reason": None, "readers_ended": 0}
            if row.sealed is None:
                return tx.advance(clip, AcquisitionEvent.READ_AGAIN, details=details, **anew)
            return tx.try_again(clip, self._sources.stores.policy, details, **anew)

        return await self._decide(change, "to be tried again", operator)

    async def _accept(self, operation: str, name: str | None, reason: str, operator: str) -> dict[str, Any]:
        """Accept that a store was rolled back, or that clips are lost by that. What follows, its uplink does."""
        uplink = self._sources.stores.named(name)
        store = uplink.store
        answer: dict[str, Any] = {"type": "decision", "v": 1, "store": store, "operator": operator}
        if operation == "accept_loss":
            answer["clips"] = await self._sources.journal.write(
                lambda tx: trust.accept_loss(tx, store, operator=operator, reason=reason)
            )
        elif not uplink.alarms:
            raise IllegalTransition("the store contradicts nothing that it signed: there is no roll-back to accept")
        else:
            await self._sources.journal.write(
                lambda tx: trust.accept_rollback(tx, store, operator=operator, reason=reason)
            )
            uplink.trust.look()
        _log.warning("operator_decided", operator=operator, decision=operation, store=store)
        return answer | {"decision": operation.replace("_", "-")}

    async def _cap(self, arguments: dict[str, Any], operator: str) -> dict[str, Any]:
        """Set the uplink's cap for a while, or take that back."""
        pacing, now, reason = self._sources.stores.pacing, self._sources.clock.now(), _reason(arguments, needed=False)
        override = await self._sources.journal.write(
            lambda tx: change_cap(tx, arguments, now=now, operator=operator, reason=reason)
        )
        pacing.override(override)
        decision = "cap cleared" if override is None else "cap set"
        _log.info("operator_decided", operator=operator, decision=decision)
        return {"type": "decision", "v": 1, "decision": decision, "operator": operator, **cap_to_json(pacing.cap())}

    async def _cameras(self) -> list[dict[str, Any]]:
        return await self._sources.journal.read(_enrolled)

    async def _lost(self, name: str | None) -> list[dict[str, Any]]:
        """What is lost; and last, for nothing says "none" that has not looked, how much the store looked at."""
        uplink = self._sources.stores.named(name)
        found = await self._sources.journal.read(lambda tx: trust.lost(tx, uplink.store))
        clips = [clip_to_json(row, "") | {"receipt_seq": receipt_seq} for row, receipt_seq in found]
        return [*clips, looked_to_json(uplink.status())]

    async def _examined(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Try each store, or the one that is named, and say what came of it."""
        stores, name = self._sources.stores, _store(arguments)
        if name is None:
            yield confinement.to_json(await confinement.measure(self._sources.forkserver))
        for uplink in [stores.named(name)] if name else stores.uplinks.values():
            with uplink.boundary.within():
                examined = await doctor.examine(uplink.outlet, uplink.enforced, stores.policy)
            if not examined.out_of_reach:
                uplink.nudge()  # somebody mended it, perhaps
            yield doctor.to_json(examined, looked=uplink.status().looked_note)

    async def _enrol(self, operation: str, kind: str, name: str, reason: str, operator: str) -> dict[str, Any]:
        """Let a camera, or all of a profile, be docked, or no longer. Refused devices are then looked at again."""

        def change(tx: Tx) -> None:
            if operation == "enrol":
                tx.enrol(kind, name, operator=operator, reason=reason)
            elif not tx.forget(kind, name, operator=operator, reason=reason):
                raise LookupError(f"no {kind} {name} is enrolled: `dockd camera list` shows what is")

        await self._sources.journal.write(change)
        decision = "enrolled" if operation == "enrol" else "forgotten"
        _log.info("operator_decided", operator=operator, decision=decision, **{kind: name})
        for docking in self._sources.dockings.values():
            docking.changed()
        return {"type": "decision", "v": 1, kind: name, "decision": decision, "operator": operator}

    async def _decide(self, change: Callable[[Tx], Acquisition], what: str, operator: str) -> dict[str, Any]:
        row = await self._sources.journal.write(change)
        _log.info("operator_decided", acquisition=row.acquisition, operator=operator, decision=what)
        self._on_decision(row)
        return {"type": "decision", "v": 1, "acquisition": row.acquisition, "decision": what, "operator": operator}


def looked_to_json(store: StoreStatus) -> dict[str, Any]:
    """How much a store read again, as it last said itself (docs/status.md)."""
    return {
        "type": "looked",
        "v": 1,
        "name": store.name,
        "store": store.store,
        "looked_at": store.looked_at and format_time(store.looked_at),
        "looked": store.looked and store.looked.record(),
        "looked_note": store.looked_note,
    }


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
        "role": row.role.value,
        "of": row.of,
        "profile": f"{row.profile} {row.profile_version}" if row.profile else None,
        "named": named_to_json(row.named) if row.named else None,
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
        "released_for": list(row.released_for),
        "waits_for": why,
    }


def named_to_json(named: Named) -> dict[str, Any]:
    """What a file's name says."""
    return {
        "started_at": format_time(named.started_at) if named.started_at else None,
        "local": named.local,
        "time_zone": named.time_zone,
        "sequence": named.sequence,
        "officer": named.officer,
        "category": named.category,
    }


def enrolment_to_json(record: EnrolmentRecord) -> dict[str, Any]:
    """The stable JSON form of an enrolment, as `dockd camera list --json` prints it (docs/status.md)."""
    return {
        "type": "enrolment",
        "v": 1,
        record.kind: record.name,
        "operator": record.operator,
        "reason": record.reason,
        "enrolled_at": format_time(record.enrolled_at),
    }


def _enrolled(tx: Tx) -> list[dict[str, Any]]:
    return [enrolment_to_json(record) for record in tx.enrolments()]


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


def _enrolment(arguments: dict[str, Any]) -> tuple[str, str, str]:
    named = [(kind, arguments[kind]) for kind in ("serial", "profile") if arguments.get(kind)]
    if len(named) != 1 or not isinstance(named[0][1], str):
        raise LookupError("an enrolment names a serial or a profile")
    kind, name = named[0]
    reason = arguments.get("reason") or ""
    if not isinstance(reason, str) or len(reason) > _REASON_LIMIT or len(name) > _NAME_LIMIT or not name.isprintable():
        raise LookupError(
            f"an enrolment has a printable name of at most {_NAME_LIMIT} and a reason of at most {_REASON_LIMIT} "
            "characters"
        )
    return kind, name, reason


def _store(arguments: dict[str, Any]) -> str | None:
    name = arguments.get("store")
    return None if name is None else str(name)


def _reason(arguments: dict[str, Any], *, needed: bool = True) -> str:
    reason = arguments.get("reason") or ""
    if not isinstance(reason, str) or (needed and not reason.strip()) or len(reason) > _REASON_LIMIT:
        raise LookupError(f"a decision needs a reason, of at most {_REASON_LIMIT} characters")
    return reason


def _decision(arguments: dict[str, Any]) -> tuple[AcquisitionId, str]:
    clip, reason = arguments.get("acquisition"), arguments.get("reason")
    if not isinstance(clip, str) or not isinstance(reason, str) or not reason.strip():
        raise LookupError("a decision names an acquisition and a reason")
    if len(reason) > _REASON_LIMIT:
        raise LookupError(f"a reason has at most {_REASON_LIMIT} characters")
    return AcquisitionId(clip), reason
