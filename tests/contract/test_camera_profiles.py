"""Every profile that comes with dockd, on a made-up card: which one fits, and what each file is to it."""

import json
import os
import re
from pathlib import Path

import pytest

from dockd.app.install import shipped_cameras
from dockd.app.probe import probe
from dockd.cli.main import main
from dockd.core.profile import EraseMethod, Facts, VolumeFacts
from dockd.model import MediumKind
from dockd.station.cameras import load_profiles

REPOSITORY = Path(__file__).parents[2]


def storage(filesystem="vfat", label="", **numbers):
    return Facts(medium=MediumKind.VOLUMES, volumes=(VolumeFacts(filesystem=filesystem, label=label),), **numbers)


COMPUTERS = {"._A.MP4": "noise", ".DS_Store": "noise", "Thumbs.db": "noise"}
CARDS = {
    "generic-dcim": (
        storage(label="NO NAME"),
        {
            **COMPUTERS,
            "DCIM/100MEDIA/2026_0201_063000_001.MP4": "clip 2026-02-01T06:30:00 001",
            "DCIM/100MEDIA/2026_0201_063000_001.THM": "sidecar 2026-02-01T06:30:00 001",
            "DCIM/100MEDIA/2026_0201_063000_001.srt": "sidecar 2026-02-01T06:30:00 001",
            "DCIM/100MEDIA/20260201_063001.mov": "clip 2026-02-01T06:30:01",
            "DCIM/100MEDIA/PICT0001.JPG": "clip",
            "DCIM/100MEDIA/PICT0002_evd.JPG": "clip evidence",
            "DCIM/RO/MOVI0003.AVI": "clip evidence",
            "DCIM/EVENT/LONELY.GPS": "sidecar evidence",
            "DCIM/100MEDIA/LOCKED.MP4": "clip read-only evidence",
            "MISC/AUTPRINT.MRK": "other",
            "FIRMWARE.BIN": "other",
            "moved by hand.mp4": "clip",  # [acquire] suffixes: nothing recorded is passed over
        },
    ),
    "generic-mtp": (
        Facts(medium=MediumKind.MTP),
        {
            "Internal storage/DCIM/Camera/20260201_063000.mp4": "clip 2026-02-01T06:30:00",
            "Internal storage/DCIM/Camera/20260201_063000.thm": "sidecar 2026-02-01T06:30:00",
            "Internal storage/EVIDENCE/CLIP1.MOV": "clip evidence",
            "Internal storage/desktop.ini": "noise",
            "Internal storage/Android/settings.xml": "other",
        },
    ),
    "axon-body-2-like": (
        storage("exfat", "Axon Body 2"),
        {
            **COMPUTERS,
            "DCIM/AXON_Body_2_Video_2026-02-01_0630.mp4": "clip 2026-02-01T06:30:00",
            "DCIM/AXON_Body_2_Video_2026-02-01_0630-2.mp4": "clip 2026-02-01T06:30:00 2",
            "DCIM/AXON_Body_2_Video_2026-02-01_0631_A1234_EVD.mp4": "clip evidence 2026-02-01T06:31:00 A1234 EVD",
            "DCIM/AXON_Body_2_Video_2026-02-01_0631_A1234_EVD.log": "sidecar evidence 2026-02-01T06:31:00 A1234 EVD",
            "DCIM/AXON_Body_2_Video_2026-02-01_0632_A1234_TRAFFIC.mp4": "clip 2026-02-01T06:32:00 A1234 TRAFFIC",
            "DCIM/AXON_Body_2_Video_2026-02-31_0632.mp4": "clip",  # there is no such day
            "DCIM/AXON_Body_2_Video_2026-02-01_0633.mp4": "clip read-only evidence 2026-02-01T06:33:00",
            "SYSTEM/device.cfg": "other",
        },
    ),
    "axon-flex-2-like": (
        storage("ext4", "AXON FLEX 2"),
        {
            "DCIM/AXON_Flex_2_Video_2026-02-01_0630.mp4": "clip 2026-02-01T06:30:00",
            "DCIM/AXON_Flex_2_Video_2026-02-01_0630.xml": "sidecar 2026-02-01T06:30:00",
            "DCIM/EVIDENCE/AXON_Flex_2_Video_2026-02-01_0640-1.mp4": "clip evidence 2026-02-01T06:40:00 1",
            "controller.log": "other",
        },
    ),
    "transcend-drivepro-body": (
        storage("exfat", "", vendor_id="8564", product_id="4000"),
        {
            "DCIM/.keep": "other",
            "VIDEO/2026_0201_063000_001.MP4": "clip 2026-02-01T06:30:00 001",
            "VIDEO/2026_0201_063000_001.NMEA": "sidecar 2026-02-01T06:30:00 001",
            "VIDEO/2026_0201_063100_002.MP4": "clip read-only evidence 2026-02-01T06:31:00 002",
            "EVENT/2026_0201_063200_003.MP4": "clip evidence 2026-02-01T06:32:00 003",
            "PHOTO/2026_0201_063300_004.JPG": "clip 2026-02-01T06:33:00 004",
            "IndexerVolumeGuid": "noise",
            "System Volume Information/IndexerVolumeGuid": "noise",
        },
    ),
}


@pytest.fixture
def lay_out(tmp_path):
    """A card's files below a directory; those that are read-only as the FAT driver shows them."""

    def make(name):
        facts, files = CARDS[name]
        root = tmp_path / "card"
        for path, expected in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"x" * 100)
            if "read-only" in expected:
                (root / path).chmod(0o500)
        return root, facts, {path: expected.replace("read-only ", "") for path, expected in files.items()}

    return make


def words(one):
    named = one.named
    said = (named.local, named.sequence, named.officer, named.category) if named else ()
    evidence = "evidence" if one.category == "evidence" else ""
    return " ".join(filter(None, (one.kind, evidence, *said)))


def test_every_profile_that_comes_with_dockd_is_tried_here():
    profiles = load_profiles(shipped_cameras())
    assert {one.name for one in profiles} == CARDS.keys()
    assert {one.erase for one in profiles} == {EraseMethod.DELETE}, "more than that is a station's own decision"
    page = (REPOSITORY / "docs" / "cameras.md").read_text()
    assert set(re.findall(r"(?m)^### ([a-z0-9-]+)", page)) == CARDS.keys()


@pytest.mark.parametrize("name", CARDS)
def test_p05_each_file_of_a_card_is_something_by_name(name, lay_out):
    root, facts, expected = lay_out(name)
    seen = probe(root, facts=facts, wanted=None, config=None)
    assert seen.profile.name == name
    assert {os.fsdecode(one.file.path): words(one) for one in seen.files} == expected


@pytest.mark.parametrize("name", CARDS)
def test_sidecars_are_of_the_clip_beside_them(name, lay_out):
    root, facts, _ = lay_out(name)
    seen = probe(root, facts=facts, wanted=None, config=None)
    for one in seen.files:
        stem = one.file.path.rpartition(b".")[0]
        alone = b"LONELY" in one.file.path
        assert (one.of is not None) == (one.kind == "sidecar" and not alone)
        assert one.of is None or one.of.rpartition(b".")[0] == stem


def test_p04_a_look_changes_nothing(lay_out, capsys, monkeypatch):
    monkeypatch.setenv("DOCKD_CONFIG", "/nonexistent")
    root, _, expected = lay_out("generic-dcim")

    def state():
        places = [root, *root.rglob("*")]
        return {
            place: (os.stat(place).st_atime_ns, os.stat(place).st_mtime_ns, os.stat(place).st_mode) for place in places
        }

    for place in [root, *root.rglob("*")]:
        os.utime(place, ns=(10**18, 10**18))  # older than its change: a read would move it, as relatime does
    before = state()
    if os.geteuid() != 0:
        before.pop(root)  # the root itself is opened like any other directory
    assert main(["camera", "probe", str(root), "--json"]) == 0
    after = state()
    assert {place: seen for place, seen in after.items() if place != root} == {
        place: seen for place, seen in before.items() if place != root
    }
    out = capsys.readouterr()
    records = [json.loads(line) for line in out.out.splitlines()]
    assert {record["kind"] for record in records} == {text.split()[0] for text in expected.values()}
    assert "generic-dcim 1" in out.err


def test_a_profile_is_chosen_by_hand(lay_out, capsys, monkeypatch):
    monkeypatch.setenv("DOCKD_CONFIG", "/nonexistent")
    root, _, _ = lay_out("axon-body-2-like")
    assert main(["camera", "probe", str(root), "--label", "AXON BODY 2"]) == 0
    assert capsys.readouterr().err.startswith("axon-body-2-like 1 (")
    assert main(["camera", "probe", str(root), "--profile", "axon-flex-2-like"]) == 0
    assert main(["camera", "probe", str(root), "--profile", "none"]) != 0
    assert "there is no camera profile none: there are axon-body-2-like, axon-flex-2-like" in capsys.readouterr().err
    assert main(["camera", "probe", str(root / "SYSTEM")]) != 0
    assert "no camera profile fits" in capsys.readouterr().err
