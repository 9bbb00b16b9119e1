"""Several stores at once, some that sign and some that do not: all, any and 2 of 3; one down, one lying; failover."""

import asyncio
import contextlib
from datetime import timedelta

import pytest

from dockd.core import canonical, sshsig
from dockd.core.backoff import STOPPED
from dockd.core.confirmation import Kind
from dockd.core.findings import Answer, Finding, Question
from dockd.core.keyfiles import StationPublic
from dockd.core.objects import Piece
from dockd.core.policy import MARGIN, CountOf, EraseWhen, PolicyStore, StorePolicy
from dockd.core.transfer import Call
from dockd.errors import JournalError, StoreForgot, StoreRefused, StoreStopped, StoreUnreachable
from dockd.station.boundary import STEADY_S, Boundary
from dockd.station.outlet import Keeping, Outlet, Signing
from dockd.station.stores import Stores
from dockd.station.tidy import Tidier
from dockd.stores.memory import MemoryStore
from dockd.stores.memory_objects import MemoryObjects
from dockd.stores.probing import Probing

YEAR = timedelta(days=365)
LEAST = timedelta(days=31)


class Fleet:
    """One station with several stores: `archive` is the bench's own, `court` signs too, `cloud` keeps objects."""

    def __init__(self, bench):
        self.bench = bench
        self.archive = bench.store
        public = StationPublic(
            station=bench.station,
            manifest_key=bench.manifest_key.public,
            checkpoint_key=bench.checkpoint_key.public,
        )
        self.court = MemoryStore(
            store="00000000-0000-0000-0000-000000000003",
            key=sshsig.SigningKey.generate(),
            station=public,
            clock=bench.clock,
        )
        self.court.calls = type(bench.store.calls)()
        self.cloud = MemoryObjects(store="cloud", clock=bench.clock, retention=YEAR)
        self.cloud.calls = type(bench.store.calls)()

    def stores(self, *names, when=EraseWhen.ALL, fallbacks=(), final=(), **settings):
        """The stores of these names under a policy; a fallback is one for `archive`."""
        opened = {name: getattr(self, name) for name in names}
        policy = StorePolicy(
            [
                PolicyStore(
                    store=one.store,
                    name=name,
                    final=name not in fallbacks or name in final,
                    fallback_for=self.archive.store if name in fallbacks else None,
                    min_retention=LEAST,
                )
                for name, one in opened.items()
            ],
            CountOf(count=when, of=tuple(one.store for one in opened.values())) if isinstance(when, int) else when,
        )
        outlets = [
            Outlet(
                way=Keeping(port=one, probing=one.probing()) if isinstance(one, MemoryObjects) else Signing(port=one),
                slots=2,
                patch_bytes=1 << 20,
                failover_after_s=120.0,
                **settings,
            )
            for one in opened.values()
        ]
        return Stores(outlets, self.bench.parts(policy))

    async def delivery(self, row, name):
        return await self.bench.journal.read(lambda tx: tx.delivery(row.acquisition, getattr(self, name).store))

    async def until_delivery(self, row, name, state):
        async with asyncio.timeout(30):
            while (await self.delivery(row, name)).state != state:
                await asyncio.sleep(0)

    async def entries(self, event):
        lines = await self.bench.journal.read(lambda tx: tx.lines(0, 100_000))
        found = [canonical.decode(line, type_="custody") for line in lines]
        return [entry["details"] for entry in found if entry["event"] == event]


@pytest.fixture
def fleet(bench):
    return Fleet(bench)


@contextlib.asynccontextmanager
async def running(stores):
    await stores.begin()
    task = asyncio.create_task(stores.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def down(store):
    """Until it is put back, nothing of this store answers; returns how to put it back."""

    async def refused(*_args):
        store.calls.append((Call.REGISTER, "down"))
        raise StoreUnreachable("refused")

    names = [name for name in ("register", "offset", "witnessed_size", "holding", "look") if hasattr(store, name)]
    for name in names:
        setattr(store, name, refused)
    return lambda: [delattr(store, name) for name in names]


async def test_p01_all_have_to_confirm_and_each_in_its_own_way(bench, fleet):
    row = await bench.sealed(3 << 20)
    stores = fleet.stores("archive", "court", "cloud")
    async with running(stores):
        await bench.until(row.acquisition, "stored")
        content = bench.spool.path(row.acquisition).read_bytes()
        assert bytes(fleet.archive.kept[row.acquisition].content) == content
        assert bytes(fleet.court.kept[row.acquisition].content) == content
        said = {one["store"]: one["kind"] for one in await fleet.entries("delivery.confirmed")}
        assert said == {fleet.archive.store: "receipt", fleet.court.store: "receipt", "cloud": "checksum"}
        (stored,) = await fleet.entries("acquisition.stored")
        assert stored["policy"] == "archive, court, cloud"
        assert {one["store"] for one in stored["confirmations"]} == set(said)
        for one in stores.asking().confirmers():
            assert (await one.ask_again(row.acquisition)).store == one.of
    assert (await bench.events()).count("policy.set") == 1


async def test_p09_any_is_enough_while_another_is_down_and_gets_it_later(bench, fleet):
    up = down(fleet.court)
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("archive", "court", when=EraseWhen.ANY)
    async with running(stores):
        await bench.until(row.acquisition, "stored")
        assert (await fleet.delivery(row, "court")).state == "waiting"
        assert await bench.journal.read(lambda tx: tx.lacking(row.acquisition)) == [fleet.court.store]
        up()
        await fleet.until_delivery(row, "court", "confirmed")
    assert (await bench.row(row.acquisition)).state == "stored"
    assert await bench.journal.read(lambda tx: tx.lacking(row.acquisition)) == []
    assert len(await fleet.entries("acquisition.stored")) == 1


async def test_p01_all_waits_for_the_one_that_is_down(bench, fleet):
    up = down(fleet.court)
    row = await bench.sealed(1 << 20)
    async with running(fleet.stores("archive", "court")):
        await fleet.until_delivery(row, "archive", "confirmed")
        assert (await bench.row(row.acquisition)).state == "uploading"
        up()
        await bench.until(row.acquisition, "stored")


async def test_p01_two_of_three(bench, fleet):
    down(fleet.court)
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("archive", "court", "cloud", when=2)
    async with running(stores):
        await bench.until(row.acquisition, "stored")
        (stored,) = await fleet.entries("acquisition.stored")
        assert {one["store"] for one in stored["confirmations"]} == {fleet.archive.store, "cloud"}
        states = {one.name: one.state for one in stores.status()}
        assert states["court"] == "unreachable"
        assert states["archive"] == "reachable"


async def test_p01_a_store_that_contradicts_itself_stops_erasing_where_it_counts(bench, fleet):
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("archive", "cloud", when=EraseWhen.ANY)
    async with running(stores):
        await bench.until(row.acquisition, "stored")
        await fleet.until_delivery(row, "cloud", "confirmed")
        fleet.cloud.put(row.acquisition, Piece.SEALED, b"another object")
        cloud = next(one for one in stores.asking().confirmers() if one.of == "cloud")
        with pytest.raises(StoreForgot, match="other bytes"):
            await cloud.ask_again(row.acquisition)
        stores.asking().doubt("cloud", row.acquisition, "it is another object")
        assert stores.alarms == ("cloud: it is another object",)
        assert stores.forbids_erasing == stores.alarms


async def test_what_does_not_count_stops_no_erasing(bench, fleet):
    stores = fleet.stores("archive", "cloud", fallbacks=("cloud",))
    stores.asking().doubt("cloud", "x", "it lies")
    assert stores.alarms
    assert stores.forbids_erasing == ()
    stores.asking().doubt(fleet.archive.store, "x", "it lies, too")
    assert stores.forbids_erasing == ("archive: it lies, too",)


async def test_p09_a_refusal_is_of_one_store_alone(bench, fleet):
    row, other = await bench.sealed(1 << 20), await bench.sealed(1 << 20)
    fleet.court.fail(Call.REGISTER, StoreRefused("a recipient is not allowed", status=403))
    stores = fleet.stores("archive", "court", when=EraseWhen.ANY)
    async with running(stores):
        await bench.until(row.acquisition, "stored")
        await bench.until(other.acquisition, "stored")
        refused, taken = sorted([row, other], key=lambda one: one.acquisition in fleet.court.kept)
        await fleet.until_delivery(taken, "court", "confirmed")
        await fleet.until_delivery(refused, "court", "given_up")
        assert (await bench.row(refused.acquisition)).state == "stored"
        assert await bench.journal.read(lambda tx: tx.given_up(fleet.court.store)) == 1
        policy = stores.policy
        await bench.journal.write(lambda tx: tx.try_again(refused.acquisition, policy, {"operator": "pat"}))
        stores.nudge()
        await fleet.until_delivery(refused, "court", "confirmed")


async def test_p01_a_refusal_quarantines_where_the_policy_needs_the_store(bench, fleet):
    row = await bench.sealed(1 << 20)
    fleet.court.fail(Call.REGISTER, StoreRefused("a recipient is not allowed", status=403))
    stores = fleet.stores("archive", "court")
    async with running(stores):
        await bench.until(row.acquisition, "quarantined")
        assert (await bench.row(row.acquisition)).quarantine_reason == "court: a recipient is not allowed"
        policy = stores.policy
        await bench.journal.write(lambda tx: tx.try_again(row.acquisition, policy, {"operator": "pat"}))
        stores.nudge()
        await bench.until(row.acquisition, "stored")


# --- confirmed by looking


async def test_p01_a_store_without_checksums_is_read_back_and_resumed_where_it_broke(bench, fleet):
    fleet.cloud.checksums = False
    fleet.cloud.cut_read(100_000, 300_000, 1)
    row = await bench.sealed(3 << 20)
    async with running(fleet.stores("cloud")):
        await bench.until(row.acquisition, "stored")
    (said,) = await fleet.entries("delivery.confirmed")
    assert said["kind"] == Kind.READ_BACK.value
    assert canonical.digest(said["objects"].encode()) == said["confirmation"]


@pytest.mark.parametrize(
    ("found", "then", "words"),
    [
        ({"checksums": False, "readable": False}, {}, "it gave nothing back"),
        ({"checksums": False}, {"readable": False}, "gives nothing back"),
        ({"retention": None}, {}, "no lock was seen to hold"),
        ({}, {"retention": None}, "promises nothing"),
    ],
)
async def test_p01_what_gives_nothing_back_or_promises_too_little_is_held_and_says_why(
    bench, fleet, found, then, words
):
    fleet.cloud = MemoryObjects(store="cloud", clock=bench.clock, **{"retention": YEAR} | found)
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("cloud")
    for name, value in then.items():  # after its trial
        setattr(fleet.cloud, name, value)
    async with running(stores):
        async with asyncio.timeout(30):
            while words not in stores.status()[0].note:
                await asyncio.sleep(0)
        assert stores.alarms == ()
        assert (await bench.row(row.acquisition)).state == "uploading"


async def test_p01_other_bytes_at_the_store_are_no_confirmation(bench, fleet):
    row = await bench.sealed(1 << 20)
    finish = fleet.cloud.finish

    async def spoiling(upload_url, acquisition, manifest):
        objects = await finish(upload_url, acquisition, manifest)
        fleet.cloud.put(acquisition, Piece.MANIFEST, manifest.payload[:-1] + b" ")
        return objects

    fleet.cloud.finish = spoiling
    stores = fleet.stores("cloud")
    async with running(stores):
        async with asyncio.timeout(30):
            while not stores.alarms:
                await asyncio.sleep(0)
        assert "another checksum of the manifest" in stores.alarms[0]
    assert (await fleet.delivery(row, "cloud")).state == "finished"


async def test_p01_a_checksum_of_parts_is_compared_with_the_stations_own(bench, fleet):
    fleet.cloud = MemoryObjects(store="cloud", clock=bench.clock, retention=YEAR, part_bytes=1 << 19)
    row = await bench.sealed((3 << 19) + 7)
    async with running(fleet.stores("cloud")):
        await bench.until(row.acquisition, "stored")
    assert (await fleet.entries("delivery.confirmed"))[0]["kind"] == "checksum"


async def test_p02_a_new_life_goes_on_with_what_was_finished(bench, fleet):
    row = await bench.sealed(1 << 20)
    fleet.cloud.fail(Call.LOOK, *[StoreUnreachable("x")] * 50)
    async with running(fleet.stores("cloud")):
        await fleet.until_delivery(row, "cloud", "finished")
    fleet.cloud._failing[Call.LOOK].clear()
    before = len(fleet.cloud.calls)
    async with running(fleet.stores("cloud")):
        await bench.until(row.acquisition, "stored")
    assert not [call for call, _ in fleet.cloud.calls[before:] if call in (Call.APPEND, Call.REGISTER, Call.FINISH)]


async def test_p02_objects_that_went_before_they_were_confirmed_are_sent_again(bench, fleet):
    row = await bench.sealed(1 << 20)
    fleet.cloud.fail(Call.LOOK, *[StoreUnreachable("x")] * 50)
    async with running(fleet.stores("cloud")):
        await fleet.until_delivery(row, "cloud", "finished")
    fleet.cloud._failing[Call.LOOK].clear()
    fleet.cloud.forget(row.acquisition)
    async with running(fleet.stores("cloud")):
        await bench.until(row.acquisition, "stored")
    assert "delivery.reopened" in await bench.events()


async def test_p01_without_version_or_checksum_the_bytes_are_shown_again_before_erasing(bench, fleet):
    fleet.cloud.checksums = fleet.cloud.versions = False
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("cloud")
    async with running(stores):
        await bench.until(row.acquisition, "stored")
        (cloud,) = stores.asking().confirmers()
        assert (await cloud.ask_again(row.acquisition)).store == "cloud"
        content = bench.spool.path(row.acquisition).read_bytes()
        fleet.cloud.put(row.acquisition, Piece.SEALED, b"x" + content[1:])
        with pytest.raises(StoreForgot, match="other bytes"):
            await cloud.ask_again(row.acquisition)
        bench.spool.discard(row.acquisition)  # then all of it is read
        with pytest.raises(StoreForgot, match="other bytes"):
            await cloud.ask_again(row.acquisition)
        fleet.cloud.put(row.acquisition, Piece.SEALED, content)
        assert (await cloud.ask_again(row.acquisition)).store == "cloud"


async def test_p01_a_store_that_sends_all_of_an_object_for_any_range_is_read_once_before_erasing(bench, fleet):
    fleet.cloud.checksums = fleet.cloud.versions = fleet.cloud.gives_ranges = False
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("cloud")
    async with running(stores):
        await bench.until(row.acquisition, "stored")
        (cloud,) = stores.asking().confirmers()
        content = bench.spool.path(row.acquisition).read_bytes()
        fleet.cloud.put(row.acquisition, Piece.SEALED, content[:-1] + b"x")
        with pytest.raises(StoreForgot, match="other bytes"):
            await cloud.ask_again(row.acquisition)
        fleet.cloud.put(row.acquisition, Piece.SEALED, content)
        fleet.cloud.calls.clear()
        assert (await cloud.ask_again(row.acquisition)).store == "cloud"
        assert [call for call, _ in fleet.cloud.calls].count(Call.READ) == len(Piece)


# --- failover


async def test_a_fallback_gets_clips_while_its_primary_is_out_and_no_longer(bench, fleet):
    up = down(fleet.archive)
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("archive", "court", fallbacks=("court",))
    async with running(stores):
        async with asyncio.timeout(30):
            while row.acquisition not in fleet.court.kept:
                await asyncio.sleep(0)
        await fleet.until_delivery(row, "court", "confirmed")
        assert (await bench.row(row.acquisition)).state == "uploading"  # it is not final: nothing rests on it
        assert [one.standing_in for one in stores.status()] == [False, True]
        up()
        await bench.until(row.acquisition, "stored")
        async with asyncio.timeout(30):
            while any(one.standing_in for one in stores.status()):
                await asyncio.sleep(0)
        late = await bench.sealed(1 << 20)
        stores.nudge()
        await bench.until(late.acquisition, "stored")
    assert late.acquisition not in fleet.court.kept
    events = await bench.events()
    assert events.index("store.stands_in") < events.index("store.stood_back")


async def test_a_short_outage_brings_no_fallback_in(bench, fleet):
    bench.clock.longest_s = 100  # less than the outage that brings one in
    fleet.archive.fail(Call.REGISTER, *[StoreUnreachable("x")] * 4)
    row = await bench.sealed(1 << 20)
    async with running(fleet.stores("archive", "court", fallbacks=("court",))):
        await bench.until(row.acquisition, "stored")
    assert fleet.court.kept == {}


async def test_p01_a_fallback_that_is_final_stands_for_its_primary(bench, fleet):
    down(fleet.archive)
    row = await bench.sealed(1 << 20)
    async with running(fleet.stores("archive", "court", fallbacks=("court",), final=("court",))):
        await bench.until(row.acquisition, "stored")
    assert await bench.journal.read(lambda tx: tx.lacking(row.acquisition)) == [fleet.archive.store]


# --- another policy, and the spool


async def test_p01_another_policy_at_the_next_start_is_followed(bench, fleet):
    up = down(fleet.court)
    row = await bench.sealed(1 << 20)
    async with running(fleet.stores("archive", "court", when=EraseWhen.ANY)):
        await bench.until(row.acquisition, "stored")
    bench.states.clear()
    async with running(fleet.stores("archive", "court")):
        assert (await bench.row(row.acquisition)).state == "uploading"
        up()
        await bench.until(row.acquisition, "stored")
    assert "acquisition.retracted" in await bench.events()
    assert (await bench.events()).count("policy.set") == 2


async def test_what_another_store_lacks_stays_in_the_spool_unless_room_is_short(bench, fleet):
    down(fleet.court)
    row = await bench.sealed(1 << 20)
    tidier = Tidier(
        journal=bench.journal, spool=bench.spool, clock=bench.clock, keep_after_receipt=lambda: timedelta(0)
    )
    async with running(fleet.stores("archive", "court", when=EraseWhen.ANY)):
        await bench.until(row.acquisition, "stored")
        assert await tidier.tidy(short_of_room=False) == 0
        assert await tidier.sweep() == 0
        assert await tidier.tidy(short_of_room=True) == 1
    bench.store.calls.clear()


def test_the_stores_and_the_policy_have_to_be_the_same(bench, fleet):
    policy = StorePolicy([PolicyStore(store="other", name="other")])
    with pytest.raises(ValueError, match="differ"):
        Stores([Outlet(way=Signing(port=fleet.archive))], bench.parts(policy))


def test_people_name_a_store_where_there_are_several(bench, fleet):
    assert fleet.stores("archive").named(None).store == fleet.archive.store
    several = fleet.stores("archive", "cloud")
    assert several.named("cloud").store == "cloud"
    for name in (None, "clout"):
        with pytest.raises(LookupError, match="archive, cloud"):
            several.named(name)


# --- P09: what nobody foresaw in a store stops that store alone


def astray(store, name, error):
    """From now on a call of this store raises what is none of our errors; returns how to put it back."""

    async def raises(*_args, **_more):
        raise error

    setattr(store, name, raises)
    return lambda: delattr(store, name)


STRANGE = [
    OverflowError("date value out of range"),
    RecursionError(),
    MemoryError(),
    KeyError("x" * 9000),
    ValueError(),
]
CALLS = [
    *(("court", name) for name in ("register", "offset", "append", "receipt", "witnessed_size", "witness")),
    *(("cloud", name) for name in ("register", "offset", "append", "finish", "look", "clear_orphans")),
]


@pytest.mark.parametrize(("name", "call"), CALLS)
async def test_p09_an_unexpected_error_stops_that_store_alone(bench, fleet, name, call):
    store = getattr(fleet, name)
    error = STRANGE[CALLS.index((name, call)) % len(STRANGE)]
    mend = astray(store, call, error)
    stores = fleet.stores("archive", name, when=EraseWhen.ANY)
    async with running(stores) as task:
        rows = [await bench.sealed(1 << 20) for _ in range(3)]
        stores.nudge()
        for row in rows:
            await fleet.until_delivery(row, "archive", "confirmed")
        uplink = stores.uplinks[store.store]
        async with asyncio.timeout(20):
            while not uplink.boundary.alarm:
                await asyncio.sleep(0)
        (alarm,) = stores.alarms
        assert type(error).__name__ in alarm
        assert alarm.startswith(f"{name}: ")
        assert len(alarm) < 500
        assert stores.forbids_erasing == ()
        assert [one.state for one in stores.status()] == ["reachable", "stopped"]
        assert not task.done()
        mend()
        stores.try_stopped()
        for row in rows:
            await fleet.until_delivery(row, name, "confirmed")
        await bench.clock.sleep(STEADY_S)
        assert stores.alarms == ()
        assert stores.uplink().in_flight == 0


async def test_p09_a_store_that_an_unexpected_error_stopped_once_goes_on_by_itself(bench, fleet):
    mend = astray(fleet.archive, "append", OverflowError())
    stores = fleet.stores("archive")
    boundary = stores.uplinks[fleet.archive.store].boundary
    row = await bench.sealed(1 << 20)
    async with running(stores):
        async with asyncio.timeout(20):
            while not boundary.stopped:
                await asyncio.sleep(0)
        mend()
        await fleet.until_delivery(row, "archive", "confirmed")
        assert stores.alarms
        await bench.clock.sleep(STEADY_S)
        assert stores.alarms == ()


async def test_p09_a_stopped_store_waits_longer_each_time_and_a_reload_tries_it_at_once(bench, fleet):
    astray(fleet.court, "register", OverflowError())
    stores = fleet.stores("archive", "court", when=EraseWhen.ANY)
    bench.clock.longest_s = 0.0  # nobody wakes by himself
    row = await bench.sealed(1 << 20)
    async with running(stores):
        boundary = stores.uplinks[fleet.court.store].boundary
        async with asyncio.timeout(20):
            while not boundary.stopped:
                await asyncio.sleep(0)
        await fleet.until_delivery(row, "archive", "confirmed")
        stores.nudge()  # what wakes all uplinks does not wake this one
        for _ in range(50):
            await asyncio.sleep(0)
        assert boundary.stopped
        for _ in range(6):
            stores.try_stopped()
            async with asyncio.timeout(20):
                while boundary.stopped:
                    await asyncio.sleep(0)
            bench.clock.passed_s += 60.0
            stores.nudge()
            async with asyncio.timeout(20):
                while not boundary.stopped:
                    await asyncio.sleep(0)
        waits = [STOPPED.delay_s(count, lambda count: b"\x80" * count) for count in range(1, 7)]
        assert [one for one in bench.clock.sleeps if one in waits] == waits


async def test_p09_one_clip_whose_answers_are_strange_lets_the_others_of_its_store_through(bench, fleet):
    register = fleet.archive.register
    rows = [await bench.sealed(1 << 20) for _ in range(4)]

    async def strange(acquisition, manifest, size):
        if acquisition == rows[0].acquisition:
            raise OverflowError
        return await register(acquisition, manifest, size)

    fleet.archive.register = strange
    bench.clock.longest_s = 100.0  # of the virtual time, in which nothing else would come to pass
    stores = fleet.stores("archive")
    async with running(stores) as task:
        for row in rows[1:]:
            await fleet.until_delivery(row, "archive", "confirmed")
        assert not task.done()
        fleet.archive.register = register
        stores.try_stopped()
        await fleet.until_delivery(rows[0], "archive", "confirmed")


async def test_p09_what_is_asked_before_erasing_is_one_of_our_errors_and_the_others_are_asked(bench, fleet):
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("archive", "court", "cloud")
    async with running(stores) as task:
        await bench.until(row.acquisition, "stored")
        astray(fleet.court, "holding", OverflowError())
        astray(fleet.cloud, "look", RecursionError())
        said = {one.of: one for one in stores.asking().confirmers()}
        for name in ("court", "cloud"):
            with pytest.raises(StoreStopped, match="unexpected"):
                await said[getattr(fleet, name).store].ask_again(row.acquisition)
        assert (await said[fleet.archive.store].ask_again(row.acquisition)).store == fleet.archive.store
        assert len(stores.alarms) == 2
        assert stores.forbids_erasing == ()
        assert not task.done()


async def test_p09_what_the_journal_keeps_of_a_store_stops_it_alone_at_every_start(bench, fleet):
    row = await bench.sealed(1 << 20)
    astray(fleet.cloud, "look", OverflowError())  # as if for what it had been told, and keeps
    for _ in range(3):
        stores = fleet.stores("archive", "cloud", when=EraseWhen.ANY)
        async with running(stores) as task:
            await fleet.until_delivery(row, "archive", "confirmed")
            async with asyncio.timeout(20):
                while not stores.alarms:
                    await asyncio.sleep(0)
            assert not task.done()
    assert (await fleet.delivery(row, "cloud")).state == "finished"


async def test_p09_a_store_that_cannot_even_be_begun_with_stops_alone(bench, fleet):
    async def probe():
        return tuple(Finding(question=one, answer=Answer.YES, claimed=None, detail="") for one in Question)

    def believe(_):
        if strange:
            raise OverflowError

    probing = Probing(probe=probe, believe=believe)
    row = await bench.sealed(1 << 20)
    strange = False
    policy = fleet.stores("archive", "cloud", when=EraseWhen.ANY).policy
    for _ in range(2):  # the second finds the findings of the first
        outlets = [
            Outlet(way=Signing(port=fleet.archive), slots=2),
            Outlet(way=Keeping(port=fleet.cloud, probing=probing), slots=2),
        ]
        stores = Stores(outlets, bench.parts(policy))
        async with running(stores) as task:
            await fleet.until_delivery(row, "archive", "confirmed")
            if not strange:
                await fleet.until_delivery(row, "cloud", "confirmed")
            else:
                assert "cloud" in stores.alarms[0]
                strange = False
                stores.try_stopped()
                another = await bench.sealed(1 << 20)
                stores.nudge()
                await fleet.until_delivery(another, "cloud", "confirmed")
                break
            assert not task.done()
        strange = True


async def test_p09_a_fallback_stands_in_for_a_store_that_unexpected_errors_stop(bench, fleet):
    astray(fleet.archive, "register", OverflowError())
    bench.clock.longest_s = 300.0  # of the virtual time: waiting for the store to be sound again makes it so otherwise
    rows = [await bench.sealed(1 << 20) for _ in range(4)]
    async with running(
        fleet.stores("archive", "court", fallbacks=("court",), final=("court",), when=EraseWhen.ANY)
    ) as task:
        for row in rows:
            await bench.until(row.acquisition, "stored")
        assert {one["store"] for one in await fleet.entries("delivery.confirmed")} == {fleet.court.store}
        assert not task.done()


def test_p09_a_stopped_store_counts_as_out_from_its_first_stop_until_it_was_sound_for_a_while():
    clock = Still()
    boundary = Boundary(store="s", clock=clock, random=lambda count: b"\x80" * count, on_change=lambda: None)

    def strike(at_s):
        clock.at_s = at_s
        with contextlib.suppress(StoreStopped), boundary.within():
            raise OverflowError

    strike(1000.0)
    assert boundary.alarm
    assert boundary.out_for_s() == 0.0  # its tasks go on
    assert boundary.sound_in_s() == STEADY_S
    clock.at_s = 1000.0 + STEADY_S
    assert (boundary.alarm, boundary.sound_in_s()) == ("", None)


class Still:
    at_s = 0.0

    def monotonic_s(self):
        return self.at_s


async def test_a_journal_that_failed_still_ends_all_loudly(bench, fleet):
    astray(fleet.court, "register", JournalError("the disk is gone"))
    await bench.sealed(1 << 20)
    stores = fleet.stores("archive", "court", when=EraseWhen.ANY)
    await stores.begin()
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(20):
            await stores.run()
    assert stores.alarms == ()


async def test_p01_a_lock_that_ended_is_set_again_and_what_cannot_be_locked_promises_nothing_more(bench, fleet):
    row = await bench.sealed(1 << 20)
    stores = fleet.stores("cloud")
    async with running(stores):
        await bench.until(row.acquisition, "stored")
    confirmer = stores.uplinks["cloud"].confirmer
    await confirmer.prolong(row.acquisition)
    before = (await confirmer.ask_again(row.acquisition)).presence.kept_until
    bench.clock.passed_s += timedelta(days=400).total_seconds()
    await confirmer.prolong(row.acquisition)
    confirmation = await confirmer.ask_again(row.acquisition)
    assert confirmation.objects.kept_until == before < bench.clock.now()
    assert MARGIN <= confirmation.presence.kept_until - bench.clock.now() <= timedelta(days=30)
    bench.clock.passed_s += timedelta(days=400).total_seconds()
    fleet.cloud.retention = None
    await confirmer.prolong(row.acquisition)
    assert (await confirmer.ask_again(row.acquisition)).presence.kept_until < bench.clock.now()
