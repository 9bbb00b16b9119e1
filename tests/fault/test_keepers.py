"""What a station does besides sending at a store that keeps objects: try it before it is believed, and clear up."""

import asyncio
import contextlib
import dataclasses
from datetime import timedelta

import pytest

from dockd.core import canonical
from dockd.core.findings import Answer, Finding, Question
from dockd.core.lifecycle import AcquisitionEvent, DeliveryEvent
from dockd.core.objects import Piece
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.transfer import Call
from dockd.core.warrant import HOLDING_FRESH
from dockd.errors import StoreForgot, StoreRefused, StoreUnproven, StoreUnreachable, StoreUntrusted
from dockd.stages.confirm_objects import MAX_BREAKS
from dockd.station import doctor
from dockd.station.enforced import GOOD_FOR, UNKNOWN_FOR
from dockd.station.outlet import Keeping, Outlet
from dockd.station.stores import Stores
from dockd.stores.memory_objects import MemoryObjects, object_name
from dockd.stores.probing import Probing

YEAR = timedelta(days=365)
NEEDED = (Question.WRONG_CHECKSUM, Question.READ_BACK, Question.LOCKED)


def finding(question=Question.CHECKSUM_BACK, answer=Answer.YES, detail="tried"):
    return Finding(question=question, answer=answer, claimed=True, detail=detail)


class Cloud:
    """A store, how it is tried, and lives of the station that sends to it. It is believed what the trial showed."""

    def __init__(self, bench):
        self.bench = bench
        self.store = MemoryObjects(store="cloud", clock=bench.clock, retention=YEAR, checksums=False)
        self.answers = [finding()]
        self.trials = 0
        self.about = "none"
        self.told = []

    async def _probe(self):
        self.trials += 1
        return self.found()

    def found(self):
        """What a trial finds: the answers of the test and, where the store is there at all, what else is needed."""
        if all(one.answer is Answer.UNKNOWN for one in self.answers):
            return tuple(self.answers)
        asked = {one.question for one in self.answers}
        return (*self.answers, *(finding(one) for one in NEEDED if one not in asked))

    def _believe(self, findings):
        self.told.append(findings)
        self.store.checksums = any(
            one.question == Question.CHECKSUM_BACK and one.answer is Answer.YES for one in findings
        )

    def life(self, least_days=31, **settings):
        """A new life of the station's sending half."""
        policy = StorePolicy(
            [PolicyStore(store="cloud", name="cloud", place="x", min_retention=timedelta(days=least_days))]
        )
        probing = Probing(probe=self._probe, believe=self._believe, about=self.about)
        way = Keeping(port=self.store, probing=probing, **settings)
        return Stores([Outlet(way=way, slots=1)], self.bench.parts(policy))

    async def entries(self, event):
        lines = await self.bench.journal.read(lambda tx: tx.lines(0, 100_000))
        found = [canonical.decode(line, type_="custody") for line in lines]
        return [entry["details"] for entry in found if entry["event"] == event]


@pytest.fixture
def cloud(bench):
    return Cloud(bench)


@contextlib.asynccontextmanager
async def running(stores):
    await stores.begin()
    task = asyncio.create_task(stores.run())
    try:
        yield stores
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# --- what may be believed


async def test_p01_a_store_is_tried_before_it_is_believed_and_the_journal_keeps_what_was_found(bench, cloud):
    row = await bench.sealed(1 << 20)
    async with running(cloud.life()):
        await bench.until(row.acquisition, "stored")
    assert cloud.trials == 1
    (said,) = await cloud.entries("delivery.confirmed")
    assert said["kind"] == "checksum"
    (tried,) = await cloud.entries("store.tried")
    assert tried["store"] == "cloud"
    assert [(one["question"], one["answer"], one["claimed"]) for one in tried["findings"]] == [
        ("does it state a checksum that is right?", "yes", True),
        *((str(one), "yes", True) for one in NEEDED),
    ]
    cloud.store.checksums = False
    other = await bench.sealed(1 << 20)
    async with running(cloud.life()) as stores:
        assert cloud.told[-1] == cloud.found()  # before anything is asked of the store
        await bench.until(other.acquisition, "stored")
        for confirmer in stores.asking().confirmers():
            await confirmer.ask_again(row.acquisition)
    assert cloud.trials == 1
    assert [one["kind"] for one in await cloud.entries("delivery.confirmed")] == ["checksum", "checksum"]


async def test_p01_what_claims_and_does_not_do_is_not_believed(bench, cloud):
    cloud.answers = [finding(answer=Answer.NO)]
    row = await bench.sealed(1 << 20)
    async with running(cloud.life()):
        await bench.until(row.acquisition, "stored")
    (said,) = await cloud.entries("delivery.confirmed")
    assert said["kind"] == "read_back"


async def test_a_store_that_is_not_there_teaches_nothing(bench, cloud):
    cloud.answers = [finding(answer=Answer.UNKNOWN, detail="refused")]
    cloud.store.fail(Call.REGISTER, *[StoreUnreachable("no connection could be made")] * 2)
    row = await bench.sealed(1 << 20)
    async with running(cloud.life(least_days=0)) as stores:
        await bench.until(row.acquisition, "stored")
        assert cloud.trials >= 3  # at each attempt
        assert stores.alarms == ()
    assert await cloud.entries("store.tried") == []
    assert cloud.told == []


async def test_what_could_not_be_tried_this_time_is_as_it_was(bench, cloud):
    cloud.answers = [finding(), finding(Question.LOCKED)]
    async with running(cloud.life()) as stores:
        enforced = stores.uplinks["cloud"].enforced
        await enforced.known()
        cloud.answers = [finding(answer=Answer.UNKNOWN), finding(Question.LOCKED, Answer.NO)]
        assert await enforced.try_now() == cloud.found()
        kept = {one.question: one.answer for one in enforced.findings}
        assert (kept[Question.CHECKSUM_BACK], kept[Question.LOCKED]) == (Answer.YES, Answer.NO)
    assert len(await cloud.entries("store.tried")) == 2


@pytest.mark.parametrize(("answer", "good_for"), [(Answer.YES, GOOD_FOR), (Answer.UNKNOWN, UNKNOWN_FOR)])
async def test_findings_grow_old(bench, cloud, answer, good_for):
    cloud.answers = [finding(), finding(Question.LOCKED, answer)]
    async with running(cloud.life()) as stores:
        enforced = stores.uplinks["cloud"].enforced
        await enforced.known()
        bench.clock.passed_s += good_for.total_seconds() - 1
        await enforced.known()
        assert cloud.trials == 1
        bench.clock.passed_s += 1
        await enforced.known()
        assert cloud.trials == 2
    assert len(await cloud.entries("store.tried")) == 1  # the same was found


async def test_another_question_is_asked_at_once_and_no_old_answer_stands_for_it(bench, cloud):
    cloud.answers = [finding(), finding(Question.LOCKED)]
    async with running(cloud.life()) as stores:
        await stores.uplinks["cloud"].enforced.known()
    cloud.about = "compliance"
    cloud.answers = [finding(), finding(Question.LOCKED, Answer.UNKNOWN)]
    async with running(cloud.life()) as stores:
        enforced = stores.uplinks["cloud"].enforced
        await enforced.known()
        assert enforced.findings == cloud.found()
        await enforced.known()
    async with running(cloud.life()) as stores:
        await stores.uplinks["cloud"].enforced.known()
    assert cloud.trials == 2


async def test_p01_a_checksum_that_is_believed_later_contradicts_no_reading_back(bench, cloud):
    cloud.answers = [finding(answer=Answer.NO)]
    row = await bench.sealed(1 << 20)
    async with running(cloud.life()) as stores:
        await bench.until(row.acquisition, "stored")
        cloud.answers = [finding()]
        await stores.uplinks["cloud"].enforced.try_now()
        (confirmer,) = stores.asking().confirmers()
        assert (await confirmer.ask_again(row.acquisition)).store == "cloud"
        cloud.answers = [finding(answer=Answer.NO)]
        cloud.store.forget(row.acquisition)
        with pytest.raises(StoreForgot):
            await confirmer.ask_again(row.acquisition)


async def test_p01_a_long_reading_right_before_erasing_makes_no_answer_old(bench, cloud):
    cloud.answers = [finding(answer=Answer.NO)]
    row = await bench.sealed(1 << 20)
    async with running(cloud.life(read_back_bytes_s=3000)) as stores:
        await bench.until(row.acquisition, "stored")
        (confirmer,) = stores.asking().confirmers()
        for _ in range(2):  # a reading counts once: another warrant takes another one
            begun = bench.clock.now()
            asked = await confirmer.ask_again(row.acquisition)
            assert bench.clock.now() - begun > HOLDING_FRESH
            assert bench.clock.now() - asked.asked_at < timedelta(seconds=1)


async def test_p10_what_was_read_back_of_a_clip_that_is_done_with_is_forgotten(bench, cloud):
    cloud.answers = [finding(answer=Answer.NO)]
    row = await bench.sealed(1 << 20)
    stores = cloud.life()
    confirmer = stores.uplinks["cloud"].confirmer
    cloud.store.cut_read(300_000, *[0] * (MAX_BREAKS + 1))
    await stores.begin()
    manifest = await bench.journal.read(lambda tx: tx.manifest(row.acquisition))
    url = await cloud.store.register(row.acquisition, manifest, row.sealed.sealed_size_bytes)
    content = bench.spool.path(row.acquisition).read_bytes()
    await cloud.store.append(url, 0, blocks(content), len(content))
    policy = stores.policy
    await bench.journal.write(
        lambda tx: tx.deliver(row.acquisition, "cloud", DeliveryEvent.REGISTERED, policy, upload_url=url)
    )
    with pytest.raises(StoreUnreachable):
        await confirmer.confirm(row.acquisition)
    confirmer.forget(row.acquisition)
    sealed = object_name(row.acquisition, Piece.SEALED)
    cloud.store.objects[sealed] = dataclasses.replace(cloud.store.objects[sealed], content=b"x" + content[1:])
    with pytest.raises(StoreUntrusted):  # what was read before would have hidden it
        await confirmer.confirm(row.acquisition)


async def blocks(content):
    yield content


# --- what nobody goes on with


async def test_p02_an_upload_that_is_given_up_leaves_nothing_at_the_store(bench, cloud):
    row = await bench.sealed(3 << 20)
    cloud.store.fail(Call.FINISH, StoreRefused("no such category", status=400))
    async with running(cloud.life()):
        await bench.until(row.acquisition, "quarantined")
        async with asyncio.timeout(30):
            while not await cloud.entries("delivery.abandoned"):
                await asyncio.sleep(0)
    assert cloud.store.uploads == {}
    assert (await bench.journal.read(lambda tx: tx.delivery(row.acquisition, "cloud"))).upload_url is None


async def test_p02_what_a_kill_left_is_given_up_by_the_next_life(bench, cloud):
    gone, wanted = await bench.sealed(3 << 20), await bench.sealed(3 << 20)
    manifests = [await bench.journal.read(lambda tx, one=one: tx.manifest(one.acquisition)) for one in (gone, wanted)]
    for row, manifest in zip((gone, wanted), manifests, strict=True):
        await cloud.store.register(row.acquisition, manifest, row.sealed.sealed_size_bytes)
    await cloud.store.register("019c16f2-0000-7000-8000-00000000000f", manifests[0], 5)  # never in the journal
    policy = StorePolicy([PolicyStore(store="cloud", name="cloud", min_retention=timedelta(days=31))])

    def give_up(tx):
        tx.set_outlets({"cloud"})
        tx.deliver(gone.acquisition, "cloud", DeliveryEvent.REFUSED, policy, details={"reason": "x"}, reason="x")

    await bench.journal.write(give_up)
    cloud.store.fail(Call.ABANDON, StoreUnreachable("not now"))
    async with running(cloud.life()):
        await bench.until(wanted.acquisition, "stored")
        async with asyncio.timeout(30):
            while any(one.acquisition != wanted.acquisition for one in cloud.store.uploads.values()):
                await asyncio.sleep(0)
    assert [call for call, _ in cloud.store.calls].count(Call.REGISTER) == 4  # the wanted one was found again


async def test_p02_an_upload_that_the_journal_wants_is_no_orphan(bench, cloud):
    row = await bench.sealed(3 << 20)
    manifest = await bench.journal.read(lambda tx: tx.manifest(row.acquisition))
    url = await cloud.store.register(row.acquisition, manifest, row.sealed.sealed_size_bytes)
    await bench.journal.write(lambda tx: tx.set_outlets({"cloud"}))
    async with running(cloud.life()):
        await bench.until(row.acquisition, "stored")
    assert (await bench.journal.read(lambda tx: tx.delivery(row.acquisition, "cloud"))).upload_url == url


async def test_the_upload_of_a_clip_that_is_read_anew_is_given_up(bench, cloud):
    row = await bench.sealed(3 << 20)
    manifest = await bench.journal.read(lambda tx: tx.manifest(row.acquisition))
    url = await cloud.store.register(row.acquisition, manifest, row.sealed.sealed_size_bytes)
    policy = StorePolicy([PolicyStore(store="cloud", name="cloud", min_retention=timedelta(days=31))])

    def spoil(tx):
        tx.set_outlets({"cloud"})
        tx.deliver(row.acquisition, "cloud", DeliveryEvent.REGISTERED, policy, upload_url=url)
        tx.advance(row.acquisition, AcquisitionEvent.SPOILED, details={"reason": "gone"}, quarantine_reason="gone")

    await bench.journal.write(spoil)
    async with running(cloud.life()), asyncio.timeout(30):
        while not await cloud.entries("delivery.abandoned"):
            await asyncio.sleep(0)
    assert url not in cloud.store.uploads


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([finding()], ""),
        ([finding(answer=Answer.NO)], ""),
        ([finding(Question.LOCKED, Answer.NO)], "no lock was seen to hold"),
        ([finding(), finding(Question.LOCKED, Answer.UNKNOWN)], "its lock was not tried yet"),
        ([finding(Question.READ_BACK, Answer.NO)], "it gave nothing back"),
        ([finding(), finding(Question.READ_BACK, Answer.UNKNOWN)], ""),
    ],
)
async def test_p01_doctor_status_and_what_is_erased_say_the_same_of_a_store(bench, cloud, answers, words):
    row = await bench.sealed(1 << 20)
    async with running(cloud.life()) as stores:
        await bench.until(row.acquisition, "stored")
        uplink = stores.uplinks["cloud"]
        cloud.answers = answers
        bench.clock.passed_s += GOOD_FOR.total_seconds()  # what an unknown answer leaves standing was never known
        uplink.enforced.findings = ()
        said = await doctor.examine(uplink.outlet, uplink.enforced, stores.policy)
        assert words in stores.status()[0].held
        assert bool(stores.status()[0].held) == bool(words)
        assert words[1:] in " ".join(said.meaning)
        assert any("its word is asked for" in one for one in said.wrong) == bool(words)
        (confirmer,) = stores.asking().confirmers()
        if words:
            with pytest.raises(StoreUnproven, match=words):
                await confirmer.ask_again(row.acquisition)
        else:
            assert (await confirmer.ask_again(row.acquisition)).store == "cloud"
