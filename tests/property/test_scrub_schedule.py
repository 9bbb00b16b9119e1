"""When stored clips are read again, by clocks that go on, stand still, leap ahead and are set back."""

import sqlite3
from datetime import UTC, datetime, timedelta
from importlib import resources

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dockd.receiver import scrub_rows
from dockd.receiver.scrub_rows import Pace, What

PACE = Pace(every=timedelta(days=30), first_within=timedelta(days=1))
STATION = "00000000-0000-4000-8000-000000000001"


class Schedule(RuleBasedStateMachine):
    """A catalogue of clips with receipts, and a scrub that looks at whatever is due."""

    def __init__(self):
        super().__init__()
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.row_factory = sqlite3.Row
        for script in sorted((resources.files("dockd.receiver") / "sql").iterdir(), key=lambda one: one.name):
            self.db.executescript(script.read_text())
        self.now = datetime(2026, 11, 20, tzinfo=UTC)
        self.last = {}  # when each was last looked at, by a clock that only goes on; when it was stored before that
        self.passed = timedelta()
        self.lost = {}

    def teardown(self):
        self.db.close()

    @rule()
    def store(self):
        name = f"00000000-0000-7000-8000-{len(self.last):012d}"
        self.db.execute(
            "INSERT INTO acquisition (station, acquisition, upload, state, manifest, signature, manifest_digest,"
            " sealed_digest, size_bytes, stanzas, durable_bytes, expires_us)"
            " VALUES (?, ?, ?, 'stored', ?, 's', 'd', ?, 1, 2, 1, 0)",
            (STATION, name, name, b"{}", name),
        )
        self.db.execute(
            "INSERT INTO receipt (station, acquisition, receipt_seq, payload, signature, digest, retention_until_us)"
            " VALUES (?, ?, ?, ?, 's', 'd', 0)",
            (STATION, name, len(self.last) + 1, b"{}"),
        )
        scrub_rows.begin_again(self.db, STATION, name, self.now)
        self.last[name] = self.passed

    @rule(passed=st.timedeltas(timedelta(0), timedelta(days=40)))
    def time_passes(self, passed):
        self.now += passed
        self.passed += passed

    @rule(by=st.timedeltas(timedelta(days=-900), timedelta(days=900)))
    def the_clock_is_set(self, by):
        self.now += by

    @precondition(lambda self: self.last)
    @rule(what=st.sampled_from([None, None, None, "eio", *list(What)[:3]]))
    def everything_due_is_looked_at(self, what):
        for _ in range(3 * len(self.last) + 3):
            due = scrub_rows.next_due(self.db, PACE, self.now)
            if due is None:
                return
            name = due.one.acquisition
            if what is None:
                scrub_rows.note_well(self.db, due.one, self.now)
                self.lost.pop(name, None)
                self.last[name] = self.passed
            elif what == "eio" or due.proof is not what:
                proof = None if what == "eio" else what
                scrub_rows.note_suspected(self.db, due, PACE, self.now, "seen", proof)
            else:
                scrub_rows.note_lost(self.db, due.one, self.now, what, "seen")
                self.lost[name] = what
                self.last[name] = self.passed
        raise AssertionError("a look that is done is due again at once")

    @invariant()
    def what_was_not_looked_at_for_long_is_due_whatever_the_clock_says(self):
        rows = self.db.execute("SELECT acquisition, again_us FROM look").fetchall()
        waits = {row["acquisition"] for row in rows if row["again_us"] is not None}
        if scrub_rows.next_due(self.db, PACE, self.now) is None:
            looked = scrub_rows.looked(self.db, PACE, self.now)
            assert looked.late <= len(waits), "nothing is late that nobody is about to look at"

    @invariant()
    def what_is_said_is_what_was_found(self):
        found = scrub_rows.looked(self.db, PACE, self.now, STATION)
        assert found.objects == len(self.last)
        assert found.looked + found.never <= found.objects
        assert (found.oldest is not None) == (found.looked > 0)
        assert found.losses == len(self.lost)
        told = scrub_rows.losses(self.db, STATION, "", 1000)
        assert {one.acquisition: one.what for one in told} == self.lost


Schedule.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSchedule = Schedule.TestCase
