"""What a reader knows of media, block devices and stretches of them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.canonical import encode_path
from dockd.errors import CameraGone, ReaderDied
from dockd.model import AcquisitionId, CameraIdentity, FoundFile, Medium, MediumKind, Volume
from dockd.reader import messages
from dockd.reader.batch import covered
from dockd.reader.block import PAGE, BlockDevice
from dockd.reader.handover import MAX_VOLUMES, descriptors, medium_from_wire, medium_to_wire
from dockd.reader.mounted import MountedCamera
from dockd.reader.plan import FILES_AT_ONCE, batches, words_from_wire

names = st.text(alphabet="lunp0123456789", max_size=8)
volumes = st.builds(
    Volume,
    name=names,
    filesystem=st.sampled_from(["vfat", "exfat", "ext4"]),
    volume_id=names,
    root_fd=st.integers(3, 200),
    block_fd=st.one_of(st.just(-1), st.integers(3, 200)),
    dirty=st.text(max_size=40),
)


@given(st.lists(volumes, min_size=1, max_size=MAX_VOLUMES))
def test_a_medium_arrives_with_the_descriptors_of_each_volume(listed):
    medium = Medium(kind=MediumKind.VOLUMES, volumes=tuple(listed))
    arrived = medium_from_wire(medium_to_wire(medium), descriptors(medium))
    assert [volume.dirty.encode(errors="backslashreplace").decode() for volume in listed] == [
        volume.dirty for volume in arrived.volumes
    ]
    assert [(v.name, v.filesystem, v.volume_id, v.root_fd, v.block_fd) for v in arrived.volumes] == [
        (v.name, v.filesystem, v.volume_id, v.root_fd, v.block_fd) for v in listed
    ]


def test_an_mtp_device_has_an_address_and_no_descriptors():
    medium = Medium(kind=MediumKind.MTP, usb_bus=2, usb_device=7)
    assert medium_from_wire(medium_to_wire(medium), ()) == medium
    with pytest.raises(ReaderDied):
        medium_from_wire(medium_to_wire(medium), (3,))


@pytest.mark.parametrize("fds", [(), (3,), (3, 4, 5)])
def test_a_medium_with_other_descriptors_than_it_describes_is_refused(fds):
    volume = Volume(name="", filesystem="vfat", volume_id="1234-ABCD", root_fd=3, block_fd=4)
    wire = medium_to_wire(Medium(kind=MediumKind.VOLUMES, volumes=(volume,)))
    with pytest.raises(ReaderDied):
        medium_from_wire(wire, fds)


@pytest.mark.parametrize("change", [{"kind": "tape"}, {"volumes": 3}, {"volumes": [3]}, {"usb_bus": "1"}])
def test_a_medium_that_is_none_is_refused(change):
    with pytest.raises(ReaderDied):
        medium_from_wire(medium_to_wire(Medium(kind=MediumKind.MTP)) | change, ())


def test_more_volumes_than_a_camera_has_are_not_sent():
    volume = Volume(name="", filesystem="vfat", volume_id="1234-ABCD", root_fd=3, block_fd=4)
    with pytest.raises(ValueError, match="17 volumes"):
        medium_to_wire(Medium(kind=MediumKind.VOLUMES, volumes=(volume,) * (MAX_VOLUMES + 1)))


def test_the_longest_paths_of_a_plan_fit_into_its_messages():
    path = b"\xff" * 4096 + b"/" + b"\xff" * 255
    files = {
        AcquisitionId(f"01890000-0000-7000-8000-{number:012x}"): FoundFile(
            path=path, size_bytes=1 << 60, mtime_ns=1 << 60, inode=1 << 60
        )
        for number in range(FILES_AT_ONCE + 1)
    }
    pieces = list(batches(files))
    assert [len(piece) for piece in pieces] == [FILES_AT_ONCE, 1]
    for piece in pieces:
        assert encode_path(path) in str(messages.pack(1, "plan_files", files=piece))


def test_words_about_acquisitions_are_words():
    assert words_from_wire({"unclear": {"a": "b"}}, "unclear") == {"a": "b"}
    for wrong in ({}, {"unclear": 1}, {"unclear": {"a": 1}}):
        with pytest.raises(ReaderDied):
            words_from_wire(wrong, "unclear")


stretches = st.tuples(st.integers(0, 60), st.integers(1, 20))


@given(stretches, st.lists(stretches, max_size=6))
def test_covered_means_that_every_byte_is_in_one_of_the_others(place, others):
    inside = {byte for offset, length in others for byte in range(offset, offset + length)}
    assert covered(place, others) is (set(range(place[0], sum(place))) <= inside)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """A file in the place of a device: three pages and a bit more, of which the second is zeros."""
    path = tmp_path_factory.mktemp("device") / "device"
    content = bytes([1]) * PAGE + bytes(PAGE) + bytes([3]) * PAGE + bytes([4]) * 512
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    yield BlockDevice(fd), content
    os.close(fd)


@given(st.integers(0, 4 * PAGE), st.integers(0, 4 * PAGE))
def test_a_device_is_read_at_any_offset(device, offset, size):
    reader, content = device
    assert reader.read(offset, size) == content[offset : offset + size]


@given(st.integers(0, 3 * PAGE + 511), st.integers(1, 3 * PAGE))
def test_sectors_that_are_not_zeros_are_named(device, offset, size):
    reader, content = device
    if offset + size > len(content):
        with pytest.raises(OSError, match="ends at"):
            list(reader.other_than_zero(offset, size))
        return
    named = {byte for at, length in reader.other_than_zero(offset, size) for byte in range(at, at + length)}
    assert named == {at for at in range(offset, offset + size) if content[at]}


def test_a_medium_whose_device_does_not_answer_is_gone_and_its_descriptors_are_closed(tmp_path):
    (tmp_path / "device").write_bytes(bytes(PAGE))
    root_fd = os.open(tmp_path, os.O_RDONLY)
    block_fd = os.open(tmp_path / "device", os.O_RDONLY)
    volume = Volume(name="", filesystem="vfat", volume_id="1234-ABCD", root_fd=root_fd, block_fd=block_fd)
    with pytest.raises(CameraGone, match="not 1234-ABCD"):
        MountedCamera(
            Medium(kind=MediumKind.VOLUMES, volumes=(volume,)),
            CameraIdentity(serial="A", model="B", volume_id="1234-ABCD"),
        )
    for fd in (root_fd, block_fd):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
