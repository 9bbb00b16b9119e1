"""A whole station in this process: real journal, spool, fork server and folder source; its store is in memory."""

import asyncio
import json
import os
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from card_source import Card, CardSource
from cards import MIB, Part

from dockd.app.clock import MachineClock
from dockd.control.server import bind
from dockd.core.keyfiles import StationPublic
from dockd.core.places import Places
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.profile import FOLDER, EraseMethod
from dockd.core.sealing import Identity, Opener
from dockd.core.sshsig import SigningKey
from dockd.devices.folder import FolderSource
from dockd.devices.marker import make_marker
from dockd.keep.rebuild import Origins, open_journal
from dockd.keep.spool import Spool
from dockd.reader.client import ClipRules, ForkServer
from dockd.station.daemon import Daemon, Machine
from dockd.station.limits import Limits
from dockd.station.outlet import Outlet, Signing
from dockd.station.pacing import Pacing
from dockd.station.status import take_snapshot
from dockd.stores.memory import MemoryStore

PATIENCE_S = 40
MARK = b"a mark that stands in every block of a clip and nowhere else"


class FixedLive:
    """A configuration that nobody changes."""

    keep = timedelta(days=1)

    def rules(self, profile=FOLDER):
        return ClipRules(
            suffixes=(".mp4",),
            evidence_directories=("EVIDENCE",),
            max_depth=8,
            max_files=1000,
            block_bytes=1 << 20,
            files=profile.files,
            names=profile.names,
        )

    def keep_after_receipt(self):
        return self.keep

    async def follow(self, alarms, _on_reload):
        await asyncio.Event().wait()


class Station:
    """Start it, stop it, start it again: what is durable stays."""

    def __init__(self, directory: Path, bays: int = 8, faults: str = ""):
        self.directory = directory
        self.faults = faults
        self.bays = {bay: directory / "bays" / str(bay) for bay in range(1, bays + 1)}
        for bay in self.bays.values():
            bay.mkdir(parents=True)
        self.identity = Identity.generate(os.urandom)
        self.name = str(uuid.uuid4())
        self.manifest_key, self.checkpoint_key = SigningKey.generate(), SigningKey.generate()
        public = StationPublic(
            station=self.name, manifest_key=self.manifest_key.public, checkpoint_key=self.checkpoint_key.public
        )
        self.clock = MachineClock()
        self.store = MemoryStore(store=str(uuid.uuid4()), key=SigningKey.generate(), station=public, clock=self.clock)
        self.max_spool_bytes = 0
        self.readers_python = None  # which interpreter readers run on; None: this one
        self.live = FixedLive()
        self.task = None

    async def start(self, sources=None):
        self.spool = Spool(self.directory / "spool", reserve_bytes=0, max_bytes=self.max_spool_bytes)
        self.journal = await open_journal(self.directory / "state", self.spool, self.origins())
        self.forkserver = await ForkServer.start(faults=self.faults, python=self.readers_python)
        self.daemon = Daemon(
            Machine(
                station=self.name,
                trial=True,
                bays=sorted(self.bays),
                sources=sources or (FolderSource(self.bays),),
                journal=self.journal,
                spool=self.spool,
                outlets=(Outlet(way=Signing(port=self.store), slots=3, patch_bytes=1 << 20),),
                policy=StorePolicy(
                    [PolicyStore(store=self.store.store, name="archive", min_retention=timedelta(days=31))]
                ),
                forkserver=self.forkserver,
                control=bind(self.directory / "control.sock"),
                manifest_key=self.manifest_key,
                recipients=(self.identity.recipient.text,),
                live=self.live,
                limits=Limits(pacing=Pacing(self.clock), places=Places(most=8)),
                clock=self.clock,
                random=os.urandom,
            )
        )
        self.task = asyncio.create_task(self.daemon.run())

    def origins(self) -> Origins:
        return Origins(
            station=self.name,
            stores=(self.store.store,),
            clock=self.clock,
            checkpoint_key=self.checkpoint_key,
            manifest_key=self.manifest_key.public,
        )

    async def stop(self):
        if self.task is None:
            return
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.task = None
        await self.forkserver.aclose()
        await self.journal.aclose()

    def camera(self, bay: int, clips: dict[str, bytes], serial: str | None = None) -> Path:
        """Make a camera beside the bays and dock it."""
        serial = serial or f"CAM{bay}"
        place = self.directory / "made" / serial
        for name, content in clips.items():
            path = place / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        place.mkdir(parents=True, exist_ok=True)
        make_marker(place, serial=serial, made_at=datetime.now(UTC), random=os.urandom)
        return place.rename(self.bays[bay] / serial)

    async def snapshot(self):
        return await take_snapshot(self.daemon._sources())

    async def until(self, condition, what="it"):
        """Until `condition(snapshot)` holds; the station must live meanwhile."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    if self.task.done():
                        self.task.result()
                    snapshot = await self.snapshot()
                    value = condition(snapshot)
                    if value:
                        return value
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{what} did not happen: {snapshot}") from None

    async def until_states(self, **states):
        """Until each bay is in the state named, as bay1="ready"."""
        wanted = {int(name.removeprefix("bay")): state for name, state in states.items()}

        def there(snapshot):
            found = {bay.bay: bay for bay in snapshot.bays}
            return all(found[bay].state == state for bay, state in wanted.items()) and found

        return await self.until(there, f"{wanted}")

    async def until_row(self, condition):
        """Until a row of the journal fulfils it."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(condition(row) for row in await self.rows()):
                await asyncio.sleep(0.05)

    async def events(self) -> list[str]:
        rows = await self.journal.read(lambda tx: tx.lines(0, 10_000))
        return [json.loads(row)["event"] for row in rows]

    async def rows(self, state=None):
        return await self.journal.read(lambda tx: tx.acquisitions(state=state))

    def opened(self) -> list[bytes]:
        """The plaintext of everything that the store has signed for."""
        found = []
        for kept in self.store.kept.values():
            if kept.receipt is not None:
                opener = Opener([self.identity])
                found.append(bytes(opener.feed(bytes(kept.content))) + bytes(opener.finish()))
        return sorted(found)


@pytest.fixture
async def station(tmp_path):
    made = Station(tmp_path)
    yield made
    await made.stop()


@pytest.fixture
async def make_station(tmp_path):
    made = []

    def make(**options):
        made.append(Station(tmp_path / str(len(made)), **options))
        return made[-1]

    yield make
    for one in made:
        await one.stop()


@pytest.fixture
def clip(mp4):
    """A whole MP4 clip, with the mark in its media, unlike any other with another number."""

    def make(number):
        content = bytearray(mp4(100_000, number))
        content[-50_000 : -50_000 + len(MARK)] = MARK
        return bytes(content)

    return make


@pytest.fixture
async def cards(tmp_path, make_station):
    """`cards(...)`: a card; with the station that it can be plugged into."""
    if os.geteuid() != 0:
        pytest.skip("loop devices and mounts need root")
    made, stations = [], []

    class Bench:
        def __init__(self):
            self.source = CardSource()

        def card(self, files, *, erase=EraseMethod.DELETE, serial="CARD1", **changes):
            values = {"kind": "ext4", "files": files, "size_bytes": 32 * MIB, "cluster_bytes": 4096}
            made.append(Card(tmp_path / "cards", Part(**(values | changes)), serial=serial, erase=erase))
            return made[-1]

        async def station(self, **options):
            station = make_station(**options)
            stations.append(station)
            await station.start(sources=(self.source,))
            return station

    yield Bench()
    for station in stations:
        await station.stop()
    for card in made:
        card.close()
