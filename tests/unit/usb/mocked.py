"""The USB source on a mocked udev and a write blocker of the test's own. Run by test_under_umockdev.py."""

import asyncio
import os
import socket
import subprocess
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from usb_mock import HUB, KEYBOARD, MTP, Bed, Device, Fs, Lun

from dockd.blocker.messages import Answer, BlockerError, Request, send
from dockd.cli.bays import _learn
from dockd.cli.main import main
from dockd.core.profile import Match, Profile
from dockd.devices.port import Plugged, Unplugged
from dockd.devices.usb.source import UsbSource
from dockd.errors import CameraBlank, CameraGone, CameraNotReady, CameraRefused, EraseFailed
from dockd.model import MediumKind

REPOSITORY = Path(__file__).parents[3]
PROFILE = Profile(name="generic", version=1, matches=(Match(medium=MediumKind.VOLUMES), Match(medium=MediumKind.MTP)))
PORTS = {"0000:00:09.0/3": 1, "0000:00:09.0/4": 2, "0000:00:09.0/5": 2}
CAMERA = Device()
DISK = f"{CAMERA.path}/2-3:1.0/host2/target2:0:0/2:0:0:0/block/sda"


class FakeBlocker:
    """Answers every request with the same directory and image, or as `answers` says, and notes what was asked."""

    def __init__(self, path: Path, root: Path, image: Path) -> None:
        self.path = path
        self.asked: list[tuple[str, str]] = []
        self.answers: dict[str, Answer | None] = {}  # by verb; None: no answer at all
        self.open = 0
        self._root, self._image = root, image
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(str(path))
        self._listening.listen()
        self._listening.settimeout(0)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                connection, _ = await loop.sock_accept(self._listening)
                group.create_task(self._one(connection))

    async def _one(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.open += 1
        try:
            with suppress(ConnectionError):
                while datagram := await loop.sock_recv(connection, 65536):
                    await self._answer(connection, Request.decode(datagram))
        finally:
            self.open -= 1
            connection.close()

    async def _answer(self, connection: socket.socket, request: Request) -> None:
        self.asked.append((request.verb, request.device))
        connection.settimeout(None)
        try:
            if request.verb in self.answers:
                answer = self.answers[request.verb]
                if answer is not None:
                    send(connection, answer)
                return
            if request.verb == "make":
                send(connection, Answer(ok=True, done=f"{request.method} of {request.filesystem}"))
                return
            root = os.open(self._root, os.O_PATH)
            block = os.open(self._image, os.O_RDONLY)
            send(connection, Answer(ok=True, read_only=request.verb == "read"), (root, block))
            os.close(root)
            os.close(block)
        finally:
            connection.settimeout(0)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def bed():
    return Bed()


@pytest.fixture
def card(tmp_path):
    image = tmp_path / "card.img"
    image.write_bytes(bytes(1 << 20))
    subprocess.run(["mkfs.vfat", "-i", "1234ABCD", "-n", "BODYCAM", image], check=True, capture_output=True)
    root = tmp_path / "root"
    (root / "DCIM").mkdir(parents=True)
    return root, image


@pytest.fixture
async def blocker(tmp_path, card):
    fake = FakeBlocker(tmp_path / "blocker.sock", *card)
    task = asyncio.create_task(fake.serve())
    yield fake
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    fake.close()


class Seen:
    """The events of a source, one by one."""

    def __init__(self, source: UsbSource) -> None:
        self.source = source
        self._events = source.events()

    async def next(self):
        async with asyncio.timeout(20):
            return await anext(self._events)

    async def nothing(self):
        """Nothing more comes, after a turn of the loop that looked again."""
        waiting = asyncio.ensure_future(anext(self._events))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        waiting.cancel()
        assert not done, waiting.result()
        with suppress(asyncio.CancelledError):
            await waiting
        self._events = self.source.events()


@asynccontextmanager
async def following(blocker, **more):
    source = UsbSource(PORTS, blocker=blocker.path, profiles=lambda: (PROFILE,), **more)
    seen = Seen(source)
    yield source, seen
    await seen._events.aclose()


@asynccontextmanager
async def pumped(seen):
    """Events are taken while something else waits; they are in the list."""
    events = []

    async def take():
        while True:
            events.append(await anext(seen._events))

    task = asyncio.create_task(take())
    yield events
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def descriptors():
    return sorted(
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    )


# --- what is present


async def test_a_camera_that_was_there_before_counts(bed, blocker):
    bed.plug(CAMERA)
    bed.plug(replace(CAMERA, port="7", device=9, luns=(Lun(name="sdb"),)))  # no bay
    async with following(blocker) as (source, seen):
        plugged = await seen.next()
        assert plugged == Plugged(bay=1, device="usb:0000:00:09.0/3:2.2", label="RIG CAMERA X012345")
        candidate = await source.identify(plugged)
        identity = candidate.identity
        assert (identity.serial, identity.volume_id, identity.vendor, identity.product, identity.model) == (
            "X012345",
            "1234-ABCD",
            "46f4",
            "0001",
            "RIG CAMERA",
        )
        assert candidate.profiles == (PROFILE,)
        assert not candidate.enrolled
        assert blocker.asked == []
        bed.unplug(CAMERA)
        assert await seen.next() == Unplugged(bay=1, device=plugged.device)
        with pytest.raises(CameraGone):
            await source.identify(plugged)


async def test_a_camera_that_comes_up_slowly_is_waited_for(bed, blocker):
    async with following(blocker) as (source, seen):
        usb, interface, unit, disk, partition = CAMERA.blocks()
        bed.add(usb, interface)
        plugged = await seen.next()
        async with pumped(seen) as events:
            identifying = asyncio.create_task(source.identify(plugged))
            bed.add(unit)
            bed.add(disk.replace("E: ID_BUS=usb\n", ""))
            await asyncio.sleep(0)
            bed.add(partition.replace("E: ID_BUS=usb\n", ""))
            await until(lambda: (source._present[plugged.device].node.units or (None,))[0] is not None)
            assert not identifying.done()
            bed.property(DISK, "ID_BUS", "usb")
            bed.event(DISK, "change")
            bed.property(f"{DISK}/sda1", "ID_BUS", "usb")
            bed.event(f"{DISK}/sda1", "change")
            async with asyncio.timeout(20):
                assert (await identifying).identity.serial == "X012345"
            assert events == []


async def test_a_camera_that_does_not_come_up_is_not_refused_and_tried_again_when_it_does(bed, blocker):
    usb, interface, *rest = CAMERA.blocks()
    bed.add(usb, interface)
    async with following(blocker, patience_s=0.05) as (source, seen):
        plugged = await seen.next()
        with pytest.raises(CameraNotReady, match="its disks have not appeared yet"):
            await source.identify(plugged)
        bed.add(*rest)
        assert await seen.next() == Unplugged(bay=1, device=plugged.device)
        again = await seen.next()
        assert (await source.identify(again)).identity.serial == "X012345"


async def test_p08_a_keyboard_with_a_cameras_serial_is_refused(bed, blocker):
    bed.plug(replace(CAMERA, interfaces=(KEYBOARD,), luns=()))
    async with following(blocker) as (source, seen):
        plugged = await seen.next()
        with pytest.raises(CameraRefused, match="a keyboard or mouse"):
            await source.identify(plugged)
        await seen.nothing()
    assert blocker.asked == []


async def test_another_card_in_a_reader_is_another_arrival(bed, blocker):
    bed.plug(CAMERA)
    async with following(blocker) as (source, seen):
        plugged = await seen.next()
        await source.identify(plugged)
        bed.event(DISK, "change")  # nothing changed
        bed.attribute(DISK, "diskseq", "19")
        bed.event(DISK, "change")
        assert await seen.next() == Unplugged(bay=1, device=plugged.device)
        assert (await seen.next()).device == plugged.device


async def test_a_reader_without_a_card_becomes_a_camera_when_one_is_put_in(bed, blocker):
    reader = replace(CAMERA, luns=(Lun(partitions=(), size_bytes=0),))
    bed.plug(reader)
    async with following(blocker) as (source, seen):
        plugged = await seen.next()
        with pytest.raises(CameraRefused, match="no card"):
            await source.identify(plugged)
        bed.attribute(DISK, "size", "131072")
        bed.add(CAMERA.blocks()[-1])
        bed.event(DISK, "change")
        assert await seen.next() == Unplugged(bay=1, device=plugged.device)
        assert (await source.identify(await seen.next())).identity.volume_id == "1234-ABCD"


async def test_a_bay_takes_one_camera_and_the_second_gets_its_turn(bed, blocker):
    first = replace(CAMERA, port="4", device=3)
    second = replace(CAMERA, port="5", device=4, serial="X2", luns=(Lun(name="sdb", diskseq=30),))
    bed.plug(first)
    async with following(blocker) as (source, seen):
        one = await seen.next()
        await source.identify(one)
        bed.plug(second)
        other = await seen.next()
        assert other.bay == one.bay == 2
        with pytest.raises(CameraRefused, match="bay 2 already holds RIG CAMERA X012345"):
            await source.identify(other)
        bed.unplug(first)
        gone = [await seen.next(), await seen.next()]
        assert Unplugged(bay=2, device=one.device) in gone
        assert Unplugged(bay=2, device=other.device) in gone
        assert (await source.identify(await seen.next())).identity.serial == "X2"


async def test_eight_cameras_and_a_hub_pulled_with_four(bed, blocker):
    ports = {f"0000:00:09.0/{hub}.{port}": 4 * (hub - 7) + port for hub in (7, 8) for port in (1, 2, 3, 4)}
    cameras = [
        Device(
            port=f"{hub}.{port}",
            device=10 * hub + port,
            serial=f"X{hub}{port}",
            luns=(Lun(name=f"sd{'abcdefgh'[4 * (hub - 7) + port - 1]}", diskseq=hub * 10 + port),),
        )
        for hub in (7, 8)
        for port in (1, 2, 3, 4)
    ]
    source = UsbSource(ports, blocker=blocker.path, profiles=lambda: (PROFILE,))
    seen = Seen(source)
    for port in ("7", "8"):
        bed.plug(Device(port=port, device=int(port), serial="", interfaces=(HUB,), luns=()))
    for camera in cameras:
        bed.plug(camera)
    plugged = [await seen.next() for _ in cameras]
    assert sorted(one.bay for one in plugged) == list(range(1, 9))
    found = await asyncio.gather(*(source.identify(one) for one in plugged))
    assert len({one.identity.serial for one in found}) == 8
    for camera in cameras[:4]:
        bed.unplug(camera)
        await asyncio.sleep(0)  # umockdev aborts where the monitor's queue, of ten events here, is full
    left = {(await seen.next()).bay for _ in range(4)}
    assert left == {1, 2, 3, 4}
    await seen._events.aclose()


# --- attaching


async def attached(source, seen):
    plugged = await seen.next()
    candidate = await source.identify(plugged)
    return plugged, candidate, await source.attach(plugged, candidate)


async def test_a_camera_is_attached_written_read_and_let_go(bed, blocker):
    bed.plug(CAMERA)
    before = descriptors()
    async with following(blocker) as (source, seen):
        _, candidate, attachment = await attached(source, seen)
        assert attachment.identity == candidate.identity
        (volume,) = attachment.medium.volumes
        assert attachment.medium.kind is MediumKind.VOLUMES
        assert (volume.name, volume.filesystem, volume.volume_id, volume.dirty) == ("", "vfat", "1234-ABCD", "")
        assert os.listdir(f"/proc/self/fd/{volume.root_fd}") == ["DCIM"]
        assert await attachment.exists(b"DCIM")
        assert not await attachment.exists(b"DCIM/100")
        assert await attachment.identify_again() == candidate.identity
        await attachment.open_to_write()
        await attachment.open_to_read()
        assert '"sectors_per_cluster"' in attachment.blueprint
        assert await attachment.make_anew("clear") == "vfat: clear of vfat"
        with pytest.raises(CameraGone):
            _ = attachment.medium
        await attachment.open_to_read()
        assert blocker.asked == [(verb, "sda1") for verb in ("read", "write", "read", "make", "read")]
        await attachment.aclose()
        await attachment.aclose()
        await until(lambda: blocker.open == 0)
    await until(lambda: descriptors() == before)


async def test_p08_a_medium_that_is_not_what_udev_said_is_let_go(bed, blocker):
    bed.plug(replace(CAMERA, luns=(Lun(partitions=(Fs(uuid="9999-9999"),)),)))
    async with following(blocker) as (source, seen):
        plugged = await seen.next()
        candidate = await source.identify(plugged)
        with pytest.raises(CameraRefused, match="should be vfat 9999-9999, but its medium holds vfat 1234-ABCD"):
            await source.attach(plugged, candidate)
        await until(lambda: blocker.open == 0)


async def test_a_camera_swapped_between_identifying_and_attaching_is_gone(bed, blocker):
    bed.plug(CAMERA)
    async with following(blocker) as (source, seen):
        plugged = await seen.next()
        candidate = await source.identify(plugged)
        other = replace(candidate, identity=replace(candidate.identity, serial="X9"))
        with pytest.raises(CameraGone):
            await source.attach(plugged, other)
    assert blocker.asked == []


async def test_identify_again_notices_another_disk(bed, blocker):
    bed.plug(CAMERA)
    async with following(blocker) as (source, seen):
        _, _, attachment = await attached(source, seen)
        bed.attribute(DISK, "diskseq", "77")
        with pytest.raises(CameraGone):
            await attachment.identify_again()
        with pytest.raises(CameraGone):
            await attachment.open_to_write()
        await until(lambda: blocker.open == 0)
        await attachment.aclose()


async def test_a_camera_of_which_sysfs_lost_a_part_is_gone(bed, blocker):
    bed.plug(CAMERA)
    async with following(blocker) as (source, seen):
        _, _, attachment = await attached(source, seen)
        bed.unplug(CAMERA)
        with pytest.raises(CameraGone):
            await attachment.identify_again()
        await attachment.aclose()
        with pytest.raises(CameraGone):
            await attachment.identify_again()


async def test_a_camera_that_is_leaving_is_gone_and_not_one_without_a_serial_number(bed, blocker):
    bed.plug(CAMERA)
    async with following(blocker) as (source, seen):
        plugged = await seen.next()
        bed.attribute(CAMERA.path, "serial", "")  # udev still has it
        with pytest.raises(CameraGone, match="is leaving"):
            await source.identify(plugged)


async def test_what_cannot_be_written_is_locked_again_and_can_still_be_read(bed, blocker):
    bed.plug(CAMERA)
    async with following(blocker) as (source, seen):
        _, _, attachment = await attached(source, seen)
        blocker.answers["write"] = Answer(ok=False, error="busy", message="somebody has it mounted")
        with pytest.raises(EraseFailed, match="somebody has it mounted"):
            await attachment.open_to_write()
        await until(lambda: blocker.open == 0)
        await attachment.open_to_read()
        assert attachment.medium.volumes[0].filesystem == "vfat"
        await attachment.aclose()


async def test_an_undocking_while_the_write_blocker_hangs_leaves_nothing(bed, blocker):
    bed.plug(CAMERA)
    before = descriptors()
    async with following(blocker) as (source, seen):
        plugged = await seen.next()
        candidate = await source.identify(plugged)
        blocker.answers["read"] = None
        attaching = asyncio.create_task(source.attach(plugged, candidate))
        await until(lambda: blocker.asked)
        attaching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attaching
        await until(lambda: blocker.open == 0)
    await until(lambda: descriptors() == before)


async def test_without_a_write_blocker_the_camera_is_not_ready(bed, blocker, tmp_path):
    bed.plug(CAMERA)
    source = UsbSource(PORTS, blocker=tmp_path / "none.sock", profiles=lambda: (PROFILE,))
    seen = Seen(source)
    plugged = await seen.next()
    candidate = await source.identify(plugged)
    with pytest.raises(CameraNotReady, match=r"none\.sock"):
        await source.attach(plugged, candidate)
    await seen._events.aclose()


async def test_an_mtp_camera_is_an_address(bed, blocker):
    bed.plug(replace(CAMERA, interfaces=(MTP,), luns=()))
    async with following(blocker) as (source, seen):
        _, candidate, attachment = await attached(source, seen)
        assert candidate.identity.serial == "X012345"
        medium = attachment.medium
        assert (medium.kind, medium.usb_bus, medium.usb_device, medium.volumes) == (MediumKind.MTP, 2, 2, ())
        assert await attachment.identify_again() == candidate.identity
        bed.unplug(replace(CAMERA, interfaces=(MTP,), luns=()))
        with pytest.raises(CameraGone):
            await attachment.identify_again()


async def test_the_profile_that_fits_is_found_by_the_files_it_asks_for(bed, blocker):
    def asking(name, path):
        return Profile(name=name, version=1, matches=(Match(medium=MediumKind.VOLUMES, must_exist=path),))

    bed.plug(CAMERA)
    profiles = [asking("a", b"DCIM/100"), asking("b", b"DCIM"), PROFILE]
    source = UsbSource(PORTS, blocker=blocker.path, profiles=lambda: profiles)
    seen = Seen(source)
    plugged, candidate, attachment = await attached(source, seen)
    assert [one.name for one in candidate.profiles] == ["a", "b", "generic"]
    assert attachment.profile.name == "b"
    await attachment.aclose()
    with pytest.raises(CameraRefused, match="DCIM/100"):
        await source.attach(plugged, replace(candidate, profiles=candidate.profiles[:1]))
    await until(lambda: blocker.open == 0)
    await seen._events.aclose()


async def test_a_device_that_no_profile_fits_is_refused(bed, blocker):
    bed.plug(CAMERA)
    source = UsbSource(PORTS, blocker=blocker.path, profiles=lambda: (Profile(name="none", version=1),))
    seen = Seen(source)
    plugged = await seen.next()
    with pytest.raises(CameraRefused, match=r"no camera profile fits RIG CAMERA X012345 .46f4:0001, vfat BODYCAM"):
        await source.identify(plugged)
    assert blocker.asked == []
    await seen._events.aclose()


# --- a clearing that was cut short


async def test_a_blank_camera_is_finished_by_its_blueprint(bed, blocker):
    bed.plug(CAMERA)
    async with following(blocker) as (source, seen):
        _, candidate, attachment = await attached(source, seen)
        blueprint = attachment.blueprint
        await attachment.aclose()
        bed.unplug(CAMERA)
        await seen.next()
        blank = replace(CAMERA, device=3, luns=(Lun(name="sdc", diskseq=40, partitions=(Fs(kind=""),)),))
        bed.plug(blank)
        plugged = await seen.next()
        with pytest.raises(CameraBlank) as caught:
            await source.identify(plugged)
        assert caught.value.serial == "X012345"
        blocker.asked.clear()
        attachment = await source.attach_blank(plugged, blueprint)
        assert attachment.identity == candidate.identity
        assert attachment.blueprint == blueprint
        assert await attachment.make_anew("clear")
        await attachment.open_to_read()
        assert blocker.asked == [("make", "sdc1"), ("read", "sdc1")]
        await attachment.aclose()
        made = f"{blank.path}/2-3:1.0/host3/target3:0:0/3:0:0:0/block/sdc/sdc1"
        async with pumped(seen) as events:
            identifying = asyncio.create_task(source.identify(plugged))
            for name, value in Fs().properties().items():
                bed.property(made, name, value)
            bed.event(made, "change")
            async with asyncio.timeout(20):
                assert (await identifying).identity == candidate.identity
            assert events == []


@pytest.mark.parametrize(
    "now",
    [
        Lun(name="sdc", diskseq=40, partitions=(Fs(uuid="5678-0000"),)),  # somebody formatted it
        Lun(name="sdc", diskseq=40, partitions=(Fs(kind="", size_bytes=1 << 24),)),
        Lun(name="sdc", diskseq=40, partitions=(Fs(kind=""), Fs(kind=""))),
    ],
)
async def test_p01_a_blank_camera_that_is_another_by_now_is_left_alone(bed, blocker, now):
    bed.plug(CAMERA)
    async with following(blocker) as (source, seen):
        _, _, attachment = await attached(source, seen)
        blueprint = attachment.blueprint
        await attachment.aclose()
        bed.unplug(CAMERA)
        await seen.next()
        bed.plug(replace(CAMERA, device=3, luns=(now,)))
        plugged = await seen.next()
        with pytest.raises(CameraRefused, match="have it examined"):
            await source.attach_blank(plugged, blueprint)
        for broken in ("", "[]", "{}", '{"v": 2}', '{"v": 1, "camera": {}}'):
            with pytest.raises(CameraRefused):
                await source.attach_blank(plugged, broken)


def test_the_blocker_of_these_tests_speaks_the_real_protocol():
    with pytest.raises(BlockerError):
        Request.decode(b"{}")


# --- the commands


def test_bays_list(bed, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DOCKD_CONFIG", raising=False)
    bed.plug(CAMERA)
    bed.plug(replace(CAMERA, port="4", device=3, serial="", luns=(Lun(name="sdb"),)))
    bed.plug(Device(port="7", device=7, serial="", interfaces=(HUB,), luns=()))
    assert main(["bays", "list", "--config", str(REPOSITORY / "config" / "dockd.toml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "bay 9\t0000:00:14.0/1\tempty",
        "bay 10\t0000:00:14.0/2.1\tempty",
        "bay 10\t0000:00:14.0/2.2\tempty",
        "no bay\t0000:00:09.0/3\tRIG CAMERA X012345",
    ]
    assert lines[4].startswith(
        "no bay\t0000:00:09.0/4\tRIG CAMERA\tthe device at port 0000:00:09.0/4 (RIG CAMERA) states"
    )
    assert len(lines) == 5


async def test_bays_are_learnt_in_the_order_of_arrival(bed, capsys):
    bed.plug(replace(CAMERA, port="9", device=9, luns=()))  # was there before
    learning, said = asyncio.create_task(_learn(4, 2)), []

    def printed(words):
        said.extend(capsys.readouterr())
        return words in "".join(said)

    await until(lambda: printed("Plug a camera into bay 4."))
    bed.plug(Device(port="7", device=7, serial="", interfaces=(HUB,), luns=()))
    bed.plug(Device(port="7.1", device=8, luns=()))
    await until(lambda: printed("Now bay 5."))
    bed.plug(replace(CAMERA, device=12))
    async with asyncio.timeout(20):
        await learning
    for line in ("[bays.ports]", '4 = ["0000:00:09.0/7.1"]', '5 = ["0000:00:09.0/3"]'):
        assert printed(f"{line}\n")
