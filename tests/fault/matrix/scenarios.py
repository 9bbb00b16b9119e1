"""The ways that a dock is led, so that between them every point is passed. Each begins with a dock of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import uuid
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from card_source import Card, CardSource, mount_when_free
from cards import MIB, Part
from clips import mp4
from fault.matrix.dock import PATCH_BYTES, Dock
from fault.matrix.lives import Forker, Lives
from fault.matrix.truth import RUBBLE, check_end

from dockd import faults
from dockd.blocker import mounts
from dockd.control.client import ask
from dockd.core import canonical
from dockd.core import checkpoint as notes
from dockd.core.merkle import Frontier
from dockd.errors import DaemonUnreachable, DockdError, RequestRefused, StoreUntrusted
from dockd.faultpoints import Point
from dockd.keep import aside
from dockd.keep.durable import _temporary_name
from dockd.reader.client import ForkServer
from dockd.receiver import rows


@dataclass
class Bench:
    """What the docks of one worker share."""

    directory: Path
    readers: ForkServer  # that fail in no way
    forker: Forker
    lost_bytes: int = 0  # of what was tried since it was last asked for
    templates: dict[str, Dock] = field(default_factory=dict)
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    _numbers: count = field(default_factory=count)

    def new(self) -> Path:
        return self.directory / str(next(self._numbers))

    def clips(self) -> dict[str, bytes]:
        """One of two PATCHes, and one of less than a block."""
        number = next(self._numbers)
        return {"A.mp4": mp4(PATCH_BYTES + 20_000, 2 * number), "B.mp4": mp4(6_000, 2 * number + 1)}

    async def template(self, name: str, make) -> Dock:
        """A dock to copy, made once."""
        async with self.making:
            if name not in self.templates:
                self.templates[name] = await make(self)
        return self.templates[name]


async def _sealed(bench: Bench) -> Dock:
    """A dock that stopped when both clips were sealed and half of one was pushed, which the store forgets soon."""
    dock = Dock.make(bench.new())
    given = json.loads((dock.directory / "dock.json").read_text())
    (dock.directory / "dock.json").write_text(json.dumps(given | {"upload_expiry_s": 0}))
    dock = Dock(dock.directory)
    dock.enrol()
    dock.camera(bench.clips())
    full = _FullAfterOne()
    lives = Lives(dock, bench.readers, programs={"receiver": full})

    def done():
        bay = lives.snapshot.bays[0] if lives.snapshot else None
        return full.passed > 1 and bay is not None and bay.clips_acquired == len(dock.clips)

    try:
        await lives.until(done, nothing)
    finally:
        await lives.stop()
    return dock


class _FullAfterOne(faults.Faults):
    """A store that makes one offset durable, and then none."""

    passed = 0

    def act(self, point, call, *args, **kwargs):
        if point is Point.OFFSET_ROW:
            self.passed += 1
            if self.passed > 1:
                raise OSError("no room")
        return call(*args, **kwargs)


async def nothing() -> None:
    pass


class Whole:
    """Two clips go all the way: read, sealed, pushed, stored, signed for, read again, erased."""

    kept = 0  # sealed files that stay in the spool

    def __init__(self, bench: Bench):
        self.bench = bench
        self.lives: Lives | None = None

    async def make(self) -> Dock:
        dock = Dock.make(self.bench.new())
        dock.enrol()
        dock.camera(self.bench.clips())
        return dock

    async def lead(self, lives: Lives, failed, *, held: bool) -> None:
        """Lead it past the fault, through another start, to the end. `held`: a person may be wanted in between."""
        self.lives = lives
        await self.begin()
        states = ("ready", "attention") if held else ("ready",)
        await lives.until(lambda: failed() and lives.stands(*states), self.attend)
        if not (lives.restarts and self._at_the_end()):
            await lives.again()
            await lives.until(self._at_the_end, self.attend)

    def _at_the_end(self) -> bool:
        # Where a listing tells that a clip is gone, its sealed file goes at the next tidying, or the next start.
        return self.lives.stands("ready") and self.lives.snapshot.spool_files == self.kept

    async def begin(self) -> None:
        """What comes before the two programs."""

    async def attend(self) -> None:
        """What people do meanwhile."""

    async def release(self) -> None:
        """What an operator does about damaged clips."""
        for held in self.lives.snapshot.held if self.lives.snapshot else ():
            if held.state == "stored":
                await self.ask("release", acquisition=held.acquisition, reason="seen by a person")

    async def ask(self, operation: str, **about: str) -> None:
        """Ask the station for something; it may refuse, or be away."""
        with suppress(RequestRefused, DaemonUnreachable):
            await asyncio.to_thread(lambda: list(ask(self.lives.dock.control, operation, **about)))

    def check(self, dock: Dock) -> None:
        check_end(dock)

    def close(self, dock: Dock) -> None:
        """Whatever came of it."""


class Newcomer(Whole):
    """The same, of a station that was not enrolled yet."""

    async def make(self):
        dock = Dock.make(self.bench.new())
        dock.camera(self.bench.clips())
        return dock

    async def begin(self):
        await self.lives.command("enrol")


class Leftovers(Whole):
    """A start after a power cut, with everything that one can leave behind; and an upload whose time is over."""

    async def make(self):
        dock = Dock.copy(await self.bench.template("sealed", _sealed), self.bench.new())
        log = dock.state / "custody" / "custody.jsonl"
        log.write_bytes(log.read_bytes()[:-20])
        strange = str(uuid.uuid4())
        corner = dock.spool / "incoming" / strange
        corner.mkdir()
        half_made = _temporary_name("x", bytes)
        for path in (
            dock.state / "custody" / half_made,
            dock.spool / half_made,
            dock.spool / f"{strange}.age",
            corner / f"{strange}.part",
            dock.store_directory / "uploads" / "stray",
            dock.store_directory / "checkpoints" / half_made,
        ):
            path.write_bytes(b"half")
        return dock


class Rubble(Whole):
    """A start with a journal that is rubbish, and a sealed file in the spool that nothing proves."""

    kept = 2  # of clips that the lost journal knew: they are no grounds for erasing, so they are not erased

    async def make(self):
        dock = Dock.copy(await self.bench.template("sealed", _sealed), self.bench.new())
        (dock.state / "journal.sqlite").write_bytes(b"rubbish" * 1000)
        strange = uuid.uuid4()
        for suffix in (".age", ".manifest.json", ".manifest.json.sig"):
            (dock.spool / f"{strange}{suffix}").write_bytes(b"of nobody")
        self.accepted = False
        return dock

    async def attend(self):
        now = self.lives.snapshot
        if not self.accepted and now is not None and any("accept-log" in alarm for alarm in now.alarms):
            self.accepted = True
            await self.lives.command("accept_log")

    def check(self, dock):
        check_end(dock, copies=2)
        assert aside.former_generations(dock.state) == [1]
        assert len(list(dock.state.glob("journal.sqlite.corrupt-*Z"))) == 1
        assert [path.read_bytes() for path in (dock.spool / "set-aside").iterdir()] == [b"of nobody"] * 3
        assert (dock.store_directory / "checkpoints" / f"{dock.station}.generation-1").read_bytes()


class Resent(Whole):
    """The store loses bytes of a clip that it signed for; people accept that, and the clip is pushed again."""

    async def make(self):
        dock = Dock.copy(await self.bench.template("held", _held), self.bench.new())
        (receipted,) = [
            path.parent
            for path in (dock.store_directory / "acquisitions").glob("*/*/manifest.json")
            if json.loads(path.read_bytes())["path"] == "A.mp4"
        ]
        (receipted / "clip.age").chmod(0o600)
        (receipted / "clip.age").write_bytes(RUBBLE)
        return dock

    async def attend(self):
        await self.release()
        if self.lives.snapshot is not None and self.lives.snapshot.alarms:
            await self.ask("accept_rollback", reason="a disk of the store failed")

    def check(self, dock):
        check_end(dock, resent=1)
        (aside,) = (dock.store_directory / "acquisitions").glob("*/*/clip.age.set-aside-1")
        assert aside.read_bytes() == RUBBLE


class Reread(Resent):
    """The same, at a store that reads again what it has: it has found that out by itself when all is over."""

    async def make(self):
        dock = await super().make()
        path = dock.directory / "dock.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"scrub_first_within_s": 1}))
        made = Dock(dock.directory)
        made.clips = dict(dock.clips)
        return made

    async def attend(self):
        if _asked(self.lives.dock, "SELECT count(*) FROM loss"):
            await super().attend()

    def _at_the_end(self):
        never = _asked(self.lives.dock, "SELECT count(*) FROM look WHERE looked_us IS NULL")
        return super()._at_the_end() and not never

    def check(self, dock):
        super().check(dock)
        with closing(sqlite3.connect(dock.store_directory / "catalogue.sqlite")) as db:
            assert db.execute("SELECT what, healed_by FROM loss").fetchall() == [("length", "sent-again")]


def _asked(dock: Dock, question: str) -> int:
    """A number from the store's catalogue; 0 while it has none of this format."""
    with closing(sqlite3.connect(dock.store_directory / "catalogue.sqlite")) as db, suppress(sqlite3.OperationalError):
        return db.execute(question).fetchone()[0]
    return 0


async def _held(bench: Bench) -> Dock:
    """A dock that stopped when one clip was erased, and one was stored that is damaged, so that it waits."""
    dock = Dock.make(bench.new())
    dock.enrol()
    clips = bench.clips()
    dock.camera(clips | {"A.mp4": clips["A.mp4"][:-100]})
    lives = Lives(dock, bench.readers)
    try:
        await lives.until(lambda: lives.stands("attention") and lives.snapshot.held, nothing)
    finally:
        await lives.stop()
    return dock


class Moved(Whole):
    """The camera comes from another station, which is believed, and has brought both clips already: none is sent."""

    async def make(self):
        dock = Dock.copy(await self.bench.template("brought", _brought), self.bench.new())
        self.others = _stored_clips(dock)
        return dock

    def check(self, dock):
        check_end(dock, others=len(self.others))
        assert _stored_clips(dock) == self.others
        assert dock.station not in {path.parts[0] for path in self.others}


def _stored_clips(dock: Dock) -> set[Path]:
    """Whose sealed clips the store has, relative to where it keeps them."""
    place = dock.store_directory / "acquisitions"
    return {path.relative_to(place) for path in place.glob("*/*/clip.age")}


async def _brought(bench: Bench) -> Dock:
    """A dock in the place of another, whose camera was led to the end there, and is in the bay as it was before."""
    dock = Dock.make(bench.new())
    dock.enrol()
    camera = dock.camera(bench.clips())
    before = dock.directory / "before"
    shutil.copytree(camera, before)
    lives = Lives(dock, bench.readers)
    try:
        await lives.until(lambda: lives.stands("ready"), nothing)
    finally:
        await lives.stop()
    shutil.rmtree(camera)
    before.rename(camera)
    return dock.succeed()


class Fork(Whole):
    """A log that is shown to the store twice, with other entries the second time. There is no station."""

    async def make(self):
        dock = Dock.make(self.bench.new())
        dock.enrol()
        return dock

    async def lead(self, lives, failed, *, held):
        self.lives, self.told = lives, 0
        async with lives.dock.push() as store:
            self.store = store
            await lives.until(lambda: failed() and self.told, self.attend, station=False)

    async def attend(self):
        for entry in (b"one entry", b"another"):
            tree = Frontier()
            tree.append(entry)
            origin = notes.origin_of(self.lives.dock.station, 1)
            head = notes.Checkpoint(origin=origin, size=1, root=tree.root())
            try:
                old_size = await self.store.witnessed_size()
                await self.store.witness(notes.sign(head, self.lives.dock.checkpoint_key), old_size, ())
            except StoreUntrusted:
                assert entry == b"another"
                self.told += 1
            except DockdError:
                return

    def check(self, dock):
        known = (dock.store_directory / "checkpoints" / dock.station).read_text()
        evidence = list((dock.store_directory / "checkpoints").glob("*.fork-*"))
        assert evidence
        for path in evidence:
            said = json.loads(path.read_bytes())
            assert _head(said["known"]) == _head(known)
            assert _head(said["shown"])[:2] == _head(known)[:2]
            assert _head(said["shown"])[2] != _head(known)[2]


class Promised(Whole):
    """The store's policy is mended: receipts are extended, and holding statements say a floor that moves."""

    async def make(self):
        return Dock.copy(await self.bench.template("erased", _erased), self.bench.new()).mend_policy()

    async def lead(self, lives, failed, *, held):
        self.lives, self.told = lives, {}
        async with lives.dock.push() as store:
            self.store = store
            await lives.until(lambda: failed() and len(self.told) == len(lives.dock.clips), self.attend, station=False)

    async def attend(self):
        for place in sorted((self.lives.dock.store_directory / "acquisitions").glob("*/*")):
            receipt = canonical.digest((place / "receipt.json").read_bytes())
            try:
                extension = await self.store.extension(place.name, receipt, 0)
                holding = await self.store.holding(place.name, os.urandom(32))
            except DockdError:
                return
            self.told[place.name] = extension.payload, json.loads(holding.payload)["keep_until"]

    def check(self, dock):
        with closing(sqlite3.connect(dock.store_directory / "catalogue.sqlite")) as db:
            kept = {
                one: (until, us)
                for one, until, us in db.execute("SELECT acquisition, until, keep_until_us FROM promise")
            }
            for acquisition, (extension, floor) in self.told.items():
                found = db.execute("SELECT n, payload FROM extension WHERE acquisition = ?", (acquisition,)).fetchall()
                assert found == [(1, extension)]
                assert kept[acquisition][0] == "ended"
                assert kept[acquisition][1] >= rows.to_us(canonical.parse_time(floor))
            assert [seq for (seq,) in db.execute("SELECT policy_seq FROM policy ORDER BY policy_seq")] == [1, 2]


async def _erased(bench: Bench) -> Dock:
    """A dock that stopped when both clips were stored and erased."""
    dock = Dock.make(bench.new())
    dock.enrol()
    dock.camera(bench.clips())
    lives = Lives(dock, bench.readers)
    try:
        await lives.until(lambda: lives.stands("ready"), nothing)
    finally:
        await lives.stop()
    return dock


def _head(note: str) -> list[str]:
    """A checkpoint's origin, size and root."""
    return note.split("\n")[:3]


class CardDock(Dock):
    """Its camera is a volume: an ext4 on a loop device."""

    card: Card

    def sources(self):
        source = CardSource()
        source.plug(1, self.card)
        return (source,)

    def on_camera(self):
        with self.mounted(writable=False) as root:
            found = {}
            for name in set(os.listdir(root)) - {"lost+found"}:
                with open(os.open(name, os.O_RDONLY, dir_fd=root), "rb") as file:
                    found[name] = file.read()
            return found

    @contextmanager
    def mounted(self, *, writable):
        root = mount_when_free(self.card.loop, "ext4", writable=writable)
        try:
            listable = mounts.directory(root, uid=os.geteuid(), gid=os.getegid())
        finally:
            os.close(root)
        try:
            yield listable
        finally:
            os.close(listable)


class Volume(Whole):
    """The clips are on a volume, one of them marked read-only. A person releases what an erasure left of one."""

    async def make(self):
        dock = CardDock(Dock.make(self.bench.new()).directory)
        dock.enrol()
        dock.clips = self.bench.clips()
        part = Part(kind="ext4", files=dock.clips, size_bytes=16 * MIB, cluster_bytes=4096)
        dock.card = await asyncio.to_thread(Card, dock.directory / "cards", part)
        with dock.mounted(writable=True) as root:
            os.chmod("A.mp4", 0o400, dir_fd=root)
        return dock

    async def attend(self):
        await self.release()

    def check(self, dock):
        check_end(dock, torn=True)

    def close(self, dock):
        dock.card.close()


class Object(Whole):
    """A camera over MTP is asked to delete a clip, and the next reader looks what came of it."""

    async def make(self):
        dock = Dock.make(self.bench.new())
        dock.object.write_bytes(b"clip" * 1000)
        return dock

    async def lead(self, lives, failed, *, held):
        await lives.command("delete_object")
        assert failed()

    def check(self, dock):
        assert not dock.object.exists()


SCENARIOS = {
    "whole": Whole,
    "newcomer": Newcomer,
    "leftovers": Leftovers,
    "rubble": Rubble,
    "fork": Fork,
    "promised": Promised,
    "resent": Resent,
    "reread": Reread,
    "moved": Moved,
    "volume": Volume,
    "object": Object,
}
