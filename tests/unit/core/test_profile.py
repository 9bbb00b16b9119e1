"""Which profile fits a device, and what its patterns make of paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.profile import Facts, Match, Pattern, Profile, VolumeFacts, asked_for, candidates, fits
from dockd.model import MediumKind

STORAGE, MTP = MediumKind.VOLUMES, MediumKind.MTP
CARD = Facts(
    medium=STORAGE,
    vendor_id="8564",
    product_id="4000",
    volumes=(VolumeFacts(filesystem="vfat", label="SYSTEM"), VolumeFacts(filesystem="exfat", label="BodyCam 7")),
)
PHONE = Facts(medium=MTP, vendor_id="8564", product_id="4001")


def profile(name, *matches):
    return Profile(name=name, version=1, matches=matches)


@pytest.mark.parametrize(
    ("match", "card", "phone"),
    [
        (Match(), True, True),
        (Match(medium=STORAGE), True, False),
        (Match(medium=MTP), False, True),
        (Match(vendor_id="8564"), True, True),
        (Match(vendor_id="8564", product_id="4001"), False, True),
        (Match(vendor_id="0781"), False, False),
        (Match(label="bodycam*"), True, False),
        (Match(label="bodycam"), False, False),
        (Match(label="bodycam*", filesystem="exfat"), True, False),
        (Match(label="bodycam*", filesystem="vfat"), False, False),  # it is another volume's
        (Match(filesystem="ext4"), False, False),
        (Match(must_exist=b"DCIM"), True, False),  # nothing can be looked for over MTP
    ],
)
def test_all_that_a_rule_states_must_hold(match, card, phone):
    assert (match.holds(CARD), match.holds(PHONE)) == (card, phone)


def test_what_says_most_about_a_device_comes_first():
    rules = [
        ("product", Match(vendor_id="8564", product_id="4000")),
        ("vendor-and-file", Match(vendor_id="8564", must_exist=b"DCIM")),
        ("vendor", Match(vendor_id="8564")),
        ("file-and-label", Match(must_exist=b"DCIM", label="bodycam*")),
        ("file", Match(must_exist=b"DCIM")),
        ("label", Match(label="bodycam*")),
        ("filesystem", Match(filesystem="exfat")),
        ("any-a", Match()),
        ("any-b", Match()),
    ]
    known = [profile(name, match) for name, match in reversed(rules)]
    known += [profile("other", Match(vendor_id="0781")), profile("none")]
    assert [one.name for one in candidates(known, CARD)] == [name for name, _ in rules]


def test_the_best_of_several_rules_counts():
    known = [profile("a", Match(filesystem="exfat")), profile("b", Match(), Match(vendor_id="8564"))]
    assert [one.name for one in candidates(known, CARD)] == ["b", "a"]


def test_p08_no_profile_without_a_rule_that_holds():
    assert candidates([profile("none"), profile("other", Match(vendor_id="0781"))], CARD) == ()
    assert not fits(profile("none"), CARD, ())


def test_files_are_looked_for_only_where_the_rest_is_not_enough():
    both = profile("p", Match(must_exist=b"DCIM"), Match(must_exist=b"VIDEO"), Match(vendor_id="0781"))
    assert asked_for(both, CARD) == (b"DCIM", b"VIDEO")
    assert fits(both, CARD, {b"VIDEO"})
    assert not fits(both, CARD, {b"PHOTO"})
    enough = profile("p", Match(must_exist=b"DCIM"), Match(vendor_id="8564"))
    assert asked_for(enough, CARD) == ()
    assert fits(enough, CARD, ())


@pytest.mark.parametrize(
    ("pattern", "fit", "unfit"),
    [
        (Pattern(), [], [b"a.mp4", b"a"]),
        (Pattern(suffixes=(".mp4",)), [b"a.mp4", b"x/y/A.MP4", b".mp4"], [b"mp4", b"a.mp4/b", b"a.mp4x"]),
        (Pattern(directories=("DCIM",)), [b"DCIM/a", b"dcim/1/2/b.x"], [b"DCIM", b"x/DCIM/a", b"DCIMx/a"]),
        (Pattern(directories=("DCIM/1??MEDIA",)), [b"DCIM/100media/a"], [b"DCIM/a", b"DCIM/10MEDIA/a"]),
        (Pattern(directories=("*/EVENT",)), [b"x/event/a"], [b"event/a", b"x/y/event/a"]),
        (Pattern(names=("._*", "Thumbs.db")), [b"._A.MP4", b"x/THUMBS.DB"], [b"x/a", b"_.a"]),
        (
            Pattern(directories=("A",), suffixes=(".log",), names=("boot*",)),
            [b"A/x.LOG", b"a/boot.bin"],
            [b"x.log", b"B/boot", b"A/x"],
        ),
        (Pattern(names=("\xe9t\xe9*",)), ["\xe9t\xe9.mp4".encode()], ["\xc9T\xc9.mp4".encode()]),
    ],
)
def test_patterns(pattern, fit, unfit):
    assert [path for path in (*fit, *unfit) if pattern.fits(path)] == fit


@given(st.binary(min_size=1, max_size=300), st.lists(st.text(max_size=12), max_size=3), st.lists(st.text(max_size=12)))
def test_p09_no_path_and_no_pattern_is_too_odd(path, directories, names):
    pattern = Pattern(
        directories=tuple(text.encode(errors="ignore").decode() for text in directories),
        names=tuple(text.encode(errors="ignore").decode() for text in names),
    )
    assert pattern.fits(path) in (True, False)
