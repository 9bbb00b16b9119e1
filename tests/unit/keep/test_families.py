"""What the journal says of a clip and its sidecars: which belong together, and whether all of them may go."""

import pytest

from dockd.core.lifecycle import AcquisitionEvent
from dockd.model import FileKind, FoundFile, ListedFile, Role, VerdictStatus

E = AcquisitionEvent
CLIP, SIDECAR, TRACK = b"DCIM/A.mp4", b"DCIM/A.thm", b"DCIM/A.gps"


@pytest.fixture
async def family(kit):
    """`family(*events, ...)`: a clip that may go, with a track that may, and a thumbnail brought as far as said."""
    journal = await kit.open()

    async def make(*events, status=VerdictStatus.INTACT, docking=1):
        def change(tx):
            kit.begin(tx, 1)
            kit.begin(tx, 2)
            clip = kit.bring(tx, kit.clip(1, path=CLIP), *kit.to_stored, E.REREAD)
            kit.bring(tx, kit.clip(2, path=TRACK, role=Role.SIDECAR), *kit.to_stored, E.REREAD)
            thumbnail = kit.clip(3, path=SIDECAR, role=Role.SIDECAR, docking=docking)
            kit.bring(tx, thumbnail, *events, status=status)
            for sidecar in (2, 3):
                tx.pair(kit.uuid(sidecar), clip)

        await journal.write(change)
        return journal

    return make


async def picked(kit, journal, docking=1):
    rows = await journal.read(lambda tx: tx.next_to_erase(kit.docking(docking), limit=9))
    return {row.file.path for row in rows}


async def companions(kit, journal, number):
    row = await journal.read(lambda tx: tx.acquisition(kit.uuid(number)))
    return [one.acquisition for one in await journal.read(lambda tx: tx.companions(row))]


async def test_p01_a_family_of_which_every_member_may_go_is_picked_whole(kit, family):
    journal = await family(*kit.to_stored, E.REREAD)
    assert await picked(kit, journal) == {CLIP, TRACK, SIDECAR}
    assert await companions(kit, journal, 1) == [kit.uuid(2), kit.uuid(3)]
    assert await companions(kit, journal, 3) == [kit.uuid(1), kit.uuid(2)]


@pytest.mark.parametrize(
    "events",
    [
        (),
        (E.READ_STARTED,),
        (E.READ_STARTED, E.QUARANTINED),
        (E.READ_STARTED, E.SEALED, E.REREAD),
        (E.READ_STARTED, E.SEALED, E.REGISTERED, E.REREAD),
        (E.READ_STARTED, E.SEALED, E.REGISTERED, E.STORED),
        (E.READ_STARTED, E.SEALED, E.REGISTERED, E.STORED, E.REREAD, E.CONTESTED),
        (E.READ_STARTED, E.SEALED, E.REGISTERED, E.STORED, E.REREAD, E.QUARANTINED),
    ],
    ids=lambda events: events[-1].value if events else "found",
)
async def test_p01_one_member_that_may_not_go_keeps_the_family(kit, family, events):
    journal = await family(*events)
    assert await picked(kit, journal) == set()


async def test_p01_a_clip_that_may_not_go_keeps_its_sidecars(kit):
    journal = await kit.open()

    def change(tx):
        kit.begin(tx, 1)
        clip = kit.bring(tx, kit.clip(1, path=CLIP), *kit.to_stored)
        kit.bring(tx, kit.clip(2, path=SIDECAR, role=Role.SIDECAR), *kit.to_stored, E.REREAD)
        kit.bring(tx, kit.clip(3, path=b"DCIM/B.thm", role=Role.SIDECAR), *kit.to_stored, E.REREAD)
        tx.pair(kit.uuid(2), clip)

    await journal.write(change)
    assert await picked(kit, journal) == {b"DCIM/B.thm"}


async def test_p06_a_damaged_member_keeps_the_family_until_it_is_released(kit, family):
    journal = await family(*kit.to_stored, E.REREAD, status=VerdictStatus.DAMAGED)
    assert await picked(kit, journal) == set()
    await journal.write(lambda tx: tx.advance(kit.uuid(3), E.RELEASED, released_by="anna"))
    assert await picked(kit, journal) == {CLIP, TRACK, SIDECAR}


@pytest.mark.parametrize("events", [(E.DEPARTED,), (E.READ_STARTED, E.QUARANTINED)])
async def test_what_is_not_on_the_camera_now_keeps_nothing(kit, family, events):
    journal = await family(*events, docking=1 if events == (E.DEPARTED,) else 2)
    assert await picked(kit, journal) == {CLIP, TRACK}
    assert await companions(kit, journal, 1) == [kit.uuid(2)]


async def test_a_contested_member_counts_no_more_once_it_was_found_anew(kit, family):
    journal = await family(*kit.to_stored, E.REREAD, E.CONTESTED)

    def find_anew(tx):
        again = kit.clip(4, path=SIDECAR, role=Role.SIDECAR)
        kit.bring(tx, again, *kit.to_stored)
        tx.pair(again.acquisition, tx.acquisition(kit.uuid(1)))

    await journal.write(find_anew)
    assert await picked(kit, journal) == set(), "the new one was not read a second time"
    row = await journal.read(lambda tx: tx.acquisition(kit.uuid(4)))
    await journal.write(lambda tx: tx.advance(row.acquisition, E.REREAD, reread=kit.reread(row)))
    assert await picked(kit, journal) == {CLIP, TRACK, SIDECAR}
    assert await companions(kit, journal, 1) == [kit.uuid(2), kit.uuid(4)]


async def test_p02_what_was_left_of_an_interrupted_erasure_goes_alone(kit, family):
    journal = await family(*kit.to_stored, E.REREAD)
    await journal.write(lambda tx: tx.advance(kit.uuid(1), E.WARRANTED))
    assert await picked(kit, journal) == {TRACK, SIDECAR}
    await journal.write(lambda tx: tx.advance(kit.uuid(1), E.ERASED))
    assert await picked(kit, journal) == {TRACK, SIDECAR}
    assert await companions(kit, journal, 2) == [kit.uuid(3)]


async def test_the_clip_beside_a_sidecar_is_the_newest_of_its_path_in_the_same_directory(kit):
    journal = await kit.open()

    def change(tx):
        kit.begin(tx, 1)
        kit.bring(tx, kit.clip(1, path=CLIP, size_bytes=9000))  # what lay there before
        kit.bring(tx, kit.clip(2, path=CLIP, size_bytes=50))
        kit.bring(tx, kit.clip(3, path=b"DCIM/A.d/clip", size_bytes=9000))
        kit.bring(tx, kit.clip(4, path=b"DCIM/A.b.mp4", size_bytes=9000))
        return tx.clip_beside(tx.add_acquisition(kit.clip(5, path=SIDECAR, role=Role.SIDECAR)))

    assert (await journal.write(change)).acquisition == kit.uuid(2)


@pytest.mark.parametrize(
    ("path", "kind", "beside"),
    [
        (CLIP, FileKind.REFUSED, True),
        (CLIP, FileKind.OTHER, False),
        (b"DCIM/A.d/clip", FileKind.REFUSED, False),
        (b"DCIM/AB.mp4", FileKind.REFUSED, False),
        (b"A.mp4", FileKind.REFUSED, False),
    ],
)
async def test_p05_what_was_refused_beside_a_sidecar_is_told(kit, path, kind, beside):
    journal = await kit.open()
    file = FoundFile(path=path, size_bytes=0, mtime_ns=0, inode=0)

    def change(tx):
        kit.begin(tx, 1)
        tx.note_file(kit.docking(1), ListedFile(file=file, kind=kind, reason="why"))
        return tx.refused_beside(tx.add_acquisition(kit.clip(1, path=SIDECAR, role=Role.SIDECAR)))

    found = await journal.write(change)
    assert (found is not None) == beside
