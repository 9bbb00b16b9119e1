"""The two stores in memory: their faults are their own orders."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta

from contract.evidence import STORE, Clip, Keys, MachineClock
from contract.stores.cases import Case, Kind, Way

from dockd.core.objects import Piece
from dockd.errors import StoreBusy
from dockd.stores.memory import MemoryStore
from dockd.stores.memory_objects import MemoryObjects


class MemoryFaults:
    """Orders of the store itself."""

    def __init__(self, store):
        self._store = store

    def cut(self, kept_bytes):
        self._store.cut(kept_bytes)

    def lose(self, call):
        self._store.lose(call)

    def answer(self, call, status, *headers, early=False, times=1):
        del early
        assert status in (429, 503), "no other answer is known here"
        waits = [float(one.partition(": ")[2]) for one in headers if one.startswith("Retry-After: ")]
        for _ in range(times):
            self._store.fail(call, StoreBusy("as ordered", retry_after_s=waits[0] if waits else None))


def _case(store, keys, **more):
    return Case(
        connect=lambda: store,
        connect_wrongly=lambda: store,
        clip=lambda size=200_000: Clip(keys, size=size),
        faults=MemoryFaults(store),
        **more,
    )


@asynccontextmanager
async def _signing(request, way):
    del request, way
    keys = Keys()
    yield _case(MemoryStore(store=STORE, key=keys.store, station=keys.station_public, clock=MachineClock()), keys)


@asynccontextmanager
async def _objects(request, way):
    del request, way
    store = MemoryObjects(store="memory", clock=MachineClock(), retention=timedelta(days=1))

    async def remove(objects, piece):
        del store.objects[json.loads(objects)[piece]]

    async def occupy(_, clip):
        store.put(clip.acquisition, Piece.MANIFEST, b"another")

    yield _case(store, Keys(), remove=remove, occupy=occupy)


@asynccontextmanager
async def _parts(request, way):
    """Takes parts of one length only, as S3 does."""
    del request, way
    store = MemoryObjects(store="memory", clock=MachineClock(), part_bytes=50_000, checksums=True)

    async def remove(objects, piece):
        del store.objects[json.loads(objects)[piece]]

    async def occupy(_, clip):
        store.put(clip.acquisition, Piece.SEALED, b"another")

    yield _case(store, Keys(), remove=remove, occupy=occupy)


MEMORY = Kind(name="memory", open=_signing, ways=(Way.DIRECT,), servers=False, keeps_objects=False)
OBJECTS = Kind(name="memory-objects", open=_objects, ways=(Way.DIRECT,), servers=False)
PARTS = Kind(name="memory-parts", open=_parts, ways=(Way.DIRECT,), servers=False)
