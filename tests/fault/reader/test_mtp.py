"""Cameras over MTP, on a made-up camera: list, acquire, read again, delete; and what a camera can do amiss."""

import errno
import hashlib
import os
import secrets
from types import SimpleNamespace

import pytest
from mtp_camera import MtpCameraFake, Thing

from dockd.core.sealing import Identity, Opener
from dockd.errors import CameraGone, CameraRefused, ClipChanged, ClipGone, ClipRefused, EraseFailed
from dockd.faults import Faults
from dockd.model import (
    AcquisitionId,
    BayNumber,
    CacheState,
    CameraIdentity,
    Category,
    DockingId,
    Epoch,
    FileKind,
    Medium,
    MediumKind,
)
from dockd.reader.acquire import acquire
from dockd.reader.client import ForkServer
from dockd.reader.erase import LeftHalfway
from dockd.reader.mtp.camera import MtpCamera
from dockd.reader.reread import reread
from dockd.reader.rules import ClipRules
from dockd.reader.work import Work, shielded_buffer

NAME = AcquisitionId("01890000-0000-7000-8000-000000000002")
IDENTITY = CameraIdentity(serial="CAM1", model="M", volume_id="mtp")
RULES = ClipRules(
    suffixes=(".mp4",), evidence_directories=("EVIDENCE",), max_depth=4, max_files=500, block_bytes=1024 * 1024
)
CONTENT = os.urandom(300_001)
DELETE, PART, INFO, CHILDREN = 0x100B, 0x101B, 0x1008, 0x1007


class Rig:
    def __init__(self, directory):
        self.fake = MtpCameraFake()
        self.handle = self.fake.put("DCIM/100X/A.MP4", CONTENT)
        self.key = Identity.generate(os.urandom)
        self.directory = directory
        self.camera = None

    def work(self, rules=RULES):
        self.camera = MtpCamera(self.fake, IDENTITY)
        return Work(
            docking=DockingId("d"),
            epoch=Epoch(1),
            camera=self.camera,
            incoming_fd=os.open(self.directory, os.O_RDONLY),
            recipients=(self.key.recipient,),
            rules=rules,
            buffer=shielded_buffer(rules.block_bytes),
            random=secrets.token_bytes,
            faults=Faults(),
            wanted=lambda: None,
            tell=lambda *_: None,
        )

    def listed(self, work):
        return {one.file.path: one for one in work.camera.walk(work.rules)}

    def opened(self):
        opener = Opener((self.key,))
        return bytes(opener.feed((self.directory / f"{NAME}.age").read_bytes())) + bytes(opener.finish())


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def ready_to_erase(rig):
    """Everything a reader does before it is handed the warrant."""
    work = rig.work()
    file = rig.listed(work)[b"DCIM/100X/A.MP4"].file
    reread(work, NAME, file)
    return work, SimpleNamespace(file=file, remnant=False, camera=IDENTITY, acquisition=NAME)


def test_a_clip_is_listed_acquired_and_read_again_in_a_new_session(rig):
    work = rig.work()
    rig.fake.put("DCIM/EVIDENCE/B.mp4", b"b")
    rig.fake.put("DCIM/notes.txt", b"n")
    listed = rig.listed(work)
    assert set(listed) == {b"DCIM/100X/A.MP4", b"DCIM/EVIDENCE/B.mp4", b"DCIM/notes.txt"}
    assert listed[b"DCIM/EVIDENCE/B.mp4"].category is Category.EVIDENCE
    assert listed[b"DCIM/notes.txt"].kind is FileKind.OTHER
    file = listed[b"DCIM/100X/A.MP4"].file
    assert (file.size_bytes, file.mtime_ns, file.inode) == (len(CONTENT), 1772600767 * 10**9, 0)
    sealed = acquire(work, NAME, file)
    assert rig.opened() == CONTENT
    rig.fake.asked.clear()
    again, changed_ns = reread(work, NAME, file)
    assert again.plaintext_digest == sealed.plaintext_digest == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    assert (again.cache, changed_ns) == (CacheState.DEVICE, 0)
    asked = [code for code, *_ in rig.fake.asked]
    assert asked.index(0x1003) < asked.index(0x1002) < asked.index(PART)


@pytest.mark.parametrize("size", [0, 1, 499, 500, 501, 512, 1012, 131060, 131072, 131084, 1024 * 1024 + 3])
@pytest.mark.parametrize("split", [False, True])
def test_every_size_comes_through_whole_packets_and_split_headers(rig, size, split):
    rig.fake.split = split
    rig.fake.most = 200_000
    content = os.urandom(size)
    rig.fake.put("X.MP4", content)
    work = rig.work()
    again, _ = reread(work, NAME, rig.listed(work)[b"X.MP4"].file)
    assert again.plaintext_digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_session_that_an_ended_program_left_open_is_closed_first(rig):
    rig.fake.session = True
    assert rig.listed(rig.work())


def test_p05_every_object_is_named_also_what_cannot_be_looked_at(rig):
    fake = rig.fake
    hidden = fake.put("DCIM/100X/C.MP4", b"c")
    fake.refuse[INFO, hidden] = 0x2002
    closed = fake.put("DCIM/closed")
    fake.refuse[0x1007, closed] = 0x2002
    fake.put("DCIM/100X/A.MP4", b"another")
    fake.add(Thing("../up.mp4", b"x"))
    fake.add(Thing("", b"x"))
    fake.add(Thing("..", None))
    fake.put("a/b/c/d/e/deep.mp4", b"x")
    listed = rig.listed(rig.work())
    refused = {path: one.reason for path, one in listed.items() if one.kind is FileKind.REFUSED}
    assert "0x2002" in refused[b"DCIM/100X/object-%08x" % hidden]
    assert sum("several objects of the name A.MP4" in reason for reason in refused.values()) == 1
    assert sum("none that a file can have" in reason for reason in refused.values()) == 3
    assert "deeper than" in refused[b"a/b/c/d/e"]


def test_p05_a_folder_that_cannot_be_listed_is_named(rig):
    rig.fake.put("DCIM/closed/x.mp4", b"x")
    refuse = rig.fake.refuse
    original = rig.fake._children
    closed = next(handle for handle, thing in rig.fake.things.items() if thing.name == "closed")
    rig.fake._children = lambda storage, form, parent: 0x2002 if parent == closed else original(storage, form, parent)
    listed = rig.listed(rig.work())
    assert "cannot be listed" in listed[b"DCIM/closed"].reason
    assert not refuse


def test_p05_a_camera_without_storage_is_not_taken_for_an_empty_one(rig):
    rig.fake.storages = []
    (only,) = rig.work().camera.walk(RULES)
    assert only.kind is FileKind.REFUSED
    assert "shows no memory" in only.reason


def test_a_slot_without_a_card_is_no_storage_and_two_storages_stand_before_their_paths(rig):
    rig.fake.storages = [0x10001, 0x20001, 0x30000]
    rig.fake.add(Thing("B.MP4", b"b", storage=0x20001))
    work = rig.work()
    listed = rig.listed(work)
    assert set(listed) == {b"store00010001/DCIM/100X/A.MP4", b"store00020001/B.MP4"}
    rig.camera._places.clear()  # as in another reader of the docking
    again, _ = reread(work, NAME, listed[b"store00020001/B.MP4"].file)
    assert again.plaintext_digest == f"sha256:{hashlib.sha256(b'b').hexdigest()}"


def test_folders_that_hold_each_other_and_endless_folders_end(rig):
    rig.fake.things[1].parent = 2
    rig.fake.things[2].parent = 1
    rig.fake._children = lambda storage, form, parent: b"\2\0\0\0\1\0\0\0\2\0\0\0"
    listed = rig.listed(rig.work())
    assert any("lists one object twice" in one.reason for one in listed.values())


def test_more_entries_than_the_cap_are_said(rig):
    for number in range(20):
        rig.fake.put(f"DCIM/100X/{number}.MP4", b"x")
    rules = ClipRules(suffixes=(".mp4",), evidence_directories=(), max_depth=4, max_files=10, block_bytes=65536)
    assert any("more than 10 entries" in one.reason for one in rig.work(rules).camera.walk(rules))


def test_a_clip_beyond_4_gib_needs_a_camera_that_reads_there(rig):
    rig.fake.put("BIG.MP4", b"", size=5 * 1024**3)
    listed = rig.listed(rig.work())
    assert listed[b"BIG.MP4"].kind is FileKind.REFUSED
    assert listed[b"BIG.MP4"].file.size_bytes == 5 * 1024**3
    rig.fake.operations += (0x95C1,)
    assert rig.listed(rig.work())[b"BIG.MP4"].kind is FileKind.CLIP


def test_a_camera_that_gives_no_parts_has_its_clips_refused(rig):
    rig.fake.operations = tuple(one for one in rig.fake.operations if one != PART)
    assert rig.listed(rig.work())[b"DCIM/100X/A.MP4"].kind is FileKind.REFUSED


def test_a_clip_that_changed_or_went_is_told(rig):
    work = rig.work()
    file = rig.listed(work)[b"DCIM/100X/A.MP4"].file
    rig.fake.things[rig.handle].content += b"more"
    rig.fake.things[rig.handle].size += 4
    with pytest.raises(ClipChanged, match="bytes instead of"):
        acquire(work, NAME, file)
    del rig.fake.things[rig.handle]
    with pytest.raises(ClipGone):
        acquire(work, NAME, file)
    assert not list(rig.directory.iterdir())


def test_two_objects_of_one_path_are_nobodys_clip(rig):
    rig.fake.put("DCIM/100X/A.MP4", b"another")
    work = rig.work()
    with pytest.raises(ClipRefused, match="several files"):
        acquire(work, NAME, rig.listed(work)[b"DCIM/100X/A.MP4"].file)


def test_what_the_camera_does_not_give_stands_as_zeros(rig):
    original = rig.fake._part
    bad = range(8192, 12288)
    rig.fake._part = lambda handle, offset, size: (
        0x2002 if offset < bad.stop and offset + size > bad.start else original(handle, offset, size)
    )
    work = rig.work()
    sealed = acquire(work, NAME, rig.listed(work)[b"DCIM/100X/A.MP4"].file)
    assert "4096 bytes could not be read" in sealed.verdict.reasons[0]
    assert rig.opened() == CONTENT[:8192] + bytes(4096) + CONTENT[12288:]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EPROTO, errno.EOVERFLOW])
def test_a_transfer_that_fails_once_begins_a_new_session_and_loses_nothing(rig, number):
    work = rig.work()
    file = rig.listed(work)[b"DCIM/100X/A.MP4"].file
    original = rig.fake._part

    def once(*parameters):
        rig.fake._part = original
        rig.fake.fail = [number]
        return original(*parameters)

    rig.fake._part = once
    acquire(work, NAME, file)
    assert rig.opened() == CONTENT
    assert rig.fake.restarts == 1


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EPROTO])
def test_a_transfer_that_fails_once_costs_no_clip_and_no_listing(rig, number):
    work = rig.work()
    rig.fake.fail = [number]
    file = rig.listed(work)[b"DCIM/100X/A.MP4"].file
    for skipped in range(8):
        original = rig.fake._check
        left = [skipped]

        def check(original=original, left=left):
            original()
            left[0] -= 1
            if left[0] == -1:
                raise OSError(number, "made up")

        rig.fake._check = check
        reread(work, NAME, file)
        rig.fake._check = original


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ENODEV, errno.ESHUTDOWN])
def test_a_camera_that_is_silent_or_gone_is_gone(rig, number):
    work = rig.work()
    file = rig.listed(work)[b"DCIM/100X/A.MP4"].file
    rig.fake.fail = [number]
    with pytest.raises(CameraGone):
        acquire(work, NAME, file)
    rig.fake.fail = [number]
    with pytest.raises(CameraGone):
        list(work.camera.walk(RULES))


def test_a_pulled_camera_is_not_an_empty_one(rig):
    work = rig.work()
    rig.fake.present = False
    assert not work.camera.attached()
    with pytest.raises(CameraGone):
        list(work.camera.walk(RULES))


@pytest.mark.parametrize(
    "mangle",
    [
        lambda transfers: [transfers[0][:5]],
        lambda transfers: [b""] * 9,
        lambda transfers: [b"\xff" * 512, *transfers],
        lambda transfers: [transfers[0] + b"x" * 20, *transfers[1:]],
        lambda transfers: [transfers[0][:8] + b"\x77" + transfers[0][9:], *transfers[1:]],
        lambda transfers: [b"\xff\xff\xff\x7f" + transfers[0][4:], *transfers[1:]],
        lambda transfers: [*transfers[:-1], transfers[-1] + bytes(6)],
    ],
)
def test_what_is_no_container_never_hangs_and_is_no_content(rig, mangle):
    work = rig.work()
    rig.fake.mangle = mangle
    with pytest.raises(CameraGone):
        list(work.camera.walk(RULES))


def test_p08_another_serial_number_is_another_camera(rig):
    rig.fake.serial_text = "CAM2"
    with pytest.raises(CameraRefused):
        rig.work()
    assert rig.fake.closed
    assert not rig.fake.asked


# --- deleting


def test_a_deleted_clip_is_looked_for_in_a_new_session(rig):
    rig.fake.put("DCIM/100X/A.MP4.bak", b"kept")
    rig.fake.put("DCIM/100X/A", b"kept")
    work, warrant = ready_to_erase(rig)
    rig.fake.asked.clear()
    erasure = work.camera.erase(work, warrant, 0)
    assert (erasure.method, erasure.overwritten_bytes) == ("logical-delete", 0)
    assert "new session" in erasure.checked
    assert "0x2009" in erasure.checked
    assert "is not known" in erasure.checked
    asked = [code for code, *_ in rig.fake.asked]
    assert asked.index(DELETE) < asked.index(0x1003) < asked.index(0x1002) < asked.index(CHILDREN) < asked.index(PART)
    assert [parameters for code, *parameters in rig.fake.asked if code == DELETE] == [[rig.handle, 0]]
    assert set(rig.listed(work)) == {b"DCIM/100X/A.MP4.bak", b"DCIM/100X/A"}


def test_p01_only_the_object_that_was_read_a_second_time_is_deleted(rig):
    work, warrant = ready_to_erase(rig)
    thing = rig.fake.things.pop(rig.handle)
    rig.fake.add(thing)  # the same name, size and time, as another object
    with pytest.raises(ClipChanged, match="another object"):
        work.camera.erase(work, warrant, 0)
    assert DELETE not in [code for code, *_ in rig.fake.asked]


def test_p01_nothing_is_deleted_that_was_not_read_a_second_time(rig):
    work = rig.work()
    file = rig.listed(work)[b"DCIM/100X/A.MP4"].file
    acquire(work, NAME, file)
    with pytest.raises(ClipChanged):
        work.camera.erase(work, SimpleNamespace(file=file, remnant=False, camera=IDENTITY, acquisition=NAME), 0)
    assert rig.handle in rig.fake.things


def test_p01_a_clip_that_went_by_itself_deletes_nothing_else(rig):
    rig.fake.put("DCIM/100X/A.MP4x", b"kept")
    work, warrant = ready_to_erase(rig)
    del rig.fake.things[rig.handle]
    with pytest.raises(ClipGone):
        work.camera.erase(work, warrant, 0)
    assert DELETE not in [code for code, *_ in rig.fake.asked]


@pytest.mark.parametrize("handle", [0, 0xFFFFFFFF])
def test_p01_all_objects_at_once_are_never_deleted(rig, handle):
    with pytest.raises(ValueError, match="no object"):
        rig.work().camera.session.delete(handle)


def test_p04_a_camera_that_says_it_deleted_and_did_not_is_found_out(rig):
    work, warrant = ready_to_erase(rig)
    rig.fake.keeps_deleted = True
    with pytest.raises(EraseFailed, match="said that it deleted"):
        work.camera.erase(work, warrant, 0)


def test_p04_a_clip_that_is_only_hidden_is_not_erased(rig):
    work, warrant = ready_to_erase(rig)
    rig.fake.keeps_deleted = True
    original = rig.fake._delete

    def hide(handle, form):
        rig.fake.hides.add(handle)
        return original(handle, form)

    rig.fake._delete = hide
    with pytest.raises(LeftHalfway, match="still describes it"):
        work.camera.erase(work, warrant, 0)
    rig.fake.refuse[INFO, rig.handle] = 0x2009
    work, warrant = ready_to_erase_again(rig)
    with pytest.raises(LeftHalfway, match="still gives its content"):
        work.camera.erase(work, warrant, 0)


def ready_to_erase_again(rig):
    rig.fake.hides.clear()
    held = rig.fake.refuse.pop((INFO, rig.handle))
    work, warrant = ready_to_erase(rig)
    original = rig.fake._delete

    def refuse(handle, form):
        rig.fake.refuse[INFO, rig.handle] = held
        return original(handle, form)

    rig.fake._delete = refuse
    return work, warrant


def test_a_write_protected_clip_stays_and_is_said(rig):
    work, warrant = ready_to_erase(rig)
    rig.fake.refuse[DELETE, None] = 0x200D
    with pytest.raises(EraseFailed, match="0x200D"):
        work.camera.erase(work, warrant, 0)
    assert rig.handle in rig.fake.things


def test_a_camera_that_cannot_delete_is_not_asked_to(rig):
    rig.fake.operations = tuple(one for one in rig.fake.operations if one != DELETE)
    work, warrant = ready_to_erase(rig)
    with pytest.raises(EraseFailed, match="does not delete"):
        work.camera.erase(work, warrant, 0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_p02_a_camera_pulled_while_it_deletes_leaves_the_row_warranted(rig, when):
    work, warrant = ready_to_erase(rig)
    original = rig.fake._delete

    def pulled(handle, form):
        rig.fake.present = False
        return original(handle, form) if when == "after" else 0x2001

    rig.fake._delete = pulled
    with pytest.raises(LeftHalfway, match="not known"):
        work.camera.erase(work, warrant, 0)


def test_p08_another_camera_in_its_place_is_not_erased(rig):
    work, warrant = ready_to_erase(rig)
    rig.fake.serial_text = "CAM2"
    with pytest.raises(EraseFailed, match="cannot say who it is"):
        work.camera.erase(work, warrant, 0)
    assert rig.handle in rig.fake.things


def test_there_are_no_remnants_over_mtp(rig):
    work, warrant = ready_to_erase(rig)
    warrant.remnant = True
    with pytest.raises(EraseFailed, match="no remnant"):
        work.camera.erase(work, warrant, None)


async def test_a_reader_whose_camera_left_the_bus_says_so(rig, tmp_path):
    server = await ForkServer.start()
    incoming_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(CameraGone):
            await server.reader(
                docking=DockingId("01890000-0000-7000-8000-000000000001"),
                epoch=Epoch(1),
                bay=BayNumber(1),
                medium=Medium(kind=MediumKind.MTP, usb_bus=250, usb_device=127),
                incoming_fd=incoming_fd,
                identity=IDENTITY,
                recipients=(rig.key.recipient.text,),
                rules=RULES,
                on_progress=lambda *_: None,
            )
    finally:
        os.close(incoming_fd)
        await server.aclose()
