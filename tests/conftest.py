"""What many tests need: made-up clips, a trial set of real programs, and a run that fails where a test was skipped.

With DOCKD_CI=1 a skipped test fails the run: continuous integration has every oracle, so a skip hides something.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hypothesis
import loop_watch
import pytest
from clips import mp4, sparse_mp4
from trial import Trial

pytest_plugins = (  # servers that live as long as the session
    "servers.programs",
    "servers.ceph",
    "servers.node_tus",
    "servers.lenient_s3",
    "servers.seaweed",
    "servers.swift",
)

# How slow a machine is says nothing of what is tested. Where time is what is promised, a test sets its own deadline.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

_WATCH = loop_watch.Watch()
loop_watch.start(_WATCH)


@pytest.fixture(autouse=True)
def watch():
    """What kept an event loop from its work since the test began, of which there may be nothing."""
    _WATCH.take()
    yield _WATCH
    seen = _WATCH.take()
    assert not seen, "\n".join(seen)


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("DOCKD_CI") == "1" and skipped:
        terminalreporter.section("skipped tests fail this run (DOCKD_CI=1)")
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.write_line(f"{report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if (
        os.environ.get("DOCKD_CI") == "1"
        and skipped
        and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(name="mp4", scope="session")
def mp4_fixture():
    return mp4


@pytest.fixture(name="sparse_mp4")
def sparse_mp4_fixture():
    return sparse_mp4


@pytest.fixture
def trial(tmp_path):
    made = Trial(tmp_path / "trial")
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_trial(tmp_path_factory):
    """A trial that the tests of one module share."""
    made = Trial(tmp_path_factory.mktemp("shared") / "trial")
    yield made
    made.close()


@pytest.fixture
def trial_in():
    """Makes trials in directories of the test's choice, which go with everything in them when it ends.

    They are there to be measured: their programs run as users run them.
    """
    trials = []

    def make(directory: Path) -> Trial:
        trials.append(Trial(directory))
        trials[-1].mode = {}
        return trials[-1]

    yield make
    for trial in trials:
        trial.close()
        shutil.rmtree(trial.directory)
