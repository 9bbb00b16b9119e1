"""The verbs on real loop devices with ext4: what is locked, who owns what, what is refused, what is left behind."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dockd.blocker.verbs import PeerLeft

NOBODY = 65534
MARKER = b"DOCKD-MARKER-" * 40


@pytest.fixture
def guard(card):
    made = card.guard()
    yield made
    made.release()


@pytest.fixture
def opened():
    """Keeps what an answer brought, and closes it."""
    kept = []

    def take(answered):
        answer, descriptors = answered
        assert answer.ok, answer
        kept.extend(descriptors)
        return descriptors

    def close():
        while kept:
            os.close(kept.pop())

    take.close = close
    yield take
    close()


def content(root, path="DCIM/A.MP4"):
    fd = os.open(path, os.O_RDONLY, dir_fd=root)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def test_p04_a_camera_is_locked_before_it_is_mounted_and_no_byte_of_it_changes(card, guard, opened):
    before = card.digest()
    root, block = opened(guard.handle(card.request("read")))
    assert card.locked
    assert content(root) == MARKER
    with pytest.raises(OSError, match="Read-only"):
        os.open("DCIM/A.MP4", os.O_RDWR, dir_fd=root)
    assert os.pread(block, 2, 1024 + 56) == b"\x53\xef"
    with pytest.raises(OSError, match="descriptor"):
        os.pwrite(block, b"x", 0)
    opened.close()
    guard.release()
    assert card.locked
    assert card.digest() == before


def test_the_mount_is_in_no_table_and_everything_belongs_to_who_asked(card, guard, opened):
    root, _ = opened(guard.handle(card.request("read")))
    assert card.device not in Path("/proc/self/mountinfo").read_text()
    assert os.stat("DCIM/A.MP4", dir_fd=root).st_uid == NOBODY
    assert os.stat("..", dir_fd=root).st_ino == os.stat(".", dir_fd=root).st_ino


def test_an_unprivileged_peer_writes_and_what_it_wrote_is_on_the_medium_before_it_is_read_only_again(
    card, guard, opened
):
    opened(guard.handle(card.request("read")))
    opened.close()
    root, _ = opened(guard.handle(card.request("write")))
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            fd = os.open("DCIM/B.MP4", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=root)
            os.write(fd, b"written")
            os.unlink("DCIM/A.MP4", dir_fd=root)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    opened.close()
    root, _ = opened(guard.handle(card.request("read")))
    assert card.locked
    assert os.listdir(os.open("DCIM", os.O_RDONLY, dir_fd=root)) == ["B.MP4"]
    assert content(root, "DCIM/B.MP4") == b"written"


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"port": "0000:00:09.0/3"}, "refused"),
        ({"serial": "X012346"}, "refused"),
        ({"diskseq": 1}, "gone"),
        ({"device": "sdzz9"}, "gone"),
    ],
)
def test_p08_a_device_that_is_not_the_one_meant_is_refused_and_left_as_it_is(card, guard, changed, kind):
    for verb in ("read", "write"):
        answer, descriptors = guard.handle(card.request(verb, **changed))
        guard = card.guard()
        assert (answer.ok, answer.error, descriptors) == (False, kind, ())
    assert not card.locked


def test_p08_a_disk_that_sysfs_does_not_show_as_the_one_opened_is_refused(card, guard):
    (card.disk / "diskseq").write_text("99999\n")
    assert guard.handle(card.request("read", diskseq=99999))[0].error == "gone"
    (card.disk / "dev").write_text("7:9999\n")
    (card.udev / "b7:9999").write_text("E:ID_FS_TYPE=ext4\n")
    assert card.guard().handle(card.request("read", diskseq=99999))[0].error == "gone"


@pytest.mark.parametrize("verb", ["read", "write", "make"])
def test_p08_a_device_at_a_port_that_root_gave_to_no_bay_is_refused_whoever_asks(card, verb):
    card.config.write_text('[bays.ports]\n1 = ["0000:00:09.0/8"]\n2 = ["0000:00:09.0/8.2.1"]\n')
    assert_refused(card, "which is no bay's", verb=verb)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no ports"),
        ('[bays]\nfolder_root = "/srv/dockd/bays"\n', "names no ports"),
        ("bays = 1", "names no ports"),
        ("[bays.ports]\n1 = 7\n", "names no ports"),
        ("[bays.ports]\n1 = [[]]\n", "names no ports"),
        ("[bays.ports", "names no ports"),
        ("[bays.ports]\n", "which is no bay's"),
        (None, "may be changed by others"),  # it is not there: neither is it root's
    ],
)
def test_p08_without_a_list_of_ports_every_device_is_refused(card, text, words):
    card.config.unlink() if text is None else card.config.write_text(text)
    assert_refused(card, words)


@pytest.mark.parametrize("what", ["file", "directory"])
@pytest.mark.parametrize("how", ["owner", "mode"])
def test_p08_a_list_of_ports_that_others_than_root_may_change_counts_for_nothing(card, what, how):
    place = card.config if what == "file" else card.config.parent
    if how == "owner":
        os.chown(place, NOBODY, -1)
    else:
        place.chmod(0o775)
    assert_refused(card, "give it, and the directories above it, to root alone")


@pytest.mark.parametrize("record", [0, 1])
def test_p08_a_device_that_a_rule_marks_as_ignored_is_refused_whoever_asks(card, record):
    with card.records[record].open("a") as file:
        file.write("E:DOCKD_IGNORE=1\n")
    assert_refused(card, "DOCKD_IGNORE")


def test_p08_a_disk_that_is_ignored_is_refused_by_its_partition_too(card):
    """The record of the volume says nothing; that of its disk does."""
    number = (card.disk / "dev").read_text().strip()
    partition = card.disk / f"{card.device}p1"
    partition.mkdir()
    for name, value in {"partition": "1", "dev": "7:9998", "size": "1"}.items():
        (partition / name).write_text(f"{value}\n")
    (card.sys / "class/block" / partition.name).symlink_to(partition)
    (card.udev / "b7:9998").write_text("E:ID_FS_TYPE=ext4\n")
    (card.udev / f"b{number}").write_text("E:DOCKD_IGNORE=1\n")
    assert_refused(card, "DOCKD_IGNORE", device=partition.name)


@pytest.mark.parametrize("record", [0, 1])
def test_a_device_that_udev_has_not_come_to_yet_is_asked_for_again(card, record):
    card.records[record].unlink()
    answer, descriptors = card.guard().handle(card.request("read"))
    assert (answer.error, descriptors) == ("busy", ())
    assert not card.locked


def assert_refused(card, words, *, verb="read", **changed):
    before = card.digest()
    more = {"method": "clear", "like": {}} if verb == "make" else {}
    for uid in (0, NOBODY):
        answer, descriptors = card.guard(uid).handle(card.request(verb, **more, **changed))
        assert (answer.ok, answer.error, descriptors) == (False, "refused", ())
        assert words in answer.message
    assert not card.locked, "it was touched"
    assert card.digest() == before


def test_p08_a_device_that_is_a_keyboard_too_is_refused(card, guard):
    keyboard = card.disk.parents[5] / "2-8.2:1.1"
    keyboard.mkdir()
    for name, value in (("Class", "03"), ("SubClass", "01"), ("Protocol", "01")):
        (keyboard / f"bInterface{name}").write_text(value)
    answer, _ = guard.handle(card.request("read"))
    assert answer.error == "refused"
    assert "030101" in answer.message


def test_p08_a_disk_that_is_none_of_usb_mass_storage_is_refused(card, guard):
    driver = card.disk.parents[5] / "2-8.2:1.0" / "driver"
    driver.unlink()
    driver.symlink_to("usblp")
    assert guard.handle(card.request("read"))[0].error == "refused"


@pytest.mark.parametrize(("verb", "more"), [("write", {}), ("make", {"method": "clear"})])
def test_a_disk_with_partitions_is_not_written_as_a_whole(card, guard, verb, more):
    partition = card.disk / "sdx1"
    partition.mkdir()
    for name, value in (("partition", "1"), ("dev", "8:1")):
        (partition / name).write_text(value)
    answer, _ = guard.handle(card.request(verb, **more))
    assert answer.error == "refused"
    assert "partitions" in answer.message


def test_what_is_mounted_elsewhere_is_left_alone(card, guard, tmp_path):
    place = tmp_path / "here"
    place.mkdir()
    subprocess.run(["mount", card.node, place], check=True)
    try:
        answer, _ = guard.handle(card.request("write"))
        assert answer.error == "busy"
        assert str(place) in answer.message
        assert not card.locked
    finally:
        subprocess.run(["umount", place], check=True)
    assert card.guard().handle(card.request("read"))[0].ok


def test_a_mount_that_somebody_still_holds_is_waited_for_and_then_refused(card, guard, opened):
    looks = []
    guard = card.guard(waits=lambda seconds: looks.append(seconds) or True)
    opened(guard.handle(card.request("read")))
    answer, _ = guard.handle(card.request("write"))
    assert answer.error == "busy"
    assert 2.5 < sum(looks) < 3.5
    assert card.locked


def test_a_peer_that_leaves_while_it_is_waited_for_ends_it_all(card, guard, opened):
    guard = card.guard(waits=lambda _seconds: False)
    opened(guard.handle(card.request("write")))
    with pytest.raises(PeerLeft):
        guard.handle(card.request("read"))
    assert card.locked


def test_a_connection_is_for_one_volume(card, guard, opened):
    opened(guard.handle(card.request("read")))
    assert guard.handle(card.request("read", device="sda"))[0].error == "refused"


def test_a_volume_that_is_not_what_was_said_cannot_be_mounted(card, guard):
    with open(card.node, "r+b") as file:
        file.write(bytes(8192))
    answer, _ = guard.handle(card.request("read"))
    assert answer.error == "unmountable"
    assert card.locked


@pytest.mark.parametrize("method", ["clear", "discard"])
def test_make_leaves_nothing_and_a_file_system_like_the_one_before(card, guard, opened, method):
    assert MARKER in card.image.read_bytes()
    uuid = "11111111-2222-4333-8444-555555555555"
    like = {"label": "CAM", "volume_id": uuid, "block_bytes": 1024, "inode_bytes": 256, "inodes": 4096}
    answer, descriptors = guard.handle(card.request("make", method=method, like=like))
    assert answer.ok, answer
    assert f"{16 << 20} bytes" in answer.done
    assert descriptors == ()
    assert card.locked
    assert MARKER not in card.image.read_bytes()
    root, _ = opened(guard.handle(card.request("read")))
    assert os.listdir(os.open(".", os.O_RDONLY, dir_fd=root)) == ["lost+found"]
    shown = subprocess.run(["blkid", "-p", card.image], check=True, capture_output=True, text=True).stdout
    assert f'UUID="{uuid}"' in shown
    assert 'LABEL="CAM"' in shown


def test_make_goes_on_without_what_the_program_does_not_take_and_says_so(card, guard):
    like = {"label": "CAM", "block_bytes": 1024, "features": "none,no_such_feature"}
    answer, _ = guard.handle(card.request("make", method="clear", like=like))
    assert answer.ok, answer
    assert "no_such_feature" not in answer.done


def test_p01_what_should_be_half_cleared_but_does_not_begin_with_zeros_is_left_alone(card, guard):
    before = card.image.read_bytes()
    with open(card.node, "r+b") as file:
        file.write(bytes(8192))  # damaged so that no file system is found, and all the rest still there
    answer, _ = guard.handle(card.request("make", method="clear", blank=True))
    assert (answer.error, card.locked) == ("refused", True)
    assert card.image.read_bytes()[8192:] == before[8192:]
    with card.image.open("r+b") as file:  # the device itself is locked
        file.write(bytes(1 << 20))
    answer, _ = guard.handle(card.request("make", method="clear", like={}, blank=True))
    assert answer.ok, answer


def test_make_ends_before_the_next_piece_when_the_peer_leaves(card):
    with pytest.raises(PeerLeft):
        card.guard(waits=lambda _seconds: False).handle(card.request("make", method="clear", like={}))
    assert card.locked


def test_the_programs_that_make_file_systems_are_here():
    for name in ("mkfs.vfat", "mkfs.exfat", "tune.exfat", "mke2fs"):
        assert shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin"), name
