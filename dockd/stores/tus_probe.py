"""What a tus server really does with uploads, by trial: with a few bytes that are no evidence.

What can be removed afterwards is removed; at a server that files uploads by name, or knows no termination, a finished
upload named `dockd-probe-...` stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from dockd.core.findings import Answer, Finding, Question
from dockd.errors import StoreError, UploadLost
from dockd.model import Entropy
from dockd.stores.probing import probe_name
from dockd.stores.tus import Offers
from dockd.stores.tus_server import TusServer, once
from dockd.stores.tus_store import TusStore

WITH_UPLOAD = "does an upload that is created with its bytes hold them?"
FOUND = "is a finished upload still found?"

_BYTES = 4096
_HALF = _BYTES // 2


async def probe(store: TusStore, another: TusStore, *, random: Entropy) -> tuple[Finding, ...]:
    """Try it. Never raises StoreError: what could not be tried is an UNKNOWN that says why.

    `another` is a second adapter of the same server, with connections of its own: it resumes what the first began.
    After cancellation uploads named `dockd-probe-...` may be left.
    """
    server = store.server
    try:
        offers = await server.offers()
    except StoreError as error:
        return (Finding(question=FOUND, answer=Answer.UNKNOWN, claimed=None, detail=str(error)),)
    trial = _Trial(server, another.server, offers, random)
    steps: tuple[tuple[str, bool | None, Callable[[], Awaitable[tuple[Answer, str]]]], ...] = (
        (Question.WRONG_CHECKSUM, "checksum" in offers.extensions, trial.wrong_checksum),
        (Question.RESUME, True, trial.resume),
        (WITH_UPLOAD, "creation-with-upload" in offers.extensions, trial.with_upload),
        (FOUND, None, trial.found),
        (Question.READ_BACK, None, trial.read_back),
        (Question.OVERWRITE, None if server.files_by_name else True, trial.overwrite),
        (Question.ABANDON, "termination" in offers.extensions, trial.abandon),
        (Question.LOCKED, False, trial.locked),
    )
    findings = []
    for question, claimed, step in steps:
        try:
            answer, detail = await step()
        except StoreError as error:
            answer, detail = Answer.UNKNOWN, str(error)
        findings.append(Finding(question=question, answer=answer, claimed=claimed, detail=detail))
    return tuple(findings)


class _Trial:
    """One upload that the steps work on, one after the other."""

    def __init__(self, server: TusServer, another: TusServer, offers: Offers, random: Entropy) -> None:
        self._server = server
        self._another = another
        self._offers = offers
        self._random = random
        self._content = random(_BYTES)
        self._name = probe_name(random)
        self._path = ""

    async def wrong_checksum(self) -> tuple[Answer, str]:
        """Bytes with a checksum of others."""
        for algorithm in ("sha256", "sha1"):
            if "checksum" in self._offers.extensions and algorithm in self._offers.checksums:
                if await self._server.refuses_wrong(algorithm, self._offers):
                    return Answer.YES, f"a wrong {algorithm} was refused, a right one taken; pieces are sent with it"
                return Answer.NO, f"bytes with a wrong {algorithm} were taken; no checksum is sent"
        return Answer.NO, "it offers no checksum that we send: damage on the way shows when the clip is read back"

    async def resume(self) -> tuple[Answer, str]:
        """Half an upload; then, over connections of another, a question and the other half."""
        self._path = await self._server.create(self._name, _BYTES, {"filename": self._name})
        await self._server.append(self._path, 0, once(self._content[:_HALF]), _HALF)
        if (await self._another.standing(self._path)).offset != _HALF:
            return Answer.NO, "half of an upload was sent, and it does not stand there"
        await self._another.append(self._path, _HALF, once(self._content[_HALF:]), _BYTES - _HALF)
        return Answer.YES, "an upload went on where it was left"

    async def with_upload(self) -> tuple[Answer, str]:
        """What the manifest is sent by."""
        if "creation-with-upload" not in self._offers.extensions:
            return Answer.NO, "it does not offer that; manifests go in two requests"
        name = probe_name(self._random)
        path = await self._server.put(name, self._content, {"filename": name})
        held = await self._held(path, name)
        await self._remove(path)
        return (Answer.YES, "all bytes arrived") if held == self._content else (Answer.NO, "they did not arrive whole")

    async def found(self) -> tuple[Answer, str]:
        """Asked for after its end: at its own address, or by its name."""
        if self._server.files_by_name:
            size = await self._server.object_size(self._name)
            where = "under its name"
        else:
            try:
                size = (await self._server.standing(self._path)).offset
            except UploadLost:
                size = None
            where = "at its address"
        if size == _BYTES:
            return Answer.YES, f"it stands {where} with all its bytes"
        return Answer.NO, f"it is not {where}: nothing can be confirmed here; is objects_url missing or wrong?"

    async def read_back(self) -> tuple[Answer, str]:
        """The second half of it."""
        if await self._held(self._path, self._name, _HALF) == self._content[_HALF:]:
            how = "" if self._server.gives_ranges else "; it sends all of an object for that"
            return Answer.YES, f"bytes from an offset on came back right{how}"
        return Answer.NO, "other bytes came back"

    async def overwrite(self) -> tuple[Answer, str]:
        """Other bytes for what is finished."""
        other = bytes(_BYTES)
        try:
            if self._server.files_by_name:
                await self._server.put(self._name, other, {"filename": self._name})
            else:
                await self._server.append(self._path, 0, once(other), _BYTES)
        except StoreError as error:
            refusal = str(error)
        else:
            refusal = "other bytes were taken, and changed nothing"
        if await self._held(self._path, self._name) == self._content:
            return Answer.YES, refusal
        return Answer.NO, "a second upload under the name took the place of the first; every name is used once only"

    async def abandon(self) -> tuple[Answer, str]:
        """An upload that is begun and dropped."""
        if "termination" not in self._offers.extensions:
            return Answer.NO, "it does not offer that: what is given up stays until it expires there"
        name = probe_name(self._random)
        path = await self._server.create(name, _BYTES, {"filename": name})
        await self._server.terminate(path)
        try:
            await self._server.standing(path)
        except UploadLost:
            return Answer.YES, "it was gone afterwards"
        return Answer.NO, "it was still there afterwards"

    async def locked(self) -> tuple[Answer, str]:
        """The protocol knows no lock; the finished upload is removed by the way."""
        if not self._server.files_by_name and await self._remove(self._path):
            return Answer.NO, "a finished upload can be deleted by whoever has our credentials"
        return Answer.NO, "tus knows no retention: what keeps the object there is not seen from here"

    async def _held(self, path: str, name: str, offset: int = 0) -> bytes:
        address = name if self._server.files_by_name else path
        found = bytearray()
        async with aclosing(self._server.read(address, offset)) as blocks:
            async for block in blocks:
                found += block
                if len(found) > _BYTES:
                    break  # more than was ever sent
        return bytes(found)

    async def _remove(self, path: str) -> bool:
        if "termination" not in self._offers.extensions:
            return False
        try:
            await self._server.terminate(path)
            await self._server.standing(path)
        except UploadLost:
            return True
        except StoreError:
            return False
        return False
