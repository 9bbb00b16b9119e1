"""The pieces that a large clip is sent in to a Swift with static large objects, and the object that joins them.

A piece is stored whole or not at all. Pieces are named by acquisition and offset in a container of their own, so that
their order needs no record of ours, and a later life of the program finds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dockd.core.transfer import Call
from dockd.errors import OffsetConflict, StoreIncomplete, StoreUnreachable, UploadLost
from dockd.model import AcquisitionId
from dockd.stores.axis_names import SEGMENTS, prefix, segment
from dockd.stores.axis_session import Account
from dockd.stores.wire import sentence

MAX_PIECES = 900  # what describes them fits into one answer; Swift's own limit is 1000
_LISTED = 500  # at a time
_MAX_PAGES = 8  # of one listing: four times what MAX_PIECES fill
_MAX_DIGEST = 128  # characters
_MAX_OBJECT_BYTES = 2**53 - 1  # beyond it no JSON says a number exactly
_GONE, _EXISTS, _REFUSED = 404, 412, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One piece, as the store has it. `digest` is its MD5, by the store's word."""

    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a Swift says of its large objects."""

    pieces: int
    least_bytes: int  # of a piece

    def piece_bytes(self, size_bytes: int) -> int:
        """The shortest length that a piece but the last may have, of an object of `size_bytes`."""
        return max(self.least_bytes, -(-size_bytes // self.pieces), 1)


def offered(info: Mapping[str, Any]) -> Limits | None:
    """The limits out of /info; None where no static large objects are offered."""
    slo = info.get("slo")
    if not isinstance(slo, dict):
        return None
    pieces, least = slo.get("max_manifest_segments", MAX_PIECES), slo.get("min_segment_size", 1)
    if not (isinstance(pieces, int) and isinstance(least, int) and pieces > 0 and least <= _MAX_OBJECT_BYTES):
        return None
    return Limits(pieces=min(pieces, MAX_PIECES), least_bytes=max(1, least))


class Segments:
    """The pieces of one account. Every method may be called again."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def held(self, acquisition: AcquisitionId, size_bytes: int) -> dict[int, Held]:
        """The pieces from the beginning on without a gap, by offset.

        A container's listing may lag behind what it holds, so the next piece is asked for by its name as well.
        """
        listed = await self.listed(acquisition)
        found: dict[int, Held] = {}
        end = 0
        while end < size_bytes:
            piece = listed.get(end) or await self._one(acquisition, end)
            if piece is None or piece.size_bytes <= 0:
                break
            found[end] = piece
            end += piece.size_bytes
            if len(found) > MAX_PIECES:
                raise StoreUnreachable("the store has more pieces of the clip than were ever sent")
        return found

    async def listed(self, acquisition: AcquisitionId) -> dict[int, Held]:
        """The pieces by offset as the listing has them now. Empty where there are none."""
        found: dict[int, Held] = {}
        marker = ""
        for _ in range(_MAX_PAGES):
            query = f"format=json&limit={_LISTED}&prefix={prefix(acquisition)}&marker={quote(marker)}"
            answer = await self._account.ask(Call.OFFSET, "GET", (SEGMENTS,), query=query, expected=(_GONE,))
            rows = [] if answer.status == _GONE else _rows(answer.body or b"[]")
            for name, piece in rows:
                found[_offset(acquisition, name)] = piece
            if len(rows) < _LISTED:
                return found
            if rows[-1][0] <= marker:
                raise StoreUnreachable("the store's listing goes back to what it has listed before")
            marker = rows[-1][0]
        raise StoreUnreachable(f"the store's listing of a clip's pieces does not end after {_MAX_PAGES} pages")

    async def joined(self, container: str, name: str) -> dict[str, Held]:
        """The pieces that the large object `name` is made of, by name."""
        answer = await self._account.ask(Call.LOOK, "GET", (container, name), query="multipart-manifest=get")
        return {name.removeprefix(f"/{SEGMENTS}/"): piece for name, piece in _rows(answer.body)}

    async def join(
        self,
        container: str,
        name: str,
        acquisition: AcquisitionId,
        pieces: Mapping[int, Held],
        headers: Mapping[str, str],
    ) -> bool:
        """Make the object `name` of these pieces; False where an object stands there.

        The store looks at each piece. Raises StoreIncomplete where one is not there as it was listed.
        """
        plan = [
            {"path": f"/{SEGMENTS}/{segment(acquisition, at)}", "etag": one.digest, "size_bytes": one.size_bytes}
            for at, one in sorted(pieces.items())
        ]
        answer = await self._account.ask(
            Call.FINISH,
            "PUT",
            (container, name),
            query="multipart-manifest=put",
            headers={**headers, "If-None-Match": "*"},
            content=json.dumps(plan).encode(),
            expected=(_REFUSED, _EXISTS),
        )
        if answer.status == _REFUSED:
            said = answer.body[:300].decode(errors="replace")
            raise StoreIncomplete(sentence(Call.FINISH, answer.status, said))
        return answer.status != _EXISTS

    async def drop(self, acquisition: AcquisitionId) -> None:
        """Delete the pieces. Idempotent."""
        for at in await self.listed(acquisition):
            await self._account.ask(Call.ABANDON, "DELETE", (SEGMENTS, segment(acquisition, at)), expected=(_GONE,))

    async def drop_one(self, acquisition: AcquisitionId, offset: int) -> None:
        """Delete the piece at `offset`, which arrived damaged."""
        await self._account.ask(Call.ABANDON, "DELETE", (SEGMENTS, segment(acquisition, offset)), expected=(_GONE,))

    async def _one(self, acquisition: AcquisitionId, offset: int) -> Held | None:
        try:
            answer = await self._account.ask(Call.OFFSET, "HEAD", (SEGMENTS, segment(acquisition, offset)))
        except UploadLost:
            return None
        return Held(size_bytes=answer.number("content-length"), digest=answer.word("etag").strip('"').lower())


def damaged(etag: str, digest: str) -> OffsetConflict | None:
    """What to raise where a piece's MD5 at the store is not what was sent; None where they agree."""
    if etag.strip('"').lower() == digest:
        return None
    return OffsetConflict("a piece arrived damaged and was deleted: ask for the offset and go on there")


def fingerprint(pieces: Mapping[str, Held]) -> str:
    """One text that changes with any of the pieces."""
    lines = [f"{name} {one.size_bytes} {one.digest}\n" for name, one in sorted(pieces.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _rows(body: bytes) -> list[tuple[str, Held]]:
    try:
        return [_row(row["name"], row["bytes"], row["hash"]) for row in json.loads(body)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreUnreachable("the store's listing cannot be read; is something else at its address?") from error


def _row(name: object, size: object, digest: object) -> tuple[str, Held]:
    """Raises ValueError: numbers in JSON may be of any size, infinite, or none, and texts no text at all."""
    if not (isinstance(name, str) and name.isascii() and name.isprintable()):
        raise ValueError("a name that is none of ours")
    if not (isinstance(size, int) and 0 <= size <= _MAX_OBJECT_BYTES):
        raise ValueError("a size that is none")
    if not (isinstance(digest, str) and digest.isascii() and len(digest) <= _MAX_DIGEST):
        raise ValueError("a digest that is none")
    return name, Held(size_bytes=size, digest=digest.strip('"').lower())


def _offset(acquisition: AcquisitionId, name: str) -> int:
    digits = name.removeprefix(prefix(acquisition))
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else -1  # noqa: PLR2004
