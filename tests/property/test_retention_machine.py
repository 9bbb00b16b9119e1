"""How long stores keep clips, with clocks that move on both sides: no warrant on a promise that does not reach.

Clips are docked late, with camera clocks that are wrong, and docked again; policies are shortened and mended; objects
are shared; some receipts are from before there were policies. The store is as quick as its promises let it be: at the
moment that the last of them names, the bytes are gone. At the end the policy is mended, and no camera is blocked.
"""

from __future__ import annotations

import os
import sys
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from manifests import stated

from dockd.core import canonical, receipts, retention
from dockd.core.extensions import verify_extension
from dockd.core.manifest import Manifest, encode
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.promises import read_extension, read_receipt
from dockd.core.retention import Terms, Until
from dockd.core.sshsig import SigningKey
from dockd.core.warrant import SignedConfirmation, issue, require_standing
from dockd.errors import NotExtended, StoreUnproven, WarrantRefused
from dockd.model import (
    Acquisition,
    CacheState,
    CameraIdentity,
    Category,
    FoundFile,
    Reread,
    Sealed,
    SignedBytes,
    Verdict,
    VerdictStatus,
)
from dockd.stages.extending import Extending
from dockd.station.agreement import shortfall
from dockd.stores.memory_words import Words

STORE, STATION, DOCKING = (str(uuid.UUID(int=number)) for number in (2, 1, 99))
KEY = SigningKey.generate()
DAY, ROOT = timedelta(days=1), bytes(32)
USUAL = {"evidence": Terms(until=Until.ENDED), "none": Terms()}
POLICIES = {
    "usual": USUAL,
    "long": USUAL | {"none": Terms(recorded_days=90, review_days=14)},
    "short": USUAL | {"none": Terms(recorded_days=20, review_days=2, undo_days=1)},
    "very short": USUAL | {"none": Terms(recorded_days=2, review_days=1, undo_days=1)},
    "evidence has a date": USUAL | {"evidence": Terms(recorded_days=60)},
}
MINIMA = {"evidence": Terms(), "none": Terms()}
POLICY = StorePolicy([PolicyStore(store=STORE, name="archive", minima=MINIMA)])
CAMERA = CameraIdentity(serial="C", model="M", volume_id="V")
STEPS = int(os.environ.get("DOCKD_RETENTION_STEPS", "8000"))
STEPS_A_RUN = 40
counted = {"steps": 0, "warrants": 0, "extensions": 0, "late": 0, "refused": 0, "shared": 0, "sent again": 0}
pick = st.integers(0, 3)


class Moved:
    """A clock that may be wrong."""

    def __init__(self, world):
        self.world, self.offset = world, timedelta(0)

    def now(self):
        return self.world.true_now + self.offset


@dataclass
class Sent:
    """One acquisition at the store."""

    row: Acquisition
    manifest: Manifest
    signed: SignedBytes
    promised: list[SignedBytes]  # the receipt, and the extensions that the store has given
    extensions: list[SignedBytes] = field(default_factory=list)  # those that arrived
    shares: Sent | None = None  # the acquisition whose object stands for its own
    gone: bool = False  # the store has deleted its object

    def keeps(self):
        """Until when the store has to keep it; None: until a person ends it."""
        said = [read_receipt(self.promised[0].payload), *(read_extension(one.payload) for one in self.promised[1:])][-1]
        return None if said.is_endless else said.kept_until


@dataclass
class Clip:
    """On a camera until it is erased."""

    recorded_at: datetime | None  # as its camera says
    category: Category
    sent: list[Sent] = field(default_factory=list)
    erased: bool = False
    safe_until: datetime | None = None  # of an erasure by a station whose clock was not behind: until then nothing goes


class Desk:
    """A journal and a store for dockd's own Extending, of one acquisition."""

    def __init__(self, machine, sent):
        self.machine, self.sent = machine, sent
        self.store, self.key = STORE, KEY.public

    async def read(self, query):
        return query(self)

    async def write(self, change):
        return change(self)

    def manifest(self, _name):
        return self.sent.signed

    def acquisition(self, _name):
        return self.sent.row

    def extensions(self, _name, _store):
        return list(self.sent.extensions)

    def put_extension(self, _name, _store, number, signed):
        assert number == len(self.sent.extensions) + 1
        self.sent.extensions.append(signed)
        return True

    def record_about(self, *_):
        counted["extensions"] += 1

    async def extension(self, _name, receipt, after):
        assert receipt == canonical.digest(self.sent.promised[0].payload)
        if self.machine.lacks(self.sent):
            raise NotExtended("it is gone", over=True)
        if after == len(self.sent.promised) - 1:
            made = self.machine.words.extension(self.sent.manifest, promised=self.sent.promised)
            self.sent.promised.append(made)
        return self.sent.promised[after + 1]


def run(coroutine):
    """What never waits."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waited")


class Keeping(RuleBasedStateMachine):
    """The rules pick a clip by number."""

    def __init__(self):
        super().__init__()
        self.true_now = datetime(2026, 1, 1, tzinfo=UTC)
        self.store_clock, self.station_clock = Moved(self), Moved(self)
        self.words = Words(store=STORE, key=KEY, clock=self.store_clock, retention=32 * DAY, categories=USUAL)
        self.clips: list[Clip] = []
        self.receipts: list[SignedBytes] = []

    # --- what happens

    @rule(
        age_days=st.one_of(st.integers(0, 120), st.just(None), st.sampled_from([-3650, -400, 3650, 36_500, -1])),
        evidence=st.booleans(),
    )
    def record(self, age_days, evidence):
        """A clip that waits on a camera; ages that cannot be are of a camera whose clock is wrong."""
        if len(self.clips) == 4:
            self.clips.pop(0)
        at = None if age_days is None else self.true_now - age_days * DAY
        self.clips.append(Clip(at, Category.EVIDENCE if evidence else Category.NONE))

    @rule(hours=st.one_of(st.integers(1, 48), st.integers(24, 24 * 45)))
    def time_passes(self, hours):
        self.true_now += timedelta(hours=hours)
        self.delete()

    @rule(side=st.sampled_from(["store", "station"]), hours=st.sampled_from([0, 0, 1, -1, 24, -24, 24 * 40, -24 * 40]))
    def clock_moves(self, side, hours):
        clock = self.store_clock if side == "store" else self.station_clock
        clock.offset = timedelta(hours=hours)
        self.delete()

    @rule(name=st.sampled_from(sorted(POLICIES)))
    def policy_changes(self, name):
        self.words.mend(POLICIES[name])

    @rule(number=pick, kind=st.sampled_from(["usual", "usual", "old", "sharing"]), unaware=st.booleans())
    def send(self, number, kind, unaware):
        """The clip is sent and signed for, where the policy is long enough, as far as the station has heard of it.

        By a store of before (`old`), or by one that has another's object of the same clip.
        """
        clip = self.chosen(number)
        if clip is None or clip.sent or clip.erased or (self.is_short() and not unaware):
            return
        self.deliver(clip, old=kind == "old", shares=kind == "sharing")

    @rule(hours=st.integers(0, 24 * 20), mended=st.sampled_from(["usual", "long"]), age_days=st.integers(0, 40))
    def policy_is_mended_after_a_receipt(self, hours, mended, age_days):
        self.record(age_days, evidence=False)
        self.policy_changes("short")
        self.deliver(self.clips[-1])
        self.time_passes(hours)
        self.policy_changes(mended)
        self.erase(self.clips[-1])

    @rule(ages=st.tuples(st.integers(0, 40), st.integers(0, 40)), hours=st.integers(0, 24 * 20), evidence=st.booleans())
    def another_clip_rests_on_the_same_object(self, ages, hours, evidence):
        self.record(ages[0], evidence)
        self.deliver(self.clips[-1])
        self.time_passes(hours)
        self.record(ages[1], evidence=False)
        self.deliver(self.clips[-1], shares=True)
        self.erase(self.clips[-1])

    @rule(number=pick)
    def warrant(self, number):
        clip = self.chosen(number)
        if clip is not None and clip.sent and not clip.erased:
            self.erase(clip)

    # --- what has to hold

    @invariant()
    def p01_what_was_erased_is_kept_as_long_as_the_margin_says(self):
        for clip in self.clips:
            if clip.safe_until is not None and self.true_now < clip.safe_until:
                assert not all(self.lacks(sent) for sent in clip.sent)

    def teardown(self):
        """Whatever happened: once the policy is mended and the clocks are right, every camera gets empty."""
        self.store_clock.offset = self.station_clock.offset = timedelta(0)
        self.delete()
        self.words.mend(USUAL)
        for clip in self.clips:
            if clip.erased:
                continue
            if not clip.sent:
                self.deliver(clip)
            if not self.erase(clip):
                counted["sent again"] += 1
                self.deliver(clip)
                assert self.erase(clip), "a camera is blocked by a policy that was mended"

    # --- how

    def chosen(self, number):
        return self.clips[number % len(self.clips)] if self.clips else None

    def is_short(self):
        signed = self.words.policy
        assert signed is not None
        policy = retention.verify_policy(signed, store_key=KEY.public, store=STORE)
        return bool(shortfall(policy, POLICY.stores[0]))

    def lacks(self, sent):
        return (sent.shares or sent).gone

    def delete(self):
        """At the first moment at which no promise forbids it. A store deletes by a clock that is synchronised."""
        sent = [one for clip in self.clips for one in clip.sent]
        for one in sent:
            if one.shares is None:
                users = [one, *(other for other in sent if other.shares is one)]
                dates = [user.keeps() for user in users]
                if all(date is not None and date <= self.true_now for date in dates):
                    one.gone = True

    def deliver(self, clip, *, old=False, shares=False):
        number = len(self.receipts)
        name = str(uuid.UUID(int=(0x019 << 116) | (7 << 76) | (2 << 62) | number))
        file = FoundFile(path=b"A.mp4", size_bytes=9, mtime_ns=1, inode=1)
        sealed = Sealed(
            file=file,
            plaintext_digest=canonical.digest(b"plain"),
            plaintext_size_bytes=9,
            sealed_digest=canonical.digest(b"sealed"),
            sealed_size_bytes=9,
            verdict=Verdict(status=VerdictStatus.INTACT, container="mp4"),
            recipients=("sha256:" + "1" * 64, "sha256:" + "2" * 64),
        )
        row = Acquisition(
            acquisition=name,
            state="stored",
            docking=DOCKING,
            bay=1,
            camera=CAMERA,
            file=file,
            category=clip.category,
            category_reason="",
            found_at=self.station_clock.now(),
            sealed=sealed,
            custody_seq=7,
        )
        manifest = replace(stated(STATION, row, sealed, 7, bytes(32)), recorded_at=clip.recorded_at)
        payload = encode(manifest)
        row = replace(row, manifest_digest=canonical.digest(payload))
        words = Words(store=STORE, key=KEY, clock=self.store_clock, retention=32 * DAY, categories=None)
        receipt = (words if old else self.words).receipt(
            payload, manifest, before=self.receipts, witnessed=(5, ROOT), other=None
        )
        self.receipts.append(receipt)
        others = (one for known in self.clips if shares and known is not clip for one in known.sent)
        other = next((one for one in others if not self.lacks(one)), None)
        target = (other.shares or other) if other else None
        counted["shared"] += target is not None
        clip.sent.append(Sent(row, manifest, SignedBytes(payload=payload, signature=""), [receipt], shares=target))
        counted["late"] += retention.is_late(Terms(), stated=clip.recorded_at, arrived=self.store_clock.now())

    def erase(self, clip):
        """As a station does: extend what does not reach, ask whether it is held now, and rest a warrant on it."""
        sent, now = clip.sent[-1], self.station_clock.now()
        signed = sent.signed.payload
        receipt = receipts.verify_receipt(
            sent.promised[0], store_key=KEY.public, store=STORE, station=STATION, manifest=signed
        )
        desk = Desk(self, sent)
        try:
            extension = run(
                Extending(journal=desk, store=desk, policy=POLICY, clock=self.station_clock).lasting(receipt)
            )
        except StoreUnproven:
            counted["refused"] += 1
            extension = None  # the warrant has to refuse it as well
        if self.lacks(sent):
            return False
        if extension is None and sent.extensions:
            for one in sent.extensions:
                extension = verify_extension(
                    one, store_key=KEY.public, receipt=receipt, manifest=signed, previous=extension
                )
        said = self.words.holding(signed, sent.manifest, promised=sent.promised, nonce=bytes(32), other=None)
        holding = receipts.verify_holding(
            said, store_key=KEY.public, store=STORE, station=STATION, manifest=signed, nonce=bytes(32)
        )
        confirmation = SignedConfirmation(receipt=receipt, holding=holding, asked_at=now, extension=extension)
        try:
            issued = issue(
                acquisition=sent.row,
                manifest=sent.manifest,
                confirmations=[confirmation],
                policy=POLICY,
                reread=Reread(
                    docking=DOCKING,
                    file=sent.row.file,
                    plaintext_digest=sent.manifest.plaintext_digest,
                    cache=CacheState.DROPPED,
                ),
                docking=DOCKING,
                epoch=1,
                camera_now=CAMERA,
                custody_durable_size=8,
                now=now,
            )
            require_standing(issued, now)
        except WarrantRefused:
            counted["refused"] += 1
            return False
        keeps = sent.keeps()
        assert keeps is None or keeps - now >= POLICY.margin, "a warrant on a promise that does not reach"
        clip.erased = True
        clip.safe_until = self.true_now + POLICY.margin if now >= self.true_now else None
        counted["warrants"] += 1
        return True

    @invariant()
    def count(self):
        counted["steps"] += 1


def test_p01_no_warrant_rests_on_a_promise_that_does_not_reach_and_no_mended_policy_blocks_a_camera(capsys):
    run_state_machine_as_test(
        Keeping,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_A_RUN),
            stateful_step_count=STEPS_A_RUN,
            derandomize="DOCKD_RETENTION_STEPS" not in os.environ,  # what it has to come to, it comes to in every run
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    with capsys.disabled():  # how far it came, beside the dots
        sys.stdout.write(
            "\nretention machine: " + ", ".join(f"{name}: {count}" for name, count in counted.items()) + "\n"
        )
    for name, count in counted.items():
        assert count > 0, f"the machine never came to {name}"
    assert counted["steps"] >= STEPS / 2
