"""The evidence store that is a dockd receiver: sessions, manifests, tus, receipts, checkpoints (design section 6)."""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import structlog

from dockd.core import canonical, sshsig, versions
from dockd.core.challenge import Range
from dockd.core.fields import Fields
from dockd.core.keyfiles import StorePublic
from dockd.core.transfer import Call
from dockd.errors import (
    NotExtended,
    OffsetConflict,
    StoreIncomplete,
    StoreUnreachable,
    StoreUntrusted,
    VerificationFailed,
)
from dockd.model import AcquisitionId, Clock, Digest, SignedBytes, StationId, StoreId
from dockd.stores.address import parse_address
from dockd.stores.port import Witnessed
from dockd.stores.tls import ClientCertificate
from dockd.stores.tus import Tus, upload_path
from dockd.stores.wire import Answer, Pace, SessionExpired, Timeouts, Wire, open_client, sentence

_log = structlog.get_logger()
_T = TypeVar("_T")
_CHALLENGE_BYTES = 32
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MALFORMED, _CONFLICT = 400, 409
_PROMISE_OVER, _NOT_LONGER = "urn:dockd:problem:promise-over", "urn:dockd:problem:not-longer"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """What a store gave for a signed challenge. `versions` are chosen out of ours; a receiver of before has none."""

    token: str
    versions: Mapping[str, int]
    policy: SignedBytes | None


class ReceiverStore:
    """EvidenceStore over TLS. Opens a session when it first needs one, and again when its token is no longer taken.

    Raises ConfigError at construction where `url` or `ca_file` cannot be used.
    """

    def __init__(
        self,
        *,
        url: str,
        ca_file: Path | None,
        store_public: StorePublic,
        station: StationId,
        key: sshsig.SigningKey,
        clock: Clock,
        accepts: versions.Versions = versions.KNOWN,
        certificate: ClientCertificate | None = None,
        proxy_url: str | None = None,
        timeouts: Timeouts | None = None,
        pace: Pace | None = None,
    ) -> None:
        address = parse_address(url)
        waits = timeouts or Timeouts()
        self._authority, self._origin = address.authority, address.origin
        self._base = self._origin + address.path
        self._public = store_public
        self._station = station
        self._key = key
        self._clock = clock
        self._accepts = accepts
        client = open_client(ca_file, waits, certificate=certificate, proxy_url=proxy_url)
        self._wire = Wire(client, clock=clock, timeouts=waits, pace=pace)
        self._tus = Tus(self._wire)
        self._session: _Session | None = None
        self._opening = asyncio.Lock()  # one handshake at a time, however many uploads wait for it

    @property
    def store(self) -> StoreId:
        """The pinned id."""
        return self._public.store

    @property
    def key(self) -> sshsig.PublicKey:
        """The pinned key."""
        return self._public.key

    async def register(self, acquisition: AcquisitionId, manifest: SignedBytes, sealed_size_bytes: int) -> str:
        """As the port says. The URL is a path on this store; the size stands in the manifest too."""
        del sealed_size_bytes  # the receiver takes it from the signed manifest alone
        url = f"{self._base}/acquisitions/{acquisition}"
        body = _envelope(manifest)

        async def once(token: str) -> str:
            headers = _headers(token)
            answer = await self._wire.ask(Call.REGISTER, "PUT", url, headers=headers, content=body)
            answer.json("upload")
            return upload_path(url, answer)

        return await self._with_token(once)

    async def offset(self, upload_url: str) -> int:
        """As the port says: HEAD."""
        return await self._with_token(lambda token: self._tus.offset(self._at(upload_url), headers=_bearer(token)))

    def stretch(self, upload_url: str, offset: int, wanted_bytes: int) -> int:
        """As the port says: any length will do."""
        del upload_url, offset
        return wanted_bytes

    async def append(self, upload_url: str, offset: int, blocks: AsyncIterator[bytes], length: int) -> int:
        """As the port says: one PATCH. After cancellation its connection is closed."""
        token = (await self._current()).token
        try:
            return await self._tus.append(self._at(upload_url), offset, blocks, length, headers=_bearer(token))
        except SessionExpired as error:
            self._forget(token)
            # The blocks are used up, and the store may have kept some: the next HEAD opens the new session.
            raise OffsetConflict("the session ended during a PATCH: ask for the offset and go on there") from error

    async def twins(self, acquisition: AcquisitionId, stations: Collection[StationId]) -> tuple[SignedBytes, ...]:
        """As the port says."""
        asked = {"type": "twins-request", "v": 1, "stations": sorted(stations)}
        found = (await self._post(Call.TWINS, f"/acquisitions/{acquisition}/twins", asked, "twins")).get("manifests")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise StoreUnreachable("the store's answer about other stations cannot be read")
        return tuple(_signed(one) for one in found)

    async def share(self, acquisition: AcquisitionId, manifest: Digest) -> None:
        """As the port says."""
        asked = {"type": "share-request", "v": 1, "manifest": manifest}
        await self._post(Call.SHARE, f"/acquisitions/{acquisition}/share", asked, "shared")

    async def receipt(self, acquisition: AcquisitionId, manifest: SignedBytes) -> SignedBytes:
        """As the port says. Raises UploadCorrupt where the finished bytes have another digest than the manifest's."""
        asked = {"type": "receipt-request", "v": 1, "manifest": canonical.digest(manifest.payload)}
        return _signed(await self._post(Call.RECEIPT, f"/acquisitions/{acquisition}/receipt", asked, "signed"))

    async def policy(self, *, anew: bool = False) -> SignedBytes | None:
        """As the port says."""
        if anew:
            self._session = None
        return (await self._current()).policy

    async def extension(self, acquisition: AcquisitionId, receipt: Digest, after: int) -> SignedBytes:
        """As the port says."""
        if "extension" not in (await self._current()).versions:
            raise NotExtended("the store is of a version that extends no receipts: update it", over=False)
        asked = {"type": "extension-request", "v": 1, "receipt": receipt, "after": after}
        url, body = f"{self._base}/acquisitions/{acquisition}/extension", canonical.encode(asked)

        async def once(token: str) -> Answer:
            headers = _headers(token)
            answer = await self._wire.ask(
                Call.EXTENSION, "POST", url, headers=headers, content=body, expected=(_CONFLICT,)
            )
            return answer if answer.status != _CONFLICT else _refused(answer)

        return _signed((await self._with_token(once)).json("signed"))

    async def ranges(self, acquisition: AcquisitionId, nonce: bytes, ranges: tuple[Range, ...]) -> tuple[bytes, ...]:
        """As the port says."""
        asked = {
            "type": "ranges-request",
            "v": 1,
            "nonce": nonce.hex(),
            "ranges": [[one.offset, one.length] for one in ranges],
        }
        found = await self._post(Call.RANGES, f"/acquisitions/{acquisition}/ranges", asked, "ranges")
        return _digests(found)

    async def holding(self, acquisition: AcquisitionId, nonce: bytes) -> SignedBytes:
        """As the port says."""
        asked = {"type": "holding-request", "v": 1, "nonce": nonce.hex()}
        return _signed(await self._post(Call.HOLDING, f"/acquisitions/{acquisition}/holding", asked, "signed"))

    async def losses(self, nonce: bytes, after: str) -> SignedBytes:
        """As the port says."""
        asked = {"type": "losses-request", "v": 1, "nonce": nonce.hex(), "after": after}
        return _signed(await self._post(Call.LOSSES, "/losses", asked, "signed"))

    async def witness(self, note: bytes, old_size: int, proof: tuple[bytes, ...]) -> Witnessed:
        """As the port says. Raises OffsetConflict where `old_size` is not the newest the store has."""
        asked = {
            "type": "checkpoint-submission",
            "v": 1,
            "old_size": old_size,
            "proof": [node.hex() for node in proof],
            "note": note.decode(),
        }
        cosigned = (await self._post(Call.WITNESS, "/checkpoints", asked, "cosigned")).get("note")
        if not isinstance(cosigned, str):
            raise StoreUnreachable("the store's answer to a checkpoint has no note")
        return Witnessed(note=cosigned.encode())

    async def witnessed_size(self) -> int:
        """As the port says."""

        async def once(token: str) -> Any:
            answer = await self._wire.ask(Call.WITNESS, "GET", f"{self._base}/checkpoints", headers=_bearer(token))
            return answer.json("checkpoint-size").get("size")

        size = await self._with_token(once)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise StoreUnreachable("the store's answer has no checkpoint size")
        return size

    async def aclose(self) -> None:
        """As the port says. The token is forgotten."""
        self._session = None
        await self._wire.aclose()

    # --- sessions

    async def _with_token(self, once: Callable[[str], Awaitable[_T]]) -> _T:
        """Call with a token; with a new one, once, where the store does not take it."""
        token = (await self._current()).token
        try:
            return await once(token)
        except SessionExpired:
            self._forget(token)
        return await once((await self._current()).token)

    def _forget(self, token: str) -> None:
        if self._session and self._session.token == token:  # not where another call has opened the next one meanwhile
            self._session = None

    async def _current(self) -> _Session:
        async with self._opening:
            if self._session is None:
                self._session = await self._open_session()
            return self._session

    async def _open_session(self) -> _Session:
        challenge = await self._ask_challenge()
        if challenge.get("store") != self._public.store:
            raise StoreUntrusted(
                f"the store at {self._authority} is not the pinned one: compare store.url and store.key_file with it"
            )
        # Of a receiver that chooses: it says what it offers. One of before says nothing, and gets what it knows.
        chooses: dict[str, Any] = (
            {"v": 2, "accepts": versions.record(self._accepts)} if "offers" in challenge else {"v": 1}
        )
        statement = chooses | {
            "type": "session",
            "station": self._station,
            "store": self._public.store,
            "host": self._authority,  # as dialled: a statement overheard by one store opens no other
            "challenge": _challenge(challenge.get("challenge")),
            "at": canonical.format_time(self._clock.now()),
        }
        payload = canonical.encode(statement)
        signed = SignedBytes(payload=payload, signature=sshsig.sign(self._key, sshsig.SESSION, payload))
        url = f"{self._base}/session"
        answer = await self._wire.ask(Call.SESSION, "POST", url, headers=_JSON, content=_envelope(signed))
        session = _session(answer.json("session-token", newest=2), self._accepts)
        _log.info(
            "session_opened", store=self._public.store, authority=self._authority, versions=dict(session.versions)
        )
        return session

    async def _ask_challenge(self) -> dict[str, Any]:
        """A challenge; from a receiver that refuses what it does not know, by a request that it does know."""
        url, ask = f"{self._base}/session", {"type": "session-request", "v": 1, "station": self._station}
        chooses = ask | {"accepts": versions.record(self._accepts)}
        for request, expected in ((chooses, (_MALFORMED,)), (ask, ())):
            content = canonical.encode(request)
            answer = await self._wire.ask(Call.SESSION, "POST", url, headers=_JSON, content=content, expected=expected)
            if answer.status != _MALFORMED:
                break
        return answer.json("challenge", newest=2)

    # --- the rest

    async def _post(self, call: Call, path: str, asked: dict[str, Any], type_: str) -> dict[str, Any]:
        body = canonical.encode(asked)

        async def once(token: str) -> dict[str, Any]:
            answer = await self._wire.ask(call, "POST", self._base + path, headers=_headers(token), content=body)
            return answer.json(type_)

        return await self._with_token(once)

    def _at(self, upload_url: str) -> str:
        if not upload_url.startswith("/"):
            raise StoreUntrusted("an upload address that is no path on the store")
        return self._origin + upload_url


_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _headers(token: str) -> dict[str, str]:
    return {**_JSON, **_bearer(token)}


def _envelope(signed: SignedBytes) -> bytes:
    return canonical.encode(sshsig.signed_to_json(signed))


def _signed(record: dict[str, Any]) -> SignedBytes:
    try:
        return sshsig.signed_from_json(record)
    except VerificationFailed as error:
        raise StoreUnreachable(f"the store's signed answer cannot be read: {error}") from error


def _digests(record: dict[str, Any]) -> tuple[bytes, ...]:
    fields = Fields(record, "ranges")
    try:
        texts = fields.texts("digests")
        fields.end()
    except VerificationFailed as error:
        raise StoreUnreachable(f"the store's answer about ranges cannot be read: {error}") from error
    if not all(_DIGEST.fullmatch(text) for text in texts):
        raise StoreUnreachable("the store's answer about ranges is not made of digests")
    return tuple(map(bytes.fromhex, texts))


def _challenge(text: object) -> str:
    """The challenge, checked before it is signed: never more than 32 bytes of somebody else's choice."""
    try:
        if isinstance(text, str) and len(b64decode(text, validate=True)) == _CHALLENGE_BYTES:
            return text
    except (binascii.Error, ValueError):
        pass
    raise StoreUnreachable("the store's challenge is not 32 bytes in base64")


def _session(record: dict[str, Any], accepts: versions.Versions) -> _Session:
    token, said, policy = record.get("token"), record.get("versions", {}), record.get("policy")
    if not (isinstance(token, str) and token.isascii() and token.isprintable() and token):
        raise StoreUnreachable("the store's answer has no session token")
    try:
        chosen = versions.take_chosen(said, accepted=accepts)
    except VerificationFailed as error:
        raise StoreUnreachable(f"the store's session cannot be used: {error}") from error
    if policy is not None and not isinstance(policy, dict):
        raise StoreUnreachable("the store's policy cannot be read")
    return _Session(token=token, versions=chosen, policy=None if policy is None else _signed(policy))


def _refused(answer: Answer) -> NoReturn:
    """A 409 to what asked for an extension: the store promises no more, or knows of no receipt."""
    problem = answer.problem() or {}
    kind = problem.get("type")
    words = sentence(Call.EXTENSION, answer.status, str(problem.get("detail") or "no reason given"))
    if kind in {_PROMISE_OVER, _NOT_LONGER}:
        raise NotExtended(words, over=kind == _PROMISE_OVER)
    raise StoreIncomplete(words) if problem else StoreUnreachable(words)
