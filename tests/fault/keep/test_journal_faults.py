"""Each durable write of the journal failing before, in the middle and after; then opened again and compared."""

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from dockd.core.custody import previous_hash
from dockd.errors import JournalError
from dockd.faultpoints import Point
from dockd.faults import Faults, parse


def note(number):
    return lambda tx: (tx.put("last", str(number)), tx.record("test.noted", details={"number": number}))[1]


class Failing(Faults):
    """Fails in one way at the transaction after the next `good` ones."""

    def __init__(self, part, way, good):
        self.part = part
        self.way = way
        self.good = good

    def act(self, point, call, *args, **kwargs):
        if (point, self.part) == (Point.JOURNAL_COMMIT, "commit") and self.is_time():
            if self.way == "not persisted":
                raise sqlite3.OperationalError("disk I/O error")
            call(*args, **kwargs)
            raise sqlite3.OperationalError("persisted, but the answer was lost")
        if (point, self.way) == (Point.MIRROR_SYNC, "answer lost") and self.good < 0:
            call(*args, **kwargs)
            raise OSError(5, "written and synced, but the answer was lost")
        return call(*args, **kwargs)

    def write(self, point, fd, block, offset=None):
        if (point, self.part) != (Point.MIRROR_DATA, "mirror") or not self.is_time():
            return super().write(point, fd, block, offset)
        block = bytes(block)
        if self.way == "nothing written":
            raise OSError(28, "No space left on device")
        if self.way == "answer lost":
            return super().write(point, fd, block, offset)
        torn = {
            "torn": block[: len(block) // 2],
            "torn into zeros": block[:20] + bytes(len(block) - 20),
            "first line only": block[: block.index(b"\n") + 1],
        }
        os.write(fd, torn[self.way])
        raise OSError(5, "Input/output error")

    def is_time(self):
        self.good -= 1
        return self.good == -1


MIRROR_WAYS = ("nothing written", "torn", "torn into zeros", "first line only", "answer lost")
COMMIT_WAYS = ("not persisted", "answer lost")


FAULTS = [("mirror", way) for way in MIRROR_WAYS] + [("commit", way) for way in COMMIT_WAYS]


@pytest.mark.parametrize("good", [0, 1, 5])
@pytest.mark.parametrize(("part", "way"), FAULTS)
async def test_p02_p07_a_failing_write_stops_the_journal_and_a_restart_mends_it(kit, part, way, good):
    journal = await kit.open(faults=Failing(part, way, good))
    for number in range(good):
        await journal.write(note(number))
    gate = threading.Event()
    blocker = asyncio.ensure_future(journal.read(lambda _: gate.wait()))
    group = [asyncio.ensure_future(journal.write(note(good + number))) for number in range(3)]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*group, return_exceptions=True)
    await blocker
    # Nobody is told of a success that is not durable in both, and nothing more is written.
    assert [type(result) for result in results] == [JournalError] * 3
    assert len({id(result) for result in results}) == 3
    assert journal.durable_size == good
    with pytest.raises(JournalError, match="until dockd is started again"):
        await journal.write(note(99))
    with pytest.raises(JournalError):
        await journal.checkpoint()
    await journal.read(lambda tx: tx.size)
    await journal.aclose()
    assert journal.signed_size <= good

    for _ in range(2):  # mended, and mending again changes nothing
        journal = await kit.open()
        persisted = (part, way) != ("commit", "not persisted")
        assert journal.durable_size == (good + 3 if persisted else good)
        lines = await journal.read(lambda tx: tx.lines(0, 99))
        assert kit.mirror.read_bytes() == b"".join(line + b"\n" for line in lines)
        assert [json.loads(line)["details"]["number"] for line in lines] == list(range(len(lines)))
        assert await journal.read(lambda tx: tx.get("last")) == (str(len(lines) - 1) if lines else None)
        await journal.aclose()
    journal = await kit.open()
    assert await journal.write(note(len(lines))) == len(lines)


async def test_a_checkpoint_that_cannot_be_written_stops_nothing(kit):
    failing = []

    class Full(Faults):
        def write(self, point, fd, block, offset=None):
            if point is Point.CHECKPOINT_DATA and failing:
                raise OSError(28, "No space left on device")
            return super().write(point, fd, block, offset)

    journal = await kit.open(faults=Full())
    failing.append(True)
    await journal.write(note(1))
    with pytest.raises(JournalError, match="cannot write"):
        await journal.checkpoint()
    await journal.write(note(2))
    failing.clear()
    await journal.checkpoint()
    assert journal.signed_size == journal.durable_size == 2


async def test_a_mirror_that_is_moved_away_or_edited_while_running_stops_the_journal(kit):
    for number, harm in enumerate(
        [
            lambda: kit.mirror.rename(kit.mirror.with_name("elsewhere")),
            lambda: kit.mirror.write_bytes(b""),
            lambda: shutil.copy(kit.mirror, kit.mirror.with_name("copy")).replace(kit.mirror),
        ]
    ):
        journal = await kit.open()
        await journal.write(note(number))
        harm()
        with pytest.raises(JournalError, match="while dockd was running"):
            await journal.write(note(99))
        await journal.aclose()
        kit.mirror.with_name("elsewhere").unlink(missing_ok=True)
        if number == 1:
            kit.mirror.unlink()  # a hole at its start is an edit, not a torn end
    await kit.open()


async def written(kit, count):
    journal = await kit.open()
    for number in range(count):
        await journal.write(note(number))
    await journal.aclose()
    return kit.mirror.read_bytes()


async def test_p02_a_mirror_cut_at_any_byte_is_completed(kit):
    whole = await written(kit, 3)
    lines = whole.splitlines(keepends=True)
    for kept in range(len(lines[0]) - 2, len(whole) + 1):
        kit.mirror.write_bytes(whole[:kept])
        await (await kit.open()).aclose()
        assert kit.mirror.read_bytes() == whole
    kit.mirror.unlink()
    await (await kit.open()).aclose()
    assert kit.mirror.read_bytes() == whole


@pytest.mark.parametrize("tail", [bytes(300), b"{torn\n\xff\n", os.urandom(70_000).replace(b"{", b"")])
async def test_p02_rubbish_in_place_of_the_last_line_is_what_a_power_cut_leaves(kit, tail):
    whole = await written(kit, 3)
    start = whole.rindex(b"\n", 0, -1) + 1
    for kept in (start, start + 7, len(whole) - 1):
        kit.mirror.write_bytes(whole[:kept] + tail)
        await (await kit.open()).aclose()
        assert kit.mirror.read_bytes() == whole


def edits(whole):
    lines = whole.splitlines(keepends=True)
    last = json.loads(lines[-1])
    more = last | {"seq": last["seq"] + 1, "prev": previous_hash(lines[-1][:-1])}
    yield "edited", b"".join(lines).replace(b'"number":1}', b'"number":7}')
    yield "last edited", whole.replace(b'"number":3}', b'"number":7}')
    yield "rubbish in the middle", whole.replace(lines[1], b"\0" * len(lines[1]))
    yield "rubbish from a line on that was durable", b"".join(lines[:2]) + b"\0" * 500
    yield "dropped", b"".join([lines[0], *lines[2:]])
    yield "duplicated", b"".join([lines[0], *lines])
    yield "reordered", b"".join([lines[1], lines[0], *lines[2:]])
    yield "one more", whole + json.dumps(more).encode() + b"\n"
    yield "a piece more", whole + b"{"
    yield "CRLF", whole.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("number", range(10))
async def test_p07_a_mirror_that_says_something_else_is_refused_and_left_alone(kit, number):
    whole = await written(kit, 4)
    name, edited = list(edits(whole))[number]
    assert edited != whole
    kit.mirror.write_bytes(edited)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"line \d.*keep copies"):
            await kit.open()
        assert kit.mirror.read_bytes() == edited, name
    kit.mirror.write_bytes(whole)
    await kit.open()


async def test_p07_a_journal_that_was_rolled_back_is_refused(kit, tmp_path):
    await written(kit, 3)
    shutil.copytree(kit.directory, tmp_path / "backup")
    await written(kit, 2)
    # The journal alone.
    shutil.copy(tmp_path / "backup" / "journal.sqlite", kit.directory / "journal.sqlite")
    with pytest.raises(JournalError, match="rolled back"):
        await kit.open()
    # Journal and mirror: the checkpoint still knows.
    shutil.copy(tmp_path / "backup" / "custody" / "custody.jsonl", kit.mirror)
    with pytest.raises(JournalError, match="signed over 5 entries, the journal has 3"):
        await kit.open()
    # A journal that was lost.
    for path in kit.directory.glob("journal.sqlite*"):
        path.unlink()
    with pytest.raises(JournalError):
        await kit.open()


async def test_p07_an_edited_journal_and_mirror_contradict_the_checkpoint(kit):
    whole = await written(kit, 3)
    connection = sqlite3.connect(kit.directory / "journal.sqlite")
    connection.execute("UPDATE node SET hash = zeroblob(32) WHERE level = 1")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="signed over other entries"):
        await kit.open()
    assert kit.mirror.read_bytes() == whole


async def test_p07_a_torn_checkpoint_is_not_trusted(kit):
    await written(kit, 3)
    checkpoint = kit.directory / "custody" / "checkpoint"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-9])
    with pytest.raises(JournalError, match="not signed by this station"):
        await kit.open()
    checkpoint.unlink()
    journal = await kit.open()
    assert any("checkpoint was gone" in sentence for sentence in journal.mended)
    await journal.aclose()
    assert checkpoint.read_bytes() == content
    journal = await kit.open()
    assert journal.mended == ()


async def test_p07_lines_that_were_durable_and_are_gone_are_written_again_and_told(kit):
    whole = await written(kit, 4)
    lines = whole.splitlines(keepends=True)
    kit.mirror.write_bytes(b"".join(lines[:2]))
    journal = await kit.open()
    assert any("from line 3 on" in sentence for sentence in journal.mended)
    assert kit.mirror.read_bytes() == whole
    await journal.aclose()
    kit.mirror.write_bytes(b"".join(lines[:3]) + lines[3][:9])  # what a power cut may leave is no matter for a person
    journal = await kit.open()
    assert journal.mended == ()


@pytest.mark.parametrize("harm", ["rubbish", "half", "a page"])
async def test_a_database_that_was_damaged_is_refused_in_a_sentence(kit, harm):
    await written(kit, 60)
    database = kit.directory / "journal.sqlite"
    content = database.read_bytes()
    spoiled = {
        "rubbish": os.urandom(5000),
        "half": content[: len(content) // 2],
        "a page": content[:100] + bytes(5000) + content[5100:],
    }
    database.write_bytes(spoiled[harm])
    with pytest.raises(JournalError, match=r"journal\.sqlite cannot be used: .*rebuilds what can be proven"):
        await kit.open()
    assert database.read_bytes() == spoiled[harm]
    database.write_bytes(content)
    await kit.open()


async def test_a_full_disk_is_named_with_what_to_do(kit):
    journal = await kit.open(faults=parse("enospc@journal.commit"))
    with pytest.raises(JournalError, match="the disk is full: make room"):
        await journal.write(note(1))


WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from dockd.core.sshsig import SigningKey
from dockd.keep.journal import Journal

class Clock:
    def now(self):
        return datetime(2026, 3, 1, tzinfo=UTC)

async def one(journal):
    while True:
        seq = await journal.write(lambda tx: (tx.put("last", str(tx.next_seq())), tx.record("a.b", details={}))[1])
        print(seq, flush=True)

async def main():
    directory, station, key = sys.argv[1:]
    key = SigningKey.parse(Path(key).read_bytes())
    journal = await Journal.open(Path(directory), station=station, clock=Clock(), checkpoint_key=key)
    await asyncio.gather(*(one(journal) for _ in range(3)))

asyncio.run(main())
"""


async def test_p02_kill_at_any_moment_loses_nothing_that_was_answered(kit, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(kit.key.private_pem())
    chance = random.Random(20)
    answered = -1
    for _ in range(8):
        wanted = chance.randrange(1, 200)

        def run(wanted=wanted):
            command = [sys.executable, "-c", WRITER, str(kit.directory), kit.station, str(key)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                seen = [int(child.stdout.readline()) for _ in range(wanted)]
                child.send_signal(signal.SIGKILL)
                return seen + [int(line) for line in child.stdout.read().split("\n")[:-1]]

        answered = max([answered, *await asyncio.to_thread(run)])
        journal = await kit.open()
        size = journal.durable_size
        assert size > answered
        assert size - answered <= 4
        assert await journal.read(lambda tx: tx.get("last")) == str(size - 1)
        assert kit.mirror.read_bytes().count(b"\n") == size
        await journal.aclose()
