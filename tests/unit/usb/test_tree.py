"""What a USB device is, by rules on records: which is a camera, which is refused, and why."""

from dataclasses import replace

import pytest

from dockd.devices.usb.tree import Block, Unit, UsbNode, blanks, interfaces, judge, parts, sound_serial, waits_for
from dockd.errors import CameraBlank, CameraRefused
from dockd.model import MediumKind

DISK = Block(name="sda", partition=0, size_bytes=1 << 26, seen=True)
FAT = Block(
    name="sda1", partition=1, size_bytes=1 << 25, seen=True, filesystem="vfat", volume_id="1234-ABCD", label="CAM"
)
UNIT = Unit(lun=0, scsi_type=0, disk=DISK, diskseq=18, partitions=(FAT,))
CAMERA = UsbNode(
    path="/sys/devices/pci0000:00/0000:00:09.0/usb2/2-3",
    port="0000:00:09.0/3",
    bus=2,
    device=2,
    vendor_id="46f4",
    product_id="0001",
    vendor="BODYCAM",
    product="RIG CAMERA",
    serial="X012345",
    interfaces=("080650",),
    seen=True,
    units=(UNIT,),
)


def test_a_camera_of_one_partition():
    assert waits_for(CAMERA) == ""
    assert judge(CAMERA) is MediumKind.VOLUMES
    (part,) = parts(CAMERA, "X012345")
    assert (part.name, part.device, part.diskseq, part.filesystem) == ("", "sda1", 18, "vfat")
    assert CAMERA.key == "usb:0000:00:09.0/3:2.2"
    assert CAMERA.label == "RIG CAMERA X012345"


def test_a_camera_of_a_bare_disk_and_of_several_luns():
    bare = replace(UNIT, disk=replace(FAT, name="sda", partition=0), partitions=())
    assert parts(replace(CAMERA, units=(bare,)), "X")[0].device == "sda"
    second = replace(
        UNIT, lun=1, diskseq=19, partitions=(replace(FAT, name="sdb1"), replace(FAT, name="sdb2", partition=2))
    )
    found = parts(replace(CAMERA, units=(bare, second)), "X")
    assert [(one.name, one.device) for one in found] == [("lun0", "sda"), ("lun1p1", "sdb1"), ("lun1p2", "sdb2")]


def test_an_mtp_camera():
    assert judge(replace(CAMERA, interfaces=("060101",), units=())) is MediumKind.MTP


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"interfaces": ("030101",)}, "a keyboard or mouse"),
        ({"interfaces": ("080650", "030101")}, "a keyboard or mouse"),
        ({"interfaces": ("080650", "020600", "0a0000")}, "a modem or network"),
        ({"interfaces": ("080650", "ff4201")}, "only its vendor knows"),
        ({"interfaces": ("080650", "420000")}, "class 42"),
        ({"interfaces": ("060101", "080650")}, "both a disk and an MTP device"),
        ({"interfaces": ("090000",)}, "is a hub"),
        ({"interfaces": ()}, "names no interface"),
        ({"authorised": False}, "authorized=0"),
    ],
)
def test_p08_what_is_no_camera_or_not_only_one_is_refused(change, words):
    node = replace(CAMERA, **change)
    assert waits_for(node) == ""
    with pytest.raises(CameraRefused, match=words):
        judge(node)


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ((replace(UNIT, disk=replace(DISK, size_bytes=0), partitions=()),), "no card"),
        ((replace(UNIT, partitions=(replace(FAT, filesystem="ntfs"),)),), "ntfs"),
        ((replace(UNIT, partitions=(replace(FAT, filesystem="crypto_LUKS"),)),), "crypto_LUKS"),
        ((replace(UNIT, partitions=(replace(FAT, volume_id=""),)),), "no volume id"),
        ((replace(UNIT, disk=replace(FAT, partition=0)),), "partitions and is a file system too"),
        ((UNIT, Unit(lun=1, scsi_type=5)), "CD drive"),
    ],
)
def test_p08_disks_that_are_not_all_known_are_refused(units, words):
    with pytest.raises(CameraRefused, match=words) as caught:
        parts(replace(CAMERA, units=units), "X")
    assert not isinstance(caught.value, CameraBlank)


def test_p05_a_volume_with_nothing_known_on_it_makes_the_whole_camera_blank():
    blank = replace(FAT, name="sda2", partition=2, filesystem="", volume_id="", label="")
    node = replace(CAMERA, units=(replace(UNIT, partitions=(FAT, blank)),))
    with pytest.raises(CameraBlank, match="LUN 0, partition 2") as caught:
        parts(node, "X012345")
    assert caught.value.serial == "X012345"
    assert [(one.name, one.filesystem) for one in blanks(node)] == [("lun0p1", "vfat"), ("lun0p2", "")]


def test_an_extended_partition_only_holds_others_and_an_empty_slot_is_no_volume():
    extended = replace(FAT, name="sda2", partition=2, filesystem="", container=True)
    empty = Unit(lun=1, scsi_type=0, disk=replace(DISK, name="sdb", size_bytes=0), diskseq=19)
    node = replace(CAMERA, units=(replace(UNIT, partitions=(FAT, extended)), empty))
    assert [one.device for one in parts(node, "X")] == ["sda1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seen": False}, "udev has not looked at it"),
        ({"units": ()}, "disks have not appeared"),
        ({"units": (Unit(lun=0, scsi_type=0),)}, "the disk of LUN 0"),
        ({"units": (replace(UNIT, disk=replace(DISK, seen=False)),)}, "into sda yet"),
        ({"units": (replace(UNIT, partitions=(replace(FAT, seen=False),)),)}, "into sda1 yet"),
        ({"units": (UNIT, Unit(lun=1, scsi_type=0))}, "the disk of LUN 1"),
    ],
)
def test_what_is_still_to_come_is_waited_for(change, words):
    assert words in waits_for(replace(CAMERA, **change))


@pytest.mark.parametrize("serial", ["", " X", "X ", "-X", "X\n1", "X\x1b[2J", "é1", "X" * 127])
def test_p08_a_camera_without_a_sound_serial_is_refused(serial):
    with pytest.raises(CameraRefused, match="serial number"):
        sound_serial(CAMERA, serial)


def test_sound_serials():
    for serial in ("X012345", "1", "AA 01/7", "X" * 126):
        assert sound_serial(CAMERA, serial) == serial


def test_interfaces_of_all_configurations_and_settings_are_read_from_the_descriptors():
    device = bytes([18, 1]) + bytes(16)
    configuration = bytes([9, 2]) + bytes(7)
    storage = bytes([9, 4, 0, 0, 2, 8, 6, 0x50, 0])
    uas = bytes([9, 4, 0, 1, 4, 8, 6, 0x62, 0])
    endpoint = bytes([7, 5]) + bytes(5)
    keyboard = bytes([9, 4, 0, 0, 1, 3, 1, 1, 0])
    found = interfaces(
        device + configuration + storage + endpoint + uas + endpoint + configuration + keyboard + storage
    )
    assert found == ("080650", "080662", "030101")


@pytest.mark.parametrize("tail", [b"", b"\x09", b"\x00\x04", b"\x01\x04", b"\x09\x04\x00", b"\x04\x04\x08\x06"])
def test_broken_descriptors_end_the_reading(tail):
    assert interfaces(bytes([9, 4, 0, 0, 2, 8, 6, 0x50, 0]) + tail) in (("080650",), ("080650", ""))
