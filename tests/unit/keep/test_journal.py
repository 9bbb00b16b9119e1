"""The journal as a whole: opening, closing, the thread, the checkpoint, growth, and how picks are found."""

import asyncio
import hashlib
import json
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from dockd.core import checkpoint as notes
from dockd.core import merkle
from dockd.core.custody import entry_line
from dockd.core.lifecycle import AcquisitionState
from dockd.core.sshsig import SigningKey
from dockd.errors import JournalError


def note(number):
    return lambda tx: tx.record("test.noted", details={"number": number})


def verified(kit, journal, text):
    return notes.parse_and_verify(text, journal.origin, kit.key.public)


async def test_p07_after_write_the_entry_is_in_journal_and_mirror(kit):
    journal = await kit.open()
    for number in range(5):
        assert await journal.write(note(number)) == number
        assert journal.durable_size == number + 1
        assert kit.mirror.read_bytes().count(b"\n") == number + 1
    lines = kit.mirror.read_bytes().splitlines()
    previous = "0" * 64
    for number, line in enumerate(lines):
        entry = json.loads(line)
        assert (entry["seq"], entry["prev"], entry["station"]) == (number, previous, kit.station)
        previous = hashlib.sha256(line).hexdigest()


async def test_p07_the_checkpoint_is_over_the_mirror_lines(kit):
    journal = await kit.open()
    assert verified(kit, journal, await journal.checkpoint()).size == 0
    for number in range(9):
        await journal.write(note(number))
        signed = verified(kit, journal, await journal.checkpoint())
        frontier = merkle.Frontier()
        for line in kit.mirror.read_bytes().splitlines():
            frontier.append(line)
        assert (signed.size, signed.root) == (number + 1, frontier.root())
        assert journal.signed_size == number + 1
    proof = await journal.read(lambda tx: merkle.consistency_proof(tx, 3, 9))
    roots = await journal.read(lambda tx: (merkle.root_at(tx, 3), merkle.root_at(tx, 9)))
    merkle.verify_consistency(3, 9, *roots, proof)


async def test_p07_the_checkpoint_follows_without_being_asked(kit):
    journal = await kit.open()
    await journal.write(note(1))
    await asyncio.to_thread(wait_for, lambda: journal.signed_size == 1)
    await journal.write(note(2))
    await journal.aclose()
    text = (kit.directory / "custody" / "checkpoint").read_bytes()
    assert notes.parse_and_verify(text, f"dockd/{kit.station}/1", kit.key.public).size == 2


def wait_for(condition):
    """Until it holds; the test's own time limit is the only clock."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)


async def test_reads_see_every_write_asked_for_before(kit):
    journal = await kit.open()
    writes = [asyncio.ensure_future(journal.write(note(number))) for number in range(100)]
    await asyncio.sleep(0)
    size = await journal.read(lambda tx: tx.size)
    assert size == 100
    assert await asyncio.gather(*writes) == list(range(100))


async def test_changes_queued_together_are_undone_one_by_one(kit):
    journal = await kit.open()
    gate = threading.Event()
    blocker = asyncio.ensure_future(journal.read(lambda _: gate.wait()))

    def failing(tx):
        note(0)(tx)
        raise LookupError

    changes = [failing if number % 3 == 0 else note(number) for number in range(50)]
    writes = [asyncio.ensure_future(journal.write(change)) for change in changes]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*writes, return_exceptions=True)
    await blocker
    good = [result for result in results if not isinstance(result, LookupError)]
    assert good == list(range(33))
    lines = kit.mirror.read_bytes().splitlines()
    assert [json.loads(line)["details"]["number"] for line in lines] == [number for number in range(50) if number % 3]
    assert await journal.read(lambda tx: tx.lines(0, 99)) == lines
    await journal.checkpoint()
    await journal.aclose()
    await kit.open()  # which compares journal, mirror and checkpoint


async def test_a_cancelled_writer_leaves_a_whole_transaction_or_none(kit):
    journal = await kit.open()
    gate, started = threading.Event(), threading.Event()

    def slow(tx):
        started.set()
        gate.wait()
        return note(1)(tx)

    running = asyncio.ensure_future(journal.write(slow))
    await asyncio.to_thread(started.wait)
    waiting = asyncio.ensure_future(journal.write(note(2)))
    await asyncio.sleep(0)
    running.cancel()
    waiting.cancel()
    gate.set()
    assert [type(one) for one in await asyncio.gather(running, waiting, return_exceptions=True)] == [
        asyncio.CancelledError
    ] * 2
    # The one that had begun is committed; the one that had not is left out. The journal goes on.
    assert await journal.write(note(3)) == 1
    numbers = [json.loads(line)["details"]["number"] for line in kit.mirror.read_bytes().splitlines()]
    assert numbers == [1, 3]


async def test_p10_the_queue_is_bounded_and_gives_room_back(kit):
    journal = await kit.open()
    gate = threading.Event()
    blocker = asyncio.ensure_future(journal.read(lambda _: gate.wait()))
    many = [asyncio.ensure_future(journal.write(note(number))) for number in range(1000)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert journal._queue.qsize() <= 256
    for one in many[::2]:
        one.cancel()
    gate.set()
    await asyncio.gather(blocker, *many, return_exceptions=True)
    assert await journal.read(lambda tx: tx.size) == 500


async def test_closing_finishes_what_is_queued_and_refuses_what_comes_later(kit):
    journal = await kit.open()
    writes = [asyncio.ensure_future(journal.write(note(number))) for number in range(600)]
    await asyncio.sleep(0)
    await journal.aclose()
    await journal.aclose()
    results = await asyncio.gather(*writes, return_exceptions=True)
    done = [result for result in results if isinstance(result, int)]
    refused = [result for result in results if isinstance(result, JournalError)]
    assert len(done) >= 256
    assert len(done) + len(refused) == 600
    assert kit.mirror.read_bytes().count(b"\n") == len(done)
    with pytest.raises(JournalError, match="closed"):
        await journal.write(note(1))
    assert not journal._thread.is_alive()


async def test_a_mistake_in_the_thread_reaches_everybody_who_waits(kit):
    journal = await kit.open()
    journal._ledger.ask = None  # calling it raises TypeError, as a bug of ours would
    results = await asyncio.gather(*(journal.read(lambda tx: tx.size) for _ in range(400)), return_exceptions=True)
    assert {type(result) for result in results} == {JournalError}
    with pytest.raises(JournalError):
        await journal.write(note(1))
    await journal.aclose()


async def test_a_second_opener_is_refused(kit):
    journal = await kit.open()
    with pytest.raises(JournalError, match="in use by another"):
        await kit.open()
    script = (
        "import fcntl, sys\n"
        "try: fcntl.flock(open(sys.argv[1], 'rb'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(3)"
    )
    command = [sys.executable, "-c", script, str(kit.directory / "journal.lock")]
    assert (await asyncio.to_thread(subprocess.run, command, check=False)).returncode == 3
    await journal.aclose()
    await kit.open()


async def test_another_station_or_key_is_refused(kit):
    journal = await kit.open()
    await journal.write(note(1))
    await journal.aclose()
    with pytest.raises(JournalError, match="belongs to station"):
        await kit.open(station="00000000-0000-0000-0000-000000000001")
    with pytest.raises(JournalError, match="not signed by this station"):
        await kit.open(checkpoint_key=SigningKey.generate())
    await kit.open()


async def test_everything_is_private(kit):
    kit.directory.mkdir(mode=0o755)
    journal = await kit.open()
    await journal.write(note(1))
    await journal.checkpoint()
    for path in [kit.directory, *kit.directory.rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert {path.name for path in (kit.directory / "custody").iterdir()} == {
        "custody.jsonl",
        "checkpoint",
        "checkpoint.vkey",
        "checkpoint.pem",
    }
    name, public = notes.parse_vkey((kit.directory / "custody" / "checkpoint.vkey").read_text().strip())
    assert (name, public.raw) == (journal.origin, kit.key.public.raw)


async def test_a_newer_or_foreign_database_is_refused(kit):
    await (await kit.open()).aclose()
    for pragma, words in (("user_version = 99", "newer dockd"), ("application_id = 5", "not a journal")):
        connection = sqlite3.connect(kit.directory / "journal.sqlite")
        connection.execute(f"PRAGMA {pragma}")
        connection.close()
        with pytest.raises(JournalError, match=words):
            await kit.open()


async def test_how_the_database_is_set(kit):
    journal = await kit.open()
    pragmas = ("journal_mode", "synchronous", "foreign_keys")

    def ask(tx):
        return [tx._connection.execute(f"PRAGMA {one}").fetchone()[0] for one in pragmas], [
            row["name"] for row in tx._connection.execute("PRAGMA table_list") if row["strict"] == 0
        ]

    values, lax = await journal.read(ask)
    assert values == ["wal", 2, 1]
    assert all(name.startswith("sqlite_") for name in lax)


async def test_p10_the_write_ahead_log_stays_small(kit):
    journal = await kit.open()
    log = kit.directory / "journal.sqlite-wal"
    largest = 0
    for _ in range(40):
        await asyncio.gather(
            *(journal.write(lambda tx: tx.record("test.noted", details={"text": "x" * 2000})) for _ in range(100))
        )
        largest = max(largest, log.stat().st_size)
    assert kit.mirror.stat().st_size > 8_000_000
    assert largest < 8_000_000  # 4 MiB, and what one shared transaction adds
    # Another program that looks into the file holds the log back only as long as it looks.
    other = sqlite3.connect(kit.directory / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM entry").fetchone()
    for _ in range(60):
        await asyncio.gather(
            *(journal.write(lambda tx: tx.record("test.noted", details={"text": "x" * 2000})) for _ in range(100))
        )
    assert log.stat().st_size > 10_000_000
    other.close()
    for _ in range(3):
        await journal.write(lambda tx: tx.record("test.noted", details={"text": "x" * 2000}))
    assert log.stat().st_size <= 8 * 1024 * 1024


async def test_an_entry_of_the_greatest_size_survives_reopening(kit):
    journal = await kit.open()
    bare = len(
        entry_line(seq=0, prev="0" * 64, at=kit.clock.now(), event="a.b", station=kit.station, details={"text": ""})
    )
    await journal.write(lambda tx: tx.record("a.b", details={"text": "x" * (65_535 - bare)}))
    assert kit.mirror.stat().st_size == 65_536
    await journal.aclose()
    assert (await kit.open()).durable_size == 1


PICKS = [
    ("acquisition_next", lambda tx, kit: tx.next_in(kit.docking(), AcquisitionState.FOUND)),
    ("acquisition_to_reread", lambda tx, kit: tx.next_to_reread(kit.docking())),
    ("acquisition_to_erase", lambda tx, kit: tx.next_to_erase(kit.docking())),
    ("delivery_to_send_of", lambda tx, kit: tx.uplink_candidates(kit.store, 3)),
    ("delivery_to_send", lambda tx, kit: tx.uplink_candidates(kit.store, 3)),
    ("delivery_given_up", lambda tx, kit: tx.given_up(kit.store)),
    ("acquisition_by_clip", lambda tx, kit: tx.find_clip("CAM-1", "VOL-1", b"x", 1, 1)),
    ("acquisition_by_clip", lambda tx, kit: tx.find_path("CAM-1", "VOL-1", b"x")),
    ("acquisition_by_clip", lambda tx, kit: tx.count_contested(kit.camera, b"x")),
    ("acquisition_by_state", lambda tx, kit: tx.acquisitions(state=AcquisitionState.QUARANTINED, limit=100)),
    ("acquisition_held", lambda tx, kit: tx.held(limit=100)),
    ("docking_open", lambda tx, kit: tx.open_dockings()),
]


@pytest.mark.parametrize(("index", "pick"), PICKS)
async def test_p10_picks_are_index_searches(kit, index, pick):
    journal = await kit.open()
    await journal.write(kit.begin)

    def explain(tx):
        asked = []
        tx._connection.set_trace_callback(asked.append)
        pick(tx, kit)
        tx._connection.set_trace_callback(None)
        return [row["detail"] for sql in asked for row in tx._connection.execute(f"EXPLAIN QUERY PLAN {sql}")]

    plan = await journal.read(explain)
    assert any(f"INDEX {index}" in step for step in plan), plan
    # Only the few open dockings are ever sorted or scanned.
    dull = ("SCAN docking USING INDEX docking_open", "SCAN acquisition USING INDEX acquisition_held")
    assert not [step for step in plan if step.startswith("SCAN") and not step.startswith(dull)], plan
    if not any("docking_open" in step for step in plan):
        assert not [step for step in plan if "TEMP B-TREE" in step], plan


async def test_p10_ten_thousand_clips_stay_cheap_to_pick_from(kit):
    journal = await kit.open()
    await journal.write(kit.begin)
    for start in range(0, 10_000, 1000):
        await journal.write(
            lambda tx, start=start: [kit.bring(tx, kit.clip(start + number), *kit.to_spooled) for number in range(1000)]
        )

    def cost(tx):
        steps = 0

        def count():
            nonlocal steps
            steps += 1

        tx._connection.set_progress_handler(count, 100)
        tx.next_in(kit.docking(), AcquisitionState.FOUND)
        tx.next_to_reread(kit.docking())
        tx.next_to_erase(kit.docking())
        tx.uplink_candidates(kit.store, 4)
        tx.counts(kit.docking())
        tx.find_clip("CAM-1", "VOL-1", b"DCIM/004711.MP4", 1000, 10**18 + 4711)
        tx._connection.set_progress_handler(None, 0)
        return steps * 100

    assert await journal.read(cost) < 5000  # virtual machine steps, for all six together
