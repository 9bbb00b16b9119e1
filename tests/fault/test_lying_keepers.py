"""Stores that do not sign and lie later: never an erasure of what one could not give back at the warrant.

A state machine of lies, at every point between the first confirmation and the batch's commit: S3, tus and Axis servers
on loopback, and a store in memory. The bound of a sample is stated in docs/stores.md; what may be missed within it is
in `liars.SMALL`, and nothing else.
"""

import asyncio
import random
import runpy
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import liars
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dockd.core import warrant
from dockd.core.findings import Answer, Finding, Question
from dockd.core.lifecycle import DeliveryEvent, DeliveryState
from dockd.core.manifest import decode
from dockd.core.objects import Piece
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.proof import CHUNK_BYTES, CHUNKS, WHOLE_BYTES, Needs, least_shown, weigh
from dockd.errors import StoreError, StoreForgot, StoreUnproven, VerificationFailed, WarrantRefused
from dockd.model import CacheState, Reread
from dockd.stages.confirm_objects import ObjectConfirmer, Throttle
from dockd.stores import s3_probe
from dockd.stores.axis import AxisStore
from dockd.stores.axis_records import Objects as AxisObjects
from dockd.stores.axis_session import AxisCredentials
from dockd.stores.credentials import EnvironmentCredentials
from dockd.stores.s3 import S3Store
from dockd.stores.s3_records import Lock, LockMode
from dockd.stores.s3_records import Objects as S3Objects
from dockd.stores.tus_store import TusStore

Kit = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
KINDS = ("memory", "S3", "tus", "Axis")
SIZE = (2 << 20) + 4096  # a sample of it is half of it
LEAST = timedelta(days=31)
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
SEEN = Counter()  # of all machines: what happened at all


def findings(checksum, lock=Answer.YES, read=Answer.YES):
    answers = {
        Question.WRONG_CHECKSUM: Answer.YES,
        Question.CHECKSUM_BACK: checksum,
        Question.READ_BACK: read,
        Question.LOCKED: lock,
    }
    return tuple(Finding(question=q, answer=a, claimed=None, detail="tried") for q, a in answers.items())


class Keeper:
    """One lying store with one clip, and the lives of a station that asks it."""

    def __init__(self, bench, kind, size=SIZE):
        self.bench, self.kind, self.size = bench, kind, size
        self.signs_sums = kind in ("memory", "S3")
        self.policy = StorePolicy(
            [PolicyStore(store="cloud", name="cloud", min_retention=LEAST if self.signs_sums else timedelta(0))]
        )
        self.findings = findings(Answer.YES if self.signs_sums else Answer.NO)
        self.random = random.Random(7)
        self.port = self.server = None
        self.confirmer = None

    async def open(self):
        bench = self.bench
        self.row = await bench.sealed(self.size)
        name = self.row.acquisition
        self.manifest = await bench.journal.read(lambda tx: tx.manifest(name))
        right = {
            Piece.SEALED: bench.spool.path(name).read_bytes(),
            Piece.MANIFEST: self.manifest.payload,
            Piece.SIGNATURE: self.manifest.signature.encode(),
        }
        until = bench.clock.now() + timedelta(days=365) if self.signs_sums else None
        self.liar = liars.Liar(right=right, until=until, summed=self.signs_sums)
        self.names = {one.value: one for one in Piece}
        if self.kind == "S3":
            self.names = {
                "clip.age": Piece.SEALED,
                "manifest.json": Piece.MANIFEST,
                "manifest.json.sig": Piece.SIGNATURE,
            }
        if self.kind != "memory":
            self.server = liars.Server(self.liar, self.kind, self.names)
            await self.server.open()
        objects = self._objects(right)

        def change(tx):
            tx.set_outlets({"cloud"})
            tx.deliver(name, "cloud", DeliveryEvent.REGISTERED, self.policy, upload_url="u")
            tx.deliver(name, "cloud", DeliveryEvent.FINISHED, self.policy, objects=objects)

        await bench.journal.write(change)
        await self.begin()

    async def begin(self):
        """A new life: nothing is known but what the journal and the spool have."""
        if self.port is not None:
            await self.port.aclose()
        self.port = self._adapter()

        async def tried():
            if self.kind == "S3":
                self.port.believed = s3_probe.believed(self.findings)
            return self.findings

        self.confirmer = ObjectConfirmer(
            journal=self.bench.journal,
            spool=self.bench.spool,
            store=self.port,
            station=self.bench.station,
            policy=self.policy,
            clock=self.bench.clock,
            random=self.random.randbytes,
            on_changed=lambda row: None,
            throttle=Throttle(self.bench.clock, 0),
            tried=tried,
        )

    async def aclose(self):
        await self.port.aclose()
        if self.server is not None:
            await self.server.aclose()

    @property
    def verdict(self):
        return weigh(self.policy.stores[0], self.findings, signs=False)

    async def state(self):
        return (await self.bench.journal.read(lambda tx: tx.delivery(self.row.acquisition, "cloud"))).state

    async def permit(self):
        """Ask, and issue; as sanitise.permit does it."""
        said = await self.confirmer.ask_again(self.row.acquisition)
        row = await self.bench.row(self.row.acquisition)
        again = Reread(
            docking=row.docking,
            file=row.file,
            plaintext_digest=row.sealed.plaintext_digest,
            cache=CacheState.DROPPED,
        )
        return warrant.issue(
            acquisition=row,
            manifest=decode(self.manifest.payload),
            confirmations=[said],
            policy=self.policy,
            reread=again,
            docking=row.docking,
            epoch=1,
            camera_now=row.camera,
            custody_durable_size=self.bench.journal.durable_size,
            now=self.bench.clock.now(),
        )

    def _objects(self, right):
        sizes = {piece: len(content) for piece, content in right.items()}
        match self.kind:
            case "S3":
                base = f"{self.bench.station}/{self.row.acquisition}"
                return S3Objects(base=base, part_bytes=64 << 20, sizes=sizes).text()
            case "Axis":
                pieces = {piece: (piece.value, sizes[piece]) for piece in Piece}
                return AxisObjects(acquisition=self.row.acquisition, container="c", pieces=pieces).encode()
            case _:
                return liars.addresses(self.names)

    def _adapter(self):
        if self.kind == "memory":
            return liars.Direct(self.liar)
        url = f"http://127.0.0.1:{self.server.port}"
        common = {"name": "cloud", "clock": self.bench.clock, "insecure_loopback": True}
        if self.kind == "tus":
            return TusStore(url=f"{url}/files", random=self.random.randbytes, **common)
        if self.kind == "Axis":
            who = AxisCredentials(user="u", key="k")
            return AxisStore(
                url=f"{url}/auth/v1.0", ca_file=None, credentials=lambda: who, station=self.bench.station, **common
            )
        return S3Store(
            url=url,
            bucket="evidence",
            region="eu-west-1",
            station=self.bench.station,
            credentials=EnvironmentCredentials(KEYS),
            lock=Lock(mode=LockMode.COMPLIANCE, days={}),
            **common,
        )


BYTES = (*liars.GIVEN, *liars.REFUSED, liars.CUT)
LIES = st.sampled_from([*BYTES, *liars.SAID, *liars.SUMMED, *liars.LOCKED])
PIECES = st.sampled_from([Piece.SEALED, Piece.SEALED, Piece.MANIFEST, Piece.SIGNATURE])


class Lies(RuleBasedStateMachine):
    """One store that lies, mends, and lies again, while a station confirms, asks and commits."""

    kind = ""
    bench: ClassVar = None  # of all examples: each has a clip of its own
    loop: ClassVar = None

    @initialize(early=st.sampled_from([False, False, False, True]))
    def start(self, early):
        """`early`: it may lie before the first confirmation, too."""
        self.keeper = Keeper(self.bench, self.kind)
        self.run(self.keeper.open())
        self.confirmed = False
        self.odd = False  # what it said when it was confirmed was no truth
        self.permits = []
        if not early:
            self.confirm()
            assert self.confirmed

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def teardown(self):
        if hasattr(self, "keeper"):
            self.run(self.keeper.aclose())

    # --- the store

    @rule(piece=PIECES, lie=LIES)
    def lie(self, piece, lie):
        self.keeper.liar.lies[piece] = lie

    @rule(piece=PIECES, lie=LIES, after=st.integers(0, 40))
    def lie_soon(self, piece, lie, after):
        """In the middle of a question."""
        self.keeper.liar.later.append((after, piece, lie))

    @rule()
    def mend(self):
        self.keeper.liar.lies.clear()
        self.keeper.liar.later.clear()

    @rule(given=st.booleans())
    def ranges(self, given):
        self.keeper.liar.ranges = given

    # --- the station

    @rule(checksum=st.sampled_from(Answer), lock=st.sampled_from([Answer.YES, Answer.YES, Answer.NO, Answer.UNKNOWN]))
    def trial(self, checksum, lock):
        self.keeper.findings = findings(checksum, lock)

    @precondition(lambda self: not self.confirmed)
    @rule()
    def confirm(self):
        liar = self.keeper.liar
        liar.served.clear()
        try:
            self.run(self.keeper.confirmer.confirm(self.keeper.row.acquisition))
        except (StoreError, VerificationFailed):
            return
        self.confirmed = self.run(self.keeper.state()) is DeliveryState.CONFIRMED
        self.odd = any(not one.honest for one in liar.served)
        assert not self.keeper.verdict.held
        looked = {one.piece: one for one in liar.served if one.look}
        for piece in Piece:
            read = [one for one in liar.served if one.piece is piece and not one.look]
            if self.keeper.verdict.needs is Needs.BYTES or not liar.summed:
                assert sum(one.count for one in read if one.honest) == len(liar.right[piece])
            else:
                assert looked[piece].honest or liar.lies.get(piece) in (*liars.LOCKED, "another version", "no checksum")

    @precondition(lambda self: self.confirmed)
    @rule()
    def spool_file_goes(self):
        self.bench.spool.discard(self.keeper.row.acquisition)

    @rule()
    def another_docking(self):
        self.run(self.keeper.begin())

    @rule(minutes=st.sampled_from([1, 4, 6, 60]))
    def time_passes(self, minutes):
        self.bench.clock.passed_s += 60.0 * minutes

    @precondition(lambda self: self.confirmed)
    @rule()
    def ask(self):
        keeper, liar = self.keeper, self.keeper.liar
        honest = not (liar.lies or liar.later or self.odd or keeper.verdict.held)
        before = dict(liar.lies)
        liar.served.clear()
        try:
            given = self.run(keeper.permit())
        except (StoreError, VerificationFailed, WarrantRefused):
            SEEN["refused"] += 1
            if honest:
                raise
            return
        self._right_when_asked(before)
        self.permits.append(given)
        SEEN["permitted"] += 1

    def _right_when_asked(self, before):
        """The store was asked for enough, and gave back right bytes; what it said right then was no lie."""
        keeper, liar = self.keeper, self.keeper.liar
        assert not keeper.verdict.held
        for piece in Piece:
            served = [one for one in liar.served if one.piece is piece]
            assert [one for one in served if one.look][-1].honest or self.odd
            read = [one for one in served if not one.look]
            wrong = [number for number, one in enumerate(read) if not one.honest]
            assert not wrong or any(one.whole and one.honest for one in read[wrong[-1] :])
            needs = keeper.verdict.needs if piece is Piece.SEALED else Needs.BYTES
            assert sum(one.count for one in read if one.honest) >= least_shown(len(liar.right[piece]), needs)
            lie = before.get(piece)
            if lie in BYTES and liar.lies.get(piece) == lie:  # all the time
                assert lie in liars.SMALL
                assert needs is Needs.CHECKSUM

    @precondition(lambda self: self.confirmed)
    @rule(piece=PIECES, lie=LIES, after=st.sampled_from([0, 0, 0, 3, 9, 15]))
    def lie_to_the_question(self, piece, lie, after):
        if after:
            self.lie_soon(piece, lie, after)
        else:
            self.lie(piece, lie)
        self.ask()
        self.commit()

    @precondition(lambda self: self.confirmed)
    @rule(minutes=st.sampled_from([0, 0, 4, 6]))
    def tell_the_truth(self, minutes):
        self.mend()
        self.ask()
        self.time_passes(minutes)
        self.commit()

    @precondition(lambda self: self.permits)
    @rule()
    def commit(self):
        """What `stages.sanitise.commit` asks in its transaction."""
        now = self.bench.clock.now()
        for given in self.permits:
            try:
                warrant.require_standing(given, now)
            except WarrantRefused:
                assert not given.since <= now < given.until
                SEEN["too late"] += 1
            else:
                assert now - given.since <= warrant.HOLDING_FRESH
                SEEN["erased"] += 1
        self.permits.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_p01_never_an_erasure_of_what_a_store_could_not_give_back_at_the_warrant(kind, tmp_path):
    loop, bench = asyncio.new_event_loop(), Kit["Bench"](tmp_path)
    loop.run_until_complete(bench.open())
    try:
        _lie(type(f"Lies{kind}", (Lies,), {"kind": kind, "bench": bench, "loop": loop}), KINDS.index(kind))
    finally:
        loop.run_until_complete(bench.journal.aclose())
        loop.close()


def _lie(machine, number):
    SEEN.clear()
    seed(20261201 + number)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=12,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert SEEN["erased"] > 5, SEEN
    assert SEEN["refused"] > 10, SEEN


# --- each lie by itself, in memory


@pytest.fixture
async def keeper(bench):
    made = Keeper(bench, "memory")
    await made.open()
    yield made
    await made.aclose()


async def _is_erased(keeper):
    try:
        warrant.require_standing(await keeper.permit(), keeper.bench.clock.now())
    except (StoreError, VerificationFailed, WarrantRefused):
        return False
    return True


@pytest.mark.parametrize("believed", [Answer.YES, Answer.NO, Answer.UNKNOWN])
@pytest.mark.parametrize("spool", ["there", "gone"])
async def test_p01_each_lie_about_each_object_keeps_the_clip_on_its_camera(keeper, spool, believed):
    keeper.findings = findings(believed)
    await keeper.confirmer.confirm(keeper.row.acquisition)
    if spool == "gone":
        keeper.bench.spool.discard(keeper.row.acquisition)
    missed = set()
    for piece in Piece:
        for lie in (*BYTES, *liars.SAID, *liars.SUMMED, *liars.LOCKED):
            assert await _is_erased(keeper)
            keeper.liar.lies = {piece: lie}
            if await _is_erased(keeper):
                missed.add((piece, lie))
            keeper.liar.lies = {}
    if believed is not Answer.YES:  # what it says of checksums is not listened to: its bytes were read
        assert missed == {(piece, lie) for piece in Piece for lie in liars.SUMMED}
    else:
        assert missed <= {(Piece.SEALED, lie) for lie in liars.SMALL}


async def test_p01_an_etag_that_is_kept_stands_for_no_bytes(keeper):
    """As an S3 store that gave zeros, and kept size, ETag and checksum, which a trial had found not to be believed."""
    keeper.findings = findings(Answer.NO)
    await keeper.confirmer.confirm(keeper.row.acquisition)
    assert await _is_erased(keeper)
    keeper.liar.lies[Piece.SEALED] = "zeros"
    with pytest.raises(StoreForgot, match="other bytes of the sealed clip"):
        await keeper.permit()


async def test_p01_a_trial_that_found_no_lock_or_no_bytes_holds_what_was_confirmed(keeper):
    await keeper.confirmer.confirm(keeper.row.acquisition)
    for lock, read, words in (
        (Answer.NO, Answer.YES, "no lock was seen to hold"),
        (Answer.UNKNOWN, Answer.YES, "its lock was not tried yet"),
        (Answer.YES, Answer.NO, "it gave nothing back"),
    ):
        keeper.findings = findings(Answer.YES, lock, read)
        with pytest.raises(StoreUnproven, match=words):
            await keeper.permit()
    keeper.findings = findings(Answer.YES, read=Answer.UNKNOWN)
    assert await _is_erased(keeper)


async def test_p01_a_long_clip_is_compared_in_chunks_and_damage_is_met_as_the_documents_say(bench):
    keeper = Keeper(bench, "memory", WHOLE_BYTES + (1 << 20))
    await keeper.open()
    keeper.findings = findings(Answer.NO)
    await keeper.confirmer.confirm(keeper.row.acquisition)
    keeper.liar.served.clear()
    assert await _is_erased(keeper)
    read = [one for one in keeper.liar.served if not one.look and one.piece is Piece.SEALED]
    assert len(read) == CHUNKS
    assert max(one.count for one in read) == CHUNK_BYTES
    right = keeper.liar.right[Piece.SEALED]
    stretch = 2 * len(right) // (CHUNKS - 2)
    for place in range(5):  # damage as long as two stretches, wherever it lies
        at = (len(right) - stretch) * place // 4
        keeper.liar.lost = (at, at + stretch)
        assert not await _is_erased(keeper)
    keeper.liar.lost = (0, 0)
    bench.spool.discard(keeper.row.acquisition)  # nothing is left to compare chunks with: all of it is read
    keeper.liar.served.clear()
    assert await _is_erased(keeper)
    assert any(one.whole for one in keeper.liar.served if one.piece is Piece.SEALED)
