"""Ports and places, from made-up trees."""

import shutil

import pytest

from dockd.blocker.inuse import check_unused
from dockd.blocker.messages import BlockerError
from dockd.blocker.sysfs import NoPlace, place, port_of, usb_place

PCI = "/sys/devices/pci0000:00/0000:00:09.0"


@pytest.mark.parametrize(
    ("path", "port"),
    [
        (f"{PCI}/usb2/2-3/2-3:1.0/host0/target0:0:0/0:0:0:0/block/sda/sda1", "0000:00:09.0/3"),
        (f"{PCI}/usb2/2-8/2-8.2/2-8.2:1.0", "0000:00:09.0/8.2"),
        (f"{PCI}/usb1/1-8/1-8.2", "0000:00:09.0/8.2"),
        ("/sys/devices/platform/dummy_hcd.0/usb5/5-1", "dummy_hcd.0/1"),
        ("/sys/devices/platform/soc/fe9c0000.xhci/usb10/10-12/10-12.14", "fe9c0000.xhci/12.14"),
        (f"{PCI}/usb2", ""),
        ("/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda", ""),
        ("/2-3", ""),
        ("", ""),
    ],
)
def test_a_port_is_its_controller_and_the_way_from_there(path, port):
    assert port_of(path) == port


@pytest.fixture
def tree(tmp_path, usb_tree):
    disk = usb_tree(tmp_path / "sys", "sda", "8:0", 20)
    (disk / "sda2").mkdir()
    for name, value in {"dev": "8:2", "partition": 2, "size": 2048}.items():
        (disk / "sda2" / name).write_text(f"{value}\n")
    (tmp_path / "sys/class/block/sda2").symlink_to(disk / "sda2")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("1 0 253:0 / / rw - ext4 /dev/vda rw\n")
    (tmp_path / "proc/swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n")
    return tmp_path


def test_a_partition_knows_its_disk_its_lun_and_its_camera(tree):
    found = place("sda2", tree / "sys")
    assert (found.disk, found.partition, found.lun, found.diskseq) == ("sda", 2, 1, 20)
    assert (found.number, found.disk_number, found.size_bytes) == ((8, 2), (8, 0), 1 << 20)
    assert (found.port, found.serial, found.driver) == ("0000:00:09.0/8.2", "X012345", "usb-storage")
    assert (found.usb.bus, found.usb.device, found.usb.vendor_id, found.usb.vendor) == (2, 7, "46f4", "")
    assert found.usb.interfaces == ("080650",)
    assert place("sda", tree / "sys").partition == 0
    assert usb_place(tree / "sys/class/block/sda2") == found.usb


def test_what_left_is_told_from_what_is_no_usb_storage(tree):
    with pytest.raises(NoPlace) as error:
        place("sdb", tree / "sys")
    assert error.value.gone
    (tree / "sys/class/block/vda").symlink_to(tree / "proc")
    with pytest.raises(NoPlace) as error:
        place("vda", tree / "sys")
    assert not error.value.gone
    found = place("sda2", tree / "sys")
    shutil.rmtree(found.usb.path)
    with pytest.raises(NoPlace) as error:
        place("sda2", tree / "sys")
    assert error.value.gone


def test_an_unused_disk_is_unused(tree):
    check_unused(place("sda2", tree / "sys"), tree / "proc")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2 1 8:1 / /media/CAM rw - vfat /dev/sda1 rw", None),  # sda1 is no partition that there is
        ("2 1 8:2 / /media/CAM\\0401 rw - vfat /dev/sda2 rw", "busy"),
        ("2 1 8:0 / /media/CAM rw shared:1 - vfat /dev/sda rw", "busy"),
        ("2 1 8:2 / / rw - ext4 /dev/sda2 rw", "refused"),
        ("2 1 8:2 / /boot/efi rw - vfat /dev/sda2 rw", "refused"),
        ("2 1 8:2 / /variety rw - vfat /dev/sda2 rw", "busy"),
    ],
)
def test_a_disk_that_is_mounted_is_busy_and_one_that_the_machine_runs_from_is_refused(tree, line, kind):
    with (tree / "proc/self/mountinfo").open("a") as file:
        file.write(line + "\n")
    found = place("sda", tree / "sys")
    if kind is None:
        check_unused(found, tree / "proc")
        return
    with pytest.raises(BlockerError) as error:
        check_unused(found, tree / "proc")
    assert error.value.kind == kind


def test_a_disk_that_another_device_is_made_of_is_refused(tree):
    found = place("sda2", tree / "sys")
    (tree / "sys/class/block/sda2/holders/dm-0").mkdir(parents=True)
    with pytest.raises(BlockerError, match="part of dm-0"):
        check_unused(found, tree / "proc")
