"""Sidecars: acquisitions of their own, tied to their clip, and erased with it or not at all."""

import json
from datetime import UTC, datetime

import pytest

from dockd.core import manifest
from dockd.core.clip_names import ClipNames
from dockd.core.lifecycle import AcquisitionState
from dockd.core.profile import Evidence, FileRules, Match, Pattern, Profile
from dockd.devices.folder import FolderSource
from dockd.model import Category, Role, VerdictStatus
from dockd.station.operations import Operations

PROFILE = Profile(
    name="body-cam",
    version=7,
    matches=(Match(),),
    files=FileRules(
        clips=Pattern(suffixes=(".mp4",)),
        sidecars=Pattern(suffixes=(".thm", ".gps")),
        evidence=Evidence(categories=("EVD",)),
    ),
    names=ClipNames(templates=("{year}{month}{day}_{hour}{minute}{second}_{officer}_{category}",), time_zone="utc"),
)
NAME = "DCIM/20260201_063000_A17_EVD"


def named(rows, suffix):
    return next(row for row in rows if row.file.path.endswith(suffix.encode()))


async def erasures(station):
    """Per erasure: whether every warrant of its pair stood in the log before."""
    lines = await station.journal.read(lambda tx: tx.lines(0, 10_000))
    return [
        (entry["event"].removeprefix("acquisition."), entry["acquisition"])
        for entry in map(json.loads, lines)
        if entry["event"] in ("acquisition.warranted", "acquisition.erased")
    ]


@pytest.fixture
def card(cards, clip):
    made = cards.card({f"{NAME}.mp4": clip(1), f"{NAME}.thm": b"\xff\xd8\xff" + b"x" * 500, f"{NAME}.gps": b"N 1"})
    made.profile = PROFILE
    return made


async def test_p05_a_sidecar_is_kept_and_erased_with_its_clip(cards, card):
    station = await cards.station()
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="ready")
    assert (bays[1].clips_total, bays[1].clips_erased, bays[1].others) == (3, 3, 0)
    rows = await station.rows()
    clip_row, thumbnail, track = (named(rows, suffix) for suffix in (".mp4", ".thm", ".gps"))
    assert (clip_row.role, clip_row.of) == (Role.CLIP, None)
    assert {(row.role, row.of) for row in (thumbnail, track)} == {(Role.SIDECAR, clip_row.acquisition)}
    assert {row.category for row in rows} == {Category.EVIDENCE}
    assert track.sealed.verdict.status is VerdictStatus.INTACT
    assert track.sealed.verdict.container == "sidecar"
    found = await erasures(station)
    assert [event for event, _ in found] == ["warranted"] * 3 + ["erased"] * 3


async def test_the_manifest_states_the_profile_and_what_the_name_says(cards, card):
    station = await cards.station()
    cards.source.plug(1, card)
    await station.until_states(bay1="ready")
    rows = await station.rows()
    clip_row, track = named(rows, ".mp4"), named(rows, ".gps")
    stated = manifest.decode((await station.journal.read(lambda tx: tx.manifest(track.acquisition))).payload)
    assert (stated.role, stated.of, stated.profile, stated.profile_version) == (
        "sidecar",
        clip_row.acquisition,
        "body-cam",
        7,
    )
    assert (stated.named.officer, stated.named.category, stated.named.time_zone) == ("A17", "EVD", "utc")
    assert manifest.recorded(stated) == (datetime(2026, 2, 1, 6, 30, tzinfo=UTC), "name")
    assert stated.category_reason == "its name states the category EVD"


async def test_p01_a_clip_stays_while_its_sidecar_waits_for_a_person(cards, clip):
    card = cards.card({f"{NAME}.mp4": clip(1), f"{NAME}.gps": b"", "DCIM/other.mp4": clip(2)})
    card.profile = PROFILE
    station = await cards.station()
    cards.source.plug(1, card)
    bays = await station.until_states(bay1="attention")
    assert (bays[1].clips_stored, bays[1].clips_erased) == (3, 1)
    rows = await station.rows()
    assert named(rows, "EVD.mp4").state == AcquisitionState.STORED
    track = named(rows, ".gps")
    operations = Operations(station.daemon._sources(), station.daemon._operator_decided)
    async for _ in operations.answer(
        "release", {"acquisition": track.acquisition, "reason": "it never had a fix"}, "op"
    ):
        pass
    bays = await station.until_states(bay1="ready")
    assert bays[1].clips_erased == 3


async def test_a_sidecar_without_a_clip_is_evidence_like_another(cards):
    card = cards.card({f"{NAME}.gps": b"N 1"})
    card.profile = PROFILE
    station = await cards.station()
    cards.source.plug(1, card)
    await station.until_states(bay1="ready")
    (row,) = await station.rows()
    assert (row.role, row.of, row.state) == (Role.SIDECAR, None, AcquisitionState.ERASED)


class Profiled:
    """A folder's attachment that is read by a profile."""

    profile = PROFILE

    def __init__(self, attachment):
        self._attachment = attachment

    def __getattr__(self, name):
        return getattr(self._attachment, name)


class ProfiledSource(FolderSource):
    async def attach(self, plugged, candidate):
        return Profiled(await super().attach(plugged, candidate))


async def test_pairs_are_erased_together_where_files_go_one_by_one(station, mp4):
    await station.start(sources=(ProfiledSource(station.bays),))
    station.camera(1, {"A.mp4": mp4(10_000, 1), "A.thm": b"seen", "B.mp4": mp4(10_000, 2), "B.gps": b""})
    bays = await station.until_states(bay1="attention")
    assert bays[1].clips_erased == 2
    rows = {row.file.path: row for row in await station.rows()}
    assert rows[b"A.thm"].of == rows[b"A.mp4"].acquisition
    assert {path for path, row in rows.items() if row.state == AcquisitionState.ERASED} == {b"A.mp4", b"A.thm"}
    found = await erasures(station)
    assert [event for event, _ in found] == ["warranted"] * 2 + ["erased"] * 2


async def test_a_folder_knows_no_sidecars(station, mp4):
    await station.start()
    station.camera(1, {"A.mp4": mp4(10_000, 1), "A.thm": b"stays"})
    bays = await station.until_states(bay1="ready")
    assert (bays[1].clips_erased, bays[1].others) == (1, 1)
    (row,) = await station.rows()
    stated = await station.journal.read(lambda tx: tx.manifest(row.acquisition))
    assert json.loads(stated.payload)["v"] == 1
