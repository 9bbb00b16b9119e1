"""Any course of a journal against a dictionary: states, counts, picks, custody, rollback, reopening."""

import asyncio
import contextlib
import runpy
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dockd.core import merkle
from dockd.core.delivery import next_event
from dockd.core.lifecycle import (
    ACQUISITION,
    DELIVERY,
    AcquisitionEvent,
    AcquisitionState,
    DeliveryEvent,
    DeliveryState,
)
from dockd.errors import IllegalTransition
from dockd.keep.records import Tally
from dockd.model import Category, VerdictStatus

Kit = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "keep" / "conftest.py"))["Kit"]
E, S, V = AcquisitionEvent, AcquisitionState, DeliveryState
SENT = {S.SPOOLED, S.UPLOADING, S.STORED, S.WARRANTED, S.ERASED}
OPEN = {V.WAITING, V.REGISTERED, V.FINISHED}
DOCKINGS = (1, 2)


class Undo(Exception):
    """Raised by a change that is to leave no trace."""


class JournalModel(RuleBasedStateMachine):
    """Rows as a dictionary beside the journal."""

    @initialize()
    def start(self):
        self.stack = contextlib.ExitStack()
        self.loop = asyncio.new_event_loop()
        self.kit = Kit(Path(self.stack.enter_context(tempfile.TemporaryDirectory())))
        self.rows = {}
        self.deliveries = {}
        self.entries = 0
        self.journal = self.run(self.kit.open())
        for number in DOCKINGS:
            self.write(lambda tx, number=number: self.kit.begin(tx, number))
            self.entries += 1

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def write(self, change):
        return self.run(self.journal.write(change))

    def read(self, query):
        return self.run(self.journal.read(query))

    @rule(
        path=st.binary(min_size=1, max_size=3),
        size=st.integers(0, 5),
        category=st.sampled_from(Category),
        docking=st.sampled_from(DOCKINGS),
    )
    def find(self, path, size, category, docking):
        number = len(self.rows) + 1
        clip = self.kit.clip(number, path=path, size_bytes=size, category=category, docking=docking)
        self.rows[clip.acquisition] = self.write(lambda tx: tx.add_acquisition(clip))
        self.entries += 1

    @precondition(lambda self: self.rows)
    @rule(
        data=st.data(),
        likely=st.booleans(),
        undo=st.booleans(),
        docking=st.sampled_from(DOCKINGS),
        status=st.sampled_from(VerdictStatus),
    )
    def advance(self, data, likely, undo, docking, status):
        row = self.rows[data.draw(st.sampled_from(sorted(self.rows)))]
        legal = [event for state, event in ACQUISITION if state == row.state]
        event = data.draw(st.sampled_from(legal if likely and legal else list(E)))
        changes = {
            E.SEALED: {"sealed": self.kit.sealed(row, status)},
            E.REREAD: {"reread": self.kit.reread(row, docking)},
            E.CONTESTED: {"contested": True},
            E.RELEASED: {"released_by": "anna"},
            E.SEEN_AGAIN: {"docking": self.kit.docking(docking), "bay": docking},
        }.get(event, {})

        def change(tx):
            after = tx.advance(row.acquisition, event, **changes)
            if undo:
                raise Undo
            return after

        try:
            after = self.write(change)
        except IllegalTransition:
            assert event not in legal
        except Undo:
            assert event in legal
        else:
            assert after == self.kit.replace(row, state=ACQUISITION[S(row.state), event], **changes)
            self.rows[row.acquisition] = after
            self.entries += 1
            if after.state == S.SPOOLED:
                self.deliveries.setdefault(row.acquisition, V.WAITING)

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data(), likely=st.booleans())
    def deliver(self, data, likely):
        """The delivery to the one store, and the acquisition behind it."""
        name = data.draw(st.sampled_from(sorted(self.deliveries)))
        legal = [event for state, event in DELIVERY if state == self.deliveries[name]]
        event = data.draw(st.sampled_from(legal if likely else list(DeliveryEvent)))
        said = {"confirmation_digest": self.kit.digest} if event is DeliveryEvent.CONFIRMED else {}
        policy, store = self.kit.policy, self.kit.store
        try:
            delivery, row = self.write(lambda tx: tx.deliver(name, store, event, policy, reason="", **said))
        except IllegalTransition:
            assert event not in legal
            return
        self.deliveries[name] = DELIVERY[self.deliveries[name], event]
        assert delivery.state == self.deliveries[name]
        self.entries += 1
        state = S(self.rows[name].state)
        while followed := next_event(state, {store: delivery.state}, policy):
            state = ACQUISITION[state, followed]
            self.entries += 1
        assert row.state == state
        self.rows[name] = row

    @rule()
    def reopen(self):
        self.run(self.journal.aclose())
        self.journal = self.run(self.kit.open())

    @invariant()
    def agrees(self):
        if not hasattr(self, "journal"):
            return
        rows = list(self.rows.values())
        assert self.read(lambda tx: tx.acquisitions()) == rows
        assert self.journal.durable_size == self.entries
        lines = self.read(lambda tx: tx.lines(0, self.entries + 1))
        assert self.kit.mirror.read_bytes() == b"".join(line + b"\n" for line in lines)
        frontier = merkle.Frontier()
        for line in lines:
            frontier.append(line)
        assert self.read(lambda tx: merkle.root_at(tx, tx.size)) == frontier.root()
        for number in DOCKINGS:
            self.counts_agree(number, [row for row in rows if row.docking == self.kit.docking(number)])
        self.uplink_agrees(rows)

    def counts_agree(self, number, rows):
        docking = self.kit.docking(number)
        counts, erase, reread = self.read(
            lambda tx: (tx.counts(docking), tx.next_to_erase(docking, limit=99), tx.next_to_reread(docking, limit=99))
        )
        clips = Counter(row.state for row in rows)
        assert {state: tally.clips for state, tally in counts.states.items() if tally.clips} == clips
        assert counts.of().size_bytes == sum(row.file.size_bytes for row in rows)
        held = [row for row in rows if row.state == S.STORED and not may_go(row)]
        assert counts.held == Tally(clips=len(held), size_bytes=sum(row.file.size_bytes for row in held))

        def order(row):
            return row.category.value, row.file.path, row.acquisition

        read = [row for row in rows if row.state in {S.SPOOLED, S.UPLOADING, S.STORED} and not row.contested]
        here = [row for row in read if row.reread is not None and row.reread.docking == docking]
        assert reread == sorted((row for row in read if row not in here), key=order)
        assert erase == sorted((row for row in here if row.state == S.STORED and may_go(row)), key=order)
        for state in S:
            picked = self.read(lambda tx, state=state: tx.next_in(docking, state, limit=99))
            assert picked == sorted((row for row in rows if row.state == state), key=order)

    def uplink_agrees(self, rows):
        outstanding = Counter()
        for row in rows:
            if row.state in {S.FOUND, S.ACQUIRING, S.SPOOLED, S.UPLOADING}:
                outstanding[row.docking] += row.file.size_bytes
        kept = self.read(lambda tx: {name: tx.delivery(name, self.kit.store).state for name in self.deliveries})
        assert kept == self.deliveries
        wanted = sorted(
            (row for row in rows if row.state in SENT and self.deliveries.get(row.acquisition) in OPEN),
            key=lambda row: (row.category.value, outstanding[row.docking], row.docking, row.found_at),
        )
        for limit in (1, 3, 99):
            assert self.read(lambda tx, limit=limit: tx.uplink_candidates(self.kit.store, limit)) == wanted[:limit]

    def teardown(self):
        if hasattr(self, "journal"):
            self.run(self.journal.aclose())
            self.loop.close()
            self.stack.close()


def may_go(row):
    return row.sealed is not None and (row.sealed.verdict.status is VerdictStatus.INTACT or row.released_by is not None)


TestJournalModel = JournalModel.TestCase
TestJournalModel.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
