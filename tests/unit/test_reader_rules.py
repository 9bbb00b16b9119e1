"""What the rules make of names, and what the reader's messages carry."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd import errors
from dockd.core.clip_names import ClipNames
from dockd.core.profile import Evidence, FileRules, Pattern
from dockd.core.remnants import remnant_name
from dockd.errors import ReaderDied
from dockd.model import (
    AcquisitionId,
    Category,
    Epoch,
    FileKind,
    FoundFile,
    ListedFile,
    Sealed,
    Verdict,
    VerdictStatus,
)
from dockd.reader import messages
from dockd.reader.rules import NOISE, ClipRules

RULES = ClipRules(
    suffixes=(".mp4", ".MOV"), evidence_directories=("Evidence",), max_depth=4, max_files=9, block_bytes=1 << 20
)
PROFILED = ClipRules(
    suffixes=(".mp4",),
    evidence_directories=("Evidence",),
    max_depth=4,
    max_files=9,
    block_bytes=1 << 20,
    files=FileRules(
        clips=Pattern(directories=("DCIM",), suffixes=(".bin",)),
        sidecars=Pattern(directories=("DCIM",)),
        noise=Pattern(names=("._*",), directories=()),
        evidence=Evidence(directories=("RO",), name_flags=("_X",), categories=("EVD",), read_only=True),
    ),
    names=ClipNames(templates=("{officer}-{category}",), time_zone="utc"),
)
EPOCH = Epoch(7)
DIGEST = "sha256:" + "0" * 64

numbers = st.integers(min_value=0, max_value=2**64 - 1)
files = st.builds(
    FoundFile,
    path=st.binary(min_size=1, max_size=600),
    size_bytes=numbers,
    mtime_ns=st.integers(min_value=-(2**63), max_value=2**63 - 1),
    inode=numbers,
    links=st.integers(min_value=0, max_value=2**32),
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"a.mp4", FileKind.CLIP),
        (b"DCIM/A.MP4", FileKind.CLIP),
        (b"a.mov", FileKind.CLIP),
        (b"\xff\n.mp4", FileKind.CLIP),
        (b".mp4", FileKind.CLIP),
        (b"mp4", FileKind.OTHER),
        (b"a.mp4.txt", FileKind.OTHER),
        (b"a.mp4/b", FileKind.OTHER),
        (b"dockd-camera.toml", FileKind.OTHER),
        (remnant_name(AcquisitionId("01890000-0000-7000-8000-000000000001")), FileKind.OTHER),
    ],
)
def test_a_clip_is_told_by_its_suffix(path, kind):
    assert RULES.kind(path) is kind


@pytest.mark.parametrize(
    ("path", "category"),
    [
        (b"DCIM/a.mp4", Category.NONE),
        (b"EVIDENCE/a.mp4", Category.EVIDENCE),
        (b"x/evidence/y/a.mp4", Category.EVIDENCE),
        (b"evidence.mp4", Category.NONE),
        (b"a_evd.mp4", Category.EVIDENCE),
        (b"A_EVD_0001.MP4", Category.EVIDENCE),
    ],
)
def test_evidence_is_told_by_directory_or_name_and_says_why(path, category):
    found, reason = RULES.category(path)
    assert found is category
    assert bool(reason) is (category is Category.EVIDENCE)


@given(files, st.sampled_from(FileKind), st.sampled_from(Category), st.text(max_size=1000))
def test_a_listed_file_survives_the_way_through_a_message(file, kind, category, reason):
    listed = ListedFile(file=file, kind=kind, category=category, reason=reason)
    fields = messages.unpack(messages.pack(EPOCH, "entries", entry=messages.listed_to_wire(listed)), EPOCH)
    found = messages.listed_from_wire(fields["entry"])
    assert (found.file, found.kind, found.category) == (file, kind, category)
    assert found.reason == messages.short(reason)


def test_what_a_hostile_clip_made_a_parser_say_stays_short_and_text():
    verdict = Verdict(
        status=VerdictStatus.DAMAGED,
        container="\udcff" * 5000,
        reasons=("\ud800" * 9999,) * 500,
        duration_ms=2**62,
        recorded_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    sealed = Sealed(
        file=FoundFile(path=b"x" * 4000, size_bytes=1, mtime_ns=2, inode=3),
        plaintext_digest=DIGEST,
        plaintext_size_bytes=2**63,
        sealed_digest=DIGEST,
        sealed_size_bytes=2**63,
        verdict=verdict,
        recipients=(DIGEST,) * 10,
    )
    fields = messages.unpack(messages.pack(EPOCH, "sealed", sealed=messages.sealed_to_wire(sealed)), EPOCH)
    found = messages.sealed_from_wire(fields["sealed"])
    assert found.plaintext_size_bytes == 2**63
    assert found.verdict.duration_ms == 2**62
    assert len(found.verdict.reasons) == messages.MAX_REASONS


@given(st.binary(max_size=300))
def test_p09_any_bytes_are_a_message_or_the_readers_end(message):
    with pytest.raises(ReaderDied):
        messages.unpack(message, EPOCH)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["file", "path", "size_bytes", "kind", "sealed", "verdict"]), inner)
        ),
    )
)
def test_p09_any_fields_are_a_record_or_the_readers_end(value):
    fields = value if isinstance(value, dict) else {}
    for reading in (
        messages.file_from_wire,
        messages.listed_from_wire,
        messages.sealed_from_wire,
        messages.erasure_from_wire,
        messages.rules_from_wire,
        messages.identity_from_wire,
        messages.error_from_wire,
    ):
        with pytest.raises(ReaderDied):
            reading(fields)


def test_a_message_of_another_epoch_is_refused():
    with pytest.raises(ReaderDied, match="epoch 6 was refused"):
        messages.unpack(messages.pack(Epoch(6), "list"), EPOCH)


def test_a_message_that_would_be_too_long_is_not_sent():
    with pytest.raises(ValueError, match="bytes"):
        messages.pack(EPOCH, "list", text="x" * messages.MAX_MESSAGE_BYTES)
    with pytest.raises(ReaderDied, match="longer"):
        messages.unpack(b"x" * (messages.MAX_MESSAGE_BYTES + 1), EPOCH)


@pytest.mark.parametrize(
    "kind", ["CameraGone", "CameraNotReady", "ClipChanged", "ClipBusy", "ClipGone", "SpoolFull", "EraseFailed"]
)
def test_errors_arrive_as_their_own_kind(kind):
    error = getattr(errors, kind)("a\udcffb" * 400)
    found = messages.error_from_wire(messages.error_to_wire(error))
    assert type(found) is type(error)
    assert isinstance(messages.error_from_wire({"error": "Unheard", "message": "x"}), ReaderDied)


# --- with a profile


@pytest.mark.parametrize(
    ("path", "kind", "reason"),
    [
        (b"DCIM/A.txt", FileKind.SIDECAR, ""),
        (b"DCIM/._A.mp4", FileKind.OTHER, NOISE),  # noise goes before both
        (b"DCIM/A.bin", FileKind.SIDECAR, ""),  # and sidecars before clips
        (b"A.bin", FileKind.OTHER, ""),
        (b"A.MP4", FileKind.CLIP, ""),  # the station's own suffixes catch what the profile does not name
        (b"DCIM/dockd-camera.toml", FileKind.SIDECAR, ""),
        (b"dockd-camera.toml", FileKind.OTHER, ""),
        (b"DCIM/" + remnant_name(AcquisitionId("01890000-0000-7000-8000-000000000001")), FileKind.OTHER, ""),
    ],
)
def test_a_profile_says_what_files_are(path, kind, reason):
    file = FoundFile(path=b"lun0/" + path, size_bytes=1, mtime_ns=1, inode=0)
    seen = PROFILED.judge(file, path)
    assert (seen.file, seen.kind, seen.reason) == (file, kind, reason)


@pytest.mark.parametrize(
    ("path", "read_only", "reason"),
    [
        (b"DCIM/A.mp4", False, ""),
        (b"DCIM/A.mp4", True, "the camera made it read-only"),
        (b"DCIM/evidence/A.mp4", False, "in the directory evidence"),
        (b"ro/A.mp4", False, "in the directory ro"),
        (b"A_x.mp4", False, "its name is marked _X"),
        (b"A17-evd.mp4", False, "its name states the category evd"),
        (b"A17-traffic.mp4", False, ""),
        (b"A_EVD.mp4", False, ""),  # this camera has another mark
    ],
)
def test_a_profile_says_what_marks_evidence(path, read_only, reason):
    category, why = PROFILED.category(path, read_only=read_only)
    assert (category, why) == (Category.EVIDENCE if reason else Category.NONE, reason)


@pytest.mark.parametrize("rules", [RULES, PROFILED])
def test_rules_travel_to_the_reader_and_arrive(rules):
    message = messages.pack(EPOCH, "start", rules=messages.rules_to_wire(rules))
    fields = messages.unpack(message, EPOCH)
    assert messages.rules_from_wire(messages.table(fields, "rules")) == rules
