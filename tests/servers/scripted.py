"""An HTTP server that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit


@dataclass(kw_only=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(kw_only=True)
class Rule:
    """Answers requests of a method whose path and query hold `part`; the `times`th is the last."""

    method: str
    part: str
    status: int
    body: bytes
    headers: dict[str, str]
    times: int


@dataclass
class Scripted:
    """Rules are looked through in order. What none answers is 404 with `otherwise`."""

    port: int = 0
    otherwise: bytes = b""
    rules: deque[Rule] = field(default_factory=deque)
    seen: list[Request] = field(default_factory=list)
    open: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(
        self,
        method: str,
        part: str,
        status: int,
        body: bytes | str = b"",
        *,
        headers: dict[str, str] | None = None,
        times: int = 1,
    ) -> None:
        content = body if isinstance(body, bytes) else body.encode()
        self.rules.append(
            Rule(method=method, part=part, status=status, body=content, headers=headers or {}, times=times)
        )

    def asked(self, method: str, part: str = "") -> list[Request]:
        return [one for one in self.seen if one.method == method and part in f"{one.path}?{'&'.join(one.query)}"]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.open[task] = writer
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                writer.write(self._answer(method, target, headers, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            del self.open[task]
            writer.close()

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.seen.append(Request(method=method, path=parts.path, query=query, headers=headers, body=body))
        status, content, said = 404, self.otherwise, {"x-amz-request-id": "1"}
        for rule in self.rules:
            if rule.times and rule.method == method and rule.part in target:
                rule.times -= 1
                status, content, said = rule.status, rule.body, {"x-amz-request-id": "1", **rule.headers}
                break
        if method == "HEAD":
            content = b""
        said = {"Content-Length": str(len(content)), **said}
        lines = [f"HTTP/1.1 {status} said", *(f"{name}: {value}" for name, value in said.items() if value)]
        return "\r\n".join([*lines, "", ""]).encode() + content


@asynccontextmanager
async def scripted(otherwise: bytes = b"") -> AsyncIterator[Scripted]:
    made = Scripted(otherwise=otherwise)
    server = await asyncio.start_server(made._connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.open.values():
            writer.close()
        await asyncio.gather(*made.open)  # a task that the loop's end cancels shows in the next test's warnings
