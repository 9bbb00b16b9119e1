"""However a store fails, it is asked a bounded number of times in an hour, whatever is being asked of it."""

import asyncio
import contextlib

import pytest

from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.transfer import Call
from dockd.errors import (
    OffsetConflict,
    PatchTooLarge,
    StoreBusy,
    StoreIncomplete,
    StoreLacks,
    StoreUnproven,
    StoreUnreachable,
    StoreUntrusted,
    UploadCorrupt,
    UploadLost,
)
from dockd.station.outlet import Keeping, Outlet
from dockd.station.stores import Stores
from dockd.stores.memory_objects import MemoryObjects

HOUR_S = 3600.0
MOST_AN_HOUR = 1000  # calls, of which an attempt makes up to a dozen
FOREVER = 20_000
GONE = StoreUnreachable("no connection could be made")


@contextlib.asynccontextmanager
async def running(stores):
    await stores.begin()
    task = asyncio.create_task(stores.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def an_hour(bench, stores):
    """Time passes only as far as somebody waits for it: what never waits is never done."""
    async with running(stores), asyncio.timeout(60):
        while bench.clock.passed_s < HOUR_S:
            await asyncio.sleep(0)


def life(bench, store, outlet):
    policy = StorePolicy([PolicyStore(store=store.store, name="cloud")])
    return Stores([outlet], bench.parts(policy))


def ends_after(count):
    return lambda store: store.cut_read(*[count] * FOREVER)


def takes_only(count):
    return lambda store: store.cut(*[count] * FOREVER)


def fails(call, error):
    return lambda store: store.fail(call, *[error] * FOREVER)


FAULTS = {
    "every GET ends after a byte": ends_after(1),
    "every GET ends before a byte": ends_after(0),
    "every PATCH ends after a byte": takes_only(1),
    "every PATCH ends before a byte": takes_only(0),
    **{f"no answer to {call.value}": fails(call, GONE) for call in (Call.REGISTER, Call.OFFSET, Call.APPEND)},
    **{f"no answer to {call.value}": fails(call, GONE) for call in (Call.FINISH, Call.LOOK, Call.READ, Call.ABANDON)},
    "busy": fails(Call.APPEND, StoreBusy("503", pushed_back=True)),
    "busy, until at once": fails(Call.APPEND, StoreBusy("503", pushed_back=True, retry_after_s=0.0)),
    "failing by itself": fails(Call.FINISH, StoreBusy("500")),
    "the upload is lost": fails(Call.OFFSET, UploadLost("404")),
    "the objects are lost": fails(Call.LOOK, UploadLost("404")),
    "another offset": fails(Call.APPEND, OffsetConflict("409")),
    "too large": fails(Call.APPEND, PatchTooLarge("413")),
    "incomplete": fails(Call.FINISH, StoreIncomplete("409")),
    "arrives changed": fails(Call.FINISH, UploadCorrupt("422")),
    "lacks something": fails(Call.REGISTER, StoreLacks("an operation")),
    "shows too little": fails(Call.LOOK, StoreUnproven("no retention")),
    "contradicts itself": fails(Call.LOOK, StoreUntrusted("another clip")),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_p09_a_store_that_fails_is_asked_a_bounded_number_of_times_in_an_hour(bench, fault):
    store = MemoryObjects(store="cloud", clock=bench.clock, checksums=False)
    FAULTS[fault](store)
    for _ in range(3):
        await bench.sealed(300_000)
    await an_hour(bench, life(bench, store, Outlet(way=Keeping(port=store), slots=3, patch_bytes=1 << 20)))
    assert 3 <= len(store.calls) <= MOST_AN_HOUR


@pytest.mark.parametrize("error", [GONE, StoreBusy("503"), StoreUntrusted("a fork")])
async def test_p09_a_witness_that_fails_is_asked_a_bounded_number_of_times_in_an_hour(bench, error):
    bench.store.fail(Call.WITNESS, *[error] * FOREVER)
    clock, uplink = bench.clock, bench.uplink()
    task = asyncio.create_task(uplink.run())
    async with asyncio.timeout(60):
        while clock.passed_s < HOUR_S and not any(slept_s >= HOUR_S for slept_s in clock.sleeps):
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert 1 <= [call for call, _ in bench.store.calls].count(Call.WITNESS) <= 150


async def test_p09_of_clips_that_a_store_is_doubted_about_one_a_minute_finds_out_that_it_is_away(bench):
    """The others would only hear the same, and wait as long for it each."""
    rows = [await bench.sealed(300_000) for _ in range(5)]
    uplink = bench.uplink()
    task = asyncio.create_task(uplink.run())
    for row in rows:
        await bench.until(row.acquisition, "stored")
    bench.store.fail(Call.HOLDING, *[GONE] * FOREVER)
    bench.clock.sleeps.clear()
    for row in rows:
        uplink.trust.doubt_holding(row.acquisition, "it was not shown")
    began_s = bench.clock.passed_s
    async with asyncio.timeout(60):
        while bench.clock.passed_s < began_s + HOUR_S:
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert 10 <= [call for call, _ in bench.store.calls].count(Call.HOLDING) <= 62
