"""S3's operations on one bucket, as far as the adapter needs them: one method each, over signed requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from dockd.core.transfer import Call, RetryClass
from dockd.errors import StoreLacks, StoreRefused, StoreUnreachable, UploadLost
from dockd.stores import s3_parts, s3_xml
from dockd.stores.s3_answers import CODES, own_words
from dockd.stores.s3_exchange import Exchange, Query
from dockd.stores.s3_records import Head, LockMode, checksum_header, head_of
from dockd.stores.wire import Answer, sentence

_P = ParamSpec("_P")
_T = TypeVar("_T")
_PAGE = 400  # parts or uploads a page: within the length of an answer that is read
_MAX_PAGES = 250  # of one listing: an upload has 10,000 parts at most, which is 25; some stores give shorter pages
_GOES_BACK = "the store's listing goes back to what it has listed before"
_EXISTS = 412
_MISSING = 404
_NOT_LOCKED = (400, 404)  # a bucket without Object Lock, an object without a retention


def _asks(
    operation: str,
) -> Callable[[Callable[_P, Coroutine[Any, Any, _T]]], Callable[_P, Coroutine[Any, Any, _T]]]:
    """Name the operation, as S3's documents have it, where its answer lacks something."""

    def wrap(method: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
        @wraps(method)
        async def asked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return await method(*args, **kwargs)
            except StoreLacks as error:
                raise StoreLacks(f"{operation}: {error.what}") from error

        return asked

    return wrap


class Bucket:
    """One bucket. Every method may be called again; errors are those of `Wire`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    # --- objects

    @_asks("HeadObject")
    async def head(self, key: str) -> Head:
        """HeadObject, with the checksum. Raises UploadLost where there is none.

        A 404 that anybody may have said is asked about by a GET, which has a body to say it in.
        """
        headers = {"x-amz-checksum-mode": "ENABLED"}
        answer = await self._exchange.ask(Call.LOOK, "HEAD", key, headers=headers, expected=(_MISSING,))
        if answer.status != _MISSING:
            return head_of(answer)
        if not own_words(answer):
            await self._exchange.ask(Call.LOOK, "GET", key, headers={"Range": "bytes=0-0"})
            raise StoreUnreachable("the store says that an object is not there, and then that it is")
        raise UploadLost(sentence(Call.LOOK, answer.status, "no such object"))

    async def found(self, key: str) -> Head | None:
        """The same; None where there is none."""
        try:
            return await self.head(key)
        except UploadLost:
            return None

    @_asks("PutObject")
    async def put(self, key: str, content: bytes, headers: Mapping[str, str], *, absent: bool = True) -> bool:
        """PutObject; `absent`: only where there is none (If-None-Match). Returns whether it was stored."""
        said = {**headers, "If-None-Match": "*"} if absent else headers
        answer = await self._exchange.ask(Call.FINISH, "PUT", key, headers=said, content=content, expected=(_EXISTS,))
        return answer.status != _EXISTS

    async def stands(self, key: str, content: bytes) -> bool:
        """Whether the object is there, of these bytes. Raises StoreRefused where it is of others."""
        found = bytearray()
        try:
            async with aclosing(self.read(key, headers={}, check=lambda _: None)) as blocks:
                async for block in blocks:
                    found += block
                    if len(found) > len(content):
                        break
        except UploadLost:
            return False
        if found != content:
            raise StoreRefused(f"another object stands at {key}; nothing is overwritten", status=_EXISTS)
        return True

    def read(
        self, key: str, *, headers: Mapping[str, str], check: Callable[[Answer], None]
    ) -> AsyncGenerator[bytes, None]:
        """GetObject, as `Wire.receive` says."""
        return self._exchange.receive(key, headers=headers, check=check)

    @_asks("DeleteObject")
    async def delete(self, key: str, version_id: str) -> None:
        """DeleteObject: of a version where one is named. Of what is not there it is no error."""
        with suppress(UploadLost):
            await self._exchange.ask(Call.ABANDON, "DELETE", key, query=_version(version_id))

    # --- locks

    @_asks("GetObjectRetention")
    async def retention(self, key: str, version_id: str) -> s3_xml.Retention | None:
        """GetObjectRetention. None where there is none."""
        query = {"retention": "", **_version(version_id)}
        answer = await self._exchange.ask(Call.LOOK, "GET", key, query=query, expected=_NOT_LOCKED)
        return None if answer.status in _NOT_LOCKED else s3_xml.retention(answer.body)

    @_asks("GetObjectLegalHold")
    async def legal_hold(self, key: str, version_id: str) -> bool:
        """GetObjectLegalHold."""
        query = {"legal-hold": "", **_version(version_id)}
        answer = await self._exchange.ask(Call.LOOK, "GET", key, query=query, expected=_NOT_LOCKED)
        return answer.status not in _NOT_LOCKED and s3_xml.legal_hold(answer.body)

    @_asks("GetBucketLifecycleConfiguration")
    async def lifecycle(self) -> tuple[s3_xml.Expiry, ...]:
        """GetBucketLifecycleConfiguration; none where the bucket has none."""
        answer = await self._exchange.ask(Call.LOOK, "GET", query={"lifecycle": ""}, expected=(_MISSING,))
        if answer.status != _MISSING:
            return s3_xml.lifecycle(answer.body)
        refusal = s3_xml.refusal(answer.body)
        if refusal is None or refusal.code != "NoSuchLifecycleConfiguration":
            raise StoreUnreachable(sentence(Call.LOOK, answer.status, "no lifecycle configuration"))
        return ()

    @_asks("PutObjectRetention")
    async def retain(self, key: str, mode: LockMode, until: datetime) -> None:
        """PutObjectRetention."""
        content = s3_xml.retain(mode, until)
        await self._exchange.ask(Call.FINISH, "PUT", key, query={"retention": ""}, content=content)

    @_asks("PutObjectLegalHold")
    async def hold(self, key: str, *, on: bool = True) -> None:
        """PutObjectLegalHold."""
        content = s3_xml.hold(on=on)
        await self._exchange.ask(Call.FINISH, "PUT", key, query={"legal-hold": ""}, content=content)

    # --- multipart uploads

    @_asks("CreateMultipartUpload")
    async def create(self, key: str, headers: Mapping[str, str], *, summed: bool) -> str:
        """CreateMultipartUpload; returns the upload's id. `summed`: its parts' SHA-256 checksums are to be kept."""
        said = {**headers, "x-amz-checksum-algorithm": "SHA256"} if summed else headers
        answer = await self._exchange.ask(Call.REGISTER, "POST", key, query={"uploads": ""}, headers=said)
        return s3_xml.upload_id(answer.body)

    @_asks("UploadPart")
    async def put_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        pieces: Sequence[bytes],
        *,
        sha256: bytes,
    ) -> s3_parts.Part:
        """UploadPart, with its checksum."""
        answer = await self._exchange.send(
            Call.APPEND,
            key,
            query={"partNumber": str(number), "uploadId": upload_id},
            headers=checksum_header(sha256),
            pieces=pieces,
            sha256=sha256,
        )
        etag = answer.word("etag")
        if not etag and not own_words(answer):
            raise StoreUnreachable("the store's answer has no ETag; is something else at its address?")
        if not etag:
            raise StoreLacks("the ETag of a part")
        return s3_parts.Part(number=number, size_bytes=sum(map(len, pieces)), etag=etag, sha256=sha256)

    @_asks("ListParts")
    async def parts(self, key: str, upload_id: str) -> dict[int, s3_parts.Part]:
        """ListParts, all pages. Raises UploadLost where there is no such upload."""
        listed: dict[int, s3_parts.Part] = {}
        query = {"uploadId": upload_id, "max-parts": str(_PAGE)}
        marker = 0
        for _ in range(_MAX_PAGES):
            answer = await self._exchange.ask(Call.OFFSET, "GET", key, query=query)
            page = s3_xml.parts_page(answer.body)
            listed |= {part.number: part for part in page.parts}
            if page.marker is None or page.marker == marker:
                return listed
            if page.marker < marker:
                raise StoreUnreachable(_GOES_BACK)
            marker = page.marker
            query["part-number-marker"] = str(marker)
        raise StoreUnreachable(f"the store's listing of an upload's parts does not end after {_MAX_PAGES} pages")

    @_asks("CompleteMultipartUpload")
    async def complete(self, key: str, upload_id: str, parts: tuple[s3_parts.Part, ...]) -> bool:
        """CompleteMultipartUpload where there is no object yet. Returns whether it was made."""
        headers = {"If-None-Match": "*", "Content-Type": "application/xml"}
        content = s3_xml.completion(parts)
        query = {"uploadId": upload_id}
        answer = await self._exchange.ask(
            Call.FINISH, "POST", key, query=query, headers=headers, content=content, expected=(_EXISTS,)
        )
        return answer.status != _EXISTS

    @_asks("AbortMultipartUpload")
    async def abort(self, key: str, upload_id: str) -> None:
        """AbortMultipartUpload. Of an unknown one it is no error."""
        with suppress(UploadLost):
            await self._exchange.ask(Call.ABANDON, "DELETE", key, query={"uploadId": upload_id})

    async def unfinished(self, prefix: str) -> AsyncIterator[s3_xml.Unfinished]:
        """ListMultipartUploads, all pages, of keys that begin with `prefix`."""
        query = {"uploads": "", "prefix": prefix, "max-uploads": str(_PAGE)}
        seen: tuple[str, str] | None = None
        for _ in range(_MAX_PAGES):
            page = await self._page(query)
            for one in page.uploads:
                if one.key.startswith(prefix):
                    yield one
            if page.marker is None or page.marker == seen:
                return
            # By key; uploads of one key are in no order that all stores keep to, and end by the count of pages.
            if seen is not None and page.marker[0].encode() < seen[0].encode():
                raise StoreUnreachable(_GOES_BACK)
            seen = page.marker
            query["key-marker"], query["upload-id-marker"] = seen
        raise StoreUnreachable(f"the store's listing of unfinished uploads does not end after {_MAX_PAGES} pages")

    @_asks("ListMultipartUploads")
    async def _page(self, query: Query) -> s3_xml.UploadsPage:
        return s3_xml.uploads_page((await self._exchange.ask(Call.REGISTER, "GET", query=query)).body)

    # --- trials

    async def refuses(
        self, method: str, key: str, *, query: Query | None = None, headers: Mapping[str, str], content: bytes = b""
    ) -> bool:
        """Whether the store itself says no to a request, for what the request is. For probes.

        Raises StoreUnreachable where something else says it, or the store says no for another reason.
        """
        answer = await self._exchange.ask(
            Call.FINISH, method, key, query=query, headers=headers, content=content, expected=range(400, 500)
        )
        if answer.status < 400:  # noqa: PLR2004
            return False
        said = s3_xml.refusal(answer.body)
        if said is None or CODES.get(said.code) in (RetryClass.RENEW, RetryClass.LATER):
            raise StoreUnreachable(sentence(Call.FINISH, answer.status, said.code if said else "not by the store"))
        return True

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        await self._exchange.aclose()


def _version(version_id: str) -> dict[str, str]:
    return {"versionId": version_id} if version_id else {}
