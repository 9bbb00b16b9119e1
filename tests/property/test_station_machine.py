"""Anything may happen, in any order, to two cameras, a station and a store: the promises hold after each step.

At least 20,000 steps in CI; `DOCKD_MACHINE_STEPS` asks for more.
"""

from __future__ import annotations

import copy
import os
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from property.station_model import POLICIES, STORE_KEY, World
from property.station_twins import RIGHT, WRONG

from dockd.core.lifecycle import ACQUISITION, AcquisitionState, DeliveryState
from dockd.errors import IllegalTransition

A = AcquisitionState
STEPS = int(os.environ.get("DOCKD_MACHINE_STEPS", "20000"))
STEPS_A_RUN = 100
ALL_STEPS = 7  # from reading to erasing
# Where something was broken on purpose, that it fails is enough: the shortest way there takes minutes.
SHRINK = os.environ.get("DOCKD_MACHINE_SHRINK") != "no"
BAYS = (1, 2)
DECISIONS = ("release", "retry", "quarantine", "reopen", "retract", "refuse")
pick = st.integers(0, 5)
counted = {"steps": 0, "erased": 0, "shared": 0}


class Station(RuleBasedStateMachine):
    """The rules pick a camera, a file or a row by number: what there is not is passed over."""

    @initialize(honest=st.booleans(), policy=st.sampled_from(sorted(POLICIES)))
    def start(self, honest, policy) -> None:
        self.world = World(cameras=2, policy=POLICIES[policy])
        self.honest = honest  # in half of the runs nobody lies, so that more of them come as far as erasing

    # --- outside

    @rule(which=pick, name=st.integers(0, 1), damaged=st.booleans())
    def record(self, which, name, damaged):
        self.world.record(self._camera(which), name, damaged=damaged)

    @rule(which=pick, file=pick, how=st.sampled_from(["grow", "tamper", "remove"]))
    def change_a_file(self, which, file, how):
        camera = self._camera(which)
        if camera.files:
            path = sorted(camera.files)[file % len(camera.files)]
            getattr(self.world, how)(camera, path)

    @rule(which=pick, bay=st.sampled_from(BAYS))
    def dock(self, which, bay):
        self.world.dock(self._camera(which), bay)

    @rule(which=pick)
    def undock(self, which):
        camera = self._camera(which)
        if camera.bay is not None:
            self.world.undock(camera)

    @rule()
    def exchange_cards(self):
        self.world.exchange(*self.world.cameras)

    @rule()
    def cut_the_stations_power(self):
        self.world.power_cut()

    @rule()
    def stall_the_mirror(self):
        self.world.stall_mirror()

    @rule(hours=st.sampled_from([-48, 1, 24 * 40]))
    def jump_the_clock(self, hours):
        self.world.jump(hours)

    # --- the station, going on

    @rule(bay=st.sampled_from(BAYS))
    def admit_and_list(self, bay):
        if self.world.admit(bay) or bay in self.world.stays:
            self.world.list(bay)

    @rule(row=pick, cut=st.booleans())
    def acquire(self, row, cut):
        self._try(row, lambda one: self.world.acquire(one, cut=cut))

    @rule(row=pick)
    def reread(self, row):
        self._try(row, self.world.reread)

    @rule(row=pick, whole=st.booleans(), answered=st.booleans())
    def push(self, row, whole, answered):
        self._try(row, lambda one: self.world.push(one, whole=whole, answered=answered))

    @rule(row=pick, whole=st.booleans(), answered=st.booleans())
    def put_objects(self, row, whole, answered):
        self._try(row, lambda one: self.world.put(one, whole=whole, answered=answered))

    @rule(row=pick)
    def look_at_the_objects(self, row):
        self._try(row, self.world.look)

    @rule(row=pick, heard=st.booleans())
    def ask_for_the_receipt(self, row, heard):
        def ask(one):
            signed = self.world.sign(one.acquisition)
            return bool(signed and heard) and self.world.accept(one, signed)

        self._try(row, ask)

    @rule(row=pick, waited=st.sampled_from([0, 0, 0, 6]), cut=st.sampled_from(["", "", "before", "after"]))
    def sanitise(self, row, waited, cut):
        nonce = self.world.nonce()

        def erase(one):
            signed = self.world.hold(one, nonce)
            return self.world.sanitise(one, signed, nonce, waited=waited, cut=cut)

        self._try(row, erase)

    @rule(
        row=pick,
        which=pick,
        bay=st.sampled_from(BAYS),
        steps=st.sampled_from([2, 4, 5, 6, 7, 7, 7]),
        waited=st.sampled_from([0, 0, 0, 6]),
        cut=st.sampled_from(["", "", "", "before", "after"]),
        moved=st.sampled_from([*[""] * 8, *[RIGHT] * 6, *WRONG]),
    )
    def the_whole_way(self, row, which, bay, *, steps, waited, cut, moved):
        """What a quiet day does, or most of it: else few runs of random steps would come as far as an erasure."""
        if not self._camera(which).files:
            self.world.record(self._camera(which), 0, damaged=False)
        self.world.dock(self._camera(which), bay)
        for each in BAYS:
            if self.world.admit(each) or each in self.world.stays:
                self.world.list(each)

        def go(one):
            world = self.world
            for step in [
                lambda now: world.acquire(now, cut=False),
                lambda now: world.push(now, whole=not moved, answered=True),
                lambda now: world.put(now, whole=True, answered=True),
                world.look,
                lambda now: world.reread(now) and moved and world.bring(now, moved) and self._share(now),
                lambda now: bool(signed := world.sign(now.acquisition)) and world.accept(now, signed),
            ][:steps]:
                try:
                    step(world.rows[one.acquisition])
                except IllegalTransition:
                    continue
            now, nonce = world.rows[one.acquisition], world.nonce()
            if steps < ALL_STEPS:
                return False
            return world.sanitise(now, world.hold(now, nonce), nonce, waited=waited, cut=cut)

        self._try(row, go)

    # --- a camera that moved

    @rule(row=pick, wrong=st.sampled_from([RIGHT, RIGHT, *WRONG]))
    def another_station_had_it_before(self, row, wrong):
        self._try(row, lambda one: self.world.bring(one, wrong))

    @rule(row=pick)
    def share(self, row):
        self._try(row, self._share)

    def _share(self, row):
        done = self.world.share(self.world.rows[row.acquisition])
        counted["shared"] += done
        return done

    @precondition(lambda self: not self.honest and self.world.lodged)
    @rule(which=pick)
    def lose_what_another_station_brought(self, which):
        self.world.lose_lodged(which)

    # --- operators and dishonest stores

    @rule(row=pick, decision=st.sampled_from(DECISIONS))
    def decide(self, row, decision):
        self._try(row, lambda one: self.world.decide(one, decision))

    @precondition(lambda self: not self.honest)
    @rule(row=pick, which=pick)
    def replay_a_receipt(self, row, which):
        seen = self.world.seen_receipts
        self._try(row, lambda one: bool(seen) and self.world.accept(one, seen[which % len(seen)]))

    @precondition(lambda self: not self.honest)
    @rule(row=pick)
    def forge_a_receipt(self, row):
        self._try(row, lambda one: one.sealed is not None and self.world.accept(one, self.world.forge(one)))

    @precondition(lambda self: not self.honest)
    @rule(row=pick)
    def sign_for_what_it_does_not_have(self, row):
        def lie(one):
            if one.sealed is None:
                return False
            self.world.lied = True
            return self.world.accept(one, self.world.forge(one, key=STORE_KEY))

        self._try(row, lie)

    @precondition(lambda self: not self.honest)
    @rule(row=pick, which=pick)
    def replay_a_holding_statement(self, row, which):
        seen, nonce = self.world.seen_holdings, self.world.nonce()
        self._try(
            row,
            lambda one: bool(seen) and self.world.sanitise(one, seen[which % len(seen)], nonce, waited=0, cut=""),
        )

    @precondition(lambda self: not self.honest)
    @rule(row=pick)
    def swap_an_object(self, row):
        self._try(row, self.world.swap_object)

    @rule()
    def back_the_store_up(self):
        self.world.backup = copy.deepcopy(self.world.store)

    @precondition(lambda self: not self.honest)
    @rule()
    def restore_the_stores_backup(self):
        self.world.roll_back()

    @rule(days=st.sampled_from([1, 365]))
    def change_the_retention(self, days):
        self.world.store.retention = timedelta(days=days)

    @precondition(lambda self: self.world.alarm)
    @rule()
    def the_stores_operators_explain(self):
        """Only a person ends an alarm, after the store's chain is what the station has last seen."""
        if self.world.last_receipt is None or self.world.store.last == self.world.last_receipt.payload_digest:
            self.world.alarm = False

    # --- the promises

    @invariant()
    def p01_nothing_was_erased_that_too_few_stores_held(self):
        counted["steps"] += 1
        world = self.world
        for content, held in world.erased:
            assert held, f"content {content} was erased, and too few stores held it"
        assert not world.wronged, world.wronged
        counted["erased"] += bool(world.erased)

    @invariant()
    def p02_every_recording_is_somewhere(self):
        world = self.world
        on_cameras = {file.content for camera in world.cameras for file in camera.files.values()}
        stored = {world.held(kept) for kept in (*world.store.kept.values(), *world.cloud.values())}
        for content, fate in world.recorded.items():
            assert fate or content in on_cameras or content in stored or world.lied, f"content {content} is lost"

    @invariant()
    def p05_each_state_means_what_it_says(self):
        world = self.world
        for row in world.rows.values():
            if row.state in (A.SPOOLED, A.UPLOADING, A.STORED, A.WARRANTED, A.ERASED):
                assert row.sealed is not None
                assert row.acquisition in world.manifests
            if row.state in (A.STORED, A.WARRANTED, A.ERASED):
                confirmed = [
                    store
                    for store, state in world.deliveries[row.acquisition].items()
                    if state is DeliveryState.CONFIRMED
                ]
                assert world.policy.satisfied(confirmed) or row.state == A.ERASED
            if row.state == A.ERASED:
                assert not world.is_on_its_camera(row)
            if row.state in (A.WARRANTED, A.ERASED):
                assert row.reread is not None
            if row.state == A.ACQUIRING:
                assert row.bay in world.stays
        for bay, stay in world.stays.items():
            assert stay.camera.bay == bay

    @invariant()
    def p06_what_is_damaged_waits_for_a_person(self):
        for row in self.world.rows.values():
            if row.state in (A.WARRANTED, A.ERASED) and row.sealed.verdict.reasons:
                assert row.released_by

    @invariant()
    def p07_the_log_tells_the_state(self):
        told: dict[str, AcquisitionState] = {}
        for acquisition, event in self.world.log:
            told[acquisition] = A.FOUND if event is None else ACQUISITION[told[acquisition], event]
        assert told == {name: row.state for name, row in self.world.rows.items()}

    # --- how

    def _camera(self, which):
        return self.world.cameras[which % len(self.world.cameras)]

    def _try(self, which, step):
        rows = list(self.world.rows.values())
        if rows:
            try:
                step(rows[-1 - which % len(rows)])
            except IllegalTransition:
                return


@pytest.mark.timeout(900)
def test_p01_p02_p05_p06_p07_hold_whatever_happens(capsys):
    run_state_machine_as_test(
        Station,
        settings=settings(
            max_examples=-(-STEPS * 2 // STEPS_A_RUN),
            stateful_step_count=STEPS_A_RUN,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            phases=tuple(Phase) if SHRINK else (Phase.generate,),
        ),
    )
    with capsys.disabled():
        print(f"\nstate machine: {', '.join(f'{key}: {count}' for key, count in counted.items())}")  # noqa: T201  asked for
    assert counted["steps"] >= STEPS
    assert counted["erased"] > STEPS // 100
    assert counted["shared"] > STEPS // 1000
