"""Any change to a signed custody log is found, and the line is named."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dockd.core import checkpoint
from dockd.core.custody import entry_line, previous_hash
from dockd.core.custody_check import Anchor, DefectKind, verify_log
from dockd.core.merkle import EMPTY_ROOT, Frontier
from dockd.core.sshsig import SigningKey
from dockd.errors import VerificationFailed

STATION = "6f1e2d3c-0000-4000-8000-000000000001"
ORIGIN = f"dockd/{STATION}/1"
KEY = SigningKey.generate()
START = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


def chain(entries, *, first=0, previous=None):
    """Lines with their LF, properly linked."""
    lines, last = [], previous
    for seq, details in enumerate(entries, first):
        last = entry_line(
            seq=seq,
            prev=previous_hash(last),
            at=START + timedelta(seconds=seq),
            event="station.started",
            station=STATION,
            details=details,
        )
        lines.append(last + b"\n")
    return lines


def log_of(size, **more):
    return chain([{"n": number, **more} for number in range(size)])


def root_of(lines):
    frontier = Frontier()
    for line in lines:
        frontier.append(line.removesuffix(b"\n"))
    return frontier.root()


def signed(lines, size=None):
    size = len(lines) if size is None else size
    head = checkpoint.Checkpoint(origin=ORIGIN, size=size, root=root_of(lines[:size]))
    return checkpoint.sign(head, KEY)


def check(lines, note, *anchors):
    return verify_log(lines, note, origin=ORIGIN, public=KEY.public, anchors=anchors)


def found(report):
    return [(defect.kind, defect.line) for defect in report.defects if defect.kind is not DefectKind.ROOT]


def _split(content):
    while content:
        end = content.find(b"\n") + 1 or len(content)
        yield content[:end]
        content = content[end:]


@given(size=st.integers(0, 12), more=st.integers(0, 4))
def test_a_log_is_whole_and_what_is_past_the_checkpoint_is_not_yet_signed(size, more):
    lines = log_of(size + more)
    report = check(lines, signed(lines, size))
    assert report.whole
    assert (report.lines, report.unsigned) == (size + more, more)


@given(data=st.data(), size=st.integers(1, 10))
def test_p07_any_changed_byte_of_a_signed_log_is_found(data, size):
    lines = log_of(size)
    content = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    report = check(list(_split(bytes(content))), signed(lines))
    assert not report.whole
    assert any(defect.line is not None for defect in report.defects)


@given(data=st.data(), size=st.integers(1, 10))
def test_p07_any_cut_of_a_signed_log_is_found(data, size):
    lines = log_of(size)
    content = b"".join(lines)
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    report = check(list(_split(cut)), signed(lines))
    assert DefectKind.TRUNCATED in {defect.kind for defect in report.defects}


@given(data=st.data(), size=st.integers(1, 10))
def test_p07_any_other_arrangement_of_a_signed_log_is_found(data, size):
    lines = log_of(size)
    other = data.draw(st.lists(st.sampled_from(lines), max_size=size + 4))
    assume(other[:size] != lines)
    assert not check(other, signed(lines)).whole


@given(data=st.data(), size=st.integers(1, 10), more=st.integers(0, 3))
def test_p07_a_log_rewritten_with_new_links_is_found_by_its_root(data, size, more):
    lines = log_of(size + more)
    at = data.draw(st.integers(0, size - 1))
    before = lines[at - 1].removesuffix(b"\n") if at else None
    rest = [{"n": number, "forged": True} for number in range(at, size + more)]
    forged = [*lines[:at], *chain(rest, first=at, previous=before)]
    report = check(forged, signed(lines, size))
    assert [defect.kind for defect in report.defects] == [DefectKind.ROOT]
    assert report.defects[0].line == size


@given(data=st.data(), size=st.integers(3, 12))
def test_an_edited_line_is_named(data, size):
    lines = log_of(size)
    at = data.draw(st.integers(0, size - 3))  # with two lines after it
    lines_then = list(lines)
    lines[at] = lines[at].replace(b"station.started", b"station.stopped")
    assert found(check(lines, signed(lines_then))) == [(DefectKind.EDITED, at + 1)]


@given(data=st.data(), size=st.integers(3, 12))
def test_a_line_whose_link_was_edited_is_named(data, size):
    lines = log_of(size)
    at = data.draw(st.integers(0, size - 3))
    lines_then = list(lines)
    start = lines[at].index(b'"prev":"') + 8
    lines[at] = lines[at][:start] + b"e" * 64 + lines[at][start + 64 :]
    assert found(check(lines, signed(lines_then))) == [(DefectKind.EDITED, at + 1)]


@given(data=st.data(), size=st.integers(2, 12), number=st.integers(0, 30))
def test_a_line_whose_number_was_edited_is_named(data, size, number):
    lines = log_of(size)
    at = data.draw(st.integers(0, size - 1))
    assume(number != at)
    lines_then = list(lines)
    lines[at] = lines[at].replace(b'"seq":%d,' % at, b'"seq":%d,' % number)
    assert found(check(lines, signed(lines_then))) == [(DefectKind.EDITED, at + 1)]


@given(data=st.data(), size=st.integers(2, 12))
def test_dropped_lines_are_named(data, size):
    lines = log_of(size)
    first = data.draw(st.integers(0, size - 2))
    last = data.draw(st.integers(first, size - 2))
    report = check([*lines[:first], *lines[last + 1 :]], signed(lines))
    assert found(report) == [(DefectKind.DROPPED, first + 1)]


@given(data=st.data(), size=st.integers(1, 12))
def test_a_missing_end_is_named(data, size):
    lines = log_of(size)
    kept = data.draw(st.integers(0, size - 1))
    assert found(check(lines[:kept], signed(lines))) == [(DefectKind.TRUNCATED, kept + 1)]


@given(data=st.data(), size=st.integers(1, 12))
def test_a_duplicated_line_is_named(data, size):
    lines = log_of(size)
    which = data.draw(st.integers(0, size - 1))
    to = data.draw(st.integers(0, size))
    report = check([*lines[:to], lines[which], *lines[to:]], signed(lines))
    expected = to + 2 if to == which else to + 1  # of two equal neighbours, the second is one too many
    if to == size:
        assert found(report) == [(DefectKind.DUPLICATED, size + 1)]
    else:
        assert found(report) == [(DefectKind.DUPLICATED, expected)]


@given(data=st.data(), size=st.integers(2, 12))
def test_a_moved_line_is_named(data, size):
    lines = log_of(size)
    which = data.draw(st.integers(0, size - 1))
    to = data.draw(st.integers(0, size - 1))
    assume(to != which)
    moved = lines[:which] + lines[which + 1 :]
    moved.insert(to, lines[which])
    kinds = {kind for kind, _ in found(check(moved, signed(lines)))}
    assert kinds == {DefectKind.REORDERED}


@given(junk=st.binary(max_size=80).filter(lambda junk: b"\n" not in junk), size=st.integers(2, 8), data=st.data())
def test_a_line_that_is_no_entry_is_named(junk, size, data):
    lines = log_of(size)
    at = data.draw(st.integers(0, size - 1))
    put_in = [*lines[:at], junk + b"\n", *lines[at:]]
    assert found(check(put_in, signed(lines))) == [(DefectKind.EDITED, at + 1)]
    instead = [*lines[:at], junk + b"\n", *lines[at + 1 :]]
    assert found(check(instead, signed(lines))) == [(DefectKind.EDITED, at + 1)]


def test_several_defects_are_found_in_one_pass():
    lines = log_of(30)
    changed = list(lines)
    changed[3] = changed[3].replace(b"started", b"stopped")
    changed[20] = b"garbage\n"
    del changed[25]
    changed.insert(10, lines[9])
    assert found(check(changed, signed(lines))) == [
        (DefectKind.EDITED, 4),
        (DefectKind.DUPLICATED, 11),
        (DefectKind.EDITED, 22),
        (DefectKind.DROPPED, 27),
    ]


def test_neighbours_that_moved_together_are_one_finding():
    lines = log_of(12)
    changed = [*lines[:2], *lines[5:8], *lines[2:5], *lines[8:]]
    report = check(changed, signed(lines))
    assert found(report) == [(DefectKind.REORDERED, 6)]
    assert "lines 6 to 8 hold entries 2 to 4" in report.defects[0].text


def test_an_earlier_witness_narrows_down_what_was_rewritten():
    lines = log_of(10)
    forged = [*lines[:7], *chain([{"forged": n} for n in range(3)], first=7, previous=lines[6][:-1])]
    witness = Anchor(name="receipt 1", size=5, root=root_of(lines[:5]))
    (defect,) = check(forged, signed(lines), witness).defects
    assert "not before line 6" in defect.text


def test_p07_a_log_put_back_as_a_whole_is_found_by_what_was_witnessed():
    lines = log_of(10)
    older = lines[:6]
    assert check(older, signed(older)).whole
    report = check(older, signed(older), Anchor(name="receipt 7", size=9, root=root_of(lines[:9])))
    assert [(defect.kind, defect.line) for defect in report.defects] == [(DefectKind.TRUNCATED, 7)]
    assert "receipt 7" in report.defects[0].text


def test_p07_a_forked_log_is_found_by_what_was_witnessed():
    lines, other = log_of(10), log_of(10, other=1)
    report = check(other, signed(other), Anchor(name="receipt 7", size=9, root=root_of(lines[:9])))
    assert [(defect.kind, defect.line) for defect in report.defects] == [(DefectKind.ROOT, 9)]


def test_a_torn_end_past_the_checkpoint_is_no_defect():
    lines = log_of(5)
    note = signed(lines, 3)
    lines[4] = lines[4][:-1]
    report = check(lines, note)
    assert report.whole
    assert (report.lines, report.unsigned) == (4, 1)
    assert "line 5 is cut off" in report.notes[0]


def test_a_log_without_a_checkpoint_is_not_whole():
    assert [defect.kind for defect in check(log_of(3), None).defects] == [DefectKind.CHECKPOINT]


def test_a_checkpoint_by_another_key_is_not_believed():
    lines = log_of(3)
    head = checkpoint.Checkpoint(origin=ORIGIN, size=3, root=root_of(lines))
    report = check(lines, checkpoint.sign(head, SigningKey.generate()))
    assert [defect.kind for defect in report.defects] == [DefectKind.CHECKPOINT]


def test_an_entry_of_another_station_is_named():
    lines = log_of(3)
    foreign = entry_line(
        seq=3, prev=previous_hash(lines[2][:-1]), at=START, event="x", station=STATION[:-1] + "9", details={}
    )
    lines.append(foreign + b"\n")
    assert found(check(lines, signed(lines))) == [(DefectKind.EDITED, 4)]


def test_a_line_beyond_the_size_of_an_entry_is_named():
    lines = log_of(4)
    then = list(lines)
    lines[1] = b"x" * 65_536
    assert found(check(lines, signed(then))) == [(DefectKind.EDITED, 2)]


def test_a_log_of_nothing_but_mistakes_is_told_in_bounded_memory():
    report = check((b"no\n" for _ in range(3000)), None)
    assert len(report.defects) == 1000
    assert report.more_defects == 2001


def test_an_empty_log_under_an_empty_checkpoint_is_whole():
    head = checkpoint.Checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT)
    assert check([], checkpoint.sign(head, KEY)).whole


@pytest.mark.parametrize("origin", ["", f"dockd/{STATION}", f"other/{STATION}/1", f"dockd/{STATION}/x"])
def test_the_name_of_a_log_is_read_strictly(origin):
    with pytest.raises(VerificationFailed, match="not the name of a custody log"):
        verify_log([], None, origin=origin, public=KEY.public)
