"""Whose turn it is, over all stores, and how a store is treated that has too much to do or was away."""

import asyncio
import contextlib
from datetime import timedelta

import pytest

from dockd.core.policy import EraseWhen, PolicyStore, StorePolicy
from dockd.core.transfer import Call
from dockd.errors import PatchTooLarge, StoreBusy, StoreUnreachable
from dockd.model import Category
from dockd.station.outlet import Keeping, Outlet, Signing
from dockd.station.stores import Stores
from dockd.stores.memory_objects import MemoryObjects

YEAR = timedelta(days=365)


@contextlib.asynccontextmanager
async def running(uplink):
    task = asyncio.create_task(uplink.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Gate:
    """Holds every PATCH of a store until it is opened, and knows how many were held at once."""

    def __init__(self, *stores):
        self.opened, self.changed = asyncio.Event(), asyncio.Event()
        self.under_way, self.most = 0, 0
        for store in stores:
            store.append = self._through(store.append)

    def _through(self, append):
        async def through(url, offset, blocks, length):
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.changed.set()
            try:
                await self.opened.wait()
                return await append(url, offset, blocks, length)
            finally:
                self.under_way -= 1

        return through

    async def until(self, count):
        async with asyncio.timeout(30):
            while self.under_way < count:
                self.changed.clear()
                await self.changed.wait()


def _calls(store, call):
    return [what for kind, what in store.calls if kind is call]


async def test_flagged_evidence_finds_a_place_though_all_are_taken(bench):
    plain = [await bench.sealed(1 << 20) for _ in range(3)]
    gate = Gate(bench.store)
    uplink = bench.uplink(slots=2)
    async with running(uplink):
        await gate.until(2)
        flagged = [await bench.sealed(1 << 20, category=Category.EVIDENCE) for _ in range(2)]
        uplink.nudge()
        await gate.until(3)
        assert _calls(bench.store, Call.REGISTER)[-1] == flagged[0].acquisition
        gate.opened.set()
        for row in (*flagged, *plain):
            await bench.until(row.acquisition, "stored")
    begun = _calls(bench.store, Call.REGISTER)
    assert begun.index(flagged[1].acquisition) < begun.index(plain[2].acquisition)
    assert gate.most == 3


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_all_stores_together_get_no_more_than_there_are_places(bench, most):
    cloud = MemoryObjects(store="cloud", clock=bench.clock, retention=YEAR)
    policy = StorePolicy(
        [PolicyStore(store=one.store, name=one.store, min_retention=timedelta(0)) for one in (bench.store, cloud)],
        EraseWhen.ALL,
    )
    outlets = [
        Outlet(way=Signing(port=bench.store), slots=3),
        Outlet(way=Keeping(port=cloud, probing=cloud.probing()), slots=3),
    ]
    stores = Stores(outlets, bench.parts(policy, places=most))
    gate = Gate(bench.store, cloud)
    await stores.begin()
    plain = [await bench.sealed(1 << 20) for _ in range(4)]
    async with running(stores):
        await gate.until(max(1, most - 1))
        assert stores.uplink().in_flight == max(1, most - 1)
        assert stores.uplink().max_in_flight == most
        flagged = await bench.sealed(1 << 20, category=Category.EVIDENCE)
        stores.nudge()
        if most > 1:
            await gate.until(most)
            assert flagged.acquisition in (_calls(bench.store, Call.REGISTER) + _calls(cloud, Call.REGISTER))
        gate.opened.set()
        for row in (*plain, flagged):
            await bench.until(row.acquisition, "stored")
        assert stores.uplink().in_flight == 0
    assert gate.most <= most


async def test_a_busy_store_gets_fewer_uploads_and_is_not_taken_for_one_that_is_away(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(6)]
    gate = Gate(bench.store)
    bench.store.fail(Call.APPEND, *[StoreBusy("503", retry_after_s=30, pushed_back=True)] * 4)
    uplink = bench.uplink(slots=4)
    async with running(uplink):
        await gate.until(4)
        assert uplink.status().at_once == 4
        gate.opened.set()
        while uplink.status().note != "503":
            await bench.clock.until_slept()
        assert uplink.status().at_once == 2
        assert uplink.status().state == "reachable"
        assert not uplink.is_out
        for row in rows:
            await bench.until(row.acquisition, "stored")


async def test_a_store_that_only_pushes_back_is_not_asked_by_each_clip_in_turn(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(40)]
    bench.store.fail(Call.REGISTER, *[StoreBusy("429", pushed_back=True)] * 12)
    uplink = bench.uplink(slots=4)
    asked_s = []
    register = bench.store.register

    async def noting(*args):
        asked_s.append(bench.clock.passed_s)
        return await register(*args)

    bench.store.register = noting
    async with running(uplink):
        for row in rows:
            await bench.until(row.acquisition, "stored")
    assert len([at_s for at_s in asked_s if at_s < 5]) <= 4 + 6, "the first at once, then after longer and longer waits"


async def test_a_store_that_pushes_back_for_minutes_lets_its_fallback_stand_in(bench):
    cloud = MemoryObjects(store="cloud", clock=bench.clock, retention=YEAR)
    policy = StorePolicy(
        [
            PolicyStore(store=bench.store.store, name="archive", min_retention=timedelta(0)),
            PolicyStore(store="cloud", name="cloud", fallback_for=bench.store.store, final=False),
        ],
        EraseWhen.ALL,
    )
    bench.store.fail(Call.REGISTER, *[StoreBusy("503", pushed_back=True)] * 1000)
    outlets = [
        Outlet(way=Signing(port=bench.store)),
        Outlet(way=Keeping(port=cloud, probing=cloud.probing()), failover_after_s=120.0),
    ]
    stores = Stores(outlets, bench.parts(policy))
    row = await bench.sealed(1 << 20)
    await stores.begin()
    async with running(stores), asyncio.timeout(30):
        while not (delivery := await bench.journal.read(lambda tx: tx.delivery(row.acquisition, "cloud"))):
            await asyncio.sleep(0)
        assert delivery.store == "cloud"
    assert bench.clock.passed_s >= 120.0


async def test_after_an_outage_of_the_station_evidence_goes_at_once_and_the_rest_spread_out(bench):
    plain = await bench.sealed(1 << 20)
    flagged = await bench.sealed(1 << 20, category=Category.EVIDENCE)
    witness, asked = bench.store.witness, []

    async def noting(*args):
        asked.append(args)
        return await witness(*args)

    bench.store.witness = noting
    bench.clock.longest_s = 0  # time passes by hand
    uplink = bench.uplink()
    uplink.returning(timedelta(minutes=4))  # the randomness of the bench is a half
    assert uplink.status().spread_left_s in (120, 121)
    async with running(uplink):
        await bench.until(flagged.acquisition, "stored")
        bench.clock.passed_s += 115
        uplink.nudge()
        await bench.clock.until_slept()
        assert _calls(bench.store, Call.REGISTER) == [flagged.acquisition]
        assert not asked, "nor is the store shown the custody log by then"
        bench.clock.passed_s += 6
        uplink.nudge()
        await bench.until(plain.acquisition, "stored")
        assert uplink.status().spread_left_s == 0


async def test_a_start_without_an_outage_waits_for_nothing(bench):
    row = await bench.sealed(1 << 20)
    uplink = bench.uplink()
    uplink.returning(timedelta())
    async with running(uplink):
        await bench.store.calls.until(Call.REGISTER)
        assert bench.clock.passed_s == 0.0
        await bench.until(row.acquisition, "stored")


async def test_a_limit_on_the_way_is_found_and_kept_to(bench):
    row = await bench.sealed(12 << 20)
    append, lengths = bench.store.append, []

    async def limited(url, offset, blocks, length):
        lengths.append(length)
        if length > 1 << 20:
            raise PatchTooLarge("413")
        return await append(url, offset, blocks, length)

    bench.store.append = limited
    async with running(bench.uplink(patch_bytes=64 << 20)):
        await bench.until(row.acquisition, "stored")
    refused = [one for one in lengths if one > 1 << 20]
    assert len(refused) <= 5, lengths
    assert bytes(bench.store.kept[row.acquisition].content) == bench.spool.path(row.acquisition).read_bytes()


async def test_a_connection_that_is_always_cut_gets_smaller_patches_and_all_of_it_arrives(bench):
    row = await bench.sealed(24 << 20)
    append, lengths = bench.store.append, []

    async def cutting(url, offset, blocks, length):
        lengths.append(length)
        if length > 3 << 20:
            bench.store.cut(3 << 20)
        return await append(url, offset, blocks, length)

    bench.store.append = cutting
    async with running(bench.uplink(patch_bytes=64 << 20)):
        await bench.until(row.acquisition, "stored")
    assert lengths[0] == 24 << 20
    assert max(lengths[1:]) <= 6 << 20
    assert bytes(bench.store.kept[row.acquisition].content) == bench.spool.path(row.acquisition).read_bytes()


async def test_retries_are_few_where_nothing_helps(bench):
    rows = [await bench.sealed(1 << 20) for _ in range(5)]
    register, failures = bench.store.register, []

    async def refused(*_args):
        failures.append(bench.clock.passed_s)
        raise StoreUnreachable("refused")

    bench.store.register = refused
    uplink = bench.uplink()
    async with running(uplink):
        while bench.clock.passed_s < 1800:
            uplink.nudge()  # new work, again and again
            await bench.clock.until_slept()
        bench.store.register = register
        for row in rows:
            await bench.until(row.acquisition, "stored")
    assert len(failures) <= 5 + 10 + 1800 / 30 + 2
