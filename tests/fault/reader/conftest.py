"""A camera on disk, a real fork server, real readers."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from card_source import mount_when_free
from cards import Part, make_volume

from dockd.core import warrant as warrants
from dockd.core.sealing import Identity, Opener
from dockd.devices.marker import make_marker
from dockd.filesystems import probe
from dockd.model import (
    AcquisitionId,
    BayNumber,
    CameraIdentity,
    DockingId,
    Epoch,
    FileKind,
    Medium,
    MediumKind,
    Volume,
)
from dockd.reader.client import ClipRules, ForkServer

DOCKING = DockingId("01890000-0000-7000-8000-000000000001")
STORE = "7b0d2a64-58a1-4f0e-9d6b-0c6a1f4f2d11"


@dataclass
class Rig:
    """One camera, its incoming directory, and the means to read it."""

    directory: Path
    serial: str = "CAM-1"
    faults: str = ""
    progress: list = field(default_factory=list)
    on_progress: object = None
    server: ForkServer | None = None

    def __post_init__(self):
        self.camera = self.directory / "bay" / self.serial
        self.incoming = self.directory / "incoming" / self.serial
        self.camera.mkdir(parents=True)
        self.incoming.mkdir(parents=True)
        self.identity = make_marker(self.camera, serial=self.serial, made_at=datetime.now(UTC), random=os.urandom)
        self.keys = (Identity.generate(os.urandom), Identity.generate(os.urandom))
        self.descriptors = []
        self.readers = []

    def file(self, name, content=b"clip"):
        path = self.camera / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def reader(self, *, epoch=1, docking=DOCKING, rules=None, identity=None):
        if self.server is None:
            self.server = await ForkServer.start(faults=self.faults)
        camera_fd = os.open(self.camera, os.O_RDONLY | os.O_DIRECTORY)
        incoming_fd = os.open(self.incoming, os.O_RDONLY | os.O_DIRECTORY)
        self.descriptors += [camera_fd, incoming_fd]
        volume = Volume(name="", filesystem="folder", volume_id=self.identity.volume_id, root_fd=camera_fd)
        reader = await self.server.reader(
            docking=docking,
            epoch=Epoch(epoch),
            bay=BayNumber(1),
            medium=Medium(kind=MediumKind.FOLDER, volumes=(volume,)),
            incoming_fd=incoming_fd,
            identity=identity or self.identity,
            recipients=tuple(key.recipient.text for key in self.keys),
            rules=rules or self.rules(),
            on_progress=self._progress,
        )
        self.readers.append(reader)
        return reader

    def _progress(self, *report):
        self.progress.append(report)
        if self.on_progress:
            self.on_progress(*report)

    def opened(self, acquisition):
        """The plaintext of a sealed file, opened with each of the keys."""
        sealed = (self.incoming / f"{acquisition}.age").read_bytes()
        found = set()
        for key in self.keys:
            opener = Opener((key,))
            found.add(bytes(opener.feed(sealed)) + bytes(opener.finish()))
        (plaintext,) = found
        return plaintext

    def warrant(self, file, digest, *, number=1, epoch=1, docking=DOCKING, remnant=False, **changes):
        """As the station issues it, from the form in which readers are handed it."""
        issued = {
            "acquisition": self.id(number),
            "docking": docking,
            "epoch": epoch,
            "camera": {
                "vendor": "",
                "product": "",
                "serial": self.identity.serial,
                "model": self.identity.model,
                "volume_id": self.identity.volume_id,
            },
            "path": warrants.encode_path(file.path),
            "size_bytes": file.size_bytes,
            "mtime_ns": str(file.mtime_ns),
            "inode": str(file.inode),
            "links": file.links,
            "plaintext": digest,
            "confirmations": [
                {
                    "store": STORE,
                    "kind": "receipt",
                    "confirmation": self.digest(b"receipt"),
                    "presence": self.digest(b"holding"),
                }
            ],
            "remnant": "yes" if remnant else "no",
            "since": "2026-01-01T00:00:00.000Z",
            "until": "2026-01-01T00:05:00.000Z",
        } | changes
        return warrants.from_wire(issued, docking=docking, epoch=Epoch(epoch), camera=self.identity)

    @staticmethod
    def rules(**changes):
        values = {
            "suffixes": (".mp4", ".mov", ".AVI"),
            "evidence_directories": ("EVIDENCE",),
            "max_depth": 8,
            "max_files": 5000,
            "block_bytes": 1024 * 1024,
        }
        return ClipRules(**(values | changes))

    @staticmethod
    def memory_kib(reader):
        """Its share of memory (PSS); without privilege, where only root may ask, its own pages, shared ones in full."""
        source = "smaps_rollup" if os.geteuid() == 0 else "status"
        text = Path(f"/proc/{reader.pid}/{source}").read_text()
        return int(re.search(r"^(?:Pss|RssAnon):\s+(\d+)", text, re.MULTILINE)[1])

    @staticmethod
    def id(number):
        return AcquisitionId(f"01890000-0000-7000-8000-{number:012x}")

    @staticmethod
    def digest(content):
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    async def listing(self, reader):
        return [entry async for batch in reader.list() for entry in batch]

    async def clips(self, reader):
        return {entry.file.path: entry.file for entry in await self.listing(reader) if entry.kind is FileKind.CLIP}

    async def clip(self, reader):
        (file,) = (await self.clips(reader)).values()
        return file

    async def aclose(self):
        for reader in self.readers:
            await reader.kill()
        if self.server is not None:
            await self.server.aclose()
        for fd in self.descriptors:
            os.close(fd)


@pytest.fixture
async def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    await made.aclose()


@pytest.fixture
async def memory_rig():
    """On /dev/shm: quick, and a file system that has no medium but memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="dockd-test-") as directory:
        made = Rig(Path(directory))
        yield made
        await made.aclose()


@dataclass
class VolumeRig(Rig):
    """A camera of volumes, on loop devices that are mounted to no path, as the write blocker does. Needs root."""

    parts: tuple[Part, ...] = ()

    def __post_init__(self):
        self.incoming = self.directory / "incoming"
        self.incoming.mkdir(parents=True)
        self.images, self.loops, self.mounted = [], [], []
        for number, part in enumerate(self.parts):
            image = self.directory / f"volume{number}"
            make_volume(image, part)
            self.images.append(image)
            done = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True)
            self.loops.append(done.stdout.strip())
        self.ids = [probe(self._reader(image)).volume_id for image in self.images]
        self.identity = CameraIdentity(serial=self.serial, model="card", volume_id="+".join(self.ids))
        self.keys = (Identity.generate(os.urandom), Identity.generate(os.urandom))
        self.descriptors = []
        self.readers = []

    @staticmethod
    def _reader(image):
        return lambda offset, size: image.read_bytes()[offset : offset + size]

    def mount(self, *, writable=False, dirty=""):
        """Mount all volumes anew, once the last mount of them is gone: their medium."""
        self.unmount()
        volumes = []
        for number, (part, loop, volume_id) in enumerate(zip(self.parts, self.loops, self.ids, strict=True)):
            root_fd = mount_when_free(loop, part.kind, writable=writable)
            self.mounted.append(root_fd)
            self.mounted.append(os.open(loop, os.O_RDONLY))
            volumes.append(
                Volume(
                    name=f"lun{number}" if len(self.parts) > 1 else "",
                    filesystem=part.kind,
                    volume_id=volume_id,
                    root_fd=root_fd,
                    block_fd=self.mounted[-1],
                    dirty=dirty,
                )
            )
        return Medium(kind=MediumKind.VOLUMES, volumes=tuple(volumes))

    def unmount(self):
        while self.mounted:
            os.close(self.mounted.pop())
        for loop in self.loops:  # an exclusive descriptor is had only where nothing is mounted
            os.close(os.open(loop, os.O_RDONLY | os.O_EXCL))

    async def reader(self, *, medium=None, epoch=1, docking=DOCKING, rules=None):
        if self.server is None:
            self.server = await ForkServer.start(faults=self.faults)
        incoming_fd = os.open(self.incoming, os.O_RDONLY | os.O_DIRECTORY)
        self.descriptors.append(incoming_fd)
        reader = await self.server.reader(
            docking=docking,
            epoch=Epoch(epoch),
            bay=BayNumber(1),
            medium=medium or self.mount(),
            incoming_fd=incoming_fd,
            identity=self.identity,
            recipients=tuple(key.recipient.text for key in self.keys),
            rules=rules or self.rules(),
            on_progress=self._progress,
        )
        self.readers.append(reader)
        return reader

    async def remount(self, reader, *, writable=False):
        await reader.let_go()
        await reader.take(self.mount(writable=writable))

    async def aclose(self):
        await super().aclose()
        while self.mounted:
            os.close(self.mounted.pop())
        for loop in self.loops:
            subprocess.run(["losetup", "-d", loop], check=True)


@pytest.fixture
async def card(tmp_path):
    """`card(Part(...))`: a VolumeRig of these volumes."""
    if os.geteuid() != 0:
        pytest.skip("loop devices and mounts need root")
    made = []

    def make(*parts, faults=""):
        made.append(VolumeRig(tmp_path / f"card{len(made)}", parts=parts, faults=faults))
        return made[-1]

    yield make
    for rig in made:
        await rig.aclose()
