"""Every wait of the program comes from one policy, and none of them asks more often in an hour than it may."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dockd
from dockd.core.backoff import ENOUGH_BYTES, MAX_ASKED_S, STORE, WAITS, Pause, RetryBudget, Row

HOUR_S = 3600.0
SOURCE = Path(dockd.__file__).parent
MOST_AN_HOUR = {  # however the draws fall
    "doubted": 60,
    "stopped": 720,
    "clip": 65,
    "docking": 1800,
    "not-ready": 1800,
    "queue": 3610,
    "descriptors": 3600,
}
SLEEPS = {  # everything that sleeps, and where its length comes from
    "app/clock.py": "the clock itself",
    "app/demo.py": "looks at programs of its own",
    "cli/status.py": "`--watch`, for a person",
    "control/notify.py": "systemd's watchdog",
    "control/server.py": "WAITS",
    "devices/blocker.py": "WAITS",
    "reader/mtp/usbfs.py": "a device that restarts, twice at most",
    "receiver/door.py": "a kernel with nothing left to hand over a connection with; turns of the loop",
    "receiver/serve.py": "sweeps",
    "receiver/scrub.py": "the pace of scrubbing",
    "stages/confirm_objects.py": "WAITS, and the pace of reading back",
    "station/course.py": "times that others named: WAITS",
    "station/docking.py": "WAITS",
    "station/tidy.py": "sweeps",
    "station/waiting.py": "times that others named: WAITS, budgets and paces",
    "stores/handshake.py": "passes it on",
}


def asks(delay_s, seconds=HOUR_S):
    """How often something that always fails is asked within so many seconds. `delay_s` gets the number and the time."""
    now_s, count = 0.0, 0
    while now_s < seconds and count < 100_000:
        count += 1
        now_s += delay_s(count, now_s)
    return count


def draws(byte):
    return lambda count: bytes([byte]) * count


@pytest.mark.parametrize("byte", [0, 1, 128, 255])
@pytest.mark.parametrize("name", sorted(MOST_AN_HOUR))
def test_p09_a_wait_bounds_how_often_is_asked_in_an_hour(name, byte):
    policy = WAITS[name]
    count = asks(lambda failures, _: policy.delay_s(failures, draws(byte)))
    assert count <= MOST_AN_HOUR[name]
    assert count >= HOUR_S / policy.cap_s, "it waits longer than it may"


@given(st.lists(st.binary(min_size=6, max_size=6), min_size=1), st.integers(0, ENOUGH_BYTES - 1), st.integers(1, 5))
def test_p09_tasks_at_one_store_share_its_budget_however_the_draws_fall(drawn, brought, tasks):
    """A row of failures, each after hardly anything was brought, of several tasks at once."""
    budget, turns = RetryBudget(saved=10.0, alone_every_s=30.0), iter(drawn * 10_000)
    rows = [Row(random=lambda _: next(turns), budget=budget) for _ in range(tasks)]
    due, count, most = [0.0] * tasks, 0, tasks + budget.most(HOUR_S)
    while (now_s := min(due)) < HOUR_S and count <= most:
        count += 1
        at = due.index(now_s)
        due[at] = now_s + rows[at].failed(now_s, brought_bytes=brought)
    assert count <= most


def test_progress_ends_a_row_and_needs_no_budget():
    budget = RetryBudget(saved=0.0, alone_every_s=30.0)
    row = Row(random=draws(255), budget=budget)
    for _ in range(10):
        row.failed(0.0)
    assert row.failures == 10
    assert row.failed(0.0, brought_bytes=ENOUGH_BYTES) <= STORE.first_s
    assert row.failures == 1
    row.succeeded()
    assert row.failures == 0


def test_every_policy_is_in_the_table_that_is_tested():
    assert set(MOST_AN_HOUR) | {"store"} == set(WAITS)  # a store's is bounded by its budget


def test_no_policy_is_made_elsewhere():
    made = [file for file in SOURCE.rglob("*.py") if "Backoff(" in file.read_text() and file.name != "backoff.py"]
    assert made == []


def test_everything_that_sleeps_is_known():
    found = {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep"
    }
    assert found <= set(SLEEPS)


@given(st.floats(0, 1e12))
def test_what_the_other_side_asks_for_is_honoured_up_to_an_hour(asked_s):
    pause = Pause().after_failure(0.0, draws(255), STORE, retry_after_s=asked_s)
    assert min(asked_s, MAX_ASKED_S) <= pause.left_s(0.0) <= max(MAX_ASKED_S, STORE.cap_s)
