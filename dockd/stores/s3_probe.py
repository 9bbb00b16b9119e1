"""What an S3 store really enforces, by trial: with small objects of our own that are removed where the store lets it.

Object Lock is tried where the store is configured with one; its trial object stays until its lock ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from dockd.core.findings import Answer, Finding, Question
from dockd.core.objects import Algorithm
from dockd.core.proof import believes_checksum
from dockd.errors import StoreError, StoreLacks, StoreUnreachable, UploadLost
from dockd.model import Clock, Entropy
from dockd.stores.probing import probe_name
from dockd.stores.s3 import S3Store
from dockd.stores.s3_bucket import Bucket
from dockd.stores.s3_parts import Part, composite
from dockd.stores.s3_records import Believed, Lock, checksum_header, retention_headers

COMPLETE_OVER = "is completing an upload over an object refused?"
PARTS_LISTED = "does it list the checksums of parts?"
BORN_LOCKED = "is a retention asked for at creation really set?"
LEGAL_HOLD = "is an object on legal hold undeletable?"

_log = structlog.get_logger()
_LOCKED_FOR = timedelta(minutes=5)
_MOST_VERSIONS = 5
_PATIENCE = 2  # steps that no store answered, before it is taken for one that is not there
_LISTED = "ListParts of an upload with checksums"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Where and with what it is tried."""

    bucket: Bucket
    key: str
    content: bytes
    clock: Clock
    lock: Lock | None
    lacks: list[str] = field(default_factory=list)  # what the store was found to lack

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What is lacking meanwhile is noted, and no error."""
        try:
            yield
        except StoreLacks as error:
            self.note(error)

    def note(self, error: StoreLacks) -> None:
        """What is lacking, once."""
        if error.what not in self.lacks:
            self.lacks.append(error.what)

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.content).digest()


_Step = Callable[[_Trial], Awaitable[list[Finding]]]


async def probe(store: S3Store, *, random: Entropy, clock: Clock) -> tuple[Finding, ...]:
    """Try it. Never raises StoreError: what could not be tried is an UNKNOWN that says why.

    After cancellation an object or upload named `dockd-probe-...` below the station's prefix may be left.
    """
    findings: list[Finding] = []
    lacks: list[str] = []
    answered, deaf = False, 0
    for questions, step in [*_STEPS, *(_LOCK_STEPS if store.lock is not None else ())]:
        trial = _Trial(
            bucket=store.bucket,
            key=f"{store.prefix}/{probe_name(random)}",
            content=random(1024),
            clock=clock,
            lock=store.lock,
            lacks=lacks,
        )
        try:
            findings += await step(trial)
        except StoreError as error:  # what was not tried cannot be said; the other steps may still say theirs
            findings += [_unknown(question, str(error)) for question in questions]
            if isinstance(error, StoreLacks):
                trial.note(error)
            elif isinstance(error, StoreUnreachable) and not answered:
                deaf += 1
                if error.silent or deaf == _PATIENCE:
                    return tuple(findings)  # it is not there: every further question would wait for it as long
        else:
            answered = True
        finally:
            await _remove(trial)
    return (*findings, _complete(lacks))


def believed(findings: tuple[Finding, ...]) -> Believed:
    """What may be relied on after these findings."""
    yes = {finding.question for finding in findings if finding.answer is Answer.YES}
    return Believed(
        checksum=believes_checksum(findings),
        parts_listed=PARTS_LISTED in yes,
        put_if_absent=Question.OVERWRITE in yes,
        complete_if_absent=COMPLETE_OVER in yes,
        locks=Question.LOCKED in yes,
    )


def _unknown(question: str, detail: str) -> Finding:
    return Finding(question=question, answer=Answer.UNKNOWN, claimed=None, detail=detail)


def _complete(lacks: list[str]) -> Finding:
    detail = f"reached, but it lacks {'; '.join(lacks)}" if lacks else "every answer had what is needed of it"
    return _finding(Question.COMPLETE, not lacks, detail)


def _finding(question: str, holds: bool, detail: str, *, claimed: bool | None = None) -> Finding:
    return Finding(question=question, answer=Answer.YES if holds else Answer.NO, claimed=claimed, detail=detail)


async def _checksums(trial: _Trial) -> list[Finding]:
    """A wrong checksum of an object and of a part; then the right ones, and what HEAD says of them."""
    wrong = checksum_header(bytes(32))
    bucket, key = trial.bucket, trial.key
    refused_object = await bucket.refuses("PUT", key, headers=wrong, content=trial.content)
    await bucket.put(key, trial.content, checksum_header(trial.sha256), absent=False)
    whole = (await bucket.head(key)).state(part_bytes=0, believed=Believed(checksum=True), retained=None, held=False)
    await _remove(trial)

    upload_id = await bucket.create(key, {}, summed=True)
    query = {"partNumber": "1", "uploadId": upload_id}
    refused_part = await bucket.refuses("PUT", key, query=query, headers=wrong, content=trial.content)
    part = await bucket.put_part(key, upload_id, 1, [trial.content], sha256=trial.sha256)
    listed = await _listed(trial, upload_id)
    await bucket.complete(key, upload_id, (part,))
    parts = (await bucket.head(key)).state(
        part_bytes=len(trial.content), believed=Believed(checksum=True), retained=None, held=False
    )
    right = (
        whole.checksum is not None
        and (whole.checksum.algorithm, whole.checksum.digest) == (Algorithm.SHA256, trial.sha256)
        and parts.checksum is not None
        and parts.checksum.digest == composite([trial.sha256])
    )
    claimed = whole.checksum is not None or parts.checksum is not None or None
    return [
        _finding(
            Question.WRONG_CHECKSUM,
            refused_object and refused_part,
            f"SHA-256 of an object: {_said(refused_object)}; of a part: {_said(refused_part)}",
            claimed=claimed,
        ),
        _finding(
            Question.CHECKSUM_BACK,
            right,
            f"of an object: {_stated(whole.checksum)}; of an upload in parts: {_stated(parts.checksum)}",
            claimed=claimed,
        ),
        _finding(PARTS_LISTED, listed is not None and listed.sha256 == trial.sha256, _LISTED)
        if not trial.lacks
        else _unknown(PARTS_LISTED, f"reached, but it lacks {trial.lacks[-1]}"),
    ]


async def _listed(trial: _Trial, upload_id: str) -> Part | None:
    """The first part, where the store lists it; that it cannot is noted."""
    with trial.noting():
        return (await trial.bucket.parts(trial.key, upload_id)).get(1)
    return None


async def _overwrite(trial: _Trial) -> list[Finding]:
    """A second object, and an upload in parts, to a key that is taken; both with If-None-Match."""
    bucket, key = trial.bucket, trial.key
    await bucket.put(key, trial.content, checksum_header(trial.sha256), absent=False)
    again = await bucket.put(key, trial.content, checksum_header(trial.sha256))
    upload_id = await bucket.create(key, {}, summed=True)
    part = await bucket.put_part(key, upload_id, 1, [trial.content], sha256=trial.sha256)
    completed = await bucket.complete(key, upload_id, (part,))
    if not completed:
        await bucket.abort(key, upload_id)
    return [
        _finding(Question.OVERWRITE, not again, "PutObject with If-None-Match"),
        _finding(COMPLETE_OVER, not completed, "CompleteMultipartUpload with If-None-Match"),
    ]


async def _ranges(trial: _Trial) -> list[Finding]:
    """The second half of an object. A store that gives all of it instead is read through up to there."""
    middle = len(trial.content) // 2
    await trial.bucket.put(trial.key, trial.content, checksum_header(trial.sha256), absent=False)
    found = bytearray()
    headers = {"Range": f"bytes={middle}-"}
    async with aclosing(trial.bucket.read(trial.key, headers=headers, check=lambda _: None)) as blocks:
        async for block in blocks:
            found += block
    whole = bytes(found) == trial.content
    detail = "GetObject with a range" + ("; it sends all of an object for that" if whole else "")
    return [_finding(Question.READ_BACK, whole or bytes(found) == trial.content[middle:], detail)]


async def _uploads(trial: _Trial) -> list[Finding]:
    """An unfinished upload is listed with its parts, and is gone once it is aborted."""
    bucket, key = trial.bucket, trial.key
    upload_id = await bucket.create(key, {}, summed=True)
    sent: Part = await bucket.put_part(key, upload_id, 1, [trial.content], sha256=trial.sha256)
    uploads = await _unfinished(trial)
    listed = await _listed(trial, upload_id)
    resumable = uploads == [upload_id] and listed is not None and listed.size_bytes == sent.size_bytes
    gone = False
    with trial.noting():
        await bucket.abort(key, upload_id)
    try:
        await _listed(trial, upload_id)
    except UploadLost:
        gone = True
    said = (
        (Question.RESUME, resumable, "ListMultipartUploads and ListParts of an unfinished upload"),
        (Question.ABANDON, gone, "AbortMultipartUpload, then ListParts"),
    )
    if trial.lacks and not (resumable and gone):
        return [_unknown(question, f"reached, but it lacks {trial.lacks[-1]}") for question, _, _ in said]
    return [_finding(*one) for one in said]


async def _unfinished(trial: _Trial) -> list[str]:
    """The ids of the uploads of the trial's key; that the store cannot list them is noted."""
    with trial.noting():
        return [one.upload_id async for one in trial.bucket.unfinished(trial.key)]
    return []


async def _locks(trial: _Trial) -> list[Finding]:
    """A retention asked for as an upload begins; then one that is set, and a deletion under it."""
    bucket, key = trial.bucket, trial.key
    if trial.lock is None:
        return []
    until = trial.clock.now() + _LOCKED_FOR
    may_delete = await _deletes(trial)
    asked = retention_headers(trial.lock.mode, until)
    try:
        upload_id = await bucket.create(key, asked, summed=True)
    except StoreError as error:
        # Uploads without a lock were taken before: where the store itself says no to this one, it has none to give.
        if not await bucket.refuses("POST", key, query={"uploads": ""}, headers=asked):
            raise
        return [_finding(one, holds=False, detail=str(error), claimed=False) for one in (BORN_LOCKED, Question.LOCKED)]
    part = await bucket.put_part(key, upload_id, 1, [trial.content], sha256=trial.sha256)
    await bucket.complete(key, upload_id, (part,))
    version = (await bucket.head(key)).version_id
    born = await bucket.retention(key, version)
    if born is None:
        await bucket.retain(key, trial.lock.mode, until)
    stated = await bucket.retention(key, version) is not None
    kept = await _kept(trial, version)
    unseen = "" if stated else "; its retention cannot be read back"
    return [
        _finding(BORN_LOCKED, born is not None, "CreateMultipartUpload with lock headers", claimed=True),
        _tried(
            may_delete,
            _finding(
                Question.LOCKED, stated and kept, f"{trial.lock.mode.value}: {_deletion(kept)}{unseen}", claimed=stated
            ),
        ),
    ]


async def _holds(trial: _Trial) -> list[Finding]:
    """A deletion under a legal hold alone."""
    bucket, key = trial.bucket, trial.key
    may_delete = await _deletes(trial)
    await bucket.put(key, trial.content, checksum_header(trial.sha256), absent=False)
    version = (await bucket.head(key)).version_id
    await bucket.legal_hold(key, version)  # a store that does not know it says so here, and is told to set none
    await bucket.hold(key)
    stated = await bucket.legal_hold(key, version)
    kept = await _kept(trial, version)
    if kept:
        await bucket.hold(key, on=False)
    return [_tried(may_delete, _finding(LEGAL_HOLD, stated and kept, _deletion(kept), claimed=stated))]


async def _deletes(trial: _Trial) -> bool:
    """Whether this station's key can delete a version that nothing protects."""
    await trial.bucket.put(trial.key, trial.content, checksum_header(trial.sha256), absent=False)
    return not await _kept(trial, (await trial.bucket.head(trial.key)).version_id)


async def _kept(trial: _Trial, version: str) -> bool:
    """Whether a deletion of the version was refused, and it is still there."""
    query = {"versionId": version} if version else {}
    refused = await trial.bucket.refuses("DELETE", trial.key, query=query, headers={})
    return refused and await trial.bucket.found(trial.key) is not None


def _tried(may_delete: bool, finding: Finding) -> Finding:
    """A refused deletion shows a lock only where the same key deletes what is not locked."""
    if may_delete or finding.answer is Answer.NO:
        return finding
    detail = "not tried: this station's key may not delete versions of objects named dockd-probe-*"
    return replace(finding, answer=Answer.UNKNOWN, detail=detail)


def _deletion(kept: bool) -> str:
    return "the deletion of the version was refused" if kept else "the version was deleted"


def _said(refused: bool) -> str:
    return "refused" if refused else "taken"


def _stated(checksum: object) -> str:
    return "stated" if checksum is not None else "none that can be compared"


async def _remove(trial: _Trial) -> None:
    """Take the trial object away, every version of it, as far as the store lets us."""
    try:
        for _ in range(_MOST_VERSIONS):
            head = await trial.bucket.found(trial.key)
            if head is None:
                return
            await trial.bucket.delete(trial.key, head.version_id)
    except StoreError as error:
        _log.info("probe_object_left", key=trial.key, reason=str(error))  # locked, or out of reach


_STEPS: tuple[tuple[tuple[str, ...], _Step], ...] = (
    ((Question.WRONG_CHECKSUM, Question.CHECKSUM_BACK, PARTS_LISTED), _checksums),
    ((Question.OVERWRITE, COMPLETE_OVER), _overwrite),
    ((Question.READ_BACK,), _ranges),
    ((Question.RESUME, Question.ABANDON), _uploads),
)
"""Each with the questions that it answers."""
_LOCK_STEPS: tuple[tuple[tuple[str, ...], _Step], ...] = (
    ((Question.LOCKED, BORN_LOCKED), _locks),
    ((LEGAL_HOLD,), _holds),
)
