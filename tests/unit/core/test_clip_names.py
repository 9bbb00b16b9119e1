"""Templates for names: what they read, and that no name keeps anybody busy."""

import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.clip_names import NOTHING, ClipNames, NameFacts, check_template, read_name


def read(path, *templates):
    return read_name(ClipNames(templates=templates), path)


@pytest.mark.parametrize(
    ("template", "name", "facts"),
    [
        (
            "{year}{month}{day}_{hour}{minute}{second}",
            b"DCIM/20260201_063000.MP4",
            NameFacts(started_at=datetime(2026, 2, 1, 6, 30)),  # noqa: DTZ001 - naive by purpose
        ),
        ("AXON_{year}-{month}-{day}", b"axon_2026-02-01.mp4", NameFacts(started_at=datetime(2026, 2, 1))),  # noqa: DTZ001
        (
            "{officer}_{category}-{sequence}",
            b"A17_EVD-0012.mp4",
            NameFacts(officer="A17", category="EVD", sequence="0012"),
        ),
        ("{sequence}A", b"0012A.mp4", NameFacts(sequence="0012")),
        ("{camera}_{sequence}", b"X81_7.mp4", NameFacts(sequence="7")),
        ("CLIP.{sequence}", b"CLIP.7.mp4", NameFacts(sequence="7")),  # a dot stands for itself
        ("{sequence}", b"7", NameFacts(sequence="7")),  # without a suffix
        ("{sequence}", b".7", NOTHING),
        ("{year}{month}{day}", b"20260231.mp4", NOTHING),  # no such day
        ("{year}{month}{day}", b"00000101.mp4", NOTHING),  # no such year
        ("{year}{month}{day}", b"x20260201.mp4", NOTHING),
        ("{year}{month}{day}", b"20260201x.mp4", NOTHING),
        ("{sequence}", "\u0667.mp4".encode(), NOTHING),  # digits are ASCII's
        ("{officer}", b"\xff\xfe.mp4", NOTHING),
        ("{sequence}", b"7" * 300 + b".mp4", NOTHING),
    ],
)
def test_names_are_read(template, name, facts):
    assert read(name, template) == facts


def test_the_first_template_that_fits_counts():
    templates = ("{year}{month}{day}_{sequence}", "{officer}_{sequence}")
    assert read(b"20260201_7.mp4", *templates).started_at is not None
    assert read(b"20269901_7.mp4", *templates) == NameFacts(officer="20269901", sequence="7")
    assert read(b"x.mp4", *templates) == NOTHING


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "no field"),
        ("CLIP", "no field"),
        ("{", "{ is no field"),
        ("{}", "{} is no field"),
        ("{Year}", "is no field"),
        ("{sequence}{officer}", "{sequence} must be followed"),
        ("{officer}x", "{officer} must be followed"),
        ("{officer}{year}{month}{day}", "{officer} must be followed"),
        ("{sequence}1", "{sequence} must be followed"),
        ("{sequence}_{sequence}", "{sequence} stands twice"),
        ("{hour}{minute}", "a time needs"),
        ("{year}{month}{day}{minute}", "no gaps"),
        ("{year}{month}{day}{second}", "no gaps"),
    ],
)
def test_a_template_that_says_nothing_or_two_things_is_refused(template, reason):
    with pytest.raises(ValueError, match=reason.replace("{", r"\{").replace("}", r"\}")):
        check_template(template)


@given(st.binary(max_size=300))
def test_p09_no_name_is_too_odd(name):
    templates = ("{year}{month}{day}_{hour}{minute}{second}_{officer}_{category}", "{camera}_{sequence}")
    assert isinstance(read(name, *templates), NameFacts)


@given(st.datetimes(min_value=datetime(1, 1, 1)), st.from_regex("[A-Za-z0-9]{1,32}", fullmatch=True))  # noqa: DTZ001
def test_what_was_written_is_read(moment, officer):
    name = f"{moment:%m%d}".encode()  # %Y has no leading zeros everywhere
    path = b"x/%04d%s_%02d%02d%02d_%s.mp4" % (
        moment.year,
        name,
        moment.hour,
        moment.minute,
        moment.second,
        officer.encode(),
    )
    found = read(path, "{year}{month}{day}_{hour}{minute}{second}_{officer}")
    assert found == NameFacts(started_at=moment.replace(microsecond=0), officer=officer)


def test_p09_a_hostile_name_costs_nothing():
    template = "{officer}_{category}_{camera}_{sequence}"
    check_template(template)
    started = time.perf_counter()
    for _ in range(1000):
        assert read(b"a_" * 120 + b"!.mp4", template) == NOTHING
    assert time.perf_counter() - started < 5
