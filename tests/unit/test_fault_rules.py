"""Fault points and the rules that make them fail."""

import errno
import os
import subprocess
import sys

import pytest

from dockd import faultpoints, faults
from dockd.faultpoints import Act, Kind, Point
from dockd.keep.durable import write_file


def test_every_point_has_a_name_and_a_sentence_of_its_own():
    assert len({point.sentence for point in Point}) > len(Point) // 2
    assert all((point.sentence and "." in point.value) or point is Point.MOVE for point in Point)
    assert all(
        (Kind.SHORT in faultpoints.kinds(point)) == (point.act is Act.WRITE) and len(faultpoints.kinds(point)) >= 6
        for point in Point
    )


def test_without_rules_nothing_stands_between():
    assert faults.parse(" ") is faults.NONE
    assert faults.NONE.act(Point.MOVE, lambda one, two=0: one + two, 1, two=2) == 3


@pytest.mark.parametrize(
    ("kind", "number", "done"),
    [("failed", errno.ETIMEDOUT, 0), ("lost", errno.ETIMEDOUT, 1), ("eio", errno.EIO, 0), ("enospc", errno.ENOSPC, 0)],
)
def test_an_act_fails_before_or_after_it_was_done(kind, number, done):
    failing, calls = faults.parse(f"{kind}@move#2"), []
    failing.act(Point.MOVE, calls.append, 1)
    with pytest.raises(OSError) as caught:  # noqa: PT011  its number is looked at
        failing.act(Point.MOVE, calls.append, 2)
    assert caught.value.errno == number
    failing.act(Point.MOVE, calls.append, 3)
    failing.act(Point.MOVE_SYNC, calls.append, 4)
    assert calls == [1, *[2] * done, 3, 4]


def test_a_short_write_says_how_short_it_was_and_is_written_on(tmp_path):
    failing = faults.parse("short@manifest.data#1")
    write_file(tmp_path / "a", b"0123456789" * 9999, points=faultpoints.MANIFEST, faults=failing)
    assert (tmp_path / "a").read_bytes() == b"0123456789" * 9999
    with (tmp_path / "b").open("wb") as file:
        assert faults.parse("short@part.data").write(Point.PART_DATA, file.fileno(), b"12345", 0) == 2


@pytest.mark.parametrize(
    ("point", "left"), [("data", b"old"), ("sync", b"old"), ("name", b"old"), ("name_sync", b"new")]
)
@pytest.mark.parametrize("kind", ["failed", "eio", "enospc"])
def test_p02_a_file_that_fails_at_a_point_is_the_old_one_or_the_new_one(tmp_path, point, left, kind):
    (tmp_path / "a").write_bytes(b"old")
    failing = faults.parse(f"{kind}@{getattr(faultpoints.RECEIPT, point)}")
    with pytest.raises(OSError):  # noqa: PT011  any of them
        write_file(tmp_path / "a", b"new", points=faultpoints.RECEIPT, faults=failing)
    assert (tmp_path / "a").read_bytes() == left
    assert os.listdir(tmp_path) == ["a"]


def test_rules_in_a_file_act_once_whichever_program_it_is(tmp_path):
    rules = tmp_path / "rules"
    rules.write_text("eio@move\nkill@read:%20:0-5")
    first, second = faults.parse(str(rules)), faults.parse(str(rules))
    with pytest.raises(OSError, match="Input"):
        first.act(Point.MOVE, print)
    for one in (first, second, faults.parse(str(rules))):
        one.act(Point.MOVE, int)
        one.at("read", b"a b", 0, 9)
    assert not rules.exists()


@pytest.mark.parametrize(("kind", "written"), [("before", 0), ("within", 5), ("after", 10)])
def test_a_kill_comes_before_within_or_after(tmp_path, kind, written):
    program = (
        "import os; from dockd import faults; from dockd.faultpoints import Point\n"
        "faults.from_environment().write(Point.PART_DATA, 1, b'0123456789')"
    )
    with (tmp_path / "out").open("wb") as out:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            stdout=out,
            env=os.environ | {faults.VARIABLE: f"kill-{kind}@part.data"},
            check=False,
        )
    assert ended.returncode == -9
    assert (tmp_path / "out").stat().st_size == written


def test_a_kind_that_is_none_is_a_mistake():
    with pytest.raises(ValueError, match="burn"):
        faults.parse("burn@move")
