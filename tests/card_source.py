"""A device source of cards: ext4 on loop devices, mounted to no path, as the write blocker does it. Needs root."""

import asyncio
import errno
import json
import os
import subprocess
import time

from cards import make_volume
from loop_watch import stand_in

from dockd.blocker.mounts import NotMounted, mount
from dockd.core.profile import EraseMethod, Profile
from dockd.devices.port import Candidate, Plugged, Unplugged
from dockd.errors import CameraBlank, CameraGone
from dockd.filesystems import probe
from dockd.model import BayNumber, CameraIdentity, Medium, MediumKind, Volume

BUSY_S = 20.0


class Card:
    """One camera: an image, its loop device, and what is to go wrong with it."""

    def __init__(self, directory, part, *, serial="CARD1", erase=EraseMethod.DELETE):
        directory.mkdir(parents=True, exist_ok=True)
        self.image = directory / serial
        make_volume(self.image, part)
        self.part = part
        self.loop = _run("losetup", "-f", "--show", self.image)
        self.volume_id = self.probe().volume_id
        self.identity = CameraIdentity(serial=serial, model="card", volume_id=self.volume_id)
        self.profile = Profile(name="card", version=1, erase=erase)
        self.calls = []  # what was asked of its attachments
        self.wrong = {}  # call: errors to raise, one each time
        self.meanwhile = None  # to be awaited while it identifies again
        self.before = {}  # call: what to do while the volumes are still mounted as they were
        self.at = {}  # call: what to do once they are not

    def probe(self):
        with self.image.open("rb") as image:
            return probe(lambda offset, size: os.pread(image.fileno(), size, offset))

    def write_back(self, content, at=0):
        """As a medium that took every write, and kept none. Nothing may have it mounted."""
        fd = os.open(self.loop, os.O_WRONLY)
        os.pwrite(fd, content, at)
        os.fsync(fd)
        os.close(fd)

    def close(self):
        _run("losetup", "-d", self.loop)


class CardAttachment:
    def __init__(self, card):
        self.card = card
        self.identity, self.profile = card.identity, card.profile
        self.blueprint = json.dumps({"volume_id": card.volume_id})
        self._held = []
        self._medium = None

    @property
    def medium(self):
        if self._medium is None:
            raise CameraGone("the camera was let go")
        return self._medium

    async def open(self):
        self._mount(writable=False)

    async def identify_again(self):
        self._called("identify_again")
        if self.card.meanwhile is not None:
            await self.card.meanwhile()
        return self.card.identity

    async def open_to_write(self):
        self._called("open_to_write")
        self._mount(writable=True)

    async def open_to_read(self):
        self._called("open_to_read")
        self._mount(writable=False)

    @stand_in()
    def _blank(self):
        self._release()
        _run("blkdiscard", "-z", self.card.loop)

    async def make_anew(self, method):
        self._blank()
        self._called("make_anew")
        with stand_in():
            _run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-U", self.card.volume_id, self.card.loop)
        return f"{method}: overwrote with zeros"

    async def aclose(self):
        self._release()

    @stand_in()
    def _called(self, name):
        self.card.calls.append(name)
        if name in self.card.before:
            self.card.before[name]()
        if name in self.card.at:
            if name != "identify_again":
                self._release()
            self.card.at[name]()
        if self.card.wrong.get(name):
            self._release()
            raise self.card.wrong[name].pop(0)

    @stand_in()
    def _mount(self, *, writable):
        card = self.card
        self._release()
        root = mount_when_free(card.loop, "ext4", writable=writable)
        self._held.append(root)
        self._held.append(os.open(card.loop, os.O_RDONLY))
        self._medium = Medium(
            kind=MediumKind.VOLUMES,
            volumes=(
                Volume(
                    name="",
                    filesystem="ext4",
                    volume_id=card.volume_id,
                    root_fd=root,
                    block_fd=self._held[-1],
                    dirty="" if writable else card.probe().dirty,
                ),
            ),
        )

    @stand_in()
    def _release(self):
        self._medium = None
        while self._held:
            os.close(self._held.pop())


class CardSource:
    """Cards are plugged and unplugged by the test."""

    def __init__(self):
        self.present = {}
        self._events = asyncio.Queue()
        self._arrivals = 0

    def plug(self, bay, card):
        self._arrivals += 1
        plugged = Plugged(bay=BayNumber(bay), device=f"card:{bay}:{self._arrivals}", label="card")
        self.present[bay] = (plugged, card)
        self._events.put_nowait(plugged)

    def unplug(self, bay):
        plugged, _ = self.present.pop(bay)
        self._events.put_nowait(Unplugged(bay=plugged.bay, device=plugged.device))

    async def events(self):
        while True:
            yield await self._events.get()

    async def identify(self, plugged):
        card = self._card(plugged)
        if card.probe() is None:
            raise CameraBlank("the card has no file system", serial=card.identity.serial)
        return Candidate(identity=card.identity, profiles=(card.profile,), enrolled=True)

    async def attach(self, plugged, candidate):
        wrong = self._card(plugged).wrong.get("attach")
        if wrong:
            raise wrong.pop(0)
        attachment = CardAttachment(self._card(plugged))
        assert attachment.identity == candidate.identity
        await attachment.open()
        return attachment

    async def attach_blank(self, plugged, blueprint):
        assert json.loads(blueprint)["volume_id"] == self._card(plugged).volume_id
        return CardAttachment(self._card(plugged))

    def _card(self, plugged):
        here = self.present.get(plugged.bay)
        if here is None or here[0] != plugged:
            raise CameraGone("the card left")
        return here[1]


def mount_when_free(loop, kind, *, writable):
    """The volume's root, as `mount` gives it, once nobody else has the volume mounted.

    A reader that is ending, or was killed, may do so for a moment: as the write blocker does, this waits for it.
    """
    given_up_s = time.monotonic() + BUSY_S
    while True:
        try:
            return mount(loop, kind, writable=writable, uid=os.geteuid(), gid=os.getegid())
        except NotMounted as error:
            if error.number != errno.EBUSY or time.monotonic() > given_up_s:
                raise
        time.sleep(0.02)


def _run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
