"""What a transaction changes, what it records, and what it gives back."""

import json
import sqlite3

import pytest

from dockd.core.lifecycle import AcquisitionEvent as E
from dockd.core.lifecycle import AcquisitionState as S
from dockd.core.lifecycle import DockingEvent, DockingState
from dockd.errors import IllegalTransition, JournalError
from dockd.keep.records import Tally
from dockd.model import Category, FileKind, FoundFile, ListedFile, VerdictStatus


async def entries(journal, first=0):
    return [json.loads(line) for line in await journal.read(lambda tx: tx.lines(first, 1000))]


async def test_an_acquisition_comes_back_as_it_went_in(kit):
    journal = await kit.open()
    clip = kit.clip(path=b"a\nb/\xff\xfe\x00-c'\".MP4", size_bytes=2**53 - 1)
    clip = kit.replace(clip, file=kit.replace(clip.file, mtime_ns=2**64 + 5, inode=2**64 - 1, links=3))

    def change(tx):
        kit.begin(tx)
        rows = [kit.bring(tx, clip, *kit.to_stored, E.REREAD, status=VerdictStatus.DAMAGED)]
        rows.append(tx.advance(clip.acquisition, E.RELEASED, released_by="anna", quarantine_reason="none\n\u2028"))
        return rows

    rows = await journal.write(change)
    kept = await journal.read(lambda tx: tx.acquisition(clip.acquisition))
    assert kept == rows[1]
    assert kept.file == clip.file
    assert kept.sealed == kit.sealed(clip, VerdictStatus.DAMAGED)
    assert kept.reread == kit.reread(clip)
    assert kept.found_at == clip.found_at
    found = await journal.read(
        lambda tx: tx.find_clip("CAM-1", "VOL-1", clip.file.path, clip.file.size_bytes, clip.file.mtime_ns)
    )
    assert found == kept


async def test_p07_each_change_writes_its_entry_in_the_same_transaction(kit):
    journal = await kit.open()

    def change(tx):
        kit.begin(tx)
        tx.add_acquisition(kit.clip(path=b"a\nb\xff"), {"why": "listed"})
        tx.advance_docking(kit.docking(), DockingEvent.LISTED)

    await journal.write(change)
    begun, found, listed = await entries(journal)
    assert [one["event"] for one in (begun, found, listed)] == [
        "docking.admitted",
        "acquisition.found",
        "docking.listed",
    ]
    assert found["details"]["path"] == "a%0Ab%FF"
    assert found["details"]["why"] == "listed"
    assert found["camera"] == "CAM-1"
    assert found["acquisition"] == kit.uuid(1)
    assert [one["seq"] for one in (begun, found, listed)] == [0, 1, 2]
    # The mirror holds the same bytes.
    assert kit.mirror.read_bytes() == b"".join(line + b"\n" for line in await journal.read(lambda tx: tx.lines(0, 10)))


async def test_p07_a_change_that_raises_leaves_neither_state_nor_entry(kit):
    journal = await kit.open()
    await journal.write(kit.begin)

    def change(tx):
        tx.add_acquisition(kit.clip(1))
        tx.put("key", "value")
        raise LookupError("no")

    with pytest.raises(LookupError):
        await journal.write(change)
    assert await journal.read(lambda tx: (tx.size, tx.get("key"), tx.acquisition(kit.uuid(1)))) == (1, None, None)
    # The number is given out again, and the chain goes on from the entry before.
    assert await journal.write(lambda tx: tx.record("a.b", details={})) == 1
    assert kit.mirror.read_bytes().count(b"\n") == 2


async def test_an_illegal_event_changes_nothing(kit):
    journal = await kit.open()
    await journal.write(lambda tx: (kit.begin(tx), tx.add_acquisition(kit.clip())))
    with pytest.raises(IllegalTransition, match="stored is not allowed in state found"):
        await journal.write(lambda tx: tx.advance(kit.uuid(1), E.STORED))
    with pytest.raises(IllegalTransition):
        await journal.write(lambda tx: tx.advance(kit.uuid(77), E.READ_STARTED))
    with pytest.raises(IllegalTransition):
        await journal.write(lambda tx: tx.advance_docking(kit.docking(), DockingEvent.SANITISED))
    with pytest.raises(IllegalTransition):
        await journal.write(lambda tx: tx.add_acquisition(kit.clip(2, state=S.STORED)))
    assert journal.durable_size == 2


@pytest.mark.parametrize("name", ["state", "acquisition", "camera", "found_at", "colour"])
async def test_a_column_that_follows_or_does_not_exist_is_refused(kit, name):
    journal = await kit.open()
    await journal.write(lambda tx: (kit.begin(tx), tx.add_acquisition(kit.clip())))
    with pytest.raises(TypeError):
        await journal.write(lambda tx: tx.advance(kit.uuid(1), E.READ_STARTED, **{name: "x"}))


async def test_mistakes_are_refused_and_the_journal_goes_on(kit):
    journal = await kit.open()
    await journal.write(kit.begin)
    wrong = [
        (JournalError, lambda tx: tx.add_acquisition(kit.clip(docking=5))),  # no such docking
        (JournalError, lambda tx: tx.add_acquisition(kit.clip(size_bytes=-1))),
        (JournalError, lambda tx: tx.add_acquisition(kit.clip(path="text"))),  # STRICT: a path is bytes
        (JournalError, lambda tx: tx.add_acquisition(kit.clip(bay=object()))),
        (OverflowError, lambda tx: tx.add_acquisition(kit.clip(size_bytes=2**63))),
        (ValueError, lambda tx: tx.record("a.b", details={"float": 1.5})),
        (ValueError, lambda tx: tx.record("a.b", details={"long": "x" * 70_000})),
        (ValueError, lambda tx: tx.record("a.b", details={"surrogate": "\udcff"})),
        (RuntimeError, lambda _: next(iter([]))),
        (JournalError, lambda tx: tx.line(9)),
        (JournalError, lambda tx: tx.node(0, 9)),
        (JournalError, lambda tx: tx.manifest(kit.uuid(9))),
    ]
    for kind, change in wrong:
        with pytest.raises(kind) as caught:
            await journal.write(change)
        assert not isinstance(caught.value, sqlite3.Error)
    assert await journal.write(lambda tx: tx.record("a.b", details={})) == 1


async def test_a_query_writes_nothing_and_a_leaked_transaction_neither(kit):
    journal = await kit.open()
    with pytest.raises(RuntimeError, match="only reads"):
        await journal.read(lambda tx: tx.record("a.b", details={}))
    leaked = await journal.write(lambda tx: tx)
    with pytest.raises(RuntimeError, match="is over"):
        leaked.record("a.b", details={})
    assert journal.durable_size == 0


async def test_the_reserved_number_is_the_one_the_sealing_entry_gets(kit):
    journal = await kit.open()

    def change(tx):
        kit.begin(tx)
        return kit.bring(tx, kit.clip(), *kit.to_spooled)

    row = await journal.write(change)
    entry = json.loads(await journal.read(lambda tx: tx.line(row.custody_seq)))
    assert entry["event"] == "acquisition.sealed"


async def test_epochs_never_repeat(kit):
    journal = await kit.open()
    first = await journal.write(lambda tx: kit.begin(tx, 1).epoch)
    second = await journal.write(lambda tx: tx.next_epoch())
    await journal.aclose()
    journal = await kit.open()
    third = await journal.write(lambda tx: kit.begin(tx, 2).epoch)
    assert (first, second, third) == (1, 2, 3)


async def test_dockings(kit):
    journal = await kit.open()
    odd = b"cam\xff\n".decode(errors="surrogateescape")

    def change(tx):
        kit.begin(tx, 1)
        tx.begin_docking(kit.docking(2), tx.next_epoch(), 1, odd, None, DockingEvent.REFUSED, {"why": "no marker"})
        tx.advance_docking(kit.docking(1), DockingEvent.ENDED)

    await journal.write(change)
    (refused,) = await journal.read(lambda tx: tx.open_dockings())
    assert (refused.device, refused.camera, refused.state) == (odd, None, DockingState.REFUSED)
    ended = await journal.read(lambda tx: tx.docking(kit.docking(1)))
    assert (ended.camera, ended.state, ended.begun_at) == (kit.camera, DockingState.ENDED, kit.clock.now())
    assert await journal.read(lambda tx: tx.docking_of_epoch(2)) == refused
    assert (await entries(journal))[1]["details"]["device"] == "cam%FF%0A"


async def test_p05_noted_files_keep_hostile_names(kit):
    journal = await kit.open()
    names = [b"\xff\n", b"..", b"\xf0\x28", b"x" * 4000]
    listed = [
        ListedFile(
            file=FoundFile(path=name, size_bytes=0, mtime_ns=-(2**70), inode=0), kind=FileKind.REFUSED, reason="a fifo"
        )
        for name in names
    ]

    def change(tx):
        kit.begin(tx)
        for one in [*listed, listed[0]]:
            tx.note_file(kit.docking(), one)

    await journal.write(change)
    assert await journal.read(lambda tx: tx.noted_files(kit.docking())) == sorted(listed, key=lambda one: one.file.path)
    page = await journal.read(lambda tx: tx.noted_files(kit.docking(), limit=1, after=b".."))
    assert [one.file.path for one in page] == [b"x" * 4000]
    assert await journal.read(lambda tx: tx.count_noted(kit.docking())) == 4
    await journal.write(lambda tx: tx.clear_files(kit.docking()))
    assert await journal.read(lambda tx: tx.noted_files(kit.docking())) == []


async def test_find_clip_wants_the_very_clip_neither_erased_nor_contested(kit):
    journal = await kit.open()
    path = b"a.mp4"
    clips = [kit.clip(number, path=path) for number in range(1, 5)]
    clips = [kit.replace(one, file=kit.replace(one.file, mtime_ns=7)) for one in clips]

    def change(tx):
        kit.begin(tx)
        kit.bring(tx, clips[0], *kit.to_stored)
        kit.bring(tx, clips[1], E.DEPARTED)
        kit.bring(tx, clips[2], *kit.to_stored, E.CONTESTED)
        kit.bring(tx, clips[3], *kit.to_stored, E.REREAD, E.WARRANTED, E.ERASED)

    await journal.write(change)
    find = await journal.read(lambda tx: tx.find_clip("CAM-1", "VOL-1", path, 1000, 7))
    assert find.acquisition == kit.uuid(2)
    for other in [("CAM-2", "VOL-1", path, 1000, 7), ("CAM-1", "X", path, 1000, 7), ("CAM-1", "VOL-1", path, 999, 7)]:
        assert await journal.read(lambda tx, other=other: tx.find_clip(*other)) is None
    assert [one.acquisition for one in await journal.read(lambda tx: tx.find_path("CAM-1", "VOL-1", path))] == [
        kit.uuid(2)
    ]
    assert await journal.read(lambda tx: tx.count_contested(kit.camera, path)) == 1


async def test_counts_and_what_is_held(kit):
    journal = await kit.open()

    def change(tx):
        kit.begin(tx)
        kit.bring(tx, kit.clip(1))
        kit.bring(tx, kit.clip(2), *kit.to_stored)
        kit.bring(tx, kit.clip(3, size_bytes=7), *kit.to_stored, status=VerdictStatus.DAMAGED)
        kit.bring(tx, kit.clip(4), *kit.to_stored, E.RELEASED, status=VerdictStatus.UNRECOGNISED)

    await journal.write(change)
    counts = await journal.read(lambda tx: tx.counts(kit.docking()))
    assert counts.of(S.STORED) == Tally(clips=3, size_bytes=2007)
    assert counts.of() == Tally(clips=4, size_bytes=3007)
    assert counts.held == Tally(clips=1, size_bytes=7)
    assert [one.acquisition for one in await journal.read(lambda tx: tx.held(limit=9))] == [kit.uuid(3)]
    await journal.write(lambda tx: tx.advance(kit.uuid(3), E.RELEASED, released_by="anna"))
    assert (await journal.read(lambda tx: tx.counts(kit.docking()))).held == Tally()


async def test_p01_picks_for_rereading_and_erasing(kit):
    journal = await kit.open()

    def change(tx):
        kit.begin(tx, 1)
        kit.begin(tx, 2)
        kit.bring(tx, kit.clip(1), *kit.to_stored, E.REREAD)  # may go
        kit.bring(tx, kit.clip(2), *kit.to_stored)  # not reread
        kit.bring(tx, kit.clip(3), *kit.to_stored, E.REREAD, status=VerdictStatus.DAMAGED)  # held
        kit.bring(tx, kit.clip(4), *kit.to_stored, E.REREAD, E.CONTESTED)
        kit.bring(tx, kit.clip(5), *kit.to_spooled, E.REREAD)  # not stored
        kit.bring(tx, kit.clip(6, category=Category.EVIDENCE), *kit.to_stored)
        kit.bring(tx, kit.clip(7), E.READ_STARTED)

    await journal.write(change)

    async def picks(number):
        rows = await journal.read(
            lambda tx: (tx.next_to_erase(kit.docking(number), limit=9), tx.next_to_reread(kit.docking(number), limit=9))
        )
        return tuple([one.acquisition for one in part] for part in rows)

    assert await picks(1) == ([kit.uuid(1)], [kit.uuid(6), kit.uuid(2)])
    # Undocked and docked again: the reread of the docking before is worth nothing now.
    await journal.write(lambda tx: tx.advance(kit.uuid(1), E.SEEN_AGAIN, docking=kit.docking(2)))
    assert await picks(1) == ([], [kit.uuid(6), kit.uuid(2)])
    assert await picks(2) == ([], [kit.uuid(1)])


async def test_uplink_order(kit):
    journal = await kit.open()

    def change(tx):
        for number in (1, 2, 3):
            kit.begin(tx, number)
        kit.bring(tx, kit.clip(1, docking=1, size_bytes=10), *kit.to_spooled)  # of an ended docking: old
        kit.bring(tx, kit.clip(2, docking=2, size_bytes=500), *kit.to_spooled)
        kit.bring(tx, kit.clip(3, docking=3, size_bytes=100), *kit.to_spooled)
        kit.bring(tx, kit.clip(4, docking=3, size_bytes=100), *kit.to_spooled, E.REGISTERED)
        kit.bring(tx, kit.clip(5, docking=2, category=Category.EVIDENCE), *kit.to_spooled)
        kit.bring(tx, kit.clip(6, docking=1, category=Category.EVIDENCE), *kit.to_spooled)
        kit.bring(tx, kit.clip(7, docking=3), *kit.to_stored)
        tx.advance_docking(kit.docking(1), DockingEvent.ENDED)

    await journal.write(change)
    wanted = [kit.uuid(number) for number in (5, 6, 3, 4, 2, 1)]
    for limit in range(8):
        rows = await journal.read(lambda tx, limit=limit: tx.uplink_candidates(kit.store, limit))
        assert [one.acquisition for one in rows] == wanted[:limit]
    assert await journal.read(lambda tx: tx.waiting(kit.store)) == (6, 10 + 500 + 100 + 100 + 1000 + 1000 + 6 * 300)


async def test_manifest_and_receipts(kit):
    journal = await kit.open()
    store = "store-1"

    def change(tx):
        kit.begin(tx)
        for number in (1, 2):
            kit.bring(tx, kit.clip(number), *kit.to_spooled)
        tx.put_manifest(kit.uuid(1), kit.signed(), bytes(32))
        tx.put_receipt(kit.uuid(1), store, kit.signed(b"1"), 4, kit.digest)
        tx.put_receipt(kit.uuid(2), store, kit.signed(b"2"), 5, kit.digest)
        tx.put_receipt(kit.uuid(2), store, kit.signed(b"2"), 5, kit.digest)

    await journal.write(change)
    assert await journal.read(lambda tx: (tx.manifest(kit.uuid(1)), tx.manifest_nonce(kit.uuid(1)))) == (
        kit.signed(),
        bytes(32),
    )
    assert await journal.read(lambda tx: tx.last_receipt(store)) == (kit.signed(b"2"), kit.uuid(2))
    assert await journal.read(lambda tx: tx.last_receipt("store-2")) is None
    assert await journal.read(lambda tx: tx.receipt(kit.uuid(1), store)) == kit.signed(b"1")
    with pytest.raises(IllegalTransition):
        await journal.write(lambda tx: tx.put_receipt(kit.uuid(2), store, kit.signed(b"3"), 6, kit.digest))
    with pytest.raises(JournalError):  # a receipt number twice is a roll-back of the store
        await journal.write(lambda tx: tx.put_receipt(kit.uuid(2), "store-2", kit.signed(b"3"), 6, None))
    with pytest.raises(JournalError):
        await journal.write(lambda tx: tx.put_manifest(kit.uuid(1), kit.signed(b"other"), bytes(32)))


async def test_acquisitions_by_page(kit):
    journal = await kit.open()

    def change(tx):
        kit.begin(tx)
        for number in range(1, 8):
            kit.bring(tx, kit.clip(number), *(kit.to_spooled if number % 2 else ()))

    await journal.write(change)
    seen, after = [], None
    while page := await journal.read(
        lambda tx, after=after: tx.acquisitions(
            state=S.SPOOLED, serial="CAM-1", docking=kit.docking(), limit=3, after=after
        )
    ):
        seen += [one.acquisition for one in page]
        after = page[-1].acquisition
    assert seen == [kit.uuid(number) for number in (1, 3, 5, 7)]
    assert len(await journal.read(lambda tx: tx.acquisitions())) == 7
    assert [one.acquisition for one in await journal.read(lambda tx: tx.next_in(kit.docking(), S.FOUND, limit=2))] == [
        kit.uuid(2),
        kit.uuid(4),
    ]
