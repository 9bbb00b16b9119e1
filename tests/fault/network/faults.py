"""What a network, a proxy or a store can do to one exchange."""

from __future__ import annotations

import asyncio
import threading

from fault.network.proxy import Exchange, Fault

PORTAL = b"<html><body><h1>Welcome to the guest network</h1>Please log in.</body></html>"


def reset_after(count: int) -> Fault:
    """RST after so many bytes of the body."""

    async def fault(exchange: Exchange) -> None:
        await exchange.take(count)
        exchange.reset()

    return fault


def cut_after(count: int) -> Fault:
    """The store gets so many bytes of the body; then RST for the station, and the store's connection ends."""

    async def fault(exchange: Exchange) -> None:
        await exchange.pass_on(count)
        exchange.reset()

    return fault


def hang_after(count: int, hangs: threading.Event) -> Fault:
    """The store gets so many bytes of the body, and then neither more nor an end. `hangs` is set then."""

    async def fault(exchange: Exchange) -> None:
        await exchange.pass_on(count)
        hangs.set()
        await asyncio.Event().wait()

    return fault


def stall_after(count: int) -> Fault:
    """Take so many bytes, then nothing more, and never answer."""

    async def fault(exchange: Exchange) -> None:
        await exchange.take(count)
        exchange.reader._transport.pause_reading()  # so that the station's sends come to a stand
        await asyncio.Event().wait()

    return fault


async def trickle(exchange: Exchange) -> None:
    """Pass all on, and give the answer back one byte a second."""
    answer = await exchange.ask()
    for byte in answer:
        await exchange.answer(bytes([byte]))
        await asyncio.sleep(1)


async def crawl(exchange: Exchange) -> None:
    """Take one byte a second."""
    exchange.reader._transport.pause_reading()
    while True:
        await asyncio.sleep(1)


async def lose_answer(exchange: Exchange) -> None:
    """The receiver did all of it; the station never hears so."""
    await exchange.ask()
    exchange.reset()


async def truncate_answer(exchange: Exchange) -> None:
    """The answer ends in the middle."""
    answer = await exchange.ask()
    await exchange.answer(answer[: len(answer) - 20])


async def twice(exchange: Exchange) -> None:
    """The request arrives twice, as a retrying proxy sends it; the station gets the second answer."""
    await exchange.ask()
    await exchange.answer(await exchange.ask())


async def swallow(exchange: Exchange) -> None:
    """A buffering proxy: takes everything, then finds nobody to give it to."""
    await exchange.take()
    await exchange.answer(_response(502, "text/html", b"<h1>Bad Gateway</h1>"))


async def portal(exchange: Exchange) -> None:
    """A captive portal answers in place of the store."""
    await exchange.take()
    await exchange.answer(_response(200, "text/html", PORTAL))


def status(
    code: int, *headers: str, problem: bool = False, early: bool = False, content_type: str = "text/plain"
) -> Fault:
    """Answer with a status; `early`: before the body was read, and the connection ends at once."""

    async def fault(exchange: Exchange) -> None:
        await exchange.take(0 if early else None)
        body = b'{"type":"about:blank","title":"no","status":%d,"detail":"a test said so"}' % code
        kind = "application/problem+json" if problem else content_type
        await exchange.answer(_response(code, kind, body, *headers))

    return fault


def _response(code: int, kind: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} -", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body
