"""How the conformance suite pushes: as the station does, which asks for the offset after every doubt."""

from __future__ import annotations

import asyncio
import contextlib

from contract.evidence import blocks

from dockd.core.objects import Piece
from dockd.errors import OffsetConflict, StoreBusy, StoreUnreachable

PATIENCE = 1200  # how often something that settles by itself is asked for; some servers hold a lock for ten seconds
RETRIED = (StoreBusy, StoreUnreachable, OffsetConflict)  # what a push goes on after


async def register(store, clip):
    """What names the upload from then on."""
    return await store.register(clip.acquisition, clip.manifest, len(clip.content))


async def send(store, url, clip, *, offset=0, end=None, piece_bytes=64 * 1024):
    """Append from `offset` until `end` is reached or passed; returns where it stands."""
    while offset < (len(clip.content) if end is None else end):
        offset = await append(store, url, clip, offset, piece_bytes)
    return offset


async def append(store, url, clip, offset, wanted_bytes):
    """As much of these bytes as the store wants at once; returns where it stands."""
    length = store.stretch(url, offset, min(wanted_bytes, len(clip.content) - offset))
    return await store.append(url, offset, blocks(clip.content[offset : offset + length]), length)


async def settled(ask):
    """What `ask` gives, once the server let go of a connection that broke."""
    for _ in range(PATIENCE):
        with contextlib.suppress(*RETRIED):
            return await ask()
        await asyncio.sleep(0.05)
    return await ask()


async def push(store, url, clip, piece_bytes=64 * 1024):
    """To the end, as a pusher does: ask for the offset after every doubt."""

    async def rest():
        return await send(store, url, clip, offset=await store.offset(url), piece_bytes=piece_bytes)

    assert await settled(rest) == len(clip.content)


async def stored(case, store, clip):
    """Push and finish; returns what names the objects."""
    url = await register(store, clip)
    await push(store, url, clip, case.piece_bytes)
    return await store.finish(url, clip.acquisition, clip.manifest)


async def read(store, objects, piece, offset=0):
    """The rest of an object."""
    async with contextlib.aclosing(store.read(objects, piece, offset)) as got:
        return b"".join([block async for block in got])


def pieces(clip):
    """What the three objects have to hold."""
    return {
        Piece.SEALED: clip.content,
        Piece.MANIFEST: clip.manifest.payload,
        Piece.SIGNATURE: clip.manifest.signature.encode(),
    }
