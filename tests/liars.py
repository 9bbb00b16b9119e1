"""Stores that held three objects and lie about them later: in memory, and as S3, tus and Axis servers on loopback.

A lie is about one of the objects, and about what is said of it (HEAD) or given of it (GET); everything else stays as it
was, ETag and version too. `served` is what a station was told, and whether an honest store would have said the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from dockd.core.objects import Algorithm, Checksum, ObjectState, Piece
from dockd.errors import StoreRefused, StoreUnreachable, UploadLost

MiB = 1 << 20
GONE, FORBIDDEN = 404, 403


def _start_alone(right: bytes) -> bytes:
    return right[: len(right) // 4] + bytes(len(right) - len(right) // 4)


def _bit(right: bytes) -> bytes:
    middle = len(right) // 2
    return right[:middle] + bytes([right[middle] ^ 1]) + right[middle + 1 :]


GIVEN: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda right: bytes(len(right)),
    "another object's bytes": lambda right: hashlib.sha256(right).digest() * (len(right) // 32) + right[-1:] * 31,
    "its start is right": _start_alone,
    "its end is right": lambda right: bytes(len(right) // 2) + right[len(right) // 2 :],
    "truncated": lambda right: right[: len(right) - max(1, len(right) // 3)],
    "empty": lambda right: b"",
    "a bit": _bit,
}
REFUSED = {"not found to read": GONE, "not to be read": FORBIDDEN}
CUT = "the connection breaks"
SAID: dict[str, Callable[[ObjectState], ObjectState | None]] = {
    "shorter": lambda state: replace(state, size_bytes=state.size_bytes - 1),
    "longer": lambda state: replace(state, size_bytes=state.size_bytes + 7),
    "another version": lambda state: replace(state, version="elsewhere"),
    "gone": lambda state: None,
}
SUMMED = {
    "another checksum": lambda state: replace(state, checksum=replace(state.checksum, digest=bytes(32))),
    "no checksum": lambda state: replace(state, checksum=None),
}
LOCKED = {
    "unlocked": lambda state: replace(state, retention_until=None),
    "locked for less": lambda state: replace(state, retention_until=state.retention_until - timedelta(days=340)),
}
SMALL = ("a bit",)  # what a sample may miss


@dataclass(kw_only=True)
class Served:
    """One answer about an object."""

    piece: Piece
    look: bool
    count: int = 0  # bytes given
    whole: bool = False  # all of the object was asked for
    honest: bool = True


@dataclass(kw_only=True)
class Liar:
    """What was stored, and what is said of it now."""

    right: dict[Piece, bytes]
    until: datetime | None
    summed: bool
    lies: dict[Piece, str] = field(default_factory=dict)
    later: list[tuple[int, Piece, str]] = field(default_factory=list)  # after so many more answers
    ranges: bool = True
    lost: tuple[int, int] = (0, 0)  # of the sealed clip, which is zeros from there to there
    served: list[Served] = field(default_factory=list)

    def _next(self) -> None:
        self.later = [(left - 1, piece, name) for left, piece, name in self.later]
        for left, piece, name in self.later:
            if left < 0:
                self.lies[piece] = name
        self.later = [one for one in self.later if one[0] >= 0]

    def honest(self, piece: Piece) -> ObjectState:
        content = self.right[piece]
        checksum = Checksum(algorithm=Algorithm.SHA256, digest=hashlib.sha256(content).digest())
        if piece is Piece.SEALED:  # it came in one part
            digest = hashlib.sha256(checksum.digest).digest()
            checksum = Checksum(algorithm=Algorithm.SHA256_OF_PARTS, digest=digest, part_bytes=64 * MiB)
        return ObjectState(
            size_bytes=len(content),
            version=f"version-of-{piece.value}",
            checksum=checksum if self.summed else None,
            retention_until=self.until,
        )

    def said(self, piece: Piece) -> ObjectState | None:
        """What a look is told; None: there is no such object."""
        self._next()
        honest, lie = self.honest(piece), self.lies.get(piece, "")
        change = (SAID | (SUMMED if self.summed else {}) | (LOCKED if self.until else {})).get(lie)
        state = change(honest) if change else honest
        self.served.append(Served(piece=piece, look=True, honest=state == honest))
        return state

    def given(self, piece: Piece, offset: int, length: int | None) -> tuple[bytes, int]:
        """Content of the object, cut at what was asked for, and how many bytes were promised; a status below 0."""
        self._next()
        right, lie = self.right[piece], self.lies.get(piece, "")
        whole = not offset and length in (None, len(right))
        end = len(right) if length is None else offset + length
        if lie in REFUSED or (lie == "gone"):
            self.served.append(Served(piece=piece, look=False, whole=whole, honest=False))
            return b"", -REFUSED.get(lie, GONE)
        wanted = right[offset:end]
        found = GIVEN[lie](right)[offset:end] if lie in GIVEN else wanted
        first, last = (min(max(at - offset, 0), len(found)) for at in self.lost)
        if piece is Piece.SEALED and first < last:
            found = found[:first] + bytes(last - first) + found[last:]
        promised = len(found)
        if lie == CUT:
            found = found[: len(found) // 2]
        count = len(found)
        self.served.append(Served(piece=piece, look=False, count=count, whole=whole, honest=found == wanted))
        return found, promised


class Direct:
    """ObjectStore without a network, as far as a clip that is finished needs one."""

    store = "cloud"

    def __init__(self, liar: Liar) -> None:
        self._liar = liar
        self.gives_ranges = True

    async def look(self, objects: str) -> dict[Piece, ObjectState]:
        found = {}
        for piece in Piece:
            state = self._liar.said(piece)
            if state is None:
                raise UploadLost("gone")
            found[piece] = state
        return found

    async def read(
        self, objects: str, piece: Piece, offset: int, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        if not self._liar.ranges and (offset or length is not None):
            self.gives_ranges = False
            offset, length, skip = 0, None, offset
        else:
            skip = 0
        found, promised = self._liar.given(piece, offset, length)
        if promised == -GONE:
            raise UploadLost("gone")
        if promised < 0:
            raise StoreRefused("nothing is given back", status=-promised)
        for at in range(skip, len(found), MiB):
            yield found[at : at + MiB]
        if len(found) < promised:
            raise StoreUnreachable("the connection broke")

    async def aclose(self) -> None:
        pass


class Server:
    """The liar as an HTTP server. `dialect` has its headers; paths end in an object's own name."""

    def __init__(self, liar: Liar, dialect: str, names: dict[str, Piece]) -> None:
        self.liar, self._dialect, self._names = liar, dialect, names
        self._writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        self._server.close()
        for writer in self._writers.values():
            writer.close()
        await asyncio.gather(*self._writers, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._writers[task] = writer
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                status, said, body = self._answer(method, urlsplit(target), headers)
                said = {"Content-Length": str(len(body)), "x-amz-request-id": "1", "Tus-Resumable": "1.0.0"} | said
                lines = [f"HTTP/1.1 {status} said", *(f"{name}: {value}" for name, value in said.items())]
                writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body))
                await writer.drain()
                if method == "GET" and int(said["Content-Length"]) > len(body):
                    return  # in the middle of it
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            del self._writers[task]
            writer.close()

    def _answer(self, method: str, target, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if target.path.startswith("/auth"):
            return 200, {"X-Auth-Token": "t", "X-Storage-Url": f"http://127.0.0.1:{self.port}/v1.0/abc"}, b""
        piece = self._names[target.path.rsplit("/", 1)[-1]]
        if "retention" in target.query or "legal-hold" in target.query:
            return self._lock(piece, target.query)
        if method == "HEAD":
            return self._head(piece)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        offset, length, status, said = 0, None, 200, {}
        if asked and self.liar.ranges:
            offset, status = int(asked[1]), 206
            length = int(asked[2]) + 1 - offset if asked[2] else None
            said = {"Content-Range": f"bytes {offset}-{asked[2] or 'x'}/*"}
        found, promised = self.liar.given(piece, offset, length)
        if promised < 0:
            code = "NoSuchKey" if promised == -GONE else "InvalidObjectState"
            return -promised, {}, f"<Error><Code>{code}</Code></Error>".encode()
        return status, {**said, "Content-Length": str(promised)}, found

    def _head(self, piece: Piece) -> tuple[int, dict[str, str], bytes]:
        state = self.liar.said(piece)
        if state is None:
            return GONE, {}, b""
        said = {"ETag": f'"{state.version}"', "Content-Length": str(state.size_bytes)}
        if self._dialect == "tus":
            said |= {"Upload-Offset": str(state.size_bytes), "Upload-Length": str(state.size_bytes)}
        if state.checksum is not None:
            parts = "-1" if state.checksum.algorithm is Algorithm.SHA256_OF_PARTS else ""
            said["x-amz-checksum-sha256"] = b64encode(state.checksum.digest).decode() + parts
        return 200, said, b""

    def _lock(self, piece: Piece, query: str) -> tuple[int, dict[str, str], bytes]:
        """Told with the HEAD before it, and not counted again."""
        if "legal-hold" in query:
            return 200, {}, b"<LegalHold><Status>OFF</Status></LegalHold>"
        lie, state = self.liar.lies.get(piece, ""), self.liar.honest(piece)
        state = LOCKED[lie](state) if lie in LOCKED else state
        if state.retention_until is None:
            return GONE, {}, b"<Error><Code>NoSuchObjectLockConfiguration</Code></Error>"
        until = f"{state.retention_until:%Y-%m-%dT%H:%M:%SZ}"
        said = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
        return 200, {}, said.encode()


def addresses(names: dict[str, Piece]) -> str:
    """As the tus adapter keeps them."""
    return json.dumps({piece.value: f"/files/{name}" for name, piece in names.items()})
